// SPDX-License-Identifier: GPL-2.0-or-later
//! Which stop counts, what is pending, and the end of a save.

use super::*;

#[test]
fn nothing_is_pending_after_a_complete() {
    for from in sources() {
        let wire = Wire::default();
        from.setup(&wire).expect("setup");
        assert!(from.pending().is_ok_and(|bytes| bytes > 0), "all of it");
        from.iterate(&wire, -1).expect("iterate");
        from.vm_state(false).expect("the VM stops");
        from.complete(&wire).expect("complete");
        assert_eq!((from.pending(), from.stats().save_pending), (Ok(0), 0));
        // A debugger that looks on takes marks, and what it read will be sent; but no one has to wait for it.
        from.read_hptes(0, 100).expect("a lookup");
        assert_eq!(from.pending(), Ok(0));
        from.complete(&wire).expect("complete again");
        assert_eq!(from.pending(), Ok(0));
        from.quiesce().expect("quiesce");
        from.world.replace(ORDER).expect("a reset");
        from.resume().expect("resume");
        from.vm_state(true).expect("it runs, here or elsewhere");
        assert_eq!((from.pending(), from.stats().save_pending), (Ok(0), 0), "nobody waits for another table");
        from.iterate(&wire, 0).expect("iterate");
        assert!(from.pending().is_ok_and(|bytes| bytes > 0), "the save goes on after all");
        settle(&from, &wire);
        from.complete(&wire).expect("complete of the other");
        assert_eq!(from.pending(), Ok(0));
        from.setup(&wire).expect("the next migration");
        assert!(from.pending().is_ok_and(|bytes| bytes > 0), "all of it");
    }
}

#[test]
fn the_end_of_a_save_is_written_again_without_the_table() {
    for from in sources() {
        let wire = Wire::default();
        assert_eq!(from.complete_again(&wire).expect_err("nothing to end").errno, libc::EINVAL);
        from.setup(&wire).expect("setup");
        // The first one is a complete like any other.
        assert!(written(&wire, || from.complete_again(&wire)).len() > 1000);
        arrives(&from, &wire);
        // What the reset source has is not the running guest's; nor is it of importance that it cannot be opened.
        for reset in [Some(Call::Table), None] {
            from.quiesce().expect("quiesce");
            assert_eq!(written(&wire, || from.complete_again(&wire)), [0; 12]);
            from.world.replace(ORDER + 1).expect("a reset");
            from.world.store(5, Some(hpte(99)));
            if let Some(call) = reset {
                from.world.plan.fail(call, 0, Fault::Errno(libc::EMFILE));
            }
            assert_eq!(from.resume().is_err(), reset.is_some());
            from.world.plan.clear();
            assert_eq!(written(&wire, || from.complete_again(&wire)), [0; 12]);
        }
        // What fails stays failed, this too.
        from.world.plan.fail(Call::Put, 1, Fault::Errno(libc::EPIPE));
        assert_eq!(from.complete_again(&wire).expect_err("the stream failed").errno, libc::EPIPE);
        from.world.plan.clear();
        from.complete_again(&wire).expect_err("a part is missing");
        from.setup(&wire).expect("the next migration");
        assert!(written(&wire, || from.complete_again(&wire)).len() > 12, "not completed since the setup");
        from.cleanup().expect("cleanup");
        from.complete_again(&wire).expect_err("no save");
        from.world.forget();
        from.setup(&wire).expect("a guest without a table");
        for _ in 0..2 {
            assert_eq!(written(&wire, || from.complete_again(&wire)), [0xff; 4]);
        }
    }
}

#[test]
fn a_table_that_gets_no_turn_is_not_waited_for() {
    const SECOND: u64 = 1_000_000_000;
    for from in sources() {
        let time = Arc::new(AtomicU64::new(5 * SECOND));
        let clock = Arc::clone(&time);
        from.world.set_clock(Box::new(move |_| clock.load(Relaxed)));
        let pass = |nanos| {
            time.fetch_add(nanos, Relaxed);
        };
        let waited_for = || from.pending().expect("a figure") > 0;
        let wire = Wire::default();
        from.setup(&wire).expect("setup");
        pass(SECOND - 1);
        assert!(waited_for(), "it may still get its turn");
        pass(1);
        assert!(!waited_for(), "RAM takes all there is");
        assert!(from.stats().save_pending > 0, "the figure stays what it is");
        from.iterate(&wire, 0).expect("a turn");
        assert!(waited_for());
        pass(SECOND);
        assert!(!waited_for());
        from.quiesce().expect("quiesce");
        from.world.replace(ORDER).expect("a reset");
        from.resume().expect("resume");
        assert!(!waited_for(), "another table has no other turn");
        // Between iterate's beginning and its end.
        let late = Arc::clone(&time);
        from.world.when(
            Call::Put,
            0,
            Box::new(move |_| {
                late.fetch_add(2 * SECOND, Relaxed);
            }),
        );
        from.iterate(&wire, -1).expect("a slow stream");
        assert!(waited_for(), "iterate has only just ended");
        from.cleanup().expect("cleanup");
        assert!(!waited_for());
    }
}

/// A save in which the processor has written to a page and keeps the change bit back.
fn with_a_delayed_change(flags: u32) -> (Handle, Wire) {
    let from = source(Kind::Kernel, ORDER, flags);
    let wire = Wire::default();
    let (v, r) = hpte(1);
    from.world.store(0, Some((v, r & !R_C)));
    let model = from.world.model();
    model.set_ram(1 << 16).expect("memory");
    model.read_dirty_log().expect("the log is on");
    from.setup(&wire).expect("setup");
    settle(&from, &wire);
    assert!(model.touch_delayed(0, R_C), "an entry at slot 0");
    (from, wire)
}

/// The kernel takes the change up when the dirty log is read, which QEMU does once more after the stop.
fn stop_with_a_change_that_shows_late(flags: u32, report_log: bool) -> (Handle, Wire) {
    let (from, wire) = with_a_delayed_change(flags);
    let model = from.world.model();
    from.vm_state(false).expect("the VM stops");
    // All of the table is read since the stop.
    settle(&from, &wire);
    model.read_dirty_log().expect("RAM's last look");
    assert!(model.is_dirty(0), "the change shows now");
    if report_log {
        from.dirty_log_read().expect("a report");
    }
    from.complete(&wire).expect("complete");
    from.cleanup().expect("cleanup");
    (from, wire)
}

#[test]
fn reads_before_the_dirty_log_was_read_do_not_count() {
    for flags in [0, SPAPR_HTAB_READ_AHEAD] {
        let (from, wire) = stop_with_a_change_that_shows_late(flags, true);
        arrives(&from, &wire);
    }
    // What a host loses that reports the stop, and not that it reads the log after it.
    let (from, _) = stop_with_a_change_that_shows_late(0, false);
    assert!(from.world.model().is_dirty(0), "nobody asked again");
}

#[test]
fn a_host_that_reports_nothing_loses_nothing() {
    let (from, wire) = with_a_delayed_change(SPAPR_HTAB_READ_AHEAD);
    let model = from.world.model();
    settle(&from, &wire);
    model.read_dirty_log().expect("RAM's last look");
    from.dirty_log_read().expect("fine without a stop that was reported");
    from.complete(&wire).expect("complete");
    arrives(&from, &wire);
}
