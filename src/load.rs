// SPDX-License-Identifier: GPL-2.0-or-later
//! Loading: the bodies of `spapr/htab` sections into the guest's table.
//!
//! A record is read in full and checked before any of it reaches the table. When a body is refused, the records before the
//! bad one may be in the table or not, none of the bad one is, and the migration has failed.

use crate::batch::Batch;
use crate::error::{Error, Place};
use crate::host::Host;
use crate::hpte::Order;
use crate::record::{Extent, StreamHeader};
use crate::report::LoadReport;
use crate::sink::{KernelSink, MemorySink, Sink};
use crate::stream::{self, BodyHeader, BodyReader, Get};
use crate::table::Table;

/// Loads one body into the host's table.
///
/// The kernel's fd is opened for the first record and closed at the body's end, so an empty body touches nothing.
/// `report` gets each record as it is taken, and begins anew when a table is announced.
///
/// # Errors
/// A failed stream, a stream that makes no sense, a table that refuses; the host's errors.
pub fn load(
    host: &dyn Host,
    stream: &mut dyn Get,
    version: i32,
    report: &mut LoadReport,
) -> Result<(), Error> {
    if version != stream::VERSION {
        return Err(Error::Version(version));
    }
    let began = host.now();
    let mut body = BodyReader::new(stream);
    let result = match body.header()? {
        BodyHeader::NoTable => {
            *report = LoadReport::default();
            host.free().map_err(Error::Free)
        }
        BodyHeader::Table(order) => {
            *report = LoadReport::default();
            log::debug!("spapr/htab: a table of order {} arrives", order.log2_bytes());
            host.allocate(order).map_err(|errno| Error::Allocate(order, errno))
        }
        BodyHeader::Records => load_records(host, &mut body, report),
    };
    let took = host.now().since(began);
    report.bodies += 1;
    report.time += took;
    result
}

fn load_records(host: &dyn Host, body: &mut BodyReader<'_>, report: &mut LoadReport) -> Result<(), Error> {
    let open = |place, run| open_sink(host, place, run);
    read_records(body, open, |sink, batch| load_batch(batch, sink.as_mut(), report))
}

/// Reads the records of a body, up to the one that ends it, and hands them on in batches.
///
/// `open` is called for the first record: it says how large the table is, and what `take` is to get with each batch.
///
/// # Errors
/// A failed stream, a record outside the table, and what `open` and `take` fail with.
pub fn read_records<T>(
    body: &mut BodyReader<'_>,
    open: impl FnOnce(Place, Extent) -> Result<(Order, T), Error>,
    mut take: impl FnMut(&mut T, &mut Batch) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut batch = Batch::default();
    body.first_header(batch.first_header())?;
    let first = batch.header();
    if first == StreamHeader::END {
        return Ok(());
    }
    let (order, mut to) = open(body.place(), first.0)?;
    loop {
        let header = batch.header();
        if header == StreamHeader::END {
            return take(&mut to, &mut batch);
        }
        let StreamHeader(run) = header;
        if !run.fits(order) {
            return Err(Error::OutOfTable(body.place(), run, order));
        }
        if batch.is_full(run) {
            take(&mut to, &mut batch)?;
            batch.clear();
        }
        body.record(run, batch.room(run)?)?;
        batch.push(run)?;
    }
}

fn load_batch(batch: &mut Batch, sink: &mut dyn Sink, report: &mut LoadReport) -> Result<(), Error> {
    batch.records().iter().for_each(|record| report.tally.count(record.run));
    report.crc.update(batch.bytes());
    report.demoted += batch.scrub()?;
    sink.load(batch)
}

fn open_sink(host: &dyn Host, place: Place, run: Extent) -> Result<(Order, Box<dyn Sink>), Error> {
    Ok(match host.table()? {
        Table::None => return Err(Error::NoTable(place, run)),
        Table::Kernel(order) => (order, Box::new(KernelSink::open(host)?)),
        Table::Memory(memory) => (memory.order(), Box::new(MemorySink::new(memory))),
    })
}
