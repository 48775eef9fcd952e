// SPDX-License-Identifier: GPL-2.0-or-later
//! Every callback and system call fails at its every call.

use crate::leaks::nothing_is_left_by;
use crate::migration::{Migration, STAGES, Stage, WAYS, Way};
use htab_harness::handle::Failure;
use htab_harness::plan::{Call, Fault};

/// What must come of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wanted {
    /// Nothing: it is no failure.
    Success,
    /// This errno, and these words in the sentence.
    Error(i32, &'static str),
    /// That, unless what is cut short was as short anyway.
    IfLonger(i32, &'static str),
}
use Wanted::{Error, IfLonger, Success};

const ERRNO_NONSENSE: i64 = -5000;

/// What can happen to a call, and what must come of it. Short reads come in a first pass and in a lookup only, where
/// the library knows how far one must get: in a later pass a short read is what says that the rest has not changed.
fn faults(call: Call, stage: Option<Stage>) -> Vec<(Fault, Wanted)> {
    let errnos = |errnos: &[i32], words| -> Vec<_> {
        errnos.iter().map(|&errno| (Fault::Errno(errno), Error(errno, words))).collect()
    };
    let eio = |fault, words| (fault, Error(libc::EIO, words));
    let mut all = match call {
        Call::Put => errnos(&[libc::EIO, libc::ENOSPC, libc::EPIPE, libc::ECONNRESET], "stream failed"),
        Call::RateLimited => vec![(Fault::Value(1), Success), (Fault::Errno(libc::EIO), Success)],
        Call::Get => errnos(&[libc::EIO, libc::ECONNRESET, libc::ETIMEDOUT], "stream failed at"),
        Call::Table => errnos(&[libc::ENXIO, libc::ENODEV], "could not name"),
        Call::Allocate => errnos(&[libc::ENOMEM, libc::EBUSY, libc::EINVAL], "(order 18, 256 KiB)"),
        Call::Free => errnos(&[libc::EPERM, libc::EBUSY], "free"),
        Call::Open => errnos(
            &[libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EINVAL, libc::EFAULT, libc::ENOTTY],
            "the kernel's hash table",
        ),
        Call::Read => {
            errnos(&[libc::EFAULT, libc::EIO, libc::EBADF], "reading the kernel's hash table failed")
        }
        Call::Write => errnos(
            &[libc::EBUSY, libc::EINVAL, libc::EIO, libc::EFAULT, libc::ENOSPC, libc::ENOMEM, libc::EBADF],
            "loading slot",
        ),
        Call::Close => vec![(Fault::Errno(libc::EIO), Success), (Fault::Errno(libc::EINTR), Success)],
        // It gives what it likes: see `clocks`.
        Call::Clock => Vec::new(),
    };
    match call {
        Call::Put => {
            all.extend([eio(Fault::Value(i32::MIN.into()), "stream failed"), (Fault::Value(1), Success)])
        }
        Call::Get => all.extend([
            eio(Fault::Value(i64::MAX), "stream failed at"),
            eio(Fault::Value(ERRNO_NONSENSE), "stream failed at"),
            eio(Fault::Quiet(0), "ended at"),
            (Fault::Quiet(libc::ECONNRESET), Error(libc::ECONNRESET, "stream failed at")),
            (Fault::Short(1), Success),
        ]),
        Call::Table => all.extend([
            // No such kind; a table in memory that is nowhere; an order that cannot be.
            (Fault::Quiet(77), Error(libc::EINVAL, "could not name")),
            (Fault::Quiet(2), Error(libc::EFAULT, "could not name")),
            (Fault::Value(17), Error(libc::EINVAL, "orders 18 to 36")),
        ]),
        Call::Open => all.push(eio(Fault::Value(ERRNO_NONSENSE), "the kernel's hash table")),
        Call::Read => {
            all.extend([
                (Fault::Errno(libc::EINTR), Success),
                // The changes that it took are lost to the kernel.
                (Fault::Late(libc::EFAULT), Error(libc::EFAULT, "reading the kernel's hash table failed")),
                eio(Fault::Value(i64::MAX), "reading the kernel's hash table failed"),
                eio(Fault::Value(ERRNO_NONSENSE), "reading the kernel's hash table failed"),
            ]);
            match stage {
                Some(Stage::FirstPass) => all.push((Fault::Short(100), IfLonger(libc::EIO, "ended at slot"))),
                Some(Stage::LookUp) => all.push((Fault::Short(100), Success)),
                _ => {}
            }
        }
        Call::Write => all.extend([
            (Fault::Errno(libc::EINTR), Success),
            eio(Fault::Short(4), "gave no reason"),
            eio(Fault::Value(0), "gave no reason"),
            eio(Fault::Value(i64::MAX), "gave no reason"),
            eio(Fault::Value(ERRNO_NONSENSE), "loading slot"),
        ]),
        _ => {}
    }
    all
}

/// Those that can be system calls.
fn can_be_a_system_call(call: Call) -> bool {
    matches!(call, Call::Open | Call::Read | Call::Write | Call::Close)
}

/// One migration in which the `nth` call of a side goes wrong; how often it did, and where.
fn one(way: Way, side: usize, call: Call, nth: u64, fault: Fault, wanted: Wanted) -> Option<Stage> {
    let migration = Migration::new(way);
    let world = migration.world(side);
    world.plan.fail(call, nth, fault);
    let result = migration.run();
    let (fired, stage) = (world.plan.fired().map(|mark| STAGES[mark as usize]), migration.stage.get());
    let what = || format!("{way:?}: {call:?} {nth} of side {side} in {stage:?}: {fault:?}: {result:?}");
    match (&result, wanted) {
        (Ok(()), Success | IfLonger(..)) => {}
        // A thread may read less this time, or read ahead what a reset makes nobody ask for.
        (Ok(()), Error(..)) => {
            assert!(fired.is_none() || call == Call::Read && !way.is_repeatable(), "{}", what());
        }
        (Err(Failure { errno, sentence }), Error(right, words) | IfLonger(right, words)) => {
            assert!(fired.is_some() && *errno == right && sentence.contains(words), "{}", what());
        }
        (Err(_), Success) => panic!("{}", what()),
    }
    migration.guest_goes_on();
    if result.is_err() {
        world.plan.clear();
        migration.from.handle.cleanup().expect("cleanup");
        assert_eq!(migration.from.handle.world.open_fds(), 0, "{}", what());
        migration.run().unwrap_or_else(|failure| panic!("again after {}: {failure:?}", what()));
    }
    migration.arrived();
    fired
}

/// The calls of a migration in which nothing goes wrong: side, kind and number.
fn calls(way: Way) -> Vec<(usize, Call, u64)> {
    let migration = Migration::new(way);
    migration.run().expect("nothing goes wrong");
    migration.arrived();
    let calls = Call::ALL.iter().flat_map(|&call| {
        let counts = migration.calls(call);
        [0, 1].into_iter().flat_map(move |side| (0..counts[side]).map(move |nth| (side, call, nth)))
    });
    calls.collect()
}

/// When a read is made, if that is the same each time.
fn stage_of(way: Way, (side, call, nth): (usize, Call, u64)) -> Option<Stage> {
    if call != Call::Read || !way.is_repeatable() {
        return None;
    }
    one(way, side, call, nth, Fault::Errno(libc::EINTR), Success)
}

pub fn each_call_fails_once_with_each_errno() -> String {
    let mut injected = [0; STAGES.len()];
    for way in WAYS {
        for (side, call, nth) in calls(way) {
            for (fault, wanted) in faults(call, stage_of(way, (side, call, nth))) {
                // A system call gives no errno that is none.
                if way.system_calls && fault == Fault::Value(ERRNO_NONSENSE) && can_be_a_system_call(call) {
                    continue;
                }
                let fired = nothing_is_left_by(|| one(way, side, call, nth, fault, wanted));
                assert!(fired.is_some() || !way.is_repeatable(), "{call:?} {nth} was not made");
                if let Some(stage) = fired {
                    injected[stage as usize] += 1;
                }
            }
        }
    }
    let all: u64 = injected.iter().sum();
    let stages: Vec<_> =
        STAGES.iter().zip(injected).map(|(stage, count)| format!("{stage:?} {count}")).collect();
    format!("{all} faults injected ({})", stages.join(", "))
}
