// SPDX-License-Identifier: GPL-2.0-or-later
//! The hashed page table (HPT) and its 16-byte entries (HPTEs), as Power ISA 2.07 and QEMU know them.

/// Bytes of one HPTE.
pub const HPTE_BYTES: usize = 16;
/// First doubleword: the entry is valid. QEMU `HPTE64_V_VALID`, Linux `HPTE_V_VALID`.
pub const V_VALID: u64 = 0x1;
/// First doubleword: QEMU's own mark "changed since it was last sent" (`HPTE64_V_HPTE_DIRTY`, hw/ppc/spapr.c).
/// A software bit of the architecture; it means nothing outside the QEMU that set it and never goes on the wire.
pub const V_DIRTY: u64 = 0x40;

/// A table's size as the base-2 logarithm of its bytes.
///
/// Only the sizes that a stream can carry exist as a value of this type: 18 (the architecture's smallest table) to 36
/// (a slot's index on the wire and in the kernel's records has 32 bits).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Order(u8);

impl Order {
    /// The smallest table, 256 KiB.
    pub const MIN: Order = Order(18);
    /// The largest table, 64 GiB: 2^32 slots.
    pub const MAX: Order = Order(36);

    /// `None` outside 18..=36.
    #[must_use]
    pub fn new(log2_bytes: u32) -> Option<Order> {
        u8::try_from(log2_bytes).ok().filter(|order| (Order::MIN.0..=Order::MAX.0).contains(order)).map(Order)
    }

    /// The logarithm itself.
    #[must_use]
    pub fn log2_bytes(self) -> u32 {
        u32::from(self.0)
    }

    /// Bytes of the table.
    #[must_use]
    pub fn bytes(self) -> u64 {
        1 << self.0
    }

    /// Slots (HPTEs) of the table.
    #[must_use]
    pub fn slots(self) -> u64 {
        1 << (self.0 - 4)
    }
}

/// Where an entry is in its table, counted in entries from the start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Slot(pub u64);

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One entry's two doublewords in the host's byte order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hpte {
    /// First doubleword: the virtual page number and the valid bit.
    pub v: u64,
    /// Second doubleword: the real page number, protection, reference and change bits.
    pub r: u64,
}

impl Hpte {
    /// Whether the entry translates anything.
    #[must_use]
    pub fn is_valid(self) -> bool {
        self.v & V_VALID != 0
    }

    /// Reads an entry as it stands in a table, on the wire and in kernel records: big-endian everywhere.
    #[must_use]
    pub fn from_be_bytes(bytes: [u8; HPTE_BYTES]) -> Hpte {
        let word = |half: &[u8]| half.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
        let (v, r) = bytes.split_at(HPTE_BYTES / 2);
        Hpte { v: word(v), r: word(r) }
    }

    /// The inverse of [`Hpte::from_be_bytes`].
    #[must_use]
    pub fn to_be_bytes(self) -> [u8; HPTE_BYTES] {
        (u128::from(self.v) << 64 | u128::from(self.r)).to_be_bytes()
    }
}

/// The byte of a big-endian entry that holds the first doubleword's low bits.
const V_LOW_BYTE: usize = 7;

/// Clears bit 0x40 of the first doubleword of each entry, and returns whether all of them are valid.
///
/// The bit is nobody's but its owner's: in QEMU's memory it means dirty, in what the kernel reports it is the lock that
/// the kernel held while it read the entry (`HPTE_V_HVLOCK`, always set).
pub fn scrub(entries: &mut [u8]) -> bool {
    const VALID: u8 = V_VALID.to_be_bytes()[V_LOW_BYTE];
    const DIRTY: u8 = V_DIRTY.to_be_bytes()[V_LOW_BYTE];
    let mut all = VALID;
    for entry in entries.chunks_exact_mut(HPTE_BYTES) {
        entry[V_LOW_BYTE] &= !DIRTY;
        all &= entry[V_LOW_BYTE];
    }
    all != 0
}

/// Whether a big-endian entry is valid.
#[must_use]
pub fn is_valid(entry: &[u8]) -> bool {
    entry.get(V_LOW_BYTE).is_some_and(|low| u64::from(*low) & V_VALID != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_outside_the_wire_format_do_not_exist() {
        for order in [0, 1, 6, 7, 17, 37, 46, 64, 255, 256, 256 + 24, u32::MAX] {
            assert!(Order::new(order).is_none(), "order {order}");
        }
        for order in 18..=36 {
            assert_eq!(Order::new(order).unwrap().slots() * 16, Order::new(order).unwrap().bytes());
        }
        assert_eq!(Order::MAX.slots(), 1 << 32);
    }

    #[test]
    fn an_entry_is_big_endian_first_doubleword_first() {
        let bytes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        let entry = Hpte::from_be_bytes(bytes);
        assert_eq!(entry, Hpte { v: 0x0001_0203_0405_0607, r: 0x0809_0a0b_0c0d_0e0f });
        assert_eq!(entry.to_be_bytes(), bytes);
        assert!(entry.is_valid() && !Hpte { v: !V_VALID, r: u64::MAX }.is_valid());
    }
}
