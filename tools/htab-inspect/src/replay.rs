// SPDX-License-Identifier: GPL-2.0-or-later
//! The table that a stream's records leave, by groups of slots: only groups that were ever used take memory.

use spapr_htab::inside::error::Error;
use spapr_htab::inside::format::hpte::{HPTE_BYTES, Hpte, Order, V_DIRTY};
use spapr_htab::inside::format::record::RecordHeader;
use spapr_htab::inside::load::batch::Batch;
use spapr_htab::inside::load::sink::Sink;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Slots of a group (HPTEG): where the hash of an address leads to.
pub const GROUP: u64 = 8;
/// Cells of the map at most: what fits a picture.
const MOST_CELLS: u64 = 8192;

/// First doubleword: found by the secondary hash. QEMU `HPTE64_V_SECONDARY`.
pub const V_SECONDARY: u64 = 0x2;
/// First doubleword: the guest's operating system asked that the entry never be evicted. QEMU `HPTE64_V_BOLTED`.
pub const V_BOLTED: u64 = 0x10;
/// First doubleword: a page larger than 4 KiB. QEMU `HPTE64_V_LARGE`.
pub const V_LARGE: u64 = 0x4;
/// Second doubleword: the page was referenced, was changed. QEMU `HPTE64_R_R`, `HPTE64_R_C`.
pub const R_REFERENCED: u64 = 0x100;
pub const R_CHANGED: u64 = 0x80;

/// The slots of a group.
#[derive(Clone, Default)]
pub struct Group {
    pub entries: [Hpte; 8],
    /// How often each was sent after the first pass.
    pub again: [u32; 8],
}

/// A table, and which parts of it were sent again after the first pass.
pub struct Replay {
    order: Order,
    groups: BTreeMap<u32, Group>,
    again: Vec<u64>,
}

impl Replay {
    pub fn new(order: Order) -> Replay {
        let cells = usize::try_from((order.slots() / GROUP).min(MOST_CELLS)).unwrap_or_default();
        Replay { order, groups: BTreeMap::new(), again: vec![0; cells] }
    }

    /// A table as it stands in memory.
    pub fn of_dump(order: Order, dump: &[u8]) -> Replay {
        let mut replay = Replay::new(order);
        for (slot, entry) in (0..order.slots()).zip(dump.chunks_exact(HPTE_BYTES)) {
            let Ok(entry) = entry.try_into() else { continue };
            let Hpte { v, r } = Hpte::from_be_bytes(entry);
            let entry = Hpte { v: v & !V_DIRTY, r };
            if entry.is_valid() {
                replay.store(slot, entry);
            }
        }
        replay
    }

    pub fn order(&self) -> Order {
        self.order
    }

    /// The groups that were ever used, by number.
    pub fn groups(&self) -> impl Iterator<Item = (u32, &Group)> {
        self.groups.iter().map(|(number, group)| (*number, group))
    }

    pub fn group(&self, number: u32) -> Option<&Group> {
        self.groups.get(&number)
    }

    /// How often slots of each cell of the map were sent after the first pass.
    pub fn sent_again(&self) -> &[u64] {
        &self.again
    }

    /// Entries in each cell of the map.
    pub fn filled(&self) -> Vec<u64> {
        let mut filled = vec![0; self.again.len()];
        for (number, group) in self.groups() {
            let cell = self.cell(u64::from(number) * GROUP);
            filled[cell] += group.entries.iter().filter(|entry| entry.is_valid()).count() as u64;
        }
        filled
    }

    pub fn slots_per_cell(&self) -> u64 {
        self.order.slots() / self.again.len() as u64
    }

    fn cell(&self, slot: u64) -> usize {
        usize::try_from(slot / self.slots_per_cell()).unwrap_or(usize::MAX).min(self.again.len() - 1)
    }

    fn store(&mut self, slot: u64, entry: Hpte) {
        let (number, at) = place(slot);
        if entry.is_valid() {
            self.groups.entry(number).or_default().entries[at] = entry;
        } else if let Some(group) = self.groups.get_mut(&number) {
            group.entries[at] = Hpte::default();
        }
    }

    /// Calls `change` for each slot from `begin` up to `end` whose group was ever used.
    fn for_known(&mut self, begin: u64, end: u64, mut change: impl FnMut(&mut Group, usize)) {
        if begin >= end {
            return;
        }
        let (first, last) = (place(begin).0, place(end - 1).0);
        for (number, group) in self.groups.range_mut(first..=last) {
            let base = u64::from(*number) * GROUP;
            (0..8_usize)
                .zip(base..)
                .filter(|(_, slot)| (begin..end).contains(slot))
                .for_each(|(at, _)| change(group, at));
        }
    }

    /// Counts a record of a later pass.
    pub fn count_again(&mut self, header: RecordHeader) {
        let (begin, end) = (u64::from(header.index), header.end());
        // Groups whose first entries come now.
        for slot in begin..begin + u64::from(header.n_valid) {
            self.groups.entry(place(slot).0).or_default();
        }
        self.for_known(begin, end, |group, at| group.again[at] = group.again[at].saturating_add(1));
        if begin >= end {
            return;
        }
        let each = self.slots_per_cell();
        let cells: RangeInclusive<usize> = self.cell(begin)..=self.cell(end - 1);
        for (cell, base) in
            cells.clone().zip((*cells.start() as u64 * each..).step_by(usize::try_from(each).unwrap_or(1)))
        {
            self.again[cell] += end.min(base + each) - begin.max(base);
        }
    }
}

impl Sink for Replay {
    fn load(&mut self, batch: &mut Batch) -> Result<(), Error> {
        let (bytes, records) = batch.parts();
        for record in records {
            let begin = u64::from(record.header.index);
            let invalid = begin + u64::from(record.header.n_valid);
            for (slot, entry) in (begin..).zip(bytes[record.entries()..record.end()].chunks_exact(HPTE_BYTES))
            {
                let Ok(entry) = entry.try_into() else { continue };
                self.store(slot, Hpte::from_be_bytes(entry));
            }
            self.for_known(invalid, record.header.end(), |group, at| group.entries[at] = Hpte::default());
        }
        Ok(())
    }
}

/// A slot's group, and its place there.
fn place(slot: u64) -> (u32, usize) {
    (u32::try_from(slot / GROUP).unwrap_or(u32::MAX), usize::try_from(slot % GROUP).unwrap_or_default())
}

/// What the entries of a table say.
#[derive(Clone, Default, serde::Serialize)]
pub struct Contents {
    pub valid: u64,
    pub bolted: u64,
    pub referenced: u64,
    pub changed: u64,
    pub primary_hash: u64,
    pub secondary_hash: u64,
    /// By actual page size.
    pub pages: BTreeMap<&'static str, u64>,
    /// Groups with no entry, with one, up to eight.
    pub groups_with: [u64; 9],
    /// Slots that were sent after the first pass, among those that ever had an entry.
    pub slots_sent_again: u64,
}

impl Contents {
    pub fn of(replay: &Replay) -> Contents {
        let mut found = Contents::default();
        let mut known = 0;
        for (_, group) in replay.groups() {
            known += 1;
            let valid: Vec<Hpte> = group.entries.iter().copied().filter(|entry| entry.is_valid()).collect();
            found.groups_with[valid.len()] += 1;
            found.slots_sent_again += group.again.iter().filter(|times| **times > 0).count() as u64;
            valid.into_iter().for_each(|entry| found.count(entry));
        }
        found.groups_with[0] += replay.order().slots() / GROUP - known;
        found
    }

    fn count(&mut self, Hpte { v, r }: Hpte) {
        self.valid += 1;
        self.bolted += u64::from(v & V_BOLTED != 0);
        self.referenced += u64::from(r & R_REFERENCED != 0);
        self.changed += u64::from(r & R_CHANGED != 0);
        self.secondary_hash += u64::from(v & V_SECONDARY != 0);
        self.primary_hash += u64::from(v & V_SECONDARY == 0);
        *self.pages.entry(page_size(v, r)).or_default() += 1;
    }
}

/// The actual page size, which the low bits of the real page number encode for a large page (Power ISA 2.07B, Book
/// III-S, 5.7.7.1; the encodings that POWER7 to POWER9 have).
fn page_size(v: u64, r: u64) -> &'static str {
    if v & V_LARGE == 0 {
        return "4 KiB";
    }
    match r >> 12 & 0xff {
        lp if lp & 0xf == 1 || lp & 0xf == 7 => "64 KiB",
        0x00 | 0x08 | 0x38 => "16 MiB",
        0x03 => "16 GiB",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_are_in_the_low_bits() {
        let large = V_LARGE | 1;
        for (v, r, size) in [
            (1, 0x1000, "4 KiB"),
            (large, 0x1234_1000, "64 KiB"),
            (large, 0x1234_7000, "64 KiB"),
            (large, 0x0100_0000, "16 MiB"),
            (large, 0x0103_8000, "16 MiB"),
            (large, 0x0100_8000, "16 MiB"),
            (large, 0x4_0000_3000, "16 GiB"),
            (large, 0x2000, "unknown"),
        ] {
            assert_eq!(page_size(v, r), size, "{v:x} {r:x}");
        }
    }

    #[test]
    fn what_is_sent_again_is_counted_in_its_cells() {
        // 2048 groups, a cell each.
        let mut replay = Replay::new(Order::MIN);
        replay.count_again(RecordHeader { index: 6, n_valid: 4, n_invalid: 9 });
        assert_eq!(replay.sent_again()[..4], [2, 8, 3, 0]);
        replay.count_again(RecordHeader { index: 16383, n_valid: 1, n_invalid: 0 });
        assert_eq!(replay.sent_again()[2047], 1);
        assert_eq!(replay.sent_again().iter().sum::<u64>(), 14);
    }
}
