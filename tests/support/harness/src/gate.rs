// SPDX-License-Identifier: GPL-2.0-or-later
//! A host whose reads of the table wait until they are let through, so that a test can stop a reader at any point.

use crate::host::VmHost;
use spapr_htab::inside::error::{Access, Errno, Error};
use spapr_htab::inside::format::hpte::Order;
use spapr_htab::inside::host::{Clock, Nanos};
use spapr_htab::inside::host::{Host, HptFd, OpenOptions};
use spapr_htab::inside::sync::lock::lock;
use spapr_htab::inside::table::Table;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Where a read waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Where {
    /// Before the table is read.
    Before,
    /// After it was, before the reader has what it found.
    After,
}

/// The gate that reads go through.
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Reads that may go through; none wait once it is open.
    passes: u64,
    open: bool,
    waiting: Option<Where>,
    /// Reads begun, and fds closed.
    begun: u64,
    closed: u64,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn pass(&self, at: Where) {
        let mut state = self.state();
        state.waiting = Some(at);
        self.changed.notify_all();
        while !state.open && state.passes == 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.passes = state.passes.saturating_sub(1);
        state.waiting = None;
    }

    /// Lets so many waits be over.
    pub fn let_through(&self, passes: u64) {
        self.state().passes += passes;
        self.changed.notify_all();
    }

    /// Holds up no read any more.
    pub fn open(&self) {
        self.state().open = true;
        self.changed.notify_all();
    }

    /// Where a read waits now.
    pub fn waiting(&self) -> Option<Where> {
        let state = self.state();
        state.waiting.filter(|_| !state.open && state.passes == 0)
    }

    /// Reads begun so far.
    pub fn begun(&self) -> u64 {
        self.state().begun
    }

    /// Fds to read from that were closed so far.
    pub fn closed(&self) -> u64 {
        self.state().closed
    }
}

/// The host. The fds of lookups are not held up.
pub struct GatedHost {
    pub host: VmHost,
    pub gate: Arc<Gate>,
}

impl GatedHost {
    #[must_use]
    pub fn new(host: VmHost) -> GatedHost {
        let gate = Gate { state: Mutex::default(), changed: Condvar::new() };
        GatedHost { host, gate: Arc::new(gate) }
    }
}

impl Clock for GatedHost {
    fn now(&self) -> Nanos {
        self.host.now()
    }
}

impl Host for GatedHost {
    fn clock(&self) -> &dyn Clock {
        self
    }

    fn thread_clock(&self) -> Arc<dyn Clock> {
        self.host.thread_clock()
    }

    fn table(&self) -> Result<Table, Error> {
        self.host.table()
    }

    fn allocate(&self, order: Order) -> Result<(), Errno> {
        self.host.allocate(order)
    }

    fn free(&self) -> Result<(), Errno> {
        self.host.free()
    }

    fn open(&self, options: OpenOptions) -> Result<Box<dyn HptFd>, Errno> {
        let fd = self.host.open(options)?;
        // A save's begins at slot 0; the tests look up others.
        if options.access == Access::Read && options.start.0 == 0 {
            Ok(Box::new(GatedFd { fd, gate: Arc::clone(&self.gate) }))
        } else {
            Ok(fd)
        }
    }
}

struct GatedFd {
    fd: Box<dyn HptFd>,
    gate: Arc<Gate>,
}

impl HptFd for GatedFd {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Errno> {
        self.gate.state().begun += 1;
        self.gate.pass(Where::Before);
        let read = self.fd.read(buf);
        self.gate.pass(Where::After);
        read
    }

    fn write(&mut self, records: &[&[u8]]) -> Result<usize, Errno> {
        self.fd.write(records)
    }
}

impl Drop for GatedFd {
    fn drop(&mut self) {
        self.gate.state().closed += 1;
    }
}
