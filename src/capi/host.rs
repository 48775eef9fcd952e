// SPDX-License-Identifier: GPL-2.0-or-later
//! The C host and its streams behind the traits of the core.

use super::fd::HostFd;
use super::types::{
    SPAPR_HTAB_TABLE_KERNEL, SPAPR_HTAB_TABLE_MEMORY, SPAPR_HTAB_TABLE_NONE, SpaprHtabHost, SpaprHtabTable,
};
use crate::error::{Errno, Error};
use crate::format::hpte::Order;
use crate::host::{Clock, Nanos, SystemClock};
use crate::host::{Host, HptFd, OpenOptions};
use crate::host::{StreamReader, StreamWriter};
use crate::save::Saver;
use crate::table::{SharedTable, Table};
use libc::{c_int, c_void};

/// The host's callbacks, for as long as a handle lives.
pub struct CHost {
    pub calls: SpaprHtabHost,
    clock: SystemClock,
}

// SAFETY: the host promised that its callbacks, with its opaque pointer, may be called on whichever thread calls the
// library, on several at once if it calls on several.
unsafe impl Send for CHost {}
// SAFETY: as for Send.
unsafe impl Sync for CHost {}

fn done(result: c_int) -> Result<(), Errno> {
    if result < 0 { Err(Errno::from_negative(result.into())) } else { Ok(()) }
}

fn order(order: u32) -> Result<Order, Error> {
    Order::new(order).ok_or(Error::Order { order })
}

/// A callback that is needed is not there.
const MISSING: Errno = Errno::new(libc::ENOSYS);

impl CHost {
    pub fn new(calls: SpaprHtabHost) -> CHost {
        CHost { calls, clock: SystemClock::default() }
    }

    pub fn stream(&self, stream: *mut c_void) -> CStream<'_> {
        CStream { calls: &self.calls, stream }
    }
}

impl Clock for CHost {
    fn now(&self) -> Nanos {
        match self.calls.clock_ns {
            // SAFETY: the host promised that its callbacks may be called with its opaque pointer.
            Some(clock) => Nanos(unsafe { clock(self.calls.opaque) }),
            None => self.clock.now(),
        }
    }
}

impl Host for CHost {
    fn clock(&self) -> &dyn Clock {
        self
    }

    fn table(&self) -> Result<Table, Error> {
        let ask = self.calls.table.ok_or(Error::Table(MISSING))?;
        let mut out = SpaprHtabTable {
            struct_size: size_of::<SpaprHtabTable>(),
            kind: SPAPR_HTAB_TABLE_NONE,
            order: 0,
            memory: std::ptr::null_mut(),
        };
        // SAFETY: the host promised that its callbacks may be called with its opaque pointer; `out` is ours.
        done(unsafe { ask(self.calls.opaque, &raw mut out) }).map_err(Error::Table)?;
        match out.kind {
            SPAPR_HTAB_TABLE_NONE => Ok(Table::None),
            SPAPR_HTAB_TABLE_KERNEL => order(out.order).map(Table::Kernel),
            SPAPR_HTAB_TABLE_MEMORY => {
                let order = order(out.order)?;
                // SAFETY: the host promised, in documenting `memory`, an allocation of 1 << order bytes that outlives
                // the save or load that asks, or its part before spapr_htab_quiesce, and that others use in words.
                let table = unsafe { SharedTable::new(out.memory.cast(), order) };
                table.map(Table::Memory).ok_or(Error::Table(Errno::new(libc::EFAULT)))
            }
            _ => Err(Error::Table(Errno::new(libc::EINVAL))),
        }
    }

    fn allocate(&self, order: Order) -> Result<(), Errno> {
        let allocate = self.calls.table_allocate.ok_or(MISSING)?;
        // SAFETY: the host promised that its callbacks may be called with its opaque pointer.
        done(unsafe { allocate(self.calls.opaque, order.log2_bytes()) })
    }

    fn free(&self) -> Result<(), Errno> {
        let free = self.calls.table_free.ok_or(MISSING)?;
        // SAFETY: the host promised that its callbacks may be called with its opaque pointer.
        done(unsafe { free(self.calls.opaque) })
    }

    fn open(&self, options: OpenOptions) -> Result<Box<dyn HptFd>, Errno> {
        Ok(Box::new(HostFd::open(&self.calls, options)?))
    }
}

/// The host while it loads: whoever saves on the same handle stops reading the table while it is replaced.
pub struct LoadingHost<'a> {
    pub host: &'a CHost,
    pub saver: &'a Saver,
}

impl LoadingHost<'_> {
    fn replace(&self, replace: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
        let quiesced = self.saver.quiesce();
        let replaced = replace();
        if quiesced {
            // What fails here fails the save, whose next call returns it. After a failure, too, the table may be
            // another.
            let _ = self.saver.resume(self.host);
        }
        replaced
    }
}

impl Clock for LoadingHost<'_> {
    fn now(&self) -> Nanos {
        self.host.now()
    }
}

impl Host for LoadingHost<'_> {
    fn clock(&self) -> &dyn Clock {
        self.host
    }

    fn table(&self) -> Result<Table, Error> {
        self.host.table()
    }

    fn allocate(&self, order: Order) -> Result<(), Errno> {
        self.replace(|| self.host.allocate(order))
    }

    fn free(&self) -> Result<(), Errno> {
        self.replace(|| self.host.free())
    }

    fn open(&self, options: OpenOptions) -> Result<Box<dyn HptFd>, Errno> {
        self.host.open(options)
    }
}

/// One stream of the host's, for the length of a call.
pub struct CStream<'a> {
    calls: &'a SpaprHtabHost,
    stream: *mut c_void,
}

impl StreamWriter for CStream<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let put = self.calls.put.ok_or(MISSING)?;
        // SAFETY: the host promised that its callbacks may be called with its opaque pointer and the stream that it
        // gave to this call; the bytes are valid for that length.
        done(unsafe { put(self.calls.opaque, self.stream, bytes.as_ptr(), bytes.len()) })
    }

    fn rate_limited(&mut self) -> bool {
        // SAFETY: as in `put`.
        self.calls.rate_limited.is_some_and(|limited| unsafe { limited(self.calls.opaque, self.stream) != 0 })
    }
}

impl StreamReader for CStream<'_> {
    fn get(&mut self, bytes: &mut [u8]) -> Result<usize, Errno> {
        let get = self.calls.get.ok_or(MISSING)?;
        // SAFETY: as in `put`; the buffer is ours alone, of that length.
        let got = unsafe { get(self.calls.opaque, self.stream, bytes.as_mut_ptr(), bytes.len()) };
        if got == 0 {
            if let Some(error) = self.calls.stream_error {
                // SAFETY: as in `put`.
                done(unsafe { error(self.calls.opaque, self.stream) })?;
            }
        }
        usize::try_from(got).map_err(|_| Errno::from_negative(got))
    }
}
