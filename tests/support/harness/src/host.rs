// SPDX-License-Identifier: GPL-2.0-or-later
//! A host program around the library: one VM, real or modelled, and a stream in memory.

use htab_model::vm::{HtabFd, Vm, WRITE};
use spapr_htab::inside::error::{Access, Errno, Error};
use spapr_htab::inside::format::hpte::Order;
use spapr_htab::inside::host::{Clock, Nanos};
use spapr_htab::inside::host::{Host, HptFd, OpenOptions};
use spapr_htab::inside::host::{StreamReader, StreamWriter};
use spapr_htab::inside::sync::lock::lock;
use spapr_htab::inside::table::Table;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// A VM and what its QEMU knows of its table.
pub struct VmHost {
    pub vm: Arc<dyn Vm>,
    order: Mutex<Option<u32>>,
    open: Arc<AtomicU64>,
}

impl VmHost {
    /// A VM whose table has this order; none for a guest without a table.
    pub fn new(vm: Arc<dyn Vm>, order: Option<u32>) -> VmHost {
        VmHost { vm, order: Mutex::new(order), open: Arc::default() }
    }

    /// Replaces the VM's table by an empty one, as a reset or a resize does.
    pub fn replace(&self, order: u32) -> Result<(), i32> {
        self.vm.allocate(order)?;
        *lock(&self.order) = Some(order);
        Ok(())
    }

    /// The guest has no table from now on, as far as its QEMU knows.
    pub fn forget(&self) {
        *lock(&self.order) = None;
    }

    /// The library's file descriptors that are open.
    pub fn open_fds(&self) -> u64 {
        self.open.load(Ordering::SeqCst)
    }
}

impl Clock for VmHost {
    fn now(&self) -> Nanos {
        Nanos(self.vm.clock_ns())
    }
}

/// The clock alone, for a thread.
struct VmClock(Arc<dyn Vm>);

impl Clock for VmClock {
    fn now(&self) -> Nanos {
        Nanos(self.0.clock_ns())
    }
}

impl Host for VmHost {
    fn clock(&self) -> &dyn Clock {
        self
    }

    fn thread_clock(&self) -> Arc<dyn Clock> {
        Arc::new(VmClock(Arc::clone(&self.vm)))
    }

    fn table(&self) -> Result<Table, Error> {
        lock(&self.order).map_or(Ok(Table::None), |order| {
            Order::new(order).map(Table::Kernel).ok_or(Error::Order { order })
        })
    }

    fn allocate(&self, order: Order) -> Result<(), Errno> {
        self.replace(order.log2_bytes()).map_err(Errno::new)
    }

    fn free(&self) -> Result<(), Errno> {
        self.forget();
        Ok(())
    }

    fn open(&self, options: OpenOptions) -> Result<Box<dyn HptFd>, Errno> {
        let flags = if options.access == Access::Write { WRITE } else { 0 };
        let fd = self.vm.open(flags, options.start.0).map_err(Errno::new)?;
        self.open.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Counted { fd, open: Arc::clone(&self.open) }))
    }
}

struct Counted {
    fd: Box<dyn HtabFd>,
    open: Arc<AtomicU64>,
}

impl HptFd for Counted {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Errno> {
        self.fd.read(buf).map_err(Errno::new)
    }

    fn write(&mut self, records: &[&[u8]]) -> Result<usize, Errno> {
        self.fd.writev(records).map_err(Errno::new)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What happens on each put, before the bytes are taken.
pub type PutHook<'a> = Box<dyn FnMut(&[u8]) + 'a>;

/// One section body being written.
#[derive(Default)]
pub struct Output<'a> {
    pub bytes: Vec<u8>,
    pub puts: usize,
    /// Say that the rate limit is reached, after each chunk.
    pub limited: bool,
    /// Fail the put after this many bytes.
    pub fail_at: Option<(usize, i32)>,
    pub on_put: Option<PutHook<'a>>,
}

impl StreamWriter for Output<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        if let Some(hook) = &mut self.on_put {
            hook(bytes);
        }
        self.puts += 1;
        self.bytes.extend_from_slice(bytes);
        match self.fail_at {
            Some((at, errno)) if self.bytes.len() > at => Err(Errno::new(errno)),
            _ => Ok(()),
        }
    }

    fn rate_limited(&mut self) -> bool {
        self.limited
    }
}

/// One section body being read.
pub struct Input<'a> {
    pub bytes: &'a [u8],
    /// The most that one get gives.
    pub most: usize,
    /// What happens at the end of the bytes: an end, or an error.
    pub then: Option<i32>,
}

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { bytes, most: usize::MAX, then: None }
    }
}

impl StreamReader for Input<'_> {
    fn get(&mut self, bytes: &mut [u8]) -> Result<usize, Errno> {
        let got = bytes.len().min(self.bytes.len()).min(self.most);
        if let (0, Some(errno)) = (got, self.then) {
            return Err(Errno::new(errno));
        }
        let (now, later) = self.bytes.split_at(got);
        bytes[..got].copy_from_slice(now);
        self.bytes = later;
        Ok(got)
    }
}
