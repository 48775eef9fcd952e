// SPDX-License-Identifier: GPL-2.0-or-later
//! What the C interface promises of failures, of tables that are replaced, and of stops: each through its functions.

mod ending;
mod failing;
mod loading;
mod replacing;
mod telling;

use htab_harness::handle::{Failure, Handle};
use htab_harness::plan::{Call, Fault};
use htab_harness::records::to_body;
use htab_harness::world::{Kind, Place, Wire, World};
use htab_model::Vm;
use htab_model::record::{Record, hpte};
use spapr_htab::exports::{spapr_htab_quiesce, spapr_htab_resume};
use spapr_htab::inside::capi::types::{
    SPAPR_HTAB_GATHER, SPAPR_HTAB_READ_AHEAD, SpaprHtabPass, SpaprHtabSum,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const ORDER: u32 = 18;
const SLOTS: u64 = 1 << (ORDER - 4);
const R_C: u64 = 0x180;

/// A guest with some entries, ready to be saved.
fn source(kind: Kind, order: u32, flags: u32) -> Handle {
    let mut world = World::new(kind, Some(order));
    world.largest = 22;
    for slot in (0..world.slots()).step_by(61) {
        world.store(slot, Some(hpte(slot % 0xffff + 1)));
    }
    Handle::new(world, flags, None)
}

/// Every way of saving.
fn sources() -> impl Iterator<Item = Handle> {
    [(Kind::Kernel, 0), (Kind::Kernel, SPAPR_HTAB_READ_AHEAD), (Kind::Memory, 0)]
        .into_iter()
        .map(|(kind, flags)| source(kind, ORDER, flags))
}

/// Loads the sections into a guest without a table, and compares the tables.
fn arrives(from: &Handle, wire: &Wire) {
    let mut world = World::new(Kind::Kernel, None);
    world.largest = 22;
    let to = Handle::new(world, 0, None);
    let wire = Wire::of(&wire.bytes());
    while wire.left() > 0 {
        to.load(&wire, 1).expect("a section");
    }
    assert_eq!(to.world.dump(), from.world.dump(), "the tables differ");
}

/// Iterates until nothing changes any more.
fn settle(from: &Handle, wire: &Wire) {
    while from.iterate(wire, -1).expect("iterate") == 0 {}
}

/// What one call writes: the body that a wire has after it and had not before.
fn written(wire: &Wire, call: impl FnOnce() -> Result<i32, Failure>) -> Vec<u8> {
    let before = wire.bytes().len();
    call().expect("a body");
    wire.bytes()[before..].to_vec()
}

/// A body of so many records of one entry each, every second slot.
fn many(records: u64) -> Vec<u8> {
    let record = |nth| Record::new(u32::try_from(nth * 2).expect("few"), &[hpte(nth + 1)], 0);
    to_body(&(0..records).map(record).collect::<Vec<_>>())
}
