// SPDX-License-Identifier: GPL-2.0-or-later
//! Which call out of the library is to go wrong, and how.

use spapr_htab::inside::sync::lock::lock;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

/// A kind of call that the library makes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Call {
    Put,
    RateLimited,
    Get,
    Table,
    Allocate,
    Free,
    Open,
    Read,
    Write,
    Close,
    Clock,
}

impl Call {
    pub const ALL: [Call; 11] = [
        Call::Put,
        Call::RateLimited,
        Call::Get,
        Call::Table,
        Call::Allocate,
        Call::Free,
        Call::Open,
        Call::Read,
        Call::Write,
        Call::Close,
        Call::Clock,
    ];
}

/// How it goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It does nothing and gives this errno.
    Errno(i32),
    /// A read: the kernel has taken the marks of what it looked at, and gives this errno. Others: as `Errno`.
    Late(i32),
    /// It does nothing and returns this.
    Value(i64),
    /// It handles so many bytes at most.
    Short(usize),
    /// get: 0, and the stream keeps this errno for who asks. table: what makes no sense.
    Quiet(i32),
}

/// Counts all calls; one of them goes wrong.
#[derive(Default)]
pub struct Plan(Mutex<State>);

#[derive(Default)]
struct State {
    due: Option<(Call, u64, Fault)>,
    calls: BTreeMap<Call, u64>,
    /// Where the program is, and where it was when the fault came to pass.
    mark: u32,
    fired: Option<u32>,
}

impl Plan {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// The `nth` call of that kind from now on (0: the next) goes wrong.
    pub fn fail(&self, call: Call, nth: u64, fault: Fault) {
        let mut state = self.state();
        let nth = nth.saturating_add(state.calls.get(&call).copied().unwrap_or(0));
        state.due = Some((call, nth, fault));
        state.fired = None;
    }

    /// Nothing goes wrong from now on.
    pub fn clear(&self) {
        self.state().due = None;
    }

    /// Notes where the program is.
    pub fn mark(&self, mark: u32) {
        self.state().mark = mark;
    }

    /// The mark when the fault came to pass, if it did.
    #[must_use]
    pub fn fired(&self) -> Option<u32> {
        self.state().fired
    }

    /// The calls of a kind so far.
    #[must_use]
    pub fn calls(&self, call: Call) -> u64 {
        self.state().calls.get(&call).copied().unwrap_or(0)
    }

    /// A call is made: how it goes wrong, if it does.
    pub fn next(&self, call: Call) -> Option<Fault> {
        let mut state = self.state();
        let number = state.calls.entry(call).or_default();
        let this = *number;
        *number += 1;
        let due = state.due.filter(|&(kind, nth, _)| (kind, nth) == (call, this));
        if due.is_some() {
            state.fired = Some(state.mark);
        }
        due.map(|(_, _, fault)| fault)
    }
}

thread_local! {
    static IN_PROGRAM: Cell<bool> = const { Cell::new(false) };
}

/// Whether what the calling thread allocates now is the program's, not the library's: its own threads are in it from
/// `enter_program` on, but for calls of the library; a thread that is not the program's is in callbacks only.
#[must_use]
pub fn in_program() -> bool {
    IN_PROGRAM.get()
}

/// The calling thread is one of the program's.
pub fn enter_program() {
    IN_PROGRAM.set(true);
}

/// Does the work of a callback.
pub fn as_program<T>(work: impl FnOnce() -> T) -> T {
    within(true, work)
}

/// Calls the library.
pub fn as_library<T>(work: impl FnOnce() -> T) -> T {
    within(false, work)
}

fn within<T>(program: bool, work: impl FnOnce() -> T) -> T {
    let before = IN_PROGRAM.replace(program);
    let done = work();
    IN_PROGRAM.set(before);
    done
}
