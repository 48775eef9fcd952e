// SPDX-License-Identifier: GPL-2.0-or-later
//! Reading ahead: one thread that owns a table's source, reads it into a bounded queue, and does nothing else.
//!
//! A read of the kernel's fd may look at the whole table before it returns. Made by the thread, it holds up neither RAM's
//! pages while the guest runs nor, if the VM's stop is told in time, the guest while it is stopped.

pub use crate::save::queue::{Activity, Entry, Next, Origin, Queue, ReadPause, SharedQueue};

use crate::error::{Error, reserve};
use crate::host::Clock;
use crate::save::run_state::RunState;
use crate::save::source::{Chunk, MAX_CHUNK_BYTES, Source};
use crate::save::sweep::{DutyCycle, Read, Sweep};
use crate::sync::lock::lock;
use crate::sync::signals;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::{any, io};

/// The thread's name, as long as Linux lets it be.
pub const THREAD_NAME: &str = "spapr-htab-read";
/// Its stack, which a host may lock in memory. The deepest call is a read of the fd, and the records' conversion.
const STACK_BYTES: usize = 256 << 10;

/// How to read ahead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AheadOptions {
    /// The most bytes of records that wait to be sent.
    pub queue_bytes: usize,
    /// See [`DutyCycle`].
    pub share: DutyCycle,
}

impl AheadOptions {
    /// 32 full reads.
    pub const DEFAULT_QUEUE_BYTES: usize = 4 << 20;
}

/// A table that is read ahead.
pub struct ReadAhead {
    queue: SharedQueue,
    clock: Arc<dyn Clock>,
    halt: Arc<RunState>,
    thread: Option<JoinHandle<Box<dyn Source>>>,
}

impl ReadAhead {
    /// Gives a source to a thread of its own.
    ///
    /// # Errors
    /// There can be no thread: why, and the source back.
    pub fn start(
        source: Box<dyn Source>,
        clock: Arc<dyn Clock>,
        halt: &Arc<RunState>,
        options: AheadOptions,
    ) -> Result<ReadAhead, (Box<dyn Source>, io::Error)> {
        let sweep = Sweep::of(source.as_ref(), options.share);
        let queue = SharedQueue::new(Queue::new(sweep, options.queue_bytes));
        // A closure that is never run takes along what it owns; the source is not the closure's before it runs.
        let source = Arc::new(Mutex::new(Some(source)));
        let work = {
            let (source, queue, clock) = (Arc::clone(&source), queue.clone(), Arc::clone(&clock));
            move || {
                let mut source = lock(&source).take().expect("put there for this thread");
                read_on(source.as_mut(), &queue, clock.as_ref());
                source
            }
        };
        // Before there is a thread, whose first read may count for a stop already.
        halt.tell(&queue);
        let spawned = {
            let _signals = signals::Blocked::all();
            Builder::new().name(THREAD_NAME.to_owned()).stack_size(STACK_BYTES).spawn(work)
        };
        let mut ahead = ReadAhead { queue, clock, halt: Arc::clone(halt), thread: None };
        match spawned {
            Ok(thread) => {
                ahead.thread = Some(thread);
                Ok(ahead)
            }
            Err(error) => Err((lock(&source).take().expect("no thread took it"), error)),
        }
    }

    /// With no thread but the test's own, which does the reader's work at moments of its choice.
    #[cfg(test)]
    pub fn without_thread(queue: SharedQueue, clock: Arc<dyn Clock>, halt: &Arc<RunState>) -> ReadAhead {
        halt.tell(&queue);
        ReadAhead { queue, clock, halt: Arc::clone(halt), thread: None }
    }

    /// What was read.
    #[must_use]
    pub fn queue(&self) -> &SharedQueue {
        &self.queue
    }

    /// See [`Queue::take`].
    ///
    /// # Errors
    /// The table's.
    pub fn take(&self, sweeping: bool) -> Result<Next, Error> {
        self.queue.take(sweeping, self.clock.now())
    }
}

impl Drop for ReadAhead {
    /// Waits for the read that is under way; what was read and not sent is gone.
    fn drop(&mut self) {
        self.halt.tell_no_more(&self.queue);
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // The source ends here, so that its fd is closed by whoever called, not by the thread.
            drop(thread.join());
        }
    }
}

/// The thread's work, until the queue is closed.
fn read_on(source: &mut dyn Source, queue: &Queue, clock: &dyn Clock) {
    let mut buf = Vec::new();
    while let Some(stop) = queue.begin_read() {
        let began = clock.now();
        let read = catch_unwind(AssertUnwindSafe(|| read_once(source, &mut buf, clock)));
        let read = read.unwrap_or_else(|panic| Err(Error::Reader(said(panic.as_ref()))));
        let when = |(chunk, records)| (Read { chunk, stop, time: (began, clock.now()) }, records);
        queue.end_read(read.map(when));
    }
}

/// Nobody waits for this read, so it has no deadline and is as large as can be.
fn read_once(
    source: &mut dyn Source,
    buf: &mut Vec<u8>,
    clock: &dyn Clock,
) -> Result<(Chunk, Vec<u8>), Error> {
    const WHAT: &str = "for records that are read ahead";
    let missing = MAX_CHUNK_BYTES - buf.len();
    reserve(buf, missing, WHAT)?;
    buf.resize(MAX_CHUNK_BYTES, 0);
    let chunk = source.read(buf, clock, None)?;
    let told = usize::try_from(chunk.tally.bytes).unwrap_or(usize::MAX).min(buf.len());
    let mut records = Vec::new();
    reserve(&mut records, told, WHAT)?;
    records.extend_from_slice(&buf[..told]);
    Ok((chunk, records))
}

/// What a panic said.
fn said(panic: &(dyn any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
