// SPDX-License-Identifier: GPL-2.0-or-later
//! Single entries, for whoever looks into the guest's table outside a migration.

use super::call::call;
use super::handle::SpaprHtab;
use crate::error::Error;
use crate::format::hpte::{Hpte, Slot};
use crate::lookup;
use libc::{c_int, c_void};

/// Reads entries as the guest's hardware sees them, big-endian. Invalid slots of a table in the kernel read as zeros,
/// and 0x40 of the first doubleword is 0.
///
/// May be called while a save is under way: the kernel then takes changes as reported that were not sent, and so they
/// are sent. If the lookup fails, the whole table is sent again.
///
/// - `first`: the first slot.
/// - `count`: how many entries.
/// - `out`: where they are stored, `16 * count` bytes.
///
/// Returns 0 or -errno: -EINVAL for slots outside the table or a NULL; -ENOMEM; the kernel's errors.
///
/// Any thread; the caller holds whatever lock keeps the table from being replaced (QEMU: the BQL). Waits for a read of
/// the table that is under way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_read_hptes(
    handle: *mut SpaprHtab,
    first: u64,
    count: usize,
    out: *mut c_void,
) -> c_int {
    call(handle, |handle| {
        if out.is_null() {
            return Err(Error::Argument("the place for the entries is NULL"));
        }
        let entries = lookup::read_hptes(&handle.host, &handle.saver, Slot(first), count as u64)?;
        // SAFETY: the caller gave `16 * count` bytes at `out`, which are not in our vector.
        unsafe {
            out.cast::<u8>().copy_from_nonoverlapping(entries.as_ptr(), entries.len());
        }
        Ok(0)
    })
}

/// Replaces one entry. With a table in the kernel the vCPUs are stopped. A save that is under way sends it.
///
/// - `slot`: which.
/// - `v`, `r`: its doublewords in host byte order. Without the valid bit (1) in `v` the slot becomes invalid.
///
/// Returns 0 or -errno: -EINVAL for a slot outside the table or an entry that the kernel does not take; -EBUSY if vCPUs
/// run; -EIO if the kernel refuses the entry.
///
/// As for spapr_htab_read_hptes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_write_hpte(handle: *mut SpaprHtab, slot: u64, v: u64, r: u64) -> c_int {
    call(handle, |handle| {
        lookup::write_hpte(&handle.host, &handle.saver, Slot(slot), Hpte { v, r }).map(|()| 0)
    })
}
