// SPDX-License-Identifier: GPL-2.0-or-later
//! Where the sweeps over a table have come, and what the last one found.

use crate::host::Nanos;
use crate::save::run_state::StopId;
use crate::save::source::{Chunk, Source};

/// The least that a group of 8 is taken to cost while a first pass has not come to it: one valid entry, a header with it.
/// A guest with large pages has most of its entries in a part of the table, so that what was seen tells little of the rest.
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
        let share = u64::from(self.0);
        Nanos((took.0 / share).saturating_mul(100 - share))
    }
}

/// One read of the table, when it is over.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// What it gave.
    pub chunk: Chunk,
    /// The VM's stop that lasted when it began.
    pub stop: Option<StopId>,
    /// When it began and ended.
    pub time: (Nanos, Nanos),
}

/// The sweeps over one table.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    slots: u64,
    position: u64,
    pass: u64,
    /// Bytes told in this sweep, and in the whole one before it.
    told: u64,
    last_told: u64,
    /// The stop that this counts for, and the slots that were passed since by reads begun since.
    since: Option<StopId>,
    passed: u64,
    share: DutyCycle,
    /// Time that this sweep's reads took.
    took: Nanos,
    /// Since the end of the last sweep, which found nothing, until another is due.
    resting: Option<(Nanos, Nanos)>,
}

impl Sweep {
    /// At the start of the source's first pass.
    #[must_use]
    pub fn of(source: &dyn Source, share: DutyCycle) -> Sweep {
        let (slots, position, pass) = (source.slots(), source.position().0, source.pass());
        let (told, last_told, took) = (0, 0, Nanos(0));
        Sweep { slots, position, pass, told, last_told, since: None, passed: 0, share, took, resting: None }
    }

    /// Where the next read begins.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The pass of the next read, counted from 1.
    #[must_use]
    pub fn pass(&self) -> u64 {
        self.pass
    }

    /// Goes on by one read. Tells whether a sweep ended with it that began at slot 0 and told nothing.
    pub fn advance(&mut self, read: &Read) -> bool {
        let Read { chunk, stop, time: (began, ended) } = read;
        self.passed = stop.map_or(0, |stop| self.passed_since(stop) + chunk.slots);
        self.since = *stop;
        self.resting = None;
        self.took += ended.since(*began);
        self.told += chunk.tally.bytes;
        self.position += chunk.slots;
        if !chunk.wrapped {
            return false;
        }
        let clean = self.pass > 1 && self.told == 0;
        self.position = 0;
        self.pass += 1;
        self.last_told = std::mem::take(&mut self.told);
        let rest = self.share.rest_after(std::mem::take(&mut self.took));
        self.resting = clean.then(|| (*ended, ended.after(rest)));
        clean
    }

    /// Whether the last sweep found nothing and the next one is not due yet: what it would find can as well be found by
    /// the one after, or by the final one.
    #[must_use]
    pub fn is_resting(&self, now: Nanos) -> bool {
        // A clock that went back is no reason to rest for longer.
        self.resting.is_some_and(|(since, until)| since <= now && now < until)
    }

    /// Whether there is a stop and reads begun since have passed every slot. Reads go round the table, so that their number
    /// of slots tells.
    #[must_use]
    pub fn has_passed_all(&self, stop: Option<StopId>) -> bool {
        stop.is_some_and(|stop| self.passed_since(stop) >= self.slots)
    }

    fn passed_since(&self, stop: StopId) -> u64 {
        if self.since == Some(stop) { self.passed } else { 0 }
    }

    /// An estimate of the bytes still to be read: what is left of the first pass at the density seen so far, or an entry in
    /// each group if that is more, then as much as the last sweep told; nothing once a stop's sweep is over.
    #[must_use]
    pub fn left(&self, stop: Option<StopId>) -> u64 {
        if self.has_passed_all(stop) {
            0
        } else if self.pass > 1 {
            self.last_told.saturating_sub(self.told)
        } else {
            let slots = self.slots - self.position;
            // At most 2^32 slots of some 24 bytes: the product of both needs 128 bits.
            let seen = u128::from(self.told) * u128::from(slots) / u128::from(self.position.max(1));
            let assumed = slots.div_ceil(SLOTS_PER_GROUP) * ASSUMED_BYTES_PER_GROUP;
            u64::try_from(seen).unwrap_or(u64::MAX).max(assumed)
        }
    }
}
