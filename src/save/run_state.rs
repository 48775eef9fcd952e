// SPDX-License-Identifier: GPL-2.0-or-later
//! Whether the VM is stopped. While it is, nothing in its table changes, and a slot that was passed by a read begun since
//! needs no other.

use crate::save::ahead::SharedQueue;
use crate::sync::lock::lock;
use std::num::NonZeroU64;
use std::sync::Mutex;

/// One stop of the VM: no two have the same number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StopId(NonZeroU64);

/// What is known of the VM's stops.
#[derive(Default)]
pub struct RunState(Mutex<State>);

#[derive(Default)]
struct State {
    stops: u64,
    /// The stop that lasts, if one does.
    now: Option<StopId>,
    /// The host says when the VM stops and when it runs; otherwise a stop is known for the length of a complete.
    told: bool,
    /// The reader that goes by it.
    reader: Option<SharedQueue>,
}

impl State {
    fn begin(&mut self) {
        self.stops += 1;
        self.set(NonZeroU64::new(self.stops).map(StopId));
    }

    fn end(&mut self) {
        self.set(None);
    }

    fn set(&mut self, now: Option<StopId>) {
        self.now = now;
        if let Some(reader) = &self.reader {
            reader.set_stop(now);
        }
    }
}

impl RunState {
    /// The host says that the VM has stopped. Said twice it is one stop.
    pub fn stopped(&self) {
        let mut state = lock(&self.0);
        if !(state.told && state.now.is_some()) {
            state.told = true;
            state.begin();
        }
    }

    /// The host says that the VM is about to run.
    pub fn running(&self) {
        let mut state = lock(&self.0);
        state.told = true;
        state.end();
    }

    /// The table was written to on the host's behalf: what was passed since the stop has to be passed again.
    pub fn written(&self) {
        let mut state = lock(&self.0);
        if state.now.is_some() {
            state.begin();
        }
    }

    /// The stop that lasts.
    #[must_use]
    pub fn now(&self) -> Option<StopId> {
        lock(&self.0).now
    }

    /// At the start of a complete, for which the VM is stopped: without the host's word the stop is a new one each time.
    pub fn completing(&self) {
        let mut state = lock(&self.0);
        if !(state.told && state.now.is_some()) {
            state.told = false;
            state.begin();
        }
    }

    /// At the start of an iterate: a stop that only a complete knew of may be over.
    #[must_use]
    pub fn iterating(&self) -> Option<StopId> {
        let mut state = lock(&self.0);
        if !state.told && state.now.is_some() {
            state.end();
        }
        state.now
    }

    /// Has a reader told, from now on, of how things stand.
    pub fn tell(&self, reader: &SharedQueue) {
        let mut state = lock(&self.0);
        reader.set_stop(state.now);
        state.reader = Some(reader.clone());
    }

    /// The reader has ended.
    pub fn tell_no_more(&self, reader: &SharedQueue) {
        lock(&self.0).reader.take_if(|told| SharedQueue::ptr_eq(told, reader));
    }

    /// The reader that is told.
    #[must_use]
    pub fn reader(&self) -> Option<SharedQueue> {
        lock(&self.0).reader.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_that_the_host_tells_lasts_until_it_tells_otherwise() {
        let halt = RunState::default();
        halt.stopped();
        let stop = halt.now();
        assert!(stop.is_some());
        halt.stopped();
        halt.completing();
        assert_eq!((halt.now(), halt.iterating()), (stop, stop));
        halt.running();
        assert_eq!(halt.now(), None);
        halt.stopped();
        assert!(halt.now().is_some_and(|other| Some(other) != stop));
    }

    #[test]
    fn without_the_hosts_word_each_complete_is_a_stop_of_its_own() {
        let halt = RunState::default();
        halt.completing();
        let first = halt.now();
        halt.completing();
        assert!(first.is_some() && halt.now().is_some() && halt.now() != first);
        assert_eq!(halt.iterating(), None);
    }

    #[test]
    fn what_the_host_tells_after_a_complete_is_a_new_stop() {
        let halt = RunState::default();
        halt.completing();
        let own = halt.now();
        halt.stopped();
        assert!(halt.now().is_some() && halt.now() != own);
    }

    #[test]
    fn a_write_begins_the_stop_anew() {
        let halt = RunState::default();
        halt.written();
        assert_eq!(halt.now(), None);
        halt.stopped();
        let stop = halt.now();
        halt.written();
        assert!(halt.now().is_some() && halt.now() != stop);
    }
}
