// SPDX-License-Identifier: GPL-2.0-or-later
//! The table in memory, on this machine: a first pass and a clean sweep, beside a plain read of the same table. Prints
//! one line of JSON.
//!
//! `bench-memory [ORDER…]`. Rounds are interleaved and medians taken, so that what else the machine does meets all
//! alike.

use htab_bench::library::{Library, Out};
use htab_bench::measure::{Cost, cost, middle};
use htab_bench::memory_table::MemoryTable;
use htab_bench::rival::memory as rival;
use htab_bench::tables::Shape;
use serde_json::{Value, json};
use spapr_htab::inside::host::SystemClock;
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

fn plain_read(table: &MemoryTable) -> Cost {
    cost(|| {
        black_box(table.read());
    })
}

/// A first pass and, after a sweep that nobody times, one that finds nothing; each behind a plain read.
fn ours(table: &mut MemoryTable) -> [[Cost; 2]; 2] {
    table.mark();
    // SAFETY: the table is borrowed for longer than the library is used, and nobody writes to it meanwhile.
    let library = unsafe { Library::memory(table.words.as_mut_ptr(), table.order) };
    let mut out = Out::copied();
    library.setup(&mut out);
    let read = plain_read(table);
    let first = cost(|| {
        library.iterate(&mut out, -1);
    });
    // complete always sweeps; iterate may leave it at the last sweep that found nothing.
    library.complete(&mut out);
    let read_again = plain_read(table);
    let clean = cost(|| library.complete(&mut out));
    library.cleanup();
    [[read, first], [read_again, clean]]
}

/// The same, without the reads.
fn rivals(table: &mut MemoryTable) -> [Cost; 2] {
    table.mark();
    let clock = SystemClock::default();
    let mut save = rival::Save::new(&mut table.words);
    let mut out = Out::copied();
    let first = cost(|| {
        save.iterate(&mut out, &clock, None).expect("a pass");
    });
    save.complete(&mut out, &clock).expect("a sweep");
    [first, cost(|| save.complete(&mut out, &clock).expect("a sweep"))]
}

fn rows(order: u32, shape: Shape) -> Vec<Value> {
    let mut table = MemoryTable::new(order, shape, SEED);
    let (mut first, mut clean, mut two) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds(order) {
        two.push(cost(|| {
            black_box(table.read_by_two());
        }));
        let [[read, first_pass], [read_again, sweep]] = ours(&mut table);
        let [rivals_first_pass, rivals_sweep] = rivals(&mut table);
        first.push([read, first_pass, rivals_first_pass]);
        clean.push([read_again, sweep, rivals_sweep]);
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
