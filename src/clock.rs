// SPDX-License-Identifier: GPL-2.0-or-later
//! Time, as the bound of one call and the length of a pass.

use std::iter::Sum;
use std::ops::AddAssign;
use std::time::Instant;

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
