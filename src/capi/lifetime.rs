// SPDX-License-Identifier: GPL-2.0-or-later
//! The life of a handle, its last error, and which library this is.

use super::call::{read_over, write_out, write_text};
use super::handle::SpaprHtab;
use super::host::CHost;
use super::log;
use super::types::{SPAPR_HTAB_COMPARE, SPAPR_HTAB_GATHER, SPAPR_HTAB_READ_AHEAD, SpaprHtabHost};
use crate::error::Error;
use crate::load::Loader;
use crate::save::Saver;
use crate::save::sweep::DutyCycle;
use crate::sync::lock::{Exclusive, lock};
use ::log::LevelFilter;
use libc::{c_char, c_int};
use std::panic::catch_unwind;
use std::sync::Mutex;

/// The number that changes when a program built for an older library can no longer use this one.
pub const SPAPR_HTAB_ABI_VERSION: u32 = 1;

/// Reads a structure of the caller's, which may be older (shorter) or newer (longer) than ours.
fn read_host(host: *const SpaprHtabHost) -> Result<SpaprHtabHost, Error> {
    if host.is_null() {
        return Err(Error::Argument("the host structure is NULL"));
    }
    // SAFETY: the caller gave a structure that begins with its size, as every SpaprHtabHost does.
    let size = unsafe { (&raw const (*host).struct_size).read() };
    // The last field that the first version of the structure had.
    if size < std::mem::offset_of!(SpaprHtabHost, log_level) + size_of::<c_int>() {
        return Err(Error::Argument("the host structure's struct_size is too small"));
    }
    if size > 4096 {
        return Err(Error::Argument("the host structure's struct_size is too large"));
    }
    // SAFETY: a SpaprHtabHost of zeros is valid: no callback, null pointers.
    let copy = read_over(unsafe { std::mem::zeroed::<SpaprHtabHost>() }, size, host)?;
    let known = size.min(size_of::<SpaprHtabHost>());
    // SAFETY: the caller's structure has `size` bytes.
    let beyond = unsafe { std::slice::from_raw_parts(host.cast::<u8>().add(known), size - known) };
    if beyond.iter().any(|byte| *byte != 0) {
        return Err(Error::Argument(
            "the host structure asks for something that this library is too old for",
        ));
    }
    if copy.flags & !(SPAPR_HTAB_COMPARE | SPAPR_HTAB_READ_AHEAD | SPAPR_HTAB_GATHER) != 0
        || copy.reserved != 0
    {
        return Err(Error::Argument("the host structure has unknown flags"));
    }
    if copy.sweep_share != 0 && DutyCycle::new(copy.sweep_share).is_none() {
        return Err(Error::Argument("the host structure's sweep_share is no percentage"));
    }
    if copy.table.is_none() {
        return Err(Error::Argument("the host structure has no table callback"));
    }
    Ok(copy)
}

/// Makes a handle for one guest. It serves any number of saves and loads.
///
/// - `host`: what the library calls back. The structure is copied; what its pointers point to lives until the handle is
///   freed.
/// - `out`: where the handle is stored.
///
/// Returns 0; -EINVAL if `host` or `out` is NULL or `host` is not as SpaprHtabHost says.
///
/// Any thread, any lock; waits for nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_new(host: *const SpaprHtabHost, out: *mut *mut SpaprHtab) -> c_int {
    catch_unwind(|| {
        let made = read_host(host).and_then(|calls| {
            if out.is_null() {
                return Err(Error::Argument("the place for the handle is NULL"));
            }
            let level = if calls.log.is_some() { log::level(calls.log_level) } else { LevelFilter::Off };
            log::install(level);
            let handle = Box::into_raw(Box::new(SpaprHtab {
                host: CHost::new(calls),
                saver: Saver::default(),
                loading: Exclusive::new(Loader::new(calls.flags & SPAPR_HTAB_GATHER != 0)),
                loaded: Mutex::default(),
                last_error: Mutex::default(),
            }));
            write_out(&handle, size_of::<*mut SpaprHtab>(), out)
        });
        made.map_or_else(|error| -error.errno().number(), |()| 0)
    })
    .unwrap_or(-libc::ENOTRECOVERABLE)
}

/// Frees a handle. A save that was not cleaned up ends, and its file descriptor is closed.
///
/// - `handle`: NULL is fine. No other call on the handle is running, and none follows.
///
/// Any thread, any lock; waits for a read of the table by the library's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_free(handle: *mut SpaprHtab) {
    if handle.is_null() {
        return;
    }
    // A panic in a destructor must not cross the border; nobody could be informed.
    let _ = catch_unwind(|| {
        // SAFETY: by the contract, `handle` came from `Box::into_raw` in `spapr_htab_new` and is used no more.
        let handle = unsafe { Box::from_raw(handle) };
        let _routed = log::Routed::to(handle.log_sink());
        drop(handle);
    });
}

/// Copies the sentence that says what last failed, and what to do. It is UTF-8 in one line; empty if nothing failed
/// yet.
///
/// - `size`: bytes that may be written to `buf`.
/// - `buf`: takes as much of the sentence as fits, with a NUL at its end. NULL with a `size` of 0 asks for the length.
///
/// Returns the length in bytes of the whole sentence, without the NUL; 0 if `handle` is NULL.
///
/// Any thread, any lock; waits for nothing. Another thread's failure may come between a call and this one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_last_error(
    handle: *const SpaprHtab,
    size: usize,
    buf: *mut c_char,
) -> usize {
    // SAFETY: by the contract, the handle is NULL or live.
    let Some(handle) = (unsafe { handle.as_ref() }) else { return 0 };
    write_text(&lock(&handle.last_error).clone(), size, buf)
}

/// Which version of the library is linked in.
///
/// Returns "MAJOR.MINOR.PATCH", a constant string.
///
/// Any thread, any lock; waits for nothing.
#[unsafe(no_mangle)]
pub extern "C" fn spapr_htab_version() -> *const c_char {
    const VERSION: &std::ffi::CStr =
        match std::ffi::CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("the package's version has a NUL"),
        };
    VERSION.as_ptr()
}

/// Which interface the library that is linked in has.
///
/// Returns its SPAPR_HTAB_ABI_VERSION, to be compared with the header's.
///
/// Any thread, any lock; waits for nothing.
#[unsafe(no_mangle)]
pub extern "C" fn spapr_htab_abi_version() -> u32 {
    SPAPR_HTAB_ABI_VERSION
}
