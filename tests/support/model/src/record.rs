// SPDX-License-Identifier: GPL-2.0-or-later
//! Records of the HPT fd, built and parsed independently of the library under test.
//!
//! A record is a header in **host** byte order, then its valid entries, **big-endian** on every host:
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
        let n_valid = u16::try_from(self.valid.len()).expect("a record holds at most 65535 valid entries");
        let mut bytes = header(self.index, n_valid, self.n_invalid).to_vec();
        for (v, r) in &self.valid {
            bytes.extend_from_slice(&v.to_be_bytes());
            bytes.extend_from_slice(&r.to_be_bytes());
        }
        bytes
    }
}

/// A header as the kernel returns or takes it.
pub fn header(index: u32, n_valid: u16, n_invalid: u16) -> [u8; HEADER_SIZE] {
    let mut bytes = [0; HEADER_SIZE];
    bytes[..4].copy_from_slice(&index.to_ne_bytes());
    bytes[4..6].copy_from_slice(&n_valid.to_ne_bytes());
    bytes[6..].copy_from_slice(&n_invalid.to_ne_bytes());
    bytes
}

/// The records back to back.
pub fn to_bytes(records: &[Record]) -> Vec<u8> {
    records.iter().flat_map(Record::to_bytes).collect()
}

/// Takes what a read returned apart.
///
/// # Errors
/// When the bytes are not a whole number of records.
pub fn parse(mut bytes: &[u8]) -> Result<Vec<Record>, String> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let Some((head, rest)) = bytes.split_at_checked(HEADER_SIZE) else {
            return Err(format!("{} bytes where a header should be", bytes.len()));
        };
        let index = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]);
        let n_valid = usize::from(u16::from_ne_bytes([head[4], head[5]]));
        let n_invalid = u16::from_ne_bytes([head[6], head[7]]);
        let Some((entries, rest)) = rest.split_at_checked(n_valid * HPTE_SIZE) else {
            return Err(format!("{} bytes where {n_valid} entries should be", rest.len()));
        };
        let valid = entries.chunks_exact(HPTE_SIZE).map(|e| (be64(&e[..8]), be64(&e[8..]))).collect();
        records.push(Record { index, valid, n_invalid });
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
    /// Stores the valid entries without the kernel's lock bit, and empties the invalid slots.
    pub fn apply(&mut self, record: &Record) {
        let mut slot = u64::from(record.index);
        for &(v, r) in &record.valid {
            self.slots.insert(slot, (v & !V_HVLOCK, r));
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
