// SPDX-License-Identifier: GPL-2.0-or-later
//! What can go wrong, as one errno for the caller's code and one sentence for a person.

mod message;

use crate::format::hpte::{Order, Slot};
use crate::format::record::{RecordHeader, WrongRecord};
use std::any::Any;
use std::{fmt, io};

/// A positive errno value as Linux numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(i32);

impl Errno {
    /// Input/output error: what stands in for a failure without a number of its own.
    pub const EIO: Errno = Errno(libc::EIO);

    /// Takes `-errno` from a callback. Anything that is not one (0, positive, below -4095) counts as EIO.
    #[must_use]
    pub fn from_negative(value: i64) -> Errno {
        match i32::try_from(value) {
            Ok(number @ -4095..=-1) => Errno(-number),
            _ => Errno::EIO,
        }
    }

    /// The calling thread's `errno`.
    #[must_use]
    pub fn last() -> Errno {
        io::Error::last_os_error().into()
    }

    /// From a positive errno constant.
    #[must_use]
    pub const fn new(number: i32) -> Errno {
        Errno(number)
    }

    /// The positive number.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Errno {
        error.raw_os_error().map_or(Errno::EIO, Errno)
    }
}

impl fmt::Display for Errno {
    /// The C library's text, without the number that Rust puts behind it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = io::Error::from_raw_os_error(self.0).to_string();
        f.write_str(text.split(" (os error ").next().unwrap_or_default())
    }
}

/// Which direction a kernel fd was opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// To save.
    Read,
    /// To load.
    Write,
}

/// Where in a body the reader was: what a person needs to find the spot in a captured stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// Records of this body read in full before this one.
    pub record: u64,
    /// Bytes from the body's start to the item that could not be read or taken.
    pub offset: u64,
}

/// Every failure this library reports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// A caller broke the rules of a function.
    Argument(&'static str),
    /// A function was called when it makes no sense, such as iterate before setup.
    State(&'static str),
    /// A function was called while the same thread, or for load another caller, was inside one like it.
    Reentered(&'static str),
    /// A table size that cannot be carried.
    Order {
        /// As given.
        order: u32,
    },
    /// A lookup of a slot that the table does not have.
    NoSuchSlot {
        /// The last slot asked for.
        slot: Slot,
        /// The table's size.
        order: Order,
    },
    /// A buffer in which no record fits; the kernel would answer 0, which looks like a clean table.
    Buffer {
        /// As given.
        bytes: usize,
    },
    /// There is no memory for something that large.
    Memory {
        /// What was asked for.
        bytes: u64,
        /// What for, in words.
        what: &'static str,
    },
    /// The host could not say what table the guest has.
    Table(Errno),
    /// The kernel gave no fd.
    Open(Access, Errno),
    /// Reading the kernel's fd failed.
    KernelRead {
        /// Where the read began.
        slot: Slot,
        /// The pass, counted from 1.
        pass: u64,
        /// Why.
        errno: Errno,
    },
    /// The kernel's records make no sense for this table.
    KernelRecord {
        /// The record, and what is wrong with it.
        wrong: WrongRecord,
        /// Where the read began.
        slot: Slot,
    },
    /// The kernel's first pass ended before the table's last slot.
    FirstPassShort {
        /// Where it ended.
        end: Slot,
        /// The table's size, from the host.
        order: Order,
    },
    /// The kernel refused an entry or some invalid slots.
    KernelWrite {
        /// The slot, as exactly as the kernel lets us know.
        slot: Slot,
        /// Slots that may hold the culprit, from `slot` on.
        slots: u64,
        /// Why.
        errno: Errno,
    },
    /// The kernel took part of a record and gave no reason.
    KernelShort {
        /// The record's first slot.
        slot: Slot,
        /// Bytes taken.
        took: usize,
        /// Bytes given.
        gave: usize,
    },
    /// The table's size changed after the last iterate: its new size has no place in the last section.
    SizeUnsent {
        /// The size to be sent.
        order: Order,
    },
    /// The stream did not take what was put.
    StreamWrite {
        /// The pass, counted from 1; 0 in setup.
        pass: u64,
        /// Bytes of records sent before.
        sent: u64,
        /// Why.
        errno: Errno,
    },
    /// The stream failed while a section was read.
    StreamRead(Place, Errno),
    /// The stream ended inside a section.
    Truncated(Place),
    /// The section's version is none we know.
    Version(i32),
    /// A record names slots that the table does not have.
    OutOfTable(Place, RecordHeader, Order),
    /// Records arrived before any table.
    NoTable(Place, RecordHeader),
    /// The table was replaced while records for it were on their way.
    TableReplaced,
    /// The stream asks for a table when the guest may already run.
    TooLate(Order),
    /// The host could not make a table of the size that the stream asked for.
    Allocate(Order, Errno),
    /// The host could not drop its table.
    Free(Errno),
    /// What was loaded is not what was sent: what differs, in words.
    NotAsSent(String),
    /// A panic inside the library, caught at its border or on the thread that reads ahead: what it said.
    Internal(String),
}

impl Error {
    /// The errno this error has at the C border; total, and never 0.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match *self {
            Error::Argument(_)
            | Error::State(_)
            | Error::Order { .. }
            | Error::NoSuchSlot { .. }
            | Error::Buffer { .. }
            | Error::Version(_)
            | Error::TableReplaced
            | Error::TooLate(_)
            | Error::OutOfTable(..)
            | Error::NoTable(..) => Errno(libc::EINVAL),
            Error::Reentered(_) => Errno(libc::EDEADLK),
            Error::Table(errno)
            | Error::Open(_, errno)
            | Error::KernelRead { errno, .. }
            | Error::KernelWrite { errno, .. }
            | Error::StreamWrite { errno, .. }
            | Error::StreamRead(_, errno)
            | Error::Allocate(_, errno)
            | Error::Free(errno) => errno,
            Error::KernelRecord { .. }
            | Error::FirstPassShort { .. }
            | Error::KernelShort { .. }
            | Error::Truncated(_) => Errno::EIO,
            Error::Memory { .. } => Errno(libc::ENOMEM),
            Error::SizeUnsent { .. } => Errno(libc::EAGAIN),
            Error::NotAsSent(_) => Errno(libc::EBADMSG),
            Error::Internal(_) => Errno(libc::ENOTRECOVERABLE),
        }
    }
}

impl std::error::Error for Error {}

/// What a panic was.
#[must_use]
pub fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    Error::Internal(text.replace('\n', " "))
}

/// Makes room for `more` items, where there may be no memory for as many as there are.
///
/// # Errors
/// [`Error::Memory`].
pub fn reserve<T>(items: &mut Vec<T>, more: usize, what: &'static str) -> Result<(), Error> {
    let bytes = items.len().saturating_add(more).saturating_mul(size_of::<T>()) as u64;
    items.try_reserve(more).map_err(|_| Error::Memory { bytes, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_cannot_make_success_of_a_failure() {
        for value in [0, 1, 5, i64::MAX, i64::MIN, -4096] {
            assert_eq!(Errno::from_negative(value), Errno::EIO);
        }
        assert_eq!(Errno::from_negative(-28).number(), libc::ENOSPC);
    }

    #[test]
    fn write_errors_name_the_slot_and_the_cause() {
        for (number, word) in [
            (libc::EBUSY, "vCPUs are running"),
            (libc::EINVAL, "radix"),
            (libc::EIO, "aligned"),
            (libc::EFAULT, "memory"),
            (libc::ENOSPC, "no memory left"),
        ] {
            let error = Error::KernelWrite { slot: Slot(77), slots: 1, errno: Errno::new(number) };
            let sentence = error.to_string();
            assert!(sentence.contains("slot 77") && sentence.contains(word), "{sentence}");
            assert!(!sentence.contains("after it"), "{sentence}");
            assert_eq!(error.errno().number(), number);
        }
        let several = Error::KernelWrite { slot: Slot(77), slots: 3, errno: Errno::EIO }.to_string();
        assert!(several.contains("the 2 slots after it"), "{several}");
    }

    #[test]
    fn open_errors_name_the_cause() {
        for (number, word) in [
            (libc::ENOTTY, "KVM-HV only"),
            (libc::EMFILE, "limit on open files"),
            (libc::ENOMEM, "no memory left"),
            (libc::EBADF, "no VM file descriptor"),
            (libc::EPERM, "not permitted"),
        ] {
            let sentence = Error::Open(Access::Read, Errno::new(number)).to_string();
            assert!(sentence.contains(word), "{sentence}");
        }
    }
}
