// SPDX-License-Identifier: GPL-2.0-or-later
//! Runs the conformance cases on the kernel this machine runs, or with `--model` on the model.
//!
//! `conformance [--model] [--guest] [--list] [SUBSTRING]`: with `--guest` the cases that run a guest, and no
//! others; only cases whose names contain SUBSTRING. Prints
//! `ok NAME` or `FAILED NAME: why` for each, and `N passed, N failed`; exits with 1 if any failed.

use htab_model::conformance;
use htab_model::kvm::Kvm;
use htab_model::model::ModelFactory;
use htab_model::vm::VmFactory;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut on_model = false;
    let mut guest = false;
    let mut list = false;
    let mut filter = String::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--model" => on_model = true,
            "--guest" => guest = true,
            "--list" => list = true,
            option if option.starts_with('-') => {
                eprintln!("conformance [--model] [--guest] [--list] [SUBSTRING]");
                return ExitCode::from(2);
            }
            _ => filter = argument,
        }
    }
    let mut cases: Vec<_> =
        if guest { conformance::GUEST_CASES.to_vec() } else { conformance::cases().collect() };
    cases.retain(|(name, _)| name.contains(filter.as_str()));
    if list {
        cases.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    }

    let factory: Box<dyn VmFactory> = if on_model {
        Box::new(ModelFactory)
    } else {
        match Kvm::open() {
            Ok(kvm) => Box::new(kvm),
            Err(why) => {
                eprintln!("no KVM-HV here: {why}");
                return ExitCode::from(2);
            }
        }
    };
    let (mut passed, mut failed) = (0, 0);
    for (name, case) in cases {
        let outcome = catch_unwind(AssertUnwindSafe(|| case(&*factory)));
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
