// SPDX-License-Identifier: GPL-2.0-or-later
//! The queue by itself, without a thread or a table.

use super::*;
use crate::save::source::Chunk;
use crate::save::sweep::DutyCycle;

const INVALID: RecordHeader = RecordHeader { index: 0, n_valid: 0, n_invalid: 1 };

/// Of a table of 16 slots, after three passes over others.
fn queue(thread_room: Option<usize>) -> Queue {
    let queue = Queue::default();
    queue.open(Sweep::new(16, DutyCycle::DEFAULT), 3, thread_room);
    queue
}

/// A read of some slots that found one of them changed.
fn read(queue: &Queue, slots: u64) -> Job {
    let job = queue.job().expect("a table");
    let mut tally = Tally::default();
    tally.count(INVALID);
    let read = Read { chunk: Chunk { tally, slots }, stop: job.stop, began: Nanos(0), ended: Nanos(0) };
    queue.finish_job(Ok((read, vec![0; MAX_CHUNK_BYTES])));
    job
}

fn take(queue: &Queue) -> Records {
    match queue.take(Aim::Sweep { deadline: None }, Nanos(0)) {
        Ok(Next::Records(records)) => records,
        _ => panic!("there are records"),
    }
}

#[test]
fn what_lookups_leave_goes_out_together_as_far_as_a_buffer_holds_it() {
    let queue = queue(None);
    let most = RecordHeader { index: 0, n_valid: 8191, n_invalid: 0 };
    let entries = vec![0; most.payload_bytes()];
    for (header, entries) in [(most, &entries[..]), (INVALID, &[]), (INVALID, &[])] {
        queue.push_looked_up(header, entries).expect("memory");
    }
    assert_eq!((queue.bytes(), queue.looked_up_bytes()), (entries.len() + 24, entries.len() + 24));
    let first = take(&queue);
    assert_eq!((first.tally.records, first.bytes().len(), first.pass), (2, entries.len() + 16, 4));
    assert!(first.looked_up);
    assert_eq!((queue.bytes(), queue.looked_up_bytes()), (8, 8));
    assert_eq!(take(&queue).bytes(), INVALID.to_stream());
    assert_eq!((queue.bytes(), queue.looked_up_bytes()), (0, 0));
}

#[test]
fn a_buffer_that_was_sent_is_filled_again() {
    let queue = queue(None);
    assert!(read(&queue, 1).buffer.is_empty());
    queue.recycle(take(&queue));
    assert_eq!(read(&queue, 1).buffer.len(), MAX_CHUNK_BYTES);
    queue.recycle(take(&queue));
    queue.free_buffers();
    assert!(read(&queue, 1).buffer.is_empty());
    queue.push_looked_up(INVALID, &[]).expect("memory");
    for _ in 0..2 {
        queue.recycle(take(&queue));
    }
    assert_eq!(read(&queue, 1).buffer.len(), MAX_CHUNK_BYTES);
    assert!(read(&queue, 1).buffer.is_empty(), "the lookup's is too small");
}

#[test]
fn the_thread_reads_while_a_read_fits_into_its_room_and_something_is_to_be_read() {
    let queue = queue(Some(2 * MAX_CHUNK_BYTES));
    for activity in [Activity::Reading, Activity::Full] {
        read(&queue, 1);
        assert_eq!(queue.activity(), Some(activity));
    }
    queue.recycle(take(&queue));
    assert_eq!(queue.activity(), Some(Activity::Reading));
    read(&queue, 14);
    assert_eq!(queue.activity(), Some(Activity::Parked), "the sweep is over");
    queue.recycle(take(&queue));
    queue.vm(RunState::stopped);
    assert_eq!(queue.activity(), Some(Activity::Reading), "a stop wants a sweep of its own");
    queue.finish_job(Err(Error::Internal(String::new())));
    assert_eq!(queue.activity(), Some(Activity::Parked), "for good");
    assert!(take(&queue).sweep_end.is_some());
    assert_eq!(queue.take(Aim::Finish, Nanos(0)).err(), Some(Error::Internal(String::new())));
    queue.close();
    assert!(queue.wait_for_job().is_none());
    queue.without_thread();
    assert_eq!(queue.activity(), None);
}

#[test]
fn nothing_is_left_of_a_table_that_is_gone() {
    let queue = queue(None);
    assert_eq!(queue.take(Aim::Finish, Nanos(0)).err(), None);
    assert_eq!((queue.pass(), queue.pending()), (4, 48));
    queue.clear();
    assert_eq!((queue.pass(), queue.pending()), (0, 0));
    assert!(matches!(queue.take(Aim::Finish, Nanos(0)), Ok(Next::Gone)));
}
