// SPDX-License-Identifier: GPL-2.0-or-later
//! What the library asks of the program it is linked into.

use crate::clock::{Clock, SystemClock};
use crate::error::{Access, Errno, Error};
use crate::hpte::{Order, Slot};
use crate::table::Table;
use std::sync::Arc;

/// One of the kernel's HPT file descriptors (`KVM_PPC_GET_HTAB_FD`); dropping it closes it.
pub trait HptFd: Send {
    /// One read of whole kernel records.
    ///
    /// # Errors
    /// The kernel's errno.
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Errno>;

    /// One vectored write, a kernel record in each segment. Returns the bytes of the records that were applied before
    /// the first that was not.
    ///
    /// # Errors
    /// The kernel's errno for the first record.
    fn write(&mut self, records: &[&[u8]]) -> Result<usize, Errno>;
}

/// Makes a system call again that a signal kept from doing anything.
///
/// # Errors
/// Any but EINTR.
pub fn retry(mut call: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(errno) if errno.number() == libc::EINTR => {}
            done => return done,
        }
    }
}

/// How to open a kernel fd.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenOptions {
    /// To save or to load.
    pub access: Access,
    /// Report every entry without [`crate::hpte::V_BOLTED`] as invalid.
    pub bolted_only: bool,
    /// Where the first pass begins.
    pub start: Slot,
}

impl OpenOptions {
    /// The whole table.
    #[must_use]
    pub fn new(access: Access) -> OpenOptions {
        OpenOptions { access, bolted_only: false, start: Slot(0) }
    }
}

/// The program around the library: QEMU, or a test.
pub trait Host: Clock {
    /// The host as a clock alone: `self`. (Rust 1.85 has no such conversion of its own.)
    fn clock(&self) -> &dyn Clock;

    /// A clock for the thread that reads ahead, which may look at it at any time during a save.
    fn thread_clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock::default())
    }

    /// The guest's table as it is now.
    ///
    /// # Errors
    /// The table cannot be named, or is one that cannot be carried.
    fn table(&self) -> Result<Table, Error>;

    /// Gives the guest a new, empty table.
    ///
    /// # Errors
    /// Why it cannot.
    fn allocate(&self, order: Order) -> Result<(), Errno>;

    /// Leaves the guest without a table.
    ///
    /// # Errors
    /// Why it cannot.
    fn free(&self) -> Result<(), Errno>;

    /// Opens the kernel's table.
    ///
    /// # Errors
    /// Why it cannot.
    fn open(&self, options: OpenOptions) -> Result<Box<dyn HptFd>, Errno>;
}
