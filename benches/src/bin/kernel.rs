// SPDX-License-Identifier: GPL-2.0-or-later
//! The kernel's table, on the kernel of this machine: reading it to save and writing it to load. Prints one line of
//! JSON.
//!
//! `bench-kernel [--order N] [--rounds N]`. Under `scripts/lab boot --icount` time counts instructions, two nanoseconds
//! each, so that the figures say nothing of the machine and repeat.

use htab_bench::floor::{Segments, read_pass};
use htab_bench::kernel_table::{KernelTable, PlainFd};
use htab_bench::library::{In, Library, Out, gets};
use htab_bench::measure::{Cost, cost, middle};
use htab_bench::rival::kernel as rival;
use htab_bench::tables::{Shape, pick};
use htab_model::kvm::Kvm;
use htab_model::vm::WRITE;
use serde_json::{Value, json};
use spapr_htab::inside::capi::types::SPAPR_HTAB_READ_AHEAD;
use spapr_htab::inside::host::SystemClock;
use spapr_htab::inside::save::source::MAX_CHUNK_BYTES;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

const SEED: u64 = 1;

struct Bench {
    source: KernelTable,
    target: KernelTable,
    rounds: usize,
    rows: Vec<Value>,
}

/// Who is measured.
#[derive(Clone, Copy)]
enum Who {
    Floor,
    Ours,
    /// The library, reading ahead; only saves.
    Ahead,
    Rival,
}

const LOADERS: [Who; 3] = [Who::Floor, Who::Ours, Who::Rival];
const SAVERS: [Who; 4] = [Who::Floor, Who::Ours, Who::Rival, Who::Ahead];

fn rival_save(table: &KernelTable) -> rival::Save {
    rival::Save::new(Box::new(PlainFd(table.open(0))))
}

fn bare(fd: BorrowedFd<'_>, buf: &mut [u8]) {
    read_pass(fd, buf, |_| {});
}

impl Bench {
    /// `rounds`: what each cost, as in `SAVERS` or `LOADERS`.
    fn row<const N: usize>(&mut self, name: &str, detail: &Value, rounds: &[[Cost; N]], bytes: usize) {
        let mut row = json!({ "name": name, "detail": detail, "order": self.source.order, "bytes": bytes });
        for (at, who) in ["floor", "ours", "rival", "ahead"].iter().enumerate().take(N) {
            row[who] = middle(&rounds.iter().map(|round| round[at]).collect::<Vec<_>>()).to_json();
        }
        eprintln!("{row}");
        self.rows.push(row);
    }

    /// The first pass of a table.
    fn save(&mut self, shape: Shape) {
        self.source.clear();
        self.source.fill(shape, SEED);
        let mut buf = vec![0; MAX_CHUNK_BYTES];
        let mut bytes = 0;
        let rounds: Vec<_> = (0..self.rounds)
            .map(|_| {
                SAVERS.map(|who| match who {
                    Who::Floor => cost(|| bare(self.source.open(0).as_fd(), &mut buf)),
                    Who::Ours | Who::Ahead => {
                        let library = self.library(who);
                        // With the setup, in which the reader may begin.
                        let cost = cost(|| {
                            library.setup(&mut Out::Thrown);
                            library.iterate(&mut Out::Thrown, -1);
                        });
                        library.cleanup();
                        cost
                    }
                    Who::Rival => cost(|| rival_save(&self.source).pass(&mut Out::Thrown).expect("a pass")),
                })
            })
            .collect();
        bytes += self.kernel_records(&self.source).len();
        self.row("save", &json!(shape.name()), &rounds, bytes);
    }

    /// A later pass with some slots changed, and the end of a save: what has to be done after the stop.
    fn later(&mut self, per_mille: u64) {
        let slots = self.source.slots();
        let changed = pick(slots, slots * per_mille / 1000, SEED);
        let mut used = vec![false; usize::try_from(slots).expect("a table in memory")];
        for (first, count) in Shape::Typical.runs(slots, SEED) {
            (first..first + count).for_each(|slot| used[usize::try_from(slot).expect("a slot")] = true);
        }
        self.source.clear();
        self.source.fill(Shape::Typical, SEED);
        let mut buf = vec![0; MAX_CHUNK_BYTES];
        let (mut passes, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            let costs = SAVERS.map(|who| self.later_of(who, &changed, &used, &mut buf));
            // What is read ahead was read before it was asked for: its later passes have no time of their own.
            let [floor, ours, rival, _] = costs.map(|(pass, _)| pass);
            passes.push([floor, ours, rival]);
            ends.push(costs.map(|(_, end)| end));
        }
        let fd = self.source.open(0);
        bare(fd.as_fd(), &mut buf);
        self.source.toggle(&changed, &used, false);
        let mut bytes = 0;
        read_pass(fd.as_fd(), &mut buf, |some| bytes += some.len());
        self.source.toggle(&changed, &used, true);
        self.row("later pass", &json!(per_mille), &passes, bytes);
        self.row("completion", &json!(per_mille), &ends, bytes);
    }

    /// The later pass is measured with the slots turned round, the end with them turned back.
    fn later_of(&self, who: Who, changed: &[u64], used: &[bool], buf: &mut [u8]) -> (Cost, Cost) {
        let turn = |back| self.source.toggle(changed, used, back);
        match who {
            Who::Floor => {
                let fd = self.source.open(0);
                bare(fd.as_fd(), buf);
                turn(false);
                let pass = cost(|| bare(fd.as_fd(), buf));
                turn(true);
                (pass, cost(|| bare(fd.as_fd(), buf)))
            }
            Who::Ours | Who::Ahead => {
                let library = self.library(who);
                library.setup(&mut Out::Thrown);
                library.iterate(&mut Out::Thrown, -1);
                turn(false);
                let pass = cost(|| {
                    library.iterate(&mut Out::Thrown, -1);
                });
                turn(true);
                let end = cost(|| library.complete(&mut Out::Thrown));
                library.cleanup();
                (pass, end)
            }
            Who::Rival => {
                let (mut save, mut out) = (rival_save(&self.source), Out::Thrown);
                save.pass(&mut out).expect("a pass");
                turn(false);
                let pass = cost(|| save.pass(&mut out).expect("a pass"));
                turn(true);
                let clock = SystemClock::default();
                (pass, cost(|| save.complete(&mut out, &clock).expect("an end")))
            }
        }
    }

    /// A table's body of records, into an empty table. Each side loads what its own source sends; `crossed` has the
    /// library load the rival's.
    fn load(&mut self, shape: Shape, crossed: bool) {
        self.source.clear();
        self.source.fill(shape, SEED);
        let kernel = self.kernel_records(&self.source);
        let mut rivals = Out::Kept(Vec::new());
        rival_save(&self.source).pass(&mut rivals).expect("a pass");
        let rivals = rivals.into_bytes();
        let mut ours = Out::Kept(Vec::new());
        let library = self.library(Who::Ours);
        library.setup(&mut Out::Thrown);
        library.iterate(&mut ours, -1);
        library.cleanup();
        let ours = if crossed { rivals.clone() } else { ours.into_bytes() };

        let segments = Segments::cut(&kernel);
        let vectors = segments.vectors();
        let loader = Library::kernel(self.target.vm.as_fd().as_raw_fd(), self.target.order, 0);
        let mut rounds = Vec::new();
        for _ in 0..self.rounds {
            rounds.push(LOADERS.map(|who| {
                self.target.clear();
                let cost = match who {
                    Who::Floor => {
                        let fd = self.target.open(WRITE);
                        cost(|| segments.write(fd.as_fd(), &vectors))
                    }
                    Who::Ours | Who::Ahead => cost(|| loader.load(&ours)),
                    Who::Rival => {
                        let mut fd = PlainFd(self.target.open(WRITE));
                        cost(|| rival::load(&mut In(&rivals), &mut fd).expect("a load"))
                    }
                };
                assert!(self.kernel_records(&self.target) == kernel, "the table arrived");
                cost
            }));
        }
        let name = if crossed { "load of the rival's stream" } else { "load" };
        let handed_over = cost(|| gets(&ours)).ns;
        let detail = json!({ "shape": shape.name(), "records": segments.len(), "gets_ns": handed_over });
        self.row(name, &detail, &rounds, kernel.len());
    }

    fn library(&self, who: Who) -> Library {
        let flags = if matches!(who, Who::Ahead) { SPAPR_HTAB_READ_AHEAD } else { 0 };
        Library::kernel(self.source.vm.as_fd().as_raw_fd(), self.source.order, flags)
    }

    fn kernel_records(&self, table: &KernelTable) -> Vec<u8> {
        let mut bytes = Vec::new();
        let fd = table.open(0);
        read_pass(fd.as_fd(), &mut vec![0; MAX_CHUNK_BYTES], |some| bytes.extend_from_slice(some));
        bytes
    }
}

fn option(name: &str, default: u32) -> u32 {
    let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
    arguments.next().map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} {value}")))
}

fn main() {
    let kvm = Kvm::open().expect("/dev/kvm with KVM-HV");
    let order = option("--order", 24);
    let mut bench = Bench {
        source: KernelTable::new(&kvm, order),
        target: KernelTable::new(&kvm, order),
        rounds: usize::try_from(option("--rounds", 3)).expect("few"),
        rows: Vec::new(),
    };
    for shape in [Shape::Empty, Shape::Typical, Shape::Dense] {
        bench.save(shape);
    }
    for per_mille in [0, 1, 10, 100] {
        bench.later(per_mille);
    }
    for shape in [Shape::Dense, Shape::Typical, Shape::Scattered] {
        bench.load(shape, false);
    }
    bench.load(Shape::Typical, true);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("{}", json!({ "kernel": kernel.trim(), "rows": bench.rows }));
}
