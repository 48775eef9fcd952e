// SPDX-License-Identifier: GPL-2.0-or-later
//! Who fills the queue: the calls that send, or a thread that reads ahead of them.
//!
//! A read of the kernel's fd may look at the whole table before it returns. Made by a thread, it holds up neither RAM's
//! pages while the guest runs nor, if the VM's stop is reported in time, the guest while it is stopped.

use crate::error::{Errno, Error, panicked, reserve};
use crate::host::{Clock, Host, Nanos};
use crate::save::queue::{Aim, Job, Next, Queue, SharedQueue};
use crate::save::source::{MAX_CHUNK_BYTES, Source};
use crate::save::sweep::{DutyCycle, Read, Sweep};
use crate::sync::lock::lock;
use crate::sync::signals;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

/// The most bytes that a thread reads ahead, if nothing else is asked for: 32 full reads.
pub const DEFAULT_QUEUE_BYTES: usize = 4 << 20;
/// The thread's name, as long as Linux lets it be.
pub const THREAD_NAME: &str = "spapr-htab-read";
/// Its stack, which a host may lock in memory. The deepest call is a read of the fd, and the records' conversion.
const STACK_BYTES: usize = 256 << 10;

/// One table, and who reads it into the queue. The table is read no more when this is dropped.
pub struct Reader {
    queue: SharedQueue,
    who: Who,
}

enum Who {
    Caller(Box<dyn Source>),
    Thread { clock: Arc<dyn Clock>, thread: Option<JoinHandle<Box<dyn Source>>> },
}

impl Reader {
    /// Opens the queue for a table. With `queue_bytes` a thread reads ahead, if there can be one.
    pub fn open(
        queue: &SharedQueue,
        source: Box<dyn Source>,
        host: &dyn Host,
        earlier_passes: u64,
        duty: DutyCycle,
        queue_bytes: Option<usize>,
    ) -> Reader {
        queue.open(Sweep::new(source.slots(), duty), earlier_passes, queue_bytes);
        let who = match queue_bytes {
            None => Who::Caller(source),
            Some(_) => match Who::thread(queue, source, host.thread_clock()) {
                Ok(thread) => thread,
                Err((source, why)) => {
                    log::warn!("spapr/htab: nothing is read ahead, as there can be no thread for it: {why}");
                    queue.without_thread();
                    Who::Caller(source)
                }
            },
        };
        Reader { queue: queue.clone(), who }
    }

    /// For a queue that was opened with a sweep of the test's own.
    #[cfg(test)]
    pub fn of_caller(queue: &SharedQueue, source: Box<dyn Source>) -> Reader {
        Reader { queue: queue.clone(), who: Who::Caller(source) }
    }

    /// With no thread but the test's own, which does the jobs at moments of its choice.
    #[cfg(test)]
    pub fn without_thread(queue: &SharedQueue, clock: Arc<dyn Clock>) -> Reader {
        Reader { queue: queue.clone(), who: Who::Thread { clock, thread: None } }
    }

    /// What there is to send next, `now` by the host's clock. Reads once if there is nothing and the callers read.
    ///
    /// # Errors
    /// The table's.
    pub fn next(&mut self, host: &dyn Host, aim: Aim, now: Nanos) -> Result<Next, Error> {
        let source = match &mut self.who {
            Who::Thread { clock, .. } => return self.queue.take(aim, clock.now()),
            Who::Caller(source) => source,
        };
        match self.queue.take(aim, now)? {
            Next::Wait => {}
            next => return Ok(next),
        }
        let deadline = match aim {
            Aim::Sweep { deadline } => deadline,
            Aim::Finish => None,
        };
        let Some(job) = self.queue.job() else { return Ok(Next::Gone) };
        let done = read(source.as_mut(), job, host.clock(), deadline);
        let ended = done.as_ref().map_or(now, |(read, _)| read.ended);
        self.queue.finish_job(done);
        self.queue.take(aim, ended)
    }
}

impl Drop for Reader {
    /// Waits for the read that is under way; what was read and not sent is gone.
    fn drop(&mut self) {
        self.queue.close();
        if let Who::Thread { thread, .. } = &mut self.who {
            // The source ends here, so that its fd is closed by whoever called, not by the thread.
            drop(thread.take().map(JoinHandle::join));
        }
        self.queue.clear();
    }
}

impl Who {
    /// Gives the source to a thread of its own.
    ///
    /// # Errors
    /// There can be no thread: why, and the source back.
    fn thread(
        queue: &SharedQueue,
        source: Box<dyn Source>,
        clock: Arc<dyn Clock>,
    ) -> Result<Who, (Box<dyn Source>, Errno)> {
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
        let spawned = {
            let _signals = signals::Blocked::all();
            Builder::new().name(THREAD_NAME.to_owned()).stack_size(STACK_BYTES).spawn(work)
        };
        match spawned {
            Ok(thread) => Ok(Who::Thread { clock, thread: Some(thread) }),
            Err(error) => Err((lock(&source).take().expect("no thread took it"), error.into())),
        }
    }
}

/// The thread's work, until the queue is closed. Nobody waits for its reads, so they have no deadline.
fn read_on(source: &mut dyn Source, queue: &Queue, clock: &dyn Clock) {
    while let Some(job) = queue.wait_for_job() {
        let done = catch_unwind(AssertUnwindSafe(|| read(source, job, clock, None)));
        queue.finish_job(done.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))));
    }
}

/// Does a job: the read, and its buffer.
fn read(
    source: &mut dyn Source,
    job: Job,
    clock: &dyn Clock,
    deadline: Option<Nanos>,
) -> Result<(Read, Vec<u8>), Error> {
    let Job { at, stop, mut buffer } = job;
    let missing = MAX_CHUNK_BYTES - buffer.len();
    reserve(&mut buffer, missing, "records on their way out")?;
    buffer.resize(MAX_CHUNK_BYTES, 0);
    let began = clock.now();
    let chunk = source.read(at, &mut buffer, clock, deadline)?;
    Ok((Read { chunk, stop, began, ended: clock.now() }, buffer))
}
