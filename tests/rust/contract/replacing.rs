// SPDX-License-Identifier: GPL-2.0-or-later
//! Tables that are replaced in the middle of a save, or are not.

use super::*;

#[test]
fn a_table_that_was_not_replaced_is_not_sent_again() {
    for from in sources() {
        let wire = Wire::default();
        from.setup(&wire).expect("setup");
        from.iterate(&wire, -1).expect("the first pass");
        let first_pass = wire.bytes().len();
        from.quiesce().expect("quiesce");
        assert_eq!(written(&wire, || from.iterate(&wire, -1)), [0; 12]);
        // The guest's changes while its resize fails.
        from.world.store(9, Some(hpte(77)));
        from.resume_unchanged().expect("the resize failed");
        settle(&from, &wire);
        from.complete(&wire).expect("complete");
        let (first_pass_only, all) = (from.pass(1).expect("a pass").bytes, from.stats().save_total.bytes);
        assert_eq!(all - first_pass_only, 24, "the change, and nothing else");
        assert!(first_pass > 1000, "{first_pass} bytes");
        arrives(&from, &wire);
        from.resume_unchanged().expect("without a quiesce");
        from.cleanup().expect("cleanup");
    }
}

#[test]
fn a_table_that_is_gone_is_not_read_on_whatever_the_host_says() {
    for from in sources() {
        for order in [ORDER + 1, ORDER] {
            let wire = Wire::default();
            from.setup(&wire).expect("setup");
            from.iterate(&wire, -1).expect("the first pass");
            from.quiesce().expect("quiesce");
            from.world.replace(order).expect("a resize");
            from.resume_unchanged().expect("which is not so");
            // A table in the kernel of the same size cannot be known from the one before.
            if order != ORDER {
                assert_eq!(written(&wire, || from.iterate(&wire, -1)), order.to_be_bytes());
            }
            settle(&from, &wire);
            from.cleanup().expect("cleanup");
        }
    }
}

#[test]
fn a_save_that_begins_while_the_table_is_replaced_opens_it_at_the_end() {
    for from in sources() {
        let wire = Wire::default();
        from.quiesce().expect("quiesce");
        assert_eq!(written(&wire, || from.setup(&wire)), [0xff; 4]);
        from.resume_unchanged().expect("nothing was replaced");
        assert_eq!(written(&wire, || from.iterate(&wire, -1)), ORDER.to_be_bytes());
        settle(&from, &wire);
        from.complete(&wire).expect("complete");
        arrives(&from, &wire);
    }
}

#[test]
fn the_kernels_fd_is_kept_and_not_read_between_quiesce_and_resume() {
    for flags in [0, SPAPR_HTAB_READ_AHEAD] {
        let from = source(Kind::Kernel, ORDER, flags);
        let wire = Wire::default();
        from.setup(&wire).expect("setup");
        from.iterate(&wire, 0).expect("iterate");
        from.quiesce().expect("quiesce");
        let reads = from.world.plan.calls(Call::Read);
        from.iterate(&wire, -1).expect("iterate");
        from.read_hptes(0, 1).expect_err("a lookup");
        assert!(
            from.last_error().contains("a lookup while the table is being replaced"),
            "{}",
            from.last_error()
        );
        assert_eq!((from.world.open_fds(), from.world.plan.calls(Call::Read)), (1, reads));
        from.world.forget();
        from.resume().expect("resume");
        assert_eq!(from.world.open_fds(), 0, "a guest without a table");
    }
}

#[test]
fn a_complete_while_the_table_is_replaced_says_so_and_sends_no_size() {
    for resized in [false, true] {
        let from = source(Kind::Kernel, ORDER, 0);
        let wire = Wire::default();
        from.setup(&wire).expect("setup");
        from.quiesce().expect("quiesce");
        if resized {
            from.resume().expect("resume");
            from.quiesce().expect("quiesce");
            assert_eq!(written(&wire, || from.iterate(&wire, -1)), [0; 12]);
        }
        from.complete(&wire).expect_err("complete");
        assert!(
            from.last_error().contains("complete while the table is being replaced"),
            "{}",
            from.last_error()
        );
    }
}

#[test]
fn a_table_that_is_replaced_while_its_size_goes_out_is_announced_again() {
    for from in sources() {
        let wire = Wire::default();
        from.setup(&wire).expect("setup");
        from.quiesce().expect("quiesce");
        from.world.replace(19).expect("a resize");
        from.resume().expect("resume");
        let raw = from.raw().addr();
        from.world.when(
            Call::Put,
            0,
            Box::new(move |world| {
                let raw = std::ptr::with_exposed_provenance_mut(raw);
                // SAFETY: the handle is live, and these may be called from the stream's callbacks.
                unsafe {
                    assert_eq!(spapr_htab_quiesce(raw), 0);
                    world.replace(20).expect("another resize");
                    assert_eq!(spapr_htab_resume(raw), 0);
                }
            }),
        );
        let _ = from.raw().expose_provenance();
        assert_eq!(written(&wire, || from.iterate(&wire, -1)), 19_u32.to_be_bytes());
        assert_eq!(written(&wire, || from.iterate(&wire, -1)), 20_u32.to_be_bytes());
        from.world.store(123_456 / 2, Some(hpte(3)));
        settle(&from, &wire);
        from.complete(&wire).expect("complete");
        arrives(&from, &wire);
    }
}

#[test]
fn more_lookups_than_are_kept_between_a_resize_and_its_size_lose_nothing() {
    const LARGE: u32 = 22;
    for flags in [0, SPAPR_HTAB_READ_AHEAD] {
        let from = source(Kind::Kernel, ORDER, flags);
        let wire = Wire::default();
        from.setup(&wire).expect("setup");
        settle(&from, &wire);
        from.quiesce().expect("quiesce");
        from.world.replace(LARGE).expect("a resize");
        from.resume().expect("resume");
        let slots = from.world.slots();
        for slot in 0..slots / 2 {
            from.world.store(slot, Some(hpte(slot % 0xffff + 1)));
        }
        // More than 1 MiB of valid entries, of which the destination knows nothing yet.
        for first in (0..slots / 2).step_by(4096) {
            from.read_hptes(first, 4096).expect("a lookup");
        }
        let size = written(&wire, || from.iterate(&wire, -1));
        assert_eq!(size, LARGE.to_be_bytes(), "the size still goes first");
        settle(&from, &wire);
        from.complete(&wire).expect("complete");
        arrives(&from, &wire);
    }
}
