// SPDX-License-Identifier: GPL-2.0-or-later
//! The system calls that the library makes of its own, where the program has no callbacks for them: the C library's
//! functions of these names are the ones below, in this whole process.

use htab_harness::world::{World, segments};
use libc::{c_int, c_ulong, c_void, iovec, size_t, ssize_t};
use spapr_htab::inside::sync::lock::lock;
use std::sync::{Mutex, MutexGuard};

/// Whose `vm_fd` is which world's.
static WORLDS: Mutex<Vec<(c_int, usize)>> = Mutex::new(Vec::new());

fn worlds() -> MutexGuard<'static, Vec<(c_int, usize)>> {
    lock(&WORLDS)
}

/// A VM's file descriptor.
pub struct VmFd(pub c_int);

impl VmFd {
    pub fn new() -> VmFd {
        // SAFETY: takes numbers only.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        assert!(fd >= 0, "a descriptor");
        VmFd(fd)
    }

    /// From now on the calls on it, and on what it opens, are this world's, which outlives it.
    pub fn belongs_to(&self, world: &World) {
        worlds().push((self.0, std::ptr::from_ref(world).addr()));
    }
}

impl Drop for VmFd {
    fn drop(&mut self) {
        worlds().retain(|(fd, _)| *fd != self.0);
        // SAFETY: it was opened by `new`.
        unsafe { libc::close(self.0) };
    }
}

/// The world that this is about, if any.
fn find(is_its: impl Fn(c_int, &World) -> bool) -> Option<&'static World> {
    let worlds = worlds();
    let mut all = worlds.iter().map(|&(fd, world)| {
        // SAFETY: as `belongs_to` was promised; what is returned is used in the library's calls only, which end before.
        (fd, unsafe { &*std::ptr::with_exposed_provenance::<World>(world) })
    });
    all.find(|(fd, world)| is_its(*fd, world)).map(|(_, world)| world)
}

/// As a system call ends.
fn ended(result: i64) -> i64 {
    if result >= 0 {
        return result;
    }
    // SAFETY: the calling thread's errno.
    unsafe { *libc::__errno_location() = c_int::try_from(-result).unwrap_or(libc::EIO) };
    -1
}

fn call_result(result: i64) -> ssize_t {
    ssize_t::try_from(ended(result)).unwrap_or(ssize_t::MAX)
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *const u64) -> c_int {
    // The direction and the size stand above these, and are not the same on every machine.
    const NUMBER: c_ulong = 0xaeaa;
    match find(|vm_fd, _| vm_fd == fd) {
        Some(world) => {
            assert_eq!(request & 0xffff, NUMBER, "KVM_PPC_GET_HTAB_FD");
            // SAFETY: the structure begins with the flags and the first slot.
            let (flags, start) = unsafe { (*argument, *argument.add(1)) };
            c_int::try_from(ended(world.open(flags, start))).unwrap_or(c_int::MAX)
        }
        // SAFETY: the caller's promise.
        None => unsafe {
            c_int::try_from(libc::syscall(libc::SYS_ioctl, fd, request, argument)).unwrap_or(-1)
        },
    }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn read(fd: c_int, data: *mut c_void, len: size_t) -> ssize_t {
    match find(|_, world| world.has_fd(fd)) {
        Some(world) => {
            // SAFETY: the caller has `len` bytes there.
            let data = unsafe { std::slice::from_raw_parts_mut(data.cast(), len) };
            call_result(world.read(fd, data))
        }
        // SAFETY: the caller's promise.
        None => unsafe { ssize_t::try_from(libc::syscall(libc::SYS_read, fd, data, len)).unwrap_or(-1) },
    }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn writev(fd: c_int, data: *const iovec, count: c_int) -> ssize_t {
    match find(|_, world| world.has_fd(fd)) {
        Some(world) => {
            // SAFETY: the caller has `count` segments there.
            let segments = unsafe { segments(data, count) };
            call_result(world.writev(fd, &segments))
        }
        // SAFETY: the caller's promise.
        None => unsafe { ssize_t::try_from(libc::syscall(libc::SYS_writev, fd, data, count)).unwrap_or(-1) },
    }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn close(fd: c_int) -> c_int {
    match find(|_, world| world.has_fd(fd)) {
        Some(world) => c_int::try_from(ended(world.close(fd))).unwrap_or(-1),
        // SAFETY: the caller's promise.
        None => unsafe { c_int::try_from(libc::syscall(libc::SYS_close, fd)).unwrap_or(-1) },
    }
}
