// SPDX-License-Identifier: GPL-2.0-or-later
//! One slot under loom: a vCPU stores as QEMU does while a sweep clears the mark and copies, in every order of their
//! steps and with every value that the memory model lets a load return (docs/testing.md).

use super::{SharedSlot, before_dirty};
use crate::format::hpte::{Hpte, V_DIRTY, V_VALID};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, fence};
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
/// The first doubleword is swapped, not stored: after a store that a read-modify-write did not see, loom lets a load
/// return either of the two, where the language and every processor have the store come last.
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

/// Sweeps while a vCPU makes these changes, then once more after its stop; the destination has the last of them then,
/// and so has the guest.
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

/// Stores an entry over another while a walker of the table looks at both words, in the order that `look` says.
fn stored_while_walked(before: Hpte, after: Hpte, look: fn(&SharedSlot) -> bool) {
    loom::model(move || {
        let shared = Arc::new(slot(before, 0));
        let loader = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.store(after))
        };
        assert!(look(&shared), "half of an entry");
        loader.join().unwrap();
    });
}

#[test]
fn whoever_sees_a_stored_entry_as_valid_sees_its_second_word() {
    stored_while_walked(GONE, AFTER, |shared| {
        let [v, r] = &shared.0;
        v.load(Acquire) != AFTER.v.to_be() || r.load(Relaxed) == AFTER.r.to_be()
    });
}

#[test]
fn whoever_sees_the_second_word_of_a_removed_entry_change_sees_that_it_is_gone() {
    stored_while_walked(BEFORE, GONE, |shared| {
        let [v, r] = &shared.0;
        r.load(Acquire) != GONE.r.to_be() || v.load(Relaxed) == GONE.v.to_be()
    });
}
