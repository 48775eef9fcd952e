// SPDX-License-Identifier: GPL-2.0-or-later
//! What stands between the thread that reads a table and the calls that send what it read: records in the order in which
//! they are to go out, and what the reader may do next.
//!
//! One lock, held for moments; never while the table is read or the stream is written.

use crate::error::{Error, reserve};
use crate::format::record::Tally;
use crate::host::Nanos;
use crate::save::run_state::StopId;
use crate::save::source::MAX_CHUNK_BYTES;
use crate::save::sweep::{Read, Sweep};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::Duration;

/// A queue that a reader and those who send have in common.
pub type SharedQueue = Arc<Queue>;

/// The queue between a reader and who sends.
pub struct Queue {
    state: Mutex<State>,
    /// Any of it changed.
    changed: Condvar,
    /// Bytes up to which the reader goes on.
    limit: usize,
}

struct State {
    ready: VecDeque<Entry>,
    /// Bytes of all records in `ready`, and of those that lookups left.
    bytes: usize,
    looked_up: usize,
    /// Where the reader is.
    sweep: Sweep,
    /// The VM's stop, if it is stopped: the reader then goes round once, without being asked.
    stop: Option<StopId>,
    /// A sweep is wanted. It ends at the table's end.
    wanted: bool,
    /// A read is under way.
    reading: bool,
    /// Lookups during which no read may begin.
    holds: usize,
    /// Why the reader reads no more; told when all that was read before is sent.
    failed: Option<Error>,
    closed: bool,
}

/// Records that are ready to be sent.
pub struct Entry {
    /// Whole stream records, [`MAX_CHUNK_BYTES`] at most.
    pub records: Vec<u8>,
    /// Where they come from.
    pub origin: Origin,
}

/// Where records come from.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    /// The reader.
    Sweep(Read),
    /// Lookups.
    LookedUp(Tally),
}

/// What there is to send.
pub enum Next {
    /// This.
    Entry(Entry),
    /// Nothing so far.
    NotYet,
    /// Nothing, and the reader rests after a sweep that found nothing.
    Resting,
}

/// What the reader is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activity {
    /// It reads.
    Reading,
    /// It has nothing to do, or is to end.
    Parked,
    /// It waits for room.
    Full,
}

impl Queue {
    /// For a reader whose first sweep is wanted at once.
    #[must_use]
    pub fn new(sweep: Sweep, limit: usize) -> Queue {
        let state = State {
            ready: VecDeque::new(),
            bytes: 0,
            looked_up: 0,
            sweep,
            stop: None,
            wanted: true,
            reading: false,
            holds: 0,
            failed: None,
            closed: false,
        };
        // Less would never have room for a read.
        Queue { state: Mutex::new(state), changed: Condvar::new(), limit: limit.max(MAX_CHUNK_BYTES) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// The reader's next read, once there is one to make: the VM's stop at its beginning. `None`: the end.
    pub fn begin_read(&self) -> Option<Option<StopId>> {
        let mut state = self.lock();
        while !state.closed {
            if state.may_read(self.limit) {
                state.reading = true;
                return Some(state.stop);
            }
            state = self.wait(state);
        }
        None
    }

    /// The reader's read is over.
    pub fn end_read(&self, read: Result<(Read, Vec<u8>), Error>) {
        let mut state = self.lock();
        state.reading = false;
        match read {
            Ok((read, records)) => {
                // A stop's sweep may end in the middle of the table. There the reader stays until more is wanted.
                let was_over = state.sweep.has_passed_all(read.stop);
                state.sweep.advance(&read);
                let over = state.sweep.has_passed_all(read.stop) && !was_over;
                state.wanted &= !read.chunk.wrapped && !over;
                state.bytes += records.len();
                state.ready.push_back(Entry { records, origin: Origin::Sweep(read) });
            }
            Err(error) => state.failed = Some(error),
        }
        self.changed.notify_all();
    }

    /// Takes what is ready. While `sweeping` a sweep is asked for when nothing is left of the one before, unless it would
    /// come too soon; who only waits for a stop's sweep does not ask.
    ///
    /// # Errors
    /// Why the reader ended, when nothing is left.
    pub fn take(&self, sweeping: bool, now: Nanos) -> Result<Next, Error> {
        let mut state = self.lock();
        let next = match state.ready.pop_front() {
            Some(entry) => {
                state.bytes -= entry.records.len();
                if let Origin::LookedUp(_) = entry.origin {
                    state.looked_up -= entry.records.len();
                }
                Next::Entry(entry)
            }
            None => match &state.failed {
                Some(error) => return Err(error.clone()),
                None if state.is_idle() && state.sweep.is_resting(now) => Next::Resting,
                None => Next::NotYet,
            },
        };
        let due = state.ready.is_empty() && state.is_idle() && !state.sweep.is_resting(now);
        state.wanted |= sweeping && due;
        self.changed.notify_all();
        Ok(next)
    }

    /// Waits until there is something to take, or nothing that could bring it.
    pub fn wait_until_ready(&self) {
        let mut state = self.lock();
        while state.is_empty_but_not_for_long() {
            state = self.wait(state);
        }
    }

    /// As `wait_until_ready`, for so long at most; sometimes for less.
    pub fn wait_a_while(&self, most: Nanos) {
        let state = self.lock();
        if state.is_empty_but_not_for_long() {
            drop(self.changed.wait_timeout(state, Duration::from_nanos(most.0)));
        }
    }

    /// Appends a lookup's record, behind all that was read before; the caller holds a [`ReadPause`] that has come to rest.
    ///
    /// # Errors
    /// [`Error::Memory`]; then it is not there.
    pub fn push_looked_up(&self, records: &[u8], tally: Tally) -> Result<(), Error> {
        let mut state = self.lock();
        match state.ready.back_mut() {
            Some(Entry { records: last, origin: Origin::LookedUp(sum) })
                if last.len() + records.len() <= MAX_CHUNK_BYTES =>
            {
                reserve(last, records.len(), "for what a lookup read")?;
                last.extend_from_slice(records);
                *sum += tally;
            }
            _ => state.ready.push_back(Entry { records: records.to_vec(), origin: Origin::LookedUp(tally) }),
        }
        state.bytes += records.len();
        state.looked_up += records.len();
        self.changed.notify_all();
        Ok(())
    }

    /// Bytes of lookups' records.
    #[must_use]
    pub fn looked_up_bytes(&self) -> usize {
        self.lock().looked_up
    }

    /// The VM stopped, or runs again.
    pub fn set_stop(&self, stop: Option<StopId>) {
        self.lock().stop = stop;
        self.changed.notify_all();
    }

    /// Asks the reader to end.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Bytes that are ready.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Bytes that are ready and an estimate of those that the reader has yet to read.
    #[must_use]
    pub fn pending(&self, stop: Option<StopId>) -> u64 {
        let state = self.lock();
        state.bytes as u64 + state.sweep.left(stop)
    }

    /// What the reader is at.
    #[must_use]
    pub fn activity(&self) -> Activity {
        let state = self.lock();
        if state.is_idle() || state.failed.is_some() || state.closed {
            Activity::Parked
        } else if state.reading || state.has_room(self.limit) {
            Activity::Reading
        } else {
            Activity::Full
        }
    }
}

impl State {
    fn has_room(&self, limit: usize) -> bool {
        self.bytes + MAX_CHUNK_BYTES <= limit
    }

    fn may_read(&self, limit: usize) -> bool {
        self.has_something_to_read() && self.failed.is_none() && self.holds == 0 && self.has_room(limit)
    }

    fn has_something_to_read(&self) -> bool {
        self.wanted || self.stop.is_some() && !self.sweep.has_passed_all(self.stop)
    }

    fn is_idle(&self) -> bool {
        !self.reading && !self.has_something_to_read()
    }

    fn is_empty_but_not_for_long(&self) -> bool {
        self.ready.is_empty() && self.failed.is_none() && !self.closed && !self.is_idle()
    }
}

/// While it lives the reader begins no read.
pub struct ReadPause {
    queue: SharedQueue,
}

impl ReadPause {
    /// Asks for it; a read may still be under way.
    #[must_use]
    pub fn of(queue: &SharedQueue) -> ReadPause {
        queue.lock().holds += 1;
        ReadPause { queue: Arc::clone(queue) }
    }

    /// Waits for the read that is under way.
    pub fn wait_until_at_rest(&self) {
        let mut state = self.queue.lock();
        while state.reading {
            state = self.queue.wait(state);
        }
    }

    /// Whether it is this queue's reader that is held.
    #[must_use]
    pub fn holds(&self, queue: &SharedQueue) -> bool {
        Arc::ptr_eq(&self.queue, queue)
    }
}

impl Drop for ReadPause {
    fn drop(&mut self) {
        self.queue.lock().holds -= 1;
        self.queue.changed.notify_all();
    }
}
