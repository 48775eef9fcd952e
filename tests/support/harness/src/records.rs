// SPDX-License-Identifier: GPL-2.0-or-later
//! Stream records and bodies as docs/stream-format.md has them, read and written independently of the library.

use htab_model::record::{Record, Replay, V_VALID, take_stream};
use std::ops::RangeInclusive;

/// One body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    NoTable,
    /// A new, empty table of this order.
    Table(u32),
    Records(Vec<Record>),
}

fn body(stream: &mut &[u8]) -> Result<Body, String> {
    let (head, rest) = stream.split_first_chunk().ok_or("a body is cut short")?;
    *stream = rest;
    match u32::from_be_bytes(*head) {
        0 => {
            let mut records = Vec::new();
            loop {
                let record = take_stream(stream)?;
                if record.shape() == (0, 0, 0) {
                    return Ok(Body::Records(records));
                }
                records.push(record);
            }
        }
        u32::MAX => Ok(Body::NoTable),
        order => Ok(Body::Table(order)),
    }
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

/// The table that a destination has after these records, with all of their bits: slot, v, r.
#[must_use]
pub fn replay(records: &[Record]) -> Vec<(u64, u64, u64)> {
    let mut replay = Replay::default();
    records.iter().for_each(|record| replay.apply_unchanged(record));
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

/// A body of records.
#[must_use]
pub fn to_body(records: &[Record]) -> Vec<u8> {
    let records: Vec<u8> = records.iter().flat_map(Record::to_stream_bytes).collect();
    [&[0; 4][..], &records, &[0; 8]].concat()
}
