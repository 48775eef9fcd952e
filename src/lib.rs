// SPDX-License-Identifier: GPL-2.0-or-later
//! Carries a POWER guest's hashed page table (HPT) through QEMU migration.
//!
//! A safe core under one thin C layer: [`save`] sweeps a [`source`] into a [`stream`], [`load`] reads one into a [`sink`],
//! and [`capi`] is how QEMU calls them. docs/design.md has the picture.
#![warn(missing_docs)]
// Allowed where memory is shared with C or with vCPUs, and for a system call: `capi`, `table`, `signals`.
#![deny(unsafe_code)]

mod capi;
mod error;
mod format;
mod host;
mod load;
mod lookup;
mod save;
mod stats;
mod sync;
mod table;

/// The modules behind the C interface, for this project's own tests, tools, benches and fuzz targets. Whatever is in here
/// may change at any time.
#[cfg(feature = "inside")]
#[allow(missing_docs)]
pub mod inside {
    macro_rules! wings {
        ($($wing:ident)*) => { $(pub mod $wing { pub use crate::$wing::*; })* };
    }
    wings!(capi error format host load lookup save stats sync table);
}

/// Sends the log to stderr, under RUST_LOG: for tools and tests in Rust. A logger that was set before stays.
#[cfg(feature = "env_logger")]
pub fn log_to_stderr() {
    // The only error is that there is a logger already.
    let _ = env_logger::try_init();
}

/// All that the static library exports, one a line.
#[rustfmt::skip]
pub mod exports {
    pub use crate::capi::lifetime::spapr_htab_abi_version;
    pub use crate::capi::lifetime::spapr_htab_free;
    pub use crate::capi::lifetime::spapr_htab_last_error;
    pub use crate::capi::save::spapr_htab_dirty_log_read;
    pub use crate::capi::load::spapr_htab_load;
    pub use crate::capi::load::spapr_htab_load_cleanup;
    pub use crate::capi::load::spapr_htab_load_finish;
    pub use crate::capi::lifetime::spapr_htab_new;
    pub use crate::capi::stats::spapr_htab_pass;
    pub use crate::capi::save::spapr_htab_quiesce;
    pub use crate::capi::lookup::spapr_htab_read_hptes;
    pub use crate::capi::save::spapr_htab_resume;
    pub use crate::capi::save::spapr_htab_resume_unchanged;
    pub use crate::capi::save::spapr_htab_save_cleanup;
    pub use crate::capi::save::spapr_htab_save_complete;
    pub use crate::capi::save::spapr_htab_save_iterate;
    pub use crate::capi::save::spapr_htab_save_pending;
    pub use crate::capi::save::spapr_htab_save_setup;
    pub use crate::capi::stats::spapr_htab_stats;
    pub use crate::capi::lifetime::spapr_htab_version;
    pub use crate::capi::save::spapr_htab_vm_state;
    pub use crate::capi::lookup::spapr_htab_write_hpte;
}
