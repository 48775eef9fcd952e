// SPDX-License-Identifier: GPL-2.0-or-later
//! A table in memory, as QEMU has it under TCG: big-endian words, two a slot.

use crate::tables::{Shape, entry};
use spapr_htab::inside::format::hpte::{V_DIRTY, V_VALID};

/// A table of so many slots, filled.
pub struct MemoryTable {
    pub words: Vec<u64>,
    pub order: u32,
}

impl MemoryTable {
    /// # Panics
    /// For a table that this machine cannot address.
    #[must_use]
    pub fn new(order: u32, shape: Shape, seed: u64) -> MemoryTable {
        let slots = 1_u64 << (order - 4);
        // Stored to: pages that never were would all be the same one.
        let mut words = vec![u64::MAX; usize::try_from(slots * 2).expect("a table in memory")];
        words.fill(0);
        for (first, count) in shape.runs(slots, seed) {
            for slot in first..first + count {
                let at = usize::try_from(slot * 2).expect("a slot");
                let (v, r) = entry(slot);
                (words[at], words[at + 1]) = (v.to_be(), r.to_be());
            }
        }
        MemoryTable { words, order }
    }

    #[must_use]
    pub fn slots(&self) -> usize {
        self.words.len() / 2
    }

    /// Marks what is valid as changed, as the guest's hypercalls leave it behind.
    pub fn mark(&mut self) {
        for pair in self.words.chunks_exact_mut(2) {
            if pair[0] & V_VALID.to_be() != 0 {
                pair[0] |= V_DIRTY.to_be();
            }
        }
    }

    /// Reads all of it, as fast as it goes: the sum of its words.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.words.iter().fold(0, |sum, &word| sum.wrapping_add(word))
    }

    /// As `read`, in two threads.
    #[must_use]
    pub fn read_by_two(&self) -> u64 {
        let (low, high) = self.words.split_at(self.words.len() / 2);
        let sum = |words: &[u64]| words.iter().fold(0, |sum: u64, &word| sum.wrapping_add(word));
        std::thread::scope(|scope| {
            let other = scope.spawn(|| sum(high));
            sum(low).wrapping_add(other.join().unwrap_or_default())
        })
    }
}
