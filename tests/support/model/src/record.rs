// SPDX-License-Identifier: GPL-2.0-or-later
//! Records of the HPT fd and of the stream, built and parsed independently of the library under test.
//!
//! A record is a header, then its valid entries. The kernel's header is in **host** byte order, the stream's is
//! big-endian; entries are **big-endian** in both, on every host:
//!
//! ```text
//!   0       4         6           8              24
//!   +-------+---------+-----------+--------------+------
//!   | index | n_valid | n_invalid | v (BE) r (BE)| ...     n_valid times 16 bytes
//!   +-------+---------+-----------+--------------+------
//! ```
//!
//! Sources (Linux 6.1): `Documentation/virt/kvm/api.rst` 4.78, `struct kvm_get_htab_header` in
//! `arch/powerpc/include/uapi/asm/kvm.h`; that entries are big-endian on little-endian hosts too is
//! `record_hpte` and `kvm_htab_write` in `arch/powerpc/kvm/book3s_64_mmu_hv.c`.

use std::collections::BTreeMap;

/// Bytes of a record's header.
pub const HEADER_SIZE: usize = 8;
/// Bytes of one entry.
pub const HPTE_SIZE: usize = 16;

/// `HPTE_V_VALID`.
pub const V_VALID: u64 = 0x1;
/// `HPTE_V_LARGE`: the page size is in the second doubleword.
pub const V_LARGE: u64 = 0x4;
/// `HPTE_V_BOLTED`, a software bit.
pub const V_BOLTED: u64 = 0x10;
/// `HPTE_V_ABSENT`, KVM's own: valid to the guest, not to the hardware.
pub const V_ABSENT: u64 = 0x20;
/// `HPTE_V_HVLOCK`, KVM's own lock bit. QEMU uses the same bit as its dirty bit.
pub const V_HVLOCK: u64 = 0x40;
/// `HPTE_R_R`, referenced.
pub const R_R: u64 = 0x100;
/// `HPTE_R_C`, changed.
pub const R_C: u64 = 0x80;
/// `HPTE_GR_MODIFIED`: in the revmap's copy of the second doubleword, "changed since it was last read".
pub const R_MODIFIED: u64 = 1 << 62;

/// One record, whatever the byte order it was read in.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Record {
    pub index: u32,
    /// The valid entries (v, r), from slot `index` up.
    pub valid: Vec<(u64, u64)>,
    /// How many slots after the valid ones are invalid.
    pub n_invalid: u16,
}

impl Record {
    pub fn new(index: u32, valid: &[(u64, u64)], n_invalid: u16) -> Self {
        Record { index, valid: valid.to_vec(), n_invalid }
    }

    /// (index, n_valid, n_invalid): what a case mostly compares.
    pub fn shape(&self) -> (u32, usize, u16) {
        (self.index, self.valid.len(), self.n_invalid)
    }

    /// The bytes as the kernel returns or takes them.
    ///
    /// # Panics
    /// With more than 65535 valid entries, which no record can hold.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.with_header(header(self.index, self.n_valid(), self.n_invalid))
    }

    /// The bytes as they are in a stream.
    ///
    /// # Panics
    /// With more than 65535 valid entries, which no record can hold.
    pub fn to_stream_bytes(&self) -> Vec<u8> {
        self.with_header(stream_header(self.index, self.n_valid(), self.n_invalid))
    }

    fn n_valid(&self) -> u16 {
        u16::try_from(self.valid.len()).expect("a record holds at most 65535 valid entries")
    }

    fn with_header(&self, header: [u8; HEADER_SIZE]) -> Vec<u8> {
        let mut bytes = header.to_vec();
        for (v, r) in &self.valid {
            bytes.extend_from_slice(&v.to_be_bytes());
            bytes.extend_from_slice(&r.to_be_bytes());
        }
        bytes
    }
}

/// A header as the kernel returns or takes it.
pub fn header(index: u32, n_valid: u16, n_invalid: u16) -> [u8; HEADER_SIZE] {
    join(index.to_ne_bytes(), n_valid.to_ne_bytes(), n_invalid.to_ne_bytes())
}

/// A header as it is in a stream.
pub fn stream_header(index: u32, n_valid: u16, n_invalid: u16) -> [u8; HEADER_SIZE] {
    join(index.to_be_bytes(), n_valid.to_be_bytes(), n_invalid.to_be_bytes())
}

fn join([a, b, c, d]: [u8; 4], [e, f]: [u8; 2], [g, h]: [u8; 2]) -> [u8; HEADER_SIZE] {
    [a, b, c, d, e, f, g, h]
}

/// The records back to back.
pub fn to_bytes(records: &[Record]) -> Vec<u8> {
    records.iter().flat_map(Record::to_bytes).collect()
}

/// Whose numbers a header has.
#[derive(Clone, Copy)]
enum Numbers {
    Host,
    BigEndian,
}

/// The first record's header and entries, and what is behind them.
type Split<'a> = (Record, &'a [u8], &'a [u8]);

/// Cuts off the first record, whose entries are not parsed yet.
fn split(bytes: &[u8], numbers: Numbers) -> Result<Split<'_>, String> {
    let Some((&[a, b, c, d, e, f, g, h], rest)) = bytes.split_first_chunk::<HEADER_SIZE>() else {
        return Err(format!("{} bytes where a header should be", bytes.len()));
    };
    let index = [a, b, c, d];
    let (index, [n_valid, n_invalid]) = match numbers {
        Numbers::Host => (u32::from_ne_bytes(index), [[e, f], [g, h]].map(u16::from_ne_bytes)),
        Numbers::BigEndian => (u32::from_be_bytes(index), [[e, f], [g, h]].map(u16::from_be_bytes)),
    };
    let Some((entries, rest)) = rest.split_at_checked(usize::from(n_valid) * HPTE_SIZE) else {
        return Err(format!("{} bytes where {n_valid} entries should be", rest.len()));
    };
    Ok((Record { index, valid: Vec::new(), n_invalid }, entries, rest))
}

fn take(bytes: &mut &[u8], numbers: Numbers) -> Result<Record, String> {
    let (mut record, entries, rest) = split(bytes, numbers)?;
    record.valid = entries.chunks_exact(HPTE_SIZE).map(|e| (be64(&e[..8]), be64(&e[8..]))).collect();
    *bytes = rest;
    Ok(record)
}

fn parse_all(mut bytes: &[u8], numbers: Numbers) -> Result<Vec<Record>, String> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        records.push(take(&mut bytes, numbers)?);
    }
    Ok(records)
}

/// Takes the first record off a stream.
///
/// # Errors
/// When the bytes are no whole record.
pub fn take_stream(bytes: &mut &[u8]) -> Result<Record, String> {
    take(bytes, Numbers::BigEndian)
}

/// The records that a read of the kernel's fd returned.
///
/// # Errors
/// When the bytes are not a whole number of records.
pub fn parse(bytes: &[u8]) -> Result<Vec<Record>, String> {
    parse_all(bytes, Numbers::Host)
}

/// The records of a stream, without a body's beginning and end.
///
/// # Errors
/// When the bytes are not a whole number of records.
pub fn parse_stream(bytes: &[u8]) -> Result<Vec<Record>, String> {
    parse_all(bytes, Numbers::BigEndian)
}

/// What a read of the kernel's fd returned, cut into its records: the segments of a writev.
///
/// # Errors
/// When the bytes are not a whole number of records.
pub fn cut(mut bytes: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let (_, _, rest) = split(bytes, Numbers::Host)?;
        let (record, rest) = bytes.split_at(bytes.len() - rest.len());
        records.push(record);
        bytes = rest;
    }
    Ok(records)
}

fn be64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// What a destination holds after the records it was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    pub slots: BTreeMap<u64, (u64, u64)>,
}

impl Replay {
    /// Of records that were read of the kernel's fd: entries lose the kernel's lock bit.
    pub fn apply(&mut self, record: &Record) {
        self.store(record, !V_HVLOCK);
    }

    /// Of records of a stream: entries stay as they are.
    pub fn apply_unchanged(&mut self, record: &Record) {
        self.store(record, u64::MAX);
    }

    fn store(&mut self, record: &Record, v_bits: u64) {
        let mut slot = u64::from(record.index);
        for &(v, r) in &record.valid {
            self.slots.insert(slot, (v & v_bits, r));
            slot += 1;
        }
        for _ in 0..record.n_invalid {
            self.slots.remove(&slot);
            slot += 1;
        }
    }

    /// In the form of [`crate::Vm::dump`].
    pub fn dump(&self) -> Vec<(u64, u64, u64)> {
        self.slots.iter().map(|(&slot, &(v, r))| (slot, v, r)).collect()
    }
}

/// A 4 KiB entry that every kernel accepts, another one for each `n`. It reads back as it was written on old and on
/// ISA 3.0 hardware: the virtual address stays within the 52 bits that both have.
pub fn hpte(n: u64) -> (u64, u64) {
    ((0x1000 + n) << 7 | V_VALID, (n & 0xff_ffff) << 12 | R_R | R_C | 0x12)
}

/// [`hpte`] with the bolted bit.
pub fn bolted_hpte(n: u64) -> (u64, u64) {
    let (v, r) = hpte(n);
    (v | V_BOLTED, r)
}

#[cfg(test)]
mod tests {
    use super::{Record, Replay, V_HVLOCK, cut, parse, parse_stream, to_bytes};

    const BYTES: [u8; 32] = [
        0, 0, 1, 2, 0, 1, 0, 3, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x58, 0x21, 0x22, 0x23, 0x24, 0x25,
        0x26, 0x27, 0x28, 0, 0, 0, 9, 0, 0, 0, 1,
    ];
    const ENTRY: (u64, u64) = (0x1112_1314_1516_1758, 0x2122_2324_2526_2728);

    #[test]
    fn records_of_a_stream() {
        let records = parse_stream(&BYTES).expect("whole records");
        assert_eq!(records, [Record::new(0x102, &[ENTRY], 3), Record::new(9, &[], 1)]);
        assert_eq!(records.iter().flat_map(Record::to_stream_bytes).collect::<Vec<_>>(), BYTES);
        for short in (1..8).chain(9..24).chain(25..32) {
            assert!(parse_stream(&BYTES[..short]).is_err(), "{short} bytes");
        }
    }

    #[test]
    fn records_of_the_kernel() {
        let records = [Record::new(0x102, &[ENTRY], 3), Record::new(9, &[], 1)];
        let bytes = to_bytes(&records);
        assert_eq!(parse(&bytes), Ok(records.to_vec()));
        assert_eq!(cut(&bytes), Ok(vec![&bytes[..24], &bytes[24..]]));
        assert!(cut(&bytes[..31]).is_err() && parse(&bytes[..31]).is_err());
        assert_eq!(bytes == BYTES, cfg!(target_endian = "big"));
    }

    #[test]
    fn the_lock_bit_shows_in_a_stream_only() {
        let (mut read, mut sent) = (Replay::default(), Replay::default());
        let (v, r) = ENTRY;
        let record = Record::new(7, &[(v, r)], 0);
        read.apply(&record);
        sent.apply_unchanged(&record);
        assert_eq!(read.dump(), [(7, v & !V_HVLOCK, r)]);
        assert_eq!(sent.dump(), [(7, v, r)]);
    }
}
