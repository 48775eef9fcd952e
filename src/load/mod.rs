// SPDX-License-Identifier: GPL-2.0-or-later
//! Loading: the bodies of `spapr/htab` sections into the guest's table.
//!
//! A record is read in full and checked before any of it reaches the table. When a body is refused, the records before the
//! bad one may be in the table or not, none of the bad one is, and the migration has failed.

pub mod batch;
pub mod section_reader;
pub mod sink;

use crate::error::{Error, Place};
use crate::format::hpte::Order;
use crate::format::record::{RecordHeader, StreamHeader};
use crate::format::section::{self, BodyHeader};
use crate::host::Host;
use crate::host::StreamReader;
use crate::load::batch::Batch;
use crate::load::section_reader::SectionReader;
use crate::load::sink::{KernelSink, MemorySink, Sink};
use crate::stats::LoadStats;
use crate::table::Table;

/// What is loaded of one guest's table.
///
/// A body's records are in the table when its load returns. With `gather` those for a kernel's table may wait for the next
/// body's, so that a system call has as many as it can take, until [`Loader::finish`].
#[derive(Default)]
pub struct Loader {
    gather: bool,
    /// No body with records is to come.
    finished: bool,
    /// What waits, for a table of this order.
    waiting: Option<(Order, Batch)>,
    report: LoadStats,
}

impl Loader {
    /// Without a table.
    #[must_use]
    pub fn new(gather: bool) -> Loader {
        Loader { gather, ..Loader::default() }
    }

    /// What was loaded of the table announced last. What waits is counted when it goes into the table.
    #[must_use]
    pub fn report(&self) -> &LoadStats {
        &self.report
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
        if version != section::VERSION {
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
        self.report.bodies += 1;
        self.report.time += host.now().since(began);
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
        let mut target = Target::new(host)?;
        target.must_be(order)?;
        let result = target.load(&mut batch, &mut self.report);
        self.report.time += host.now().since(began);
        result
    }

    /// Forgets what waits, and tells how many records that were.
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
        let open = |place, run| {
            let target = Target::new(host)?;
            waiting_for.map_or(Ok(()), |order| target.must_be(order))?;
            Ok((target.order().ok_or(Error::NoTable(place, run))?, target))
        };
        let mut batch = batch.unwrap_or_default();
        let report = &mut self.report;
        let target = read_records(body, &mut batch, open, |target, batch| target.load(batch, report))?;
        match target {
            Some(mut target) if !(self.gather && !self.finished && target.is_kernel()) => {
                return target.load(&mut batch, &mut self.report);
            }
            Some(target) => self.waiting = target.order().map(|order| (order, batch)),
            None => self.waiting = waiting_for.map(|order| (order, batch)),
        }
        Ok(())
    }
}

/// The guest's table, opened when there is something for it.
struct Target<'a> {
    host: &'a dyn Host,
    table: Table,
    sink: Option<Box<dyn Sink>>,
}

impl Target<'_> {
    fn new(host: &dyn Host) -> Result<Target<'_>, Error> {
        Ok(Target { host, table: host.table()?, sink: None })
    }

    fn order(&self) -> Option<Order> {
        self.table.order()
    }

    fn is_kernel(&self) -> bool {
        matches!(self.table, Table::Kernel(_))
    }

    /// Records are checked against the table they came for.
    fn must_be(&self, order: Order) -> Result<(), Error> {
        if self.order() == Some(order) {
            return Ok(());
        }
        Err(Error::State("the hash table was replaced while records for it waited to be loaded"))
    }

    fn load(&mut self, batch: &mut Batch, report: &mut LoadStats) -> Result<(), Error> {
        batch.records().iter().for_each(|record| report.tally.count(record.run));
        report.crc.update(batch.bytes());
        report.demoted += batch.scrub()?;
        let sink = match &mut self.sink {
            Some(sink) => sink,
            none => none.insert(match self.table {
                Table::None => return Err(Error::State("records came for a guest without a hash table")),
                Table::Kernel(_) => Box::new(KernelSink::open(self.host)?),
                Table::Memory(memory) => Box::new(MemorySink::new(memory)),
            }),
        };
        sink.load(batch)
    }
}

/// Reads the records of a body behind those of a batch, up to the one that ends the body; hands the batch on whenever it is
/// full, and leaves the rest in it.
///
/// `open` is called for the body's first record: it says how large the table is, and what `take` is to get with each batch,
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
    if first == StreamHeader::END {
        return Ok(None);
    }
    let (order, mut to) = open(body.place(), first.0)?;
    loop {
        let header = batch.header();
        if header == StreamHeader::END {
            return Ok(Some(to));
        }
        let StreamHeader(run) = header;
        if !run.fits(order) {
            return Err(Error::OutOfTable(body.place(), run, order));
        }
        if batch.is_full(run) {
            take(&mut to, batch)?;
            batch.clear();
        }
        body.record(run, batch.room(run)?)?;
        batch.push(run)?;
    }
}
