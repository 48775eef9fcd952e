// SPDX-License-Identifier: GPL-2.0-or-later
//! The bodies of `spapr/htab`, read by the library's own parser, and what is kept of them.

use crate::fault::Fault;
use crate::input::Input;
use crate::replay::Replay;
use serde::Serialize;
use spapr_htab::inside::error::Error;
use spapr_htab::inside::format::hpte::{HPTE_BYTES, Hpte, Order, V_DIRTY};
use spapr_htab::inside::format::record::{RecordHeader, Tally};
use spapr_htab::inside::format::section::{self, BodyHeader};
use spapr_htab::inside::load::batch::Batch;
use spapr_htab::inside::load::read_records;
use spapr_htab::inside::load::section_reader::SectionReader;
use spapr_htab::inside::load::sink::Sink;
use spapr_htab::inside::stats::RecordCrc;
use std::collections::BTreeMap;

/// Which part of its section a body is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Sent when the migration begins.
    First,
    /// Sent while the guest runs.
    Live,
    /// Sent when the guest has been stopped.
    Last,
    /// Of a dump of bodies, which does not say.
    Unknown,
}

/// What a body says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    NoTable,
    Table(u32),
    Records,
}

/// One body.
#[derive(Clone, Debug, Serialize)]
pub struct Section {
    /// Where in the file the body begins.
    pub offset: u64,
    pub part: Part,
    pub what: What,
    #[serde(flatten)]
    pub sent: Sent,
}

/// What some records hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Sent {
    pub valid: u64,
    pub invalid: u64,
    pub records: u64,
    pub bytes: u64,
}

impl From<Tally> for Sent {
    fn from(tally: Tally) -> Sent {
        Sent { valid: tally.valid, invalid: tally.invalid, records: tally.records, bytes: tally.bytes }
    }
}

impl Sent {
    pub fn slots(self) -> u64 {
        self.valid + self.invalid
    }
}

/// How many records have a run of each length.
pub type Runs = BTreeMap<u16, u64>;

/// Records with rising slots: a sweep over the table, as far as the stream shows it.
#[derive(Clone, Default)]
pub struct Pass {
    pub tally: Tally,
    /// Of it, what was sent with the guest stopped.
    pub stopped: Tally,
    pub valid_runs: Runs,
    pub invalid_runs: Runs,
}

/// What was sent of a table since its size was.
pub struct History {
    pub order: Order,
    pub crc: RecordCrc,
    pub passes: Vec<Pass>,
    /// Entries without their valid bit among the valid ones.
    pub demoted: u64,
    /// Entries with bit 0x40, which is nobody's data.
    pub private_bits: u64,
    pub replay: Replay,
    /// The slot behind the last record's.
    sent_up_to: u64,
}

/// All bodies of a file.
#[derive(Default)]
pub struct Bodies {
    pub sections: Vec<Section>,
    /// The table whose size was sent last.
    pub table: Option<History>,
    /// Bytes of records for tables that were replaced.
    pub replaced_bytes: u64,
    /// How often that happened.
    pub replaced: u64,
}

impl Bodies {
    /// Reads one body.
    pub fn read(&mut self, input: &mut Input, version: u32, part: Part) -> Result<(), Fault> {
        let offset = input.offset();
        let mut body = SectionReader::new(input);
        let mut tally = Tally::default();
        let result = if i64::from(version) == i64::from(section::VERSION) {
            body.header().and_then(|header| self.body(&mut body, header, part, &mut tally))
        } else {
            Err(Error::Version(i32::try_from(version).unwrap_or(i32::MAX)))
        };
        match result {
            Ok(what) => {
                self.sections.push(Section { offset, part, what, sent: tally.into() });
                Ok(())
            }
            Err(error) => Err(Fault::new(offset + body.place().offset, error.to_string())),
        }
    }

    fn body(
        &mut self,
        body: &mut SectionReader<'_>,
        header: BodyHeader,
        part: Part,
        tally: &mut Tally,
    ) -> Result<What, Error> {
        match header {
            BodyHeader::NoTable => {
                self.replace(None);
                Ok(What::NoTable)
            }
            BodyHeader::Table(order) => {
                self.replace(Some(History::new(order)));
                Ok(What::Table(order.log2_bytes()))
            }
            BodyHeader::Records => {
                let table = self.table.as_mut();
                let open = |place, header| {
                    table.map(|table| (table.order, table)).ok_or(Error::NoTable(place, header))
                };
                let mut batch = Batch::default();
                let table =
                    read_records(body, &mut batch, open, |table, batch| table.take(batch, part, tally))?;
                if let Some(table) = table {
                    table.take(&mut batch, part, tally)?;
                }
                Ok(What::Records)
            }
        }
    }

    fn replace(&mut self, new: Option<History>) {
        if let Some(old) = std::mem::replace(&mut self.table, new) {
            self.replaced += 1;
            self.replaced_bytes += old.total().bytes;
        }
    }
}

impl History {
    fn new(order: Order) -> History {
        History {
            order,
            crc: RecordCrc::default(),
            passes: Vec::new(),
            demoted: 0,
            private_bits: 0,
            replay: Replay::new(order),
            sent_up_to: 0,
        }
    }

    fn take(&mut self, batch: &mut Batch, part: Part, tally: &mut Tally) -> Result<(), Error> {
        for record in batch.records() {
            tally.count(record.header);
            self.count(record.header, part);
            let entries = &batch.bytes()[record.entries()..record.end()];
            let marked = |entry: &&[u8]| {
                (*entry).try_into().is_ok_and(|entry| Hpte::from_be_bytes(entry).v & V_DIRTY != 0)
            };
            self.private_bits += entries.chunks_exact(HPTE_BYTES).filter(marked).count() as u64;
        }
        self.crc.update(batch.bytes());
        self.demoted += batch.scrub()?;
        self.replay.load(batch)
    }

    fn count(&mut self, header: RecordHeader, part: Part) {
        if self.passes.is_empty() || u64::from(header.index) < self.sent_up_to {
            self.passes.push(Pass::default());
        }
        self.sent_up_to = header.end();
        if self.passes.len() > 1 {
            self.replay.count_again(header);
        }
        let Some(pass) = self.passes.last_mut() else { return };
        pass.tally.count(header);
        if part == Part::Last {
            pass.stopped.count(header);
        }
        *pass.valid_runs.entry(header.n_valid).or_default() += 1;
        *pass.invalid_runs.entry(header.n_invalid).or_default() += 1;
    }

    /// All that was sent.
    pub fn total(&self) -> Tally {
        sum(self.passes.iter().map(|pass| pass.tally))
    }
}

/// Of several.
pub fn sum(tallies: impl Iterator<Item = Tally>) -> Tally {
    tallies.fold(Tally::default(), |mut all, tally| {
        all += tally;
        all
    })
}
