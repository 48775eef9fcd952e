// SPDX-License-Identifier: GPL-2.0-or-later
//! What every exported function does around its work.

use super::handle::SpaprHtab;
use super::log::Routed;
use crate::error::{Error, panicked};
use crate::sync::lock::lock;
use libc::{c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs an exported function's work: checks the handle, routes the log, stops panics, keeps the sentence of an error.
pub fn call(handle: *const SpaprHtab, work: impl FnOnce(&SpaprHtab) -> Result<c_int, Error>) -> c_int {
    // SAFETY: by the contract of `capi`, a handle that is not NULL is one that `spapr_htab_new` made and that nobody
    // frees during the call; it is only ever shared.
    let Some(handle) = (unsafe { handle.as_ref() }) else { return -libc::EINVAL };
    let _routed = Routed::to(handle.log_sink());
    // What a panic leaves half done is either behind `Saver::fail` below or of no further use.
    let result = catch_unwind(AssertUnwindSafe(|| work(handle))).unwrap_or_else(|panic| {
        let error = panicked(panic.as_ref());
        handle.saver.fail(error.clone());
        Err(error)
    });
    result.unwrap_or_else(|error| {
        log::error!("spapr/htab: {error}");
        let errno = error.errno().number();
        *lock(&handle.last_error) = error.to_string();
        -errno
    })
}

/// Refuses a call that the host is not made for.
pub fn needs(there: bool, what: &'static str) -> Result<(), Error> {
    if there { Ok(()) } else { Err(Error::Argument(what)) }
}

/// Reads the caller's `size` bytes at `from` over `known`. What the caller does not know stays; what we do not know is
/// left unread. `T` is one of the structures of `types`: any bytes that the caller may give make one.
pub fn read_over<T: Copy>(mut known: T, size: usize, from: *const T) -> Result<T, Error> {
    if from.is_null() || size == 0 {
        return Err(Error::Argument("the structure is NULL or empty"));
    }
    // SAFETY: the caller said that `size` bytes at `from` may be read; as many as `known` has at most are written to
    // it, which is a local of ours.
    unsafe {
        let known = (&raw mut known).cast::<u8>();
        known.copy_from_nonoverlapping(from.cast(), size.min(size_of::<T>()));
    }
    Ok(known)
}

/// Writes a text to the caller's `size` bytes at `buf`: as much as fits, and a NUL. Returns the length of the whole.
pub fn write_text(text: &str, size: usize, buf: *mut c_char) -> usize {
    if size > 0 && !buf.is_null() {
        let mut fits = text.len().min(size - 1);
        while !text.is_char_boundary(fits) {
            fits -= 1;
        }
        // SAFETY: the caller gave `size` bytes at `buf`; `fits` + 1 of them are written.
        unsafe {
            buf.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), fits);
            buf.add(fits).write(0);
        }
    }
    text.len()
}

/// Writes `value` to the caller's `size` bytes at `out`: the fields that both sides know, zeros for those that only the
/// caller knows.
pub fn write_out<T: Copy>(value: &T, size: usize, out: *mut T) -> Result<(), Error> {
    if out.is_null() || size == 0 {
        return Err(Error::Argument("the place for the result is NULL or empty"));
    }
    let known = size.min(size_of::<T>());
    // SAFETY: the caller said that `size` bytes at `out` are its own to be written; `value` has at least `known` bytes,
    // and the two do not overlap, since `value` is a local of ours.
    unsafe {
        out.cast::<u8>().write_bytes(0, size);
        out.cast::<u8>().copy_from_nonoverlapping(std::ptr::from_ref(value).cast(), known);
    }
    Ok(())
}
