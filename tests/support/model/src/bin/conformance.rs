// SPDX-License-Identifier: GPL-2.0-or-later
//! Runs the conformance cases on the kernel this machine runs, or with `--model` on the model.
//!
//! `conformance [--model] [--no-guest] [--list] [SUBSTRING]`: only cases whose names contain SUBSTRING; with
//! `--no-guest` none that run a guest, for hosts that cannot. Prints `ok NAME` or `FAILED NAME: why` for
//! each, and `N passed, N failed`; exits with 1 if any failed or none ran, 2 if there is no KVM-HV.

use htab_model::conformance::{GUEST_CASES, cases};
use htab_model::kvm::{self, Kvm};
use htab_model::model::ModelFactory;
use htab_model::runner::{self, Check};
use htab_model::vm::VmFactory;
use std::process::ExitCode;

/// What the cases run on.
enum Under {
    Model,
    Kernel(Kvm),
}

/// The cases for what is under test, by name.
fn checks(under: &Under, with_guest: bool) -> Vec<(&'static str, Check<'_>)> {
    let factory: &dyn VmFactory = match under {
        Under::Model => &ModelFactory,
        Under::Kernel(kvm) => kvm,
    };
    let guest_cases = if with_guest { GUEST_CASES } else { &[] };
    let mut checks: Vec<(_, Check<'_>)> = Vec::new();
    for (name, case) in cases().chain(guest_cases.iter().copied()) {
        checks.push((name, Box::new(move || case(factory))));
    }
    if let Under::Kernel(kvm) = under {
        for &(name, case) in kvm::cases::CASES {
            checks.push((name, Box::new(move || case(kvm))));
        }
    }
    checks
}

fn main() -> ExitCode {
    let (mut on_model, mut with_guest, mut list) = (false, true, false);
    let mut filter = String::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--model" => on_model = true,
            "--no-guest" => with_guest = false,
            "--list" => list = true,
            option if option.starts_with('-') => {
                eprintln!("conformance [--model] [--no-guest] [--list] [SUBSTRING]");
                return ExitCode::from(2);
            }
            _ => filter = argument,
        }
    }
    let under = if on_model {
        Under::Model
    } else {
        match Kvm::open() {
            Ok(kvm) => Under::Kernel(kvm),
            Err(why) => {
                eprintln!("no KVM-HV here: {why}");
                return ExitCode::from(2);
            }
        }
    };

    let chosen = checks(&under, with_guest).into_iter().filter(|(name, _)| name.contains(filter.as_str()));
    if list {
        chosen.for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    runner::run(chosen)
}
