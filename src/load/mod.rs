// SPDX-License-Identifier: GPL-2.0-or-later
//! Loading: the bodies of `spapr/htab` sections into the guest's table.
//!
//! A record is read in full and checked before any of it reaches the table. When a body is refused, the records before
//! the bad one may be in the table or not, none of the bad one is, and the migration has failed.

pub mod batch;
pub mod section_reader;
pub mod sink;

use crate::error::{Error, Place};
use crate::format::hpte::Order;
use crate::format::record::RecordHeader;
use crate::format::section::{BodyHeader, VERSION};
use crate::host::{Host, StreamReader};
use crate::load::batch::Batch;
use crate::load::section_reader::SectionReader;
use crate::load::sink::{KernelSink, MemorySink, Sink};
use crate::stats::LoadStats;
use crate::table::Table;

/// What is loaded of one guest's table.
///
/// A body's records are in the table when its load returns. With `gather` those for a kernel's table may wait for the
/// next body's, so that a system call has as many as it can take, until [`Loader::finish`].
#[derive(Default)]
pub struct Loader {
    gather: bool,
    /// No body with records is to come.
    finished: bool,
    /// What waits, for a table of this order.
    waiting: Option<(Order, Batch)>,
    stats: LoadStats,
}

impl Loader {
    /// Without a table.
    #[must_use]
    pub fn new(gather: bool) -> Loader {
        Loader { gather, ..Loader::default() }
    }

    /// What was loaded of the table announced last. What waits is counted when it goes into the table.
    #[must_use]
    pub fn stats(&self) -> &LoadStats {
        &self.stats
    }

    /// Loads one body into the host's table.
    ///
    /// The kernel's fd is opened when there are records for it and closed when this returns, so an empty body touches
    /// nothing. After a failure nothing waits.
    ///
    /// # Errors
    /// A failed stream, a stream that makes no sense, a table that refuses; the host's errors.
    pub fn load(
        &mut self,
        host: &dyn Host,
        stream: &mut dyn StreamReader,
        version: i32,
    ) -> Result<(), Error> {
        let waiting = self.waiting.take();
        if version != VERSION {
            return Err(Error::Version(version));
        }
        let began = host.now();
        let mut body = SectionReader::new(stream);
        let result = match body.header()? {
            BodyHeader::NoTable => {
                self.begin_table();
                host.free().map_err(Error::Free)
            }
            BodyHeader::Table(order) => {
                self.begin_table();
                log::debug!("spapr/htab: a table of order {} arrives", order.log2_bytes());
                host.allocate(order).map_err(|errno| Error::Allocate(order, errno))
            }
            BodyHeader::Records => self.load_records(host, &mut body, waiting),
        };
        self.stats.bodies += 1;
        self.stats.time += host.now().since(began);
        result
    }

    /// Loads what waits. All bodies with records have come, and the guest may run after this; should more come all the
    /// same, they do not wait.
    ///
    /// # Errors
    /// A table that refuses; the host's errors.
    pub fn finish(&mut self, host: &dyn Host) -> Result<(), Error> {
        self.finished = true;
        let Some((order, mut batch)) = self.waiting.take() else { return Ok(()) };
        let began = host.now();
        let result = Target::new(host, order).load(&mut batch, &mut self.stats);
        self.stats.time += host.now().since(began);
        result
    }

    /// Forgets what waits, and returns how many records that were.
    pub fn abandon(&mut self) -> usize {
        self.waiting.take().map_or(0, |(_, batch)| batch.records().len())
    }

    fn begin_table(&mut self) {
        *self = Loader::new(self.gather);
    }

    fn load_records(
        &mut self,
        host: &dyn Host,
        body: &mut SectionReader<'_>,
        waiting: Option<(Order, Batch)>,
    ) -> Result<(), Error> {
        let (waiting_for, batch) = waiting.unzip();
        let mut in_kernel = false;
        let open = |place, header| {
            let table = host.table()?;
            if waiting_for.is_some() && waiting_for != table.order() {
                return Err(Error::TableReplaced);
            }
            let order = table.order().ok_or(Error::NoTable(place, header))?;
            in_kernel = matches!(table, Table::Kernel(_));
            Ok((order, Target::new(host, order)))
        };
        let mut batch = batch.unwrap_or_default();
        let stats = &mut self.stats;
        let target = read_records(body, &mut batch, open, |target, batch| target.load(batch, stats))?;
        match target {
            Some(mut target) if !(in_kernel && self.gather && !self.finished) => {
                return target.load(&mut batch, &mut self.stats);
            }
            Some(target) => self.waiting = Some((target.order, batch)),
            None => self.waiting = waiting_for.map(|order| (order, batch)),
        }
        Ok(())
    }
}

/// Reads one body and throws it away: the guest may already run here.
///
/// # Errors
/// A failed stream, a stream that makes no sense for any table; [`Error::TooLate`] for a size.
pub fn discard(stream: &mut dyn StreamReader, version: i32) -> Result<(), Error> {
    if version != VERSION {
        return Err(Error::Version(version));
    }
    let mut body = SectionReader::new(stream);
    match body.header()? {
        BodyHeader::NoTable => Ok(()),
        BodyHeader::Table(order) => Err(Error::TooLate(order)),
        BodyHeader::Records => {
            let any = |_, _| Ok((Order::MAX, ()));
            read_records(&mut body, &mut Batch::default(), any, |(), _| Ok(())).map(drop)
        }
    }
}

/// The guest's table, opened when there is something for it.
struct Target<'a> {
    host: &'a dyn Host,
    /// The order that the records were checked against.
    order: Order,
    kernel: Option<KernelSink>,
}

impl Target<'_> {
    fn new(host: &dyn Host, order: Order) -> Target<'_> {
        Target { host, order, kernel: None }
    }

    fn load(&mut self, batch: &mut Batch, stats: &mut LoadStats) -> Result<(), Error> {
        batch.records().iter().for_each(|record| stats.tally.count(record.header));
        stats.crc.update(batch.bytes());
        stats.demoted += batch.scrub()?;
        // Asked anew for each batch: reading the stream may have yielded, and a reset may have replaced the table
        // meanwhile.
        let table = self.host.table()?;
        if table.order() != Some(self.order) {
            return Err(Error::TableReplaced);
        }
        match table {
            Table::None => Err(Error::TableReplaced),
            Table::Memory(memory) => MemorySink::new(memory).load(batch),
            Table::Kernel(_) => match &mut self.kernel {
                Some(sink) => sink.load(batch),
                none => none.insert(KernelSink::open(self.host)?).load(batch),
            },
        }
    }
}

/// Reads the records of a body behind those of a batch, up to the one that ends the body; hands the batch on whenever
/// it is full, and leaves the rest in it.
///
/// `open` is called for the body's first record: it says how large the table is, and what `take` gets with each batch,
/// which is also what this returns; `None` if the body had no record.
///
/// # Errors
/// A failed stream, a record outside the table, and what `open` and `take` fail with.
pub fn read_records<T>(
    body: &mut SectionReader<'_>,
    batch: &mut Batch,
    open: impl FnOnce(Place, RecordHeader) -> Result<(Order, T), Error>,
    mut take: impl FnMut(&mut T, &mut Batch) -> Result<(), Error>,
) -> Result<Option<T>, Error> {
    body.first_header(batch.first_header())?;
    let first = batch.header();
    if first == RecordHeader::END {
        return Ok(None);
    }
    let (order, mut to) = open(body.place(), first)?;
    loop {
        let header = batch.header();
        if header == RecordHeader::END {
            return Ok(Some(to));
        }
        if !header.fits(order) {
            return Err(Error::OutOfTable(body.place(), header, order));
        }
        if batch.is_full(header) {
            take(&mut to, batch)?;
            batch.clear();
        }
        body.record(header, batch.room(header)?)?;
        batch.push(header)?;
    }
}
