// SPDX-License-Identifier: GPL-2.0-or-later
//! What userspace can do with one VM's hashed page table, whoever provides it.
//!
//! Errors are errno values, positive, as the system calls give them.

/// `KVM_GET_HTAB_BOLTED_ONLY` (`arch/powerpc/include/uapi/asm/kvm.h`).
pub const BOLTED_ONLY: u64 = 1;
/// `KVM_GET_HTAB_WRITE`.
pub const WRITE: u64 = 2;

/// Where the guest's code is, for [`Vm::guest`]: the second page of 4 KiB.
pub const GUEST_CODE: u64 = 0x1000;

/// Something the guest does, in real mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestOp {
    /// Loads a byte from this address.
    Load(u64),
    /// Stores a byte to this address.
    Store(u64),
    /// A hypercall: r3 (which one) to r7.
    Hcall([u64; 5]),
    /// Loads a byte from this address until it is not zero.
    SpinUntilSet(u64),
}

pub const H_REMOVE: u64 = 0x04;
pub const H_ENTER: u64 = 0x08;
pub const H_PROTECT: u64 = 0x18;
/// A flag of `H_ENTER`: into this slot, not into any of its group.
pub const H_EXACT: u64 = 1 << (63 - 24);

/// One VM: hash once it has a table, until then what its host makes of it.
pub trait Vm: Send + Sync {
    /// `KVM_PPC_ALLOCATE_HTAB`: allocates a table of 2^`order` bytes, or clears the one there is if it has
    /// that order. Returns the order granted.
    ///
    /// # Errors
    /// EBUSY with vCPUs running, ENOMEM, EINVAL.
    fn allocate(&self, order: u32) -> Result<u32, i32>;

    /// `KVM_PPC_GET_HTAB_FD`. The fd keeps the VM alive and is closed when dropped.
    ///
    /// # Errors
    /// EINVAL for unknown flags, EMFILE and the like.
    fn open(&self, flags: u64, start_index: u64) -> Result<Box<dyn HtabFd>, i32>;

    /// The table's entries (slot, v, r) in ascending order as a first-pass read would report them now, but
    /// with `HPTE_V_HVLOCK` clear, and without the effects of a read: MODIFIED stays, nothing is harvested.
    fn dump(&self) -> Vec<(u64, u64, u64)>;

    /// Gives the guest `bytes` of memory at address 0, all of it present in host pages of the base size,
    /// once per VM. Entries that map it become valid to the hardware; without it all are kept as absent.
    ///
    /// # Errors
    /// What `KVM_SET_USER_MEMORY_REGION` gives.
    fn set_ram(&self, bytes: u64) -> Result<(), i32>;

    /// `KVM_GET_DIRTY_LOG` of the guest's memory; the first call turns logging on. Returns how many host pages were
    /// stored to since the last one, as far as the hardware's C bits show.
    ///
    /// # Errors
    /// ENOENT when the guest has no memory ([`Vm::set_ram`]).
    fn read_dirty_log(&self) -> Result<u64, i32>;

    /// Has the guest do something and returns a hypercall's result. It needs memory ([`Vm::set_ram`]) and the
    /// virtual real mode area's entries for the pages it uses, [`GUEST_CODE`] among them.
    ///
    /// # Errors
    /// In words: the guest cannot be run, or did not get to the end.
    fn guest(&self, op: GuestOp) -> Result<u64, String>;

    /// Stores a byte in the guest's memory.
    ///
    /// # Panics
    /// When the guest has no memory there.
    fn poke(&self, address: u64, byte: u8);

    /// Whether the VM has `KVM_CAP_PPC_HTAB_FD`.
    fn has_htab_fd(&self) -> bool;

    /// Nanoseconds since some fixed time: virtual on the model.
    fn clock_ns(&self) -> u64;
}

/// An open HPT fd, which only reads or only writes.
pub trait HtabFd: Send {
    /// `read(2)`.
    ///
    /// # Errors
    /// The errno.
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, i32>;

    /// `read(2)` of `count` bytes into memory that ends with `buf`: what is behind it cannot be written. On EFAULT,
    /// `buf` has what the kernel had stored.
    ///
    /// # Errors
    /// EFAULT when the read gets to the end of `buf`.
    ///
    /// # Panics
    /// When the length of `buf` is not a multiple of 8, so that a doubleword lies across its end.
    fn read_faulting(&mut self, buf: &mut [u8], count: usize) -> Result<usize, i32>;

    /// `write(2)`. The count returned may be larger than what was given: the kernel does that.
    ///
    /// # Errors
    /// The errno.
    fn write(&mut self, buf: &[u8]) -> Result<usize, i32>;

    /// `writev(2)`.
    ///
    /// # Errors
    /// The errno, when the first segment failed.
    fn writev(&mut self, segments: &[&[u8]]) -> Result<usize, i32>;
}

/// Makes the VMs of the cases, another one each time.
pub trait VmFactory {
    /// A VM with an empty table of 2^`order` bytes.
    ///
    /// # Errors
    /// In words, for the report.
    fn hash(&self, order: u32) -> Result<Box<dyn Vm>, String>;

    /// A VM whose MMU is radix, or None where the host has none (a hash host's VM without a table must not
    /// be touched through the fd: the kernel has no check for that).
    ///
    /// # Errors
    /// In words, for the report.
    fn radix(&self) -> Result<Option<Box<dyn Vm>>, String>;
}
