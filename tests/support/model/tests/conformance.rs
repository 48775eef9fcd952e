// SPDX-License-Identifier: GPL-2.0-or-later
//! The conformance cases on the model. On a real kernel the program of the same name runs them.

use htab_model::conformance::{GUEST_CASES, cases};
use htab_model::model::{Config, Model, ModelFactory};
use htab_model::record::R_MODIFIED;
use htab_model::vm::{Vm, VmFactory};
use std::collections::HashSet;

/// Models of another kind than the default.
struct Other(Config);

impl VmFactory for Other {
    fn hash(&self, order: u32) -> Result<Box<dyn Vm>, String> {
        Ok(Box::new(Model::with(Config { order: Some(order), ..self.0 })))
    }

    fn radix(&self) -> Result<Option<Box<dyn Vm>>, String> {
        Ok(Some(Box::new(Model::with(Config { order: None, ..self.0 }))))
    }
}

fn failures(vms: &dyn VmFactory) -> Vec<String> {
    let all = cases().chain(GUEST_CASES.iter().copied());
    all.filter_map(|(name, case)| case(vms).err().map(|why| format!("{name}: {why}"))).collect()
}

#[test]
fn the_model_passes_every_case() {
    assert_eq!(failures(&ModelFactory), [""; 0]);
}

/// POWER8 keeps entries as they are written; that is all that differs.
#[test]
fn the_model_of_power8_passes_every_case() {
    assert_eq!(failures(&Other(Config { isa300: false, ..Config::hash(18) })), [""; 0]);
}

/// The kernel does not clear the revmap of a new table: no case may rely on what it finds there.
#[test]
fn the_model_with_a_stale_revmap_passes_every_case() {
    assert_eq!(failures(&Other(Config { stale_revmap: R_MODIFIED | 0x1fe, ..Config::hash(18) })), [""; 0]);
}

#[test]
fn names_are_unique() {
    let mut seen = HashSet::new();
    assert!(cases().chain(GUEST_CASES.iter().copied()).all(|(name, _)| seen.insert(name)));
}
