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

use crate::error::{Errno, Error, Place};
use crate::hpte::Order;
use crate::record::{Extent, HEADER_BYTES};

/// The section's only version.
pub const VERSION: i32 = 1;
/// Bytes of what a body begins with.
const BODY_HEADER_BYTES: usize = 4;
const NO_TABLE: u32 = u32::MAX;
const RECORDS: u32 = 0;

/// Where a save's bytes go.
pub trait Put {
    /// Takes all of `bytes` before it returns, or fails for good.
    ///
    /// # Errors
    /// The stream's errno.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Errno>;

    /// Whether this round's share of the bandwidth is used up.
    fn rate_limited(&mut self) -> bool;
}

/// Where a load's bytes come from.
pub trait Get {
    /// Reads at least one byte and up to `bytes.len()`, and tells how many; 0 means that the stream has ended.
    ///
    /// # Errors
    /// The stream's errno.
    fn get(&mut self, bytes: &mut [u8]) -> Result<usize, Errno>;
}

/// How a body begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyHeader {
    /// The guest has no hash table.
    NoTable,
    /// The guest has a table of this order; it starts out empty.
    Table(Order),
    /// Records follow, up to [`crate::record::StreamHeader::END`].
    Records,
}

impl BodyHeader {
    /// # Errors
    /// [`Error::Order`] for a number that is neither of the three.
    pub fn parse(bytes: [u8; BODY_HEADER_BYTES]) -> Result<BodyHeader, Error> {
        match u32::from_be_bytes(bytes) {
            NO_TABLE => Ok(BodyHeader::NoTable),
            RECORDS => Ok(BodyHeader::Records),
            order => Order::new(order).map(BodyHeader::Table),
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

/// Reads one body and keeps count of where it is. Never reads past its end, where QEMU's next section begins.
pub struct BodyReader<'a> {
    stream: &'a mut dyn Get,
    /// The item being read: records read before it, and the offset where it begins.
    place: Place,
}

impl<'a> BodyReader<'a> {
    /// At the first byte of a body.
    pub fn new(stream: &'a mut dyn Get) -> BodyReader<'a> {
        BodyReader { stream, place: Place::default() }
    }

    /// Where the record is that was begun last.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// # Errors
    /// A failed or ended stream, or an order that cannot be.
    pub fn header(&mut self) -> Result<BodyHeader, Error> {
        let mut bytes = [0; BODY_HEADER_BYTES];
        self.exactly(&mut bytes, BODY_HEADER_BYTES)?;
        self.place.offset = BODY_HEADER_BYTES as u64;
        BodyHeader::parse(bytes)
    }

    /// Reads the first record's header; that of END, which ends a body, is one too.
    ///
    /// # Errors
    /// A failed or ended stream.
    pub fn first_header(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        let own = bytes.len();
        self.exactly(bytes, own)
    }

    /// Reads a record's entries and the header of the one after it: another follows for certain, and fetching it along
    /// saves a call for each record.
    ///
    /// # Errors
    /// A failed or ended stream.
    pub fn record(&mut self, run: Extent, bytes: &mut [u8]) -> Result<(), Error> {
        let payload = run.payload_bytes();
        self.exactly(bytes, payload)?;
        self.advance(payload);
        Ok(())
    }

    fn advance(&mut self, payload: usize) {
        self.place.record += 1;
        self.place.offset += (HEADER_BYTES + payload) as u64;
    }

    /// Fills `bytes`, of which the first `own` belong to the item at `self.place` and the rest to the one after it.
    fn exactly(&mut self, bytes: &mut [u8], own: usize) -> Result<(), Error> {
        let mut filled = 0;
        while filled < bytes.len() {
            let rest = &mut bytes[filled..];
            let room = rest.len();
            match self.stream.get(rest) {
                Ok(got) if (1..=room).contains(&got) => filled += got,
                failed => {
                    if filled >= own {
                        self.advance(own);
                    }
                    return Err(match failed {
                        Ok(0) => Error::Truncated(self.place),
                        Ok(_) => Error::Get(self.place, Errno::EIO),
                        Err(errno) => Error::Get(self.place, errno),
                    });
                }
            }
        }
        Ok(())
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
            assert_eq!(BodyHeader::parse(u32::to_be_bytes(order)), Err(Error::Order { order }));
        }
    }
}
