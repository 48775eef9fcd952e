// SPDX-License-Identifier: GPL-2.0-or-later
//! How a save comes by what its table has to tell: by reads of its own, or from a thread that reads ahead.

use crate::error::Error;
use crate::format::hpte::Order;
use crate::format::record::Tally;
use crate::host::Host;
use crate::host::Nanos;
use crate::save::ahead::{AheadOptions, Entry, Next, Origin, ReadAhead, SharedQueue};
use crate::save::run_state::{RunState, StopId};
use crate::save::session::SaveOptions;
use crate::save::source::{KernelOptions, KernelSource, MemoryOptions, MemorySource, Source};
use crate::save::sweep::{Read, Sweep};
use crate::table::SharedTable;
use std::sync::Arc;

/// What for.
#[derive(Clone, Copy, Debug)]
pub enum Aim {
    /// To go on sweeping, until a time if one is given.
    Sweep {
        /// The time.
        deadline: Option<Nanos>,
        /// The VM's stop, if it is stopped.
        stop: Option<StopId>,
    },
    /// To pass each slot once since this stop.
    Finish(StopId),
}

/// A table, being swept.
pub enum Reader {
    /// By the calls that want to know.
    InCall(Box<dyn Source>),
    /// By a thread.
    Ahead(ReadAhead),
}

/// What a reader has to give.
pub enum Got {
    /// Stream records in the caller's buffer.
    Read(Read),
    /// Records that a lookup left, which are in no sweep.
    LookedUp(Vec<u8>, Tally),
    /// Nothing so far; when this queue has some, or will not, it is time to ask again.
    NotYet(SharedQueue),
    /// Nothing so soon after a sweep that found nothing.
    Resting,
}

impl Reader {
    /// Opens the kernel's table.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn kernel(
        host: &dyn Host,
        halt: &Arc<RunState>,
        order: Order,
        options: SaveOptions,
    ) -> Result<(Reader, Sweep), Error> {
        let source = Box::new(KernelSource::open(host, order, KernelOptions::default())?);
        let sweep = Sweep::of(source.as_ref(), options.share);
        Ok((Reader::of(source, host, halt, options), sweep))
    }

    /// Sweeps a table in memory. Its scan ends in time by itself, so nothing is read ahead.
    ///
    /// # Errors
    /// There is no memory for what `options` ask for.
    pub fn memory(
        table: SharedTable,
        explicit_invalid: bool,
        options: SaveOptions,
    ) -> Result<(Reader, Sweep), Error> {
        let how = MemoryOptions { compare: options.compare, explicit_invalid, ..MemoryOptions::default() };
        let source = MemorySource::new(table, how)?;
        let sweep = Sweep::of(&source, options.share);
        Ok((Reader::InCall(Box::new(source)), sweep))
    }

    /// Reads ahead if that is wanted and there can be a thread.
    pub fn of(
        source: Box<dyn Source>,
        host: &dyn Host,
        halt: &Arc<RunState>,
        options: SaveOptions,
    ) -> Reader {
        let Some(queue_bytes) = options.ahead else { return Reader::InCall(source) };
        let ahead = AheadOptions { queue_bytes, share: options.share };
        match ReadAhead::start(source, host.thread_clock(), halt, ahead) {
            Ok(ahead) => Reader::Ahead(ahead),
            Err((source, why)) => {
                log::warn!("spapr/htab: nothing is read ahead, as there can be no thread for it: {why}");
                Reader::InCall(source)
            }
        }
    }

    /// What there is next. `may_rest`: the last sweep found nothing and was not long ago; a thread knows by itself.
    ///
    /// # Errors
    /// The table's.
    pub fn next(&mut self, host: &dyn Host, buf: &mut [u8], aim: Aim, may_rest: bool) -> Result<Got, Error> {
        match (self, aim) {
            (Reader::InCall(_), Aim::Sweep { .. }) if may_rest => Ok(Got::Resting),
            (Reader::InCall(source), aim) => {
                let (deadline, stop) = match aim {
                    Aim::Sweep { deadline, stop } => (deadline, stop),
                    Aim::Finish(stop) => (None, Some(stop)),
                };
                let began = host.now();
                let chunk = source.read(buf, host.clock(), deadline)?;
                Ok(Got::Read(Read { chunk, stop, time: (began, host.now()) }))
            }
            (Reader::Ahead(ahead), aim) => match ahead.take(matches!(aim, Aim::Sweep { .. }))? {
                Next::NotYet => Ok(Got::NotYet(ahead.queue().clone())),
                Next::Resting => Ok(Got::Resting),
                Next::Entry(Entry { records, origin: Origin::LookedUp(tally) }) => {
                    Ok(Got::LookedUp(records, tally))
                }
                Next::Entry(Entry { records, origin: Origin::Sweep(read) }) => {
                    let room = buf.get_mut(..records.len()).ok_or(Error::Buffer { bytes: records.len() })?;
                    room.copy_from_slice(&records);
                    Ok(Got::Read(read))
                }
            },
        }
    }

    /// The queue of what was read ahead.
    #[must_use]
    pub fn queue(&self) -> Option<&SharedQueue> {
        match self {
            Reader::InCall(_) => None,
            Reader::Ahead(ahead) => Some(ahead.queue()),
        }
    }
}
