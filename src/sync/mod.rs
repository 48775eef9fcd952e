// SPDX-License-Identifier: GPL-2.0-or-later
//! What threads share, from the standard library, or from loom where the tests try every order of events
//! (docs/testing.md).

pub mod lock;
pub mod signals;

#[cfg(all(test, loom))]
pub use loom::sync::{Arc, Condvar, Mutex, MutexGuard, atomic::AtomicU64};
#[cfg(not(all(test, loom)))]
pub use std::sync::{Arc, Condvar, Mutex, MutexGuard, atomic::AtomicU64};
