// SPDX-License-Identifier: GPL-2.0-or-later
//! What the fuzzer found, each as it failed at first.

use htab_harness::handle::Handle;
use htab_harness::world::{Kind, Wire, World};
use htab_model::record::header;

/// A lookup passed such a record on, and the eight zero bytes ended the section in its middle.
#[test]
fn a_record_of_no_slots_in_a_lookup_is_refused_and_ends_no_section() {
    let from = Handle::new(World::new(Kind::Kernel, Some(18)), 0, None);
    let whole_table = header(0, 0, 16_384).to_vec();
    let (wire, nothing) = (Wire::default(), vec![0; 8]);
    from.setup(&wire).expect("setup");
    for answer in [nothing.clone(), nothing[..3].to_vec()] {
        from.world.answer(vec![answer]);
        let failure = from.read_hptes(0, 4).expect_err("a kernel that makes no sense");
        assert_eq!(failure.errno, libc::EIO);
        assert!(
            failure.sentence.contains("names no slots") || failure.sentence.contains("cut short"),
            "{failure:?}"
        );
    }
    from.world.answer(vec![whole_table]);
    from.complete(&wire).expect("complete");
    let sent = [&18_u32.to_be_bytes()[..], &[0; 4], &header_on_the_wire(), &nothing].concat();
    assert_eq!(wire.bytes(), sent);
}

fn header_on_the_wire() -> [u8; 8] {
    [0, 0, 0, 0, 0, 0, 0x40, 0]
}
