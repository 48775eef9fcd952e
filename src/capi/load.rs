// SPDX-License-Identifier: GPL-2.0-or-later
//! The load side.

use super::call::{call, needs, read_over};
use super::handle::SpaprHtab;
use super::host::LoadingHost;
use super::types::SpaprHtabSum;
use crate::error::Error;
use crate::format::hpte::Order;
use crate::format::record::Tally;
use crate::host::Host;
use crate::load::{Loader, discard};
use crate::sync::lock::{Entered, lock};
use libc::{c_int, c_void};

/// Reads one body of the section into the guest's table. The vCPUs are stopped.
///
/// A body with a table's size calls `table_allocate`, one that says there is none `table_free`; a save that is under
/// way on the same handle is quiesced before and resumed after. One with records calls `table` before it hands over any
/// of them, as often as there may be another table. With SPAPR_HTAB_GATHER what came for a table in the kernel may not
/// be in it when this returns; spapr_htab_load_finish sees to that.
///
/// - `stream`: given to the callbacks `get` and `stream_error`; used during the call only.
/// - `version_id`: the section's version; 1 is the only one known.
///
/// Returns 0 or -errno: -EINVAL for another version, an order outside 18 to 36, a record outside the table or without
/// one, a table that was replaced meanwhile, or an entry that the kernel does not take; -EIO for a stream that ended
/// early or an entry that the kernel refuses; -EBUSY if vCPUs run; -ENOMEM; -EDEADLK if another load is under way; the
/// host's errors. After an error the table is not to be used; nothing of the record that was refused was loaded, and no
/// fd is left open.
///
/// The caller holds whatever lock keeps the table from being replaced (QEMU: the BQL), except while `get` yields: other
/// functions may then be called on the handle, but not this one. A body with a size waits for a read of a save on the
/// same handle.
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
        let host = LoadingHost { host: &handle.host, saver: &handle.saver };
        let result = loading.load(&host, &mut handle.host.stream(stream), version_id);
        *lock(&handle.loaded) = loading.stats().clone();
        result.map(|()| 0)
    })
}

/// Reads one body of the section and throws it away, for a destination whose guest may already run (the end of postcopy
/// from a QEMU 10.2 without this library). The table is neither asked for nor written; statistics, the load's CRC and
/// records that wait do not change.
///
/// - `stream`, `version_id`: as for spapr_htab_load.
///
/// Returns 0 for an empty body, one with records and one that says there is no table; -errno: -EINVAL for one with a
/// table's size, as the table of a guest that may have run is not replaced, for another version, and for a record that
/// is in no table; -EIO for a stream that ended early; -ENOMEM; the host's from `get` and `stream_error`.
///
/// Any thread, any lock; waits for nothing but the stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_load_discard(
    handle: *mut SpaprHtab,
    stream: *mut c_void,
    version_id: c_int,
) -> c_int {
    call(handle, |handle| {
        needs(handle.host.calls.get.is_some(), "the host structure has no get callback")?;
        discard(&mut handle.host.stream(stream), version_id).map(|()| 0)
    })
}

/// Loads what SPAPR_HTAB_GATHER let wait. Called when all sections have come, before the guest runs; fine without the
/// flag, without a load, and again. Records that come after it do not wait. The vCPUs are stopped. QEMU: the machine's
/// post_load, as the machine is loaded after the tables' last sections.
///
/// Returns 0 or -errno, as spapr_htab_load for records.
///
/// As for spapr_htab_load.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_load_finish(handle: *mut SpaprHtab) -> c_int {
    call(handle, |handle| finish(handle).map(|_| 0))
}

fn finish(handle: &SpaprHtab) -> Result<Entered<'_, Loader>, Error> {
    let mut loading = handle.loading.try_enter("load")?;
    let result = loading.finish(&handle.host);
    *lock(&handle.loaded) = loading.stats().clone();
    result.map(|()| loading)
}

/// Does what spapr_htab_load_finish does, and compares what was loaded with what the source says it sent: the order of
/// the table that the guest has now, the number of records, their bytes and their CRC-32.
///
/// - `size`: the size of the structure as the caller knows it. Fields beyond it, and fields that the library does not
///   know, are not compared.
/// - `sent`: what spapr_htab_save_sum gave on the source after its complete.
///
/// Returns 0 if all is equal; -EBADMSG if not; -EINVAL for a NULL or a size of 0; as spapr_htab_load_finish; the host's
/// from `table`.
///
/// As for spapr_htab_load.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_load_check(
    handle: *mut SpaprHtab,
    size: usize,
    sent: *const SpaprHtabSum,
) -> c_int {
    call(handle, |handle| {
        let loaded = finish(handle)?.stats().clone();
        let order = handle.host.table()?.order().map_or(0, Order::log2_bytes);
        let Tally { records, bytes, .. } = loaded.tally;
        let came = SpaprHtabSum { order, crc32: loaded.crc.value(), records, bytes };
        let went = read_over(came, size, sent)?;
        let crc = |sum: SpaprHtabSum| format!("{:08x}", sum.crc32);
        let differences: Vec<String> = [
            ("order", came.order.to_string(), went.order.to_string()),
            ("CRC-32", crc(came), crc(went)),
            ("records", records.to_string(), went.records.to_string()),
            ("bytes", bytes.to_string(), went.bytes.to_string()),
        ]
        .into_iter()
        .filter(|(_, came, went)| came != went)
        .map(|(what, came, went)| format!("{what} {came} came, {went} went"))
        .collect();
        if differences.is_empty() { Ok(0) } else { Err(Error::NotAsSent(differences.join("; "))) }
    })
}

/// Ends an incoming migration, whatever became of it, and logs what was loaded. What waits is not loaded any more. Fine
/// without a load.
///
/// Returns 0; -EINVAL for a NULL handle.
///
/// Any thread, any lock; waits for nothing.
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
        let stats = lock(&handle.loaded).clone();
        if stats.bodies > 0 {
            log::info!("spapr/htab: {stats}");
        }
        Ok(0)
    })
}
