// SPDX-License-Identifier: GPL-2.0-or-later
//! The bound on an iterate's time, on the model with its virtual clock: what a read costs is known to the nanosecond.

use htab_harness::host::{Output, VmHost};
use htab_model::Model;
use htab_model::model::Costs;
use htab_model::record::hpte;
use spapr_htab::inside::host::Nanos;
use spapr_htab::inside::save::Saver;
use spapr_htab::inside::save::session::SaveOptions;
use std::sync::Arc;

/// About what a POWER9 costs: a call, an empty slot, an entry copied.
const COSTS: Costs = Costs { call_ns: 500, slot_ns: 2, entry_ns: 60 };
/// One read of the smallest size at its worst: 65,535 empty slots after an entry.
const MINIMAL_READ_NS: u64 = 500 + 60 + 65_535 * 2;
const MS: u64 = 1_000_000;

/// Iterates to the end of the first pass. Returns the longest iterate's time and the number of reads.
fn first_pass(model: &Model, order: u32, max: u64) -> (u64, u64) {
    let host = VmHost::new(Arc::new(model.clone()), Some(order));
    let saver = Saver::default();
    saver.setup(&host, &mut Output::default(), SaveOptions::default()).expect("setup");
    model.set_costs(COSTS);
    model.clear_stats();
    let mut longest = 0;
    while saver.stats().passes.len() < 2 {
        let before = model.clock().load(std::sync::atomic::Ordering::Relaxed);
        saver.iterate(&host, &mut Output::default(), Some(Nanos(max))).expect("iterate");
        let took = model.clock().load(std::sync::atomic::Ordering::Relaxed) - before;
        if saver.stats().passes.len() < 2 {
            longest = longest.max(took);
        }
    }
    (longest, model.stats().reads)
}

fn fill(model: &Model, from: u64, to: u64, step: usize) {
    for slot in (from..to).step_by(step) {
        let (v, r) = hpte(slot & 0xffff);
        model.enter(slot, v, r);
    }
}

/// The shapes that a bound learned from what came before would get wrong.
fn shapes(order: u32) -> Vec<(&'static str, Model)> {
    let slots = 1 << (order - 4);
    let shape = |fills: &[(u64, u64, usize)]| {
        let model = Model::new(order);
        fills.iter().for_each(|&(from, to, step)| fill(&model, from, to.min(slots), step));
        model
    };
    vec![
        ("empty", shape(&[])),
        ("one entry in each group", shape(&[(0, slots, 8)])),
        ("dense, then empty", shape(&[(0, slots / 8, 1)])),
        ("groups, then empty", shape(&[(0, slots / 8, 8)])),
        ("empty, then dense", shape(&[(slots - slots / 8, slots, 1)])),
        (
            "a dense island now and then",
            shape(&[(slots / 4, slots / 4 + 9000, 1), (slots / 2, slots / 2 + 9000, 1)]),
        ),
    ]
}

#[test]
fn a_first_pass_overshoots_by_one_minimal_read_at_most() {
    for order in [18, 22, 25] {
        for max in [0, MS / 5, MS, 5 * MS] {
            for (name, model) in shapes(order) {
                let (longest, reads) = first_pass(&model, order, max);
                println!("order {order}, {name}, {max} ns: longest {longest} ns, {reads} reads");
                assert!(longest <= max + MINIMAL_READ_NS, "order {order}, {name}: {longest} ns of {max}");
            }
        }
    }
}

#[test]
fn the_largest_table_in_the_model_keeps_the_bound_too() {
    // 16 million slots; sparse, so that a header can cover the most.
    let model = Model::new(28);
    fill(&model, 0, 40_000, 1);
    let (longest, _) = first_pass(&model, 28, 5 * MS);
    assert!(longest <= 5 * MS + MINIMAL_READ_NS, "{longest} ns");
}

#[test]
fn reads_are_few_where_the_tables_end_bounds_them() {
    let model = Model::new(22);
    fill(&model, 0, 1 << 18, 1);
    // 4 MiB of entries, 64 KiB at a time, if the time allows; the first read of all is the smallest.
    let (_, reads) = first_pass(&model, 22, 1000 * MS);
    assert!(reads <= 4 * 16 + 20, "{reads} reads for 4 MiB");
}

#[test]
fn a_clock_that_stands_still_or_jumps_does_no_harm() {
    let model = Model::new(20);
    fill(&model, 0, 1 << 16, 8);
    let host = VmHost::new(Arc::new(model.clone()), Some(20));
    let saver = Saver::default();
    saver.setup(&host, &mut Output::default(), SaveOptions::default()).expect("setup");
    let clock = model.clock();
    let mut out = Output {
        on_put: Some(Box::new(move |_| {
            // Back to the start at every put.
            clock.store(0, std::sync::atomic::Ordering::Relaxed);
        })),
        ..Output::default()
    };
    for _ in 0..10_000 {
        saver.iterate(&host, &mut out, Some(Nanos(MS))).expect("iterate");
        if saver.stats().passes.len() > 1 {
            return;
        }
    }
    panic!("the first pass never ended");
}
