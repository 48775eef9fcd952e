// SPDX-License-Identifier: GPL-2.0-or-later
//! The kernel's table as QEMU reads and writes it: 2 KiB at a time, and a call for each record.

use super::{body, get_exactly, get_header, put_header};
use spapr_htab::inside::error::Errno;
use spapr_htab::inside::host::HptFd;
use spapr_htab::inside::host::{Clock, Nanos};
use spapr_htab::inside::host::{StreamReader, StreamWriter};

/// One read's buffer.
const READ_BYTES: usize = 2048;
/// The kernel starts no record with this much room left or less.
const ROOM_NEEDED: usize = 24;

/// A save of the kernel's table.
pub struct Save {
    fd: Box<dyn HptFd>,
    buf: [u8; READ_BYTES],
}

impl Save {
    #[must_use]
    pub fn new(fd: Box<dyn HptFd>) -> Save {
        Save { fd, buf: [0; READ_BYTES] }
    }

    /// One read, and its records put one by one. Returns the bytes read.
    fn step(&mut self, stream: &mut dyn StreamWriter) -> Result<usize, Errno> {
        let got = self.fd.read(&mut self.buf)?;
        let mut rest = &self.buf[..got];
        while let Some((head, after)) = rest.split_first_chunk::<8>() {
            let [a, b, c, d, e, f, g, h] = *head;
            let n_valid = u16::from_ne_bytes([e, f]);
            let (entries, next) = after.split_at(usize::from(n_valid) * 16);
            put_header(stream, u32::from_ne_bytes([a, b, c, d]), n_valid, u16::from_ne_bytes([g, h]))?;
            stream.put(entries)?;
            rest = next;
        }
        Ok(got)
    }

    /// Reads until a read finds nothing or, looking only between reads, `max` is over. Returns whether it found
    /// nothing.
    pub fn iterate(
        &mut self,
        stream: &mut dyn StreamWriter,
        clock: &dyn Clock,
        max: Option<Nanos>,
    ) -> Result<bool, Errno> {
        body(stream, |stream| {
            let began = clock.now();
            loop {
                if self.step(stream)? == 0 {
                    return Ok(true);
                }
                if max.is_some_and(|max| clock.now().since(began) >= max) {
                    return Ok(false);
                }
            }
        })
    }

    /// As `iterate`, but to the end of the table and no further, which QEMU's code cannot do.
    pub fn pass(&mut self, stream: &mut dyn StreamWriter) -> Result<(), Errno> {
        body(stream, |stream| {
            while self.step(stream)? + ROOM_NEEDED >= READ_BYTES {}
            Ok(())
        })
    }

    /// With the guest stopped: as `iterate` without a bound.
    pub fn complete(&mut self, stream: &mut dyn StreamWriter, clock: &dyn Clock) -> Result<(), Errno> {
        self.iterate(stream, clock, None).map(|_| ())
    }
}

/// Loads a body of records.
pub fn load(stream: &mut dyn StreamReader, fd: &mut dyn HptFd) -> Result<(), Errno> {
    get_exactly(stream, &mut [0; 4])?;
    let mut record = Vec::new();
    while let Some((index, n_valid, n_invalid)) = get_header(stream)? {
        let end = 8 + usize::from(n_valid) * 16;
        if record.len() < end {
            record.resize(end, 0);
        }
        record[..4].copy_from_slice(&index.to_ne_bytes());
        record[4..6].copy_from_slice(&n_valid.to_ne_bytes());
        record[6..8].copy_from_slice(&n_invalid.to_ne_bytes());
        get_exactly(stream, &mut record[8..end])?;
        if fd.write(&[&record[..end]])? != end {
            return Err(Errno::EIO);
        }
    }
    Ok(())
}
