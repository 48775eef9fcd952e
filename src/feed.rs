// SPDX-License-Identifier: GPL-2.0-or-later
//! The table being saved, as everyone shares it who reads or replaces it: the save, the debugger's lookups, a reset.

use crate::clock::Nanos;
use crate::error::Error;
use crate::halt::Stop;
use crate::host::Host;
use crate::hpte::Slot;
use crate::record::{Extent, HEADER_BYTES, StreamHeader, Tally};
use crate::source::{Chunk, KernelOptions, KernelSource, MemoryOptions, MemorySource, Source};
use crate::sweep::{Read, Share, Sweep};
use crate::table::Table;

/// Looked-up records kept for the stream. Beyond this the whole table is told again instead.
const MAX_LOOKED_UP_BYTES: usize = 1 << 20;

/// How tables are saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SaveOptions {
    /// See [`MemoryOptions::compare`].
    pub compare: bool,
    /// What part of the time sweeps may take that find nothing, while the VM runs.
    pub share: Share,
}

impl SaveOptions {
    /// What the C interface does when nothing is asked for.
    pub const DEFAULT: SaveOptions = SaveOptions { compare: false, share: Share::DEFAULT };
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
    /// The table is being swept.
    Sweeping(Box<dyn Source>, Sweep),
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

/// What one step of the sweep gave.
#[derive(Debug)]
pub struct Step {
    /// The stream records in the caller's buffer.
    pub chunk: Chunk,
    /// The pass they belong to, counted from 1 since setup.
    pub pass: u64,
    /// Records to put before them.
    pub looked_up: Vec<u8>,
    /// What those hold.
    pub looked_up_tally: Tally,
    /// With this step a sweep ended that began at slot 0 and told nothing.
    pub clean: bool,
}

/// The table being saved.
#[derive(Default)]
pub struct Feed {
    phase: Phase,
    /// Between quiesce and resume, whether a save is under way or not.
    replacing: bool,
    options: SaveOptions,
    /// A table that the destination must be told of before any of its records.
    unsent: Option<Table>,
    looked_up: Vec<u8>,
    looked_up_tally: Tally,
    /// Passes over tables that this one replaced.
    earlier_passes: u64,
}

impl Feed {
    /// Begins a save with the first pass, and tells what table the destination is to hear of: none while one is being
    /// replaced, whose size follows.
    ///
    /// # Errors
    /// The table cannot be told or opened; then no save is under way.
    pub fn begin(&mut self, host: &dyn Host, options: SaveOptions) -> Result<Table, Error> {
        self.end();
        if self.replacing {
            *self = Feed { phase: Phase::Quiesced, replacing: true, options, ..Feed::default() };
            return Ok(Table::None);
        }
        let table = host.table()?;
        *self = Feed { phase: Phase::open(host, table, options, false)?, options, ..Feed::default() };
        Ok(table)
    }

    /// Ends a save, if one is under way, and tells whether.
    pub fn end(&mut self) -> bool {
        let was_saving = self.is_saving();
        *self = Feed { replacing: self.replacing, ..Feed::default() };
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

    /// Whether reads begun since the stop have passed all of the table; `None` if there is nothing to read from any more.
    #[must_use]
    pub fn has_passed_all_since(&self, stop: Stop) -> Option<bool> {
        match &self.phase {
            Phase::Sweeping(_, sweep) => Some(sweep.has_passed_all_since(stop)),
            _ => None,
        }
    }

    /// Reads on; `None` if there is nothing to read from any more. `stop`: the VM's stop, if it is stopped.
    ///
    /// # Errors
    /// The table's.
    pub fn step(
        &mut self,
        host: &dyn Host,
        buf: &mut [u8],
        deadline: Option<Nanos>,
        stop: Option<Stop>,
    ) -> Result<Option<Step>, Error> {
        let (source, sweep) = match &mut self.phase {
            Phase::Sweeping(source, sweep) if self.unsent.is_none() => (source, sweep),
            Phase::Failed(error) => return Err(error.clone()),
            _ => return Ok(None),
        };
        let pass = self.earlier_passes + sweep.pass();
        let began = host.now();
        let chunk = source.read(buf, host.clock(), deadline)?;
        let read = Read { chunk, stop, time: (began, host.now()) };
        let clean = sweep.advance(&read) && self.looked_up.is_empty();
        let (looked_up, looked_up_tally) = self.take_looked_up();
        Ok(Some(Step { chunk, pass, looked_up, looked_up_tally, clean }))
    }

    /// Whether another sweep would come too soon after one that found nothing.
    #[must_use]
    pub fn is_resting(&self, now: Nanos) -> bool {
        match &self.phase {
            Phase::Sweeping(_, sweep) => sweep.is_resting(now) && self.looked_up.is_empty(),
            _ => false,
        }
    }

    /// The records that lookups left, and what they hold.
    pub fn take_looked_up(&mut self) -> (Vec<u8>, Tally) {
        (std::mem::take(&mut self.looked_up), std::mem::take(&mut self.looked_up_tally))
    }

    /// The pass that the next read belongs to, counted from 1 since setup.
    #[must_use]
    pub fn pass(&self) -> u64 {
        match &self.phase {
            Phase::Sweeping(_, sweep) => self.earlier_passes + sweep.pass(),
            _ => self.earlier_passes,
        }
    }

    /// An estimate of the bytes still to come.
    #[must_use]
    pub fn pending(&self, stop: Option<Stop>) -> u64 {
        let Phase::Sweeping(_, sweep) = &self.phase else { return 0 };
        sweep.left(stop) + self.looked_up.len() as u64
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
    pub fn resume(&mut self, host: &dyn Host) -> Result<(), Error> {
        self.replacing = false;
        if !matches!(self.phase, Phase::Quiesced) {
            return Ok(());
        }
        let opened =
            host.table().and_then(|table| Ok((table, Phase::open(host, table, self.options, true)?)));
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

    /// Keeps a record of the kernel for the stream whose slots the kernel takes as told now, though the stream has not
    /// heard of them.
    ///
    /// # Errors
    /// None of its own; if the table has to be told anew, that it cannot be opened.
    pub fn keep(&mut self, host: &dyn Host, run: Extent, entries: &[u8]) -> Result<(), Error> {
        if !matches!(self.phase, Phase::Sweeping(..)) {
            return Ok(());
        }
        if self.looked_up.len() + HEADER_BYTES + entries.len() <= MAX_LOOKED_UP_BYTES {
            self.looked_up.extend_from_slice(&StreamHeader(run).to_bytes());
            self.looked_up.extend_from_slice(entries);
            self.looked_up_tally.count(run);
            return Ok(());
        }
        log::info!("spapr/htab: many lookups during the migration; the whole table is sent again");
        let unsent = self.unsent.take();
        self.quiesce();
        self.resume(host)?;
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
        drop(self.take_looked_up());
    }
}

impl Phase {
    fn open(
        host: &dyn Host,
        table: Table,
        options: SaveOptions,
        explicit_invalid: bool,
    ) -> Result<Phase, Error> {
        Ok(match table {
            Table::None => Phase::NoTable,
            Table::Kernel(order) => {
                Phase::sweep(Box::new(KernelSource::open(host, order, KernelOptions::default())?), options)
            }
            Table::Memory(memory) => {
                let compare = options.compare;
                let how = MemoryOptions { compare, explicit_invalid, ..MemoryOptions::default() };
                Phase::sweep(Box::new(MemorySource::new(memory, how)?), options)
            }
        })
    }

    fn sweep(source: Box<dyn Source>, options: SaveOptions) -> Phase {
        let sweep = Sweep::of(source.as_ref(), options.share);
        Phase::Sweeping(source, sweep)
    }
}

#[cfg(test)]
mod tests;
