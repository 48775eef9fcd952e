// SPDX-License-Identifier: GPL-2.0-or-later
//! One slot under loom: a vCPU stores as QEMU does while a sweep clears the mark and copies, in every order of their steps
//! and with every value that the memory model lets a load return (docs/testing.md).

use super::{SharedSlot, before_dirty};
use crate::format::hpte::{Hpte, V_DIRTY, V_VALID};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::Release, fence};
use loom::thread;

/// As the guest sees it, without QEMU's mark.
const BEFORE: Hpte = Hpte { v: 0x1000 | V_VALID, r: 1 };
const AFTER: Hpte = Hpte { v: 0x2000 | V_VALID, r: 2 };
const GONE: Hpte = Hpte { v: 0, r: 0 };

fn slot(entry: Hpte, mark: u64) -> SharedSlot {
    SharedSlot([AtomicU64::new((entry.v | mark).to_be()), AtomicU64::new(entry.r.to_be())])
}

/// `spapr_store_hpte` (hw/ppc/spapr.c, QEMU 7.2 to 10.2), with the mark that its callers set.
///
/// The first doubleword is swapped, not stored: after a store that a read-modify-write did not see, loom lets a load return
/// either of the two, where the language and every processor have the store come last.
fn store_as_qemu_does(slot: &SharedSlot, entry: Hpte) {
    let [v, r] = &slot.0;
    let marked = (entry.v | V_DIRTY).to_be();
    if entry.is_valid() {
        r.store(entry.r.to_be(), Relaxed);
        fence(Release);
        v.swap(marked, Relaxed);
    } else {
        v.swap(marked, Relaxed);
        fence(Release);
        r.store(entry.r.to_be(), Relaxed);
    }
}

/// A sweep's look at the slot, which sends what it sees.
fn sweep(slot: &SharedSlot, sent: &mut Hpte) {
    if before_dirty(std::slice::from_ref(slot)) == 0 {
        let entry = slot.take();
        *sent = if entry.is_valid() { entry } else { GONE };
    }
}

/// Sweeps while a vCPU makes these changes, then once more after its stop; the destination has the last of them then, and
/// so has the guest.
fn changes_arrive(changes: &'static [Hpte], sweeps: usize) {
    loom::model(move || {
        let shared = Arc::new(slot(BEFORE, V_DIRTY));
        let vcpu = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || changes.iter().for_each(|entry| store_as_qemu_does(&shared, *entry)))
        };
        let mut sent = GONE;
        for _ in 0..sweeps {
            sweep(&shared, &mut sent);
        }
        vcpu.join().unwrap();
        sweep(&shared, &mut sent);
        let last = *changes.last().expect("a change");
        assert_eq!(sent, last, "what the destination has");
        assert_eq!(shared.peek(), last, "what the guest has");
        assert_eq!(before_dirty(std::slice::from_ref(&*shared)), 1, "nothing is left to send");
    });
}

#[test]
fn an_entry_that_replaces_another_arrives() {
    changes_arrive(&[AFTER], 2);
}

#[test]
fn an_entry_that_goes_stays_away() {
    changes_arrive(&[GONE], 2);
}

#[test]
fn an_entry_that_goes_and_comes_back_arrives() {
    changes_arrive(&[GONE, AFTER], 1);
}
