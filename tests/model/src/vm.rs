// SPDX-License-Identifier: GPL-2.0-or-later
//! What userspace can do with one VM's hashed page table, whoever provides it.
//!
//! Errors are errno values, positive, as the system calls give them.

/// `KVM_GET_HTAB_BOLTED_ONLY` (`arch/powerpc/include/uapi/asm/kvm.h`).
pub const BOLTED_ONLY: u64 = 1;
/// `KVM_GET_HTAB_WRITE`.
pub const WRITE: u64 = 2;

/// One VM.
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

    /// Whether the VM has `KVM_CAP_PPC_HTAB_FD`.
    fn has_htab_fd(&self) -> bool;

    /// Nanoseconds since some fixed time: virtual on the model.
    fn clock_ns(&self) -> u64;
}

/// One open HPT fd.
pub trait HtabFd: Send {
    /// `read(2)`.
    ///
    /// # Errors
    /// The errno.
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, i32>;

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

/// Makes fresh VMs.
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
