// SPDX-License-Identifier: GPL-2.0-or-later
//! HPTEs into a table in QEMU's memory.

use super::Sink;
use crate::error::Error;
use crate::hpte::{HPTE_BYTES, Hpte, Slot};
use crate::record::Extent;
use crate::table::SharedTable;

/// A table in memory, being filled.
pub struct MemorySink(SharedTable);

impl MemorySink {
    /// Fills this table.
    #[must_use]
    pub fn new(table: SharedTable) -> MemorySink {
        MemorySink(table)
    }
}

impl Sink for MemorySink {
    fn load(&mut self, run: Extent, entries: &[u8]) -> Result<(), Error> {
        let invalid_from = u64::from(run.index) + u64::from(run.n_valid);
        for (slot, entry) in (u64::from(run.index)..invalid_from).zip(entries.chunks_exact(HPTE_BYTES)) {
            let Ok(entry) = entry.try_into() else { continue };
            self.0.store(Slot(slot), Hpte::from_be_bytes(entry));
        }
        for slot in invalid_from..run.end() {
            self.0.store(Slot(slot), Hpte::default());
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Error> {
        Ok(())
    }
}
