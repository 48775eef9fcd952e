// SPDX-License-Identifier: GPL-2.0-or-later
//! Saving: the guest's table as the bodies of `spapr/htab` sections, while the guest runs.
//!
//! Three locks, taken in this order. `running` is held by a call for its whole length, callbacks into the stream
//! included, and keeps the save's calls apart. `session` is held while the table is read by a call, opened or let go
//! of, and while whoever lets go of it waits for the thread's last read; never while the stream is written, so that a
//! reset or a lookup does not wait for a slow network. The queue's own is held for moments.

pub mod queue;
pub mod reader;
pub mod run_state;
pub mod session;
pub mod source;
pub mod sweep;

#[cfg(all(test, loom))]
mod interleavings;

use crate::error::Error;
use crate::format::record::{RecordHeader, Tally};
use crate::format::section::BodyHeader;
use crate::host::{Host, Nanos, StreamWriter};
use crate::save::queue::{Aim, Next, Queue, ReadPause, Records, SharedQueue};
use crate::save::run_state::RunState;
use crate::save::session::{Opening, SaveOptions, Session};
use crate::save::sweep::SweepEnd;
use crate::stats::SaveStats;
use crate::sync::lock::{Exclusive, lock};
use crate::table::Table;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard};

/// What iterate left to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// There may be more to send.
    More,
    /// A sweep of the whole table, the last one there was, found nothing to send.
    Clean,
}

/// The table's way out, from one migration to the next.
pub struct Saver {
    running: Exclusive<()>,
    session: Mutex<Session>,
    queue: SharedQueue,
    stats: Mutex<SaveStats>,
}

/// The session, while no read of its table is under way and none begins.
pub struct AtRest<'a> {
    session: MutexGuard<'a, Session>,
    _pause: ReadPause,
}

impl Deref for AtRest<'_> {
    type Target = Session;
    fn deref(&self) -> &Session {
        &self.session
    }
}

impl DerefMut for AtRest<'_> {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}

/// One section's body being written.
struct Body<'a> {
    host: &'a dyn Host,
    stream: &'a mut dyn StreamWriter,
    stopped: bool,
}

impl Default for Saver {
    fn default() -> Self {
        let queue = SharedQueue::new(Queue::default());
        let session = Mutex::new(Session::new(queue.clone()));
        Saver { running: Exclusive::default(), session, queue, stats: Mutex::default() }
    }
}

impl Saver {
    /// Begins a migration: sends the table's size, or that there is no table, and begins to track changes.
    ///
    /// # Errors
    /// The table cannot be named or opened; the stream failed. Iterate and complete then fail with the same error.
    pub fn setup(
        &self,
        host: &dyn Host,
        stream: &mut dyn StreamWriter,
        options: SaveOptions,
    ) -> Result<(), Error> {
        let _running = self.running.enter("save_setup")?;
        *lock(&self.stats) = SaveStats::default();
        // Under the session's lock, so that whoever replaces the table finds it open or not yet looked at.
        let table = self.stays_failed(|| {
            let table = self.session().begin(host, options)?;
            self.announce(stream, &table).map(|()| table)
        })?;
        lock(&self.stats).order = table.order();
        self.session().had_turn(host.now());
        self.note_pending();
        match table {
            Table::None => log::debug!("spapr/htab: the guest has no hash table"),
            Table::Kernel(order) => log::debug!("spapr/htab: kernel table of order {}", order.log2_bytes()),
            Table::Memory(memory) => {
                log::debug!("spapr/htab: table of order {} in memory", memory.order().log2_bytes());
            }
        }
        Ok(())
    }

    /// Sends a body while the guest runs, for `max` at most; `None` sets no bound but the end of the table.
    ///
    /// # Errors
    /// The table's or the stream's; [`Error::State`] before setup. Later calls then fail with the same error.
    pub fn iterate(
        &self,
        host: &dyn Host,
        stream: &mut dyn StreamWriter,
        max: Option<Nanos>,
    ) -> Result<Progress, Error> {
        let _running = self.running.enter("save_iterate")?;
        let deadline = max.map(|max| host.now().after(max));
        let stopped = self.queue.vm(RunState::iterating).is_some();
        let progress = self.stays_failed(|| {
            let opening = self.session().opening("iterate before setup")?;
            let mut body = Body { host, stream, stopped: false };
            match opening {
                Opening::Quiesced => self.records(&mut body, |_| Ok(Progress::More)),
                Opening::NoTable => self.announce(body.stream, &Table::None).map(|()| Progress::Clean),
                Opening::NewTable(table) => {
                    self.announce(body.stream, &table)?;
                    self.session().announced(&table);
                    lock(&self.stats).begin_table(table.order());
                    Ok(if table.order().is_none() { Progress::Clean } else { Progress::More })
                }
                Opening::Table => self.records(&mut body, |body| self.sweep(body, deadline, stopped)),
            }
        })?;
        self.session().had_turn(host.now());
        self.note_pending();
        Ok(progress)
    }

    /// Sends records until the time is over, the stream's rate limit is reached or a sweep has ended.
    fn sweep(&self, body: &mut Body<'_>, deadline: Option<Nanos>, stopped: bool) -> Result<Progress, Error> {
        loop {
            let began = body.host.now();
            let next = self.session().next(body.host, Aim::Sweep { deadline }, began)?;
            match next {
                Next::Records(records) => {
                    if let Some(end) = self.send(body, records, began)? {
                        return Ok(if end.clean { Progress::Clean } else { Progress::More });
                    }
                    let late = deadline.is_some_and(|deadline| body.host.now() >= deadline);
                    if late || body.stream.rate_limited() {
                        return Ok(Progress::More);
                    }
                }
                Next::Resting => return Ok(Progress::Clean),
                Next::Gone => return Ok(Progress::More),
                Next::Wait => match deadline.map(|deadline| deadline.since(began)) {
                    None => self.queue.wait_until_ready(),
                    // With the VM stopped nobody changes what others have to send, and a caller may ask again and
                    // again: savevm does.
                    Some(left @ Nanos(1..)) if stopped => self.queue.wait_a_while(left),
                    Some(_) => return Ok(Progress::More),
                },
            }
        }
    }

    /// Sends a body with all that is left, the VM being stopped. May be called again; what did not change since is not
    /// sent twice.
    ///
    /// Ends when reads begun since the stop have visited each slot: after one sweep, wherever it begins.
    ///
    /// # Errors
    /// As [`Saver::iterate`]; [`Error::SizeUnsent`].
    pub fn complete(&self, host: &dyn Host, stream: &mut dyn StreamWriter) -> Result<(), Error> {
        let _running = self.running.enter("save_complete")?;
        self.queue.vm(RunState::completing);
        self.stays_failed(|| {
            let opening = self.session().opening("complete before setup")?;
            if let Opening::NewTable(table) = &opening {
                // A body is either a size or records, and this is the last one. A table of the size that the
                // destination has is followed by records; all its slots are sent.
                if let Some(order) = table.order().filter(|order| lock(&self.stats).order != Some(*order)) {
                    return Err(Error::SizeUnsent { order });
                }
                self.session().announced(table);
            }
            let mut body = Body { host, stream, stopped: true };
            match opening {
                Opening::Quiesced => Err(Error::State("complete while the table is being replaced")),
                Opening::NoTable | Opening::NewTable(Table::None) => {
                    lock(&self.stats).begin_table(None);
                    self.announce(body.stream, &Table::None)
                }
                Opening::NewTable(_) | Opening::Table => self.records(&mut body, |body| self.finish(body)),
            }
        })?;
        self.session().complete();
        self.note_pending();
        Ok(())
    }

    /// Sends the section's end once more, for a destination whose guest has run since a complete: nothing of the table,
    /// which is another's there. Without a complete since the setup this is one.
    ///
    /// # Errors
    /// As [`Saver::complete`].
    pub fn complete_again(&self, host: &dyn Host, stream: &mut dyn StreamWriter) -> Result<(), Error> {
        let running = self.running.enter("save_complete_again")?;
        if !self.session().is_completed() {
            drop(running);
            return self.complete(host, stream);
        }
        let order = lock(&self.stats).order;
        self.stays_failed(|| match order {
            None => self.announce(stream, &Table::None),
            Some(_) => self.records(&mut Body { host, stream, stopped: true }, |_| Ok(())),
        })
    }

    /// Sends records until all of the table was read since the stop.
    fn finish(&self, body: &mut Body<'_>) -> Result<(), Error> {
        loop {
            // Looked at anew each time: a change made on the host's behalf begins a stop anew.
            if self.queue.vm(|_| ()).is_none() {
                return Err(Error::State("the VM runs again, during complete"));
            }
            let began = body.host.now();
            let next = self.session().next(body.host, Aim::Finish, began)?;
            match next {
                Next::Records(records) => drop(self.send(body, records, began)?),
                Next::Wait => self.queue.wait_until_ready(),
                Next::Resting => return Ok(()),
                Next::Gone => return Err(Error::State("the table was replaced during complete")),
            }
        }
    }

    /// Ends a migration, whatever became of it, and closes the fd. Harmless without setup.
    ///
    /// # Errors
    /// [`Error::Reentered`].
    pub fn cleanup(&self) -> Result<(), Error> {
        let _running = self.running.enter("save_cleanup")?;
        let was_saving = self.session().end();
        self.queue.free_buffers();
        lock(&self.stats).pending = 0;
        if was_saving {
            log::info!("spapr/htab: {}", self.stats());
        }
        Ok(())
    }

    /// The VM has stopped, or is about to run. Reads begun while it is stopped count for complete, which otherwise does
    /// not trust that anything was read since the stop.
    pub fn vm_state(&self, running: bool) {
        self.queue.vm(if running { RunState::running } else { RunState::stopped });
    }

    /// The table was changed, or may have been, by something other than the vCPUs: reads since the VM's stop do not
    /// count.
    pub fn disturbed(&self) {
        self.queue.vm(RunState::disturbed);
    }

    /// An estimate of the bytes still to come: what is left of the first pass at the density seen so far, then as much
    /// as the last sweep reported; 0 after a complete, until the next iterate.
    ///
    /// # Errors
    /// What the save failed with.
    pub fn pending(&self) -> Result<u64, Error> {
        self.note_pending();
        self.session().pending()
    }

    /// What of it the host is to wait for, `now` by its clock: nothing if iterate has not been called for a while.
    ///
    /// # Errors
    /// As [`Saver::pending`].
    pub fn awaited(&self, now: Nanos) -> Result<u64, Error> {
        let pending = self.pending()?;
        Ok(if self.session().is_awaited(now) { pending } else { 0 })
    }

    /// Stops reading the table, which is about to be freed or replaced. When this returns nothing reads it. Returns
    /// whether it was read before: if not, somebody else has quiesced it.
    pub fn quiesce(&self) -> bool {
        self.session().quiesce()
    }

    /// Goes on after [`Saver::quiesce`] with the table there is now: its size is sent, then all of it.
    ///
    /// # Errors
    /// The table cannot be named or opened; the next iterate or complete fails with the same error.
    pub fn resume(&self, host: &dyn Host) -> Result<(), Error> {
        let result = self.session().resume(host);
        self.note_pending();
        result
    }

    /// Goes on after [`Saver::quiesce`] with the table there was, which was not replaced: nothing is sent again.
    ///
    /// # Errors
    /// As [`Saver::resume`], if the save was set up in between.
    pub fn resume_unchanged(&self, host: &dyn Host) -> Result<(), Error> {
        self.session().resume_unchanged(host)
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> SaveStats {
        lock(&self.stats).clone()
    }

    /// Makes everything but setup and cleanup fail, after a panic left this in no known state.
    pub fn fail(&self, error: Error) {
        self.session().fail(error);
    }

    /// The session.
    pub fn session(&self) -> MutexGuard<'_, Session> {
        lock(&self.session)
    }

    /// The session, when no read of its table is under way and none begins: for [`crate::lookup`].
    ///
    /// Waits for a read of the thread that reads ahead, without keeping the session from others.
    pub fn at_rest(&self) -> AtRest<'_> {
        let pause = ReadPause::for_lookup(&self.queue);
        pause.wait_until_at_rest();
        AtRest { session: self.session(), _pause: pause }
    }

    /// What is on its way out.
    #[must_use]
    pub fn queue(&self) -> &SharedQueue {
        &self.queue
    }

    /// Runs a call's work. What fails stays failed: a part of the stream may be missing.
    fn stays_failed<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        work().inspect_err(|error| self.session().fail(error.clone()))
    }

    /// Sends records. Returns whether a sweep ended with them, and how.
    fn send(&self, body: &mut Body<'_>, records: Records, began: Nanos) -> Result<Option<SweepEnd>, Error> {
        if !records.bytes().is_empty() {
            lock(&self.stats).crc.update(records.bytes());
            self.put(body.stream, records.bytes(), records.pass)?;
        }
        let time = body.host.now().since(began);
        let pass = (!records.looked_up).then_some(records.pass);
        lock(&self.stats).count(records.tally, pass, time, body.stopped);
        let end = records.sweep_end;
        self.queue.recycle(records);
        Ok(end)
    }

    /// Puts a body of records around what `records` puts.
    fn records<T>(
        &self,
        body: &mut Body<'_>,
        records: impl FnOnce(&mut Body<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.put(body.stream, &BodyHeader::Records.to_bytes(), 0)?;
        let done = records(body)?;
        self.put(body.stream, &RecordHeader::END.to_stream(), 0)?;
        Ok(done)
    }

    /// Puts the body that says what table there is.
    fn announce(&self, stream: &mut dyn StreamWriter, table: &Table) -> Result<(), Error> {
        let header = table.order().map_or(BodyHeader::NoTable, BodyHeader::Table);
        self.put(stream, &header.to_bytes(), 0)
    }

    fn put(&self, stream: &mut dyn StreamWriter, bytes: &[u8], pass: u64) -> Result<(), Error> {
        stream.put(bytes).map_err(|errno| {
            let sent: Tally = lock(&self.stats).total();
            Error::StreamWrite { pass, sent: sent.bytes, errno }
        })
    }

    fn note_pending(&self) {
        let pending = self.session().pending();
        lock(&self.stats).pending = pending.unwrap_or(0);
    }
}
