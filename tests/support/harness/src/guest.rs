// SPDX-License-Identifier: GPL-2.0-or-later
//! Filling and changing a VM's table from outside, as a guest would.

use htab_model::record::{Record, bolted_hpte, hpte, to_bytes};
use htab_model::vm::{HtabFd, Vm, WRITE};
use std::sync::Arc;

/// Deterministic numbers (splitmix64): the same case on the model and on a real kernel makes the same table.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.any() % bound
    }
}

/// Changes a VM's table through a write fd of its own.
pub struct Guest {
    fd: Box<dyn HtabFd>,
    pub slots: u64,
}

/// What a guest cannot do is a defect of the case: said, and the case ends.
pub type Outcome = Result<(), String>;

impl Guest {
    /// # Errors
    /// In words.
    pub fn new(vm: &Arc<dyn Vm>, order: u32) -> Result<Guest, String> {
        let fd = vm.open(WRITE, 0).map_err(|errno| format!("opening to write: errno {errno}"))?;
        Ok(Guest { fd, slots: 1 << (order - 4) })
    }

    fn write(&mut self, record: &Record) -> Outcome {
        let bytes = to_bytes(std::slice::from_ref(record));
        match self.fd.write(&bytes) {
            Ok(took) if took == bytes.len() => Ok(()),
            other => Err(format!("writing {:?}: {other:?}", record.shape())),
        }
    }

    /// # Errors
    /// In words.
    pub fn enter(&mut self, slot: u64, n: u64) -> Outcome {
        self.put(slot, &[hpte(n)], 0)
    }

    /// # Errors
    /// In words.
    pub fn remove(&mut self, slot: u64) -> Outcome {
        self.put(slot, &[], 1)
    }

    /// # Errors
    /// In words.
    pub fn put(&mut self, slot: u64, valid: &[(u64, u64)], n_invalid: u16) -> Outcome {
        let index = u32::try_from(slot).map_err(|_| format!("slot {slot}"))?;
        self.write(&Record::new(index, valid, n_invalid))
    }

    /// Some entry goes, comes or changes, anywhere in the table.
    ///
    /// # Errors
    /// In words.
    pub fn change(&mut self, numbers: &mut Numbers) -> Outcome {
        let slot = numbers.below(self.slots);
        if numbers.below(3) == 0 { self.remove(slot) } else { self.enter(slot, numbers.below(1 << 20)) }
    }

    /// Fills the table.
    ///
    /// # Errors
    /// In words.
    pub fn fill(&mut self, how: Fill, numbers: &mut Numbers) -> Outcome {
        match how {
            Fill::Empty => {}
            Fill::Sparse => {
                for _ in 0..20 {
                    let slot = numbers.below(self.slots);
                    self.enter(slot, numbers.below(1 << 20))?;
                }
            }
            Fill::Dense => {
                for first in (0..self.slots).step_by(4096) {
                    let entries: Vec<_> = (first..first + 4096).map(|n| hpte(n & 0xff_ffff)).collect();
                    self.put(first, &entries, 0)?;
                }
            }
            // As Linux fills it: the first slots of a group, a few bolted, some groups full.
            Fill::Linux => {
                for group in 0..self.slots / 8 {
                    let entries = match numbers.below(32) {
                        0 => 8,
                        1..=3 => 2,
                        4..=12 => 1,
                        _ => continue,
                    };
                    let made: Vec<_> = (0..entries)
                        .map(
                            |n| if numbers.below(10) == 0 { bolted_hpte(group + n) } else { hpte(group + n) },
                        )
                        .collect();
                    self.put(group * 8, &made, 0)?;
                }
            }
            Fill::Random => {
                for _ in 0..self.slots.min(20_000) / 2 {
                    let slot = numbers.below(self.slots);
                    self.enter(slot, numbers.below(1 << 20))?;
                }
            }
        }
        Ok(())
    }
}

/// What a table looks like at the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fill {
    Empty,
    Sparse,
    Linux,
    Random,
    Dense,
}
