// SPDX-License-Identifier: GPL-2.0-or-later
//! HPTEs from a table in QEMU's memory (TCG, KVM-PR), while vCPU threads go on changing it.
//!
//! The first pass reports valid entries only, as QEMU's does: the destination's table starts out empty. Later passes
//! report the slots that carry QEMU's dirty mark ([`crate::format::hpte::V_DIRTY`]).

use super::{Chunk, Position, Source, check_buffer};
use crate::error::{Error, reserve};
use crate::format::hpte::{Hpte, Order, Slot};
use crate::format::record::RecordBuilder;
use crate::host::{Clock, Nanos};
use crate::table::{SharedSlot, SharedTable, before_dirty, before_used};

/// Slots between two looks at the clock: some 64 KiB of table, about 10 microseconds when nothing is found.
const SLOTS_PER_LOOK: u64 = 4096;

/// How to read a table in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryOptions {
    /// Report invalid slots in the first pass too, for a destination whose table is not empty.
    pub explicit_invalid: bool,
    /// Find changes without a dirty mark too, by comparing each slot with what was last sent of it: reference and
    /// change bits under TCG, everything under KVM-PR. Costs as much memory as the table has, and a second stream of
    /// reads in each later pass.
    pub compare: bool,
}

/// What the destination has, slot by slot.
struct LastSent(Vec<Hpte>);

impl LastSent {
    /// Nothing but invalid slots.
    fn new(order: Order) -> Result<LastSent, Error> {
        let mut slots = Vec::new();
        let len = usize::try_from(order.slots()).unwrap_or(usize::MAX);
        reserve(&mut slots, len, "a copy to compare with")?;
        slots.resize(len, Hpte::default());
        Ok(LastSent(slots))
    }

    fn differs(&self, slot: u64, entry: Hpte) -> bool {
        usize::try_from(slot).ok().and_then(|slot| self.0.get(slot)) != Some(&entry)
    }

    fn set(&mut self, slot: u64, entry: Hpte) {
        if let Some(sent) = usize::try_from(slot).ok().and_then(|slot| self.0.get_mut(slot)) {
            *sent = entry;
        }
    }
}

/// A table in memory.
pub struct MemorySource {
    table: SharedTable,
    explicit_invalid: bool,
    sent: Option<LastSent>,
}

impl MemorySource {
    /// # Errors
    /// [`Error::Memory`] to compare with.
    pub fn new(table: SharedTable, options: MemoryOptions) -> Result<MemorySource, Error> {
        let sent = if options.compare { Some(LastSent::new(table.order())?) } else { None };
        Ok(MemorySource { table, explicit_invalid: options.explicit_invalid, sent })
    }

    /// How many of the slots, the first of which is `from`, this pass need not look at closely.
    fn skip(&self, slots: &[SharedSlot], from: Position) -> usize {
        if from.pass == 1 {
            return if self.explicit_invalid { 0 } else { before_used(slots) };
        }
        let clean = before_dirty(slots);
        let Some(sent) = &self.sent else { return clean };
        let differs = |(slot, shared): (u64, &SharedSlot)| sent.differs(slot, seen(shared.peek()));
        (from.slot.0..).zip(&slots[..clean]).position(differs).unwrap_or(clean)
    }

    /// Visits the slots from `at` up to `to`, or fewer when the buffer is full. Returns where it ended.
    fn visit(&mut self, mut at: Position, to: u64, records: &mut RecordBuilder<'_>) -> u64 {
        let report_invalid = at.pass > 1 || self.explicit_invalid;
        let table = self.table;
        let mut slots = table.slots(at.slot.0, to);
        loop {
            let skipped = self.skip(slots, at);
            at.slot.0 += skipped as u64;
            let Some((slot, rest)) = slots[skipped..].split_first() else { return at.slot.0 };
            if !records.has_room() {
                return at.slot.0;
            }
            let entry = seen(slot.take());
            // Indices have 32 bits for every order there is.
            let index = u32::try_from(at.slot.0).unwrap_or(u32::MAX);
            if entry.is_valid() {
                records.valid(index, entry);
            } else if report_invalid {
                records.invalid(index);
            }
            if let Some(sent) = &mut self.sent {
                sent.set(at.slot.0, entry);
            }
            at.slot.0 += 1;
            slots = rest;
        }
    }
}

/// An entry as the destination should see it: nothing but zeros unless it is valid.
fn seen(entry: Hpte) -> Hpte {
    if entry.is_valid() { entry } else { Hpte::default() }
}

impl Source for MemorySource {
    fn slots(&self) -> u64 {
        self.table.order().slots()
    }

    /// Looks at the clock after every 4096 slots.
    fn read(
        &mut self,
        at: Position,
        buf: &mut [u8],
        clock: &dyn Clock,
        deadline: Option<Nanos>,
    ) -> Result<Chunk, Error> {
        check_buffer(buf)?;
        let most = buf.len().min(super::MAX_CHUNK_BYTES);
        let mut records = RecordBuilder::new(&mut buf[..most]);
        let mut end = at.slot.0;
        while end < self.slots() {
            let to = (end + SLOTS_PER_LOOK).min(self.slots());
            end = self.visit(Position { slot: Slot(end), ..at }, to, &mut records);
            if end < to || deadline.is_some_and(|deadline| clock.now() >= deadline) {
                break;
            }
        }
        Ok(Chunk { tally: records.finish(), slots: end - at.slot.0 })
    }
}
