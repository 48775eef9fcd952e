// SPDX-License-Identifier: GPL-2.0-or-later
//! A second Rust static library, as QEMU's own Rust code is one: it is linked into the same C programs as the library
//! under test, has a standard library of its own, and catches its own panics. That makes it the C tests' way to the
//! model of the kernel's HPT file descriptor. `tests/c/second.h` is its header.
//!
//! The pointer contract of every function: `model` came from [`model_new`] and was not given to [`model_free`]; other
//! pointers are valid for what they say, for the length of the call.

use htab_model::model::{Config, Costs, Fault, Op};
use htab_model::{HtabFd, Model, Vm};
use libc::{c_int, c_void, iovec};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// One VM of the model, with file descriptors as numbers.
pub struct VmAndFds {
    model: Model,
    fds: Mutex<Vec<Option<Box<dyn HtabFd>>>>,
}

impl VmAndFds {
    fn fds(&self) -> MutexGuard<'_, Vec<Option<Box<dyn HtabFd>>>> {
        self.fds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on an open fd.
    fn with_fd(&self, fd: c_int, work: impl FnOnce(&mut dyn HtabFd) -> Result<usize, i32>) -> i64 {
        let mut fds = self.fds();
        let open = usize::try_from(fd).ok().and_then(|at| fds.get_mut(at)).and_then(Option::as_mut);
        match open.map(|fd| work(fd.as_mut())) {
            Some(Ok(done)) => i64::try_from(done).unwrap_or(i64::MAX),
            Some(Err(errno)) => (-errno).into(),
            None => (-libc::EBADF).into(),
        }
    }
}

/// The VM behind a callback's opaque pointer.
fn vm<'a>(model: *const c_void) -> &'a VmAndFds {
    // SAFETY: by the contract the pointer came from `model_new` and is shared only until `model_free`.
    unsafe { &*model.cast::<VmAndFds>() }
}

/// The model panics when a test asks for what the kernel would never be asked; across the C border that is EINVAL.
fn checked(work: impl FnOnce() -> c_int) -> c_int {
    quiet();
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(-libc::EINVAL)
}

/// Keeps panics that are caught off stderr.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}

/// A VM with an empty table of 2^`order` bytes; a radix guest for 0. NULL for an order that there cannot be.
#[unsafe(no_mangle)]
pub extern "C" fn model_new(order: u32) -> *mut c_void {
    quiet();
    let config = if order == 0 { Config::radix() } else { Config::hash(order) };
    catch_unwind(|| Model::with(config)).map_or(std::ptr::null_mut(), |model| {
        Box::into_raw(Box::new(VmAndFds { model, fds: Mutex::default() })).cast()
    })
}

/// # Safety
/// The crate's pointer contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn model_free(model: *mut c_void) {
    if !model.is_null() {
        // SAFETY: by the contract it came from `Box::into_raw` in `model_new` and is used no more.
        drop(unsafe { Box::from_raw(model.cast::<VmAndFds>()) });
    }
}

/// `KVM_PPC_ALLOCATE_HTAB`. 0 or -errno.
///
/// # Safety
/// The crate's pointer contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn model_allocate(model: *mut c_void, order: u32) -> c_int {
    checked(|| vm(model).model.allocate(order).map_or_else(|errno| -errno, |_| 0))
}

/// The guest becomes radix.
///
/// # Safety
/// The crate's pointer contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn model_switch_to_radix(model: *mut c_void) {
    vm(model).model.switch_to_radix();
}

/// `SpaprHtabHost.open_fd`. The lowest number that is free, from 0 on: 0 is a file descriptor like others.
///
/// # Safety
/// The crate's pointer contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn model_open_fd(model: *mut c_void, flags: u64, start_index: u64) -> c_int {
    checked(|| {
        let vm = vm(model);
        let opened = match vm.model.open(flags, start_index) {
            Ok(fd) => fd,
            Err(errno) => return -errno,
        };
        let mut fds = vm.fds();
        let at = fds.iter().position(Option::is_none).unwrap_or(fds.len());
        if at == fds.len() {
            fds.push(None);
        }
        fds[at] = Some(opened);
        c_int::try_from(at).unwrap_or(-libc::EMFILE)
    })
}

/// `SpaprHtabHost.read_fd`.
///
/// # Safety
/// The crate's pointer contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn model_read_fd(model: *mut c_void, fd: c_int, data: *mut u8, len: usize) -> i64 {
    // SAFETY: by the contract `data` has `len` bytes that are the caller's to be written.
    let buf = unsafe { std::slice::from_raw_parts_mut(data, len) };
    vm(model).with_fd(fd, |fd| fd.read(buf))
}

/// `SpaprHtabHost.writev_fd`.
///
/// # Safety
/// The crate's pointer contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn model_writev_fd(
    model: *mut c_void,
    fd: c_int,
    data: *const iovec,
    count: c_int,
) -> i64 {
    // SAFETY: by the contract `data` has `count` elements, as writev(2) demands.
    let segments = unsafe { std::slice::from_raw_parts(data, usize::try_from(count).unwrap_or(0)) };
    let segments: Vec<&[u8]> = segments
        .iter()
        // SAFETY: by the contract each element names bytes that can be read.
        .map(|segment| unsafe { std::slice::from_raw_parts(segment.iov_base.cast::<u8>(), segment.iov_len) })
        .collect();
    vm(model).with_fd(fd, |fd| fd.writev(&segments))
}

/// `SpaprHtabHost.close_fd`. Closing what is not open ends the program: it is a bug that close(2) would hide.
///
/// # Safety
/// The crate's pointer contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn model_close_fd(model: *mut c_void, fd: c_int) {
    let closed = usize::try_from(fd).ok().and_then(|at| vm(model).fds().get_mut(at).and_then(Option::take));
    if closed.is_none() {
        eprintln!("model_close_fd: {fd} is not open");
        std::process::abort();
    }
}

/// How many fds are open.
///
/// # Safety
/// The crate's pointer contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn model_open_fds(model: *const c_void) -> u32 {
    let open = vm(model).fds().iter().flatten().count();
    u32::try_from(open).unwrap_or(u32::MAX)
}

/// `SpaprHtabHost.clock_ns`: the model's clock.
///
/// # Safety
/// The crate's pointer contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn model_clock_ns(model: *mut c_void) -> u64 {
    vm(model).model.clock_ns()
}

/// What each call costs on the model's clock: in itself, for each slot passed over, for each entry copied.
///
/// # Safety
/// The crate's pointer contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn model_set_costs(model: *mut c_void, call_ns: u64, slot_ns: u64, entry_ns: u64) {
    vm(model).model.set_costs(Costs { call_ns, slot_ns, entry_ns });
}

/// The guest puts an entry into the slot. 0, or -EINVAL for one that `H_ENTER` refuses.
///
/// # Safety
/// The crate's pointer contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn model_enter(model: *mut c_void, slot: u64, v: u64, r: u64) -> c_int {
    checked(|| {
        vm(model).model.enter(slot, v, r);
        0
    })
}

/// The guest removes the slot's entry: 1, or 0 if there was none.
///
/// # Safety
/// The crate's pointer contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn model_remove(model: *mut c_void, slot: u64) -> c_int {
    checked(|| vm(model).model.remove(slot).into())
}

/// The hardware sets reference and change bits (`rc`) in the slot's entry: 1, or 0 if there is none.
///
/// # Safety
/// The crate's pointer contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn model_touch(model: *mut c_void, slot: u64, rc: u64) -> c_int {
    checked(|| vm(model).model.touch(slot, rc).into())
}

/// The slot's entry as the guest sees it: 1, or 0 if there is none; `v` and `r` are then 0.
///
/// # Safety
/// The crate's pointer contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn model_get(model: *const c_void, slot: u64, v: *mut u64, r: *mut u64) -> c_int {
    let dump = vm(model).model.dump();
    let found = dump.binary_search_by_key(&slot, |entry| entry.0);
    let (_, first, second) = found.map_or((0, 0, 0), |at| dump[at]);
    // SAFETY: by the contract both can be written.
    unsafe {
        v.write(first);
        r.write(second);
    }
    found.is_ok().into()
}

/// How many slots hold an entry.
///
/// # Safety
/// The crate's pointer contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn model_entries(model: *const c_void) -> u64 {
    vm(model).model.dump().len() as u64
}

/// The first slot in which the tables of two VMs differ; -1 if they are equal, -2 if their orders differ.
///
/// # Safety
/// The crate's pointer contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn model_difference(one: *const c_void, other: *const c_void) -> i64 {
    let (one, other) = (&vm(one).model, &vm(other).model);
    if one.order() != other.order() {
        return -2;
    }
    let (one, other) = (one.dump(), other.dump());
    let at = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
    let slot = |dump: &[(u64, u64, u64)]| dump.get(at).map_or(u64::MAX, |entry| entry.0);
    i64::try_from(slot(&one).min(slot(&other))).unwrap_or(-1)
}

/// With vCPUs running, writes and allocations fail with EBUSY.
///
/// # Safety
/// The crate's pointer contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn model_set_vcpus_running(model: *mut c_void, running: c_int) {
    vm(model).model.set_vcpus_running(running != 0);
}

/// The `nth` call from now on (0: the next) fails with `errno`; with 0, it sees only `len` bytes of its buffer. Which
/// calls: 'o' open, 'r' read, 'w' write (of one segment), 'a' allocate. 0, or -EINVAL for another letter.
///
/// # Safety
/// The crate's pointer contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn model_fail(
    model: *mut c_void,
    call: c_int,
    nth: u64,
    errno: c_int,
    len: usize,
) -> c_int {
    let op = match u8::try_from(call) {
        Ok(b'o') => Op::Open,
        Ok(b'r') => Op::Read,
        Ok(b'w') => Op::Write,
        Ok(b'a') => Op::Allocate,
        _ => return -libc::EINVAL,
    };
    let fault = if errno == 0 { Fault::Short(len) } else { Fault::Errno(errno) };
    vm(model).model.fail(op, nth, fault);
    0
}

/// Panics, catches it, and returns 1 if what was caught is what was thrown.
#[unsafe(no_mangle)]
pub extern "C" fn second_catch_panic() -> c_int {
    quiet();
    let caught = catch_unwind(|| std::panic::panic_any(4711_u32)).err();
    caught.is_some_and(|thrown| thrown.downcast_ref() == Some(&4711_u32)).into()
}
