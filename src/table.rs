// SPDX-License-Identifier: GPL-2.0-or-later
//! The hash table a guest has, and the one that lives in QEMU's memory, shared with running vCPU threads.
#![allow(unsafe_code)]

use crate::hpte::{Hpte, Order, Slot, V_DIRTY, V_VALID};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the guest's table is and where it is.
#[derive(Clone, Copy, Debug)]
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
///
/// Entries are big-endian in memory, as the guest's hardware would see them. Every access is a whole 64-bit word and
/// atomic; the orderings pair with the barriers of QEMU's `spapr_store_hpte` (hw/ppc/spapr.c, 7.2).
#[derive(Clone, Copy, Debug)]
pub struct SharedTable {
    words: NonNull<AtomicU64>,
    /// Words in all: two a slot.
    len: usize,
    order: Order,
}

// SAFETY: the table is a range of plain memory, reached only through atomics; nothing in it belongs to a thread. That
// it lives long enough is what the caller of `SharedTable::new` promised, for whichever thread uses it.
unsafe impl Send for SharedTable {}
// SAFETY: as for Send: every access through a shared reference is atomic.
unsafe impl Sync for SharedTable {}

const VALID_BE: u64 = V_VALID.to_be();
const DIRTY_BE: u64 = V_DIRTY.to_be();

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
        let words = NonNull::new(start.cast::<AtomicU64>()).filter(|words| words.is_aligned())?;
        isize::try_from(order.bytes()).ok()?;
        let len = usize::try_from(order.slots() * 2).ok()?;
        Some(SharedTable { words, len, order })
    }

    /// The table's size.
    #[must_use]
    pub fn order(&self) -> Order {
        self.order
    }

    /// The words of slots `from..to`, two each; cut to the table.
    fn words(&self, from: u64, to: u64) -> &[AtomicU64] {
        let word =
            |slot: u64| usize::try_from(slot).map_or(self.len, |slot| slot.saturating_mul(2)).min(self.len);
        let start = word(from);
        let len = word(to).saturating_sub(start);
        // SAFETY: `start + len` is at most `self.len`, the words of the `order.bytes()` bytes that the caller of `new` promised to keep
        // allocated and to share only through atomics or machine accesses; `new` checked null, alignment and size.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().add(start), len) }
    }

    fn pair(&self, slot: Slot) -> (&AtomicU64, &AtomicU64) {
        let words = self.words(slot.0, slot.0 + 1);
        (&words[0], &words[1])
    }

    /// The first slot of `from..to` that is marked dirty, or `to`.
    #[must_use]
    pub fn next_dirty(&self, from: u64, to: u64) -> u64 {
        self.find(from, to, DIRTY_BE)
    }

    /// The first slot of `from..to` that is valid or marked dirty, or `to`.
    #[must_use]
    pub fn next_used(&self, from: u64, to: u64) -> u64 {
        self.find(from, to, VALID_BE | DIRTY_BE)
    }

    fn find(&self, from: u64, to: u64, mask: u64) -> u64 {
        self.words(from, to)
            .chunks_exact(2)
            .position(|pair| pair[0].load(Ordering::Relaxed) & mask != 0)
            .map_or(to, |clean| from + clean as u64)
    }

    /// Takes the entry as it is now and marks it as sent. Its dirty bit is 0 in what is returned.
    ///
    /// A clean slot is not stored to. The mark is cleared before the entry is copied: a change that the copy misses
    /// sets the mark anew and is found by a later sweep. Whether the entry is valid is for the copy to say.
    #[must_use]
    pub fn take(&self, slot: Slot) -> Hpte {
        let (v, _) = self.pair(slot);
        if v.load(Ordering::Relaxed) & DIRTY_BE != 0 {
            v.fetch_and(!DIRTY_BE, Ordering::AcqRel);
        }
        self.peek(slot)
    }

    /// The entry as it is now, without its dirty bit.
    #[must_use]
    pub fn peek(&self, slot: Slot) -> Hpte {
        let (v, r) = self.pair(slot);
        let first = v.load(Ordering::Acquire);
        Hpte { v: u64::from_be(first & !DIRTY_BE), r: u64::from_be(r.load(Ordering::Relaxed)) }
    }

    /// Stores an entry in the order in which a walker of the table may see its halves: the first doubleword last when
    /// the entry becomes valid, first when it goes.
    pub fn store(&self, slot: Slot, entry: Hpte) {
        let (v, r) = self.pair(slot);
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
        assert_eq!(table.next_dirty(0, table.order().slots()), 9);
        assert_eq!(table.take(Slot(9)), Hpte { v: entry.v & !V_DIRTY, ..entry });
        assert_eq!(table.next_dirty(0, table.order().slots()), table.order().slots());
        assert_eq!(table.next_used(0, 100), 9);
        assert_eq!(table.next_used(10, 100), 100);
    }
}
