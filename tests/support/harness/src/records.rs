// SPDX-License-Identifier: GPL-2.0-or-later
//! Stream records and bodies as docs/stream-format.md has them, read and written independently of the library.

use htab_model::record::{Record, Replay, V_HVLOCK, V_VALID};
use std::ops::RangeInclusive;

/// What ends a body of records.
pub const END: [u8; 8] = [0; 8];

/// One body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    NoTable,
    /// A new, empty table of this order.
    Table(u32),
    Records(Vec<Record>),
}

fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

fn take<'a>(stream: &mut &'a [u8], len: usize) -> Result<&'a [u8], String> {
    let (taken, rest) = stream.split_at_checked(len).ok_or("it is cut short")?;
    *stream = rest;
    Ok(taken)
}

fn record(stream: &mut &[u8]) -> Result<Record, String> {
    let &[a, b, c, d, e, f, g, h] = take(stream, 8)? else { unreachable!() };
    let n_valid = u16::from_be_bytes([e, f]);
    let entries = take(stream, usize::from(n_valid) * 16)?;
    let valid = entries.chunks_exact(16).map(|entry| (be(&entry[..8]), be(&entry[8..]))).collect();
    Ok(Record { index: u32::from_be_bytes([a, b, c, d]), valid, n_invalid: u16::from_be_bytes([g, h]) })
}

fn body(stream: &mut &[u8]) -> Result<Body, String> {
    match be(take(stream, 4)?) {
        0 => {
            let mut records = Vec::new();
            loop {
                let record = record(stream)?;
                if record.shape() == (0, 0, 0) {
                    return Ok(Body::Records(records));
                }
                records.push(record);
            }
        }
        0xffff_ffff => Ok(Body::NoTable),
        order => u32::try_from(order).map(Body::Table).map_err(|error| error.to_string()),
    }
}

/// Records back to back, without a body's header and end.
///
/// # Errors
/// In words, for what is no whole number of records.
pub fn parse(mut bytes: &[u8]) -> Result<Vec<Record>, String> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        records.push(record(&mut bytes)?);
    }
    Ok(records)
}

/// The records of a body that has some, or could have.
///
/// # Errors
/// In words, for any other bytes.
pub fn of_body(mut bytes: &[u8]) -> Result<Vec<Record>, String> {
    match body(&mut bytes)? {
        Body::Records(records) if bytes.is_empty() => Ok(records),
        other => Err(format!("{other:?} and {} bytes are no body of records", bytes.len())),
    }
}

/// The table that a destination has after these records: slot, v, r.
///
/// # Panics
/// When an entry carries the bit 0x40, which is QEMU's own and never sent.
#[must_use]
pub fn replay(records: &[Record]) -> Vec<(u64, u64, u64)> {
    let mut replay = Replay::default();
    for record in records {
        assert!(record.valid.iter().all(|(v, _)| v & V_HVLOCK == 0), "bit 0x40 in {:x?}", record.valid);
        replay.apply(record);
    }
    replay.dump()
}

/// The table that a destination has after a stream of whole bodies, of whatever source: entries without their valid bit
/// count as invalid, and the bit 0x40 as nothing. A size must be one of `orders`.
///
/// # Errors
/// In words, for a stream that the format does not allow.
pub fn load(mut stream: &[u8], orders: RangeInclusive<u32>) -> Result<Replay, String> {
    let mut table = Replay::default();
    let mut slots = 0;
    while !stream.is_empty() {
        match body(&mut stream)? {
            Body::NoTable => (table, slots) = (Replay::default(), 0),
            Body::Table(order) if orders.contains(&order) => {
                (table, slots) = (Replay::default(), 1 << (order - 4));
            }
            Body::Table(order) => return Err(format!("a table of order {order}")),
            Body::Records(records) => {
                for record in records {
                    let first = u64::from(record.index);
                    let end = first + record.valid.len() as u64 + u64::from(record.n_invalid);
                    if slots == 0 || end > slots {
                        return Err(format!("{:?} is outside the table", record.shape()));
                    }
                    table.apply(&record);
                    for (slot, _) in (first..).zip(&record.valid).filter(|(_, (v, _))| v & V_VALID == 0) {
                        table.slots.remove(&slot);
                    }
                }
            }
        }
    }
    Ok(table)
}

/// A record as it stands in a stream.
#[must_use]
pub fn to_stream(record: &Record) -> Vec<u8> {
    let n_valid = u16::try_from(record.valid.len()).expect("65,535 entries at most");
    let mut bytes =
        [&record.index.to_be_bytes()[..], &n_valid.to_be_bytes(), &record.n_invalid.to_be_bytes()].concat();
    record.valid.iter().for_each(|(v, r)| bytes.extend([v.to_be_bytes(), r.to_be_bytes()].concat()));
    bytes
}

/// A body of records.
#[must_use]
pub fn to_body(records: &[Record]) -> Vec<u8> {
    let records: Vec<u8> = records.iter().flat_map(to_stream).collect();
    [&[0; 4][..], &records, &END].concat()
}
