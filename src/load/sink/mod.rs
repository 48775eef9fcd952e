// SPDX-License-Identifier: GPL-2.0-or-later
//! Where HPTEs go when a stream is loaded.

mod kernel;
mod memory;

pub use kernel::KernelSink;
pub use memory::MemorySink;

use crate::error::Error;
use crate::load::batch::Batch;

/// A table being filled. Its caller has checked that every slot exists.
pub trait Sink {
    /// Loads the records, whose entries are in the stream's form, each with its valid bit set, and may change their
    /// bytes.
    ///
    /// # Errors
    /// The table refused a record. Those before it are loaded, those after it may be or not.
    fn load(&mut self, batch: &mut Batch) -> Result<(), Error>;
}
