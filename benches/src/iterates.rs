// SPDX-License-Identifier: GPL-2.0-or-later
//! How long a bounded iterate takes, from a save's first to its last, in virtual time.

use crate::rival::kernel as rival;
use crate::tables::pick;
use crate::vast::{Costs, Fill, Vast, VastStream};
use htab_harness::guest::Numbers;
use serde_json::{Value, json};
use spapr_htab::inside::host::{Clock, Nanos};
use spapr_htab::inside::save::Saver;
use spapr_htab::inside::save::reader::DEFAULT_QUEUE_BYTES;
use spapr_htab::inside::save::session::SaveOptions;
use std::thread;
use std::time::Duration;

const ORDERS: [u32; 7] = [24, 26, 28, 30, 32, 34, 36];
const MS: u64 = 1_000_000;
/// Iterates after the first pass, and slots that the guest changes between two of them.
const LATER: usize = 300;
const CHANGES: u64 = 100;

/// Real time for the reader between two iterates.
const FILL: Duration = Duration::from_millis(1);
const AHEAD: SaveOptions = SaveOptions { ahead: Some(DEFAULT_QUEUE_BYTES), ..SaveOptions::DEFAULT };

/// A table with all that makes the time of a read hard to foresee: single entries, none for long, many at once, none.
fn table(order: u32, costs: Costs) -> Vast {
    let slots = 1_u64 << (order - 4);
    let parts = [
        (slots / 64, Fill::Groups),
        (slots / 2, Fill::Empty),
        (slots / 2 + slots / 256, Fill::Full),
        (slots, Fill::Empty),
    ];
    Vast::new(order, &parts, costs)
}

/// Iterates' nanoseconds.
struct Times {
    first_pass: Vec<u64>,
    later: Vec<u64>,
}

/// Runs a save. `iterate` returns whether the first pass is under way.
fn save(table: &Vast, mut iterate: impl FnMut() -> bool) -> Times {
    let mut timed = || {
        let began = table.now();
        let more = iterate();
        (table.now().since(began).0, more)
    };
    let mut times = Times { first_pass: Vec::new(), later: Vec::new() };
    loop {
        let (took, more) = timed();
        times.first_pass.push(took);
        if !more {
            break;
        }
    }
    let mut numbers = Numbers(1);
    for _ in 0..LATER {
        table.change(pick(table.order.slots(), CHANGES, numbers.any()));
        times.later.push(timed().0);
    }
    times
}

fn ours(table: &Vast, max: u64, options: SaveOptions) -> Times {
    let saver = Saver::default();
    let mut stream = VastStream(table.clone());
    saver.setup(table, &mut stream, options).expect("setup");
    save(table, || {
        if options.ahead.is_some() {
            // Virtual time does not wait for the thread; its queue fills, which makes the longest iterates.
            thread::sleep(FILL);
        }
        saver.iterate(table, &mut stream, Some(Nanos(max))).expect("iterate");
        table.reported_first() < table.order.slots()
    })
}

fn rivals(table: &Vast, max: u64) -> Times {
    let mut save_ = rival::Save::new(Box::new(table.fd()));
    let mut stream = VastStream(table.clone());
    save(table, || {
        save_.iterate(&mut stream, table, Some(Nanos(max))).expect("iterate");
        table.reported_first() < table.order.slots()
    })
}

fn of(mut times: Vec<u64>) -> Value {
    times.sort_unstable();
    let at = |per_mille: usize| times[(times.len() - 1) * per_mille / 1000];
    json!({ "iterates": times.len(), "median_ns": at(500), "p999_ns": at(999), "worst_ns": at(1000) })
}

fn both(times: Times) -> Value {
    let worst = |times: &[u64]| times.iter().max().copied();
    let (first, later) = (worst(&times.first_pass), worst(&times.later));
    let mut row = of([times.first_pass, times.later].concat());
    row["worst_first_pass_ns"] = json!(first);
    row["worst_later_ns"] = json!(later);
    row
}

/// A row for each order and bound.
#[must_use]
pub fn rows(costs: Costs) -> Vec<Value> {
    let mut rows = Vec::new();
    for order in ORDERS {
        for max in [MS, 5 * MS] {
            let row = json!({
                "order": order, "max_ns": max,
                "ours": both(ours(&table(order, costs), max, SaveOptions::DEFAULT)),
                "ahead": both(ours(&table(order, costs).read_beside(), max, AHEAD)),
                "rival": both(rivals(&table(order, costs), max)),
            });
            eprintln!("{row}");
            rows.push(row);
        }
    }
    rows
}
