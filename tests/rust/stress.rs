// SPDX-License-Identifier: GPL-2.0-or-later
//! A saver beside threads that change the table as QEMU's vCPUs do, round after round: what a final complete leaves at
//! the destination is the table, every time.
//!
//! Rounds: 3000, or as many as SPAPR_HTAB_STRESS_ROUNDS says.

use htab_harness::guest::Numbers;
use htab_harness::memory::{Memory, MemoryHost, MemorySave};
use spapr_htab::inside::format::hpte::{V_DIRTY, V_VALID};
use spapr_htab::inside::save::session::SaveOptions;
use std::sync::atomic::{AtomicU64, Ordering};

const SLOTS: u64 = 1 << 14;
const VCPUS: u64 = 2;
/// Changes to a slot, one right after the other: the first marks it, so that the saver may be at the slot when the next
/// one comes. Then the vCPU goes on, and what was lost stays lost.
const CHANGES: u32 = 3;

/// What one vCPU does: hypercalls on slots of its own (in QEMU the BQL sees to that) and, without any lock and any
/// mark, reference and change bits. Fails if an entry of its own is not as it left it: a saver that stores more than
/// the cleared mark brings entries back to life in the running guest.
fn vcpu(table: &Memory, number: u64, seed: u64, touches: bool) {
    let mut numbers = Numbers(seed);
    let mut slot = number;
    while slot < SLOTS {
        // Nobody else stores to the first doublewords of these slots.
        let mut left = table.raw(slot).0 & !V_DIRTY;
        for _ in 0..CHANGES {
            let value = numbers.any();
            match value % 4 {
                0 | 1 => {
                    left = value & !0x7f | V_VALID;
                    table.store(slot, left, value);
                }
                2 => {
                    left = 0;
                    table.store(slot, 0, 0);
                }
                _ => table.protect(slot, value),
            }
        }
        if touches {
            table.touch(numbers.below(SLOTS), 0x180);
        }
        let is = table.raw(slot).0 & !V_DIRTY;
        assert_eq!(is, left, "slot {slot} changed by itself");
        slot += VCPUS * (1 + numbers.below(3));
    }
}

fn rounds(options: SaveOptions, touches: bool) {
    let rounds =
        std::env::var("SPAPR_HTAB_STRESS_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3000);
    let host = MemoryHost::new(18);
    let table = host.memory().as_ref().expect("a table").clone();
    let mut sweeps = 0;
    for round in 0..rounds {
        let mut save = MemorySave::begin(&host, options);
        let running = AtomicU64::new(VCPUS);
        std::thread::scope(|scope| {
            for number in 0..VCPUS {
                let (table, running) = (&table, &running);
                scope.spawn(move || {
                    let seed = round * VCPUS + number;
                    let done = std::panic::catch_unwind(|| vcpu(table, number, seed, touches));
                    running.fetch_sub(1, Ordering::Relaxed);
                    done.expect("the vCPU found its entries as it left them");
                });
            }
            while running.load(Ordering::Relaxed) > 0 {
                save.iterate(None);
                sweeps += 1;
            }
        });
        if let Err(why) = save.arrive() {
            panic!("round {round}: {why}");
        }
    }
    println!("{rounds} rounds, {sweeps} sweeps beside running vCPUs");
    assert!(sweeps > rounds, "the saver hardly met the vCPUs: {sweeps} sweeps in {rounds} rounds");
}

#[test]
fn marked_changes_are_never_lost() {
    rounds(SaveOptions::DEFAULT, false);
}

#[test]
fn unmarked_changes_are_never_lost_when_comparing() {
    rounds(SaveOptions { compare: true, ..SaveOptions::DEFAULT }, true);
}
