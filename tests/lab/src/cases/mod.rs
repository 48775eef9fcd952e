// SPDX-License-Identifier: GPL-2.0-or-later
//! The cases: each a claim about saving and loading a kernel's table.

mod changes;
mod lookups;
mod replacing;
mod tables;

use crate::table::Outcome;
use htab_model::vm::VmFactory;

/// A claim's name and its check.
pub type Case = (&'static str, fn(&dyn VmFactory) -> Outcome);

/// All of them.
pub fn cases() -> impl Iterator<Item = Case> {
    [tables::CASES, changes::CASES, lookups::CASES, replacing::CASES]
        .into_iter()
        .flat_map(|group| group.iter().copied())
}

/// Fails the case with a sentence unless the condition holds.
macro_rules! check {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err(format!($($what)+));
        }
    };
}
use check;

/// Order of most cases' tables: 16,384 slots, the smallest there is.
const ORDER: u32 = 18;
