// SPDX-License-Identifier: GPL-2.0-or-later
//! One section's body, read from the stream record by record.

use crate::error::{Errno, Error, Place};
use crate::format::record::{HEADER_BYTES, RecordHeader};
use crate::format::section::{BODY_HEADER_BYTES, BodyHeader};
use crate::host::StreamReader;

/// Reads one body and keeps count of where it is. Never reads past its end, where QEMU's next section begins.
pub struct SectionReader<'a> {
    stream: &'a mut dyn StreamReader,
    /// The item being read: records read before it, and the offset where it begins.
    place: Place,
}

impl<'a> SectionReader<'a> {
    /// At the first byte of a body.
    pub fn new(stream: &'a mut dyn StreamReader) -> SectionReader<'a> {
        SectionReader { stream, place: Place::default() }
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
        BodyHeader::parse(bytes).map_err(|order| Error::Order { order })
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
    pub fn record(&mut self, header: RecordHeader, bytes: &mut [u8]) -> Result<(), Error> {
        let payload = header.payload_bytes();
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
                        Ok(_) => Error::StreamRead(self.place, Errno::EIO),
                        Err(errno) => Error::StreamRead(self.place, errno),
                    });
                }
            }
        }
        Ok(())
    }
}
