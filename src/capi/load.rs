// SPDX-License-Identifier: GPL-2.0-or-later
//! The load side.

use super::call::{call, needs};
use super::handle::SpaprHtab;
use crate::load;
use crate::lock::lock;
use libc::{c_int, c_void};

/// Reads one body of the section from `stream` into the guest's table.
///
/// `version_id` is the section's; only 1 is known. A body that announces a table calls `table_allocate`, one that
/// announces none `table_free`, and one with records first `table`. The vCPUs are stopped. `get` may yield; other
/// functions may be called on the handle meanwhile, but not this one.
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
        let _loading = handle.loading.try_enter("load")?;
        let mut report = lock(&handle.loaded).clone();
        let result = load::load(&handle.host, &mut handle.host.stream(stream), version_id, &mut report);
        *lock(&handle.loaded) = report;
        result.map(|()| 0)
    })
}

/// Ends an incoming migration, whatever became of it, and logs what was loaded. Fine without a load.
///
/// Returns 0, or -EINVAL for a NULL handle.
///
/// # Safety
/// The contract of [`crate::capi`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_load_cleanup(handle: *mut SpaprHtab) -> c_int {
    call(handle, |handle| {
        let report = lock(&handle.loaded).clone();
        if report.bodies > 0 {
            log::info!("spapr/htab: {report}");
        }
        Ok(0)
    })
}
