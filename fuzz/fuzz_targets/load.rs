// SPDX-License-Identifier: GPL-2.0-or-later
//! A stream's bytes into both kinds of table, in pieces of any size, with a call that goes wrong or none.
//!
//! What is loaded is what the stream says, and a stream that makes no sense is refused.
#![no_main]

use htab_fuzz::Input;
use htab_harness::handle::{Failure, Handle};
use htab_harness::records;
use htab_harness::world::{Kind, Wire, World};
use libfuzzer_sys::fuzz_target;
use spapr_htab::inside::capi::types::SPAPR_HTAB_GATHER;

/// The destination, and whether all of the stream was taken.
fn load(kind: Kind, control: &[u8], stream: &[u8]) -> (Handle, bool, Result<(), Failure>) {
    let mut control = Input::new(control);
    let mut world = World::new(kind, None);
    let most = control.byte();
    world.most = match most {
        0 => usize::MAX,
        most => most.into(),
    };
    let flags = if most & 1 == 0 { 0 } else { SPAPR_HTAB_GATHER };
    let faulty = control.plan_fault(&world);
    let to = Handle::new(world, flags, None);
    let wire = Wire::of(stream);
    let mut result = Ok(());
    while wire.left() > 0 && result.is_ok() {
        result = to.load(&wire, 1).map(|_| ());
        assert_eq!(to.world.open_fds(), 0);
    }
    if result.is_ok() {
        result = to.load_finish().map(|_| ());
        assert_eq!(to.world.open_fds(), 0);
    }
    if let Err(failure) = &result {
        assert!(failure.errno > 0 && !failure.sentence.is_empty());
    }
    (to, faulty, result)
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let control = input.bytes(4);
    let stream = input.rest();
    let sound = records::load(stream, 18..=19);

    let (memory, faulty, result) = load(Kind::Memory, control, stream);
    match (&sound, &result) {
        (Ok(table), Ok(())) if !faulty => assert!(memory.world.dump() == table.dump()),
        (Err(why), Ok(())) if !faulty => panic!("taken, though {why}"),
        (Ok(_), Err(failure)) if !faulty => panic!("refused: {failure:?}"),
        _ => {}
    }
    let (kernel, _, result) = load(Kind::Kernel, control, stream);
    match (&sound, &result) {
        // The kernel keeps bits of its own in the entries.
        (Ok(table), Ok(())) if !faulty => {
            assert!(kernel.world.dump().iter().map(|entry| &entry.0).eq(table.slots.keys()));
        }
        (Err(why), Ok(())) if !faulty => panic!("taken, though {why}"),
        // The kernel looks into the entries, too.
        (Ok(_), Err(failure)) if !faulty => {
            assert!(failure.sentence.contains("loading slot"), "{failure:?}")
        }
        _ => {}
    }
});
