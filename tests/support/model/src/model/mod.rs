// SPDX-License-Identifier: GPL-2.0-or-later
//! The kernel's side of `KVM_PPC_GET_HTAB_FD` in plain memory.
//!
//! A [`Model`] is one VM. Clones of it are handles on the same VM, so that a test can keep one, give another
//! away as its `Vm`, and change slots behind the reader's back: at any time, or exactly before a read
//! ([`Model::before_read`]). Time is virtual: each call advances the clock by what [`Costs`] says it costs.
//! Faults are set with [`Model::fail`].
//!
//! One lock makes every call atomic, where the kernel locks single entries only and takes no lock of the VM.
//! A table replaced while a read runs is therefore harmless here, where it is a use after free there:
//! [`Stats::overlaps`] counts the times that a caller let it happen.
//!
//! Sources (Linux 6.1, `arch/powerpc/kvm/book3s_64_mmu_hv.c`): `kvmppc_alloc_reset_hpt`,
//! `kvm_vm_ioctl_get_htab_fd`, `kvm_htab_release`; the sub-modules name theirs.

mod htab_fd;
mod table;
mod vm;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use table::{Ram, Table};
pub use vm::ModelFactory;

/// `PPC_MIN_HPT_ORDER`.
const MIN_ORDER: u32 = 18;
/// The model's own: beyond it, allocations fail with ENOMEM.
const MAX_ORDER_IN_MEMORY: u32 = 32;

/// What the model's calls cost, in nanoseconds of its clock. All zero at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    pub call_ns: u64,
    /// Per slot visited without an entry: skipped as clean, or reported (read) or made (write) invalid.
    pub slot_ns: u64,
    /// Per entry copied.
    pub entry_ns: u64,
}

/// Counts of the calls made so far and of their work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub opens: u64,
    pub reads: u64,
    /// Plain writes, and each segment of a writev.
    pub writes: u64,
    /// System calls that wrote: a writev counts once.
    pub write_calls: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    /// The slots that reads visited, and the most that one read did.
    pub slots_read: u64,
    pub max_slots_in_a_read: u64,
    /// Allocations made while a read was in progress on another thread.
    pub overlaps: u64,
}

/// A kind of call that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Open,
    Read,
    /// A plain write, or one segment of a writev.
    Write,
    Allocate,
}

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does nothing and returns this errno.
    Errno(i32),
    /// A read or a write does all its work and then returns this errno. A read has cleared the marks of what it
    /// looked at and begins where it began when it is made again, as one whose last store is EFAULT. Other calls:
    /// as [`Fault::Errno`].
    Late(i32),
    /// A read or a write sees no more than this many bytes of the buffer. Other calls: no fault.
    Short(usize),
}

/// What a model starts from.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// None: a radix guest, as a fresh VM is on a radix host. Otherwise a hash guest with a table of that
    /// order.
    pub order: Option<u32>,
    /// Whether the hardware keeps entries in the ISA 3.0 format (POWER9), which loses the virtual address
    /// bits above 52.
    pub isa300: bool,
    /// What the revmap happens to hold where it was never written: with [`crate::record::R_MODIFIED`] set,
    /// never-used slots show up as changed.
    pub stale_revmap: u64,
    /// What lies behind a write's buffer, for records cut short.
    pub past_end: u8,
}

impl Config {
    pub fn hash(order: u32) -> Self {
        Config { order: Some(order), isa300: true, stale_revmap: 0, past_end: 0 }
    }

    pub fn radix() -> Self {
        Config { order: None, ..Config::hash(MIN_ORDER) }
    }
}

/// Called before a read with the model and the read's number, counted from 0 since the model was made.
pub type ReadHook = Box<dyn FnMut(&Model, u64) + Send>;

struct State {
    order: Option<u32>,
    table: Table,
    mmu_ready: bool,
    vcpus_running: bool,
    costs: Costs,
    stats: Stats,
    faults: VecDeque<(Op, u64, Fault)>,
}

struct Inner {
    config: Config,
    state: Mutex<State>,
    hook: Mutex<Option<ReadHook>>,
    readers: AtomicU32,
    clock: Arc<AtomicU64>,
    /// The last address in the guest's memory that was set; the model has no more of it.
    poked: AtomicU64,
}

/// A handle on one modelled VM.
#[derive(Clone)]
pub struct Model {
    inner: Arc<Inner>,
}

impl Model {
    /// A hash guest with an empty table of 2^`order` bytes.
    pub fn new(order: u32) -> Self {
        Model::with(Config::hash(order))
    }

    /// # Panics
    /// With an order the kernel refuses or that is too large to keep in memory.
    pub fn with(config: Config) -> Self {
        let order = config.order.unwrap_or(MIN_ORDER);
        assert!((MIN_ORDER..=MAX_ORDER_IN_MEMORY).contains(&order), "order {order}");
        let slots = Table::fresh_slots(order, config.stale_revmap);
        let table =
            Table { slots, isa300: config.isa300, ram: None, mod_interest: 0, delayed: BTreeMap::new() };
        let state = State {
            order: config.order,
            table,
            mmu_ready: false,
            vcpus_running: false,
            costs: Costs::default(),
            stats: Stats::default(),
            faults: VecDeque::new(),
        };
        Model {
            inner: Arc::new(Inner {
                config,
                state: Mutex::new(state),
                hook: Mutex::new(None),
                readers: AtomicU32::new(0),
                clock: Arc::new(AtomicU64::new(0)),
                poked: AtomicU64::new(u64::MAX),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked while holding it has failed already; the others' state is their own.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many slots the table has; 0 for a radix guest.
    pub fn slots(&self) -> u64 {
        let state = self.state();
        if state.order.is_some() { state.table.len() } else { 0 }
    }

    /// The table's order; None for a radix guest.
    pub fn order(&self) -> Option<u32> {
        self.state().order
    }

    /// The guest replaces what is in the slot, as H_REMOVE and H_ENTER with the exact flag do.
    ///
    /// # Panics
    /// When the slot is not in the table or the entry is one that H_ENTER refuses.
    pub fn enter(&self, slot: u64, v: u64, r: u64) {
        let mut state = self.state();
        let i = state.slot(slot);
        state.table.h_remove(i);
        assert!(state.table.h_enter(i, v, r), "H_ENTER refused {v:#x} {r:#x} in slot {slot}");
    }

    /// The guest removes what is in the slot (H_REMOVE). False when there is nothing in it.
    ///
    /// # Panics
    /// When the slot is not in the table.
    pub fn remove(&self, slot: u64) -> bool {
        let mut state = self.state();
        let i = state.slot(slot);
        state.table.h_remove(i)
    }

    /// The guest changes the protection of what is in the slot to `pp` (0 to 3; H_PROTECT). False when there
    /// is nothing in it.
    ///
    /// # Panics
    /// When the slot is not in the table.
    pub fn protect(&self, slot: u64, pp: u64) -> bool {
        let mut state = self.state();
        let i = state.slot(slot);
        state.table.h_protect(i, pp)
    }

    /// The guest uses the page: the hardware sets the bits of `rc` (R and C) in the entry, which nobody has
    /// harvested yet. False when there is nothing in the slot.
    ///
    /// # Panics
    /// When the slot is not in the table.
    pub fn touch(&self, slot: u64, rc: u64) -> bool {
        let mut state = self.state();
        let i = state.slot(slot);
        state.table.touch(i, rc)
    }

    /// As [`Model::touch`], but the processor has not stored the bits in the table yet, so that no read sees them.
    /// It does so when the entry is invalidated: by removing or protecting it, and by
    /// [`Vm::read_dirty_log`](crate::Vm::read_dirty_log), which needs memory of any size to be set. The log invalidates
    /// entries even after the guest has stopped, and marks those that turn out to have C (the kernel's
    /// `kvm_test_clear_dirty_npages`: "we need to do the tlbie even if C==0 in order to pick up any delayed writeback
    /// of C").
    ///
    /// POWER processors may do this; the emulated ones store C at once, so that no case can show it on them.
    ///
    /// # Panics
    /// When the slot is not in the table, or for C in an entry that cannot be stored through.
    pub fn touch_delayed(&self, slot: u64, rc: u64) -> bool {
        let mut state = self.state();
        let i = state.slot(slot);
        state.table.touch_delayed(i, rc)
    }

    /// Whether a later-pass read would report the slot.
    ///
    /// # Panics
    /// When the slot is not in the table.
    pub fn is_dirty(&self, slot: u64) -> bool {
        let state = self.state();
        let i = state.slot(slot);
        state.table.is_dirty(i)
    }

    /// Whether the slot has its MODIFIED bit.
    ///
    /// # Panics
    /// When the slot is not in the table.
    pub fn is_modified(&self, slot: u64) -> bool {
        let state = self.state();
        let i = state.slot(slot);
        state.table.is_modified(i)
    }

    /// How many slots a later-pass read would report.
    pub fn dirty_slots(&self) -> u64 {
        let state = self.state();
        (0..state.table.slots.len()).map(|i| u64::from(state.table.is_dirty(i))).sum()
    }

    /// Makes the guest radix (H_REGISTER_PROC_TBL): the table is gone.
    pub fn switch_to_radix(&self) {
        self.state().order = None;
    }

    /// With vCPUs running, writes and allocations fail with EBUSY.
    pub fn set_vcpus_running(&self, running: bool) {
        let mut state = self.state();
        state.vcpus_running = running;
        // A vCPU does not get to run before the MMU is set up (kvmppc_vcpu_run_hv).
        state.mmu_ready |= running;
    }

    /// Whether the MMU is ready for vCPUs: the first entry of the VRMA written makes it so.
    pub fn mmu_ready(&self) -> bool {
        self.state().mmu_ready
    }

    pub fn set_costs(&self, costs: Costs) {
        self.state().costs = costs;
    }

    pub fn stats(&self) -> Stats {
        self.state().stats
    }

    pub fn clear_stats(&self) {
        self.state().stats = Stats::default();
    }

    /// The clock, in nanoseconds; a caller's own work may advance it too.
    pub fn clock(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.inner.clock)
    }

    /// How many read fds are open.
    pub fn read_fds(&self) -> u32 {
        self.state().table.mod_interest
    }

    /// How many handles and fds keep this VM alive, this one included.
    pub fn references(&self) -> usize {
        Arc::strong_count(&self.inner)
    }

    /// Lets the `nth` call of that kind from now on (0: the next) fail.
    pub fn fail(&self, op: Op, nth: u64, fault: Fault) {
        self.state().faults.push_back((op, nth, fault));
    }

    /// Has `hook` called before each read, outside all locks: it may change the model at will.
    pub fn before_read(&self, hook: ReadHook) {
        *self.inner.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(hook);
    }

    fn advance(&self, ns: u64) {
        self.inner.clock.fetch_add(ns, Ordering::Relaxed);
    }
}

impl State {
    fn slot(&self, slot: u64) -> usize {
        usize::try_from(slot).ok().filter(|&i| i < self.table.slots.len()).expect("a slot of the table")
    }

    /// The fault due for this call, if any; counts down the others of its kind.
    fn fault(&mut self, op: Op) -> Option<Fault> {
        let mut due = None;
        self.faults.retain_mut(|(of, left, fault)| {
            if *of != op {
                return true;
            }
            if *left > 0 {
                *left -= 1;
                return true;
            }
            due = due.or(Some(*fault));
            false
        });
        due
    }
}
