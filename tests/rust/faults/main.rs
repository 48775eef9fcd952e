// SPDX-License-Identifier: GPL-2.0-or-later
//! Any call out of the library goes wrong, once: the right errno and sentence, nothing left behind, and on the same
//! handles the next migration loses nothing.
//!
//! One test after another, without the usual harness: file descriptors, threads and memory are the process's.

mod clocks;
mod everywhere;
mod exhausted;
mod leaks;
mod migration;
mod system;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: leaks::Counting = leaks::Counting;

type Test = (&'static str, fn() -> String);

const TESTS: [Test; 4] = [
    ("each_call_fails_once_with_each_errno", everywhere::each_call_fails_once_with_each_errno),
    ("no_memory_for_any_large_allocation", exhausted::no_memory_for_any_large_allocation),
    ("no_file_descriptor_is_left", exhausted::no_file_descriptor_is_left),
    ("a_clock_may_say_anything", clocks::a_clock_may_say_anything),
];

fn main() -> ExitCode {
    htab_harness::plan::enter_program();
    // cargo test's own options, and words of the names of tests to run.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    // What a process makes once stays: the logger, values of the thread's own.
    for way in migration::WAYS {
        migration::Migration::new(way).run().expect("nothing goes wrong");
    }
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in TESTS.into_iter().filter(|(name, _)| wanted(name)) {
        if let Ok(said) = std::panic::catch_unwind(test) {
            println!("test {name} ... ok: {said}");
            passed += 1;
        } else {
            println!("test {name} ... FAILED");
            failed += 1;
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
