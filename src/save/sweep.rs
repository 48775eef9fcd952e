// SPDX-License-Identifier: GPL-2.0-or-later
//! Where the sweeps over a table have come, what the last one found, and what a stop still needs.

use crate::format::hpte::Slot;
use crate::host::Nanos;
use crate::save::run_state::StopId;
use crate::save::source::{Chunk, Position};

/// The least that a group of 8 is taken to cost while a first pass has not come to it: one valid entry, a header with
/// it. A guest with large pages has most of its entries in a part of the table, so that what was seen says little of
/// the rest.
const ASSUMED_BYTES_PER_GROUP: u64 = 24;
const SLOTS_PER_GROUP: u64 = 8;

/// The part of the time that sweeps may take which find nothing, in percent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DutyCycle(u8);

impl DutyCycle {
    /// A quarter.
    pub const DEFAULT: DutyCycle = DutyCycle(25);

    /// `None` outside 1..=100.
    #[must_use]
    pub fn new(percent: u32) -> Option<DutyCycle> {
        u8::try_from(percent).ok().filter(|percent| (1..=100).contains(percent)).map(DutyCycle)
    }

    /// How long to rest after a sweep that took so long.
    fn rest_after(self, took: Nanos) -> Nanos {
        let percent = u64::from(self.0);
        Nanos((took.0 / percent).saturating_mul(100 - percent))
    }
}

/// One read of the table, when it is over.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// What it gave.
    pub chunk: Chunk,
    /// The VM's stop that lasted when it began.
    pub stop: Option<StopId>,
    /// When it began.
    pub began: Nanos,
    /// When it ended.
    pub ended: Nanos,
}

/// How a sweep ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SweepEnd {
    /// It began at slot 0, in a later pass, and found nothing.
    pub clean: bool,
}

/// The sweeps over one table.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    slots: u64,
    at: Position,
    /// Bytes reported in this sweep, and in the whole one before it.
    bytes: u64,
    last_bytes: u64,
    /// The stop that `visited` counts for, and the slots that were visited since by reads begun since.
    since: Option<StopId>,
    visited: u64,
    duty: DutyCycle,
    /// Time that this sweep's reads took.
    took: Nanos,
    /// From the end of the last sweep, which found nothing, until another is due.
    resting: Option<(Nanos, Nanos)>,
}

impl Sweep {
    /// At slot 0, at the start of the first pass.
    #[must_use]
    pub fn new(slots: u64, duty: DutyCycle) -> Sweep {
        Sweep {
            slots,
            at: Position { slot: Slot(0), pass: 1 },
            bytes: 0,
            last_bytes: 0,
            since: None,
            visited: 0,
            duty,
            took: Nanos(0),
            resting: None,
        }
    }

    /// In the middle of another sweep.
    #[cfg(test)]
    #[must_use]
    pub fn starting_at(self, at: Position) -> Sweep {
        Sweep { at, ..self }
    }

    /// Where the next read begins.
    #[must_use]
    pub fn position(&self) -> Position {
        self.at
    }

    /// Goes on by one read. `Some` if a sweep ended with it.
    pub fn advance(&mut self, read: &Read) -> Option<SweepEnd> {
        let Read { chunk, stop, began, ended } = read;
        self.visited = stop.map_or(0, |stop| self.visited_since(stop) + chunk.slots);
        self.since = *stop;
        self.resting = None;
        self.took += ended.since(*began);
        self.bytes += chunk.tally.bytes;
        self.at.slot.0 += chunk.slots;
        if self.at.slot.0 < self.slots {
            return None;
        }
        let clean = self.at.pass > 1 && self.bytes == 0;
        self.at = Position { slot: Slot(0), pass: self.at.pass + 1 };
        self.last_bytes = std::mem::take(&mut self.bytes);
        let rest = self.duty.rest_after(std::mem::take(&mut self.took));
        self.resting = clean.then(|| (*ended, ended.after(rest)));
        Some(SweepEnd { clean })
    }

    /// A lookup took changes, of so many bytes, that a sweep would have found: this one finds something, and is due.
    pub fn looked_up(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.resting = None;
    }

    /// Whether the last sweep found nothing and the next one is not due yet: what it would find can as well be found by
    /// the one after, or by the final one.
    #[must_use]
    pub fn is_resting(&self, now: Nanos) -> bool {
        // A clock that went back is no reason to rest for longer.
        self.resting.is_some_and(|(since, until)| since <= now && now < until)
    }

    /// Whether there is a stop and reads begun since have visited every slot. Reads go round the table, so the number
    /// of slots is enough to know.
    #[must_use]
    pub fn has_visited_all(&self, stop: Option<StopId>) -> bool {
        stop.is_some_and(|stop| self.visited_since(stop) >= self.slots)
    }

    fn visited_since(&self, stop: StopId) -> u64 {
        if self.since == Some(stop) { self.visited } else { 0 }
    }

    /// An estimate of the bytes still to be read: what is left of the first pass at the density seen so far, or an
    /// entry in each group if that is more, then as much as the last sweep reported; nothing once a stop's sweep is
    /// over.
    #[must_use]
    pub fn bytes_left(&self, stop: Option<StopId>) -> u64 {
        if self.has_visited_all(stop) {
            0
        } else if self.at.pass > 1 {
            self.last_bytes.saturating_sub(self.bytes)
        } else {
            let slots = self.slots - self.at.slot.0;
            // At most 2^32 slots of some 24 bytes: the product of both needs 128 bits.
            let seen = u128::from(self.bytes) * u128::from(slots) / u128::from(self.at.slot.0.max(1));
            let assumed = slots.div_ceil(SLOTS_PER_GROUP) * ASSUMED_BYTES_PER_GROUP;
            u64::try_from(seen).unwrap_or(u64::MAX).max(assumed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record::Tally;

    fn read(slots: u64, bytes: u64, began: u64, ended: u64) -> Read {
        let tally = Tally { bytes, ..Tally::default() };
        Read { chunk: Chunk { tally, slots }, stop: None, began: Nanos(began), ended: Nanos(ended) }
    }

    #[test]
    fn what_is_left_is_what_was_seen_so_far_or_an_entry_a_group_then_what_the_last_sweep_found() {
        let mut sweep = Sweep::new(1601, DutyCycle::DEFAULT);
        assert_eq!(
            sweep.bytes_left(None),
            201 * 24,
            "an entry in each group, the last of which is not whole"
        );
        assert_eq!(sweep.advance(&read(101, 3030, 0, 1)), None);
        assert_eq!(sweep.bytes_left(None), 1500 * 30);
        assert_eq!(sweep.advance(&read(1500, 0, 1, 2)), Some(SweepEnd { clean: false }));
        assert_eq!(sweep.bytes_left(None), 3030);
        assert_eq!(sweep.advance(&read(10, 1000, 2, 3)), None);
        sweep.looked_up(500);
        assert_eq!(sweep.bytes_left(None), 1530);
    }

    #[test]
    fn a_later_sweep_that_found_nothing_is_followed_by_a_rest() {
        let mut sweep = Sweep::new(16, DutyCycle::DEFAULT);
        assert_eq!(sweep.advance(&read(16, 0, 0, 1000)), Some(SweepEnd { clean: false }), "a first pass");
        assert!(!sweep.is_resting(Nanos(1000)));
        for (to, began) in [(8, 1000), (8, 2000)] {
            sweep.advance(&read(to, 0, began, began + 60));
        }
        // 120 of 480: a quarter, in steps of 25.
        for (now, rests) in [(0, false), (2059, false), (2060, true), (2359, true), (2360, false)] {
            assert_eq!(sweep.is_resting(Nanos(now)), rests, "{now}");
        }
        sweep.looked_up(8);
        assert!(!sweep.is_resting(Nanos(2060)));
    }
}
