// SPDX-License-Identifier: GPL-2.0-or-later
//! Tables as guests fill them, and worse ones; the same for the same seed, wherever they are made.

use htab_harness::guest::Numbers;

/// Slots of a group: where a hash leads to.
pub const GROUP: u64 = 8;

/// Which slots of a table are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// None.
    Empty,
    /// One slot in one group of 64.
    Sparse,
    /// One slot in each group, anywhere in it.
    Scattered,
    /// A quarter of them: each group from its first slot on, as a guest's hashes happen to fall.
    Typical,
    /// All.
    Dense,
}

impl Shape {
    /// As reports call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Shape::Empty => "empty",
            Shape::Sparse => "sparse",
            Shape::Scattered => "scattered",
            Shape::Typical => "typical",
            Shape::Dense => "dense",
        }
    }

    /// The first used slot of the next group and how many there are.
    fn group(self, numbers: &mut Numbers) -> (u64, u64) {
        match self {
            Shape::Empty => (0, 0),
            Shape::Sparse => match numbers.any() % 64 {
                0 => (numbers.any() % GROUP, 1),
                _ => (0, 0),
            },
            Shape::Scattered => (numbers.any() % GROUP, 1),
            Shape::Typical => {
                // 16 pages, an eighth of which hash to this group: two a group, as good as Poisson's distribution.
                let coins = numbers.any();
                let hits = (coins & coins >> 16 & coins >> 32 & 0xffff).count_ones();
                (0, u64::from(hits).min(GROUP))
            }
            Shape::Dense => (0, GROUP),
        }
    }

    /// The used slots of a table of `slots` as runs within a group: the first, and how many.
    pub fn runs(self, slots: u64, seed: u64) -> impl Iterator<Item = (u64, u64)> {
        let mut numbers = Numbers(seed);
        (0..slots / GROUP).filter_map(move |group| {
            let (first, count) = self.group(&mut numbers);
            (count > 0).then_some((group * GROUP + first, count))
        })
    }
}

/// The entry of a slot: one that every kernel takes.
#[must_use]
pub fn entry(slot: u64) -> (u64, u64) {
    htab_model::record::hpte(slot & 0xff_ffff)
}

/// `count` different slots of a table of `slots`, anywhere, in ascending order.
#[must_use]
pub fn pick(slots: u64, count: u64, seed: u64) -> Vec<u64> {
    let mut numbers = Numbers(seed);
    let mut picked = std::collections::BTreeSet::new();
    while (picked.len() as u64) < count {
        picked.insert(numbers.below(slots));
    }
    picked.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_use_as_many_slots_as_they_say() {
        let slots = 1 << 20;
        let used = |shape: Shape| shape.runs(slots, 1).map(|(_, count)| count).sum::<u64>();
        let about = |count: u64, wanted: u64| count.abs_diff(wanted) * 20 < wanted;
        assert_eq!(used(Shape::Empty), 0);
        assert!(about(used(Shape::Sparse), slots / 512), "{}", used(Shape::Sparse));
        assert_eq!(used(Shape::Scattered), slots / 8);
        assert!(about(used(Shape::Typical), slots / 4), "{}", used(Shape::Typical));
        assert_eq!(used(Shape::Dense), slots);
    }
}
