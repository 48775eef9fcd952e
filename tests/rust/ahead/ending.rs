// SPDX-License-Identifier: GPL-2.0-or-later
//! The thread's life: who ends it, what it leaves behind, and what becomes of its failures.

use super::*;

#[test]
fn whoever_ends_reading_waits_for_one_read_at_most_and_leaves_nothing() {
    let _alone = alone();
    // At the gate before and after each of the first reads, of which a dense table has nine.
    for waits in 0..8 {
        for end in ["cleanup", "quiesce", "setup", "fail", "free"] {
            let mut save = Save::begun(AHEAD);
            save.step(waits);
            wait_for(|| save.host.gate.waiting().is_some()).expect("at the gate");
            let begun = save.host.gate.begun();
            let saver = std::mem::take(&mut save.saver);
            let queue = saver.queue().clone();
            // A quiesced reader is not to end, only to begin no read.
            let is_asked = || end == "quiesce" || queue.activity() == Some(Activity::Parked);
            let saver = while_reading(&save, is_asked, || match end {
                "cleanup" => saver.cleanup().map(|()| Some(saver)),
                "quiesce" => {
                    saver.quiesce();
                    Ok(Some(saver))
                }
                // Without the thread, which would begin to read again.
                "setup" => saver
                    .setup(&save.host, &mut Output::default(), SaveOptions::DEFAULT)
                    .map(|()| Some(saver)),
                "fail" => {
                    saver.fail(Error::Internal(String::new()));
                    Ok(Some(saver))
                }
                _ => {
                    drop(saver);
                    Ok(None)
                }
            });
            let saver = saver.expect(end);
            let gate = &save.host.gate;
            if let ("quiesce", Some(saver)) = (end, &saver) {
                assert_eq!((readers(), gate.closed()), (Ok(1), 0), "the fd stays open until it is known why");
                saver.cleanup().expect("cleanup");
            }
            assert_eq!((gate.begun(), gate.closed()), (begun, 1), "{end} after {waits} waits");
            no_reader_is_left();
            assert!(saver.is_none_or(|saver| saver.queue().activity().is_none()));
            assert_eq!(save.model.stats().overlaps, 0);
        }
    }
}

#[test]
fn a_reader_without_anything_to_do_ends_at_once() {
    let _alone = alone();
    for activity in [Activity::Parked, Activity::Full] {
        let queue = if activity == Activity::Full { MAX_CHUNK_BYTES } else { 2 << 20 };
        let save = Save::begun(SaveOptions { ahead: Some(queue), ..AHEAD });
        save.host.gate.open();
        save.until(activity);
        assert_eq!(readers(), Ok(1));
        save.saver.cleanup().expect("cleanup");
        no_reader_is_left();
        assert_eq!(save.host.gate.closed(), 1);
    }
}

#[test]
fn a_vm_that_runs_again_ends_complete_with_an_error() {
    let _alone = alone();
    let mut save = Save::begun(AHEAD);
    save.saver.vm_state(false);
    let inside = AtomicBool::new(false);
    let why = thread::scope(|scope| {
        let (saver, host, inside) = (&save.saver, &save.host, &inside);
        let complete = scope.spawn(move || {
            let on_put = Box::new(|_: &[u8]| inside.store(true, Ordering::SeqCst));
            saver.complete(host, &mut Output { on_put: Some(on_put), ..Output::default() })
        });
        wait_for(|| inside.load(Ordering::SeqCst)).expect("its first bytes");
        save.step(2);
        save.saver.vm_state(true);
        save.host.gate.open();
        complete.join().expect("complete")
    });
    assert!(matches!(why, Err(Error::State(_))), "{why:?}");
    save.bodies.truncate(1);
    save.saver.cleanup().expect("cleanup");
    save.setup(AHEAD).expect("setup");
    save.complete().expect("complete");
    save.arrive();
}

#[test]
fn quiesce_ends_a_complete_that_waits() {
    let _alone = alone();
    let save = Save::begun(AHEAD);
    let why = thread::scope(|scope| {
        let complete = scope.spawn(|| save.saver.complete(&save.host, &mut Output::default()));
        save.step(1);
        let quiesce = scope.spawn(|| save.saver.quiesce());
        save.host.gate.open();
        quiesce.join().expect("quiesce");
        complete.join().expect("complete")
    });
    save.saver.cleanup().expect("cleanup");
    no_reader_is_left();
    // Or all was read before quiesce came.
    assert!(matches!(why, Ok(()) | Err(Error::State(_))), "{why:?}");
}

#[test]
fn a_failed_read_comes_after_what_was_read_before_and_stays() {
    let _alone = alone();
    let mut save = Save::begun(AHEAD);
    save.model.fail(Op::Read, 3, Fault::Errno(libc::EFAULT));
    save.host.gate.open();
    save.until(Activity::Parked);
    let mut out = Output::default();
    let error = save.saver.iterate(&save.host, &mut out, None).expect_err("a failed read");
    assert_eq!(error.errno().number(), libc::EFAULT);
    assert!(error.to_string().contains("in pass 1"), "{error}");
    assert_eq!(out.bytes.len() as u64, 4 + 3 * READ_BYTES, "the three reads before it");
    assert_eq!(save.iterate(Some(0)), Err(error.clone()));
    assert_eq!(save.complete(), Err(error));
    save.saver.cleanup().expect("cleanup");
    no_reader_is_left();
    save.setup(AHEAD).expect("a new setup");
    save.complete().expect("complete");
    save.arrive();
}

#[test]
fn a_panic_on_the_thread_fails_the_save() {
    let _alone = alone();
    let mut save = Save::begun(AHEAD);
    save.model.before_read(Box::new(|_, read| assert!(read < 2, "what it said")));
    save.host.gate.open();
    save.until(Activity::Parked);
    let error = save.complete().expect_err("a panic");
    assert_eq!(error.errno().number(), libc::ENOTRECOVERABLE);
    assert!(error.to_string().contains("what it said"), "{error}");
    save.saver.cleanup().expect("cleanup");
    no_reader_is_left();
}

#[test]
fn the_thread_is_named_and_blocks_all_signals_and_the_caller_does_not() {
    let _alone = alone();
    let mask = |name: &str| -> Vec<u64> {
        let masks = status(name, "SigBlk").expect("the masks");
        masks.iter().map(|mask| u64::from_str_radix(mask, 16).expect("a mask")).collect()
    };
    let own = thread::current().name().map(|name| name.chars().take(15).collect::<String>()).expect("a name");
    let before = mask(&own);
    let save = Save::begun(AHEAD);
    wait_for(|| readers() == Ok(1)).expect("a reader");
    // Not those that cannot be blocked, and two that the C library keeps for itself.
    let all =
        !([libc::SIGKILL, libc::SIGSTOP, 32, 33].iter().fold(0, |mask, signal| mask | 1_u64 << (signal - 1)));
    assert_eq!(mask(THREAD_NAME), [all]);
    assert_eq!(mask(&own), before);
    save.host.gate.open();
    save.saver.cleanup().expect("cleanup");
}

/// Makes the kernel refuse new threads to the calling one, as a sandbox does.
fn forbid_threads() {
    let filter = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let (load, equal, give) = (0x20, 0x15, 0x06);
    let number = |call: libc::c_long| u32::try_from(call).expect("a system call");
    let errno = |number: i32| 0x0005_0000 | u32::try_from(number).expect("an errno");
    let mut program = [
        filter(load, 0, 0, 0),
        filter(equal, number(libc::SYS_clone), 2, 0),
        filter(equal, number(libc::SYS_clone3), 1, 0),
        filter(give, 0x7fff_0000, 0, 0),
        filter(give, errno(libc::EPERM), 0, 0),
    ];
    let program = libc::sock_fprog { len: 5, filter: program.as_mut_ptr() };
    // SAFETY: prctl reads the program, which is there; both calls concern the calling thread alone.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

#[test]
fn where_there_can_be_no_thread_the_calls_read() {
    let _alone = alone();
    let save = thread::spawn(|| {
        forbid_threads();
        assert!(thread::Builder::new().spawn(|| ()).is_err(), "else this shows nothing");
        let mut save = Save::begun(AHEAD);
        save.host.gate.open();
        assert_eq!(save.saver.queue().activity(), None);
        no_reader_is_left();
        assert_eq!(save.iterate(None), Ok(Progress::More));
        let (v, r) = hpte(4002);
        save.model.enter(40, v, r);
        save.complete().expect("complete");
        save
    });
    save.join().expect("the save").arrive();
}
