// SPDX-License-Identifier: GPL-2.0-or-later
//! A program around the C interface: callbacks on the model of the kernel or on a table in memory, any of which can be
//! made to go wrong.

mod callbacks;

use crate::memory::Memory;
use crate::plan::{Call, Fault, Plan};
pub use callbacks::segments;
use htab_model::model::{self, Op};
use htab_model::vm::HtabFd;
use htab_model::{Model, Vm};
use libc::c_int;
use spapr_htab::inside::capi::types::{
    SPAPR_HTAB_TABLE_KERNEL, SPAPR_HTAB_TABLE_MEMORY, SPAPR_HTAB_TABLE_NONE, SpaprHtabTable,
};
use spapr_htab::inside::sync::lock::lock;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

/// Where the guest's table is.
#[derive(Clone)]
pub enum Place {
    None,
    Kernel(u32),
    Memory(Memory),
}

/// The table's kind when the stream asks for one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Kernel,
    Memory,
}

/// One stream: what is put, or what there is to get.
#[derive(Default)]
pub struct Wire(Mutex<WireState>);

#[derive(Default)]
struct WireState {
    bytes: Vec<u8>,
    read: usize,
    error: i32,
}

impl Wire {
    #[must_use]
    pub fn of(bytes: &[u8]) -> Wire {
        Wire(Mutex::new(WireState { bytes: bytes.to_vec(), ..WireState::default() }))
    }

    /// With room for so many bytes.
    #[must_use]
    pub fn with_room(bytes: usize) -> Wire {
        Wire(Mutex::new(WireState { bytes: Vec::with_capacity(bytes), ..WireState::default() }))
    }

    /// All bytes that were put, or were there from the beginning.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        lock(&self.0).bytes.clone()
    }

    /// Bytes that were not read yet.
    #[must_use]
    pub fn left(&self) -> usize {
        let state = lock(&self.0);
        state.bytes.len() - state.read
    }
}

/// What the clock says, look by look.
pub type ClockScript = Box<dyn FnMut(u64) -> u64 + Send>;

/// What the program does when the library calls it.
pub type Action = Box<dyn FnOnce(&World) + Send>;

/// The program: one guest, its table, and what its callbacks do.
pub struct World {
    model: OnceLock<Model>,
    order: u32,
    pub plan: Plan,
    kind: Kind,
    place: Mutex<Place>,
    /// The most that one get gives, and the largest table there is memory for.
    pub most: usize,
    pub largest: u32,
    fds: Mutex<BTreeMap<c_int, Box<dyn HtabFd>>>,
    /// In place of the model's, the answers of a kernel that makes them up.
    answers: Mutex<Option<VecDeque<Vec<u8>>>>,
    looks: AtomicU64,
    clock: Mutex<Option<ClockScript>>,
    actions: Mutex<Vec<(Call, u64, Action)>>,
}

impl World {
    #[must_use]
    pub fn new(kind: Kind, order: Option<u32>) -> World {
        let place = match (kind, order) {
            (_, None) => Place::None,
            (Kind::Kernel, Some(order)) => Place::Kernel(order),
            (Kind::Memory, Some(order)) => Place::Memory(Memory::new(order)),
        };
        World {
            model: OnceLock::new(),
            order: order.unwrap_or(18),
            plan: Plan::default(),
            kind,
            place: Mutex::new(place),
            most: usize::MAX,
            largest: 19,
            fds: Mutex::default(),
            answers: Mutex::default(),
            looks: AtomicU64::new(0),
            clock: Mutex::default(),
            actions: Mutex::default(),
        }
    }

    /// The kernel answers each read with the next of these, then with nothing.
    pub fn answer(&self, answers: Vec<Vec<u8>>) {
        *lock(&self.answers) = Some(answers.into());
    }

    /// The clock says what this makes of the number of the look.
    pub fn set_clock(&self, script: ClockScript) {
        *lock(&self.clock) = Some(script);
    }

    /// The kernel's side; a table in memory needs none.
    pub fn model(&self) -> &Model {
        self.model.get_or_init(|| Model::new(self.order))
    }

    #[must_use]
    pub fn place(&self) -> Place {
        lock(&self.place).clone()
    }

    /// Replaces the table by an empty one of this order, if there is one to be had.
    pub fn replace(&self, order: u32) -> Result<(), i32> {
        if order > self.largest {
            return Err(libc::ENOMEM);
        }
        *lock(&self.place) = match self.kind {
            Kind::Kernel => Place::Kernel(self.model().allocate(order)?),
            Kind::Memory => Place::Memory(Memory::new(order)),
        };
        Ok(())
    }

    /// The guest becomes radix.
    pub fn forget(&self) {
        *lock(&self.place) = Place::None;
    }

    /// The table's slots; 0 without one.
    #[must_use]
    pub fn slots(&self) -> u64 {
        match self.place() {
            Place::None => 0,
            Place::Kernel(order) => 1 << (order - 4),
            Place::Memory(memory) => memory.slots(),
        }
    }

    /// The guest enters this, or removes what there is.
    pub fn store(&self, slot: u64, entry: Option<(u64, u64)>) {
        match (self.place(), entry) {
            (Place::None, _) => {}
            (Place::Kernel(_), Some((v, r))) => self.model().enter(slot, v, r),
            (Place::Kernel(_), None) => {
                self.model().remove(slot);
            }
            (Place::Memory(memory), entry) => {
                let (v, r) = entry.unwrap_or_default();
                memory.store(slot, v, r);
            }
        }
    }

    /// The table's entries: slot, v, r.
    #[must_use]
    pub fn dump(&self) -> Vec<(u64, u64, u64)> {
        match self.place() {
            Place::None => Vec::new(),
            Place::Kernel(_) => self.model().dump(),
            Place::Memory(memory) => memory.dump(),
        }
    }

    /// The library's file descriptors that are open.
    #[must_use]
    pub fn open_fds(&self) -> usize {
        lock(&self.fds).len()
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn has_fd(&self, fd: c_int) -> bool {
        lock(&self.fds).contains_key(&fd)
    }

    /// When the `nth` call of that kind from now on is made (0: the next), this comes first.
    pub fn when(&self, call: Call, nth: u64, action: Action) {
        lock(&self.actions).push((call, self.plan.calls(call) + nth, action));
    }

    /// A call is made.
    fn called(&self, call: Call) -> Option<Fault> {
        let number = self.plan.calls(call);
        let action = {
            let mut actions = lock(&self.actions);
            let at = actions.iter().position(|(kind, nth, _)| (*kind, *nth) == (call, number));
            at.map(|at| actions.remove(at))
        };
        if let Some((_, _, action)) = action {
            action(self);
        }
        self.plan.next(call)
    }

    fn fault(&self, call: Call) -> Result<Option<usize>, i64> {
        Self::at_once(self.called(call))
    }

    /// What comes of a fault that leaves nothing to do: a result, or the most to be handled.
    fn at_once(fault: Option<Fault>) -> Result<Option<usize>, i64> {
        match fault {
            Some(Fault::Errno(errno) | Fault::Late(errno)) => Err(-i64::from(errno)),
            Some(Fault::Value(value)) => Err(value),
            Some(Fault::Quiet(_)) => Err(0),
            Some(Fault::Short(most)) => Ok(Some(most)),
            None => Ok(None),
        }
    }

    /// `KVM_PPC_GET_HTAB_FD`: a file descriptor, of this process as of the model, or -errno.
    pub fn open(&self, flags: u64, start: u64) -> i64 {
        if let Err(result) = self.fault(Call::Open) {
            return result;
        }
        // SAFETY: takes numbers only.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return -i64::from(last_errno());
        }
        match self.model().open(flags, start) {
            Ok(opened) => {
                lock(&self.fds).insert(fd, opened);
                fd.into()
            }
            Err(errno) => {
                close_for_good(fd);
                -i64::from(errno)
            }
        }
    }

    /// `read(2)`: bytes or -errno.
    pub fn read(&self, fd: c_int, data: &mut [u8]) -> i64 {
        let (late, fault) = match self.called(Call::Read) {
            Some(Fault::Late(errno)) => (Some(errno), None),
            fault => (None, fault),
        };
        let most = match Self::at_once(fault) {
            Ok(short) => short.unwrap_or(usize::MAX).min(data.len()),
            Err(result) => return result,
        };
        if let Some(answers) = lock(&self.answers).as_mut() {
            let answer = answers.pop_front().unwrap_or_default();
            if let Some(errno) = late {
                return -i64::from(errno);
            }
            let fits = answer.len().min(most);
            data[..fits].copy_from_slice(&answer[..fits]);
            return bytes(answer.len());
        }
        let mut fds = lock(&self.fds);
        let Some(fd) = fds.get_mut(&fd) else { return -i64::from(libc::EBADF) };
        // The next read of the model is this one: `fds` is locked.
        if let Some(errno) = late {
            self.model().fail(Op::Read, 0, model::Fault::Late(errno));
        }
        counted(fd.read(&mut data[..most]))
    }

    /// `writev(2)`: bytes or -errno.
    pub fn writev(&self, fd: c_int, segments: &[&[u8]]) -> i64 {
        let most = match self.fault(Call::Write) {
            Ok(short) => short,
            Err(result) => return result,
        };
        let mut left = most.unwrap_or(usize::MAX);
        let whole = segments.iter().take_while(|segment| {
            left = left.saturating_sub(segment.len());
            most.is_none() || left > 0
        });
        let whole: Vec<&[u8]> = whole.copied().collect();
        let mut fds = lock(&self.fds);
        let Some(fd) = fds.get_mut(&fd) else { return -i64::from(libc::EBADF) };
        let took = if whole.is_empty() { 0 } else { counted(fd.writev(&whole)) };
        // A part of a record is nothing to the kernel but a number.
        most.map_or(took, |most| bytes(most).min(bytes(segments.iter().map(|segment| segment.len()).sum())))
    }

    /// `close(2)`: 0 or -errno. The descriptor is gone in any case, as Linux has it.
    pub fn close(&self, fd: c_int) -> i64 {
        if lock(&self.fds).remove(&fd).is_some() {
            close_for_good(fd);
        }
        self.fault(Call::Close).err().unwrap_or(0)
    }

    fn now(&self) -> u64 {
        let look = self.looks.fetch_add(1, Ordering::Relaxed);
        lock(&self.clock).as_mut().map_or(look * 1000, |script| script(look))
    }

    fn describe(&self, out: &mut SpaprHtabTable) -> c_int {
        match self.called(Call::Table) {
            Some(Fault::Quiet(kind)) => {
                out.kind = kind.unsigned_abs();
                out.order = 18;
                return 0;
            }
            Some(Fault::Errno(errno) | Fault::Late(errno)) => return -errno,
            Some(Fault::Value(order)) => {
                out.kind = SPAPR_HTAB_TABLE_KERNEL;
                out.order = u32::try_from(order).unwrap_or(u32::MAX);
                return 0;
            }
            Some(Fault::Short(_)) | None => {}
        }
        (out.kind, out.order, out.memory) = match self.place() {
            Place::None => (SPAPR_HTAB_TABLE_NONE, 0, std::ptr::null_mut()),
            Place::Kernel(order) => (SPAPR_HTAB_TABLE_KERNEL, order, std::ptr::null_mut()),
            Place::Memory(memory) => (SPAPR_HTAB_TABLE_MEMORY, memory.order(), memory.start()),
        };
        0
    }
}

/// The calling thread's.
#[must_use]
pub fn last_errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// Past whoever stands in for `close`.
fn close_for_good(fd: c_int) {
    // SAFETY: closes a descriptor that `World::open` made and that nobody else has.
    unsafe { libc::syscall(libc::SYS_close, fd) };
}

fn bytes(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

fn counted(result: Result<usize, i32>) -> i64 {
    result.map_or_else(|errno| -i64::from(errno), bytes)
}
