// SPDX-License-Identifier: GPL-2.0-or-later
//! How large a read of the kernel's fd may be, so that it ends in time.
//!
//! A read cannot be interrupted, and the number of slots it looks at depends on what it finds: each 8 bytes of buffer can
//! cover 65,535 empty slots in a first pass. The size is therefore chosen for the worst that can lie ahead: nothing but
//! empty slots, up to the end of the table. That bounds a first pass whatever the table holds, at the price of smaller
//! reads in large tables; a read in a later pass skips clean slots without an end to it other than the table's, and no
//! size bounds that.

use crate::clock::Nanos;

/// The smallest buffer for which the kernel returns a record.
pub const MIN_READ_BYTES: usize = 25;
/// A later pass's first read.
const FIRST_LATER_BYTES: usize = 4096;
const RECORD_SLOTS: u64 = 65_535;

/// Costs in units of one empty slot. They are lower than any measured, so that a cost per slot computed from a read
/// that was mostly call or mostly entries comes out too high rather than too low.
const CALL_COST: u64 = 64;
const ENTRY_COST: u64 = 8;

fn work(slots: u64, entries: u64) -> u64 {
    CALL_COST + slots + ENTRY_COST * entries
}

/// What was learned about the speed of reads.
#[derive(Debug)]
pub struct Pace {
    /// Picoseconds per unit of work; `None` until a read was timed.
    cost: Option<u64>,
    later_bytes: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { cost: None, later_bytes: FIRST_LATER_BYTES }
    }
}

impl Pace {
    /// Bytes to ask for in a first pass with `slots_left` before the end of the table and `left` of the time.
    pub fn first_pass_bytes(&self, slots_left: u64, left: Nanos, most: usize) -> usize {
        let Some(cost) = self.cost else { return MIN_READ_BYTES.min(most) };
        // Half of what is left: the rest pays for an estimate that is off, and the halves shrink towards the end.
        let affordable = (left.0 / 2).saturating_mul(1000) / cost.max(1);
        let all_that_is_left = work(slots_left, slots_left.min(most as u64 / 16));
        if affordable >= all_that_is_left {
            return most;
        }
        // With a buffer of 24 + 8 * k bytes the kernel begins at most k records.
        let records = affordable.saturating_sub(CALL_COST) / (RECORD_SLOTS + ENTRY_COST);
        let bytes = usize::try_from(24 + 8 * records).unwrap_or(most);
        bytes.clamp(MIN_READ_BYTES.min(most), most)
    }

    /// Bytes to ask for in a later pass.
    pub fn later_pass_bytes(&self, most: usize) -> usize {
        self.later_bytes.min(most)
    }

    /// Learns from a first-pass read.
    pub fn first_pass_took(&mut self, took: Nanos, slots: u64, entries: u64) {
        let cost = took.0.saturating_mul(1000) / work(slots, entries);
        self.cost = Some(match self.cost {
            // Up at once, down slowly: a burst of cheap slots says little about the next ones.
            Some(known) if cost < known => known - (known - cost) / 4,
            _ => cost,
        });
    }

    /// Learns from a later-pass read of `asked` bytes that had `bound` to spend. A read that ended at the table's end
    /// was not cut by its size.
    pub fn later_pass_took(&mut self, took: Nanos, asked: usize, bound: Nanos, wrapped: bool) {
        if took.0 > bound.0 / 4 {
            self.later_bytes = (asked / 2).max(256);
        } else if took.0 < bound.0 / 16 && !wrapped {
            self.later_bytes = asked.saturating_mul(2).min(super::MAX_CHUNK_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = super::super::MAX_CHUNK_BYTES;
    const MS: Nanos = Nanos(1_000_000);

    #[test]
    fn nothing_is_assumed_before_the_first_read() {
        assert_eq!(Pace::default().first_pass_bytes(1 << 32, MS, MOST), MIN_READ_BYTES);
    }

    #[test]
    fn the_worst_case_of_the_size_chosen_fits_the_time_left() {
        let mut pace = Pace::default();
        pace.first_pass_took(Nanos(2 * 65_535), 65_535, 0);
        for left in [Nanos(0), Nanos(200_000), MS, Nanos(5_000_000), Nanos(100_000_000)] {
            let bytes = pace.first_pass_bytes(1 << 32, left, MOST);
            let records = (bytes as u64 - 24).div_ceil(8);
            assert!(records == 1 || records * 65_535 * 2 <= left.0, "{bytes} bytes in {left:?}");
        }
        assert_eq!(pace.first_pass_bytes(100_000, MS, MOST), MOST, "the table's end bounds it");
    }

    #[test]
    fn dense_reads_do_not_make_empty_slots_look_cheap() {
        let mut pace = Pace::default();
        // 4095 entries of 60 ns, where an empty slot costs 2.
        pace.first_pass_took(Nanos(4095 * 60 + 300), 4095, 4095);
        let bytes = pace.first_pass_bytes(1 << 32, Nanos(5_000_000), MOST);
        assert!(bytes > MIN_READ_BYTES && (bytes as u64 - 24) / 8 * 65_535 * 2 <= 5_000_000, "{bytes}");
    }

    #[test]
    fn a_pause_in_one_read_is_forgotten() {
        let mut pace = Pace::default();
        pace.first_pass_took(Nanos(1 << 40), 100, 10);
        for _ in 0..200 {
            pace.first_pass_took(Nanos(2 * 65_535), 65_535, 0);
        }
        assert!(pace.first_pass_bytes(1 << 32, Nanos(5_000_000), MOST) > 64);
    }

    #[test]
    fn later_passes_halve_and_double() {
        let mut pace = Pace::default();
        for _ in 0..20 {
            pace.later_pass_took(Nanos(10), pace.later_pass_bytes(MOST), MS, false);
        }
        assert_eq!(pace.later_pass_bytes(MOST), MOST);
        for _ in 0..20 {
            pace.later_pass_took(MS, pace.later_pass_bytes(MOST), MS, false);
        }
        assert_eq!(pace.later_pass_bytes(MOST), 256);
    }
}
