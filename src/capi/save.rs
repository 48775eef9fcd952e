// SPDX-License-Identifier: GPL-2.0-or-later
//! The save side.

use super::call::{call, needs, write_out};
use super::handle::SpaprHtab;
use crate::host::Nanos;
use crate::save::Progress;
use libc::{c_int, c_void};

/// Begins to save: writes the section's first body (the table's size, or that there is none) to `stream` and begins to
/// track changes. Ends a save that was under way.
///
/// With a table in the kernel its fd is opened here, so that a kernel that cannot do it fails the migration at once.
///
/// Returns 0 or -errno: the host's from `table` and `put`; -EINVAL for a table order outside 18 to 36; -ENOTTY, -EMFILE,
/// -ENOMEM and the like from opening the fd; -EDEADLK if called from a stream callback. The caller holds whatever lock
/// keeps the table from being replaced (QEMU: BQL, or before any vCPU can reset).
///
/// # Safety
/// The contract of [`crate::capi`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_save_setup(handle: *mut SpaprHtab, stream: *mut c_void) -> c_int {
    call(handle, |handle| {
        needs(handle.host.calls.put.is_some(), "the host structure has no put callback")?;
        handle.saver.setup(&handle.host, &mut handle.host.stream(stream), handle.save_options())?;
        Ok(0)
    })
}

/// Writes one body of what there is to tell to `stream`, while the guest runs.
///
/// Ends when `max_ns` nanoseconds are over, the stream's rate limit is reached, or the end of the table is. A negative
/// `max_ns` sets no bound. With a table in memory the bound is kept to within 4096 slots. With one in the kernel, the
/// first pass is over by at most one read of the smallest size (65,535 empty slots), but a later pass may need one read
/// over the whole table, which nothing can interrupt. With SPAPR_HTAB_READ_AHEAD it sends what was read and waits for
/// no read; without a bound, or while the VM is told to be stopped, it waits for more as long as the bound is.
///
/// Returns 0 if there may be more, 1 if the last sweep of the whole table found nothing, or -errno: -EINVAL before setup, the
/// host's from `put`, the kernel's, -EIO if the kernel's records make no sense, -ENOMEM. Called with or without QEMU's BQL; not
/// at the same time as the other save functions (one waits for the other; -EDEADLK on the same thread).
///
/// # Safety
/// The contract of [`crate::capi`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_save_iterate(
    handle: *mut SpaprHtab,
    stream: *mut c_void,
    max_ns: i64,
) -> c_int {
    call(handle, |handle| {
        needs(handle.host.calls.put.is_some(), "the host structure has no put callback")?;
        let max = u64::try_from(max_ns).ok().map(Nanos);
        let progress = handle.saver.iterate(&handle.host, &mut handle.host.stream(stream), max)?;
        Ok(c_int::from(progress == Progress::Clean))
    })
}

/// Writes one body with all that is left to tell to `stream`. The VM is stopped.
///
/// Reads the table once around, from where iterate stopped. What was read since spapr_htab_vm_state told the stop counts;
/// without that call, all is read here.
///
/// May be called again, with the VM stopped again; if nothing changed since, the body is empty.
///
/// Returns 0 or -errno: as spapr_htab_save_iterate; -EAGAIN if the table was replaced by one of another size since the
/// last iterate (its size can no longer be sent: migrate again); -EINVAL if the VM is told to run meanwhile. After a
/// failure the guest can go on.
///
/// # Safety
/// The contract of [`crate::capi`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_save_complete(handle: *mut SpaprHtab, stream: *mut c_void) -> c_int {
    call(handle, |handle| {
        needs(handle.host.calls.put.is_some(), "the host structure has no put callback")?;
        handle.saver.complete(&handle.host, &mut handle.host.stream(stream))?;
        Ok(0)
    })
}

/// Tells that the VM has stopped (`running` 0: no vCPU runs any more) or is about to run (else: none runs yet). Optional:
/// reads of the table since the stop then count for spapr_htab_save_complete. A host that tells one tells all, whether a
/// save is under way or not; until the first call nothing is taken as known. QEMU: a VM state change handler.
///
/// Any thread, any lock; waits for nothing.
///
/// Returns 0, or -EINVAL for a NULL handle.
///
/// # Safety
/// The contract of [`crate::capi`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_vm_state(handle: *mut SpaprHtab, running: c_int) -> c_int {
    call(handle, |handle| {
        handle.saver.vm_state(running != 0);
        Ok(0)
    })
}

/// Ends a save, whatever became of it: ends the thread that reads ahead, closes the fd, frees buffers. The statistics stay. Fine without a setup.
///
/// Returns 0, or -EINVAL for a NULL handle, or -EDEADLK if called from a stream callback.
///
/// # Safety
/// The contract of [`crate::capi`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_save_cleanup(handle: *mut SpaprHtab) -> c_int {
    call(handle, |handle| handle.saver.cleanup().map(|()| 0))
}

/// Stores an estimate of the bytes still to be sent in `*out`: what is left of the first pass at the density seen so
/// far, or one entry in each group of 8 slots if that is more, then as much as the last sweep told. 0 after a complete,
/// without a table and outside a save.
///
/// What was read ahead and not sent is counted exactly.
///
/// Returns 0, or -EINVAL for a NULL. Does not read the table; waits for a read that another thread is in, but not for one
/// of the thread that reads ahead.
///
/// # Safety
/// The contract of [`crate::capi`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_save_pending(handle: *const SpaprHtab, out: *mut u64) -> c_int {
    call(handle, |handle| write_out(&handle.saver.pending()?, size_of::<u64>(), out).map(|()| 0))
}

/// The table is about to be freed or replaced (reset, resize, a switch to radix): when this returns, nothing of the
/// library reads it any more and the fd is closed. Fine, and without effect, outside a save.
///
/// Waits for a read of the table that is under way, not for the stream. Until spapr_htab_resume, iterate writes empty
/// bodies, complete fails, and so do lookups; a setup says that there is no table, and the size follows. QEMU: under the
/// BQL, as is the replacing.
///
/// Returns 0, or -EINVAL for a NULL handle.
///
/// # Safety
/// The contract of [`crate::capi`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_quiesce(handle: *mut SpaprHtab) -> c_int {
    call(handle, |handle| {
        handle.saver.quiesce();
        Ok(0)
    })
}

/// The table is in place again, of the same size or not, or gone: what `table` tells now is sent, its size first, then
/// all of it. Fine, and without effect, when nothing was quiesced.
///
/// Returns 0 or -errno as from spapr_htab_save_setup; iterate and complete then fail with the same error.
///
/// # Safety
/// The contract of [`crate::capi`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_resume(handle: *mut SpaprHtab) -> c_int {
    call(handle, |handle| handle.saver.resume(&handle.host).map(|()| 0))
}
