// SPDX-License-Identifier: GPL-2.0-or-later
//! All that was found in a file, in the form in which it is shown.

use crate::bodies::{Bodies, History, Pass, Runs, Section, Sent, sum};
use crate::compare::Comparison;
use crate::fault::Fault;
use crate::qemu::Stream;
use crate::replay::{Contents, GROUP};
use serde::Serialize;
use spapr_htab::inside::format::hpte::HPTE_BYTES;

/// An index and an entry.
const INDEXED_BYTES: u64 = 4 + HPTE_BYTES as u64;

/// What was found in a whole file.
#[derive(Serialize)]
pub struct Report {
    pub file: String,
    /// Bytes walked.
    pub bytes: u64,
    /// What else was in a stream of QEMU's; none for bodies alone.
    pub stream: Option<Stream>,
    pub fault: Option<Fault>,
    /// Tables that were replaced by a new one in mid-stream, and bytes of records for them.
    pub replaced: u64,
    pub replaced_bytes: u64,
    /// The table whose size was sent last.
    pub table: Option<Table>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    pub sections: Vec<Section>,
}

/// What was sent of a table.
#[derive(Serialize)]
pub struct Table {
    pub order: u32,
    pub slots: u64,
    pub groups: u64,
    pub crc32: String,
    /// Entries among the valid ones that lack their valid bit, and such with a bit set that is nobody's data.
    pub demoted: u64,
    pub private_bits: u64,
    pub total: Kind,
    pub first_pass: Kind,
    pub later_passes: Kind,
    pub stopped: Sent,
    pub passes: Vec<PassStats>,
    pub contents: Contents,
    pub map: Map,
}

/// Several passes together.
#[derive(Serialize)]
pub struct Kind {
    #[serde(flatten)]
    pub sent: Sent,
    /// Records by their number of valid entries, and of invalid slots.
    pub valid_runs: Runs,
    pub invalid_runs: Runs,
    /// The bytes that the same slots take as entries with an index each, an invalid slot as an entry of zeros.
    pub indexed_bytes: u64,
    /// The same without invalid slots.
    pub indexed_valid_bytes: u64,
}

/// One pass.
#[derive(Serialize)]
pub struct PassStats {
    #[serde(flatten)]
    pub sent: Sent,
    pub stopped: Sent,
}

/// The table in cells of equal size, from its first slot on.
#[derive(Serialize)]
pub struct Map {
    pub slots_per_cell: u64,
    /// Entries in each.
    pub entries: Vec<u64>,
    /// Slots sent after the first pass, counted each time.
    pub sent_again: Vec<u64>,
}

impl Report {
    pub fn new(
        file: String,
        bytes: u64,
        stream: Option<Stream>,
        bodies: &Bodies,
        fault: Option<Fault>,
    ) -> Report {
        Report {
            file,
            bytes,
            stream,
            fault,
            replaced: bodies.replaced,
            replaced_bytes: bodies.replaced_bytes,
            table: bodies.table.as_ref().map(Table::new),
            comparison: None,
            sections: bodies.sections.clone(),
        }
    }
}

impl Table {
    fn new(history: &History) -> Table {
        let (first, later) = history.passes.split_at(history.passes.len().min(1));
        Table {
            order: history.order.log2_bytes(),
            slots: history.order.slots(),
            groups: history.order.slots() / GROUP,
            crc32: format!("{:08x}", history.crc.value()),
            demoted: history.demoted,
            private_bits: history.private_bits,
            total: Kind::new(&history.passes),
            first_pass: Kind::new(first),
            later_passes: Kind::new(later),
            stopped: sum(history.passes.iter().map(|pass| pass.stopped)).into(),
            passes: history.passes.iter().map(PassStats::new).collect(),
            contents: Contents::of(&history.replay),
            map: Map {
                slots_per_cell: history.replay.slots_per_cell(),
                entries: history.replay.filled(),
                sent_again: history.replay.sent_again().to_vec(),
            },
        }
    }
}

impl Kind {
    fn new(passes: &[Pass]) -> Kind {
        let sent: Sent = sum(passes.iter().map(|pass| pass.tally)).into();
        Kind {
            sent,
            valid_runs: joined(passes.iter().map(|pass| &pass.valid_runs)),
            invalid_runs: joined(passes.iter().map(|pass| &pass.invalid_runs)),
            indexed_bytes: sent.slots() * INDEXED_BYTES,
            indexed_valid_bytes: sent.valid * INDEXED_BYTES,
        }
    }
}

impl PassStats {
    fn new(pass: &Pass) -> PassStats {
        PassStats { sent: pass.tally.into(), stopped: pass.stopped.into() }
    }
}

fn joined<'a>(all: impl Iterator<Item = &'a Runs>) -> Runs {
    let mut joined = Runs::new();
    for (length, records) in all.flatten() {
        *joined.entry(*length).or_default() += records;
    }
    joined
}
