// SPDX-License-Identifier: GPL-2.0-or-later
//! Runs named checks and prints their results where there is no test harness: in the machine that the real kernel runs.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

pub type Check<'a> = Box<dyn Fn() -> Result<(), String> + 'a>;

/// Runs each check and prints `ok NAME` or `FAILED NAME: why`, and lastly `N passed, N failed`. No check at all is a
/// failure.
pub fn run<'a>(checks: impl IntoIterator<Item = (impl Display, Check<'a>)>) -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    for (name, check) in checks {
        let outcome = catch_unwind(AssertUnwindSafe(check));
        match outcome.unwrap_or_else(|_| Err("panicked".to_owned())) {
            Ok(()) => {
                passed += 1;
                println!("ok {name}");
            }
            Err(why) => {
                failed += 1;
                println!("FAILED {name}: {why}");
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed > 0 || passed == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
