// SPDX-License-Identifier: GPL-2.0-or-later
//! The callbacks of [`World`].

use super::{Wire, WireState, World, bytes};
use crate::plan::{Call, Fault, as_program};
use libc::{c_char, c_int, c_void, iovec};
use spapr_htab::inside::capi::types::{SpaprHtabHost, SpaprHtabTable};
use spapr_htab::inside::sync::lock::lock;
use std::ffi::CStr;
use std::sync::MutexGuard;

impl World {
    /// The callbacks. Those for the kernel's fd can be left out, for the system calls to be made.
    #[must_use]
    pub fn host(&self, flags: u32, vm_fd: Option<c_int>) -> SpaprHtabHost {
        let callbacks = vm_fd.is_none();
        SpaprHtabHost {
            struct_size: size_of::<SpaprHtabHost>(),
            opaque: std::ptr::from_ref(self).cast_mut().cast(),
            vm_fd: vm_fd.unwrap_or(-1),
            flags,
            put: Some(put),
            rate_limited: Some(rate_limited),
            get: Some(get),
            stream_error: Some(stream_error),
            table: Some(table),
            table_allocate: Some(allocate),
            table_free: Some(free),
            open_fd: callbacks.then_some(open_fd),
            read_fd: callbacks.then_some(read_fd),
            writev_fd: callbacks.then_some(writev_fd),
            close_fd: callbacks.then_some(close_fd),
            clock_ns: Some(clock),
            log: Some(log),
            log_level: 5,
            queue_bytes: 0,
            sweep_share: 0,
            reserved: 0,
        }
    }
}

impl World {
    /// Does it, unless it is to fail. A callback that says more than 0 has succeeded, too.
    fn unless(&self, call: Call, work: impl FnOnce() -> Result<(), i32>) -> c_int {
        let said = self.fault(call).err().map_or(0, result);
        if said < 0 { said } else { as_program(work).map_or_else(|errno| -errno, |()| said) }
    }
}

fn result(value: i64) -> c_int {
    c_int::try_from(value).unwrap_or(c_int::MIN)
}

/// Is given to callbacks.
unsafe fn world<'a>(opaque: *mut c_void) -> &'a World {
    // SAFETY: `World::host` made it of a world that outlives the handle.
    unsafe { &*opaque.cast::<World>() }
}

unsafe fn wire<'a>(stream: *mut c_void) -> Option<MutexGuard<'a, WireState>> {
    // SAFETY: the streams given to the library are wires, or NULL.
    unsafe { stream.cast::<Wire>().as_ref() }.map(|wire| lock(&wire.0))
}

unsafe extern "C" fn put(opaque: *mut c_void, stream: *mut c_void, data: *const u8, len: usize) -> c_int {
    // SAFETY: see `world`, `wire`; the library gives `len` bytes.
    let (world, wire, data) = unsafe { (world(opaque), wire(stream), std::slice::from_raw_parts(data, len)) };
    world.unless(Call::Put, || {
        wire.ok_or(libc::EBADF)?.bytes.extend_from_slice(data);
        Ok(())
    })
}

unsafe extern "C" fn rate_limited(opaque: *mut c_void, _: *mut c_void) -> c_int {
    // SAFETY: see `world`.
    unsafe { world(opaque) }.fault(Call::RateLimited).map_or_else(result, |_| 0)
}

unsafe extern "C" fn get(opaque: *mut c_void, stream: *mut c_void, data: *mut u8, len: usize) -> i64 {
    // SAFETY: see `world`, `wire`; the library gives room for `len` bytes.
    let (world, wire, data) =
        unsafe { (world(opaque), wire(stream), std::slice::from_raw_parts_mut(data, len)) };
    let Some(mut wire) = wire else { return -i64::from(libc::EBADF) };
    let short = match world.called(Call::Get) {
        Some(Fault::Errno(errno) | Fault::Late(errno)) => return -i64::from(errno),
        // Far from what there is room for, wherever it stands.
        Some(Fault::Value(value)) => return value,
        Some(Fault::Quiet(errno)) => {
            wire.error = errno;
            return 0;
        }
        Some(Fault::Short(most)) => most,
        None => usize::MAX,
    };
    let got = len.min(wire.bytes.len() - wire.read).min(world.most).min(short);
    data[..got].copy_from_slice(&wire.bytes[wire.read..wire.read + got]);
    wire.read += got;
    bytes(got)
}

unsafe extern "C" fn stream_error(_: *mut c_void, stream: *mut c_void) -> c_int {
    // SAFETY: see `wire`.
    unsafe { wire(stream) }.map_or(0, |wire| -wire.error)
}

unsafe extern "C" fn table(opaque: *mut c_void, out: *mut SpaprHtabTable) -> c_int {
    // SAFETY: see `world`; the library gives a structure of its own.
    unsafe { world(opaque).describe(&mut *out) }
}

unsafe extern "C" fn allocate(opaque: *mut c_void, order: u32) -> c_int {
    // SAFETY: see `world`.
    let world = unsafe { world(opaque) };
    world.unless(Call::Allocate, || world.replace(order))
}

unsafe extern "C" fn free(opaque: *mut c_void) -> c_int {
    // SAFETY: see `world`.
    let world = unsafe { world(opaque) };
    world.unless(Call::Free, || {
        world.forget();
        Ok(())
    })
}

unsafe extern "C" fn open_fd(opaque: *mut c_void, flags: u64, start: u64) -> c_int {
    // SAFETY: see `world`.
    result(unsafe { world(opaque) }.open(flags, start))
}

unsafe extern "C" fn read_fd(opaque: *mut c_void, fd: c_int, data: *mut u8, len: usize) -> i64 {
    // SAFETY: see `world`; the library gives room for `len` bytes.
    unsafe { world(opaque).read(fd, std::slice::from_raw_parts_mut(data, len)) }
}

unsafe extern "C" fn writev_fd(opaque: *mut c_void, fd: c_int, data: *const iovec, count: c_int) -> i64 {
    // SAFETY: see `world`; the library gives `count` segments.
    unsafe { world(opaque).writev(fd, &segments(data, count)) }
}

/// # Safety
/// `count` segments at `data`, each of which describes bytes that may be read.
pub unsafe fn segments<'a>(data: *const iovec, count: c_int) -> Vec<&'a [u8]> {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: the caller's promise.
    let segments = unsafe { std::slice::from_raw_parts(data, count) };
    // SAFETY: the caller's promise.
    segments
        .iter()
        .map(|one| unsafe { std::slice::from_raw_parts(one.iov_base.cast(), one.iov_len) })
        .collect()
}

unsafe extern "C" fn close_fd(opaque: *mut c_void, fd: c_int) {
    // SAFETY: see `world`.
    unsafe { world(opaque) }.close(fd);
}

unsafe extern "C" fn clock(opaque: *mut c_void) -> u64 {
    // SAFETY: see `world`.
    unsafe { world(opaque) }.now()
}

unsafe extern "C" fn log(_: *mut c_void, level: c_int, line: *const c_char) {
    // SAFETY: the library gives a string.
    let line = unsafe { CStr::from_ptr(line) };
    assert!((1..=5).contains(&level) && line.to_str().is_ok_and(|line| !line.contains('\n')));
}
