// SPDX-License-Identifier: GPL-2.0-or-later
//! The cases on the model: the same code that runs on the real kernel.

use htab_harness::cases::{Case, cases, name};
use htab_harness::migration::Setting;
use htab_model::model::ModelFactory;
use spapr_htab::inside::save::session::SaveOptions;

#[test]
fn every_case_passes_on_the_model() {
    let run = |(options, (claim, case)): (SaveOptions, Case)| {
        let setting = Setting { factory: &ModelFactory, options };
        case(&setting).err().map(|why| format!("{}: {why}", name(options, claim)))
    };
    let failed: Vec<String> = cases().filter_map(run).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(cases().count() >= 80);
}
