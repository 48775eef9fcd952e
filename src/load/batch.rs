// SPDX-License-Identifier: GPL-2.0-or-later
//! Records on their way from a stream into a table: many at a time, where they were read, never copied.

use crate::error::{Error, reserve};
use crate::format::hpte::{self, HPTE_BYTES};
use crate::format::record::{HEADER_BYTES, RecordHeader};

/// Bytes gathered before they are handed over. A record that others join may reach 1 MiB more.
const FULL_BYTES: usize = 256 << 10;
/// Records gathered before they are handed over: as many as one system call takes.
const FULL_RECORDS: usize = 1024;
/// Room to begin with: a body of a later pass is small.
const LEAST_BYTES: usize = 4 << 10;
const WHAT: &str = "records on their way in";

/// A record among a batch's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// What it speaks of.
    pub header: RecordHeader,
    /// Where its header is. Its entries stand behind it; the header's own bytes are anyone's.
    pub start: usize,
}

impl Record {
    /// Where its entries begin.
    #[must_use]
    pub fn entries(self) -> usize {
        self.start + HEADER_BYTES
    }

    /// Where its entries end.
    #[must_use]
    pub fn end(self) -> usize {
        self.entries() + self.header.payload_bytes()
    }
}

/// Records back to back as they stand in the stream, and the header of the one after them.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Bytes of the records, the last header left out.
    len: usize,
    records: Vec<Record>,
    /// The last record, with those before it that join it.
    last: RecordHeader,
    /// Some join.
    touching: bool,
}

impl Batch {
    /// One record; `entry` is its entry, if it has a valid one.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn of(header: RecordHeader, entry: [u8; HPTE_BYTES]) -> Result<Batch, Error> {
        let mut batch = Batch::default();
        batch.room(header)?[..header.payload_bytes()].copy_from_slice(&entry[..header.payload_bytes()]);
        batch.push(header)?;
        Ok(batch)
    }

    /// Where a body's first header goes: behind the records that there are.
    pub fn first_header(&mut self) -> &mut [u8] {
        // A batch with records has had a header behind them before.
        let len = self.bytes.len().max(LEAST_BYTES);
        self.bytes.resize(len, 0);
        &mut self.bytes[self.len..self.len + HEADER_BYTES]
    }

    /// The header behind the records.
    #[must_use]
    pub fn header(&self) -> RecordHeader {
        let bytes = &self.bytes[self.len..self.len + HEADER_BYTES];
        RecordHeader::from_stream(bytes.try_into().unwrap_or_default())
    }

    /// Whether the records should go before this one is read.
    #[must_use]
    pub fn is_full(&self, next: RecordHeader) -> bool {
        if self.records.len() < FULL_RECORDS && self.len < FULL_BYTES {
            return false;
        }
        // Records of no slots could join for ever.
        next.end() == u64::from(next.index) || self.last.join(next).is_none()
    }

    /// Where the entries of the record go whose header this is, and the header after them.
    ///
    /// # Errors
    /// [`Error::Memory`].
    #[inline]
    pub fn room(&mut self, header: RecordHeader) -> Result<&mut [u8], Error> {
        let begin = self.len + HEADER_BYTES;
        let end = begin + header.payload_bytes() + HEADER_BYTES;
        if end > self.bytes.len() {
            self.grow(end)?;
        }
        Ok(&mut self.bytes[begin..end])
    }

    #[cold]
    fn grow(&mut self, least: usize) -> Result<(), Error> {
        let len = least.max(self.bytes.len() * 2);
        let missing = len - self.bytes.len();
        reserve(&mut self.bytes, missing, WHAT)?;
        self.bytes.resize(len, 0);
        Ok(())
    }

    #[cold]
    fn grow_records(&mut self) -> Result<(), Error> {
        reserve(&mut self.records, 1, WHAT)
    }

    /// The record's entries and the next header are there.
    ///
    /// # Errors
    /// [`Error::Memory`].
    #[inline]
    pub fn push(&mut self, header: RecordHeader) -> Result<(), Error> {
        if self.records.len() == self.records.capacity() {
            self.grow_records()?;
        }
        let joined = self.last.join(header);
        self.touching |= joined.is_some();
        self.last = joined.unwrap_or(header);
        self.records.push(Record { header, start: self.len });
        self.len += HEADER_BYTES + header.payload_bytes();
        Ok(())
    }

    /// The bytes of the records as they stand in the stream.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The records.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The records, to be changed where they stand.
    pub fn parts(&mut self) -> (&mut [u8], &[Record]) {
        (&mut self.bytes[..self.len], &self.records)
    }

    /// Makes one record of those that touch.
    pub fn join(&mut self) {
        if !std::mem::take(&mut self.touching) {
            return;
        }
        let bytes = &mut self.bytes;
        // Keeps those that begin a record, and lengthens them by those that it leaves out.
        self.records.dedup_by(|record, last| match last.header.join(record.header) {
            Some(header) => {
                // Over its own header.
                bytes.copy_within(record.entries()..record.end(), last.end());
                last.header = header;
                true
            }
            None => false,
        });
    }

    /// Forgets the records; the header behind them is now the first.
    pub fn clear(&mut self) {
        self.bytes.copy_within(self.len..self.len + HEADER_BYTES, 0);
        self.len = 0;
        self.records.clear();
        self.last = RecordHeader::default();
        self.touching = false;
    }

    /// Clears what is nobody's data in the entries, and turns those that are not valid into invalid slots. Returns how
    /// many.
    ///
    /// A QEMU whose vCPUs changed entries while it sent them (TCG without this library) may have counted an entry as
    /// valid that is not. It sends such a slot again later.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn scrub(&mut self) -> Result<u64, Error> {
        let mut clean = true;
        for record in &self.records {
            clean &= hpte::scrub(&mut self.bytes[record.entries()..record.end()]);
        }
        if clean { Ok(0) } else { self.demote() }
    }

    fn demote(&mut self) -> Result<u64, Error> {
        let mut demoted = 0;
        for whole in std::mem::take(&mut self.records) {
            // One for each entry and one for the slots after them, at the most.
            reserve(&mut self.records, usize::from(whole.header.n_valid) + 2, WHAT)?;
            let RecordHeader { index, n_invalid, .. } = whole.header;
            let mut part = Record { header: RecordHeader { index, ..RecordHeader::default() }, ..whole };
            let entries = self.bytes[whole.entries()..whole.end()].chunks_exact(HPTE_BYTES);
            for ((at, entry), index) in (whole.start..).step_by(HPTE_BYTES).zip(entries).zip(index..=u32::MAX)
            {
                if !hpte::is_valid(entry) {
                    demoted += 1;
                    part.header.n_invalid += 1;
                } else if part.header.n_invalid == 0 {
                    part.header.n_valid += 1;
                } else {
                    self.records.push(part);
                    // The header's place is in the entry before this one, which is not valid.
                    part = Record { header: RecordHeader { index, n_valid: 1, n_invalid: 0 }, start: at };
                }
            }
            match part.header.n_invalid.checked_add(n_invalid) {
                Some(both) => part.header.n_invalid = both,
                None => {
                    self.records.push(part);
                    let index = u32::try_from(part.header.end()).unwrap_or(u32::MAX);
                    part = Record {
                        header: RecordHeader { index, n_valid: 0, n_invalid },
                        start: whole.end() - HEADER_BYTES,
                    };
                }
            }
            self.records.push(part);
        }
        Ok(demoted)
    }
}
