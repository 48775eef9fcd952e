// SPDX-License-Identifier: GPL-2.0-or-later
//! Where HPTEs come from: a table as a series of sweeps, each from slot 0 to the end.
//!
//! The first sweep, the first pass, tells the whole table; each later pass tells the slots that changed since they were
//! last told. A slot that changes behind the sweep's position waits for the next one. So two things show that nothing is
//! left: a sweep that began at slot 0 after the last change, and told nothing; and, once nothing changes any more, that
//! the reads begun since then have passed each slot, whatever they told.

mod kernel;
mod memory;
mod pace;

pub use kernel::{KernelOptions, KernelSource};
pub use memory::{MemoryOptions, MemorySource};

use crate::error::Error;
use crate::format::hpte::{Order, Slot};
use crate::format::record::Tally;
use crate::host::{Clock, Nanos};

/// The largest buffer a source fills at once: one record of the most valid entries that go on the wire. No record built
/// from a buffer of this size can be longer, so records never need to be split.
pub const MAX_CHUNK_BYTES: usize = 8 + 16 * crate::format::record::MAX_WIRE_VALID as usize;

/// What one read gave: stream records, whole, in `buf[..tally.bytes]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Chunk {
    /// What the records hold.
    pub tally: Tally,
    /// Slots that the read passed, told or not: one at least. Reads go round the table and leave none out.
    pub slots: u64,
    /// The read reached the end of the table; the next one begins at slot 0, in the next pass.
    pub wrapped: bool,
}

/// A table being swept.
pub trait Source: Send {
    /// Fills `buf` with stream records from the position on, to the end of the table at most.
    ///
    /// Ends when the buffer is full, the table ends or `deadline` comes, as far as that can be helped; see the
    /// implementations. Always passes a slot.
    ///
    /// # Errors
    /// [`Error::Buffer`] for a buffer without room for a record; the kernel's errors.
    fn read(&mut self, buf: &mut [u8], clock: &dyn Clock, deadline: Option<Nanos>) -> Result<Chunk, Error>;

    /// Where the next read begins.
    fn position(&self) -> Slot;

    /// The pass that the next read belongs to, counted from 1.
    fn pass(&self) -> u64;

    /// How many slots the table has.
    fn slots(&self) -> u64;
}

/// Checks a buffer against the smallest read that can return a record (the kernel's test is a strict `<`).
fn check_buffer(buf: &[u8]) -> Result<(), Error> {
    if buf.len() < pace::MIN_READ_BYTES { Err(Error::Buffer { bytes: buf.len() }) } else { Ok(()) }
}

/// Checks a start slot, which the kernel does not: past the end it would lose the first pass in silence.
fn check_start(start: Slot, order: Order) -> Result<(), Error> {
    if start.0 < order.slots() { Ok(()) } else { Err(Error::StartIndex { start, order }) }
}
