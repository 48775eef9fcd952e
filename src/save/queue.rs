// SPDX-License-Identifier: GPL-2.0-or-later
//! The way out of a table: its records in the order in which they are to be sent, where the sweep over it is, and what
//! may be read next. Who reads puts records in, who sends takes them out, and lookups put theirs in between.
//!
//! One lock, held for moments; never while the table is read or the stream is written.

use crate::error::{Error, reserve};
use crate::format::record::{HEADER_BYTES, RecordHeader, Tally};
use crate::host::Nanos;
use crate::save::run_state::{RunState, StopId};
use crate::save::source::{MAX_CHUNK_BYTES, Position};
use crate::save::sweep::{Read, Sweep, SweepEnd};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::Duration;

/// The queue of a save, as all have it who read, send or look entries up.
pub type SharedQueue = Arc<Queue>;

/// What one sending call wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aim {
    /// To go on sweeping. If the caller has to read for it, it reads until this time, if one is given.
    Sweep {
        /// The time.
        deadline: Option<Nanos>,
    },
    /// To visit each slot once since the VM's stop.
    Finish,
}

/// What there is to send.
pub enum Next {
    /// These.
    Records(Records),
    /// Nothing yet. A read that will bring something is due or under way.
    Wait,
    /// Nothing: the last sweep found nothing and the next one is not due, or, to finish, all has been sent since the
    /// stop.
    Resting,
    /// Nothing: there is no table to read, or the destination does not know of it yet.
    Gone,
}

/// Records on their way out.
pub struct Records {
    buffer: Vec<u8>,
    /// What they hold. The first `tally.bytes` of the buffer are theirs.
    pub tally: Tally,
    /// The pass that they belong to, counted from 1 since the setup.
    pub pass: u64,
    /// They are of lookups, not of a sweep's read.
    pub looked_up: bool,
    /// Whether a sweep ended with them, and how.
    pub sweep_end: Option<SweepEnd>,
}

impl Records {
    /// Whole stream records.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len()]
    }

    fn len(&self) -> usize {
        usize::try_from(self.tally.bytes).unwrap_or(usize::MAX).min(self.buffer.len())
    }
}

/// A read to be made.
pub struct Job {
    /// Where it begins.
    pub at: Position,
    /// The VM's stop at its beginning.
    pub stop: Option<StopId>,
    /// A buffer that was used before, or an empty one.
    pub buffer: Vec<u8>,
}

/// What the reading thread is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activity {
    /// It reads.
    Reading,
    /// It has nothing to do, or is to end.
    Parked,
    /// It waits for room.
    Full,
}

/// The queue. It outlives the tables that go through it.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    /// Any of it changed.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    vm: RunState,
    /// Pauses during which no thread may begin a read, and those of them that last until the table is replaced.
    pauses: usize,
    replacing: usize,
    /// Threads that wait for a change.
    waiting: usize,
    /// Buffers that were sent, to be filled again.
    spare: Vec<Vec<u8>>,
    flow: Option<Flow>,
}

/// One table's records.
struct Flow {
    ready: VecDeque<Records>,
    /// Bytes of all records in `ready`, of their buffers, and of the records that lookups left.
    bytes: usize,
    held: usize,
    looked_up: usize,
    /// As far as it was read.
    sweep: Sweep,
    /// Passes over the tables before this one, since the setup.
    earlier_passes: u64,
    /// The most bytes of buffers, for a thread; without one the callers read.
    thread_room: Option<usize>,
    /// A sweep is wanted. It ends at the table's end.
    wanted: bool,
    /// A read is under way.
    reading: bool,
    /// Why nothing more is read; reported when all that was read before is sent.
    failed: Option<Error>,
    /// The thread is to end.
    closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.waiting += 1;
        let mut state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        // A system call, which is not made for nobody.
        if state.waiting > 0 {
            self.changed.notify_all();
        }
        result
    }

    fn change_flow(&self, change: impl FnOnce(&mut Flow)) {
        self.change(|state| state.flow.as_mut().map(change));
    }

    /// Begins with a table, whose first sweep is wanted at once. `thread_room`: the most bytes of buffers that a thread
    /// fills ahead, [`MAX_CHUNK_BYTES`] at least; without it the callers read.
    pub fn open(&self, sweep: Sweep, earlier_passes: u64, thread_room: Option<usize>) {
        self.change(|state| {
            state.flow = Some(Flow {
                ready: VecDeque::new(),
                bytes: 0,
                held: 0,
                looked_up: 0,
                sweep,
                earlier_passes,
                thread_room: thread_room.map(|room| room.max(MAX_CHUNK_BYTES)),
                wanted: true,
                reading: false,
                failed: None,
                closed: false,
            });
        });
    }

    /// From now on the callers read: there is no thread to be had.
    pub fn without_thread(&self) {
        self.change_flow(|flow| flow.thread_room = None);
    }

    /// Asks the thread to end.
    pub fn close(&self) {
        self.change_flow(|flow| flow.closed = true);
    }

    /// Forgets the table and its records, which nobody reads any more.
    pub fn clear(&self) {
        self.change(|state| state.flow = None);
    }

    /// The next read of the thread, once there is one to make. `None`: the end.
    pub fn wait_for_job(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            let flow = state.flow.as_ref().filter(|flow| !flow.closed)?;
            if state.pauses == 0 && flow.may_read(state.vm.stop()) {
                return state.job();
            }
            state = self.wait(state);
        }
    }

    /// The next read, made by a caller; `None` without a table.
    pub fn job(&self) -> Option<Job> {
        self.lock().job()
    }

    /// A job is done. `buffer` holds the records of the read.
    pub fn finish_job(&self, done: Result<(Read, Vec<u8>), Error>) {
        self.change(|state| {
            let spare = state.flow.as_mut().and_then(|flow| flow.finish_job(done));
            state.spare.extend(spare);
        });
    }

    /// Takes what is to be sent next. To sweep, a sweep is asked for when nothing is left of the one before, unless it
    /// would come too soon; who only waits for a stop's sweep does not ask.
    ///
    /// # Errors
    /// Why nothing more is read, when all that was read is sent.
    pub fn take(&self, aim: Aim, now: Nanos) -> Result<Next, Error> {
        self.change(|state| {
            let stop = state.vm.stop();
            let Some(flow) = &mut state.flow else { return Ok(Next::Gone) };
            let next = match flow.pop() {
                Some(records) => Next::Records(records),
                None => match &flow.failed {
                    Some(error) => return Err(error.clone()),
                    None if aim == Aim::Finish && flow.sweep.has_visited_all(stop) => Next::Resting,
                    None if flow.is_idle(stop) && flow.sweep.is_resting(now) => Next::Resting,
                    None => Next::Wait,
                },
            };
            let due = flow.ready.is_empty() && flow.is_idle(stop) && !flow.sweep.is_resting(now);
            flow.wanted |= matches!(aim, Aim::Sweep { .. }) && due;
            Ok(next)
        })
    }

    /// Takes back the buffer of records that were sent, to be filled again.
    pub fn recycle(&self, records: Records) {
        if records.buffer.len() == MAX_CHUNK_BYTES {
            self.change(|state| state.spare.push(records.buffer));
        }
    }

    /// Frees the buffers that are not in use.
    pub fn free_buffers(&self) {
        self.change(|state| state.spare = Vec::new());
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
        let mut state = self.lock();
        if state.is_empty_but_not_for_long() {
            state.waiting += 1;
            let waited = self.changed.wait_timeout(state, Duration::from_nanos(most.0));
            waited.unwrap_or_else(PoisonError::into_inner).0.waiting -= 1;
        }
    }

    /// Appends a lookup's record, behind all that was read before it. The caller holds a [`ReadPause`] that has come to
    /// rest.
    ///
    /// # Errors
    /// [`Error::Memory`]; then it is not there.
    pub fn push_looked_up(&self, header: RecordHeader, entries: &[u8]) -> Result<(), Error> {
        self.change(|state| state.flow.as_mut().map_or(Ok(()), |flow| flow.push_looked_up(header, entries)))
    }

    /// Bytes of lookups' records.
    #[must_use]
    pub fn looked_up_bytes(&self) -> usize {
        self.lock().flow.as_ref().map_or(0, |flow| flow.looked_up)
    }

    /// Changes what is known of the VM's stops, and returns the stop that lasts after it.
    pub fn vm(&self, change: impl FnOnce(&mut RunState)) -> Option<StopId> {
        self.change(|state| {
            change(&mut state.vm);
            state.vm.stop()
        })
    }

    /// The pass of the next read, counted from 1 since the setup; 0 without a table.
    #[must_use]
    pub fn pass(&self) -> u64 {
        self.lock().flow.as_ref().map_or(0, Flow::pass)
    }

    /// Bytes that were read and wait to be sent.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lock().flow.as_ref().map_or(0, |flow| flow.bytes)
    }

    /// Bytes that were read and an estimate of those that are still to be read.
    #[must_use]
    pub fn pending(&self) -> u64 {
        let state = self.lock();
        state.flow.as_ref().map_or(0, |flow| flow.bytes as u64 + flow.sweep.bytes_left(state.vm.stop()))
    }

    /// How many threads wait for a change.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.lock().waiting
    }

    /// What the thread is at; `None` without one.
    #[must_use]
    pub fn activity(&self) -> Option<Activity> {
        let state = self.lock();
        let stop = state.vm.stop();
        let flow = state.flow.as_ref().filter(|flow| flow.thread_room.is_some())?;
        Some(if flow.is_idle(stop) || flow.failed.is_some() || flow.closed {
            Activity::Parked
        } else if flow.reading || flow.has_room() {
            Activity::Reading
        } else {
            Activity::Full
        })
    }
}

impl State {
    fn job(&mut self) -> Option<Job> {
        let flow = self.flow.as_mut()?;
        flow.reading = true;
        let buffer = self.spare.pop().unwrap_or_default();
        Some(Job { at: flow.sweep.position(), stop: self.vm.stop(), buffer })
    }

    fn is_empty_but_not_for_long(&self) -> bool {
        let is_empty = |flow: &Flow| flow.ready.is_empty() && flow.failed.is_none() && !flow.closed;
        let is_fed = |flow: &Flow| !flow.is_idle(self.vm.stop()) && self.replacing == 0;
        self.flow.as_ref().is_some_and(|flow| is_empty(flow) && is_fed(flow))
    }
}

impl Flow {
    fn pass(&self) -> u64 {
        self.earlier_passes + self.sweep.position().pass
    }

    /// Takes what was read. Returns the buffer if nothing is in it.
    fn finish_job(&mut self, done: Result<(Read, Vec<u8>), Error>) -> Option<Vec<u8>> {
        self.reading = false;
        let (read, buffer) = done.map_err(|error| self.failed = Some(error)).ok()?;
        let pass = self.pass();
        let end = self.sweep.advance(&read);
        // A stop's sweep goes on from there for the stop's sake alone, and may end in the middle of the table.
        self.wanted &= end.is_none();
        let tally = read.chunk.tally;
        let (buffer, spare) = if tally.bytes == 0 { (Vec::new(), Some(buffer)) } else { (buffer, None) };
        self.push(Records { buffer, tally, pass, looked_up: false, sweep_end: end });
        spare
    }

    fn push(&mut self, records: Records) {
        self.bytes += records.len();
        self.held += records.buffer.len();
        self.ready.push_back(records);
    }

    fn pop(&mut self) -> Option<Records> {
        let mut records = self.ready.pop_front()?;
        self.bytes -= records.len();
        self.held -= records.buffer.len();
        if records.looked_up {
            self.looked_up -= records.len();
        }
        if let Some(end) = &mut records.sweep_end {
            // With a lookup's records behind it the destination does not have all there is.
            end.clean &= self.looked_up == 0;
        }
        Some(records)
    }

    fn push_looked_up(&mut self, header: RecordHeader, entries: &[u8]) -> Result<(), Error> {
        let bytes = HEADER_BYTES + entries.len();
        let joins = |last: &Records| last.looked_up && last.buffer.len() + bytes < MAX_CHUNK_BYTES;
        if !self.ready.back().is_some_and(joins) {
            let (buffer, tally, pass) = (Vec::new(), Tally::default(), self.pass());
            self.push(Records { buffer, tally, pass, looked_up: true, sweep_end: None });
        }
        if let Some(last) = self.ready.back_mut() {
            reserve(&mut last.buffer, bytes, "what a lookup read")?;
            last.buffer.extend_from_slice(&header.to_stream());
            last.buffer.extend_from_slice(entries);
            last.tally.count(header);
            self.bytes += bytes;
            self.held += bytes;
            self.looked_up += bytes;
            self.sweep.looked_up(bytes);
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.thread_room.is_some_and(|room| self.held + MAX_CHUNK_BYTES <= room)
    }

    fn may_read(&self, stop: Option<StopId>) -> bool {
        self.has_something_to_read(stop) && self.failed.is_none() && self.has_room()
    }

    fn has_something_to_read(&self, stop: Option<StopId>) -> bool {
        self.wanted || stop.is_some() && !self.sweep.has_visited_all(stop)
    }

    fn is_idle(&self, stop: Option<StopId>) -> bool {
        !self.reading && !self.has_something_to_read(stop)
    }
}

/// While it lives no thread begins a read of the table.
pub struct ReadPause {
    queue: SharedQueue,
    replacing: bool,
}

impl ReadPause {
    /// Asks for it, for a lookup; a read may still be under way.
    #[must_use]
    pub fn for_lookup(queue: &SharedQueue) -> ReadPause {
        ReadPause::begin(queue, false)
    }

    /// Asks for it until the table is replaced; a read may still be under way. Nobody waits for what would be read.
    #[must_use]
    pub fn for_replacement(queue: &SharedQueue) -> ReadPause {
        ReadPause::begin(queue, true)
    }

    fn begin(queue: &SharedQueue, replacing: bool) -> ReadPause {
        queue.change(|state| {
            state.pauses += 1;
            state.replacing += usize::from(replacing);
        });
        ReadPause { queue: Arc::clone(queue), replacing }
    }

    /// Waits for the read that is under way.
    pub fn wait_until_at_rest(&self) {
        let mut state = self.queue.lock();
        while state.flow.as_ref().is_some_and(|flow| flow.reading) {
            state = self.queue.wait(state);
        }
    }
}

impl Drop for ReadPause {
    fn drop(&mut self) {
        self.queue.change(|state| {
            state.pauses -= 1;
            state.replacing -= usize::from(self.replacing);
        });
    }
}

#[cfg(test)]
mod tests;
