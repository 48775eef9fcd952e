// SPDX-License-Identifier: GPL-2.0-or-later
//! Whether the VM is stopped. While it is, nothing in its table changes, and a slot that a read begun since has visited
//! needs no other.

use std::num::NonZeroU64;

/// One stop of the VM: no two have the same number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StopId(NonZeroU64);

/// What is known of the VM's stops.
#[derive(Default)]
pub struct RunState {
    stops: u64,
    /// The stop that lasts, if one does.
    stop: Option<StopId>,
    /// The host reports when the VM stops and when it runs; otherwise a stop is known for the length of a complete.
    reported: bool,
}

impl RunState {
    /// The host reports that the VM has stopped. Reported twice it is one stop.
    pub fn stopped(&mut self) {
        if !self.is_reported_stop() {
            self.reported = true;
            self.begin();
        }
    }

    /// The host reports that the VM is about to run.
    pub fn running(&mut self) {
        self.reported = true;
        self.stop = None;
    }

    /// Something changed the table, or may have, though the VM is stopped: what was visited since the stop has to be
    /// visited again.
    pub fn disturbed(&mut self) {
        if self.stop.is_some() {
            self.begin();
        }
    }

    /// A complete begins, for which the VM is stopped. Without the host's report the stop is a new one each time.
    pub fn completing(&mut self) {
        if !self.is_reported_stop() {
            self.reported = false;
            self.begin();
        }
    }

    /// An iterate begins: a stop that only a complete knew of may be over.
    pub fn iterating(&mut self) {
        if !self.reported {
            self.stop = None;
        }
    }

    /// The stop that lasts.
    #[must_use]
    pub fn stop(&self) -> Option<StopId> {
        self.stop
    }

    fn is_reported_stop(&self) -> bool {
        self.reported && self.stop.is_some()
    }

    fn begin(&mut self) {
        self.stops += 1;
        self.stop = NonZeroU64::new(self.stops).map(StopId);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_that_the_host_reports_lasts_until_it_reports_otherwise() {
        let mut vm = RunState::default();
        vm.stopped();
        let stop = vm.stop();
        assert!(stop.is_some());
        vm.stopped();
        vm.completing();
        assert_eq!(vm.stop(), stop);
        vm.iterating();
        assert_eq!(vm.stop(), stop);
        vm.running();
        assert_eq!(vm.stop(), None);
        vm.stopped();
        assert!(vm.stop().is_some_and(|other| Some(other) != stop));
    }

    #[test]
    fn without_the_hosts_report_each_complete_is_a_stop_of_its_own() {
        let mut vm = RunState::default();
        vm.completing();
        let first = vm.stop();
        vm.completing();
        assert!(first.is_some() && vm.stop().is_some() && vm.stop() != first);
        vm.iterating();
        assert_eq!(vm.stop(), None);
    }

    #[test]
    fn what_the_host_reports_after_a_complete_is_a_new_stop() {
        let mut vm = RunState::default();
        vm.completing();
        let own = vm.stop();
        vm.stopped();
        assert!(vm.stop().is_some() && vm.stop() != own);
    }

    #[test]
    fn a_change_begins_the_stop_anew() {
        let mut vm = RunState::default();
        vm.disturbed();
        assert_eq!(vm.stop(), None);
        vm.stopped();
        let stop = vm.stop();
        vm.disturbed();
        assert!(vm.stop().is_some() && vm.stop() != stop);
    }
}
