// SPDX-License-Identifier: GPL-2.0-or-later
//! HPTEs from the kernel: KVM-HV's HPT file descriptor, read in chunks.
//!
//! docs/kernel-fd.md describes the fd. What matters here: a read begins where the last one ended, never goes past
//! the table's end, and goes back to slot 0 when it gets there. So the position is always known from what was read.

use super::{Chunk, Position, Source, check_buffer, pace::Pace};
use crate::error::{Access, Errno, Error};
use crate::format::hpte::{Order, Slot};
use crate::format::record::{KernelRecords, Tally};
use crate::host::{Clock, Host, HptFd, Nanos, OpenOptions, retry};

/// The kernel starts no record with this much room left or less.
const ROOM_NEEDED: usize = 24;

/// The kernel's table of one VM.
pub struct KernelSource {
    fd: Box<dyn HptFd>,
    order: Order,
    pace: Pace,
}

impl KernelSource {
    /// Opens the fd. From here on, until the value is dropped, the kernel keeps track of changes.
    ///
    /// # Errors
    /// [`Error::Open`] with the host's errno.
    pub fn open(host: &dyn Host, order: Order) -> Result<KernelSource, Error> {
        let open = OpenOptions { access: Access::Read, start: Slot(0) };
        let fd = host.open(open).map_err(|errno| Error::Open(Access::Read, errno))?;
        Ok(KernelSource { fd, order, pace: Pace::default() })
    }

    fn read_fd(&mut self, at: Position, buf: &mut [u8]) -> Result<usize, Error> {
        let failed = |errno| Error::KernelRead { slot: at.slot, pass: at.pass, errno };
        match retry(|| self.fd.read(buf)).map_err(failed)? {
            got if got <= buf.len() => Ok(got),
            _ => Err(failed(Errno::EIO)),
        }
    }

    /// Turns kernel records into stream records where they stand. Returns what they hold and where the last one ends.
    fn convert(&self, at: Position, records: &mut [u8]) -> Result<(Tally, u64), Error> {
        let mut tally = Tally::default();
        let mut end = at.slot.0;
        for record in KernelRecords::new(records, self.order, at.slot.0, at.pass == 1) {
            let record = record.map_err(|wrong| Error::KernelRecord { wrong, slot: at.slot })?;
            tally.count(record.header);
            end = record.header.end();
            record.into_stream();
        }
        Ok((tally, end))
    }
}

impl Source for KernelSource {
    fn slots(&self) -> u64 {
        self.order.slots()
    }

    /// One read of the fd.
    ///
    /// A first-pass read is sized so that it ends before the deadline even if only empty slots lie ahead; without time
    /// for that it is the smallest possible. A later-pass read looks at every clean slot up to the next changed one,
    /// up to the whole table, whatever its size.
    fn read(
        &mut self,
        at: Position,
        buf: &mut [u8],
        clock: &dyn Clock,
        deadline: Option<Nanos>,
    ) -> Result<Chunk, Error> {
        check_buffer(buf)?;
        let first_pass = at.pass == 1;
        let most = buf.len().min(super::MAX_CHUNK_BYTES);
        let began = clock.now();
        let left = deadline.map(|deadline| deadline.since(began));
        let slots_left = self.order.slots() - at.slot.0;
        let asked = match left {
            None => most,
            Some(left) if first_pass => self.pace.first_pass_bytes(slots_left, left, most),
            Some(_) => self.pace.later_pass_bytes(most),
        };
        let got = self.read_fd(at, &mut buf[..asked])?;
        let took = clock.now().since(began);
        let (tally, end) = self.convert(at, &mut buf[..got])?;

        // With room left for a record the kernel stops only at the table's end.
        let wrapped = got + ROOM_NEEDED < asked || end == self.order.slots();
        // Only a radix guest's fd may end a first pass without a record, and it does so at once.
        if first_pass && wrapped && end != self.order.slots() && (got, at.slot) != (0, Slot(0)) {
            return Err(Error::FirstPassShort { end: Slot(end), order: self.order });
        }
        let slots = if wrapped { slots_left } else { end - at.slot.0 };
        if first_pass {
            self.pace.first_pass_took(took, slots, tally.valid, got);
        } else if let (Some(left), false) = (left, wrapped) {
            self.pace.later_pass_took(took, asked, left);
        }
        Ok(Chunk { tally, slots })
    }
}
