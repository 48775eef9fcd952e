// SPDX-License-Identifier: GPL-2.0-or-later
//! The cases: each a claim about saving and loading a kernel's table.

mod ahead;
mod changes;
mod lookups;
mod replacing;
mod tables;

use crate::guest::Outcome;
use crate::migration::Setting;
use spapr_htab::inside::save::session::SaveOptions;
use spapr_htab::inside::save::source::MAX_CHUNK_BYTES;

/// A claim's name and its check.
pub type Case = (&'static str, fn(&Setting<'_>) -> Outcome);

/// All of them: how tables are saved, and the claim.
pub fn cases() -> impl Iterator<Item = (SaveOptions, Case)> {
    // Room for two reads: that the reader waits for room is to be tried, too.
    let with_thread = SaveOptions { ahead: Some(2 * MAX_CHUNK_BYTES), ..SaveOptions::DEFAULT };
    let claims = [tables::CASES, changes::CASES, lookups::CASES, replacing::CASES].concat();
    let both = move |case| [(SaveOptions::DEFAULT, case), (with_thread, case)];
    let in_call = changes::IN_CALL.iter().map(|&case| (SaveOptions::DEFAULT, case));
    let ahead = ahead::CASES.iter().map(move |&case| (with_thread, case));
    in_call.chain(ahead).chain(claims.into_iter().flat_map(both))
}

/// The name under which a case runs.
#[must_use]
pub fn name(options: SaveOptions, claim: &str) -> String {
    format!("{claim}{}", if options.ahead.is_some() { " (read ahead)" } else { "" })
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
