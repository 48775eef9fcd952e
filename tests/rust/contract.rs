// SPDX-License-Identifier: GPL-2.0-or-later
//! What the C interface promises of failures, of tables that are replaced, and of stops: each through its functions.

use htab_harness::handle::{Failure, Handle};
use htab_harness::plan::{Call, Fault};
use htab_harness::records::to_body;
use htab_harness::world::{Kind, Place, Wire, World};
use htab_model::Vm;
use htab_model::record::{Record, hpte};
use spapr_htab::exports::{spapr_htab_quiesce, spapr_htab_resume};
use spapr_htab::inside::capi::types::{
    SPAPR_HTAB_GATHER, SPAPR_HTAB_READ_AHEAD, SpaprHtabPass, SpaprHtabSum,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const ORDER: u32 = 18;
const SLOTS: u64 = 1 << (ORDER - 4);
const R_C: u64 = 0x180;

/// A guest with some entries, ready to be saved.
fn source(kind: Kind, order: u32, flags: u32) -> Handle {
    let mut world = World::new(kind, Some(order));
    world.largest = 22;
    for slot in (0..world.slots()).step_by(61) {
        world.store(slot, Some(hpte(slot % 0xffff + 1)));
    }
    Handle::new(world, flags, None)
}

/// Every way of saving.
fn sources() -> impl Iterator<Item = Handle> {
    [(Kind::Kernel, 0), (Kind::Kernel, SPAPR_HTAB_READ_AHEAD), (Kind::Memory, 0)]
        .into_iter()
        .map(|(kind, flags)| source(kind, ORDER, flags))
}

/// Loads the sections into a guest without a table, and compares the tables.
fn arrives(from: &Handle, wire: &Wire) {
    let mut world = World::new(Kind::Kernel, None);
    world.largest = 22;
    let to = Handle::new(world, 0, None);
    let wire = Wire::of(&wire.bytes());
    while wire.left() > 0 {
        to.load(&wire, 1).expect("a section");
    }
    assert_eq!(to.world.dump(), from.world.dump(), "the tables differ");
}

/// Iterates until nothing changes any more.
fn settle(from: &Handle, wire: &Wire) {
    while from.iterate(wire, -1).expect("iterate") == 0 {}
}

/// What one call writes: the body that a wire has after it and had not before.
fn written(wire: &Wire, call: impl FnOnce() -> Result<i32, Failure>) -> Vec<u8> {
    let before = wire.bytes().len();
    call().expect("a body");
    wire.bytes()[before..].to_vec()
}

#[test]
fn what_fails_stays_failed() {
    type Step = fn(&Handle, &Wire) -> Result<i32, Failure>;
    let steps: [(&str, Step); 3] = [
        ("setup", |from, wire| from.setup(wire)),
        ("iterate", |from, wire| from.iterate(wire, -1)),
        ("complete", |from, wire| from.complete(wire)),
    ];
    let mut failures = 0;
    for from in sources() {
        for fails in 0..steps.len() {
            for (call, nth) in
                [(Call::Put, 0), (Call::Put, 1), (Call::Put, 2), (Call::Read, 0), (Call::Table, 0)]
            {
                let wire = Wire::default();
                for (name, step) in &steps[..fails] {
                    step(&from, &wire).expect(name);
                }
                from.world.plan.fail(call, nth, Fault::Errno(libc::ENOSPC));
                let Err(failure) = steps[fails].1(&from, &wire) else {
                    // No such call, or one of the thread's before.
                    from.world.plan.clear();
                    from.cleanup().expect("cleanup");
                    continue;
                };
                from.world.plan.clear();
                let open = from.world.open_fds();
                for (name, step) in &steps[1..] {
                    assert_eq!(
                        step(&from, &wire).as_ref(),
                        Err(&failure),
                        "{name} after {call:?} {nth} failed"
                    );
                }
                assert_eq!(from.pending(), Err(failure), "pending after {call:?} {nth} failed");
                assert_eq!((from.world.open_fds(), open), (0, 0), "nothing is read any more");
                let anew = Wire::default();
                from.setup(&anew).expect("a setup ends it");
                settle(&from, &anew);
                from.complete(&anew).expect("complete");
                from.cleanup().expect("cleanup");
                arrives(&from, &anew);
                failures += 1;
            }
        }
    }
    assert!(failures >= 15, "{failures} failures");
}

#[test]
fn what_fails_is_over_with_cleanup() {
    for from in sources() {
        from.world.plan.fail(Call::Put, 0, Fault::Errno(libc::EPIPE));
        from.setup(&Wire::default()).expect_err("the stream failed");
        from.cleanup().expect("cleanup");
        assert_eq!(from.iterate(&Wire::default(), -1).expect_err("before setup").errno, libc::EINVAL);
        assert_eq!(from.pending(), Ok(0));
    }
}

#[test]
fn after_a_lookup_that_fails_late_all_is_sent_again() {
    for flags in [0, SPAPR_HTAB_READ_AHEAD] {
        for nth in 0..2 {
            let from = source(Kind::Kernel, ORDER, flags);
            // More entries than one read of a lookup takes.
            (0..1000).for_each(|slot| from.world.store(slot, Some(hpte(slot + 1))));
            let wire = Wire::default();
            from.setup(&wire).expect("setup");
            settle(&from, &wire);
            from.vm_state(false).expect("the VM stops");
            settle(&from, &wire);
            for slot in [3, 700] {
                from.world.store(slot, Some(hpte(4711)));
            }
            from.vm_state(true).expect("it runs");
            from.world.plan.fail(Call::Read, nth, Fault::Late(libc::EFAULT));
            let failure = from.read_hptes(0, 1000).expect_err("a bad buffer");
            assert_eq!(failure.errno, libc::EFAULT);
            assert!(!from.world.model().is_dirty(3), "the lookup has taken the mark");
            settle(&from, &wire);
            from.complete(&wire).expect("complete");
            from.cleanup().expect("cleanup");
            arrives(&from, &wire);
        }
    }
}

#[test]
fn a_lookup_that_fails_outside_a_save_is_no_affair_of_the_next_one() {
    let from = source(Kind::Kernel, ORDER, 0);
    from.world.plan.fail(Call::Read, 0, Fault::Late(libc::EFAULT));
    from.read_hptes(0, 10).expect_err("a bad buffer");
    let wire = Wire::default();
    from.setup(&wire).expect("setup");
    settle(&from, &wire);
    assert_eq!(from.stats().save_passes, 2, "a first pass and one that finds nothing");
}

/// A body of so many records of one entry each, every second slot.
fn many(records: u64) -> Vec<u8> {
    let record = |nth| Record::new(u32::try_from(nth * 2).expect("few"), &[hpte(nth + 1)], 0);
    to_body(&(0..records).map(record).collect::<Vec<_>>())
}

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
fn passes_count_from_1() {
    let from = source(Kind::Kernel, ORDER, 0);
    let wire = Wire::default();
    from.setup(&wire).expect("setup");
    from.pass(1).expect_err("not begun");
    settle(&from, &wire);
    assert_eq!(from.pass(0).expect_err("no pass").errno, libc::EINVAL);
    assert_eq!(from.pass(1).expect("the first pass").valid, SLOTS.div_ceil(61));
    assert_eq!(from.pass(2).expect("the second").valid, 0);
    from.pass(3).expect_err("not begun");
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
fn what_did_not_arrive_as_it_was_sent_is_named() {
    const SIZE: usize = size_of::<SpaprHtabSum>();
    for from in sources() {
        let wire = Wire::default();
        assert_eq!(from.sum(), SpaprHtabSum::default(), "nothing was sent");
        from.setup(&wire).expect("setup");
        settle(&from, &wire);
        from.complete(&wire).expect("complete");
        from.cleanup().expect("cleanup");
        let (sum, stats) = (from.sum(), from.stats());
        let (crc32, records, bytes) = (stats.save_crc32, stats.save_records, stats.save_bytes);
        assert_eq!(sum, SpaprHtabSum { order: ORDER, crc32, records, bytes });

        let to = Handle::new(World::new(Kind::Kernel, None), SPAPR_HTAB_GATHER, None);
        while wire.left() > 0 {
            to.load(&wire, 1).expect("a section");
        }
        to.load_check(SIZE, &sum).expect("all came, and what waited is in the table");
        assert_eq!(to.world.dump(), from.world.dump());
        let all = [
            (format!("order {ORDER} came, 19 went; "), SpaprHtabSum { order: 19, ..sum }),
            (format!("CRC-32 {crc32:08x} came, 00000001 went; "), SpaprHtabSum { crc32: 1, ..sum }),
            (format!("records {records} came, 2 went; "), SpaprHtabSum { records: 2, ..sum }),
            (format!("bytes {bytes} came, 3 went; "), SpaprHtabSum { bytes: 3, ..sum }),
        ];
        for (nth, (words, sent)) in all.iter().enumerate() {
            let failure = to.load_check(SIZE, sent).expect_err(words);
            assert_eq!(failure.errno, libc::EBADMSG);
            let begin = format!("the hash table did not arrive as it was sent: {words}section spapr/htab ");
            assert!(failure.sentence.starts_with(&begin), "{}", failure.sentence);
            // An older program knows the order and the CRC only.
            assert_eq!(to.load_check(8, sent).is_err(), nth < 2);
        }
        let other = SpaprHtabSum { order: 19, crc32: 1, records: 2, bytes: 3 };
        let sentence = to.load_check(SIZE, &other).expect_err("nothing is right").sentence;
        assert!(sentence.contains(&all.map(|(words, _)| words).concat()), "{sentence}");
        // The order is that of the table there is now.
        to.world.forget();
        let sentence = to.load_check(SIZE, &sum).expect_err("no table").sentence;
        assert!(sentence.contains(&format!("sent: order 0 came, {ORDER} went; section")), "{sentence}");
        to.load(&Wire::of(&19_u32.to_be_bytes()), 1).expect("a size");
        to.load(&Wire::of(&many(10)), 1).expect("records that wait");
        to.world.plan.fail(Call::Write, 0, Fault::Errno(libc::EBUSY));
        assert_eq!(to.load_check(SIZE, &sum).expect_err("vCPUs run").errno, libc::EBUSY);
    }
}

#[test]
fn what_the_library_did_is_described_in_lines() {
    let from = source(Kind::Kernel, ORDER, 0);
    let wire = Wire::default();
    from.setup(&wire).expect("setup");
    settle(&from, &wire);
    from.world.store(77, Some(hpte(99)));
    from.read_hptes(77, 1).expect("a lookup");
    from.complete(&wire).expect("complete");
    from.load(&Wire::of(&many(10)), 1).expect("a section");
    let stats = from.stats();
    let line = |what: &str, pass: SpaprHtabPass| {
        let SpaprHtabPass { records, valid, invalid, bytes, time_ns } = pass;
        let us = time_ns / 1000;
        format!("  {what}: {valid} valid, {invalid} invalid, {records} records, {bytes} bytes, {us} us")
    };
    let mut wanted = vec![
        format!("spapr-htab {}", env!("CARGO_PKG_VERSION")),
        format!("saved: order 18, CRC-32 {:08x}, pending 0 bytes", stats.save_crc32),
    ];
    let passes = 1..=stats.save_passes;
    wanted.extend(passes.map(|nth| line(&format!("pass {nth}"), from.pass(nth).expect("a pass"))));
    wanted.extend([
        line("all", stats.save_total),
        line("stopped", stats.save_stopped),
        line("looked up", stats.save_looked_up),
        format!("loaded: 1 sections, CRC-32 {:08x}, 0 demoted", stats.load_crc32),
        line("all", stats.load_total),
    ]);
    assert!(stats.save_passes >= 2 && stats.save_looked_up.valid > 0 && stats.load_total.records == 10);
    assert_eq!(from.describe(), wanted.join("\n") + "\n");
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
