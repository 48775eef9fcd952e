// SPDX-License-Identifier: GPL-2.0-or-later
//! HPTEs into the kernel's table: KVM-HV's HPT file descriptor, opened for writing.
//!
//! The kernel loses its place in a write that holds more than one record with valid entries (it steps over headers but
//! never over entries, in every Linux that has the fd, up to 7.1). `writev` gets round that: the kernel runs its write
//! once for each segment. So records are joined where they touch, and each goes into a segment of its own.

use super::Sink;
use crate::error::{Access, Errno, Error};
use crate::format::hpte::{HPTE_BYTES, Slot};
use crate::format::record::RecordHeader;
use crate::host::{Host, HptFd, OpenOptions, retry};
use crate::load::batch::{Batch, Record};

/// Segments of one system call; Linux takes no more (`UIO_MAXIOV`).
const MAX_SEGMENTS: usize = 1024;

/// The kernel's table of one VM, being filled.
pub struct KernelSink {
    fd: Box<dyn HptFd>,
}

impl KernelSink {
    /// Opens the fd; it is closed when the value is dropped.
    ///
    /// # Errors
    /// [`Error::Open`] with the host's errno.
    pub fn open(host: &dyn Host) -> Result<KernelSink, Error> {
        let fd =
            host.open(OpenOptions::new(Access::Write)).map_err(|errno| Error::Open(Access::Write, errno))?;
        Ok(KernelSink { fd })
    }

    /// One system call with some records. Returns how many the kernel applied, at least one.
    fn write(&mut self, bytes: &[u8], records: &[Record]) -> Result<usize, Error> {
        let segments: Vec<&[u8]> = records.iter().map(|record| &bytes[record.start..record.end()]).collect();
        let mut took = match retry(|| self.fd.write(&segments)) {
            Ok(took) => took,
            Err(errno) => return Err(self.find_culprit(bytes, records[0], errno)),
        };
        let gave: usize = segments.iter().map(|segment| segment.len()).sum();
        if took == gave {
            return Ok(records.len());
        }
        for (count, (record, segment)) in records.iter().zip(&segments).enumerate() {
            if took == 0 && count > 0 {
                // Between two records: the next call begins with the one that failed, and its errno says why.
                return Ok(count);
            }
            if took < segment.len() {
                let slot = Slot(u64::from(record.header.index));
                return Err(Error::KernelShort { slot, took, gave: segment.len() });
            }
            took -= segment.len();
        }
        // More than it was given.
        let slot = Slot(u64::from(records[0].header.index));
        Err(Error::KernelShort { slot, took, gave })
    }

    /// Says which slot of a refused record the kernel refuses, by writing its entries one at a time. What the kernel
    /// had applied already is only applied again.
    fn find_culprit(&mut self, bytes: &[u8], refused: Record, errno: Errno) -> Error {
        let header = refused.header;
        let everywhere = [libc::EBUSY, libc::EFAULT, libc::EBADF].contains(&errno.number());
        if !everywhere {
            let entries = bytes[refused.entries()..refused.end()].chunks_exact(HPTE_BYTES);
            for (index, entry) in (header.index..=u32::MAX).zip(entries) {
                let header = RecordHeader { index, n_valid: 1, n_invalid: 0 }.to_kernel();
                let record = [&header[..], entry].concat();
                if let Err(errno) = retry(|| self.fd.write(&[&record])) {
                    return Error::KernelWrite { slot: Slot(u64::from(index)), slots: 1, errno };
                }
            }
        }
        Error::KernelWrite {
            slot: Slot(u64::from(header.index)),
            slots: u64::from(header.n_valid) + u64::from(header.n_invalid),
            errno,
        }
    }
}

impl Sink for KernelSink {
    fn load(&mut self, batch: &mut Batch) -> Result<(), Error> {
        batch.join();
        let (bytes, records) = batch.parts();
        for record in records {
            bytes[record.start..record.entries()].copy_from_slice(&record.header.to_kernel());
        }
        let mut applied = 0;
        while applied < records.len() {
            let some = &records[applied..records.len().min(applied + MAX_SEGMENTS)];
            applied += self.write(bytes, some)?;
        }
        Ok(())
    }
}
