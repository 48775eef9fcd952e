// SPDX-License-Identifier: GPL-2.0-or-later
//! The table of the save under way: which one it is, what the destination knows of it, and that nobody reads it while
//! it is replaced.

use crate::error::Error;
use crate::format::record::{HEADER_BYTES, RecordHeader};
use crate::host::{Host, Nanos};
use crate::save::queue::{Aim, Next, ReadPause, SharedQueue};
use crate::save::reader::Reader;
use crate::save::source::{KernelSource, MemoryOptions, MemorySource, Source};
use crate::save::sweep::DutyCycle;
use crate::table::Table;

/// Looked-up records kept for the stream. Beyond this the whole table is sent again instead.
const MAX_LOOKED_UP_BYTES: usize = 1 << 20;

/// How long a table is waited for that gets no turn: ten of QEMU's rounds of 100 ms. Each round asks RAM first, so a
/// table that no round came to may have to wait until RAM has converged, and RAM until the wait for the table is over.
const PATIENCE: Nanos = Nanos(1_000_000_000);

/// How tables are saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SaveOptions {
    /// See [`crate::save::source::MemoryOptions::compare`].
    pub compare: bool,
    /// What part of the time sweeps may take that find nothing, while the VM runs.
    pub duty: DutyCycle,
    /// Read a kernel's table ahead, with a queue of so many bytes.
    pub ahead: Option<usize>,
}

impl SaveOptions {
    /// What the C interface does when nothing is asked for.
    pub const DEFAULT: SaveOptions = SaveOptions { compare: false, duty: DutyCycle::DEFAULT, ahead: None };
}

impl Default for SaveOptions {
    fn default() -> Self {
        SaveOptions::DEFAULT
    }
}

/// How far a save has come with the table.
#[derive(Default)]
enum Phase {
    /// No save, or one that has ended.
    #[default]
    Idle,
    /// The table is not open yet: it is being replaced, or this is the moment before.
    Unopened,
    /// The save has failed; every call returns this until the next setup.
    Failed(Error),
    /// The guest has no table.
    NoTable,
    /// The table is being swept.
    Open(Reader),
}

/// How the next section's body begins.
pub enum Opening {
    /// Nothing can be sent now.
    Quiesced,
    /// The guest has no table, as the destination knows.
    NoTable,
    /// The destination does not know of this table yet.
    NewTable(Table),
    /// Records of a table that the destination knows of.
    Table,
}

/// The table being saved.
pub struct Session {
    queue: SharedQueue,
    phase: Phase,
    /// From quiesce to resume, whether a save is under way or not.
    replacing: Option<ReadPause>,
    options: SaveOptions,
    /// The table that is open, or that there is none.
    table: Table,
    /// A table whose size must be sent before any of its records.
    unsent: Option<Table>,
    /// A lookup took marks of changes away and could not leave its records in the queue.
    resend: bool,
    /// Passes over tables that this one replaced.
    earlier_passes: u64,
    /// A complete of this save has sent all that there was.
    completed: bool,
    /// When setup or the last iterate ended; `None` outside a save, and after a complete until the next iterate.
    last_turn: Option<Nanos>,
}

impl Session {
    /// Without a save.
    #[must_use]
    pub fn new(queue: SharedQueue) -> Session {
        Session {
            queue,
            phase: Phase::Idle,
            replacing: None,
            options: SaveOptions::DEFAULT,
            table: Table::None,
            unsent: None,
            resend: false,
            earlier_passes: 0,
            completed: false,
            last_turn: None,
        }
    }

    /// Begins a save with the first pass. Returns what table the destination is to hear of: none while one is being
    /// replaced, whose size follows.
    ///
    /// # Errors
    /// The table cannot be named or opened.
    pub fn begin(&mut self, host: &dyn Host, options: SaveOptions) -> Result<Table, Error> {
        self.end();
        self.options = options;
        self.phase = Phase::Unopened;
        if self.replacing.is_some() {
            return Ok(Table::None);
        }
        let table = host.table()?;
        self.phase = self.open(host, table, false)?;
        self.table = table;
        Ok(table)
    }

    /// Ends a save, if one is under way, and returns whether one was.
    pub fn end(&mut self) -> bool {
        let was_saving = self.is_saving();
        *self = Session { replacing: self.replacing.take(), ..Session::new(self.queue.clone()) };
        was_saving
    }

    /// Whether the table is being replaced.
    #[must_use]
    pub fn is_being_replaced(&self) -> bool {
        self.replacing.is_some()
    }

    fn is_saving(&self) -> bool {
        !matches!(self.phase, Phase::Idle)
    }

    /// How the next body begins.
    ///
    /// # Errors
    /// [`Error::State`] with `idle` outside a save; what the save failed with.
    pub fn opening(&self, idle: &'static str) -> Result<Opening, Error> {
        Ok(match &self.phase {
            Phase::Idle => return Err(Error::State(idle)),
            Phase::Failed(error) => return Err(error.clone()),
            _ if self.replacing.is_some() => Opening::Quiesced,
            phase => match (self.unsent, phase) {
                (Some(table), _) => Opening::NewTable(table),
                (None, Phase::Open(_)) => Opening::Table,
                (None, _) => Opening::NoTable,
            },
        })
    }

    /// Notes that the destination knows a table of this size now.
    pub fn announced(&mut self, table: &Table) {
        // Another one may have taken its place meanwhile.
        self.unsent = self.unsent.filter(|unsent| unsent.order() != table.order());
    }

    /// What is to be sent next, `now` by the host's clock.
    ///
    /// # Errors
    /// The table's.
    pub fn next(&mut self, host: &dyn Host, aim: Aim, now: Nanos) -> Result<Next, Error> {
        match &mut self.phase {
            Phase::Failed(error) => Err(error.clone()),
            Phase::Open(reader) if self.unsent.is_none() && self.replacing.is_none() => {
                reader.next(host, aim, now)
            }
            _ => Ok(Next::Gone),
        }
    }

    /// Notes that setup or iterate ended at this time.
    pub fn had_turn(&mut self, now: Nanos) {
        self.last_turn = Some(now);
    }

    /// Notes that a complete has sent all.
    pub fn complete(&mut self) {
        self.completed = true;
        self.last_turn = None;
    }

    /// Whether one has since the setup, and nothing failed since but to take up another table.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        self.completed
    }

    /// Whether the host does well to wait for what is pending.
    #[must_use]
    pub fn is_awaited(&self, now: Nanos) -> bool {
        self.last_turn.is_some_and(|turn| now.since(turn) < PATIENCE)
    }

    /// The bytes still to come: those that wait, exactly, and an estimate of those that are still to be read. 0 after a
    /// complete, until the next iterate.
    ///
    /// # Errors
    /// What the save failed with.
    pub fn pending(&self) -> Result<u64, Error> {
        match &self.phase {
            Phase::Failed(error) => Err(error.clone()),
            Phase::Open(_) if self.last_turn.is_some() => Ok(self.queue.pending()),
            _ => Ok(0),
        }
    }

    /// Leaves the table alone until it is replaced. Returns whether it was not left alone already.
    pub fn quiesce(&mut self) -> bool {
        if self.replacing.is_some() {
            return false;
        }
        let pause = ReadPause::for_replacement(&self.queue);
        pause.wait_until_at_rest();
        self.replacing = Some(pause);
        true
    }

    /// Takes up the table that the host has now, unless no save waits for it.
    ///
    /// # Errors
    /// It cannot be named or opened; later calls fail with that error.
    pub fn resume(&mut self, host: &dyn Host) -> Result<(), Error> {
        // No thread reads before the table is the new one.
        let Some(_pause) = self.replacing.take() else { return Ok(()) };
        match self.phase {
            Phase::Idle | Phase::Failed(_) => Ok(()),
            _ => self.open_anew(host).map(|table| self.unsent = Some(table)),
        }
    }

    /// Goes on with the table there was: it was not replaced. The host's word is not taken for a table that is gone.
    ///
    /// # Errors
    /// As [`Session::resume`], if the save was set up meanwhile and has not opened it yet, or there is another table.
    pub fn resume_unchanged(&mut self, host: &dyn Host) -> Result<(), Error> {
        let is_open = matches!(self.phase, Phase::Open(_) | Phase::NoTable);
        if self.replacing.is_none() || is_open && host.table().is_ok_and(|table| table == self.table) {
            self.replacing = None;
            return Ok(());
        }
        self.resume(host)
    }

    /// Makes later calls fail until the next setup or cleanup. The first error stays.
    pub fn fail(&mut self, error: Error) {
        self.completed = false;
        if self.is_saving() && !matches!(self.phase, Phase::Failed(_)) {
            self.phase = Phase::Failed(error);
        }
    }

    /// Keeps a record for the stream whose slots the kernel takes as reported now, though they were not sent. What was
    /// read before the lookup goes out before it, what is read later goes out after it.
    pub fn keep(&mut self, header: RecordHeader, entries: &[u8]) {
        let bytes = HEADER_BYTES + entries.len();
        let too_many = self.queue.looked_up_bytes() + bytes > MAX_LOOKED_UP_BYTES;
        self.resend |= too_many || self.queue.push_looked_up(header, entries).is_err();
    }

    /// A lookup failed, and may have taken marks of changes away.
    pub fn lose(&mut self) {
        self.resend = true;
    }

    /// At the end of a lookup: if what it read is not all in the queue, begins to send the whole table anew.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn settle(&mut self, host: &dyn Host) -> Result<(), Error> {
        if !std::mem::take(&mut self.resend) || !matches!(self.phase, Phase::Open(_)) {
            return Ok(());
        }
        log::info!("spapr/htab: lookups took many changes, or failed; the whole table is sent again");
        // The destination knows this table, unless another's size is still to be sent.
        self.open_anew(host).map(drop)
    }

    fn open_anew(&mut self, host: &dyn Host) -> Result<Table, Error> {
        self.earlier_passes = self.earlier_passes.max(self.queue.pass());
        // The one before ends first: it has the queue.
        self.phase = Phase::Unopened;
        let opened = host.table().and_then(|table| Ok((table, self.open(host, table, true)?)));
        let (table, phase) = opened.inspect_err(|error| self.phase = Phase::Failed(error.clone()))?;
        self.phase = phase;
        self.table = table;
        Ok(table)
    }

    fn open(&self, host: &dyn Host, table: Table, explicit_invalid: bool) -> Result<Phase, Error> {
        let SaveOptions { compare, duty, ahead } = self.options;
        let (source, ahead): (Box<dyn Source>, _) = match table {
            Table::None => return Ok(Phase::NoTable),
            Table::Kernel(order) => (Box::new(KernelSource::open(host, order)?), ahead),
            // Its scan ends in time by itself, so nothing is read ahead.
            Table::Memory(memory) => {
                let options = MemoryOptions { explicit_invalid, compare };
                (Box::new(MemorySource::new(memory, options)?), None)
            }
        };
        Ok(Phase::Open(Reader::open(&self.queue, source, host, self.earlier_passes, duty, ahead)))
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
