// SPDX-License-Identifier: GPL-2.0-or-later
//! HPTEs into a table in QEMU's memory.

use super::Sink;
use crate::error::Error;
use crate::format::hpte::{HPTE_BYTES, Hpte, Slot};
use crate::load::batch::Batch;
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
    fn load(&mut self, batch: &mut Batch) -> Result<(), Error> {
        let (bytes, records) = batch.parts();
        for record in records {
            let header = record.header;
            let invalid_from = u64::from(header.index) + u64::from(header.n_valid);
            let entries = bytes[record.entries()..record.end()].chunks_exact(HPTE_BYTES);
            for (slot, entry) in (u64::from(header.index)..invalid_from).zip(entries) {
                let Ok(entry) = entry.try_into() else { continue };
                self.0.store(Slot(slot), Hpte::from_be_bytes(entry));
            }
            for slot in invalid_from..header.end() {
                self.0.store(Slot(slot), Hpte::default());
            }
        }
        Ok(())
    }
}
