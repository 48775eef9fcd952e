// SPDX-License-Identifier: GPL-2.0-or-later
//! Where HPTEs go when a stream is loaded.

mod kernel;
mod memory;

pub use kernel::KernelSink;
pub use memory::MemorySink;

use crate::error::Error;
use crate::record::Extent;

/// A table being filled. Its caller has checked that every slot exists.
pub trait Sink {
    /// Loads a record: `entries` are its `n_valid` entries in the stream's form, each with its valid bit set.
    ///
    /// # Errors
    /// The table refused it, or one before it.
    fn load(&mut self, run: Extent, entries: &[u8]) -> Result<(), Error>;

    /// Sees to it that everything loaded so far is in the table.
    ///
    /// # Errors
    /// The table refused a record.
    fn finish(&mut self) -> Result<(), Error>;
}
