// SPDX-License-Identifier: GPL-2.0-or-later
//! HPTEs into the kernel's table: KVM-HV's HPT file descriptor, opened for writing.
//!
//! The kernel loses its place in a write that holds more than one record with valid entries (it steps over headers but
//! never over entries, in every Linux that has the fd, up to 7.1). `writev` gets round that: the kernel runs its write once for each segment. So
//! records are joined where they touch, and each goes into a segment of its own.

use super::Sink;
use crate::error::{Access, Errno, Error};
use crate::host::{Host, HptFd, OpenOptions};
use crate::hpte::{HPTE_BYTES, Slot};
use crate::record::{Extent, HEADER_BYTES, KernelHeader};

/// Segments of one system call; Linux takes no more (`UIO_MAXIOV`).
const MAX_SEGMENTS: usize = 1024;
/// Bytes gathered before they are handed over. A record that goes on being joined may reach 1 MiB more.
const FLUSH_BYTES: usize = 256 << 10;

/// A record that waits to be written: its bytes are `batch[start..end]`.
#[derive(Clone, Copy)]
struct Pending {
    run: Extent,
    start: usize,
    end: usize,
}

/// The kernel's table of one VM, being filled.
pub struct KernelSink {
    fd: Box<dyn HptFd>,
    batch: Vec<u8>,
    pending: Vec<Pending>,
}

impl KernelSink {
    /// Opens the fd; it is closed when the value is dropped.
    ///
    /// # Errors
    /// [`Error::Open`] with the host's errno.
    pub fn open(host: &dyn Host) -> Result<KernelSink, Error> {
        let fd =
            host.open(OpenOptions::new(Access::Write)).map_err(|errno| Error::Open(Access::Write, errno))?;
        Ok(KernelSink { fd, batch: Vec::new(), pending: Vec::new() })
    }

    /// Joins a record to the one before it, if the kernel can take both as one.
    fn join(&mut self, run: Extent, entries: &[u8]) -> bool {
        let Some(last) = self.pending.last_mut() else { return false };
        if last.run.end() != u64::from(run.index) || (run.n_valid > 0 && last.run.n_invalid > 0) {
            return false;
        }
        let n_valid = last.run.n_valid.checked_add(run.n_valid);
        let n_invalid = last.run.n_invalid.checked_add(run.n_invalid);
        let (Some(n_valid), Some(n_invalid)) = (n_valid, n_invalid) else { return false };
        last.run = Extent { n_valid, n_invalid, ..last.run };
        self.batch.extend_from_slice(entries);
        last.end = self.batch.len();
        true
    }

    fn flush(&mut self) -> Result<(), Error> {
        for record in &self.pending {
            self.batch[record.start..record.start + HEADER_BYTES]
                .copy_from_slice(&KernelHeader(record.run).to_bytes());
        }
        let mut applied = 0;
        while applied < self.pending.len() {
            applied += self.write(applied)?;
        }
        self.pending.clear();
        self.batch.clear();
        Ok(())
    }

    /// One system call with the records from `first` on; tells how many the kernel applied, at least one.
    fn write(&mut self, first: usize) -> Result<usize, Error> {
        let waiting = &self.pending[first..self.pending.len().min(first + MAX_SEGMENTS)];
        let segments: Vec<&[u8]> =
            waiting.iter().map(|record| &self.batch[record.start..record.end]).collect();
        let mut took = match retry(|| self.fd.write(&segments)) {
            Ok(took) => took,
            Err(errno) => return Err(self.find_culprit(first, errno)),
        };
        for (count, (record, segment)) in waiting.iter().zip(&segments).enumerate() {
            if took == 0 && count > 0 {
                // Between two records: the next call begins with the one that failed and tells why it did.
                return Ok(count);
            }
            if took < segment.len() {
                let slot = Slot(u64::from(record.run.index));
                return Err(Error::KernelShort { slot, took, gave: segment.len() });
            }
            took -= segment.len();
        }
        if took > 0 {
            let slot = Slot(u64::from(waiting[0].run.index));
            return Err(Error::KernelShort { slot, took, gave: segments.iter().map(|s| s.len()).sum() });
        }
        Ok(waiting.len())
    }

    /// Says which slot of a refused record the kernel refuses, by writing its entries one at a time. What the kernel had
    /// applied already is only applied again.
    fn find_culprit(&mut self, refused: usize, errno: Errno) -> Error {
        let Pending { run, start, end } = self.pending[refused];
        let everywhere = [libc::EBUSY, libc::EFAULT, libc::EBADF].contains(&errno.number());
        if !everywhere {
            let entries = self.batch[start + HEADER_BYTES..end].chunks_exact(HPTE_BYTES);
            for (index, entry) in (run.index..=u32::MAX).zip(entries) {
                let header = KernelHeader(Extent { index, n_valid: 1, n_invalid: 0 }).to_bytes();
                let record = [&header[..], entry].concat();
                if let Err(errno) = retry(|| self.fd.write(&[&record])) {
                    return Error::KernelWrite { slot: Slot(u64::from(index)), slots: 1, errno };
                }
            }
        }
        Error::KernelWrite {
            slot: Slot(u64::from(run.index)),
            slots: u64::from(run.n_valid) + u64::from(run.n_invalid),
            errno,
        }
    }
}

/// A signal that arrived before anything was written is no failure.
fn retry(mut write: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match write() {
            Err(errno) if errno.number() == libc::EINTR => {}
            done => return done,
        }
    }
}

impl Sink for KernelSink {
    fn load(&mut self, run: Extent, entries: &[u8]) -> Result<(), Error> {
        if !self.join(run, entries) {
            if self.pending.len() == MAX_SEGMENTS || self.batch.len() >= FLUSH_BYTES {
                self.flush()?;
            }
            let start = self.batch.len();
            self.batch.extend_from_slice(&[0; HEADER_BYTES]);
            self.batch.extend_from_slice(entries);
            self.pending.push(Pending { run, start, end: self.batch.len() });
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.flush()
    }
}
