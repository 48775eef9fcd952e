// SPDX-License-Identifier: GPL-2.0-or-later
//! Carries a POWER guest's hashed page table (HPT) through QEMU migration.
//!
//! # The table
//!
//! The hardware of a POWER guest in hash mode translates addresses by one table, the HPT. Its size is a power of two,
//! and the exponent is its *order*: a table of order 24 has 16 MiB. It is an array of *slots* of 16 bytes, 8 of which
//! make a group (HPTEG). A slot holds an entry (HPTE) or is invalid. The guest's operating system asks for entries to
//! be entered, changed and removed by hypercalls; it may ask that an entry be *bolted*, never to be evicted. Under
//! KVM-HV the table is in the kernel; under TCG and KVM-PR it is in QEMU's memory.
//!
//! # How it migrates
//!
//! The guest runs while its table is copied, and changes it. So the source *sweeps* over the table, from slot 0 to the
//! end, again and again. The first sweep is the *first pass* and reports all of the table; each later pass reports what
//! changed since it was last reported. A read of the source gives a *chunk* of *records*: a record says of some
//! consecutive slots which entries they hold, and that some slots after them are invalid. When the guest is stopped, a
//! last sweep reports what is left. The time for which the guest stands still is its *downtime*.
//!
//! QEMU cuts this into sections of its migration stream, called `spapr/htab`. This library writes and reads the bodies
//! of these sections, between QEMU's headers and footers.
//!
//! # The wings
//!
//! | module | what it knows |
//! |---|---|
//! | `format` | the bytes of entries, records and bodies; no I/O |
//! | `host` | what the program around the library supplies: streams, a clock, the guest's table, the kernel's fd |
//! | `table` | a table in memory that vCPUs change meanwhile |
//! | `save` | the way out: a source is read into a queue, and sent from there |
//! | `load` | the way in: records are gathered into batches, and handed to a sink |
//! | `lookup` | single entries for a debugger, while a save is under way or not |
//! | `stats` | what a save or a load did, in figures |
//! | `error` | all that can go wrong: one errno and one sentence for each |
//! | `sync` | locks, signals, and the switch to loom |
//! | `capi` | the C interface; the others know nothing of it |
//!
//! docs/design.md in the sources has the reasons, docs/stream-format.md and docs/kernel-fd.md the two formats.
#![warn(missing_docs)]
// Allowed where memory is shared with C or with vCPUs, and for a system call: `capi`, `table`, `sync::signals`.
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

/// The modules behind the C interface, for this project's own tests, tools, benches and fuzz targets. Whatever is in
/// here may change at any time.
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
    pub use crate::capi::stats::spapr_htab_describe;
    pub use crate::capi::lifetime::spapr_htab_free;
    pub use crate::capi::lifetime::spapr_htab_last_error;
    pub use crate::capi::save::spapr_htab_dirty_log_read;
    pub use crate::capi::load::spapr_htab_load;
    pub use crate::capi::load::spapr_htab_load_check;
    pub use crate::capi::load::spapr_htab_load_cleanup;
    pub use crate::capi::load::spapr_htab_load_discard;
    pub use crate::capi::load::spapr_htab_load_finish;
    pub use crate::capi::lifetime::spapr_htab_new;
    pub use crate::capi::stats::spapr_htab_pass;
    pub use crate::capi::save::spapr_htab_quiesce;
    pub use crate::capi::lookup::spapr_htab_read_hptes;
    pub use crate::capi::save::spapr_htab_resume;
    pub use crate::capi::save::spapr_htab_resume_unchanged;
    pub use crate::capi::save::spapr_htab_save_cleanup;
    pub use crate::capi::save::spapr_htab_save_complete;
    pub use crate::capi::save::spapr_htab_save_complete_again;
    pub use crate::capi::save::spapr_htab_save_iterate;
    pub use crate::capi::save::spapr_htab_save_pending;
    pub use crate::capi::save::spapr_htab_save_setup;
    pub use crate::capi::stats::spapr_htab_save_sum;
    pub use crate::capi::stats::spapr_htab_stats;
    pub use crate::capi::lifetime::spapr_htab_version;
    pub use crate::capi::save::spapr_htab_vm_state;
    pub use crate::capi::lookup::spapr_htab_write_hpte;
}
