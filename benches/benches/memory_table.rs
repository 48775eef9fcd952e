// SPDX-License-Identifier: GPL-2.0-or-later
//! The table in memory under criterion, for work on the sweep: `cargo bench -p htab-bench`. The published figures come
//! from `bench-memory`, which takes turns; here each is measured by itself.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use htab_bench::library::{Library, Out};
use htab_bench::memory_table::MemoryTable;
use htab_bench::rival::memory as rival;
use htab_bench::tables::Shape;
use spapr_htab::inside::host::SystemClock;

const ORDER: u32 = 24;
const SHAPES: [Shape; 4] = [Shape::Empty, Shape::Sparse, Shape::Typical, Shape::Dense];

fn library(table: &mut MemoryTable) -> Library {
    // SAFETY: the callers keep the table for longer than the result, and use it in no other way meanwhile.
    unsafe { Library::memory(table.words.as_mut_ptr(), table.order) }
}

fn clean_sweeps(criterion: &mut Criterion) {
    for shape in SHAPES {
        let mut table = MemoryTable::new(ORDER, shape, 1);
        let mut group = criterion.benchmark_group(format!("clean sweep, {}", shape.name()));
        group.throughput(Throughput::Elements(table.slots() as u64));
        group.bench_function("plain read", |bencher| bencher.iter(|| table.read()));
        let (library, mut out) = (library(&mut table), Out::copied());
        library.setup(&mut out);
        library.iterate(&mut out, -1);
        group.bench_function("library", |bencher| bencher.iter(|| library.complete(&mut out)));
        drop(library);
        let clock = SystemClock::default();
        let mut save = rival::Save::new(&mut table.words);
        save.iterate(&mut out, &clock, None).expect("a pass");
        group.bench_function("rival", |bencher| bencher.iter(|| save.iterate(&mut out, &clock, None)));
    }
}

fn first_passes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("first pass");
    group.throughput(Throughput::Elements(1 << (ORDER - 4)));
    for shape in SHAPES {
        let marked = || {
            let mut table = MemoryTable::new(ORDER, shape, 1);
            table.mark();
            table
        };
        let ours = |table: &mut MemoryTable| {
            let (library, mut out) = (library(table), Out::copied());
            library.setup(&mut out);
            library.iterate(&mut out, -1)
        };
        let rivals = |table: &mut MemoryTable| {
            let mut save = rival::Save::new(&mut table.words);
            save.iterate(&mut Out::copied(), &SystemClock::default(), None)
        };
        group.bench_function(BenchmarkId::new("library", shape.name()), |bencher| {
            bencher.iter_batched_ref(marked, ours, BatchSize::PerIteration);
        });
        group.bench_function(BenchmarkId::new("rival", shape.name()), |bencher| {
            bencher.iter_batched_ref(marked, rivals, BatchSize::PerIteration);
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = clean_sweeps, first_passes
}
criterion_main!(benches);
