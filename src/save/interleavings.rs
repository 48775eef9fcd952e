// SPDX-License-Identifier: GPL-2.0-or-later
//! The queue under loom, which tries every order in which its threads can come to it (docs/testing.md).
//!
//! The table is a double of two slots, a counter each: a change adds to it, a read takes what it is.

use crate::error::Error;
use crate::format::hpte::Slot;
use crate::format::record::Tally;
use crate::host::{Clock, Nanos};
use crate::save::queue::{Next, Origin, Queue, ReadPause, SharedQueue};
use crate::save::run_state::{RunState, StopId};
use crate::save::source::{Chunk, MAX_CHUNK_BYTES, Source};
use crate::save::sweep::{DutyCycle, Read, Sweep};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use loom::thread;

const SLOTS: usize = 2;

#[derive(Default)]
struct Table {
    slots: [AtomicUsize; SLOTS],
    /// A read is under way.
    inside: AtomicBool,
}

/// Only tells a sweep how large its table is.
struct Shape;

impl Source for Shape {
    fn read(&mut self, _: &mut [u8], _: &dyn Clock, _: Option<Nanos>) -> Result<Chunk, Error> {
        Err(Error::Internal)
    }
    fn position(&self) -> Slot {
        Slot(0)
    }
    fn pass(&self) -> u64 {
        2
    }
    fn slots(&self) -> u64 {
        SLOTS as u64
    }
}

fn stop() -> StopId {
    let halt = RunState::default();
    halt.stopped();
    halt.now().unwrap()
}

/// The reader: one slot a read, until the queue is closed. Its records are the slot and its value.
fn reader(queue: SharedQueue, table: Arc<Table>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut at = 0;
        while let Some(stop) = queue.begin_read() {
            table.inside.store(true, SeqCst);
            let value = table.slots[at].load(SeqCst);
            table.inside.store(false, SeqCst);
            let tally = Tally { bytes: 2, ..Tally::default() };
            let chunk = Chunk { tally, slots: 1, wrapped: at + 1 == SLOTS };
            let records = vec![u8::try_from(at).unwrap(), u8::try_from(value).unwrap()];
            queue.end_read(Ok((Read { chunk, stop, time: Default::default() }, records)));
            at = (at + 1) % SLOTS;
        }
    })
}

fn begun(limit: usize) -> (SharedQueue, Arc<Table>, thread::JoinHandle<()>) {
    let queue = SharedQueue::new(Queue::new(Sweep::of(&Shape, DutyCycle::DEFAULT), limit));
    let table = Arc::new(Table::default());
    let reader = reader(queue.clone(), Arc::clone(&table));
    (queue, table, reader)
}

/// What a complete does: takes until what was read since the stop is all of the table. Tells each slot's last value.
fn drain(queue: &SharedQueue, stop: StopId) -> [u8; SLOTS] {
    let mut heard = [0; SLOTS];
    let mut sweep = Sweep::of(&Shape, DutyCycle::DEFAULT);
    while !sweep.has_passed_all(Some(stop)) {
        match queue.take(false, Nanos(0)).unwrap() {
            Next::Entry(entry) => {
                heard[usize::from(entry.records[0])] = entry.records[1];
                if let Origin::Sweep(read) = entry.origin {
                    sweep.advance(&read);
                }
            }
            Next::NotYet | Next::Resting => queue.wait_until_ready(),
        }
    }
    while queue.looked_up_bytes() > 0 {
        let Next::Entry(entry) = queue.take(false, Nanos(0)).unwrap() else { panic!("it is there") };
        heard[usize::from(entry.records[0])] = entry.records[1];
    }
    heard
}

fn model(threads_meet: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    // All orders in which no more than three times a thread is stopped that could have gone on.
    builder.preemption_bound = Some(3);
    builder.check(threads_meet);
}

#[test]
fn a_stop_at_any_moment_loses_no_change() {
    model(|| {
        let (queue, table, reader) = begun(MAX_CHUNK_BYTES);
        // The VM's last changes, and its stop.
        table.slots[1].store(1, SeqCst);
        table.slots[0].store(2, SeqCst);
        let stop = stop();
        queue.set_stop(Some(stop));
        assert_eq!(drain(&queue, stop), [2, 1]);
        queue.close();
        reader.join().unwrap();
    });
}

#[test]
fn no_read_is_under_way_during_a_lookup_and_its_record_comes_in_order() {
    model(|| {
        let (queue, table, reader) = begun(2 * MAX_CHUNK_BYTES);
        let lookup = {
            let (queue, table) = (queue.clone(), Arc::clone(&table));
            thread::spawn(move || {
                table.slots[0].store(1, SeqCst);
                let hold = ReadPause::of(&queue);
                hold.wait_until_at_rest();
                assert!(!table.inside.load(SeqCst));
                let value = u8::try_from(table.slots[0].load(SeqCst)).unwrap();
                queue.push_looked_up(&[0, value], Tally::default()).unwrap();
                assert!(!table.inside.load(SeqCst));
                drop(hold);
            })
        };
        lookup.join().unwrap();
        let stop = stop();
        queue.set_stop(Some(stop));
        assert_eq!(drain(&queue, stop)[0], 1);
        queue.close();
        reader.join().unwrap();
    });
}

#[test]
fn a_parked_reader_hears_of_the_stop() {
    model(|| {
        let (queue, _, reader) = begun(1 << 30);
        let mut taken = 0;
        while taken < SLOTS {
            match queue.take(false, Nanos(0)).unwrap() {
                Next::Entry(_) => taken += 1,
                Next::NotYet | Next::Resting => queue.wait_until_ready(),
            }
        }
        let stop = stop();
        queue.set_stop(Some(stop));
        queue.wait_until_ready();
        drain(&queue, stop);
        queue.close();
        reader.join().unwrap();
    });
}

#[test]
fn a_reader_goes_on_after_a_lookup() {
    model(|| {
        let (queue, _, reader) = begun(1 << 30);
        let stop = stop();
        queue.set_stop(Some(stop));
        let lookup = {
            let queue = queue.clone();
            thread::spawn(move || ReadPause::of(&queue).wait_until_at_rest())
        };
        drain(&queue, stop);
        lookup.join().unwrap();
        queue.close();
        reader.join().unwrap();
    });
}

#[test]
fn a_reader_ends_whatever_it_waits_for() {
    // With room for one read it waits for room; else for a sweep to be wanted.
    for limit in [MAX_CHUNK_BYTES, 1 << 30] {
        model(move || {
            let (queue, _, reader) = begun(limit);
            let taker = {
                let queue = queue.clone();
                thread::spawn(move || {
                    let _ = queue.take(true, Nanos(0)).unwrap();
                    // Comes back, though there may be nothing ever.
                    queue.wait_until_ready();
                })
            };
            queue.close();
            reader.join().unwrap();
            taker.join().unwrap();
        });
    }
}
