// SPDX-License-Identifier: GPL-2.0-or-later
//! How large a read of the kernel's fd may be, so that it ends in time.
//!
//! A read cannot be interrupted, and the number of slots it looks at depends on what it finds: each 8 bytes of buffer
//! can cover 65,535 empty slots in a first pass. The size is therefore chosen twice, and the smaller one taken: so that
//! the worst that can lie ahead (nothing but empty slots, up to the end of the table) is over by one such record at
//! most, and so that what is to be expected after the last read takes a quarter of the time that is left. The first
//! bounds a first pass whatever the table holds, at the price of smaller reads in large tables. A read in a later pass
//! skips clean slots without an end to it other than the table's, and no size bounds that.

use crate::host::Nanos;

/// The smallest buffer for which the kernel returns a record.
pub const MIN_READ_BYTES: usize = 25;
/// A later pass's first read.
const FIRST_LATER_BYTES: usize = 4096;
/// And its smallest.
const LEAST_LATER_BYTES: usize = 256;
const RECORD_SLOTS: u64 = 65_535;

/// Costs in units of one empty slot, lower than they are: a cost per slot computed from a read that was mostly call or
/// mostly entries must come out too high rather than too low. (Linux 6.1, in instructions: a slot 46, an entry 830, a
/// call some 1500.)
const CALL_COST: u64 = 30;
const ENTRY_COST: u64 = 16;

fn work(slots: u64, entries: u64) -> u64 {
    CALL_COST + slots + ENTRY_COST * entries
}

/// What a first pass's reads cost, in picoseconds.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// A unit of work.
    work: u64,
    /// A byte of the last read.
    byte: u64,
}

/// What was learned about the speed of reads.
#[derive(Debug)]
pub struct Pace {
    /// `None` until a read was timed.
    cost: Option<Cost>,
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
        let left = left.0.saturating_mul(1000);
        let affordable = left / cost.work.max(1);
        let worst = if affordable >= work(slots_left, slots_left.min(most as u64 / 16)) {
            most as u64
        } else {
            // With a buffer of 24 + 8 * k bytes the kernel begins at most k records.
            24 + 8 * (1 + affordable / (RECORD_SLOTS + ENTRY_COST))
        };
        let expected = left / 4 / cost.byte.max(1);
        usize::try_from(worst.min(expected)).unwrap_or(most).clamp(MIN_READ_BYTES.min(most), most)
    }

    /// Bytes to ask for in a later pass.
    pub fn later_pass_bytes(&self, most: usize) -> usize {
        self.later_bytes.min(most)
    }

    /// Learns from a first-pass read that returned `bytes`.
    pub fn first_pass_took(&mut self, took: Nanos, slots: u64, entries: u64, bytes: usize) {
        let took = took.0.saturating_mul(1000);
        let work = took / work(slots, entries);
        let work = match self.cost {
            // Up at once, down slowly: a burst of cheap slots says little about the next ones.
            Some(known) if work < known.work => known.work - (known.work - work) / 4,
            _ => work,
        };
        self.cost = Some(Cost { work, byte: took / (bytes as u64).max(1) });
    }

    /// Learns from a later-pass read of `asked` bytes that had `bound` to spend and filled its buffer. One that ended
    /// at the table's end was not cut by its size and teaches nothing.
    pub fn later_pass_took(&mut self, took: Nanos, asked: usize, bound: Nanos) {
        if took.0 > bound.0 / 4 {
            self.later_bytes = (asked / 2).max(LEAST_LATER_BYTES);
        } else if took.0 < bound.0 / 16 {
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

    /// Records of empty slots that a read of so many bytes can begin.
    fn records(bytes: usize) -> u64 {
        (bytes as u64 - 24).div_ceil(8)
    }

    #[test]
    fn the_worst_case_of_the_size_chosen_is_over_by_one_record_at_most() {
        let mut pace = Pace::default();
        // {1 valid, 7 invalid} for a microsecond and a bit, where an empty slot costs 2 ns: cheap bytes.
        pace.first_pass_took(Nanos(500 + 20 * (60 + 14)), 160, 20, 480);
        for left in [Nanos(0), Nanos(200_000), MS, Nanos(5_000_000), Nanos(100_000_000)] {
            let worst = records(pace.first_pass_bytes(1 << 32, left, MOST)) * 65_535 * 2;
            assert!(worst <= left.0 + 65_535 * 2, "{worst} of {left:?}");
        }
        assert_eq!(
            pace.first_pass_bytes(100_000, MS, MOST),
            MOST.min(1_000_000 / 4 * 480 / 1980),
            "what is expected"
        );
        assert_eq!(pace.first_pass_bytes(100_000, Nanos(1 << 40), MOST), MOST, "the table's end bounds it");
    }

    #[test]
    fn a_read_takes_a_part_of_the_time_in_empty_tables() {
        let mut pace = Pace::default();
        pace.first_pass_took(Nanos(2 * 65_535), 65_535, 0, 8);
        let expected = records(pace.first_pass_bytes(1 << 32, Nanos(5_000_000), MOST)) * 65_535 * 2;
        assert!(expected <= 5_000_000 / 4, "{expected} ns");
    }

    #[test]
    fn dense_reads_do_not_make_empty_slots_look_cheap() {
        let mut pace = Pace::default();
        // 4095 entries of 60 ns, where an empty slot costs 2.
        pace.first_pass_took(Nanos(4095 * 60 + 300), 4095, 4095, MOST);
        let bytes = pace.first_pass_bytes(1 << 32, Nanos(5_000_000), MOST);
        assert!(bytes > 64 && (records(bytes) - 1) * 65_535 * 2 <= 5_000_000, "{bytes}");
    }

    #[test]
    fn a_pause_in_one_read_is_forgotten() {
        let mut pace = Pace::default();
        pace.first_pass_took(Nanos(1 << 40), 100, 10, 200);
        assert_eq!(pace.first_pass_bytes(1 << 32, Nanos(5_000_000), MOST), MIN_READ_BYTES);
        for _ in 0..100 {
            pace.first_pass_took(Nanos(500 + 74), 8, 1, 24);
        }
        assert!(pace.first_pass_bytes(1 << 32, Nanos(5_000_000), MOST) > 2 * MIN_READ_BYTES);
    }

    #[test]
    fn what_an_empty_slot_costs_goes_up_at_once_and_down_by_a_quarter_of_the_way() {
        let mut pace = Pace::default();
        for (took, cost) in [(1000, 1000), (200, 800), (900, 900), (900, 900)] {
            pace.first_pass_took(Nanos(took), 970, 0, 1000);
            assert_eq!(pace.cost.map(|cost| cost.work), Some(cost));
        }
    }

    #[test]
    fn a_table_that_might_be_full_of_entries_is_read_by_records() {
        let mut pace = Pace::default();
        pace.first_pass_took(Nanos(1000), 970, 0, 1000);
        // Time for all of the empty slots, not for entries, and for one record of empty slots and nearly another.
        assert_eq!(pace.first_pass_bytes(100_000, Nanos(2 * 65_540), MOST), 40);
    }

    #[test]
    fn later_passes_halve_and_double() {
        let mut pace = Pace::default();
        for (took, bytes) in [(250_000, 4096), (62_500, 4096), (250_001, 2048), (62_499, 4096)] {
            pace.later_pass_took(Nanos(took), pace.later_pass_bytes(MOST), MS);
            assert_eq!(pace.later_pass_bytes(MOST), bytes);
        }
        for _ in 0..20 {
            pace.later_pass_took(Nanos(10), pace.later_pass_bytes(MOST), MS);
        }
        assert_eq!(pace.later_pass_bytes(MOST), MOST);
        for _ in 0..20 {
            pace.later_pass_took(MS, pace.later_pass_bytes(MOST), MS);
        }
        assert_eq!(pace.later_pass_bytes(MOST), LEAST_LATER_BYTES);
    }
}
