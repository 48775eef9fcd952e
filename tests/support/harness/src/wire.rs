// SPDX-License-Identifier: GPL-2.0-or-later
//! Stream records taken apart independently of the library.

use htab_model::record::Record;
use std::collections::BTreeMap;

fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// Records back to back, without a body's header and end.
///
/// # Errors
/// In words, for what is no whole number of records.
pub fn records(mut bytes: &[u8]) -> Result<Vec<Record>, String> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_at_checked(8).ok_or("a header is cut short")?;
        let n_valid = usize::from(u16::from_be_bytes([head[4], head[5]]));
        let (entries, rest) = rest.split_at_checked(n_valid * 16).ok_or("entries are cut short")?;
        records.push(Record {
            index: u32::try_from(be(&head[..4])).map_err(|_| "index")?,
            valid: entries.chunks_exact(16).map(|entry| (be(&entry[..8]), be(&entry[8..]))).collect(),
            n_invalid: u16::try_from(be(&head[6..])).map_err(|_| "n_invalid")?,
        });
        bytes = rest;
    }
    Ok(records)
}

/// The records of a body that has some: its header is 0 and the last eight bytes are, too.
///
/// # Errors
/// In words.
pub fn body(bytes: &[u8]) -> Result<Vec<Record>, String> {
    let inner = bytes.strip_prefix(&[0; 4]).and_then(|rest| rest.strip_suffix(&[0; 8]));
    records(inner.ok_or_else(|| format!("{} bytes are no body of records", bytes.len()))?)
}

/// The table that a destination has after these records: slot, v, r.
#[must_use]
pub fn replay(records: &[Record]) -> Vec<(u64, u64, u64)> {
    let mut slots = BTreeMap::new();
    for record in records {
        let mut slot = u64::from(record.index);
        for &(v, r) in &record.valid {
            slots.insert(slot, (v, r));
            slot += 1;
        }
        for slot in slot..slot + u64::from(record.n_invalid) {
            slots.remove(&slot);
        }
    }
    slots.into_iter().map(|(slot, (v, r))| (slot, v, r)).collect()
}
