// SPDX-License-Identifier: GPL-2.0-or-later
//! A saver beside threads that change the table as QEMU's vCPUs do, round after round: what a final complete leaves at the
//! destination is the table, every time.
//!
//! Rounds: 10,000, or as many as SPAPR_HTAB_STRESS_ROUNDS says.

use htab_lab::host::Output;
use htab_lab::memory::{MemoryHost, arrive};
use htab_lab::table::Numbers;
use spapr_htab::clock::Nanos;
use spapr_htab::hpte::{V_DIRTY, V_VALID};
use spapr_htab::save::{SaveOptions, Saver};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Slots that are changed: few, so that saver and vCPUs meet in the same entries.
const HOT: u64 = 96;
const VCPUS: u64 = 2;

/// What one vCPU does: hypercalls on slots of its own (in QEMU the BQL sees to that) and, without any lock and any mark,
/// reference and change bits anywhere. Fails if an entry of its own is not as it left it: a saver that stores more than
/// the cleared mark brings entries back to life in the running guest. Tells how many changes it made.
fn vcpu(host: &MemoryHost, number: u64, touches: bool, stop: &AtomicBool) -> u64 {
    let table = host.memory().as_ref().expect("a table").clone();
    let mut numbers = Numbers(number);
    let mut changes = 0;
    // Nobody else stores to the first doublewords of these slots.
    let mut mine: Vec<u64> =
        (0..HOT / VCPUS).map(|n| table.raw(n * VCPUS + number % VCPUS).0 & !V_DIRTY).collect();
    while !stop.load(Ordering::Relaxed) {
        let at = numbers.below(HOT / VCPUS);
        let slot = at * VCPUS + number % VCPUS;
        let value = numbers.any();
        let left = &mut mine[usize::try_from(at).expect("small")];
        assert_eq!(table.raw(slot).0 & !V_DIRTY, *left, "slot {slot} changed by itself");
        match value % 8 {
            0..=2 => {
                *left = value & !0x7f | V_VALID;
                table.store(slot, *left, value);
            }
            3 | 4 => {
                *left = 0;
                table.store(slot, 0, 0);
            }
            5 | 6 => table.protect(slot, value),
            _ if touches => table.touch(numbers.below(HOT), 0x180),
            _ => {}
        }
        changes += 1;
    }
    changes
}

fn rounds(options: SaveOptions, touches: bool) {
    let rounds =
        std::env::var("SPAPR_HTAB_STRESS_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let host = MemoryHost::new(18);
    let changes = AtomicU64::new(0);
    for round in 0..rounds {
        let saver = Saver::default();
        let mut out = Output::default();
        saver.setup(&host, &mut out, options).expect("setup");
        let mut bodies = vec![out.bytes];
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for number in 0..VCPUS {
                let (host, stop, changes) = (&host, &stop, &changes);
                scope.spawn(move || {
                    changes.fetch_add(vcpu(host, round * VCPUS + number, touches, stop), Ordering::Relaxed);
                });
            }
            for _ in 0..6 {
                let mut out = Output::default();
                saver.iterate(&host, &mut out, Some(Nanos(u64::MAX))).expect("iterate");
                bodies.push(out.bytes);
            }
            stop.store(true, Ordering::Relaxed);
        });
        if let Err(why) = arrive(&host, &saver, bodies) {
            panic!("round {round}: {why}");
        }
    }
    let changes = changes.load(Ordering::Relaxed);
    println!("{rounds} rounds, {changes} changes");
    assert!(changes > rounds * 10, "the vCPUs hardly ran: {changes} changes in {rounds} rounds");
}

#[test]
fn marked_changes_are_never_lost() {
    rounds(SaveOptions { compare: false }, false);
}

#[test]
fn unmarked_changes_are_never_lost_when_comparing() {
    rounds(SaveOptions { compare: true }, true);
}
