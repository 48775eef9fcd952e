// SPDX-License-Identifier: GPL-2.0-or-later
//! A VM's table in the real kernel: filled, changed and emptied without the library.

use crate::tables::{Shape, entry};
use htab_model::kvm::{Kvm, KvmVm};
use htab_model::record::{Record, to_bytes};
use htab_model::vm::{HtabFd, Vm, WRITE};
use spapr_htab::inside::error::Errno;
use spapr_htab::inside::host::HptFd;
use std::os::fd::{AsRawFd, OwnedFd};

/// Segments of one call.
const SEGMENTS: usize = 1024;

/// What cannot be done ends the benchmark.
fn must<T, E: std::fmt::Debug>(what: &str, result: Result<T, E>) -> T {
    result.unwrap_or_else(|why| panic!("{what}: {why:?}"))
}

/// One VM and its table.
pub struct KernelTable {
    pub vm: KvmVm,
    pub order: u32,
}

impl KernelTable {
    #[must_use]
    pub fn new(kvm: &Kvm, order: u32) -> KernelTable {
        let table = KernelTable { vm: must("KVM_CREATE_VM", kvm.vm()), order };
        table.clear();
        table
    }

    #[must_use]
    pub fn slots(&self) -> u64 {
        1 << (self.order - 4)
    }

    /// Empties it.
    pub fn clear(&self) {
        assert_eq!(must("KVM_PPC_ALLOCATE_HTAB", self.vm.allocate(self.order)), self.order);
    }

    /// Enters what the shape says.
    pub fn fill(&self, shape: Shape, seed: u64) {
        let mut fd = must("KVM_PPC_GET_HTAB_FD", self.vm.open(WRITE, 0));
        let mut records = shape.runs(self.slots(), seed).map(|(first, count)| {
            let entries: Vec<_> = (first..first + count).map(entry).collect();
            Record::new(must("a slot", u32::try_from(first)), &entries, 0)
        });
        loop {
            let batch: Vec<_> = records.by_ref().take(SEGMENTS).collect();
            if batch.is_empty() {
                return;
            }
            write(fd.as_mut(), &batch);
        }
    }

    /// Turns each of these slots round: what was used is removed, what was not is entered. Twice is as before.
    pub fn toggle(&self, slots: &[u64], used: &[bool], enter_used: bool) {
        let mut fd = must("KVM_PPC_GET_HTAB_FD", self.vm.open(WRITE, 0));
        for some in slots.chunks(SEGMENTS) {
            let batch: Vec<_> = some
                .iter()
                .map(|&slot| {
                    let index = must("a slot", u32::try_from(slot));
                    let was_used = used[must("a slot", usize::try_from(slot))];
                    if was_used == enter_used {
                        Record::new(index, &[entry(slot)], 0)
                    } else {
                        Record::new(index, &[], 1)
                    }
                })
                .collect();
            write(fd.as_mut(), &batch);
        }
    }

    /// An fd of its own.
    #[must_use]
    pub fn open(&self, flags: u64) -> OwnedFd {
        must("KVM_PPC_GET_HTAB_FD", self.vm.open_bare(flags, 0))
    }
}

fn write(fd: &mut dyn HtabFd, records: &[Record]) {
    let bytes: Vec<_> = records.iter().map(|record| to_bytes(std::slice::from_ref(record))).collect();
    let segments: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    let all: usize = segments.iter().map(|segment| segment.len()).sum();
    assert_eq!(must("writing the table", fd.writev(&segments)), all);
}

/// An fd with plain reads and writes.
pub struct PlainFd(pub OwnedFd);

fn count(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno::last())
}

impl HptFd for PlainFd {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Errno> {
        // SAFETY: the kernel writes at most `len` bytes from the slice's start, within the slice.
        count(unsafe { libc::read(self.0.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) })
    }

    fn write(&mut self, records: &[&[u8]]) -> Result<usize, Errno> {
        let [record] = records else { return Err(Errno::EIO) };
        // SAFETY: the kernel only reads, within the slice.
        count(unsafe { libc::write(self.0.as_raw_fd(), record.as_ptr().cast(), record.len()) })
    }
}
