// SPDX-License-Identifier: GPL-2.0-or-later
//! HPTEs from the kernel: KVM-HV's HPT file descriptor, read in chunks.
//!
//! docs/kernel-fd.md tells what the fd does. What matters here: a read begins where the last one ended, never goes past
//! the table's end, and goes back to slot 0 when it gets there. So the position is always known from what was read.

use super::{Chunk, Source, check_buffer, check_start, pace::Pace};
use crate::error::{Access, Errno, Error};
use crate::format::hpte::{self, Order, Slot};
use crate::format::record::{HEADER_BYTES, KernelHeader, RecordHeader, StreamHeader, Tally};
use crate::host::{Clock, Nanos};
use crate::host::{Host, HptFd, OpenOptions, retry};

/// The kernel starts no record with this much room left or less.
const ROOM_NEEDED: usize = 24;

/// How to read the kernel's table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KernelOptions {
    /// Tell every entry that is not bolted as invalid.
    pub bolted_only: bool,
    /// Where the first pass begins. Slots before it are told only when they change.
    pub start: Slot,
}

/// The kernel's table of one VM.
pub struct KernelSource {
    fd: Box<dyn HptFd>,
    order: Order,
    position: u64,
    pass: u64,
    pace: Pace,
}

impl KernelSource {
    /// Opens the fd. From here on, until the value is dropped, the kernel keeps track of changes.
    ///
    /// # Errors
    /// [`Error::StartIndex`], or [`Error::Open`] with the host's errno.
    pub fn open(host: &dyn Host, order: Order, options: KernelOptions) -> Result<KernelSource, Error> {
        check_start(options.start, order)?;
        let open =
            OpenOptions { access: Access::Read, bolted_only: options.bolted_only, start: options.start };
        let fd = host.open(open).map_err(|errno| Error::Open(Access::Read, errno))?;
        Ok(KernelSource { fd, order, position: options.start.0, pass: 1, pace: Pace::default() })
    }

    fn read_fd(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        match retry(|| self.fd.read(buf)) {
            Ok(got) if got <= buf.len() => Ok(got),
            Ok(_) => Err(self.read_error(Errno::EIO)),
            Err(errno) => Err(self.read_error(errno)),
        }
    }

    fn read_error(&self, errno: Errno) -> Error {
        Error::KernelRead { slot: Slot(self.position), pass: self.pass, errno }
    }

    /// Turns kernel records into stream records where they stand, and tells what they hold and where the last one ends.
    fn convert(&self, records: &mut [u8]) -> Result<(Tally, u64), Error> {
        let first_pass = self.pass == 1;
        let mut tally = Tally::default();
        let mut end = self.position;
        let mut rest = records;
        while !rest.is_empty() {
            let wrong = |record, why| Err(Error::KernelRecord { record, slot: Slot(self.position), why });
            let Some((header, after)) = rest.split_first_chunk_mut::<HEADER_BYTES>() else {
                return wrong(RecordHeader::default(), "its header is cut short");
            };
            let KernelHeader(run) = KernelHeader::parse(*header);
            if !run.fits(self.order) {
                return wrong(run, "it names slots outside the table");
            }
            if u64::from(run.index) < end {
                return wrong(run, "it goes backwards");
            }
            if run.end() == u64::from(run.index) {
                return wrong(run, "it names no slots");
            }
            if first_pass && u64::from(run.index) > end {
                return wrong(run, "the first pass left out the slots before it");
            }
            let Some((entries, next)) = after.split_at_mut_checked(run.payload_bytes()) else {
                return wrong(run, "its entries are cut short");
            };
            hpte::scrub(entries);
            *header = StreamHeader(run).to_bytes();
            tally.count(run);
            end = run.end();
            rest = next;
        }
        Ok((tally, end))
    }
}

impl Source for KernelSource {
    /// One read of the fd.
    ///
    /// A first-pass read is sized so that it ends before the deadline even if only empty slots lie ahead; without time
    /// for that it is the smallest possible. A later-pass read looks at every clean slot up to the next changed one,
    /// up to the whole table, whatever its size.
    fn read(&mut self, buf: &mut [u8], clock: &dyn Clock, deadline: Option<Nanos>) -> Result<Chunk, Error> {
        check_buffer(buf)?;
        let most = buf.len().min(super::MAX_CHUNK_BYTES);
        let began = clock.now();
        let left = deadline.map(|deadline| deadline.since(began));
        let slots_left = self.order.slots() - self.position;
        let asked = match left {
            None => most,
            Some(left) if self.pass == 1 => self.pace.first_pass_bytes(slots_left, left, most),
            Some(_) => self.pace.later_pass_bytes(most),
        };
        let got = self.read_fd(&mut buf[..asked])?;
        let took = clock.now().since(began);
        let (tally, end) = self.convert(&mut buf[..got])?;

        // With room left for a record the kernel stops only at the table's end.
        let wrapped = got + ROOM_NEEDED < asked || end == self.order.slots();
        // Only a radix guest's fd may end a first pass without a word, and it does so at once.
        if self.pass == 1 && wrapped && end != self.order.slots() && (got, self.position) != (0, 0) {
            return Err(Error::FirstPassShort { end: Slot(end), order: self.order });
        }
        let slots = if wrapped { slots_left } else { end - self.position };
        if self.pass == 1 {
            self.pace.first_pass_took(took, slots, tally.valid, got);
        } else if let (Some(left), false) = (left, wrapped) {
            self.pace.later_pass_took(took, asked, left);
        }
        self.position = if wrapped { 0 } else { end };
        self.pass += u64::from(wrapped);
        Ok(Chunk { tally, slots, wrapped })
    }

    fn position(&self) -> Slot {
        Slot(self.position)
    }

    fn pass(&self) -> u64 {
        self.pass
    }

    fn slots(&self) -> u64 {
        self.order.slots()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::hpte::HPTE_BYTES;
    use crate::host::SystemClock;
    use crate::table::Table;

    /// A kernel that answers each read with the next of these.
    struct Script(Vec<Vec<u8>>);

    struct ScriptFd(std::vec::IntoIter<Vec<u8>>);

    impl HptFd for ScriptFd {
        fn read(&mut self, buf: &mut [u8]) -> Result<usize, Errno> {
            let answer = self.0.next().unwrap_or_default();
            let fits = answer.len().min(buf.len());
            buf[..fits].copy_from_slice(&answer[..fits]);
            Ok(answer.len())
        }

        fn write(&mut self, _: &[&[u8]]) -> Result<usize, Errno> {
            Err(Errno::EIO)
        }
    }

    impl Clock for Script {
        fn now(&self) -> Nanos {
            SystemClock::default().now()
        }
    }

    impl Host for Script {
        fn clock(&self) -> &dyn Clock {
            self
        }
        fn table(&self) -> Result<Table, Error> {
            Ok(Table::Kernel(Order::MIN))
        }
        fn allocate(&self, _: Order) -> Result<(), Errno> {
            Err(Errno::EIO)
        }
        fn free(&self) -> Result<(), Errno> {
            Err(Errno::EIO)
        }
        fn open(&self, _: OpenOptions) -> Result<Box<dyn HptFd>, Errno> {
            Ok(Box::new(ScriptFd(self.0.clone().into_iter())))
        }
    }

    fn record(index: u32, n_valid: u16, n_invalid: u16) -> Vec<u8> {
        let mut bytes = KernelHeader(RecordHeader { index, n_valid, n_invalid }).to_bytes().to_vec();
        bytes.resize(HEADER_BYTES + usize::from(n_valid) * HPTE_BYTES, 1);
        bytes
    }

    /// Reads the answers one by one; tells the first error.
    fn read_all(answers: &[Vec<u8>]) -> Result<Vec<Chunk>, String> {
        let host = Script(answers.to_vec());
        let options = KernelOptions::default();
        let mut source = KernelSource::open(&host, Order::MIN, options).map_err(|error| error.to_string())?;
        let mut buf = vec![0; super::super::MAX_CHUNK_BYTES];
        answers
            .iter()
            .map(|_| source.read(&mut buf, &host, None).map_err(|error| error.to_string()))
            .collect()
    }

    #[test]
    fn a_kernel_that_makes_no_sense_is_an_error_and_never_a_loss() {
        let first_pass = record(0, 0, 16_384);
        let half = [record(0, 0, 8000), record(8000, 1, 8383)].concat();
        for (answers, why) in [
            (vec![record(1, 0, 16_383)], "left out the slots before it"),
            (vec![[record(0, 1, 3), record(6, 1, 0)].concat()], "left out the slots before it"),
            (vec![[record(0, 2, 3), record(4, 1, 0)].concat()], "goes backwards"),
            (vec![first_pass.clone(), [record(9, 1, 0), record(3, 1, 0)].concat()], "goes backwards"),
            (vec![record(0, 0, 0)], "names no slots"),
            (vec![record(0, 1, 16_384)], "outside the table"),
            (vec![first_pass.clone(), record(u32::MAX, 1, 0)], "outside the table"),
            (vec![first_pass[..5].to_vec()], "its header is cut short"),
            (vec![half[..20].to_vec()], "its entries are cut short"),
            (vec![vec![0; 1 << 20]], "Input/output error"),
            (vec![record(0, 0, 16_000)], "ended at slot 16000"),
        ] {
            let told = read_all(&answers).expect_err(why);
            assert!(told.contains(why), "{told}");
        }
        let told = read_all(&[half, record(5, 1, 0), vec![]]).expect("these make sense");
        assert!(told.iter().all(|chunk| chunk.wrapped));
        assert_eq!(told[2].tally, Tally::default());
    }
}
