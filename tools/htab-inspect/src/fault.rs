// SPDX-License-Identifier: GPL-2.0-or-later
//! What is wrong with a file: where, and why.

use serde::Serialize;
use std::fmt;

/// The first thing in a file that is not as it must be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Fault {
    /// Bytes from the file's start to the item that is broken.
    pub offset: u64,
    /// What is wrong with it.
    pub reason: String,
}

impl Fault {
    pub fn new(offset: u64, reason: impl Into<String>) -> Fault {
        Fault { offset, reason: reason.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} (0x{:x}): {}", self.offset, self.offset, self.reason)
    }
}
