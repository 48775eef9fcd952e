// SPDX-License-Identifier: GPL-2.0-or-later
//! HPTEs from a table in QEMU's memory (TCG, KVM-PR), while vCPU threads go on changing it.
//!
//! The first pass tells valid entries only, as QEMU's does: the destination's table starts out empty. Later passes tell
//! the slots that carry QEMU's dirty mark ([`crate::format::hpte::V_DIRTY`]).

use super::{Chunk, Source, check_buffer, check_start};
use crate::error::{Error, reserve};
use crate::format::hpte::{Hpte, Order, Slot};
use crate::format::record::{RecordBuilder, Tally};
use crate::host::{Clock, Nanos};
use crate::table::{SharedSlot, SharedTable, before_dirty, before_used};

/// Slots between two looks at the clock: some 64 KiB of table, about 10 microseconds when nothing is found.
const SLOTS_PER_LOOK: u64 = 4096;

/// How to read a table in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryOptions {
    /// Where the first pass begins. Slots before it are told only when they change.
    pub start: Slot,
    /// Tell every entry that is not bolted as invalid.
    pub bolted_only: bool,
    /// Tell invalid slots in the first pass too, for a destination whose table is not empty.
    pub explicit_invalid: bool,
    /// Find changes without a dirty mark too, by comparing each slot with what was last told of it: reference and
    /// change bits under TCG, everything under KVM-PR. Costs as much memory as the table has, and a second stream of
    /// reads in each later pass.
    pub compare: bool,
}

/// What the destination has, slot by slot.
struct LastTold(Vec<Hpte>);

impl LastTold {
    /// Nothing but invalid slots.
    fn new(order: Order) -> Result<LastTold, Error> {
        let mut slots = Vec::new();
        let len = usize::try_from(order.slots()).unwrap_or(usize::MAX);
        reserve(&mut slots, len, "to compare with, as much again as the hash table has")?;
        slots.resize(len, Hpte::default());
        Ok(LastTold(slots))
    }

    fn differs(&self, slot: u64, entry: Hpte) -> bool {
        usize::try_from(slot).ok().and_then(|slot| self.0.get(slot)) != Some(&entry)
    }

    fn set(&mut self, slot: u64, entry: Hpte) {
        if let Some(told) = usize::try_from(slot).ok().and_then(|slot| self.0.get_mut(slot)) {
            *told = entry;
        }
    }
}

/// A table in memory, being swept.
pub struct MemorySource {
    table: SharedTable,
    options: MemoryOptions,
    told: Option<LastTold>,
    position: u64,
    pass: u64,
}

impl MemorySource {
    /// # Errors
    /// [`Error::StartIndex`]; [`Error::Memory`] to compare with.
    pub fn new(table: SharedTable, options: MemoryOptions) -> Result<MemorySource, Error> {
        check_start(options.start, table.order())?;
        let mut source = MemorySource { table, options, told: None, position: options.start.0, pass: 1 };
        if options.compare {
            let mut told = LastTold::new(table.order())?;
            // What stands before the start is taken as told: it counts when it changes.
            (0..options.start.0).for_each(|slot| told.set(slot, source.seen(table.peek(Slot(slot)))));
            source.told = Some(told);
        }
        Ok(source)
    }

    /// How many of the slots, the first of which is `from`, this pass need not look at closely.
    fn pass_over(&self, slots: &[SharedSlot], from: u64) -> usize {
        if self.pass == 1 {
            return if self.options.explicit_invalid { 0 } else { before_used(slots) };
        }
        let clean = before_dirty(slots);
        let Some(told) = &self.told else { return clean };
        let differs = |(slot, shared): (u64, &SharedSlot)| told.differs(slot, self.seen(shared.peek()));
        (from..).zip(&slots[..clean]).position(differs).unwrap_or(clean)
    }

    /// An entry as the destination should see it: nothing but zeros unless it is valid there.
    fn seen(&self, entry: Hpte) -> Hpte {
        let bolted = entry.v & crate::format::hpte::V_BOLTED != 0;
        if entry.is_valid() && (bolted || !self.options.bolted_only) { entry } else { Hpte::default() }
    }

    /// Sweeps `self.position..to`, or less when the buffer is full; tells whether it is not.
    fn sweep(&mut self, to: u64, records: &mut RecordBuilder<'_>) -> bool {
        let tell_invalid = self.pass > 1 || self.options.explicit_invalid;
        let table = self.table;
        let mut slots = table.slots(self.position, to);
        loop {
            let passed = self.pass_over(slots, self.position);
            self.position += passed as u64;
            let Some((slot, rest)) = slots[passed..].split_first() else { return true };
            if !records.has_room() {
                return false;
            }
            let entry = self.seen(slot.take());
            // Indices have 32 bits for every order there is.
            let index = u32::try_from(self.position).unwrap_or(u32::MAX);
            if entry.is_valid() {
                records.valid(index, entry);
            } else if tell_invalid {
                records.invalid(index);
            }
            if let Some(told) = &mut self.told {
                told.set(self.position, entry);
            }
            self.position += 1;
            slots = rest;
        }
    }
}

impl Source for MemorySource {
    /// Looks at the clock after every 4096 slots.
    fn read(&mut self, buf: &mut [u8], clock: &dyn Clock, deadline: Option<Nanos>) -> Result<Chunk, Error> {
        check_buffer(buf)?;
        let most = buf.len().min(super::MAX_CHUNK_BYTES);
        let slots = self.slots();
        let began = self.position;
        let mut records = RecordBuilder::new(&mut buf[..most]);
        let mut room = true;
        let mut in_time = true;
        while room && in_time && self.position < slots {
            let to = (self.position + SLOTS_PER_LOOK).min(slots);
            room = self.sweep(to, &mut records);
            in_time = deadline.is_none_or(|deadline| clock.now() < deadline);
        }
        let tally: Tally = records.finish();
        let passed = self.position - began;
        let wrapped = self.position >= slots;
        if wrapped {
            self.position = 0;
            self.pass += 1;
        }
        Ok(Chunk { tally, slots: passed, wrapped })
    }

    fn position(&self) -> Slot {
        Slot(self.position)
    }

    fn pass(&self) -> u64 {
        self.pass
    }

    fn slots(&self) -> u64 {
        self.table.order().slots()
    }
}
