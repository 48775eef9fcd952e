// SPDX-License-Identifier: GPL-2.0-or-later
//! What a load asks of its host, refuses and throws away.

use super::*;

#[test]
fn load_asks_for_the_table_anew_before_it_hands_records_over() {
    // More than one batch has; the table is replaced by one of the same size while the stream is read.
    let body = many(3000);
    for (order, replaced_by) in [(ORDER, ORDER), (ORDER, ORDER + 1)] {
        for get in [2, 900, 2900] {
            let to = Handle::new(World::new(Kind::Memory, Some(order)), 0, None);
            let Place::Memory(before) = to.world.place() else { panic!("a table in memory") };
            to.world.when(
                Call::Get,
                get,
                Box::new(move |world| world.replace(replaced_by).expect("a reset")),
            );
            let result = to.load(&Wire::of(&body), 1);
            if replaced_by == order {
                result.expect("a table of the same size takes the records");
                assert!(!to.world.dump().is_empty(), "they are in the table that there is");
            } else {
                let failure = result.expect_err("records for another table");
                assert_eq!(failure.errno, libc::EINVAL);
                assert!(failure.sentence.contains("was replaced"), "{}", failure.sentence);
                assert!(to.world.dump().is_empty(), "nothing goes into the wrong table");
            }
            // Nothing was stored into the table that is gone, but what came before it went.
            let batches = get / 1024;
            assert_eq!(before.dump().len() as u64, batches * 1024, "in the table that is gone");
        }
    }
}

#[test]
fn a_size_that_is_loaded_is_sent_by_a_save_on_the_same_handle() {
    for from in sources() {
        let wire = Wire::default();
        from.setup(&wire).expect("setup");
        from.iterate(&wire, -1).expect("iterate");
        from.load(&Wire::of(&19_u32.to_be_bytes()), 1).expect("a size");
        assert_eq!(written(&wire, || from.iterate(&wire, -1)), 19_u32.to_be_bytes());
        from.load(&Wire::of(&many(100)), 1).expect("records");
        settle(&from, &wire);
        from.complete(&wire).expect("complete");
        arrives(&from, &wire);
        // And that there is none.
        from.load(&Wire::of(&[0xff; 4]), 1).expect("no table");
        assert_eq!(written(&wire, || from.iterate(&wire, -1)), [0xff; 4]);
        from.cleanup().expect("cleanup");
        assert_eq!(from.world.open_fds(), 0);
    }
}

#[test]
fn a_size_that_is_loaded_does_not_end_a_quiesce_of_the_hosts() {
    for from in sources() {
        let wire = Wire::default();
        from.setup(&wire).expect("setup");
        from.quiesce().expect("quiesce");
        from.load(&Wire::of(&19_u32.to_be_bytes()), 1).expect("a size");
        let empty = written(&wire, || from.iterate(&wire, -1));
        assert_eq!(empty, [0; 12], "the host has not resumed yet");
        from.resume().expect("resume");
        assert_eq!(written(&wire, || from.iterate(&wire, -1)), 19_u32.to_be_bytes());
    }
}

#[test]
fn one_record_that_falls_into_more_parts_than_a_call_takes_arrives() {
    // An unpatched TCG source's race: every second entry of a long record is not valid.
    let entries: Vec<_> = (0..6000).map(|nth| if nth % 2 == 0 { hpte(nth + 1) } else { (0, nth) }).collect();
    let body = to_body(&[Record::new(40, &entries, 3)]);
    let to = Handle::new(World::new(Kind::Kernel, Some(ORDER)), 0, None);
    to.world.store(45, Some(hpte(9)));
    to.load(&Wire::of(&body), 1).expect("a section");
    let valid: Vec<_> =
        (0..6000_u64).step_by(2).map(|nth| (40 + nth, hpte(nth + 1).0, hpte(nth + 1).1)).collect();
    assert_eq!(to.world.dump(), valid);
    assert!(to.world.plan.calls(Call::Write) >= 3, "3000 records, 1024 at most to a call");
    assert_eq!(to.stats().load_demoted, 3000);
}

#[test]
fn a_wrong_version_forgets_what_waits() {
    let to = Handle::new(World::new(Kind::Kernel, Some(ORDER)), SPAPR_HTAB_GATHER, None);
    to.load(&Wire::of(&many(10)), 1).expect("records that wait");
    assert_eq!(to.load(&Wire::of(&many(10)), 2).expect_err("a version").errno, libc::EINVAL);
    to.load_finish().expect("nothing waits");
    assert_eq!(to.world.dump(), [], "a migration that failed loads nothing more");
}

#[test]
fn what_comes_when_the_guest_runs_is_read_and_thrown_away() {
    let empty: &[u8] = &[0; 12];
    let bodies = [empty, &[0xff; 4], &many(3000), &to_body(&[Record::new(1 << 28, &[hpte(1)], 9)])];
    for (kind, order) in [(Kind::Kernel, Some(ORDER)), (Kind::Memory, Some(ORDER)), (Kind::Kernel, None)] {
        let to = Handle::new(World::new(kind, order), SPAPR_HTAB_GATHER, None);
        if order.is_some() {
            to.load(&Wire::of(&many(10)), 1).expect("records, which may wait");
        }
        let calls =
            || [Call::Table, Call::Allocate, Call::Free, Call::Open].map(|call| to.world.plan.calls(call));
        let state = || (to.describe(), calls(), to.world.dump());
        let before = state();
        for body in bodies {
            // QEMU's next section begins where the body ends.
            let wire = Wire::of(&[body, b"more"].concat());
            to.load_discard(&wire, 1).expect("a body");
            assert_eq!((wire.left(), state()), (4, before.clone()));
            for cut in [0, 3, body.len() - 1] {
                let failure = to.load_discard(&Wire::of(&body[..cut]), 1).expect_err("cut short");
                assert_eq!((failure.errno, state()), (libc::EIO, before.clone()));
            }
        }
        let failure = to.load_discard(&Wire::of(&19_u32.to_be_bytes()), 1).expect_err("a size");
        assert_eq!(failure.errno, libc::EINVAL);
        assert!(failure.sentence.contains("order 19") && failure.sentence.contains("already run"));
        assert_eq!(to.load_discard(&Wire::of(empty), 2).expect_err("a version").errno, libc::EINVAL);
        assert_eq!(to.load_discard(&Wire::of(&[0, 0, 0, 5]), 1).expect_err("no order").errno, libc::EINVAL);
        assert_eq!(state(), before);
        to.load_finish().expect("what waited is there still");
        assert_eq!(to.world.dump().len(), if order.is_some() { 10 } else { 0 });
    }
}
