// SPDX-License-Identifier: GPL-2.0-or-later
//! Runs the cases of saving and loading on the kernel of this machine.
//!
//! `cases [SUBSTRING]`: only cases whose names contain SUBSTRING. Prints `ok NAME` or `FAILED NAME: why` for each, and
//! `N passed, N failed`; exits with 1 if any failed or none ran, 2 without KVM-HV. RUST_LOG
//! shows what the library logs.

use htab_harness::cases;
use htab_harness::migration::Setting;
use htab_model::kvm::Kvm;
use htab_model::runner;
use std::process::ExitCode;

fn main() -> ExitCode {
    spapr_htab::log_to_stderr();
    let filter = std::env::args().nth(1).unwrap_or_default();
    let kvm = match Kvm::open() {
        Ok(kvm) => kvm,
        Err(why) => {
            eprintln!("no KVM-HV here: {why}");
            return ExitCode::from(2);
        }
    };
    let kvm = &kvm;
    let named = cases::cases().map(|(options, (claim, case))| {
        let check: runner::Check<'_> = Box::new(move || case(&Setting { factory: kvm, options }));
        (cases::name(options, claim), check)
    });
    runner::run(named.filter(|(name, _)| name.contains(&filter)))
}
