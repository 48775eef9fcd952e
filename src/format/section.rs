// SPDX-License-Identifier: GPL-2.0-or-later
//! The bodies of the `spapr/htab` sections: what stands between QEMU's section headers and footers.
//!
//! ```text
//! body      be32 0xffffffff                        the guest has no hash table
//!         | be32 18..=36                           a new, empty table of this order
//!         | be32 0, record*, END                   records for the table there is
//! record    be32 index, be16 n_valid, be16 n_invalid, n_valid * 16 bytes
//! END       eight zero bytes
//! ```
//!
//! Source: `htab_save_setup`, `htab_save_iterate`, `htab_save_complete` and `htab_load` in hw/ppc/spapr.c of QEMU 7.2
//! to 10.2, which agree.

use crate::format::hpte::Order;

/// The section's only version.
pub const VERSION: i32 = 1;
/// Bytes of what a body begins with.
pub const BODY_HEADER_BYTES: usize = 4;
const NO_TABLE: u32 = u32::MAX;
const RECORDS: u32 = 0;

/// How a body begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyHeader {
    /// The guest has no hash table.
    NoTable,
    /// The guest has a table of this order; it starts out empty.
    Table(Order),
    /// Records follow, up to [`crate::format::record::RecordHeader::END`].
    Records,
}

impl BodyHeader {
    /// # Errors
    /// A number that is none of the three.
    pub fn parse(bytes: [u8; BODY_HEADER_BYTES]) -> Result<BodyHeader, u32> {
        match u32::from_be_bytes(bytes) {
            NO_TABLE => Ok(BodyHeader::NoTable),
            RECORDS => Ok(BodyHeader::Records),
            order => Order::new(order).map(BodyHeader::Table).ok_or(order),
        }
    }

    /// The inverse of [`BodyHeader::parse`].
    #[must_use]
    pub fn to_bytes(self) -> [u8; BODY_HEADER_BYTES] {
        match self {
            BodyHeader::NoTable => NO_TABLE,
            BodyHeader::Table(order) => order.log2_bytes(),
            BodyHeader::Records => RECORDS,
        }
        .to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_begins_in_one_of_three_ways() {
        for header in [BodyHeader::NoTable, BodyHeader::Table(Order::MIN), BodyHeader::Records] {
            assert_eq!(BodyHeader::parse(header.to_bytes()), Ok(header));
        }
        assert_eq!(BodyHeader::Table(Order::MAX).to_bytes(), [0, 0, 0, 36]);
        for order in [1, 17, 37, 46, 64, 0xffff_fffe] {
            assert_eq!(BodyHeader::parse(u32::to_be_bytes(order)), Err(order));
        }
    }
}
