// SPDX-License-Identifier: GPL-2.0-or-later
//! Loading: the bodies of `spapr/htab` sections into the guest's table.
//!
//! A record is read in full and checked before any of it reaches the table. When a body is refused, the records before the
//! bad one may be in the table or not, none of the bad one is, and the migration has failed.

use crate::error::{Error, Place};
use crate::host::Host;
use crate::hpte::{self, HPTE_BYTES};
use crate::record::{Extent, HEADER_BYTES, StreamHeader};
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
    report.time.0 += took.0;
    result
}

fn load_records(host: &dyn Host, body: &mut BodyReader<'_>, report: &mut LoadReport) -> Result<(), Error> {
    let mut target: Option<(Table, Box<dyn Sink>)> = None;
    let mut record = Vec::new();
    loop {
        let header = body.record()?;
        if header == StreamHeader::END {
            return target.map_or(Ok(()), |(_, mut sink)| sink.finish());
        }
        let StreamHeader(run) = header;
        let place = body.place();
        let (table, sink) = match &mut target {
            Some(open) => open,
            None => target.insert(open_sink(host, place, run)?),
        };
        match table.order() {
            Some(order) if run.fits(order) => {}
            Some(order) => return Err(Error::OutOfTable(place, run, order)),
            None => return Err(Error::NoTable(place, run)),
        }
        let end = HEADER_BYTES + run.payload_bytes();
        if record.len() < HEADER_BYTES + BodyReader::room(run) {
            record.resize(HEADER_BYTES + BodyReader::room(run), 0);
        }
        record[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        body.entries(run, &mut record[HEADER_BYTES..HEADER_BYTES + BodyReader::room(run)])?;
        report.tally.count(run);
        report.crc.update(&record[..end]);
        let entries = &mut record[HEADER_BYTES..end];
        if hpte::scrub(entries) {
            sink.load(run, entries)?;
        } else {
            report.demoted += load_demoting(sink.as_mut(), run, entries)?;
        }
    }
}

fn open_sink(host: &dyn Host, place: Place, run: Extent) -> Result<(Table, Box<dyn Sink>), Error> {
    let table = host.table()?;
    let sink: Box<dyn Sink> = match table {
        Table::None => return Err(Error::NoTable(place, run)),
        Table::Kernel(_) => Box::new(KernelSink::open(host)?),
        Table::Memory(memory) => Box::new(MemorySink::new(memory)),
    };
    Ok((table, sink))
}

/// Loads a record of a QEMU whose vCPUs changed entries while it sent them (TCG without this library): it may have counted
/// an entry as valid that is not. It sends such a slot again later; until then the slot is invalid. Tells how many were.
fn load_demoting(sink: &mut dyn Sink, run: Extent, entries: &[u8]) -> Result<u64, Error> {
    let mut demoted = 0;
    for (index, entry) in (run.index..=u32::MAX).zip(entries.chunks_exact(HPTE_BYTES)) {
        if hpte::is_valid(entry) {
            sink.load(Extent { index, n_valid: 1, n_invalid: 0 }, entry)?;
        } else {
            demoted += 1;
            sink.load(Extent { index, n_valid: 0, n_invalid: 1 }, &[])?;
        }
    }
    if run.n_invalid > 0 {
        // The run fits a table of at most 2^32 slots, so that its invalid part begins at a 32-bit index.
        let index = run.index.wrapping_add(u32::from(run.n_valid));
        sink.load(Extent { index, n_valid: 0, n_invalid: run.n_invalid }, &[])?;
    }
    Ok(demoted)
}
