// SPDX-License-Identifier: GPL-2.0-or-later
//! Claims about the fd as a file and about bad buffers, which a model in the same process cannot have.

use super::{Kvm, KvmFd, KvmVm};
use crate::record::{Record, hpte};
use crate::vm::{HtabFd, Vm, WRITE};
use std::io;
use std::os::fd::AsRawFd;

/// A claim's name and its check.
pub type Case = (&'static str, fn(&Kvm) -> Result<(), String>);

pub const CASES: &[Case] = &[
    ("the_fd_is_close_on_exec", the_fd_is_close_on_exec),
    ("the_fd_is_read_only_or_write_only", the_fd_is_read_only_or_write_only),
    ("the_fd_has_no_poll_and_so_is_always_ready", the_fd_is_always_ready),
    ("file_positions_mean_nothing", file_positions_mean_nothing),
    ("a_bad_buffer_to_write_from_is_efault", a_bad_buffer_to_write_from),
];

const ORDER: u32 = 18;

fn ensure(truth: bool, what: &str) -> Result<(), String> {
    truth.then_some(()).ok_or_else(|| format!("not so: {what} (last error: {})", io::Error::last_os_error()))
}

fn vm_of(kvm: &Kvm) -> Result<KvmVm, String> {
    let vm = kvm.vm().map_err(|e| e.to_string())?;
    vm.allocate(ORDER).map_err(|errno| format!("allocate: errno {errno}"))?;
    Ok(vm)
}

fn fd_of(vm: &KvmVm, flags: u64) -> Result<KvmFd, String> {
    vm.open_fd(flags, 0).map_err(|errno| format!("open: errno {errno}"))
}

/// A VM and an fd that is done with its first pass, with one change pending, in slot 7.
fn with_a_change(kvm: &Kvm) -> Result<(KvmVm, KvmFd), String> {
    let vm = vm_of(kvm)?;
    let mut fd = fd_of(&vm, 0)?;
    let mut buf = vec![0; 4096];
    fd.read(&mut buf).map_err(|errno| format!("read: errno {errno}"))?;
    let record = Record::new(7, &[hpte(1)], 0).to_bytes();
    fd_of(&vm, WRITE)?.write(&record).map_err(|errno| format!("write: errno {errno}"))?;
    Ok((vm, fd))
}

fn the_fd_is_close_on_exec(kvm: &Kvm) -> Result<(), String> {
    let vm = vm_of(kvm)?;
    for flags in [0, WRITE] {
        let fd = fd_of(&vm, flags)?;
        // SAFETY: F_GETFD only asks.
        let fd_flags = unsafe { libc::fcntl(fd.fd.as_raw_fd(), libc::F_GETFD) };
        ensure(fd_flags == libc::FD_CLOEXEC, "FD_CLOEXEC is set")?;
    }
    Ok(())
}

fn the_fd_is_read_only_or_write_only(kvm: &Kvm) -> Result<(), String> {
    let vm = vm_of(kvm)?;
    for (flags, mode) in [(0, libc::O_RDONLY), (WRITE, libc::O_WRONLY)] {
        let fd = fd_of(&vm, flags)?;
        // SAFETY: F_GETFL only asks.
        let status = unsafe { libc::fcntl(fd.fd.as_raw_fd(), libc::F_GETFL) };
        ensure(status >= 0 && status & libc::O_ACCMODE == mode, "the access mode")?;
    }
    Ok(())
}

fn the_fd_is_always_ready(kvm: &Kvm) -> Result<(), String> {
    let (_vm, mut fd) = with_a_change(kvm)?;
    for _ in 0..2 {
        let mut poll = libc::pollfd { fd: fd.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, which lives across the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
        ensure(ready == 1 && poll.revents == libc::POLLIN, "ready to read, changes or none")?;
        fd.read(&mut [0; 64]).map_err(|errno| format!("read: errno {errno}"))?;
    }
    Ok(())
}

fn file_positions_mean_nothing(kvm: &Kvm) -> Result<(), String> {
    let (_vm, mut fd) = with_a_change(kvm)?;
    // SAFETY: lseek touches no memory of ours.
    let position = unsafe { libc::lseek(fd.fd.as_raw_fd(), 5000, libc::SEEK_SET) };
    ensure(position == 5000, "lseek is accepted")?;
    ensure(fd.read(&mut [0; 64]) == Ok(24), "the change in slot 7 is read all the same")?;
    let mut buf = [0_u8; 64];
    // SAFETY: the kernel writes at most 64 bytes into `buf`.
    let len = unsafe { libc::pread(fd.fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), 0) };
    ensure(len == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::ESPIPE), "pread is ESPIPE")
}

fn a_bad_buffer_to_write_from(kvm: &Kvm) -> Result<(), String> {
    let vm = vm_of(kvm)?;
    let fd = fd_of(&vm, WRITE)?;
    // SAFETY: nothing is mapped at address 16; the kernel finds that out by its checked access.
    let ret = unsafe { libc::write(fd.fd.as_raw_fd(), std::ptr::without_provenance(16), 24) };
    ensure(ret == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT), "EFAULT")
}
