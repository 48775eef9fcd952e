// SPDX-License-Identifier: GPL-2.0-or-later
//! The handle: its life, its last error, and which library this is.

use super::call::write_out;
use super::host::CHost;
use super::log;
use super::types::{SPAPR_HTAB_COMPARE, SPAPR_HTAB_GATHER, SPAPR_HTAB_READ_AHEAD, SpaprHtabHost};
use crate::error::Error;
use crate::load::Loader;
use crate::save::Saver;
use crate::save::reader::DEFAULT_QUEUE_BYTES;
use crate::save::session::SaveOptions;
use crate::save::sweep::DutyCycle;
use crate::stats::LoadStats;
use crate::sync::lock::{Exclusive, lock};
use ::log::LevelFilter;
use libc::{c_char, c_int};
use std::panic::catch_unwind;
use std::sync::Mutex;

/// The number that changes when a program built for an older library can no longer use this one.
pub const SPAPR_HTAB_ABI_VERSION: u32 = 1;

/// One guest's hash table on its way through migrations. Opaque.
pub struct SpaprHtab {
    pub(super) host: CHost,
    pub(super) saver: Saver,
    pub(super) loading: Exclusive<Loader>,
    pub(super) loaded: Mutex<LoadStats>,
    pub(super) last_error: Mutex<String>,
}

impl SpaprHtab {
    pub(super) fn log_sink(&self) -> log::Sink {
        let calls = &self.host.calls;
        log::Sink { opaque: calls.opaque, log: calls.log, level: log::level(calls.log_level) }
    }

    pub(super) fn save_options(&self) -> SaveOptions {
        let calls = &self.host.calls;
        let queue_bytes = match calls.queue_bytes {
            0 => DEFAULT_QUEUE_BYTES,
            bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
        };
        SaveOptions {
            compare: calls.flags & SPAPR_HTAB_COMPARE != 0,
            duty: DutyCycle::new(calls.sweep_share).unwrap_or(DutyCycle::DEFAULT),
            ahead: (calls.flags & SPAPR_HTAB_READ_AHEAD != 0).then_some(queue_bytes),
        }
    }
}

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
    let known = size.min(size_of::<SpaprHtabHost>());
    // SAFETY: the caller's structure has `size` bytes; a SpaprHtabHost of zeros is valid (no callback, null pointers)
    // and so is one with its beginning copied from the caller's.
    let (copy, beyond) = unsafe {
        let mut copy: SpaprHtabHost = std::mem::zeroed();
        (&raw mut copy).cast::<u8>().copy_from_nonoverlapping(host.cast(), known);
        (copy, std::slice::from_raw_parts(host.cast::<u8>().add(known), size - known))
    };
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

/// Makes a handle and stores it in `*out`.
///
/// `host` is copied; what its pointers point to must live until the handle is freed. One handle serves one guest, for
/// any number of saves and loads. Any thread, any lock.
///
/// Returns 0, or -EINVAL if `host` or `out` is NULL or `host` is not as SpaprHtabHost says.
///
/// # Safety
/// The contract of [`crate::capi`].
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

/// Frees a handle; NULL is fine. A save that was not cleaned up ends; its file descriptor is closed.
///
/// No other call on the handle may be running or follow.
///
/// # Safety
/// The contract of [`crate::capi`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_free(handle: *mut SpaprHtab) {
    if handle.is_null() {
        return;
    }
    // A panic in a destructor must not cross the border; there is no one to tell.
    let _ = catch_unwind(|| {
        // SAFETY: by the contract, `handle` came from `Box::into_raw` in `spapr_htab_new` and is used no more.
        let handle = unsafe { Box::from_raw(handle) };
        let _routed = log::Routed::to(handle.log_sink());
        drop(handle);
    });
}

/// Copies the sentence that says what last failed, and what to do, to `buf`: as much of it as fits in `size` bytes with
/// the NUL at its end. The text is UTF-8 in one line; empty if nothing failed yet.
///
/// Returns the length of the whole sentence, without the NUL; 0 if `handle` is NULL. Any thread, any lock; another thread's
/// failure may come between.
///
/// # Safety
/// The contract of [`crate::capi`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_last_error(
    handle: *const SpaprHtab,
    size: usize,
    buf: *mut c_char,
) -> usize {
    // SAFETY: by the contract, the handle is NULL or live.
    let Some(handle) = (unsafe { handle.as_ref() }) else { return 0 };
    let sentence = lock(&handle.last_error).clone();
    if size > 0 && !buf.is_null() {
        let mut fits = sentence.len().min(size - 1);
        while !sentence.is_char_boundary(fits) {
            fits -= 1;
        }
        // SAFETY: the caller gave `size` bytes at `buf`; `fits` + 1 of them are written.
        unsafe {
            buf.cast::<u8>().copy_from_nonoverlapping(sentence.as_ptr(), fits);
            buf.add(fits).write(0);
        }
    }
    sentence.len()
}

/// The library's version, "MAJOR.MINOR.PATCH"; a constant string.
#[unsafe(no_mangle)]
pub extern "C" fn spapr_htab_version() -> *const c_char {
    const VERSION: &std::ffi::CStr =
        match std::ffi::CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("the package's version has a NUL"),
        };
    VERSION.as_ptr()
}

/// SPAPR_HTAB_ABI_VERSION of the library that is linked in, to be compared with the header's.
#[unsafe(no_mangle)]
pub extern "C" fn spapr_htab_abi_version() -> u32 {
    SPAPR_HTAB_ABI_VERSION
}
