// SPDX-License-Identifier: GPL-2.0-or-later
//! Records: valid entries in consecutive slots, followed by invalid slots.
//!
//! ```text
//!            0        4         6           8                        8 + 16 * n_valid
//!            +--------+---------+-----------+------------------------+
//!            | index  | n_valid | n_invalid | n_valid HPTEs, 16 each |
//!            +--------+---------+-----------+------------------------+
//! kernel       host     host      host        big-endian
//! stream       be32     be16      be16        big-endian
//! ```
//!
//! The kernel's form is `struct kvm_get_htab_header` (Linux 6.1, arch/powerpc/include/uapi/asm/kvm.h), the stream's is
//! `htab_save_chunk` (QEMU 7.2, hw/ppc/spapr.c). On a big-endian host both look the same.

use crate::format::hpte::{self, HPTE_BYTES, Hpte, Order};

/// Bytes of a record's header, in both forms.
pub const HEADER_BYTES: usize = 8;
/// Most valid entries in a record that this library puts on the wire. A QEMU 7.2 destination under KVM copies a record
/// onto a coroutine's stack of 1 MiB, which 65,535 entries would overrun; this many take an eighth of it.
pub const MAX_WIRE_VALID: u16 = 8192;

/// A record's header: which slots the record is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RecordHeader {
    /// The first slot.
    pub index: u32,
    /// Slots from `index` on whose entries follow the header.
    pub n_valid: u16,
    /// Slots after those that are invalid.
    pub n_invalid: u16,
}

impl RecordHeader {
    /// The record that ends a section's body: no slot at index 0.
    pub const END: RecordHeader = RecordHeader { index: 0, n_valid: 0, n_invalid: 0 };

    /// Reads the kernel's form, in host byte order.
    #[must_use]
    pub fn from_kernel(bytes: [u8; HEADER_BYTES]) -> RecordHeader {
        let [a, b, c, d, e, f, g, h] = bytes;
        RecordHeader {
            index: u32::from_ne_bytes([a, b, c, d]),
            n_valid: u16::from_ne_bytes([e, f]),
            n_invalid: u16::from_ne_bytes([g, h]),
        }
    }

    /// The inverse of [`RecordHeader::from_kernel`].
    #[must_use]
    pub fn to_kernel(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.index.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.n_valid.to_ne_bytes());
        bytes[6..].copy_from_slice(&self.n_invalid.to_ne_bytes());
        bytes
    }

    /// Reads the stream's form, big-endian.
    #[must_use]
    pub fn from_stream(bytes: [u8; HEADER_BYTES]) -> RecordHeader {
        let [a, b, c, d, e, f, g, h] = bytes;
        RecordHeader {
            index: u32::from_be_bytes([a, b, c, d]),
            n_valid: u16::from_be_bytes([e, f]),
            n_invalid: u16::from_be_bytes([g, h]),
        }
    }

    /// The inverse of [`RecordHeader::from_stream`].
    #[must_use]
    pub fn to_stream(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.index.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.n_valid.to_be_bytes());
        bytes[6..].copy_from_slice(&self.n_invalid.to_be_bytes());
        bytes
    }

    /// The first slot after the record's, up to 2^32 + 131,069.
    #[must_use]
    pub fn end(self) -> u64 {
        u64::from(self.index) + u64::from(self.n_valid) + u64::from(self.n_invalid)
    }

    /// Bytes of the entries that follow the header.
    #[must_use]
    pub fn payload_bytes(self) -> usize {
        usize::from(self.n_valid) * HPTE_BYTES
    }

    /// This record and the one after it as one, if they touch and no valid entry follows an invalid slot.
    #[must_use]
    pub fn join(self, next: RecordHeader) -> Option<RecordHeader> {
        if self.end() != u64::from(next.index) || (next.n_valid > 0 && self.n_invalid > 0) {
            return None;
        }
        let n_valid = self.n_valid.checked_add(next.n_valid)?;
        let n_invalid = self.n_invalid.checked_add(next.n_invalid)?;
        Some(RecordHeader { n_valid, n_invalid, ..self })
    }

    /// Whether every slot exists in a table of this order.
    #[must_use]
    pub fn fits(self, order: Order) -> bool {
        self.end() <= order.slots()
    }
}

/// The records of one read of the kernel's fd, each checked before it is handed out. Ends after the first that is
/// wrong.
pub struct KernelRecords<'a> {
    rest: &'a mut [u8],
    /// The table's.
    slots: u64,
    /// Where the record before this one ended; for the first record, where the read began.
    end: u64,
    gapless: bool,
}

/// One record of the kernel's.
pub struct KernelRecord<'a> {
    /// Its header.
    pub header: RecordHeader,
    place: &'a mut [u8; HEADER_BYTES],
    entries: &'a mut [u8],
}

/// A record of the kernel's that makes no sense for its table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrongRecord {
    /// What the record claims.
    pub header: RecordHeader,
    /// What is wrong with it.
    pub why: &'static str,
}

impl<'a> KernelRecords<'a> {
    /// `bytes` are what a read gave that began at slot `from`. With `gapless` each record must begin where the one
    /// before it ended, as in a first pass; later passes leave out slots that did not change.
    #[must_use]
    pub fn new(bytes: &'a mut [u8], order: Order, from: u64, gapless: bool) -> KernelRecords<'a> {
        KernelRecords { rest: bytes, slots: order.slots(), end: from, gapless }
    }

    #[inline]
    fn makes_sense(&self, header: RecordHeader) -> bool {
        let (index, end) = (u64::from(header.index), header.end());
        let in_order = if self.gapless { index == self.end } else { index >= self.end };
        // A record of no slots could be the one that ends a body in the stream.
        in_order && index < end && end <= self.slots
    }

    #[cold]
    fn wrong(&self, header: RecordHeader) -> WrongRecord {
        let index = u64::from(header.index);
        let why = if header.end() > self.slots {
            "it names slots outside the table"
        } else if index < self.end {
            "it goes backwards"
        } else if index == header.end() {
            "it names no slots"
        } else {
            "it leaves out the slots before it"
        };
        WrongRecord { header, why }
    }
}

impl<'a> Iterator for KernelRecords<'a> {
    type Item = Result<KernelRecord<'a>, WrongRecord>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.rest);
        if bytes.is_empty() {
            return None;
        }
        let Some((place, bytes)) = bytes.split_first_chunk_mut() else {
            return Some(Err(WrongRecord { header: RecordHeader::END, why: "its header is cut short" }));
        };
        let header = RecordHeader::from_kernel(*place);
        if !self.makes_sense(header) {
            return Some(Err(self.wrong(header)));
        }
        let Some((entries, rest)) = bytes.split_at_mut_checked(header.payload_bytes()) else {
            return Some(Err(WrongRecord { header, why: "its entries are cut short" }));
        };
        self.rest = rest;
        self.end = header.end();
        Some(Ok(KernelRecord { header, place, entries }))
    }
}

impl<'a> KernelRecord<'a> {
    /// Turns the record into the stream's form where it stands, and returns its entries.
    #[inline]
    pub fn into_stream(self) -> &'a [u8] {
        *self.place = self.header.to_stream();
        hpte::scrub(self.entries);
        self.entries
    }
}

/// What some records hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Records, those that end a body left out.
    pub records: u64,
    /// Entries sent as valid.
    pub valid: u64,
    /// Slots sent as invalid.
    pub invalid: u64,
    /// Bytes of headers and entries.
    pub bytes: u64,
}

impl Tally {
    /// One more record.
    pub fn count(&mut self, record: RecordHeader) {
        self.records += 1;
        self.valid += u64::from(record.n_valid);
        self.invalid += u64::from(record.n_invalid);
        self.bytes += (HEADER_BYTES + record.payload_bytes()) as u64;
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, more: Tally) {
        self.records += more.records;
        self.valid += more.valid;
        self.invalid += more.invalid;
        self.bytes += more.bytes;
    }
}

/// Builds stream records in a buffer, slot by slot, joining neighbours.
///
/// The caller asks [`RecordBuilder::has_room`] before each slot.
pub struct RecordBuilder<'a> {
    buf: &'a mut [u8],
    len: usize,
    open: Option<(usize, RecordHeader)>,
    tally: Tally,
}

impl<'a> RecordBuilder<'a> {
    /// Starts with an empty buffer.
    pub fn new(buf: &'a mut [u8]) -> RecordBuilder<'a> {
        RecordBuilder { buf, len: 0, open: None, tally: Tally::default() }
    }

    /// Whether one more slot fits, whatever it is.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.buf.len() - self.len >= HEADER_BYTES + HPTE_BYTES
    }

    /// Adds a valid entry. Slots come in ascending order.
    pub fn valid(&mut self, slot: u32, entry: Hpte) {
        match &mut self.open {
            Some((_, header))
                if header.end() == u64::from(slot)
                    && header.n_invalid == 0
                    && header.n_valid < MAX_WIRE_VALID =>
            {
                header.n_valid += 1;
            }
            _ => self.start(RecordHeader { index: slot, n_valid: 1, n_invalid: 0 }),
        }
        self.buf[self.len..self.len + HPTE_BYTES].copy_from_slice(&entry.to_be_bytes());
        self.len += HPTE_BYTES;
    }

    /// Adds an invalid slot.
    pub fn invalid(&mut self, slot: u32) {
        match &mut self.open {
            Some((_, header)) if header.end() == u64::from(slot) && header.n_invalid < u16::MAX => {
                header.n_invalid += 1;
            }
            _ => self.start(RecordHeader { index: slot, n_valid: 0, n_invalid: 1 }),
        }
    }

    /// Ends the last record; `buf[..tally.bytes]` is what was built.
    #[must_use]
    pub fn finish(mut self) -> Tally {
        self.close();
        self.tally
    }

    fn start(&mut self, header: RecordHeader) {
        self.close();
        self.open = Some((self.len, header));
        self.len += HEADER_BYTES;
    }

    fn close(&mut self) {
        if let Some((at, header)) = self.open.take() {
            self.buf[at..at + HEADER_BYTES].copy_from_slice(&header.to_stream());
            self.tally.count(header);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_headers_are_big_endian_and_kernel_headers_are_the_hosts() {
        let header = RecordHeader { index: 0x0102_0304, n_valid: 0x0506, n_invalid: 0x0708 };
        assert_eq!(header.to_stream(), [1, 2, 3, 4, 5, 6, 7, 8]);
        let kernel = header.to_kernel();
        assert_eq!(kernel[..4], 0x0102_0304_u32.to_ne_bytes());
        assert_eq!(kernel[4..6], 0x0506_u16.to_ne_bytes());
        assert_eq!(RecordHeader::from_kernel(kernel), header);
    }

    #[test]
    fn the_bound_is_taken_in_64_bits() {
        let last = RecordHeader { index: u32::MAX, n_valid: 1, n_invalid: 0 };
        assert!(last.fits(Order::MAX));
        assert!(!RecordHeader { n_invalid: 1, ..last }.fits(Order::MAX));
        assert!(!last.fits(Order::MIN));
    }

    #[test]
    fn neighbours_share_a_record_up_to_the_wires_limit() {
        let many = u32::from(MAX_WIRE_VALID) + 2;
        let valid = u64::from(many);
        let mut buf = vec![0; many as usize * HPTE_BYTES + 64];
        let mut build = RecordBuilder::new(&mut buf);
        for slot in 0..many {
            build.valid(slot, Hpte { v: 1, r: u64::from(slot) });
        }
        build.invalid(many);
        build.invalid(many + 2);
        assert_eq!(build.finish(), Tally { records: 3, valid, invalid: 2, bytes: 24 + valid * 16 });
        let longest = RecordHeader { index: 0, n_valid: MAX_WIRE_VALID, n_invalid: 0 };
        assert_eq!(buf[..8], longest.to_stream());
        let mut build = RecordBuilder::new(&mut buf);
        (0..=65_535).for_each(|slot| build.invalid(slot));
        assert_eq!(build.finish(), Tally { records: 2, valid: 0, invalid: 65_536, bytes: 16 });
    }

    #[test]
    fn there_is_room_for_as_much_as_one_more_slot_takes() {
        let mut buf = [0; 2 * HPTE_BYTES + HEADER_BYTES];
        let mut build = RecordBuilder::new(&mut buf);
        build.valid(0, Hpte::default());
        assert!(!build.has_room());
        let mut buf = [0; 2 * (HPTE_BYTES + HEADER_BYTES)];
        let mut build = RecordBuilder::new(&mut buf);
        build.valid(0, Hpte::default());
        assert!(build.has_room());
    }

    #[test]
    fn records_join_that_touch_unless_entries_would_follow_invalid_slots() {
        let of = |index, n_valid, n_invalid| RecordHeader { index, n_valid, n_invalid };
        assert_eq!(of(5, 2, 0).join(of(7, 1, 3)), Some(of(5, 3, 3)));
        assert_eq!(of(5, 2, 1).join(of(8, 0, 3)), Some(of(5, 2, 4)));
        assert_eq!(of(5, 2, 1).join(of(8, 1, 0)), None);
        assert_eq!(of(5, 2, 0).join(of(8, 1, 0)), None);
        assert_eq!(of(0, u16::MAX, 0).join(of(65_535, 1, 0)), None);
    }
}
