// SPDX-License-Identifier: GPL-2.0-or-later
//! The sentences: what failed, where, why as far as it is known, and what to do.

use super::{Access, Errno, Error, Place};
use crate::format::hpte::Order;
use crate::format::record::WrongRecord;
use std::fmt;

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {} of section spapr/htab, at its byte {}", self.record, self.offset)
    }
}

/// What an errno of a write to the kernel's fd means (Linux 6.1, `kvm_htab_write` and `kvmppc_virtmode_do_h_enter`), or
/// its own text.
fn write_cause(errno: Errno) -> String {
    let cause = match errno.number() {
        libc::EBUSY => {
            "the destination's vCPUs are running; the table can only be written while they are stopped"
        }
        libc::EINVAL => {
            "the guest is in radix mode, the slot is outside the kernel's table, or the entry has a page size that \
             the kernel does not know"
        }
        libc::EIO => {
            "the kernel refused the entry: its real address is not aligned to its page size, its WIMG bits do not \
             match the memory behind it, or the host's pages there are smaller than the guest's"
        }
        libc::EFAULT => "the kernel could not read the record from memory",
        libc::ENOSPC | libc::ENOMEM => {
            "the kernel has no memory left for the entry; free some and migrate again"
        }
        _ => return errno.to_string(),
    };
    cause.to_owned()
}

/// The same for one of `KVM_PPC_GET_HTAB_FD`.
fn open_cause(errno: Errno) -> String {
    let cause = match errno.number() {
        libc::ENOTTY | libc::EINVAL | libc::ENOSYS => {
            "this kernel has no KVM_PPC_GET_HTAB_FD for this VM (it exists under KVM-HV only)"
        }
        libc::EMFILE | libc::ENFILE => "no file descriptor is left; raise the limit on open files",
        libc::ENOMEM => "the kernel has no memory left; free some and migrate again",
        libc::EBADF => "the host gave no VM file descriptor, which is a bug of the program (QEMU)",
        _ => return errno.to_string(),
    };
    cause.to_owned()
}

/// The same for one of the host's `table_allocate`.
fn allocate_cause(errno: Errno) -> String {
    let cause = match errno.number() {
        libc::ENOMEM | libc::ENOSPC => {
            "this host has no memory for it in one piece; under KVM-HV the kernel's parameter kvm_cma_resv_ratio \
             limits it: free some, raise that limit, or start the guest with less maxmem"
        }
        libc::EBUSY => "the vCPUs run here already, which is a bug of the program (QEMU)",
        _ => return errno.to_string(),
    };
    cause.to_owned()
}

/// The size of a table of this order, as people write it.
fn size(order: Order) -> String {
    let log2 = order.log2_bytes();
    let (unit, shift) =
        [("GiB", 30), ("MiB", 20)].into_iter().find(|(_, at)| log2 >= *at).unwrap_or(("KiB", 10));
    format!("{} {unit}", 1 << (log2 - shift))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Argument(what) => write!(f, "wrong call about the hash table: {what}"),
            Error::State(what) => write!(f, "wrong order of calls about the hash table: {what}"),
            Error::Reentered(what) => write!(f, "{what} of the hash table was called from inside itself"),
            Error::Order { order } => write!(
                f,
                "a hash table of order {order} cannot be migrated: orders 18 to 36 (256 KiB to 64 GiB) can"
            ),
            Error::NoSuchSlot { slot, order } => write!(
                f,
                "slot {slot} is outside the hash table of order {}, which has {} slots",
                order.log2_bytes(),
                order.slots()
            ),
            Error::Buffer { bytes } => {
                write!(
                    f,
                    "a read buffer of {bytes} bytes holds no record of the hash table: at least 25 are needed"
                )
            }
            Error::Memory { bytes, what } => write!(
                f,
                "there are no {bytes} bytes of memory to be had for the hash table ({what}): free some and try again"
            ),
            Error::Table(errno) => write!(
                f,
                "the host could not name the guest's hash table, which is a bug of the program (QEMU): {errno}"
            ),
            Error::Open(access, errno) => {
                let to = match access {
                    Access::Read => "read",
                    Access::Write => "write",
                };
                write!(f, "cannot {to} the kernel's hash table: {}", open_cause(*errno))
            }
            Error::KernelRead { slot, pass, errno } => write!(
                f,
                "reading the kernel's hash table failed from slot {slot} on in pass {pass}: {errno}; the guest \
                 can go on, a migration that read it cannot: migrate again"
            ),
            Error::KernelRecord { wrong: WrongRecord { header, why }, slot } => write!(
                f,
                "the kernel's record for slot {} ({} valid, {} invalid; read from slot {slot} on) is wrong: {why}; was \
                 the hash table replaced without spapr_htab_quiesce?",
                header.index, header.n_valid, header.n_invalid
            ),
            Error::FirstPassShort { end, order } => write!(
                f,
                "the kernel's hash table ended at slot {end}, but a table of order {} has {} slots; was it replaced \
                 without spapr_htab_quiesce?",
                order.log2_bytes(),
                order.slots()
            ),
            Error::KernelWrite { slot, slots, errno } => {
                write!(f, "loading slot {slot}")?;
                if *slots > 1 {
                    write!(f, " (or one of the {} slots after it)", slots - 1)?;
                }
                write!(f, " into the kernel's hash table failed: {}", write_cause(*errno))
            }
            Error::KernelShort { slot, took, gave } => write!(
                f,
                "the kernel took {took} of the {gave} bytes of the record for slot {slot} and gave no reason; the \
                 hash table is incomplete: report it with the kernel's version"
            ),
            Error::SizeUnsent { order } => write!(
                f,
                "the guest's hash table was replaced by one of order {} just before the VM stopped and its size can no \
                 longer be sent; migrate again",
                order.log2_bytes()
            ),
            Error::StreamWrite { pass, sent, errno } => write!(
                f,
                "the migration stream failed in pass {pass} of the hash table, after {sent} bytes of it: {errno}"
            ),
            Error::StreamRead(place, errno) => write!(f, "the migration stream failed at {place}: {errno}"),
            Error::Truncated(place) => write!(
                f,
                "the migration stream ended at {place}, before the record that closes it; the source was cut off"
            ),
            Error::Version(version) => {
                write!(f, "the hash table's section has version {version}; only version 1 is known")
            }
            Error::OutOfTable(place, header, order) => write!(
                f,
                "refused {place}: it names slots {} to {} ({} valid, {} invalid), and a table of order {} ends at slot \
                 {}; nothing of this record was loaded",
                header.index,
                header.end().saturating_sub(1),
                header.n_valid,
                header.n_invalid,
                order.log2_bytes(),
                order.slots() - 1
            ),
            Error::NoTable(place, header) => write!(
                f,
                "refused {place}: it brings entries from slot {} on, but no hash table was announced before it",
                header.index
            ),
            Error::TableReplaced => f.write_str(
                "the guest's hash table was replaced while records for it were on their way; migrate again",
            ),
            Error::TooLate(order) => write!(
                f,
                "refused a new hash table of order {} in section spapr/htab: the guest may already run here on the one \
                 it has; report it with the version of the source's QEMU",
                order.log2_bytes()
            ),
            Error::Allocate(order, errno) => write!(
                f,
                "the host could not allocate the hash table that the stream asks for (order {}, {}): {}",
                order.log2_bytes(),
                size(*order),
                allocate_cause(*errno)
            ),
            Error::Free(errno) => write!(
                f,
                "the host could not free its hash table, which is a bug of the program (QEMU): {errno}"
            ),
            Error::NotAsSent(differences) => write!(
                f,
                "the hash table did not arrive as it was sent: {differences}; section spapr/htab was damaged on its \
                 way: migrate again, and look for the fault in the network or the file between the two hosts"
            ),
            Error::Internal(said) => write!(
                f,
                "a bug in spapr-htab, which carries the hash table (a panic: {said}); a save that is under way refuses \
                 to go on until the next setup; report it with these words"
            ),
        }
    }
}
