// SPDX-License-Identifier: GPL-2.0-or-later
//! A kernel that answers reads of its fd with anything, from records that follow each other to noise, into a save.
//!
//! What the save puts out is a stream that can be loaded, whatever the kernel said; what makes no sense is refused.
#![no_main]

use htab_fuzz::Input;
use htab_harness::handle::{Failure, Handle};
use htab_harness::records;
use htab_harness::world::{Kind, Wire, World};
use htab_model::record::Record;
use libfuzzer_sys::fuzz_target;
use spapr_htab::inside::capi::types::SPAPR_HTAB_READ_AHEAD;

const ORDER: u32 = 18;
const SLOTS: u64 = 1 << (ORDER - 4);

/// A record in the kernel's form, from `position` on; where the next one may begin.
fn record(input: &mut Input<'_>, position: u64, out: &mut Vec<u8>) -> u64 {
    let shape = input.byte();
    let skip = if shape & 0x80 == 0 { 0 } else { u64::from(input.byte()) };
    let n_valid = u16::from(shape & 7);
    let n_invalid = match shape >> 3 & 3 {
        0 => u16::from(8 - (shape & 7)),
        1 => u16::from(input.byte()),
        2 => input.word(),
        // To the end of the table.
        _ => u16::try_from(SLOTS.saturating_sub(position + skip + u64::from(n_valid))).unwrap_or(u16::MAX),
    };
    let index = u32::try_from(position + skip).unwrap_or(u32::MAX);
    let v = u64::from(index) << 12 | u64::from(shape & 0x60) | 1;
    let entries: Vec<_> = (0..u64::from(n_valid)).map(|r| (v, r)).collect();
    out.extend(Record::new(index, &entries, n_invalid).to_bytes());
    position + skip + u64::from(n_valid) + u64::from(n_invalid)
}

fn answers(input: &mut Input<'_>) -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
    let mut position = 0;
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        let kind = input.byte();
        let mut answer = Vec::new();
        if kind & 0xc0 == 0xc0 {
            answer.extend_from_slice(input.bytes(usize::from(kind & 0x3f)));
        } else {
            for _ in 0..kind & 0x3f {
                position = record(input, position, &mut answer);
            }
        }
        if position >= SLOTS {
            position = 0;
        }
        answers.push(answer);
    }
    answers
}

fn save(from: &Handle, wire: &Wire, input: &mut Input<'_>) -> Result<(), Failure> {
    from.setup(wire)?;
    for _ in 0..input.byte() & 7 {
        let max = i64::from(input.word()) * 100;
        from.iterate(wire, if max == 0 { -1 } else { max })?;
        let _ = from.pending();
        if input.byte() & 7 == 0 {
            let _ = from.read_hptes(input.below(SLOTS), usize::from(input.byte()));
        }
    }
    from.complete(wire)?;
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let world = World::new(Kind::Kernel, Some(ORDER));
    // A thread for each run would be most of what is tried.
    let flags = if input.byte() & 15 == 15 { SPAPR_HTAB_READ_AHEAD } else { 0 };
    input.plan_fault(&world);
    let mut calls = Input::new(input.bytes(32));
    world.answer(answers(&mut input));
    let from = Handle::new(world, flags, None);
    let wire = Wire::default();
    match save(&from, &wire, &mut calls) {
        Ok(()) => {
            let bytes = wire.bytes();
            records::load(&bytes, 18..=18).expect("a stream that makes sense");
            let to = Handle::new(World::new(Kind::Memory, None), 0, None);
            let wire = Wire::of(&bytes);
            while wire.left() > 0 {
                to.load(&wire, 1).expect("what was saved can be loaded");
            }
        }
        Err(failure) => assert!(failure.errno > 0 && !failure.sentence.is_empty()),
    }
    from.cleanup().expect("cleanup");
    assert_eq!(from.world.open_fds(), 0);
});
