// SPDX-License-Identifier: GPL-2.0-or-later
//! Time and system calls of a piece of work, and what is reported of several rounds.

use serde_json::{Value, json};
use std::fs;
use std::time::Instant;

/// What a piece of work cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    pub ns: u64,
    pub reads: u64,
    pub writes: u64,
}

/// Read and write calls of this process so far.
fn system_calls() -> (u64, u64) {
    let text = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    };
    (field("syscr:"), field("syscw:"))
}

/// Runs it.
pub fn cost(work: impl FnOnce()) -> Cost {
    let idle = system_calls();
    let before = system_calls();
    let began = Instant::now();
    work();
    let ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let after = system_calls();
    // Asking takes reads, too: as many as there were between the first two times.
    Cost { ns, reads: after.0 - before.0 - (before.0 - idle.0), writes: after.1 - before.1 }
}

/// The middle one; of an even number the lower of the two.
#[must_use]
pub fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

/// The medians of several rounds.
#[must_use]
pub fn middle(rounds: &[Cost]) -> Cost {
    let of = |field: fn(&Cost) -> u64| median(rounds.iter().map(field).collect());
    Cost { ns: of(|cost| cost.ns), reads: of(|cost| cost.reads), writes: of(|cost| cost.writes) }
}

impl Cost {
    /// As an object of the report.
    #[must_use]
    pub fn to_json(self) -> Value {
        json!({ "ns": self.ns, "reads": self.reads, "writes": self.writes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_the_work_are_counted_and_those_of_asking_are_not() {
        // The counts are the process's, in which the tests' own runner writes now and then.
        let least = |work: fn()| (0..20).map(|_| cost(work)).map(|cost| (cost.reads, cost.writes)).min();
        assert_eq!(least(|| {}), Some((0, 0)));
        // Read by its size: read_to_string asks until it gets nothing.
        let read_five = || {
            let mut file = fs::File::open("/proc/self/stat").expect("procfs");
            let mut byte = [0];
            for _ in 0..5 {
                std::io::Read::read_exact(&mut file, &mut byte).expect("a byte");
            }
        };
        assert_eq!(least(read_five), Some((5, 0)));
    }

    #[test]
    fn the_middle_of_three_is_the_second() {
        assert_eq!(median(vec![9, 1, 5]), 5);
        assert_eq!(median(vec![9, 1]), 1);
        assert_eq!(median(vec![]), 0);
    }
}
