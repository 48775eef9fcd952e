// SPDX-License-Identifier: GPL-2.0-or-later
//! Statistics.

use super::call::{call, write_out, write_text};
use super::handle::SpaprHtab;
use super::types::{
    SPAPR_HTAB_READER_FULL, SPAPR_HTAB_READER_NONE, SPAPR_HTAB_READER_PARKED, SPAPR_HTAB_READER_READING,
    SpaprHtabPass, SpaprHtabStats, SpaprHtabSum,
};
use crate::error::Error;
use crate::format::hpte::Order;
use crate::format::record::Tally;
use crate::host::Nanos;
use crate::save::queue::Activity;
use crate::stats::SaveStats;
use crate::sync::lock::lock;
use libc::{c_char, c_int};

fn figures(tally: Tally, time: Nanos) -> SpaprHtabPass {
    let Tally { records, valid, invalid, bytes } = tally;
    SpaprHtabPass { records, valid, invalid, bytes, time_ns: time.0 }
}

/// Stores what the last save and load did, or are doing.
///
/// - `size`: the size of the structure as the caller knows it. Fields that the library does not know are set to 0;
///   fields beyond `size` are not written.
/// - `out`: the structure.
///
/// Returns 0; -EINVAL for a NULL or a size of 0.
///
/// Any thread, any lock, at any time; waits for nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_stats(
    handle: *const SpaprHtab,
    size: usize,
    out: *mut SpaprHtabStats,
) -> c_int {
    call(handle, |handle| write_out(&stats(handle, &handle.saver.stats()), size, out).map(|()| 0))
}

fn stats(handle: &SpaprHtab, save: &SaveStats) -> SpaprHtabStats {
    let load = lock(&handle.loaded).clone();
    let save_time = save.passes.iter().map(|pass| pass.time).sum();
    let (save_records, save_bytes) = save.since_size();
    let queue = handle.saver.queue();
    SpaprHtabStats {
        save_order: save.order.map_or(0, Order::log2_bytes),
        save_crc32: save.crc.value(),
        save_passes: save.passes.len() as u64,
        save_pending: save.pending,
        save_total: figures(save.total(), save_time),
        save_stopped: figures(save.stopped.tally, save.stopped.time),
        save_looked_up: figures(save.looked_up, Nanos(0)),
        load_total: figures(load.tally, load.time),
        load_sections: load.bodies,
        load_demoted: load.demoted,
        load_crc32: load.crc.value(),
        reserved: 0,
        save_queue_bytes: queue.bytes() as u64,
        save_reader: match queue.activity() {
            None => SPAPR_HTAB_READER_NONE,
            Some(Activity::Reading) => SPAPR_HTAB_READER_READING,
            Some(Activity::Parked) => SPAPR_HTAB_READER_PARKED,
            Some(Activity::Full) => SPAPR_HTAB_READER_FULL,
        },
        reserved2: 0,
        save_records,
        save_bytes,
    }
}

/// Stores what the save sent since its table's size: `save_order`, `save_crc32`, `save_records` and `save_bytes` of
/// SpaprHtabStats, for spapr_htab_load_check on the destination.
///
/// - `size`, `out`: as for spapr_htab_stats.
///
/// Returns 0; -EINVAL for a NULL or a size of 0.
///
/// Any thread, any lock, at any time; waits for nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_save_sum(
    handle: *const SpaprHtab,
    size: usize,
    out: *mut SpaprHtabSum,
) -> c_int {
    call(handle, |handle| {
        let SpaprHtabStats {
            save_order: order,
            save_crc32: crc32,
            save_records: records,
            save_bytes: bytes,
            ..
        } = stats(handle, &handle.saver.stats());
        write_out(&SpaprHtabSum { order, crc32, records, bytes }, size, out).map(|()| 0)
    })
}

/// Stores what one pass of the last save sent.
///
/// - `pass`: which, counted from 1. From the 256th on passes are added up in one.
/// - `size`, `out`: as for spapr_htab_stats.
///
/// Returns 0; -EINVAL for a NULL, a size of 0 or a pass that was not begun.
///
/// Any thread, any lock, at any time; waits for nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_pass(
    handle: *const SpaprHtab,
    pass: u64,
    size: usize,
    out: *mut SpaprHtabPass,
) -> c_int {
    call(handle, |handle| {
        let save = handle.saver.stats();
        let at = usize::try_from(pass).ok().and_then(|pass| save.passes.get(pass.checked_sub(1)?));
        let begun = at.ok_or(Error::Argument("this pass was not begun"))?;
        write_out(&figures(begun.tally, begun.time), size, out).map(|()| 0)
    })
}

/// Writes a text of several lines, each with a newline at its end, for people: the library's version, what the last
/// save and load did, or are doing, and each pass of the save. It may change with any version.
///
/// - `size`, `buf`: as for spapr_htab_last_error.
///
/// Returns the length in bytes of the whole text, without the NUL; 0 if `handle` is NULL. A save that is under way may
/// have lengthened it when it is asked for again.
///
/// Any thread, any lock, at any time; waits for nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_describe(
    handle: *const SpaprHtab,
    size: usize,
    buf: *mut c_char,
) -> usize {
    let mut len = 0;
    call(handle, |handle| {
        len = write_text(&description(handle), size, buf);
        Ok(0)
    });
    len
}

fn description(handle: &SpaprHtab) -> String {
    let save = handle.saver.stats();
    let stats = stats(handle, &save);
    let line = |what: &str, pass: SpaprHtabPass| {
        let SpaprHtabPass { records, valid, invalid, bytes, time_ns } = pass;
        let us = time_ns / 1000;
        format!("  {what}: {valid} valid, {invalid} invalid, {records} records, {bytes} bytes, {us} us\n")
    };
    let passes = (1..).zip(&save.passes);
    let passes = passes.map(|(nth, pass)| line(&format!("pass {nth}"), figures(pass.tally, pass.time)));
    [
        format!("spapr-htab {}\n", env!("CARGO_PKG_VERSION")),
        format!(
            "saved: order {}, CRC-32 {:08x}, pending {} bytes\n",
            stats.save_order, stats.save_crc32, stats.save_pending
        ),
        passes.collect(),
        line("all", stats.save_total),
        line("stopped", stats.save_stopped),
        line("looked up", stats.save_looked_up),
        format!(
            "loaded: {} sections, CRC-32 {:08x}, {} demoted\n",
            stats.load_sections, stats.load_crc32, stats.load_demoted
        ),
        line("all", stats.load_total),
    ]
    .concat()
}
