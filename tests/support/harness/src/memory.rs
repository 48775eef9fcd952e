// SPDX-License-Identifier: GPL-2.0-or-later
//! A host whose guest's table is in its memory, and vCPUs that change it as QEMU's do.

use crate::guest::Outcome;
use crate::host::{Input, Output};
use libc::c_void;
use spapr_htab::inside::error::{Errno, Error};
use spapr_htab::inside::format::hpte::{Order, V_DIRTY, V_VALID};
use spapr_htab::inside::host::{Clock, Nanos};
use spapr_htab::inside::host::{Host, HptFd, OpenOptions};
use spapr_htab::inside::load::Loader;
use spapr_htab::inside::save::session::SaveOptions;
use spapr_htab::inside::save::{Progress, Saver};
use spapr_htab::inside::stats::LoadStats;
use spapr_htab::inside::sync::lock::lock;
use spapr_htab::inside::table::{SharedTable, Table};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard};

/// A table in memory; clones are the same table.
#[derive(Clone)]
pub struct Memory {
    words: Arc<[AtomicU64]>,
    order: Order,
}

impl Memory {
    #[must_use]
    pub fn new(order: u32) -> Memory {
        let order = Order::new(order).expect("an order");
        let words = (0..order.slots() * 2).map(|_| AtomicU64::new(0)).collect();
        Memory { words, order }
    }

    #[must_use]
    pub fn order(&self) -> u32 {
        self.order.log2_bytes()
    }

    #[must_use]
    pub fn slots(&self) -> u64 {
        self.order.slots()
    }

    /// Where it is, for C.
    #[must_use]
    pub fn start(&self) -> *mut c_void {
        self.words.as_ptr().cast_mut().cast()
    }

    #[must_use]
    pub fn shared(&self) -> SharedTable {
        let start = self.start().cast();
        // SAFETY: the words outlive every use of the result in these tests (the host that owns them outlives its
        // savers' calls), and everyone reaches them through atomics.
        unsafe { SharedTable::new(start, self.order) }.expect("an aligned table")
    }

    fn pair(&self, slot: u64) -> (&AtomicU64, &AtomicU64) {
        let at = usize::try_from(slot * 2).expect("a slot");
        (&self.words[at], &self.words[at + 1])
    }

    /// `spapr_store_hpte` (QEMU 7.2, hw/ppc/spapr.c), with the dirty bit that its callers set.
    pub fn store(&self, slot: u64, v: u64, r: u64) {
        let (first, second) = self.pair(slot);
        let v = (v | V_DIRTY).to_be();
        if u64::from_be(v) & V_VALID != 0 {
            second.store(r.to_be(), Ordering::Relaxed);
            fence(Ordering::Release);
            first.store(v, Ordering::Relaxed);
        } else {
            first.store(v, Ordering::Relaxed);
            fence(Ordering::Release);
            second.store(r.to_be(), Ordering::Relaxed);
        }
    }

    /// `h_protect`: out, then in again with other bits.
    pub fn protect(&self, slot: u64, r: u64) {
        let v = u64::from_be(self.pair(slot).0.load(Ordering::Relaxed));
        if v & V_VALID != 0 {
            self.store(slot, v & !V_VALID, 0);
            self.store(slot, v, r);
        }
    }

    /// The guest uses a page: bits of the second doubleword, and no dirty bit (`spapr_hpte_set_r`, `_c`).
    pub fn touch(&self, slot: u64, bits: u64) {
        self.pair(slot).1.fetch_or(bits.to_be(), Ordering::Relaxed);
    }

    /// As `touch`, and takes bits that are set away: a change for certain.
    pub fn flip(&self, slot: u64, bits: u64) {
        self.pair(slot).1.fetch_xor(bits.to_be(), Ordering::Relaxed);
    }

    /// Words as they are, for what only a race could leave behind.
    pub fn raw(&self, slot: u64) -> (u64, u64) {
        let (first, second) = self.pair(slot);
        (u64::from_be(first.load(Ordering::SeqCst)), u64::from_be(second.load(Ordering::SeqCst)))
    }

    /// The valid entries: slot, v without the dirty bit, r.
    #[must_use]
    pub fn dump(&self) -> Vec<(u64, u64, u64)> {
        (0..self.order.slots())
            .map(|slot| (slot, self.raw(slot)))
            .filter(|(_, (v, _))| v & V_VALID != 0)
            .map(|(slot, (v, r))| (slot, v & !V_DIRTY, r))
            .collect()
    }
}

/// A host whose guest has its table in memory, or none, and whose clock moves as it is looked at.
#[derive(Default)]
pub struct MemoryHost {
    pub table: Mutex<Option<Memory>>,
    /// Nanoseconds that each look at the clock takes; the clock moves by nothing else.
    pub tick: AtomicU64,
    now: AtomicU64,
}

impl MemoryHost {
    #[must_use]
    pub fn new(order: u32) -> MemoryHost {
        MemoryHost { table: Mutex::new(Some(Memory::new(order))), ..MemoryHost::default() }
    }

    pub fn memory(&self) -> MutexGuard<'_, Option<Memory>> {
        lock(&self.table)
    }

    /// Looks at the clock so far, if each took a nanosecond.
    pub fn clock_now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn dump(&self) -> Vec<(u64, u64, u64)> {
        self.memory().as_ref().map(Memory::dump).unwrap_or_default()
    }
}

impl Clock for MemoryHost {
    fn now(&self) -> Nanos {
        Nanos(self.now.fetch_add(self.tick.load(Ordering::Relaxed), Ordering::Relaxed))
    }
}

impl Host for MemoryHost {
    fn clock(&self) -> &dyn Clock {
        self
    }

    fn table(&self) -> Result<Table, Error> {
        Ok(self.memory().as_ref().map_or(Table::None, |memory| Table::Memory(memory.shared())))
    }

    fn allocate(&self, order: Order) -> Result<(), Errno> {
        *self.memory() = Some(Memory::new(order.log2_bytes()));
        Ok(())
    }

    fn free(&self) -> Result<(), Errno> {
        *self.memory() = None;
        Ok(())
    }

    fn open(&self, _: OpenOptions) -> Result<Box<dyn HptFd>, Errno> {
        Err(Errno::new(libc::ENOTTY))
    }
}

/// A save of a table in memory, body by body.
pub struct MemorySave<'a> {
    host: &'a MemoryHost,
    pub saver: Saver,
    pub bodies: Vec<Vec<u8>>,
}

impl<'a> MemorySave<'a> {
    /// # Panics
    /// The setup fails.
    #[must_use]
    pub fn begin(host: &'a MemoryHost, options: SaveOptions) -> MemorySave<'a> {
        let mut save = MemorySave { host, saver: Saver::default(), bodies: Vec::new() };
        save.setup(options);
        save
    }

    /// Begins anew with the same saver.
    ///
    /// # Panics
    /// It fails.
    pub fn setup(&mut self, options: SaveOptions) {
        let mut out = Output::default();
        self.saver.setup(self.host, &mut out, options).expect("setup");
        self.bodies = vec![out.bytes];
    }

    /// # Panics
    /// It fails.
    pub fn iterate(&mut self, max: Option<u64>) -> Progress {
        self.iterate_into(Output::default(), max)
    }

    /// As `iterate`, with a stream of the caller's.
    ///
    /// # Panics
    /// It fails.
    pub fn iterate_into(&mut self, mut out: Output<'_>, max: Option<u64>) -> Progress {
        let progress = self.saver.iterate(self.host, &mut out, max.map(Nanos)).expect("iterate");
        self.bodies.push(out.bytes);
        progress
    }

    /// Completes, cleans up, loads the bodies into a fresh host and compares.
    pub fn arrive(mut self) -> Result<LoadStats, String> {
        let mut out = Output::default();
        self.saver.complete(self.host, &mut out).map_err(|error| error.to_string())?;
        self.bodies.push(out.bytes);
        self.saver.cleanup().map_err(|error| error.to_string())?;
        let destination = MemoryHost::default();
        let mut loader = Loader::default();
        for body in &self.bodies {
            loader.load(&destination, &mut Input::new(body), 1).map_err(|error| error.to_string())?;
        }
        same(&self.host.dump(), &destination.dump())?;
        if loader.stats().crc.value() != self.saver.stats().crc.value() {
            return Err("the CRCs of both sides differ".to_owned());
        }
        Ok(loader.stats().clone())
    }
}

/// Returns the first difference in words.
pub fn same(was: &[(u64, u64, u64)], is: &[(u64, u64, u64)]) -> Outcome {
    match was.iter().zip(is).find(|(was, is)| was != is) {
        Some((was, is)) => Err(format!("{was:x?} arrived as {is:x?}")),
        None if was.len() != is.len() => Err(format!("{} entries became {}", was.len(), is.len())),
        None => Ok(()),
    }
}
