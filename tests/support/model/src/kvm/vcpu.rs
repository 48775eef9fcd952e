// SPDX-License-Identifier: GPL-2.0-or-later
//! A vCPU, just enough of one to have a guest use its pages and change its table.
//!
//! The guest runs in real mode, where addresses go through the virtual real mode area's entries in the
//! table. Its program is a few instructions long; registers are set before it runs and it ends with a
//! hypercall that the kernel does not know and so hands to userspace.

use super::sys::{self, EnableCap, Regs, check};
use crate::vm::{GUEST_CODE, GuestOp};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Where in the guest's code page each piece begins, and its instructions. Each ends by asking userspace.
const LOAD: (u64, [u32; 3]) = (GUEST_CODE, [0x88a4_0000, LI_R3_UNKNOWN, SC_1]);
const STORE: (u64, [u32; 3]) = (GUEST_CODE + 0x20, [0x98a4_0000, LI_R3_UNKNOWN, SC_1]);
const HCALL: (u64, [u32; 4]) = (GUEST_CODE + 0x40, [SC_1, MR_R31_R3, LI_R3_UNKNOWN, SC_1]);
/// 1: lbz r5,0(r4); cmpwi r5,0; beq 1b
const SPIN: (u64, [u32; 5]) =
    (GUEST_CODE + 0x60, [0x88a4_0000, 0x2c05_0000, 0x4182_fff8, LI_R3_UNKNOWN, SC_1]);
const LI_R3_UNKNOWN: u32 = 0x3860_f000;
const MR_R31_R3: u32 = 0x7c7f_1b78;
const SC_1: u32 = 0x4400_0022;

/// Real mode, 64 bits, machine checks on; little-endian as we are.
const MSR: u64 = 1 << 63 | 0x1000 | if cfg!(target_endian = "little") { 1 } else { 0 };

/// The code page's content.
pub(super) fn code() -> Vec<(u64, u32)> {
    let pieces: [(u64, &[u32]); 4] =
        [(LOAD.0, &LOAD.1), (STORE.0, &STORE.1), (HCALL.0, &HCALL.1), (SPIN.0, &SPIN.1)];
    pieces
        .iter()
        .flat_map(|(start, code)| (0..).zip(*code).map(move |(k, &word)| (start + 4 * k, word)))
        .collect()
}

pub(super) struct Vcpu {
    fd: OwnedFd,
    /// `struct kvm_run`, mapped from the fd; only two of its fields are used.
    run: usize,
    run_len: usize,
}

impl Vcpu {
    pub(super) fn new(kvm: BorrowedFd<'_>, vm: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: the ioctl takes its argument by value.
        let fd = unsafe { libc::ioctl(vm.as_raw_fd(), sys::CREATE_VCPU, 0 as libc::c_long) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: KVM_CREATE_VCPU made this fd for us just now; nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let papr = EnableCap { cap: sys::CAP_PPC_PAPR, flags: 0, args: [0; 4], pad: [0; 64] };
        // SAFETY: the ioctl reads one struct kvm_enable_cap, which EnableCap has the layout of and which
        // lives across the call.
        if unsafe { libc::ioctl(fd.as_raw_fd(), sys::ENABLE_CAP, &raw const papr) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the ioctl takes no argument.
        let len = unsafe { libc::ioctl(kvm.as_raw_fd(), sys::GET_VCPU_MMAP_SIZE, 0 as libc::c_long) };
        let run_len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choosing touches nothing we have.
        let run = unsafe {
            libc::mmap(std::ptr::null_mut(), run_len, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0)
        };
        if run == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Vcpu { fd, run: run.expose_provenance(), run_len })
    }

    /// Does one thing and returns what r31 holds then: a hypercall's result.
    pub(super) fn run(&self, op: GuestOp) -> Result<u64, String> {
        let mut regs = Regs { msr: MSR, ..Regs::default() };
        let (start, len) = match op {
            GuestOp::Load(_) => (LOAD.0, LOAD.1.len()),
            GuestOp::Store(_) => (STORE.0, STORE.1.len()),
            GuestOp::SpinUntilSet(_) => (SPIN.0, SPIN.1.len()),
            GuestOp::Hcall(_) => (HCALL.0, HCALL.1.len()),
        };
        match op {
            GuestOp::Load(address) | GuestOp::Store(address) | GuestOp::SpinUntilSet(address) => {
                regs.gpr[4] = address;
            }
            GuestOp::Hcall(registers) => regs.gpr[3..3 + registers.len()].copy_from_slice(&registers),
        }
        regs.pc = start;
        // SAFETY: the ioctl reads one struct kvm_regs, which Regs has the layout of and which lives across it.
        let ret = unsafe { libc::ioctl(self.fd.as_raw_fd(), sys::SET_REGS, &raw const regs) };
        check(ret as libc::ssize_t).map_err(|e| format!("KVM_SET_REGS: errno {e}"))?;
        self.enter().map_err(|e| format!("KVM_RUN: errno {e}"))?;
        // SAFETY: as for SET_REGS, written instead of read.
        let ret = unsafe { libc::ioctl(self.fd.as_raw_fd(), sys::GET_REGS, &raw mut regs) };
        check(ret as libc::ssize_t).map_err(|e| format!("KVM_GET_REGS: errno {e}"))?;
        // SAFETY: exit_reason is a u32 at offset 8 of struct kvm_run, which is mapped; the vCPU is not running.
        let reason = unsafe { std::ptr::with_exposed_provenance::<u32>(self.run + 8).read_volatile() };
        if reason != sys::EXIT_PAPR_HCALL || regs.pc != start + 4 * len as u64 {
            return Err(format!("{op:?} ended with exit reason {reason} at {:#x}", regs.pc));
        }
        // The hypercall that ended it is still to be completed: the next entry would overwrite r3 to r12. An
        // entry that is to leave at once does so after it has done that.
        self.set_immediate_exit(1);
        let completed = self.enter();
        self.set_immediate_exit(0);
        if completed != Err(libc::EINTR) {
            return Err(format!("completing the last hypercall: {completed:?}"));
        }
        Ok(regs.gpr[31])
    }

    fn enter(&self) -> Result<usize, i32> {
        // SAFETY: the ioctl takes no argument. The guest has only the memory we gave it.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), sys::RUN, 0 as libc::c_long) } as libc::ssize_t)
    }

    fn set_immediate_exit(&self, value: u8) {
        // SAFETY: immediate_exit is a byte at offset 1 of struct kvm_run, which is mapped and which only the
        // kernel and we use.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(self.run + 1).write_volatile(value) };
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, unmapped once.
        unsafe { libc::munmap(self.run as *mut libc::c_void, self.run_len) };
    }
}
