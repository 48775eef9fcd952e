// SPDX-License-Identifier: GPL-2.0-or-later
//! Carries a POWER guest's hashed page table (HPT) through QEMU migration.
#![warn(missing_docs)]

pub mod capi;
pub mod clock;
pub mod error;
pub mod feed;
pub mod host;
pub mod hpte;
pub mod load;
pub mod lock;
pub mod lookup;
pub mod record;
pub mod report;
pub mod save;
pub mod sink;
pub mod source;
pub mod stream;
pub mod table;
