// SPDX-License-Identifier: GPL-2.0-or-later
//! The load side.

use super::call::{call, needs};
use super::handle::SpaprHtab;
use crate::sync::lock::lock;
use libc::{c_int, c_void};

/// Reads one body of the section from `stream` into the guest's table.
///
/// `version_id` is the section's; only 1 is known. A body that announces a table calls `table_allocate`, one that
/// announces none `table_free`, and one with records first `table`. The vCPUs are stopped. `get` may yield; other
/// functions may be called on the handle meanwhile, but not this one.
///
/// With SPAPR_HTAB_GATHER what came for a table in the kernel may not be in it yet; spapr_htab_load_finish sees to that.
///
/// Returns 0 or -errno: -EINVAL for another version, an order outside 18 to 36, a record outside the table or without
/// one, or an entry that the kernel does not take; -EIO for a stream that ended early or an entry that the kernel
/// refuses; -EBUSY if vCPUs run; -ENOMEM; the host's errors. After a failure the table is not to be used; the record that was
/// refused was not loaded, and no fd is left open.
///
/// # Safety
/// The contract of [`crate::capi`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_load(
    handle: *mut SpaprHtab,
    stream: *mut c_void,
    version_id: c_int,
) -> c_int {
    call(handle, |handle| {
        let calls = &handle.host.calls;
        needs(calls.get.is_some(), "the host structure has no get callback")?;
        needs(calls.table_allocate.is_some(), "the host structure has no table_allocate callback")?;
        needs(calls.table_free.is_some(), "the host structure has no table_free callback")?;
        let mut loading = handle.loading.try_enter("load")?;
        let result = loading.load(&handle.host, &mut handle.host.stream(stream), version_id);
        *lock(&handle.loaded) = loading.stats().clone();
        result.map(|()| 0)
    })
}

/// Loads what SPAPR_HTAB_GATHER let wait. To be called when all sections have come, before the guest runs; fine without
/// the flag, without a load, and again. Records that come after it do not wait.
///
/// QEMU: the machine's post_load, as the core loads the machine after the tables' last sections. The vCPUs are stopped.
///
/// Returns 0 or -errno, as spapr_htab_load for records that the kernel refuses; -EINVAL if the table was replaced meanwhile.
///
/// # Safety
/// The contract of [`crate::capi`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_load_finish(handle: *mut SpaprHtab) -> c_int {
    call(handle, |handle| {
        let mut loading = handle.loading.try_enter("load")?;
        let result = loading.finish(&handle.host);
        *lock(&handle.loaded) = loading.stats().clone();
        result.map(|()| 0)
    })
}

/// Ends an incoming migration, whatever became of it, and logs what was loaded. Fine without a load. What waits is not
/// loaded any more.
///
/// Returns 0, or -EINVAL for a NULL handle.
///
/// # Safety
/// The contract of [`crate::capi`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_load_cleanup(handle: *mut SpaprHtab) -> c_int {
    call(handle, |handle| {
        let abandoned = match handle.loading.try_enter("load") {
            Ok(mut loading) => loading.abandon(),
            // A load that is under way keeps its records.
            Err(_) => 0,
        };
        if abandoned > 0 {
            log::warn!("spapr/htab: the migration ended before {abandoned} records were loaded");
        }
        let report = lock(&handle.loaded).clone();
        if report.bodies > 0 {
            log::info!("spapr/htab: {report}");
        }
        Ok(0)
    })
}
