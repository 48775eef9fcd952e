// SPDX-License-Identifier: GPL-2.0-or-later
//! What the fuzz targets share: numbers out of the fuzzer's bytes.

use arbitrary::Unstructured;
use htab_harness::plan::{Call, Fault};
use htab_harness::world::World;

/// The fuzzer's bytes, taken from the front; zeros once there are no more.
pub struct Input<'a>(Unstructured<'a>);

impl<'a> Input<'a> {
    #[must_use]
    pub fn new(data: &'a [u8]) -> Input<'a> {
        Input(Unstructured::new(data))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or_default()
    }

    pub fn word(&mut self) -> u16 {
        self.0.arbitrary().unwrap_or_default()
    }

    pub fn long(&mut self) -> u64 {
        self.0.arbitrary().unwrap_or_default()
    }

    /// Below `bound`, and often near either end.
    pub fn below(&mut self, bound: u64) -> u64 {
        let number = u64::from(self.word());
        match number & 3 {
            0 => number >> 2,
            1 => bound.wrapping_sub(1 + (number >> 2)),
            _ => number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16,
        }
        .checked_rem(bound)
        .unwrap_or(0)
    }

    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        self.0.bytes(len.min(self.0.len())).unwrap_or_default()
    }

    #[must_use]
    pub fn rest(self) -> &'a [u8] {
        self.0.take_rest()
    }

    /// Has some call go wrong, or none. Returns whether.
    pub fn plan_fault(&mut self, world: &World) -> bool {
        const VALUES: [i64; 8] = [0, 1, 2, 17, -4096, i32::MAX as i64, i64::MAX, i64::MIN];
        let (call, how, number) = (self.byte(), self.byte(), self.byte());
        let Some(&call) = Call::ALL.get(usize::from(call & 31)) else {
            world.plan.clear();
            return false;
        };
        let fault = match how >> 6 {
            0 => Fault::Errno(i32::from(number).max(1)),
            1 => Fault::Value(VALUES[usize::from(number & 7)]),
            2 => Fault::Short(usize::from(number)),
            _ => Fault::Quiet(i32::from(number)),
        };
        world.plan.fail(call, u64::from(how & 63), fault);
        true
    }
}
