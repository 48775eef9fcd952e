// SPDX-License-Identifier: GPL-2.0-or-later
//! The hash table a guest has, and the one that lives in QEMU's memory, shared with running vCPU threads.
#![allow(unsafe_code)]

#[cfg(all(test, loom))]
mod interleavings;

use crate::format::hpte::{Hpte, Order, Slot, V_DIRTY, V_VALID};
use crate::sync::AtomicU64;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

/// What the guest's table is and where it is. Two are equal if they are the same, as far as place and size say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    /// None: a radix guest.
    None,
    /// In the kernel, under KVM-HV.
    Kernel(Order),
    /// In QEMU's memory: TCG and KVM-PR.
    Memory(SharedTable),
}

impl Table {
    /// The table's order; `None` without a table.
    #[must_use]
    pub fn order(&self) -> Option<Order> {
        match self {
            Table::None => None,
            Table::Kernel(order) => Some(*order),
            Table::Memory(table) => Some(table.order()),
        }
    }
}

/// A table in memory that other threads read and write while we do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SharedTable {
    start: NonNull<SharedSlot>,
    len: usize,
    order: Order,
}

/// One slot of it: the two words of an entry, big-endian in memory, as the guest's hardware would see them.
///
/// Every access is a whole 64-bit word and atomic; the orderings pair with the barriers of QEMU's `spapr_store_hpte`
/// (hw/ppc/spapr.c, 7.2).
#[derive(Debug)]
#[repr(transparent)]
pub struct SharedSlot([AtomicU64; 2]);

// SAFETY: the table is a range of plain memory, reached only through atomics; nothing in it belongs to a thread. That
// it lives long enough is what the caller of `SharedTable::new` promised, for whichever thread uses it.
unsafe impl Send for SharedTable {}
// SAFETY: as for Send: every access through a shared reference is atomic.
unsafe impl Sync for SharedTable {}

const VALID_BE: u64 = V_VALID.to_be();
const DIRTY_BE: u64 = V_DIRTY.to_be();
/// Slots that a sweep looks at before it asks whether one of them was what it looks for.
const SLOTS_AT_ONCE: usize = 8;

impl SharedTable {
    /// Describes the table of `order.bytes()` bytes at `start`.
    ///
    /// Returns `None` for a null or misaligned pointer (8 bytes are needed; QEMU aligns tables to their size) and for a
    /// table that this machine cannot address.
    ///
    /// # Safety
    /// Until the last use of the value and its copies the memory must stay allocated, and all others that access it
    /// must do so with machine loads and stores (as QEMU's vCPU threads do) or atomics, never through a Rust reference.
    #[must_use]
    pub unsafe fn new(start: *mut u8, order: Order) -> Option<SharedTable> {
        let start = NonNull::new(start.cast::<SharedSlot>()).filter(|start| start.is_aligned())?;
        isize::try_from(order.bytes()).ok()?;
        let len = usize::try_from(order.slots()).ok()?;
        Some(SharedTable { start, len, order })
    }

    /// The table's size.
    #[must_use]
    pub fn order(&self) -> Order {
        self.order
    }

    /// The slots `from..to`, cut to the table.
    #[must_use]
    pub fn slots(&self, from: u64, to: u64) -> &[SharedSlot] {
        let at = |slot: u64| usize::try_from(slot).unwrap_or(self.len).min(self.len);
        let start = at(from);
        let len = at(to).saturating_sub(start);
        // SAFETY: `start + len` is at most `self.len`, the slots of the `order.bytes()` bytes that the caller of `new`
        // promised to keep allocated and to share only through atomics or machine accesses; `new` checked null,
        // alignment and size.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(start), len) }
    }

    fn slot(&self, slot: Slot) -> &SharedSlot {
        &self.slots(slot.0, slot.0 + 1)[0]
    }

    /// See [`SharedSlot::peek`].
    #[must_use]
    pub fn peek(&self, slot: Slot) -> Hpte {
        self.slot(slot).peek()
    }

    /// See [`SharedSlot::store`].
    pub fn store(&self, slot: Slot, entry: Hpte) {
        self.slot(slot).store(entry);
    }
}

/// How many slots there are before the first that is marked dirty.
#[must_use]
pub fn before_dirty(slots: &[SharedSlot]) -> usize {
    before(slots, DIRTY_BE)
}

/// How many slots there are before the first that is valid or marked dirty.
#[must_use]
pub fn before_used(slots: &[SharedSlot]) -> usize {
    before(slots, VALID_BE | DIRTY_BE)
}

fn before(slots: &[SharedSlot], mask: u64) -> usize {
    let seen = |slot: &SharedSlot| slot.0[0].load(Ordering::Relaxed) & mask;
    // Where one slot is found the next one often is, too.
    if slots.first().is_some_and(|first| seen(first) != 0) {
        return 0;
    }
    // Atomic loads are not vectorized; one test for several of them is the next best.
    let together = |some: &[SharedSlot]| some.iter().fold(0, |all, slot| all | seen(slot)) != 0;
    let passed = slots.chunks_exact(SLOTS_AT_ONCE).take_while(|some| !together(some)).count() * SLOTS_AT_ONCE;
    let rest = &slots[passed..];
    passed + rest.iter().position(|slot| seen(slot) != 0).unwrap_or(rest.len())
}

impl SharedSlot {
    /// Takes the entry as it is now and marks it as sent. Its dirty bit is 0 in what is returned.
    ///
    /// A clean slot is not stored to. The mark is cleared before the entry is copied: a change that the copy misses
    /// sets the mark anew and is found by a later sweep. Whether the entry is valid is for the copy to say.
    #[must_use]
    pub fn take(&self) -> Hpte {
        let [v, _] = &self.0;
        if v.load(Ordering::Relaxed) & DIRTY_BE != 0 {
            v.fetch_and(!DIRTY_BE, Ordering::AcqRel);
        }
        self.peek()
    }

    /// The entry as it is now, without its dirty bit.
    #[must_use]
    pub fn peek(&self) -> Hpte {
        let [v, r] = &self.0;
        let first = v.load(Ordering::Acquire);
        Hpte { v: u64::from_be(first & !DIRTY_BE), r: u64::from_be(r.load(Ordering::Relaxed)) }
    }

    /// Stores an entry in the order in which a walker of the table may see its halves: the first doubleword last when
    /// the entry becomes valid, first when it goes.
    pub fn store(&self, entry: Hpte) {
        let [v, r] = &self.0;
        if entry.is_valid() {
            r.store(entry.r.to_be(), Ordering::Relaxed);
            v.store(entry.v.to_be(), Ordering::Release);
        } else {
            v.store(entry.v.to_be(), Ordering::Relaxed);
            // The entry must be seen as gone before its second half changes; a release store orders it after.
            r.store(entry.r.to_be(), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_table_is_refused() {
        let mut bytes = vec![0_u64; 1 << 15];
        let start = bytes.as_mut_ptr().cast::<u8>();
        // SAFETY: `bytes` outlives every use of the tables below and nothing else touches it meanwhile.
        unsafe {
            assert!(SharedTable::new(std::ptr::null_mut(), Order::MIN).is_none());
            assert!(SharedTable::new(start.add(4), Order::MIN).is_none());
            assert!(SharedTable::new(start, Order::MIN).is_some());
        }
    }

    #[test]
    fn taking_an_entry_clears_the_mark_and_never_shows_it() {
        let mut bytes = vec![0_u64; 1 << 15];
        // SAFETY: `bytes` outlives the table and is reached only through it below.
        let table = unsafe { SharedTable::new(bytes.as_mut_ptr().cast(), Order::MIN) }.unwrap();
        let entry = Hpte { v: 0x1234_0000 | V_VALID | V_DIRTY, r: 5 };
        table.store(Slot(9), entry);
        let all = table.slots(0, u64::MAX);
        assert_eq!(before_dirty(all), 9);
        assert_eq!(all[9].take(), Hpte { v: entry.v & !V_DIRTY, ..entry });
        assert_eq!(before_dirty(all), 1 << 14);
        assert_eq!(before_used(&all[..100]), 9);
        assert_eq!(before_used(&all[10..100]), 90);
        table.store(Slot(20), Hpte { v: V_DIRTY, r: 0 });
        assert_eq!((all[20].take(), before_used(&all[10..100])), (Hpte::default(), 90));
    }

    #[test]
    fn what_is_looked_for_is_found_wherever_it_is() {
        let mut bytes = vec![0_u64; 1 << 15];
        // SAFETY: `bytes` outlives the table and is reached only through it below.
        let table = unsafe { SharedTable::new(bytes.as_mut_ptr().cast(), Order::MIN) }.unwrap();
        for len in 0..40 {
            for (at, bits) in (0..len).flat_map(|at| [(at, V_VALID), (at, V_DIRTY)]) {
                // Two side by side, which must not cancel out, or one at the end.
                let used = at..(at + 2).min(len);
                used.clone().for_each(|at| table.store(Slot(at), Hpte { v: bits, r: u64::MAX }));
                for from in 0..len {
                    let found =
                        (from..len).position(|slot| used.contains(&slot)).map_or(len - from, |at| at as u64);
                    assert_eq!(before_used(table.slots(from, len)) as u64, found, "{at} of {from}..{len}");
                    let dirty = if bits == V_DIRTY { found } else { len - from };
                    assert_eq!(before_dirty(table.slots(from, len)) as u64, dirty, "{at} of {from}..{len}");
                }
                used.for_each(|at| table.store(Slot(at), Hpte::default()));
            }
        }
    }
}
