// SPDX-License-Identifier: GPL-2.0-or-later
//! What the fuzz targets share: numbers out of the fuzzer's bytes, and what a stream says, read independently of the
//! library.

use arbitrary::Unstructured;
use htab_harness::plan::{Call, Fault};
use htab_harness::world::World;
use std::collections::BTreeMap;

/// The fuzzer's bytes, taken from the front; zeros once there are no more.
pub struct Input<'a>(Unstructured<'a>);

impl<'a> Input<'a> {
    #[must_use]
    pub fn new(data: &'a [u8]) -> Input<'a> {
        Input(Unstructured::new(data))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or_default()
    }

    pub fn word(&mut self) -> u16 {
        self.0.arbitrary().unwrap_or_default()
    }

    pub fn long(&mut self) -> u64 {
        self.0.arbitrary().unwrap_or_default()
    }

    /// Below `bound`, and often near either end.
    pub fn below(&mut self, bound: u64) -> u64 {
        let number = u64::from(self.word());
        match number & 3 {
            0 => number >> 2,
            1 => bound.wrapping_sub(1 + (number >> 2)),
            _ => number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16,
        }
        .checked_rem(bound)
        .unwrap_or(0)
    }

    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        self.0.bytes(len.min(self.0.len())).unwrap_or_default()
    }

    #[must_use]
    pub fn rest(self) -> &'a [u8] {
        self.0.take_rest()
    }

    /// Has some call go wrong, or none. Returns whether.
    pub fn plan_fault(&mut self, world: &World) -> bool {
        const VALUES: [i64; 8] = [0, 1, 2, 17, -4096, i32::MAX as i64, i64::MAX, i64::MIN];
        let (call, how, number) = (self.byte(), self.byte(), self.byte());
        let Some(&call) = Call::ALL.get(usize::from(call & 31)) else {
            world.plan.clear();
            return false;
        };
        let fault = match how >> 6 {
            0 => Fault::Errno(i32::from(number).max(1)),
            1 => Fault::Value(VALUES[usize::from(number & 7)]),
            2 => Fault::Short(usize::from(number)),
            _ => Fault::Quiet(i32::from(number)),
        };
        world.plan.fail(call, u64::from(how & 63), fault);
        true
    }
}

/// What a table holds after a stream: its slots, and the entries that are valid, with v and r.
pub struct Told {
    pub entries: BTreeMap<u64, (u64, u64)>,
    pub slots: u64,
}

fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

fn take<'a>(stream: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = stream.split_at_checked(len)?;
    *stream = rest;
    Some(taken)
}

/// Reads whole bodies as docs/stream-format.md says; `None` for a stream that it does not allow.
#[must_use]
pub fn told(mut stream: &[u8], orders: std::ops::RangeInclusive<u64>) -> Option<Told> {
    let mut told = Told { entries: BTreeMap::new(), slots: 0 };
    while !stream.is_empty() {
        match be(take(&mut stream, 4)?) {
            0 => while told.record(&mut stream)? {},
            0xffff_ffff => told = Told { entries: BTreeMap::new(), slots: 0 },
            order if orders.contains(&order) => {
                told = Told { entries: BTreeMap::new(), slots: 1 << (order - 4) }
            }
            _ => return None,
        }
    }
    Some(told)
}

impl Told {
    /// A record; whether it was not the last.
    fn record(&mut self, stream: &mut &[u8]) -> Option<bool> {
        let header = take(stream, 8)?;
        let (first, n_valid, n_invalid) = (be(&header[..4]), be(&header[4..6]), be(&header[6..]));
        if (first, n_valid, n_invalid) == (0, 0, 0) {
            return Some(false);
        }
        if self.slots == 0 || first + n_valid + n_invalid > self.slots {
            return None;
        }
        for slot in first..first + n_valid {
            let entry = take(stream, 16)?;
            let (v, r) = (be(&entry[..8]) & !0x40, be(&entry[8..]));
            if v & 1 == 0 {
                self.entries.remove(&slot);
            } else {
                self.entries.insert(slot, (v, r));
            }
        }
        for slot in first + n_valid..first + n_valid + n_invalid {
            self.entries.remove(&slot);
        }
        Some(true)
    }

    #[must_use]
    pub fn dump(&self) -> Vec<(u64, u64, u64)> {
        self.entries.iter().map(|(&slot, &(v, r))| (slot, v, r)).collect()
    }
}
