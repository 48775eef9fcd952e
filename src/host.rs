// SPDX-License-Identifier: GPL-2.0-or-later
//! What the library asks of the program it is linked into.

use crate::error::{Access, Errno, Error};
use crate::format::hpte::{Order, Slot};
use crate::table::Table;
use std::iter::Sum;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Instant;

/// One of the kernel's HPT file descriptors (`KVM_PPC_GET_HTAB_FD`); dropping it closes it.
pub trait HptFd: Send {
    /// One read of whole kernel records.
    ///
    /// # Errors
    /// The kernel's errno.
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Errno>;

    /// One vectored write, a kernel record in each segment. Returns the bytes of the records that were applied before
    /// the first that was not.
    ///
    /// # Errors
    /// The kernel's errno for the first record.
    fn write(&mut self, records: &[&[u8]]) -> Result<usize, Errno>;
}

/// Makes a system call again that a signal kept from doing anything.
///
/// # Errors
/// Any but EINTR.
pub fn retry(mut call: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(errno) if errno.number() == libc::EINTR => {}
            done => return done,
        }
    }
}

/// How to open a kernel fd.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenOptions {
    /// To save or to load.
    pub access: Access,
    /// Where the first pass begins.
    pub start: Slot,
}

impl OpenOptions {
    /// The whole table.
    #[must_use]
    pub fn new(access: Access) -> OpenOptions {
        OpenOptions { access, start: Slot(0) }
    }
}

/// The program around the library: QEMU, or a test.
pub trait Host: Clock {
    /// The host as a clock alone: `self`. (Rust 1.85 has no such conversion of its own.)
    fn clock(&self) -> &dyn Clock;

    /// A clock for the thread that reads ahead, which may look at it at any time during a save.
    fn thread_clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock::default())
    }

    /// The guest's table as it is now.
    ///
    /// # Errors
    /// The table cannot be named, or is one that cannot be carried.
    fn table(&self) -> Result<Table, Error>;

    /// Gives the guest a new, empty table.
    ///
    /// # Errors
    /// Why it cannot.
    fn allocate(&self, order: Order) -> Result<(), Errno>;

    /// Leaves the guest without a table.
    ///
    /// # Errors
    /// Why it cannot.
    fn free(&self) -> Result<(), Errno>;

    /// Opens the kernel's table.
    ///
    /// # Errors
    /// Why it cannot.
    fn open(&self, options: OpenOptions) -> Result<Box<dyn HptFd>, Errno>;
}

/// Where a save's bytes go.
pub trait StreamWriter {
    /// Takes all of `bytes` before it returns, or fails for good.
    ///
    /// # Errors
    /// The stream's errno.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Errno>;

    /// Whether this round's share of the bandwidth is used up.
    fn rate_limited(&mut self) -> bool;
}

/// Where a load's bytes come from.
pub trait StreamReader {
    /// Reads at least one byte and up to `bytes.len()`, and returns their number; 0 means that the stream has ended.
    ///
    /// # Errors
    /// The stream's errno.
    fn get(&mut self, bytes: &mut [u8]) -> Result<usize, Errno>;
}

/// Nanoseconds: a time since some fixed moment, or a span.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The span from an earlier time; 0 if the clock went backwards.
    #[must_use]
    pub fn since(self, earlier: Nanos) -> Nanos {
        Nanos(self.0.saturating_sub(earlier.0))
    }

    /// A later time.
    #[must_use]
    pub fn after(self, span: Nanos) -> Nanos {
        Nanos(self.0.saturating_add(span.0))
    }
}

impl AddAssign for Nanos {
    /// A host's clock may jump as far as it likes.
    fn add_assign(&mut self, more: Nanos) {
        *self = self.after(more);
    }
}

impl Sum for Nanos {
    fn sum<I: Iterator<Item = Nanos>>(spans: I) -> Nanos {
        spans.fold(Nanos(0), Nanos::after)
    }
}

/// A monotonic clock.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Nanos;
}

/// The operating system's monotonic clock, counted from when the value was made.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Nanos {
        Nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_add_up_and_go_past_no_end() {
        let mut time = Nanos(5);
        time += Nanos(2);
        assert_eq!((time, time.since(Nanos(4)), time.after(Nanos(4))), (Nanos(7), Nanos(3), Nanos(11)));
        assert_eq!([time, time, Nanos(1)].into_iter().sum::<Nanos>(), Nanos(15));
        assert_eq!((time.since(Nanos(8)), time.after(Nanos(u64::MAX))), (Nanos(0), Nanos(u64::MAX)));
    }

    #[test]
    fn the_systems_clock_counts_nanoseconds() {
        let clock = SystemClock::default();
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(clock.now() >= Nanos(1_000_000));
    }
}
