// SPDX-License-Identifier: GPL-2.0-or-later
//! Two tables, slot by slot.

use crate::replay::{GROUP, Group, R_CHANGED, R_REFERENCED, Replay};
use serde::Serialize;
use spapr_htab::inside::format::hpte::Hpte;
use std::collections::BTreeSet;

/// Differences of one kind that are named.
const NAMED: usize = 16;

/// Slots that differ in one way.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Slots {
    pub count: u64,
    /// The first of them.
    pub first: Vec<u64>,
}

impl Slots {
    fn add(&mut self, slot: u64) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(slot);
        }
    }
}

/// What a second table has otherwise than the first.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Comparison {
    /// Orders, if they are not the same.
    pub orders: Option<(u32, u32)>,
    /// Slots with an entry in the first table.
    pub entries: u64,
    /// With an entry in the first table only.
    pub here_only: Slots,
    /// In the second only.
    pub there_only: Slots,
    /// With another entry.
    pub different: Slots,
    /// With an entry that differs in its reference and change bits only.
    pub r_and_c: Slots,
}

impl Comparison {
    pub fn same(&self) -> bool {
        let all = [&self.here_only, &self.there_only, &self.different, &self.r_and_c];
        self.orders.is_none() && all.iter().all(|slots| slots.count == 0)
    }

    pub fn of(first: &Replay, second: &Replay) -> Comparison {
        let mut found = Comparison::default();
        if first.order() != second.order() {
            found.orders = Some((first.order().log2_bytes(), second.order().log2_bytes()));
            return found;
        }
        let numbers: BTreeSet<u32> =
            first.groups().chain(second.groups()).map(|(number, _)| number).collect();
        let none = Group::default();
        for number in numbers {
            let [ours, theirs] = [first, second].map(|table| table.group(number).unwrap_or(&none).entries);
            for (slot, (ours, theirs)) in (u64::from(number) * GROUP..).zip(ours.into_iter().zip(theirs)) {
                found.slot(slot, ours, theirs);
            }
        }
        found
    }

    fn slot(&mut self, slot: u64, ours: Hpte, theirs: Hpte) {
        self.entries += u64::from(ours.is_valid());
        match (ours.is_valid(), theirs.is_valid()) {
            (false, false) => {}
            (true, false) => self.here_only.add(slot),
            (false, true) => self.there_only.add(slot),
            _ if ours == theirs => {}
            _ if ours.v == theirs.v && (ours.r ^ theirs.r) & !(R_REFERENCED | R_CHANGED) == 0 => {
                self.r_and_c.add(slot);
            }
            _ => self.different.add(slot),
        }
    }
}
