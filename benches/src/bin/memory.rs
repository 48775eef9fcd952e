// SPDX-License-Identifier: GPL-2.0-or-later
//! The table in memory, on this machine: a first pass and a clean sweep, beside a plain read of the same table. Prints one
//! line of JSON.
//!
//! `bench-memory [ORDER…]`. Rounds are interleaved and medians taken, so that what else the machine does meets all alike.

use htab_bench::library::{Library, Out};
use htab_bench::measure::{Cost, cost, middle};
use htab_bench::memory_table::MemoryTable;
use htab_bench::rival::memory as rival;
use htab_bench::tables::Shape;
use serde_json::{Value, json};
use spapr_htab::clock::SystemClock;
use std::hint::black_box;

const SEED: u64 = 1;
const SHAPES: [Shape; 4] = [Shape::Empty, Shape::Sparse, Shape::Typical, Shape::Dense];

/// Large tables take long and vary little.
fn rounds(order: u32) -> usize {
    match order {
        ..26 => 31,
        26..30 => 9,
        30.. => 5,
    }
}

/// A first pass and, behind it, a sweep that finds nothing.
struct Sweeps {
    first: Cost,
    clean: Cost,
}

fn ours(table: &mut MemoryTable) -> Sweeps {
    table.mark();
    // SAFETY: the table is borrowed for longer than the library is used, and by nobody else.
    let library = unsafe { Library::memory(table.words.as_mut_ptr(), table.order) };
    let mut out = Out::copied();
    library.setup(&mut out);
    let first = cost(|| {
        library.iterate(&mut out, -1);
    });
    let clean = cost(|| assert!(library.iterate(&mut out, -1), "a sweep that found nothing"));
    library.cleanup();
    Sweeps { first, clean }
}

fn rivals(table: &mut MemoryTable) -> Sweeps {
    table.mark();
    let clock = SystemClock::default();
    let mut save = rival::Save::new(&mut table.words);
    let mut out = Out::copied();
    let first = cost(|| {
        save.iterate(&mut out, &clock, None).expect("a pass");
    });
    let clean = cost(|| assert!(save.iterate(&mut out, &clock, None).expect("a sweep"), "nothing was found"));
    Sweeps { first, clean }
}

fn rows(order: u32, shape: Shape) -> Vec<Value> {
    let mut table = MemoryTable::new(order, shape, SEED);
    let (mut first, mut clean, mut two) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds(order) {
        let floor = cost(|| {
            black_box(table.read());
        });
        two.push(cost(|| {
            black_box(table.read_by_two());
        }));
        let (ours, rivals) = (ours(&mut table), rivals(&mut table));
        first.push([floor, ours.first, rivals.first]);
        clean.push([floor, ours.clean, rivals.clean]);
    }
    let row = |name: &str, rounds: &[[Cost; 3]]| {
        let of = |who: usize| middle(&rounds.iter().map(|round| round[who]).collect::<Vec<_>>()).ns;
        let row = json!({
            "name": name, "shape": shape.name(), "order": order, "slots": table.slots(), "rounds": rounds.len(),
            "floor_ns": of(0), "ours_ns": of(1), "rival_ns": of(2), "read_by_two_ns": middle(&two).ns,
        });
        eprintln!("{row}");
        row
    };
    vec![row("first pass", &first), row("clean sweep", &clean)]
}

fn main() {
    let mut orders: Vec<u32> =
        std::env::args().skip(1).map(|order| order.parse().expect("an order")).collect();
    if orders.is_empty() {
        orders = vec![24, 28, 30];
    }
    let rows: Vec<_> =
        orders.iter().flat_map(|&order| SHAPES.iter().flat_map(move |&shape| rows(order, shape))).collect();
    println!("{}", json!({ "rows": rows }));
}
