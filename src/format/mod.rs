// SPDX-License-Identifier: GPL-2.0-or-later
//! The bytes of entries, records and section bodies. Nothing here reads or writes anything.

pub mod crc;
pub mod hpte;
pub mod record;
pub mod section;
