// SPDX-License-Identifier: GPL-2.0-or-later
//! A panic on demand, for the test that it stays inside: no input is known to cause one. Only in an archive that
//! scripts/test-c builds for itself with `--cfg spapr_htab_test_panic`.

use super::call::call;
use super::handle::SpaprHtab;
use libc::c_int;

/// Panics inside the library, as a bug in it would.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spapr_htab_test_panic(handle: *mut SpaprHtab) -> c_int {
    call(handle, |_| panic!("asked for by a test"))
}
