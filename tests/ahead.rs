// SPDX-License-Identifier: GPL-2.0-or-later
//! Reading ahead: what the calls wait for, what they leave behind, and in what order things go out, with a reader that is
//! stopped at every point.

use htab_lab::gate::{Gate, GatedHost, Where};
use htab_lab::host::{Input, Output, VmHost};
use htab_lab::threads::{readers, status, wait_for};
use htab_lab::wire;
use htab_model::model::{Fault, Op};
use htab_model::record::hpte;
use htab_model::{Model, Vm};
use spapr_htab::ahead::{Activity, AheadOptions, THREAD_NAME};
use spapr_htab::clock::Nanos;
use spapr_htab::error::Error;
use spapr_htab::hpte::Slot;
use spapr_htab::load::load;
use spapr_htab::lookup::read_hptes;
use spapr_htab::report::LoadReport;
use spapr_htab::save::{Progress, SaveOptions, Saver};
use spapr_htab::source::MAX_CHUNK_BYTES;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

const ORDER: u32 = 20;
const SLOTS: u64 = 1 << (ORDER - 4);
const AHEAD: SaveOptions =
    SaveOptions { ahead: Some(AheadOptions::DEFAULT_QUEUE_BYTES), ..SaveOptions::DEFAULT };

/// Threads are counted, so one test runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kernel shows a thread for a moment after it was joined.
fn no_reader_is_left() {
    wait_for(|| readers() == Ok(0)).expect("no thread");
}

struct Save {
    model: Model,
    host: GatedHost,
    saver: Saver,
    bodies: Vec<Vec<u8>>,
}

impl Save {
    /// A save of a dense table, 1 MiB, its reader at the gate of its first read.
    fn begun(options: SaveOptions) -> Save {
        let model = Model::new(ORDER);
        for slot in 0..SLOTS {
            let (v, r) = hpte(slot & 0xffff);
            model.enter(slot, v, r);
        }
        let host = GatedHost::new(VmHost::new(Arc::new(model.clone()), Some(ORDER)));
        let mut save = Save { model, host, saver: Saver::default(), bodies: Vec::new() };
        save.setup(options).expect("setup");
        save
    }

    fn setup(&mut self, options: SaveOptions) -> Result<(), Error> {
        let mut out = Output::default();
        self.saver.setup(&self.host, &mut out, options)?;
        self.bodies = vec![out.bytes];
        Ok(())
    }

    fn iterate(&mut self, max: Option<u64>) -> Result<Progress, Error> {
        let mut out = Output::default();
        let max = max.map(Nanos);
        let progress = self.saver.iterate(&self.host, &mut out, max);
        self.bodies.push(out.bytes);
        progress
    }

    fn complete(&mut self) -> Result<(), Error> {
        let mut out = Output::default();
        let done = self.saver.complete(&self.host, &mut out);
        self.bodies.push(out.bytes);
        done
    }

    /// Goes through so many waits of the reader, to the next.
    fn step(&self, waits: u64) {
        for _ in 0..waits {
            wait_for(|| self.host.gate.waiting().is_some()).expect("the reader comes to the gate");
            self.host.gate.let_through(1);
        }
    }

    fn until(&self, activity: Activity) {
        wait_for(|| self.saver.queue().is_some_and(|queue| queue.activity() == activity))
            .unwrap_or_else(|why| panic!("not {activity:?}: {why}"));
    }

    /// Every table that was read is as the source's.
    fn arrive(self) {
        let destination = VmHost::new(Arc::new(Model::new(18)), None);
        self.saver.cleanup().expect("cleanup");
        let mut report = LoadReport::default();
        for body in &self.bodies {
            load(&destination, &mut Input::new(body), 1, &mut report).expect("a load");
        }
        assert!(self.model.dump() == destination.vm.dump(), "the tables differ");
        no_reader_is_left();
    }
}

impl Drop for Save {
    /// A reader that waits at the gate would never end.
    fn drop(&mut self) {
        self.host.gate.open();
    }
}

/// Runs `call` while the reader is inside a read; lets the read go on once the call has come `so_far`.
fn while_reading<T: Send>(save: &Save, so_far: impl Fn() -> bool, call: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let call = scope.spawn(call);
        let came = wait_for(|| so_far() || call.is_finished());
        // A call that does not wait for the read would be over soon.
        thread::sleep(Duration::from_millis(20));
        let waited = !call.is_finished();
        save.host.gate.open();
        came.expect("the call comes so far");
        assert!(waited, "it did not wait for the read");
        call.join().expect("the call")
    })
}

/// Runs `call`, which is not to wait for the read that the reader is inside of.
fn without_waiting<T: Send>(gate: &Gate, call: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let call = scope.spawn(call);
        let came_back = wait_for(|| call.is_finished());
        if came_back.is_err() {
            gate.open();
        }
        came_back.expect("it does not wait for the read");
        call.join().expect("the call")
    })
}

#[test]
fn whoever_ends_reading_waits_for_one_read_at_most_and_leaves_nothing() {
    let _alone = alone();
    // At the gate before and after each of the first reads, of which a dense table has 17.
    for waits in 0..8 {
        for end in ["cleanup", "quiesce", "setup", "fail", "free"] {
            let mut save = Save::begun(AHEAD);
            save.step(waits);
            wait_for(|| save.host.gate.waiting().is_some()).expect("at the gate");
            let begun = save.host.gate.begun();
            let saver = std::mem::take(&mut save.saver);
            let queue = saver.queue().expect("a queue");
            let told_to_end = || queue.activity() == Activity::Parked;
            let saver = while_reading(&save, told_to_end, || match end {
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
                    saver.fail(Error::Internal);
                    Ok(Some(saver))
                }
                _ => {
                    drop(saver);
                    Ok(None)
                }
            });
            let saver = saver.expect(end);
            let gate = &save.host.gate;
            assert_eq!((gate.begun(), gate.closed()), (begun, 1), "{end} after {waits} waits");
            no_reader_is_left();
            assert!(saver.is_none_or(|saver| saver.queue().is_none()));
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
fn iterate_and_pending_do_not_wait_for_a_read() {
    let _alone = alone();
    let mut save = Save::begun(AHEAD);
    let gate = Arc::clone(&save.host.gate);
    // Nothing lets the read go on.
    let progress = without_waiting(&gate, || save.iterate(Some(u64::MAX >> 1)));
    assert_eq!(progress, Ok(Progress::More));
    assert_eq!(save.bodies[1], [0; 12], "nothing is ready");
    assert_eq!(without_waiting(&gate, || save.saver.pending()), SLOTS / 8 * 24);
    without_waiting(&gate, || save.saver.vm_state(true));
    wait_for(|| save.host.gate.waiting() == Some(Where::Before)).expect("in its first read");
    save.step(2);
    wait_for(|| save.saver.queue().is_some_and(|queue| queue.bytes() > 0)).expect("a chunk");
    assert_eq!(without_waiting(&gate, || save.iterate(Some(u64::MAX >> 1))), Ok(Progress::More));
    assert_eq!(save.bodies[2].len(), 12 + 8 + 16 * 4095, "what was read is sent, and no more is waited for");
    save.host.gate.open();
    save.complete().expect("complete");
    save.arrive();
}

#[test]
fn a_told_stop_does_not_wait_for_a_read_and_a_read_begun_before_does_not_count() {
    let _alone = alone();
    let mut save = Save::begun(AHEAD);
    let model = save.model.clone();
    let (v, r) = hpte(77);
    // The read that goes on while the VM stops has passed the slot of the last change.
    save.step(1);
    wait_for(|| save.host.gate.waiting() == Some(Where::After)).expect("in the first read");
    model.enter(3, v, r);
    save.saver.vm_state(false);
    let passed = model.stats().slots_read;
    save.host.gate.open();
    save.until(Activity::Parked);
    assert!(!model.is_dirty(3));
    assert!(model.stats().slots_read - passed >= SLOTS);
    let reads = model.stats().reads;
    save.complete().expect("complete");
    assert_eq!(model.stats().reads, reads, "all was read before complete");
    assert_eq!(save.saver.pending(), 0);
    save.arrive();
}

#[test]
fn the_final_sweep_passes_each_slot_once() {
    let _alone = alone();
    for told in [false, true] {
        let mut save = Save::begun(AHEAD);
        save.host.gate.open();
        while save.iterate(None) != Ok(Progress::Clean) {}
        save.until(Activity::Parked);
        let (v, r) = hpte(78);
        save.model.enter(SLOTS - 1, v, r);
        let passed = save.model.stats().slots_read;
        if told {
            save.saver.vm_state(false);
        }
        save.complete().expect("complete");
        assert_eq!(save.model.stats().slots_read - passed, SLOTS);
        save.complete().expect("complete again");
        let sweeps = if told { 1 } else { 2 };
        assert_eq!(save.model.stats().slots_read - passed, sweeps * SLOTS);
        save.arrive();
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
        no_reader_is_left();
        complete.join().expect("complete")
    });
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
    assert_eq!(out.bytes.len(), 4 + 3 * (8 + 16 * 4095), "the three reads before it");
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
    save.model.before_read(Box::new(|_, read| assert!(read < 2, "a bug")));
    save.host.gate.open();
    save.until(Activity::Parked);
    let error = save.complete().expect_err("a panic");
    assert_eq!(error.errno().number(), libc::ENOTRECOVERABLE);
    assert!(error.to_string().contains("a bug"), "{error}");
    save.saver.cleanup().expect("cleanup");
    no_reader_is_left();
}

#[test]
fn the_queue_keeps_its_bound_and_is_counted_exactly() {
    let _alone = alone();
    for limit in [0, MAX_CHUNK_BYTES, 3 * MAX_CHUNK_BYTES, 10 * MAX_CHUNK_BYTES - 1] {
        let mut save = Save::begun(SaveOptions { ahead: Some(limit), ..AHEAD });
        save.host.gate.open();
        let mut most = 0;
        let mut sent = 0;
        save.saver.vm_state(false);
        while save.saver.queue().is_some_and(|queue| queue.activity() != Activity::Parked)
            || sent < SLOTS * 16
        {
            let queue = save.saver.queue().expect("a queue");
            wait_for(|| queue.activity() != Activity::Reading).expect("full or parked");
            most = most.max(queue.bytes());
            let before = queue.bytes();
            let mut out = Output { limited: true, ..Output::default() };
            save.saver.iterate(&save.host, &mut out, None).expect("iterate");
            let records = out.bytes.len() - 12;
            assert!(records <= before || before == 0, "{records} bytes of {before}");
            sent += records as u64;
            save.bodies.push(out.bytes);
        }
        assert!(most <= limit.max(MAX_CHUNK_BYTES), "{most} bytes in a queue of {limit}");
        assert!(most + 2 * MAX_CHUNK_BYTES > limit, "a queue of {limit} is not filled: {most} bytes");
        save.complete().expect("complete");
        save.arrive();
    }
}

#[test]
fn what_is_pending_is_what_is_sent() {
    let _alone = alone();
    let mut save = Save::begun(AHEAD);
    save.saver.vm_state(false);
    save.host.gate.open();
    save.until(Activity::Parked);
    let mut pending = save.saver.pending();
    assert_eq!(pending, 16 * SLOTS + 8 * 17, "all of the table, in 17 records");
    while pending > 0 {
        let mut out = Output { limited: true, ..Output::default() };
        save.saver.iterate(&save.host, &mut out, Some(Nanos(1 << 40))).expect("iterate");
        let sent = out.bytes.len() as u64 - 12;
        assert_eq!(save.saver.pending(), pending - sent);
        pending -= sent;
        save.bodies.push(out.bytes);
    }
    save.complete().expect("complete");
    save.arrive();
}

#[test]
fn a_lookup_goes_out_behind_what_was_read_before_it() {
    let _alone = alone();
    let mut save = Save::begun(AHEAD);
    save.host.gate.open();
    save.until(Activity::Parked);
    // The first pass is in the queue, with slot 40 as it was. The lookup takes the mark of its change.
    let (v, r) = hpte(4000);
    save.model.enter(40, v, r);
    read_hptes(&save.host, &save.saver, Slot(40), 8).expect("a lookup");
    assert!(!save.model.is_dirty(40));
    save.complete().expect("complete");
    assert!(save.saver.report().looked_up.records > 0);
    save.arrive();
}

#[test]
fn a_lookup_waits_for_the_read_that_is_under_way_and_none_begins_meanwhile() {
    let _alone = alone();
    let mut save = Save::begun(AHEAD);
    // The first read has been made, of slot 40 as it was, and is not in the queue yet.
    save.step(1);
    wait_for(|| save.host.gate.waiting() == Some(Where::After)).expect("after the first read");
    let (v, r) = hpte(4001);
    save.model.enter(40, v, r);
    while_reading(&save, || true, || read_hptes(&save.host, &save.saver, Slot(40), 8)).expect("a lookup");
    save.complete().expect("complete");
    save.arrive();
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
        assert!(save.saver.queue().is_none());
        no_reader_is_left();
        assert_eq!(save.iterate(None), Ok(Progress::More));
        let (v, r) = hpte(4002);
        save.model.enter(40, v, r);
        save.complete().expect("complete");
        save
    });
    save.join().expect("the save").arrive();
}

#[test]
fn the_first_pass_is_a_whole_table_in_order() {
    let _alone = alone();
    let mut save = Save::begun(AHEAD);
    save.host.gate.open();
    assert_eq!(save.iterate(None), Ok(Progress::More));
    let told = wire::replay(&wire::body(&save.bodies[1]).expect("records"));
    assert!(told == save.model.dump());
    save.complete().expect("complete");
    save.arrive();
}
