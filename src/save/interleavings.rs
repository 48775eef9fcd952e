// SPDX-License-Identifier: GPL-2.0-or-later
//! The queue under loom, which tries every order in which its threads can come to it (docs/testing.md).
//!
//! The table is a double of two slots, a counter each: a change adds to it, a read takes what it is.

use crate::format::record::{RecordHeader, Tally};
use crate::host::Nanos;
use crate::save::queue::{Aim, Next, Queue, ReadPause, Records, SharedQueue};
use crate::save::run_state::RunState;
use crate::save::source::{Chunk, MAX_CHUNK_BYTES};
use crate::save::sweep::{DutyCycle, Read, Sweep};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use loom::thread;

const SLOTS: usize = 2;
const SWEEP: Aim = Aim::Sweep { deadline: None };

#[derive(Default)]
struct Table {
    slots: [AtomicUsize; SLOTS],
    /// A read is under way.
    inside: AtomicBool,
}

/// What a read of a slot reports: the slot and its value.
fn record(slot: usize, value: usize) -> RecordHeader {
    let (index, value) = (u32::try_from(slot).unwrap(), u16::try_from(value).unwrap());
    RecordHeader { index, n_valid: 0, n_invalid: value }
}

/// The VM stops.
fn stop(queue: &Queue) {
    queue.vm(RunState::stopped);
}

/// The reader: one slot a read, until the queue is closed.
fn reader(queue: SharedQueue, table: Arc<Table>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        while let Some(job) = queue.wait_for_job() {
            let at = usize::try_from(job.at.slot.0).unwrap();
            table.inside.store(true, SeqCst);
            let value = table.slots[at].load(SeqCst);
            table.inside.store(false, SeqCst);
            let mut tally = Tally::default();
            tally.count(record(at, value));
            let read =
                Read { chunk: Chunk { tally, slots: 1 }, stop: job.stop, began: Nanos(0), ended: Nanos(0) };
            queue.finish_job(Ok((read, record(at, value).to_stream().to_vec())));
        }
    })
}

fn begun(room: usize) -> (SharedQueue, Arc<Table>, thread::JoinHandle<()>) {
    let queue = SharedQueue::new(Queue::default());
    queue.open(Sweep::new(SLOTS as u64, DutyCycle::DEFAULT), 0, Some(room));
    let table = Arc::new(Table::default());
    let reader = reader(queue.clone(), Arc::clone(&table));
    (queue, table, reader)
}

/// What a complete does: takes until all of the table was read since the stop. Returns each slot's last value.
fn drain(queue: &SharedQueue) -> [u16; SLOTS] {
    let mut sent = [0; SLOTS];
    loop {
        match queue.take(Aim::Finish, Nanos(0)).unwrap() {
            Next::Records(records) => note(&records, &mut sent),
            Next::Wait => queue.wait_until_ready(),
            Next::Resting => return sent,
            Next::Gone => panic!("the table is there"),
        }
    }
}

fn note(records: &Records, sent: &mut [u16; SLOTS]) {
    let header = RecordHeader::from_stream(records.bytes().try_into().unwrap());
    sent[usize::try_from(header.index).unwrap()] = header.n_invalid;
}

fn model(threads_meet: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    // All orders in which no more than three times a thread is stopped that could have run on.
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
        stop(&queue);
        assert_eq!(drain(&queue), [2, 1]);
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
                let pause = ReadPause::for_lookup(&queue);
                pause.wait_until_at_rest();
                assert!(!table.inside.load(SeqCst));
                queue.push_looked_up(record(0, table.slots[0].load(SeqCst)), &[]).unwrap();
                assert!(!table.inside.load(SeqCst));
                drop(pause);
            })
        };
        lookup.join().unwrap();
        stop(&queue);
        assert_eq!(drain(&queue)[0], 1);
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
            match queue.take(Aim::Finish, Nanos(0)).unwrap() {
                Next::Records(_) => taken += 1,
                _ => queue.wait_until_ready(),
            }
        }
        stop(&queue);
        queue.wait_until_ready();
        drain(&queue);
        queue.close();
        reader.join().unwrap();
    });
}

#[test]
fn a_reader_goes_on_after_a_lookup() {
    model(|| {
        let (queue, _, reader) = begun(1 << 30);
        stop(&queue);
        let lookup = {
            let queue = queue.clone();
            thread::spawn(move || ReadPause::for_lookup(&queue).wait_until_at_rest())
        };
        drain(&queue);
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
                    let _ = queue.take(SWEEP, Nanos(0)).unwrap();
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
