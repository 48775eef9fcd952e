// SPDX-License-Identifier: GPL-2.0-or-later
//! Saving: the guest's table as the bodies of `spapr/htab` sections, while the guest goes on.
//!
//! Two locks. `running` is held by a call for its whole length, callbacks into the stream included, and keeps the save's
//! calls apart. `feed` is held only while the table is read, or what was read ahead is taken, never while the stream is
//! written or a thread that reads ahead is waited for; whoever replaces the table or looks entries up takes that one and
//! does not wait for a slow network.

pub mod ahead;
pub mod queue;
pub mod reader;
pub mod run_state;
pub mod session;
pub mod source;
pub mod sweep;

#[cfg(all(test, loom))]
mod interleavings;

use crate::error::{Error, reserve};
use crate::format::record::{StreamHeader, Tally};
use crate::format::section::BodyHeader;
use crate::host::Host;
use crate::host::Nanos;
use crate::host::StreamWriter;
use crate::save::queue::{ReadPause, SharedQueue};
use crate::save::reader::Aim;
use crate::save::run_state::RunState;
pub use crate::save::session::SaveOptions;
use crate::save::session::{Opening, Session, Taken};
use crate::save::source::MAX_CHUNK_BYTES;
use crate::stats::SaveStats;
use crate::sync::lock::{Entered, Exclusive, lock};
use crate::table::Table;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard};

/// What iterate left to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// There may be more to tell.
    More,
    /// A sweep of the whole table, the last one there was, found nothing to tell.
    Clean,
}

/// The table's way out, from one migration to the next.
#[derive(Default)]
pub struct Saver {
    running: Exclusive<Buffer>,
    feed: Mutex<Session>,
    halt: Arc<RunState>,
    report: Mutex<SaveStats>,
}

/// The chunk between the table and the stream; allocated for the first save.
#[derive(Default)]
struct Buffer(Vec<u8>);

/// The feed, and that nobody else reads its table meanwhile.
pub struct AtRest<'a> {
    feed: MutexGuard<'a, Session>,
    _hold: Option<ReadPause>,
}

impl Deref for AtRest<'_> {
    type Target = Session;
    fn deref(&self) -> &Session {
        &self.feed
    }
}

impl DerefMut for AtRest<'_> {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.feed
    }
}

/// One section body being written.
struct Body<'a> {
    host: &'a dyn Host,
    stream: &'a mut dyn StreamWriter,
    stopped: bool,
}

impl Saver {
    /// Begins a migration: emits the table's size, or that there is no table, and begins to track changes.
    ///
    /// # Errors
    /// The table cannot be told or opened; the stream failed. The saver is then as after [`Saver::cleanup`].
    pub fn setup(
        &self,
        host: &dyn Host,
        stream: &mut dyn StreamWriter,
        options: SaveOptions,
    ) -> Result<(), Error> {
        let mut running = self.running.enter("save_setup")?;
        *lock(&self.report) = SaveStats::default();
        let missing = MAX_CHUNK_BYTES - running.0.len();
        reserve(&mut running.0, missing, "for records on their way out of the hash table")?;
        running.0.resize(MAX_CHUNK_BYTES, 0);
        // Under the feed's lock, so that whoever replaces the table finds it open or not yet looked at.
        let table = self.feed().begin(host, &self.halt, options)?;
        lock(&self.report).order = table.order();
        if let Err(error) = announce(stream, &table) {
            self.feed().end();
            return Err(error);
        }
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

    /// Emits a body while the guest runs, for `max` at most; `None` sets no bound but the end of the table.
    ///
    /// # Errors
    /// The table's or the stream's; [`Error::State`] before setup.
    pub fn iterate(
        &self,
        host: &dyn Host,
        stream: &mut dyn StreamWriter,
        max: Option<Nanos>,
    ) -> Result<Progress, Error> {
        let mut running = self.running.enter("save_iterate")?;
        let deadline = max.map(|max| host.now().after(max));
        let stop = self.halt.iterating();
        let opening = self.feed().opening("iterate before setup")?;
        let mut body = Body { host, stream, stopped: false };
        let progress = match opening {
            Opening::Quiesced => body.wrap(self, |_| Ok(Progress::More))?,
            Opening::NoTable => {
                announce(body.stream, &Table::None)?;
                Progress::Clean
            }
            Opening::NewTable(table) => {
                announce(body.stream, &table)?;
                self.feed().announced(&table);
                lock(&self.report).begin_table(table.order());
                if table.order().is_none() { Progress::Clean } else { Progress::More }
            }
            Opening::Table => body.wrap(self, |body| {
                loop {
                    let step = match self.tell(body, &mut running, Aim::Sweep { deadline, stop })? {
                        Taken::Step(step) => step,
                        Taken::Resting => return Ok(Progress::Clean),
                        Taken::Gone => return Ok(Progress::More),
                        Taken::NotYet(queue) => {
                            match deadline.map(|deadline| deadline.since(body.host.now())) {
                                None => queue.wait_until_ready(),
                                // With the VM stopped nobody changes what others have to send, and a caller may ask again
                                // and again: savevm does.
                                Some(left @ Nanos(1..)) if stop.is_some() => queue.wait_a_while(left),
                                Some(_) => return Ok(Progress::More),
                            }
                            continue;
                        }
                    };
                    if step.chunk.wrapped {
                        return Ok(if step.clean { Progress::Clean } else { Progress::More });
                    }
                    let late = deadline.is_some_and(|deadline| body.host.now() >= deadline);
                    if late || body.stream.rate_limited() {
                        return Ok(Progress::More);
                    }
                }
            })?,
        };
        self.note_pending();
        Ok(progress)
    }

    /// Emits a body with all that is left, the VM being stopped. May be called again; what did not change since is not
    /// told twice.
    ///
    /// Ends when reads begun since the stop have passed each slot: after one sweep, wherever it begins.
    ///
    /// # Errors
    /// As [`Saver::iterate`]; [`Error::SizeUnsent`].
    pub fn complete(&self, host: &dyn Host, stream: &mut dyn StreamWriter) -> Result<(), Error> {
        let mut running = self.running.enter("save_complete")?;
        self.halt.completing();
        let opening = self.feed().opening("complete before setup")?;
        if let Opening::NewTable(table) = &opening {
            // A body is either a size or records, and this is the last one. A table of the size that the destination
            // has goes on with records; all its slots are told.
            if let Some(order) = table.order().filter(|order| lock(&self.report).order != Some(*order)) {
                return Err(Error::SizeUnsent { order });
            }
            self.feed().announced(table);
        }
        let mut body = Body { host, stream, stopped: true };
        match opening {
            Opening::Quiesced => return Err(Error::State("complete while the table is being replaced")),
            Opening::NoTable | Opening::NewTable(Table::None) => {
                announce(body.stream, &Table::None)?;
                lock(&self.report).begin_table(None);
            }
            Opening::NewTable(_) | Opening::Table => body.wrap(self, |body| {
                const REPLACED: Error = Error::State("the table was replaced during complete");
                loop {
                    // Looked at anew each time: a write of the host's begins a stop anew.
                    let stop = self.halt.now().ok_or(Error::State("the VM runs again, during complete"))?;
                    let passed_all = self.feed().has_passed_all_since(stop).ok_or(REPLACED)?;
                    if passed_all && !self.feed().has_looked_up_ahead() {
                        return self.tell_looked_up(body);
                    }
                    match self.tell(body, &mut running, Aim::Finish(stop))? {
                        Taken::NotYet(queue) => queue.wait_until_ready(),
                        Taken::Step(_) | Taken::Resting => {}
                        Taken::Gone => return Err(REPLACED),
                    }
                }
            })?,
        }
        self.note_pending();
        Ok(())
    }

    /// Ends a migration, whatever became of it, and closes the fd. Harmless without setup.
    ///
    /// # Errors
    /// [`Error::Reentered`].
    pub fn cleanup(&self) -> Result<(), Error> {
        let mut running = self.running.enter("save_cleanup")?;
        let was_saving = self.feed().end();
        running.0 = Vec::new();
        lock(&self.report).pending = 0;
        if was_saving {
            log::info!("spapr/htab: {}", self.report());
        }
        Ok(())
    }

    /// The VM has stopped, or is about to run. Reads begun while it is stopped count for complete, which otherwise does
    /// not trust that anything was read since the stop.
    pub fn vm_state(&self, running: bool) {
        if running {
            self.halt.running();
        } else {
            self.halt.stopped();
        }
    }

    /// The table was written to by way of this library.
    pub fn written(&self) {
        self.halt.written();
    }

    /// An estimate of the bytes still to come: what is left of the first pass at the density seen so far, then as much
    /// as the last sweep told.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.note_pending()
    }

    /// Stops reading the table, which is about to be freed or replaced. When this returns nothing touches it.
    pub fn quiesce(&self) {
        self.feed().quiesce();
    }

    /// Goes on after [`Saver::quiesce`] with the table there is now: its size is sent, then all of it.
    ///
    /// # Errors
    /// The table cannot be told or opened; the next iterate or complete fails with the same error.
    pub fn resume(&self, host: &dyn Host) -> Result<(), Error> {
        let result = self.feed().resume(host, &self.halt);
        self.note_pending();
        result
    }

    /// What was done so far.
    #[must_use]
    pub fn report(&self) -> SaveStats {
        lock(&self.report).clone()
    }

    /// Makes everything but setup and cleanup fail, after a panic left this in no known state.
    pub fn fail(&self, error: Error) {
        self.feed().fail(error);
    }

    /// The VM's stops.
    #[cfg(test)]
    pub fn halt(&self) -> &Arc<RunState> {
        &self.halt
    }

    /// The table.
    pub fn feed(&self) -> MutexGuard<'_, Session> {
        lock(&self.feed)
    }

    /// The table, when no read of it is under way and none begins: for [`crate::lookup`].
    ///
    /// Waits for a read of the thread that reads ahead, without keeping the feed from others.
    pub fn feed_at_rest(&self) -> AtRest<'_> {
        loop {
            let hold = self.feed().hold();
            if let Some(hold) = &hold {
                hold.wait_until_at_rest();
            }
            let feed = self.feed();
            // The table may have been replaced meanwhile, and read by another thread.
            if feed.is_held(hold.as_ref()) {
                return AtRest { feed, _hold: hold };
            }
        }
    }

    /// At the end of a lookup.
    ///
    /// # Errors
    /// The table has to be told anew and cannot be opened.
    pub fn settle(&self, host: &dyn Host, feed: &mut Session) -> Result<(), Error> {
        feed.settle(host, &self.halt)
    }

    /// What was read ahead, while there is a thread that does.
    #[must_use]
    pub fn queue(&self) -> Option<SharedQueue> {
        self.halt.reader()
    }

    /// Takes some of what the table has to tell and puts it to the stream.
    fn tell(&self, body: &mut Body<'_>, buffer: &mut Entered<'_, Buffer>, aim: Aim) -> Result<Taken, Error> {
        let began = body.host.now();
        let taken = self.feed().step(body.host, &mut buffer.0, aim)?;
        let Taken::Step(step) = &taken else { return Ok(taken) };
        self.put(body, &step.looked_up.records, step.pass)?;
        let told = usize::try_from(step.chunk.tally.bytes).unwrap_or(usize::MAX);
        self.put(body, &buffer.0[..told.min(buffer.0.len())], step.pass)?;
        let time = body.host.now().since(began);

        let mut report = lock(&self.report);
        report.looked_up += step.looked_up.tally;
        report.add_to_pass(step.pass, step.chunk.tally, time);
        if body.stopped {
            report.stopped.tally += step.chunk.tally;
            report.stopped.tally += step.looked_up.tally;
            report.stopped.time += time;
        }
        drop(report);
        Ok(taken)
    }

    /// Puts what lookups left after the last read.
    fn tell_looked_up(&self, body: &mut Body<'_>) -> Result<(), Error> {
        loop {
            let (pass, looked_up) = {
                let mut feed = self.feed();
                (feed.pass(), feed.take_looked_up())
            };
            if looked_up.records.is_empty() {
                return Ok(());
            }
            self.put(body, &looked_up.records, pass)?;
            let mut report = lock(&self.report);
            report.looked_up += looked_up.tally;
            report.stopped.tally += looked_up.tally;
        }
    }

    /// Puts records and counts them in the CRC.
    fn put(&self, body: &mut Body<'_>, records: &[u8], pass: u64) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        lock(&self.report).crc.update(records);
        body.put(self, records, pass)
    }

    fn note_pending(&self) -> u64 {
        let pending = self.feed().pending(self.halt.now());
        lock(&self.report).pending = pending;
        pending
    }
}

impl Body<'_> {
    /// Puts a body of records around what `records` puts.
    fn wrap<T>(
        &mut self,
        saver: &Saver,
        records: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.put(saver, &BodyHeader::Records.to_bytes(), 0)?;
        let done = records(self)?;
        self.put(saver, &StreamHeader::END.to_bytes(), 0)?;
        Ok(done)
    }

    fn put(&mut self, saver: &Saver, bytes: &[u8], pass: u64) -> Result<(), Error> {
        self.stream.put(bytes).map_err(|errno| {
            let sent: Tally = lock(&saver.report).total();
            Error::StreamWrite { pass, sent: sent.bytes, errno }
        })
    }
}

/// Puts the body that says what table there is.
fn announce(stream: &mut dyn StreamWriter, table: &Table) -> Result<(), Error> {
    let header = table.order().map_or(BodyHeader::NoTable, BodyHeader::Table);
    stream.put(&header.to_bytes()).map_err(|errno| Error::StreamWrite { pass: 0, sent: 0, errno })
}
