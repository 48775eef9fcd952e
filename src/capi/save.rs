// SPDX-License-Identifier: GPL-2.0-or-later
//! The save side.

use super::call::{call, needs, write_out};
use super::handle::SpaprHtab;
use crate::host::{Clock, Nanos};
use crate::save::Progress;
use libc::{c_int, c_void};

/// Begins a save: writes the section's first body, which is the table's size or that there is none, and begins to track
/// changes. Ends a save that was under way.
///
/// With a table in the kernel its fd is opened here, so that a kernel that cannot do it fails the migration at once.
///
/// - `stream`: given to the callback `put`; used during the call only.
///
/// Returns 0 or -errno: the host's from `table` and `put`; -EINVAL for a table order outside 18 to 36; -ENOTTY,
/// -EMFILE, -ENOMEM and the like from opening the fd; -EDEADLK if called from a stream callback. After an error the
/// save functions return that same error until the next setup or cleanup.
///
/// The caller holds whatever lock keeps the table from being replaced (QEMU: the BQL). Waits for another save function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_save_setup(handle: *mut SpaprHtab, stream: *mut c_void) -> c_int {
    call(handle, |handle| {
        needs(handle.host.calls.put.is_some(), "the host structure has no put callback")?;
        handle.saver.setup(&handle.host, &mut handle.host.stream(stream), handle.save_options())?;
        Ok(0)
    })
}

/// Writes one body with some of what there is to send, while the guest runs.
///
/// It ends when the time is over, the stream's rate limit is reached, or the end of the table is. With a table in
/// memory the time is kept to within 4096 slots. With one in the kernel a first pass takes longer by at most one read
/// of the smallest size (65,535 empty slots), but a later pass may need one read over the whole table, which nothing
/// can interrupt. With SPAPR_HTAB_READ_AHEAD the call sends what was read and waits for no read, except in two cases:
/// without a bound it waits for the end of the sweep, and while the VM is reported to be stopped it waits for more
/// until the time is over.
///
/// - `stream`: given to the callbacks `put` and `rate_limited`; used during the call only.
/// - `max_ns`: the time in nanoseconds; negative for no bound.
///
/// Returns 0 if there may be more; 1 if the last sweep of the whole table found nothing; -errno: -EINVAL before setup,
/// the host's from `put`, the kernel's, -EIO if the kernel's records make no sense, -ENOMEM, -EDEADLK if called from a
/// stream callback. After an error, -EDEADLK apart, the save functions return that same error until the next setup or
/// cleanup: a part of the stream may be missing.
///
/// Any thread, with or without the lock that keeps the table from being replaced (QEMU: the BQL). Waits for another
/// save function.
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

/// Writes one body with all that is left to send. The VM is stopped.
///
/// The table is read once around, from where iterate ended. Reads count that were begun since the stop, as reported by
/// spapr_htab_vm_state, and since the last spapr_htab_dirty_log_read; without a reported stop all is read here. May be
/// called again with the VM stopped again; if nothing changed since, the body is empty.
///
/// - `stream`: given to the callback `put`; used during the call only.
///
/// Returns 0 or -errno: as spapr_htab_save_iterate; -EAGAIN if the table was replaced by one of another size since the
/// last iterate, whose size can no longer be sent (migrate again); -EINVAL if the VM is reported to run meanwhile, or
/// the table is being replaced. After an error the guest can run on, and the save functions return that same error
/// until the next setup or cleanup.
///
/// The caller holds whatever lock keeps the table from being replaced (QEMU: the BQL). Waits for another save function,
/// and with SPAPR_HTAB_READ_AHEAD for the library's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_save_complete(handle: *mut SpaprHtab, stream: *mut c_void) -> c_int {
    call(handle, |handle| {
        needs(handle.host.calls.put.is_some(), "the host structure has no put callback")?;
        handle.saver.complete(&handle.host, &mut handle.host.stream(stream))?;
        Ok(0)
    })
}

/// Writes the section's end a second time, for a host that asks for it when the guest runs elsewhere already (QEMU 10.2
/// at the end of postcopy). If a complete has succeeded since the last setup, the body is empty, or says that there is
/// no table if the last one of the save is gone: what the table has become here since, by a reset, is not sent, and no
/// table is read. Else this is spapr_htab_save_complete.
///
/// - `stream`: given to the callback `put`; used during the call only.
///
/// Returns 0 or -errno: the host's from `put`; else as spapr_htab_save_complete.
///
/// As for spapr_htab_save_complete; after a complete, any lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_save_complete_again(
    handle: *mut SpaprHtab,
    stream: *mut c_void,
) -> c_int {
    call(handle, |handle| {
        needs(handle.host.calls.put.is_some(), "the host structure has no put callback")?;
        handle.saver.complete_again(&handle.host, &mut handle.host.stream(stream))?;
        Ok(0)
    })
}

/// Reports that the VM has stopped or is about to run. Optional: reads of the table since the stop then count for
/// spapr_htab_save_complete. A host that reports one reports all, whether a save is under way or not; until the first
/// report nothing is taken as known. QEMU: a VM state change handler.
///
/// - `running`: 0 if no vCPU runs any more; else the VM is about to run, and no vCPU runs yet.
///
/// Returns 0; -EINVAL for a NULL handle.
///
/// Any thread, any lock; waits for nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_vm_state(handle: *mut SpaprHtab, running: c_int) -> c_int {
    call(handle, |handle| {
        handle.saver.vm_state(running != 0);
        Ok(0)
    })
}

/// Reports that the VM's dirty log was read (KVM_GET_DIRTY_LOG). The kernel then takes up reference and change bits
/// that the hardware has set, and so may change entries though the VM is stopped: with a reported stop, only reads of
/// the table that begin after this call count for spapr_htab_save_complete. A host that reports stops and reads the
/// dirty log after them reports each such reading. QEMU: after RAM's last synchronization of its dirty bitmap. Without
/// reported stops this is fine and has no effect.
///
/// Returns 0; -EINVAL for a NULL handle.
///
/// Any thread, any lock; waits for nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_dirty_log_read(handle: *mut SpaprHtab) -> c_int {
    call(handle, |handle| {
        handle.saver.disturbed();
        Ok(0)
    })
}

/// Ends a save, whatever became of it: ends the library's thread, closes the fd, frees buffers. The statistics stay.
/// Fine without a setup.
///
/// Returns 0; -EINVAL for a NULL handle; -EDEADLK if called from a stream callback.
///
/// Any thread, any lock; waits for another save function and for a read of the table that is under way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_save_cleanup(handle: *mut SpaprHtab) -> c_int {
    call(handle, |handle| handle.saver.cleanup().map(|()| 0))
}

/// Stores an estimate of what is still to be sent: exactly what was read and waits, and of what is still to be read,
/// what is left of the first pass at the density seen so far, or one entry in each group of 8 slots if that is more,
/// then as much as the last sweep sent. The table is not read.
///
/// After a complete it is 0 until the next setup or iterate, whatever a reset or lookups leave meanwhile. It is 0, too,
/// if 1 second has passed since setup or the last iterate ended: a host that does not call iterate must not wait for
/// what only iterate sends. `save_pending` of SpaprHtabStats stays the estimate then. It is 0 without a table and
/// outside a save.
///
/// - `out`: where the bytes are stored.
///
/// Returns 0; -EINVAL for a NULL; what an earlier save function failed with.
///
/// Any thread, any lock. Waits for a read of the table that another call is in, but not for one of the library's
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_save_pending(handle: *const SpaprHtab, out: *mut u64) -> c_int {
    call(handle, |handle| {
        let pending = handle.saver.awaited(handle.host.now())?;
        write_out(&pending, size_of::<u64>(), out).map(|()| 0)
    })
}

/// Says that the table is about to be freed or replaced (reset, resize, a switch to radix): when this returns, nothing
/// of the library reads it. Fine outside a save.
///
/// Until spapr_htab_resume or spapr_htab_resume_unchanged, iterate writes empty bodies, complete fails, and so do
/// lookups; a setup writes that there is no table, and the size follows. The kernel's fd stays open, unread.
///
/// Returns 0; -EINVAL for a NULL handle.
///
/// The caller holds the lock under which the table is replaced (QEMU: the BQL). Waits for a read of the table that is
/// under way, not for the stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_quiesce(handle: *mut SpaprHtab) -> c_int {
    call(handle, |handle| {
        handle.saver.quiesce();
        Ok(0)
    })
}

/// Says that the table was replaced, by one of the same size or not, or is gone: the size that `table` gives now is
/// sent, then all of it. Fine, and without effect, when nothing was quiesced.
///
/// Returns 0 or -errno as spapr_htab_save_setup. After an error the save functions return that same error until the
/// next setup or cleanup.
///
/// The caller holds the lock under which the table was replaced (QEMU: the BQL). Waits for a save function that reads
/// the table.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_resume(handle: *mut SpaprHtab) -> c_int {
    call(handle, |handle| handle.saver.resume(&handle.host).map(|()| 0))
}

/// Says that the table was not replaced after all, such as when a resize failed: it is the same one, with the same
/// content but for changes that the kernel or QEMU has marked. Nothing is sent again. If `table` describes another
/// table than before, this is spapr_htab_resume. Fine, and without effect, when nothing was quiesced.
///
/// Returns 0; -EINVAL for a NULL handle; as spapr_htab_resume if there is another table, or if spapr_htab_save_setup
/// was called since the quiesce.
///
/// As for spapr_htab_resume.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_resume_unchanged(handle: *mut SpaprHtab) -> c_int {
    call(handle, |handle| handle.saver.resume_unchanged(&handle.host).map(|()| 0))
}
