// SPDX-License-Identifier: GPL-2.0-or-later
//! How long a guest stands still for its table at the end of a migration, in virtual time.
//!
//! After the first pass RAM and the table take turns, 50 ms and an iterate of 5 ms at most, as in QEMU, while the guest
//! changes its table at random. Then the guest stops, RAM's last pages go out, and the table is completed. This is done
//! again for some moments of the stop. With read-ahead the last sweep begins at the stop, beside RAM's pages: that part
//! is arithmetic on the sweep's time.

use crate::measure::median;
use crate::rival::kernel as rival;
use crate::tables::pick;
use crate::vast::{Costs, Fill, Vast, VastStream};
use serde_json::{Value, json};
use spapr_htab::inside::host::{Clock, Nanos};
use spapr_htab::inside::save::Saver;
use spapr_htab::inside::save::session::SaveOptions;

const GIB: u64 = 1 << 30;
/// Guests' memory. QEMU makes the table a 128th of it; order 36 is the largest that can be migrated.
const GUESTS: [(u64, u32); 3] = [(64 * GIB, 29), (1024 * GIB, 33), (16 * 1024 * GIB, 36)];
/// Bytes of RAM that the guest changes in a second.
const RAM_RATES: [u64; 3] = [100_000_000, 400_000_000, 800_000_000];
/// QEMU's default for the time that RAM may take at the end.
const RAM_LIMIT_NS: u64 = 300_000_000;
/// Slots of the table that the guest changes in a second.
const CHANGES_PER_SECOND: u64 = 20_000;
const RAM_TURN_NS: u64 = 50_000_000;
const ITERATE: Nanos = Nanos(5_000_000);
/// Moments of the stop.
const STOPS: u64 = 9;

/// How long RAM's last pages take: rounds of what was changed in the round before, until one is short enough.
fn ram_at_the_end(bytes: u64, rate: u64, ps_per_byte: u64) -> u64 {
    let mut ns = bytes / 1000 * ps_per_byte;
    while ns > RAM_LIMIT_NS {
        ns = ns / 1000 * (rate / 1000) / 1000 * ps_per_byte / 1000;
    }
    ns
}

fn table(order: u32, costs: Costs) -> Vast {
    let slots = 1_u64 << (order - 4);
    Vast::new(order, &[(slots / 64, Fill::Groups), (slots, Fill::Empty)], costs)
}

/// Who saves.
trait Save {
    fn first_pass(&mut self);
    fn iterate(&mut self);
    fn complete(&mut self);
}

struct Ours {
    saver: Saver,
    table: Vast,
    stream: VastStream,
    /// `None` for reads of the size that a reader thread makes, which has no bound to keep.
    bound: Option<Nanos>,
}

impl Save for Ours {
    fn first_pass(&mut self) {
        self.saver.setup(&self.table, &mut self.stream, SaveOptions::DEFAULT).expect("setup");
        self.saver.iterate(&self.table, &mut self.stream, None).expect("iterate");
    }

    fn iterate(&mut self) {
        self.saver.iterate(&self.table, &mut self.stream, self.bound).expect("iterate");
    }

    fn complete(&mut self) {
        self.saver.complete(&self.table, &mut self.stream).expect("complete");
    }
}

struct Rivals {
    save: rival::Save,
    table: Vast,
    stream: VastStream,
}

impl Save for Rivals {
    fn first_pass(&mut self) {
        self.save.pass(&mut self.stream).expect("a pass");
    }

    fn iterate(&mut self) {
        self.save.iterate(&mut self.stream, &self.table, Some(ITERATE)).expect("iterate");
    }

    fn complete(&mut self) {
        self.save.complete(&mut self.stream, &self.table).expect("complete");
    }
}

/// What the guest changed in so much time.
fn change(table: &Vast, ns: u64, seed: u64) {
    let count = ns * CHANGES_PER_SECOND / 1_000_000_000;
    table.change(pick(table.order.slots(), count, seed));
}

/// The nanoseconds of complete for several moments of the stop.
fn completions(table: &Vast, save: &mut dyn Save) -> Vec<u64> {
    save.first_pass();
    (0..STOPS)
        .map(|stop| {
            for turn in 0..3 + stop {
                let began = table.now();
                table.clock.advance(RAM_TURN_NS * 1000);
                change(table, RAM_TURN_NS, stop * 100 + turn);
                save.iterate();
                let swept = table.now().since(began).0 - RAM_TURN_NS;
                change(table, swept, stop * 100 + turn + 50);
            }
            change(table, RAM_TURN_NS / 2, stop);
            let began = table.now();
            save.complete();
            table.now().since(began).0
        })
        .collect()
}

fn of(times: Vec<u64>) -> Value {
    let worst = times.iter().max().copied();
    json!({ "median_ns": median(times), "worst_ns": worst })
}

fn ours(order: u32, costs: Costs, bound: Option<Nanos>) -> Vec<u64> {
    let table = table(order, costs);
    let stream = VastStream(table.clone());
    completions(&table, &mut Ours { saver: Saver::default(), table: table.clone(), stream, bound })
}

fn rivals(order: u32, costs: Costs) -> Vec<u64> {
    let table = table(order, costs);
    let (save, stream) = (rival::Save::new(Box::new(table.fd())), VastStream(table.clone()));
    completions(&table, &mut Rivals { save, table: table.clone(), stream })
}

/// A row for each guest and rate of changes to its RAM.
#[must_use]
pub fn rows(costs: Costs) -> Vec<Value> {
    let mut rows = Vec::new();
    for (bytes, order) in GUESTS {
        let (rivals, ours, sweeps) =
            (rivals(order, costs), ours(order, costs, Some(ITERATE)), ours(order, costs, None));
        for rate in RAM_RATES {
            let ram = ram_at_the_end(bytes, rate, costs.byte);
            let ahead = sweeps.iter().map(|sweep| sweep.saturating_sub(ram)).collect();
            let row = json!({
                "guest_bytes": bytes, "order": order, "ram_bytes_per_second": rate, "ram_at_the_end_ns": ram,
                "rival": of(rivals.clone()), "ours": of(ours.clone()), "ahead": of(ahead),
            });
            eprintln!("{row}");
            rows.push(row);
        }
    }
    rows
}
