// SPDX-License-Identifier: GPL-2.0-or-later
//! The most memory that a save and a load hold at a time. Prints one line of JSON.
//!
//! Counted in this process's allocator, from when the work begins; the kernel's table is made up (`vast`), so that its
//! size counts for nothing here, as it does in QEMU.

use htab_bench::library::In;
use htab_bench::tables::{Shape, entry};
use htab_bench::vast::{Costs, Fill, Vast, VastStream};
use htab_harness::records::to_body;
use htab_model::record::Record;
use serde_json::{Value, json};
use spapr_htab::inside::error::{Errno, Error};
use spapr_htab::inside::format::hpte::Order;
use spapr_htab::inside::host::{Clock, Nanos, SystemClock};
use spapr_htab::inside::host::{Host, HptFd, OpenOptions};
use spapr_htab::inside::load::Loader;
use spapr_htab::inside::save::Saver;
use spapr_htab::inside::save::reader::DEFAULT_QUEUE_BYTES;
use spapr_htab::inside::save::session::SaveOptions;
use spapr_htab::inside::table::Table;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// The system's allocator, and what is held now and was held at most.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does the work, with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that the work held, beside what was held before.
fn peak(work: impl FnOnce()) -> usize {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    work();
    PEAK.load(Ordering::Relaxed) - before
}

/// A destination whose kernel takes everything.
struct Taking {
    order: Order,
    clock: SystemClock,
}

struct TakingFd;

impl HptFd for TakingFd {
    fn read(&mut self, _: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::EIO)
    }

    fn write(&mut self, records: &[&[u8]]) -> Result<usize, Errno> {
        Ok(records.iter().map(|record| record.len()).sum())
    }
}

impl Clock for Taking {
    fn now(&self) -> Nanos {
        self.clock.now()
    }
}

impl Host for Taking {
    fn clock(&self) -> &dyn Clock {
        self
    }

    fn table(&self) -> Result<Table, Error> {
        Ok(Table::Kernel(self.order))
    }

    fn allocate(&self, _: Order) -> Result<(), Errno> {
        Ok(())
    }

    fn free(&self) -> Result<(), Errno> {
        Ok(())
    }

    fn open(&self, _: OpenOptions) -> Result<Box<dyn HptFd>, Errno> {
        Ok(Box::new(TakingFd))
    }
}

/// Real time for the reader to fill its queue.
const FILL: Duration = Duration::from_millis(300);

/// A whole save.
fn save(order: u32, options: SaveOptions) -> usize {
    let slots = 1_u64 << (order - 4);
    let costs = Costs { call: 0, clean: 0, invalid: 0, entry: 0, byte: 0 };
    let table = Vast::new(
        order,
        &[(slots / 64, Fill::Groups), (slots / 32, Fill::Full), (slots, Fill::Empty)],
        costs,
    );
    let saver = Saver::default();
    let mut stream = VastStream(table.clone());
    peak(|| {
        saver.setup(&table, &mut stream, options).expect("setup");
        if options.ahead.is_some() {
            thread::sleep(FILL);
        }
        saver.iterate(&table, &mut stream, None).expect("iterate");
        saver.complete(&table, &mut stream).expect("complete");
        saver.cleanup().expect("cleanup");
    })
}

/// The first 2^24 slots of a table, or as many as it has: typical ones, and the longest record there can be.
fn body(order: u32) -> Vec<u8> {
    let slots = 1_u64 << (order.min(28) - 4);
    let record = |(first, count): (u64, u64)| {
        let entries: Vec<_> = (first..first + count).map(entry).collect();
        Record::new(u32::try_from(first).expect("a slot"), &entries, 0)
    };
    let records: Vec<_> = Shape::Typical.runs(slots, 1).chain([(0, 65_535)]).map(record).collect();
    to_body(&records)
}

fn loads(order: u32) -> usize {
    let body = body(order);
    let host = Taking { order: Order::new(order).expect("an order"), clock: SystemClock::default() };
    peak(|| Loader::default().load(&host, &mut In(&body), 1).expect("a load"))
}

fn main() {
    let ahead = SaveOptions { ahead: Some(DEFAULT_QUEUE_BYTES), ..SaveOptions::DEFAULT };
    let rows: Vec<Value> = [24, 34]
        .iter()
        .map(|&order| {
            json!({
                "order": order,
                "save_bytes": save(order, SaveOptions::DEFAULT),
                "ahead_bytes": save(order, ahead),
                "load_bytes": loads(order),
            })
        })
        .collect();
    println!("{}", json!({ "rows": rows }));
}
