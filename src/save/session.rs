// SPDX-License-Identifier: GPL-2.0-or-later
//! The table being saved, as everyone shares it who reads or replaces it: the save, the debugger's lookups, a reset.

use crate::error::{Error, reserve};
use crate::format::hpte::Slot;
use crate::format::record::{HEADER_BYTES, RecordHeader, StreamHeader, Tally};
use crate::host::Host;
use crate::save::ahead::{ReadPause, SharedQueue};
use crate::save::reader::{Aim, Got, Reader};
use crate::save::run_state::{RunState, StopId};
use crate::save::source::Chunk;
use crate::save::sweep::{DutyCycle, Sweep};
use crate::table::Table;
use std::sync::Arc;

/// Looked-up records kept for the stream. Beyond this the whole table is told again instead.
const MAX_LOOKED_UP_BYTES: usize = 1 << 20;

/// How tables are saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SaveOptions {
    /// See [`crate::save::source::MemoryOptions::compare`].
    pub compare: bool,
    /// What part of the time sweeps may take that find nothing, while the VM runs.
    pub share: DutyCycle,
    /// Read a kernel's table ahead, with a queue of so many bytes.
    pub ahead: Option<usize>,
}

impl SaveOptions {
    /// What the C interface does when nothing is asked for.
    pub const DEFAULT: SaveOptions = SaveOptions { compare: false, share: DutyCycle::DEFAULT, ahead: None };
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
    /// The table is being replaced.
    Quiesced,
    /// What there was to read could not be read; told to whoever comes next.
    Failed(Error),
    /// The guest has no table.
    NoTable,
    /// The table is being swept; the stream is as far as the sweep says.
    Sweeping(Reader, Sweep),
}

/// How the next body begins.
pub enum Opening {
    /// Nothing can be told now.
    Quiesced,
    /// The guest has no table, as the destination knows.
    NoTable,
    /// The destination does not know of this table yet.
    NewTable(Table),
    /// Records of a table that the destination knows of.
    Table,
}

/// What lookups read.
#[derive(Debug, Default)]
pub struct LookedUp {
    /// Stream records.
    pub records: Vec<u8>,
    /// What they hold.
    pub tally: Tally,
}

impl LookedUp {
    fn push(&mut self, records: &[u8], tally: Tally) -> Result<(), Error> {
        reserve(&mut self.records, records.len(), "for what a lookup read")?;
        self.records.extend_from_slice(records);
        self.tally += tally;
        Ok(())
    }
}

/// What a step gave.
pub enum Taken {
    /// Something.
    Step(Step),
    /// Nothing so far; see [`Got::NotYet`].
    NotYet(SharedQueue),
    /// Nothing so soon after a sweep that found nothing.
    Resting,
    /// There is nothing to read from any more.
    Gone,
}

/// What one step of the sweep gave.
#[derive(Debug, Default)]
pub struct Step {
    /// The stream records in the caller's buffer.
    pub chunk: Chunk,
    /// The pass they belong to, counted from 1 since setup.
    pub pass: u64,
    /// Records to put before them.
    pub looked_up: LookedUp,
    /// With this step a sweep ended that began at slot 0 and told nothing.
    pub clean: bool,
}

/// The table being saved.
#[derive(Default)]
pub struct Session {
    phase: Phase,
    /// Between quiesce and resume, whether a save is under way or not.
    replacing: bool,
    options: SaveOptions,
    /// A table that the destination must be told of before any of its records.
    unsent: Option<Table>,
    /// To go out before the next read. What is read ahead has a queue for both.
    looked_up: LookedUp,
    /// There were too many of them, or no memory for them.
    retell: bool,
    /// Passes over tables that this one replaced.
    earlier_passes: u64,
}

impl Session {
    /// Begins a save with the first pass, and tells what table the destination is to hear of: none while one is being
    /// replaced, whose size follows.
    ///
    /// # Errors
    /// The table cannot be told or opened; then no save is under way.
    pub fn begin(
        &mut self,
        host: &dyn Host,
        halt: &Arc<RunState>,
        options: SaveOptions,
    ) -> Result<Table, Error> {
        self.end();
        if self.replacing {
            *self = Session { phase: Phase::Quiesced, replacing: true, options, ..Session::default() };
            return Ok(Table::None);
        }
        let table = host.table()?;
        *self =
            Session { phase: Phase::open(host, halt, table, options, false)?, options, ..Session::default() };
        Ok(table)
    }

    /// Ends a save, if one is under way, and tells whether.
    pub fn end(&mut self) -> bool {
        let was_saving = self.is_saving();
        *self = Session { replacing: self.replacing, ..Session::default() };
        was_saving
    }

    /// Whether the table is being replaced.
    #[must_use]
    pub fn is_being_replaced(&self) -> bool {
        self.replacing
    }

    fn is_saving(&self) -> bool {
        !matches!(self.phase, Phase::Idle)
    }

    /// How the next body begins.
    ///
    /// # Errors
    /// [`Error::State`] with `idle` outside a save; what resume failed with.
    pub fn opening(&self, idle: &'static str) -> Result<Opening, Error> {
        match &self.phase {
            Phase::Idle => Err(Error::State(idle)),
            Phase::Failed(error) => Err(error.clone()),
            Phase::Quiesced => Ok(Opening::Quiesced),
            Phase::NoTable | Phase::Sweeping(..) => Ok(match (self.unsent, &self.phase) {
                (Some(table), _) => Opening::NewTable(table),
                (None, Phase::NoTable) => Opening::NoTable,
                (None, _) => Opening::Table,
            }),
        }
    }

    /// Notes that the destination knows a table of this size now.
    pub fn announced(&mut self, table: &Table) {
        // Another one may have taken its place meanwhile.
        self.unsent = self.unsent.filter(|unsent| unsent.order() != table.order());
    }

    /// Whether what was told since the stop, by reads begun since, is all of the table; `None` if there is nothing to
    /// read from any more.
    #[must_use]
    pub fn has_passed_all_since(&self, stop: StopId) -> Option<bool> {
        match &self.phase {
            Phase::Sweeping(_, sweep) => Some(sweep.has_passed_all(Some(stop))),
            _ => None,
        }
    }

    /// Goes on.
    ///
    /// # Errors
    /// The table's.
    pub fn step(&mut self, host: &dyn Host, buf: &mut [u8], aim: Aim) -> Result<Taken, Error> {
        let (reader, sweep) = match &mut self.phase {
            Phase::Sweeping(reader, sweep) if self.unsent.is_none() => (reader, sweep),
            Phase::Failed(error) => return Err(error.clone()),
            _ => return Ok(Taken::Gone),
        };
        let pass = self.earlier_passes + sweep.pass();
        let looked_up =
            self.looked_up.records.len() + reader.queue().map_or(0, |queue| queue.looked_up_bytes());
        // What was looked up goes out with the next read, so that one is due.
        let may_rest = looked_up == 0 && sweep.is_resting(host.now());
        Ok(match reader.next(host, buf, aim, may_rest)? {
            Got::Read(read) => {
                let clean = sweep.advance(&read) && looked_up == 0;
                let looked_up = std::mem::take(&mut self.looked_up);
                Taken::Step(Step { chunk: read.chunk, pass, looked_up, clean })
            }
            Got::LookedUp(records, tally) => {
                let looked_up = LookedUp { records, tally };
                Taken::Step(Step { pass, looked_up, ..Step::default() })
            }
            Got::NotYet(queue) => Taken::NotYet(queue),
            Got::Resting => Taken::Resting,
        })
    }

    /// Whether lookups' records wait among what was read ahead; they go out in their turn.
    #[must_use]
    pub fn has_looked_up_ahead(&self) -> bool {
        matches!(&self.phase, Phase::Sweeping(Reader::Ahead(ahead), _) if ahead.queue().looked_up_bytes() > 0)
    }

    /// The records of lookups that no read follows.
    pub fn take_looked_up(&mut self) -> LookedUp {
        std::mem::take(&mut self.looked_up)
    }

    /// The pass that the next read belongs to, counted from 1 since setup.
    #[must_use]
    pub fn pass(&self) -> u64 {
        match &self.phase {
            Phase::Sweeping(_, sweep) => self.earlier_passes + sweep.pass(),
            _ => self.earlier_passes,
        }
    }

    /// The bytes still to come: those that wait, exactly, and an estimate of those that are still to be read.
    #[must_use]
    pub fn pending(&self, stop: Option<StopId>) -> u64 {
        match &self.phase {
            Phase::Sweeping(Reader::InCall(_), sweep) => {
                sweep.left(stop) + self.looked_up.records.len() as u64
            }
            Phase::Sweeping(Reader::Ahead(ahead), _) => ahead.queue().pending(stop),
            _ => 0,
        }
    }

    /// Lets go of the table.
    pub fn quiesce(&mut self) {
        self.replacing = true;
        if self.is_saving() && !matches!(self.phase, Phase::Failed(_)) {
            self.earlier_passes = self.pass();
            self.phase = Phase::Quiesced;
            self.forget_lookups();
        }
    }

    /// Takes up the table that the host has now, unless no save waits for it.
    ///
    /// # Errors
    /// It cannot be told or opened; later calls fail with that error.
    pub fn resume(&mut self, host: &dyn Host, halt: &Arc<RunState>) -> Result<(), Error> {
        self.replacing = false;
        if !matches!(self.phase, Phase::Quiesced) {
            return Ok(());
        }
        let opened =
            host.table().and_then(|table| Ok((table, Phase::open(host, halt, table, self.options, true)?)));
        match opened {
            Ok((table, phase)) => {
                self.phase = phase;
                self.unsent = Some(table);
                Ok(())
            }
            Err(error) => {
                self.fail(error.clone());
                Err(error)
            }
        }
    }

    /// Makes later calls fail until the next setup or cleanup.
    pub fn fail(&mut self, error: Error) {
        if self.is_saving() {
            self.phase = Phase::Failed(error);
            self.forget_lookups();
        }
    }

    /// Asks for the table to be left alone for a lookup: by a thread that reads ahead, if there is one.
    #[must_use]
    pub fn hold(&self) -> Option<ReadPause> {
        match &self.phase {
            Phase::Sweeping(reader, _) => reader.queue().map(ReadPause::of),
            _ => None,
        }
    }

    /// Whether nobody reads the table but who has this feed.
    #[must_use]
    pub fn is_held(&self, hold: Option<&ReadPause>) -> bool {
        match &self.phase {
            Phase::Sweeping(Reader::Ahead(ahead), _) => hold.is_some_and(|hold| hold.holds(ahead.queue())),
            _ => true,
        }
    }

    /// Keeps a record of the kernel for the stream whose slots the kernel takes as told now, though the stream has not
    /// heard of them. What was read before the lookup goes out before it, what is read later goes out after it.
    pub fn keep(&mut self, run: RecordHeader, entries: &[u8]) {
        let Phase::Sweeping(reader, _) = &self.phase else { return };
        let kept = self.looked_up.records.len() + reader.queue().map_or(0, |queue| queue.looked_up_bytes());
        self.retell |= kept + HEADER_BYTES + entries.len() > MAX_LOOKED_UP_BYTES;
        if self.retell {
            return;
        }
        let record = [&StreamHeader(run).to_bytes(), entries].concat();
        let mut tally = Tally::default();
        tally.count(run);
        let kept = match reader.queue() {
            Some(queue) => queue.push_looked_up(&record, tally),
            None => self.looked_up.push(&record, tally),
        };
        self.retell = kept.is_err();
    }

    /// At the end of a lookup: if more was looked up than is kept, begins to tell the whole table anew.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn settle(&mut self, host: &dyn Host, halt: &Arc<RunState>) -> Result<(), Error> {
        if !std::mem::take(&mut self.retell) {
            return Ok(());
        }
        log::info!("spapr/htab: many lookups during the migration; the whole table is sent again");
        let unsent = self.unsent.take();
        self.quiesce();
        self.resume(host, halt)?;
        // The destination knows this table; only its content is told anew.
        self.unsent = unsent;
        Ok(())
    }

    /// Where the sweep is; slot 0 while nothing is swept.
    #[must_use]
    pub fn position(&self) -> Slot {
        match &self.phase {
            Phase::Sweeping(_, sweep) => Slot(sweep.position()),
            _ => Slot(0),
        }
    }

    fn forget_lookups(&mut self) {
        self.looked_up = LookedUp::default();
        self.retell = false;
    }
}

impl Phase {
    fn open(
        host: &dyn Host,
        halt: &Arc<RunState>,
        table: Table,
        options: SaveOptions,
        explicit_invalid: bool,
    ) -> Result<Phase, Error> {
        let (reader, sweep) = match table {
            Table::None => return Ok(Phase::NoTable),
            Table::Kernel(order) => Reader::kernel(host, halt, order, options)?,
            Table::Memory(memory) => Reader::memory(memory, explicit_invalid, options)?,
        };
        Ok(Phase::Sweeping(reader, sweep))
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
