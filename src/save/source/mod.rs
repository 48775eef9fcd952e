// SPDX-License-Identifier: GPL-2.0-or-later
//! Where HPTEs come from: a table that is read as a series of sweeps, each from slot 0 to the end.
//!
//! The first sweep, the first pass, reports the whole table; each later pass reports the slots that changed since they
//! were last reported. A slot that changes behind the sweep's position waits for the next one. So two things show that
//! nothing is left: a sweep that began at slot 0 after the last change, and found nothing; and, once nothing changes
//! any more, that the reads begun since then have visited each slot, whatever they found.

mod kernel;
mod memory;
mod pace;

pub use kernel::KernelSource;
pub use memory::{MemoryOptions, MemorySource};

use crate::error::Error;
use crate::format::hpte::Slot;
use crate::format::record::Tally;
use crate::host::{Clock, Nanos};

/// The largest buffer a source fills at once: one record of the most valid entries that go on the wire. No record built
/// from a buffer of this size can be longer, so records never need to be split.
pub const MAX_CHUNK_BYTES: usize = 8 + 16 * crate::format::record::MAX_WIRE_VALID as usize;

/// Where a read begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// The first slot that it visits.
    pub slot: Slot,
    /// The pass that it belongs to, counted from 1.
    pub pass: u64,
}

/// What one read gave: stream records, whole, in `buf[..tally.bytes]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Chunk {
    /// What the records hold.
    pub tally: Tally,
    /// Slots that the read visited, reported or not: one at least. Reads go round the table and leave none out.
    pub slots: u64,
}

/// A table that can be swept.
pub trait Source: Send {
    /// How many slots the table has.
    fn slots(&self) -> u64;

    /// Fills `buf` with stream records from `at` on, to the end of the table at most. The first read is at slot 0 of
    /// pass 1, each other where the one before it ended; a new pass begins at slot 0.
    ///
    /// Ends when the buffer is full, the table ends or `deadline` comes, as far as that can be helped; see the
    /// implementations. Always visits a slot.
    ///
    /// # Errors
    /// [`Error::Buffer`] for a buffer without room for a record; the kernel's errors.
    fn read(
        &mut self,
        at: Position,
        buf: &mut [u8],
        clock: &dyn Clock,
        deadline: Option<Nanos>,
    ) -> Result<Chunk, Error>;
}

/// Checks a buffer against the smallest read that can return a record (the kernel's test is a strict `<`).
fn check_buffer(buf: &[u8]) -> Result<(), Error> {
    if buf.len() < pace::MIN_READ_BYTES { Err(Error::Buffer { bytes: buf.len() }) } else { Ok(()) }
}
