// SPDX-License-Identifier: GPL-2.0-or-later
//! Numbers and structures of the kernel's interface.
//!
//! Sources (Linux 6.1): `include/uapi/linux/kvm.h`; `include/uapi/asm-generic/ioctl.h` and, for powerpc,
//! which encodes them otherwise, `arch/powerpc/include/uapi/asm/ioctl.h`.

use libc::Ioctl;
use std::mem::size_of;

#[cfg(any(target_arch = "powerpc", target_arch = "powerpc64"))]
mod direction {
    pub(super) const SHIFT: libc::Ioctl = 29;
    pub(super) const NONE: libc::Ioctl = 1;
    pub(super) const READ: libc::Ioctl = 2;
    pub(super) const WRITE: libc::Ioctl = 4;
}
#[cfg(not(any(target_arch = "powerpc", target_arch = "powerpc64")))]
mod direction {
    pub(super) const SHIFT: libc::Ioctl = 30;
    pub(super) const NONE: libc::Ioctl = 0;
    pub(super) const READ: libc::Ioctl = 2;
    pub(super) const WRITE: libc::Ioctl = 1;
}
use direction::{NONE, READ, WRITE};

const fn kvm_ioctl(direction: Ioctl, number: Ioctl, size: Ioctl) -> Ioctl {
    direction << direction::SHIFT | size << 16 | 0xae << 8 | number
}

pub(super) const CREATE_VM: Ioctl = kvm_ioctl(NONE, 0x01, 0);
pub(super) const CHECK_EXTENSION: Ioctl = kvm_ioctl(NONE, 0x03, 0);
pub(super) const GET_VCPU_MMAP_SIZE: Ioctl = kvm_ioctl(NONE, 0x04, 0);
pub(super) const CREATE_VCPU: Ioctl = kvm_ioctl(NONE, 0x41, 0);
pub(super) const GET_DIRTY_LOG: Ioctl = kvm_ioctl(WRITE, 0x42, 16);
pub(super) const RUN: Ioctl = kvm_ioctl(NONE, 0x80, 0);
pub(super) const GET_REGS: Ioctl = kvm_ioctl(READ, 0x81, 49 * 8);
pub(super) const SET_REGS: Ioctl = kvm_ioctl(WRITE, 0x82, 49 * 8);
pub(super) const ENABLE_CAP: Ioctl = kvm_ioctl(WRITE, 0xa3, 104);
pub(super) const SET_USER_MEMORY_REGION: Ioctl = kvm_ioctl(WRITE, 0x46, 32);
pub(super) const PPC_ALLOCATE_HTAB: Ioctl = kvm_ioctl(READ | WRITE, 0xa7, 4);
pub(super) const PPC_GET_HTAB_FD: Ioctl = kvm_ioctl(WRITE, 0xaa, 32);

/// `KVM_VM_PPC_HV`, the type of a VM.
pub(super) const VM_HV: libc::c_long = 1;
pub(super) const CAP_PPC_PAPR: u32 = 68;
pub(super) const EXIT_PAPR_HCALL: u32 = 19;
pub(super) const CAP_PPC_HTAB_FD: libc::c_long = 84;
pub(super) const CAP_PPC_MMU_RADIX: libc::c_long = 134;

/// `struct kvm_get_htab_fd`.
#[repr(C)]
pub(super) struct GetHtabFd {
    pub(super) flags: u64,
    pub(super) start_index: u64,
    pub(super) reserved: [u64; 2],
}

/// `struct kvm_userspace_memory_region`.
#[repr(C)]
pub(super) struct MemoryRegion {
    pub(super) slot: u32,
    pub(super) flags: u32,
    pub(super) guest_phys_addr: u64,
    pub(super) memory_size: u64,
    pub(super) userspace_addr: u64,
}

/// `KVM_MEM_LOG_DIRTY_PAGES`.
pub(super) const LOG_DIRTY_PAGES: u32 = 1;

/// `struct kvm_dirty_log`; the last member is a union of a pointer with a u64.
#[repr(C)]
pub(super) struct DirtyLog {
    pub(super) slot: u32,
    pub(super) padding: u32,
    pub(super) bitmap: u64,
}

/// `struct kvm_enable_cap`.
#[repr(C)]
pub(super) struct EnableCap {
    pub(super) cap: u32,
    pub(super) flags: u32,
    pub(super) args: [u64; 4],
    pub(super) pad: [u8; 64],
}

/// `struct kvm_regs` of powerpc.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Regs {
    pub(super) pc: u64,
    pub(super) cr: u64,
    pub(super) ctr: u64,
    pub(super) lr: u64,
    pub(super) xer: u64,
    pub(super) msr: u64,
    pub(super) srr: [u64; 2],
    pub(super) pid: u64,
    pub(super) sprg: [u64; 8],
    pub(super) gpr: [u64; 32],
}

const _: () = {
    assert!(size_of::<EnableCap>() == 104);
    assert!(size_of::<Regs>() == 49 * 8);
    assert!(size_of::<GetHtabFd>() == 32);
    assert!(size_of::<MemoryRegion>() == 32);
    assert!(size_of::<DirtyLog>() == 16);
};

/// Turns a system call's return value into a count, or errno.
pub(super) fn check(ret: libc::ssize_t) -> Result<usize, i32> {
    // EIO stands in for an error without a number, which the standard library never gives here.
    usize::try_from(ret).map_err(|_| std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}
