// SPDX-License-Identifier: GPL-2.0-or-later
//! The cases on the model: the same code that runs on the real kernel.

use htab_lab::cases::cases;
use htab_model::model::ModelFactory;

#[test]
fn every_case_passes_on_the_model() {
    let failed: Vec<String> = cases()
        .filter_map(|(name, case)| case(&ModelFactory).err().map(|why| format!("{name}: {why}")))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(cases().count() >= 40);
}
