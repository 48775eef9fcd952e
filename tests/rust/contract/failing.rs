// SPDX-License-Identifier: GPL-2.0-or-later
//! What fails stays failed, and loses nothing.

use super::*;

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
