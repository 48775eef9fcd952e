// SPDX-License-Identifier: GPL-2.0-or-later
//! The model as a [`Vm`]: what comes before the kernel's loops, and fds.

use super::htab_fd::{self, Context, Destination, Work};
use super::{Config, Fault, MAX_ORDER_IN_MEMORY, MIN_ORDER, Model, Op, Ram, State, Table};
use crate::record::{R_C, R_R, V_VALID};
use crate::vm::{
    BOLTED_ONLY, GUEST_CODE, GuestOp, H_ENTER, H_PROTECT, H_REMOVE, HtabFd, Vm, VmFactory, WRITE,
};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Base page size of the model's host.
const HOST_PAGE: u64 = 0x1_0000;
/// `PPC_MAX_HPT_ORDER`.
const MAX_ORDER: u32 = 46;
/// `UIO_MAXIOV`.
const MAX_SEGMENTS: usize = 1024;

/// Makes models with the defaults of [`Config`].
pub struct ModelFactory;

impl VmFactory for ModelFactory {
    fn hash(&self, order: u32) -> Result<Box<dyn Vm>, String> {
        Ok(Box::new(Model::new(order)))
    }

    fn radix(&self) -> Result<Option<Box<dyn Vm>>, String> {
        Ok(Some(Box::new(Model::with(Config::radix()))))
    }
}

impl Vm for Model {
    /// `kvm_vm_ioctl` → `kvmppc_alloc_reset_hpt`.
    fn allocate(&self, order: u32) -> Result<u32, i32> {
        let mut state = self.state();
        if self.inner.readers.load(Ordering::SeqCst) > 0 {
            state.stats.overlaps += 1;
        }
        if let Some(Fault::Errno(errno) | Fault::Late(errno)) = state.fault(Op::Allocate) {
            return Err(errno);
        }
        if state.mmu_ready && state.vcpus_running {
            return Err(libc::EBUSY);
        }
        state.mmu_ready = false;
        if state.order == Some(order) {
            state.table.reset_in_place();
            return Ok(order);
        }
        // The old table goes before the new order is even looked at: a refusal leaves the VM with a table of
        // no slots.
        state.table.replace(Vec::new());
        state.order = Some(0);
        if !(MIN_ORDER..=MAX_ORDER).contains(&order) {
            return Err(libc::EINVAL);
        }
        if order > MAX_ORDER_IN_MEMORY {
            return Err(libc::ENOMEM);
        }
        state.table.replace(Table::fresh_slots(order, self.inner.config.stale_revmap));
        state.order = Some(order);
        Ok(order)
    }

    /// `kvm_vm_ioctl_get_htab_fd`.
    fn open(&self, flags: u64, start_index: u64) -> Result<Box<dyn HtabFd>, i32> {
        let mut state = self.state();
        state.stats.opens += 1;
        if let Some(Fault::Errno(errno) | Fault::Late(errno)) = state.fault(Op::Open) {
            return Err(errno);
        }
        if flags & !(BOLTED_ONLY | WRITE) != 0 {
            return Err(libc::EINVAL);
        }
        let writes = flags & WRITE != 0;
        if !writes {
            state.table.mod_interest += 1;
        }
        let ctx = Context { index: start_index, bolted_only: flags & BOLTED_ONLY != 0, first_pass: true };
        Ok(Box::new(ModelFd { model: self.clone(), ctx, writes }))
    }

    fn dump(&self) -> Vec<(u64, u64, u64)> {
        let state = self.state();
        if state.order.is_none() {
            return Vec::new();
        }
        (0..state.table.slots.len())
            .filter_map(|i| state.table.dump_one(i).map(|(v, r)| (i as u64, v, r)))
            .collect()
    }

    fn set_ram(&self, bytes: u64) -> Result<(), i32> {
        let mut state = self.state();
        if state.table.ram.is_some() {
            return Err(libc::EEXIST);
        }
        state.table.ram = Some(Ram { bytes, host_page: HOST_PAGE });
        Ok(())
    }

    /// `kvm_vm_ioctl_get_dirty_log_hv`.
    fn read_dirty_log(&self) -> Result<u64, i32> {
        let mut state = self.state();
        let ram = state.table.ram.ok_or(libc::ENOENT)?;
        if state.order.is_none() {
            return Ok(0);
        }
        let running = state.vcpus_running;
        Ok(state.table.read_dirty_log(ram.host_page, running))
    }

    /// Each access goes through the virtual real mode area, whose entries get R and C of it; so does the
    /// fetch of the code.
    fn guest(&self, op: GuestOp) -> Result<u64, String> {
        self.use_page(GUEST_CODE, R_R)?;
        match op {
            GuestOp::Load(address) => self.use_page(address, R_R).map(|()| 0),
            GuestOp::Store(address) => self.use_page(address, R_R | R_C).map(|()| 0),
            GuestOp::Hcall([H_ENTER, _, slot, v, r]) => {
                self.enter(slot, v, r);
                Ok(0)
            }
            GuestOp::Hcall([H_REMOVE, _, slot, ..]) => Ok(if self.remove(slot) { 0 } else { H_NOT_FOUND }),
            GuestOp::Hcall([H_PROTECT, flags, slot, ..]) => {
                Ok(if self.protect(slot, flags & 3) { 0 } else { H_NOT_FOUND })
            }
            GuestOp::Hcall(registers) => Err(format!("hypercall {registers:?}")),
            GuestOp::SpinUntilSet(address) => {
                self.use_page(address, R_R)?;
                self.set_vcpus_running(true);
                while self.inner.poked.load(Ordering::SeqCst) != address {
                    std::thread::yield_now();
                }
                self.set_vcpus_running(false);
                Ok(0)
            }
        }
    }

    fn poke(&self, address: u64, byte: u8) {
        if byte != 0 {
            self.inner.poked.store(address, Ordering::SeqCst);
        }
    }

    fn has_htab_fd(&self) -> bool {
        true
    }

    fn clock_ns(&self) -> u64 {
        self.inner.clock.load(Ordering::Relaxed)
    }
}

impl Model {
    /// The hardware's way from a real address of the guest to its 4 KiB entry, and R or C set in it.
    fn use_page(&self, address: u64, rc: u64) -> Result<(), String> {
        let groups = self.slots() / 8;
        let group = (address >> 12 ^ VRMA_VSID ^ VRMA_VSID << 25) & (groups - 1);
        let v = 1 << 62 | VRMA_VSID << 24 | address >> 16 & !0x7f | V_VALID;
        let used =
            self.dump().iter().find(|&&(s, of, _)| s / 8 == group && of & !0x7e == v).map(|&(s, ..)| s);
        let slot = used.ok_or_else(|| format!("no entry for {address:#x}"))?;
        self.touch(slot, rc);
        Ok(())
    }
}

/// `VRMA_VSID`: the segment of the virtual real mode area.
const VRMA_VSID: u64 = 0x1ff_ffff;
const H_NOT_FOUND: u64 = 7_u64.wrapping_neg();

struct ModelFd {
    model: Model,
    ctx: Context,
    writes: bool,
}

impl ModelFd {
    /// One call of the fd's write: a plain write, or a segment of a writev.
    fn write_once(&self, buf: &[u8]) -> Result<usize, i32> {
        let mut state = self.model.state();
        state.stats.writes += 1;
        let fault = state.fault(Op::Write);
        let buf = match fault {
            Some(Fault::Errno(errno)) => return Err(errno),
            Some(Fault::Short(len)) => &buf[..len.min(buf.len())],
            Some(Fault::Late(_)) | None => buf,
        };
        if state.order.is_none() {
            return Err(libc::EINVAL);
        }
        if state.mmu_ready && state.vcpus_running {
            return Err(libc::EBUSY);
        }
        let mut work = Work::default();
        let State { table, mmu_ready, .. } = &mut *state;
        let past_end = self.model.inner.config.past_end;
        let mut result = htab_fd::write(table, buf, past_end, mmu_ready, &mut work);
        if let Some(Fault::Late(errno)) = fault {
            result = Err(errno);
        }
        state.stats.bytes_written += result.unwrap_or(0) as u64;
        self.model.advance(work.slots * state.costs.slot_ns + work.entries * state.costs.entry_ns);
        result
    }

    /// What every system call that writes begins with.
    fn begin_write(&self) -> Result<(), i32> {
        if !self.writes {
            return Err(libc::EBADF);
        }
        let mut state = self.model.state();
        state.stats.write_calls += 1;
        self.model.advance(state.costs.call_ns);
        Ok(())
    }
}

impl HtabFd for ModelFd {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, i32> {
        self.read_into(Destination::sound(buf))
    }

    fn read_faulting(&mut self, buf: &mut [u8], count: usize) -> Result<usize, i32> {
        assert_eq!(buf.len() % 8, 0, "a doubleword lies across the end");
        self.read_into(Destination { bytes: buf, count })
    }

    fn write(&mut self, buf: &[u8]) -> Result<usize, i32> {
        self.begin_write()?;
        self.write_once(buf)
    }

    /// The fd has no vectored write, so the kernel calls the plain one per segment and stops at the first
    /// that fails or is written in part. It returns the error only when nothing was written.
    fn writev(&mut self, segments: &[&[u8]]) -> Result<usize, i32> {
        self.begin_write()?;
        if segments.len() > MAX_SEGMENTS {
            return Err(libc::EINVAL);
        }
        let mut total = 0;
        let mut left: usize = segments.iter().map(|s| s.len()).sum();
        for segment in segments {
            if left == 0 {
                break;
            }
            match self.write_once(segment) {
                Ok(written) => {
                    total += written;
                    if written != segment.len() {
                        break;
                    }
                }
                Err(errno) if total == 0 => return Err(errno),
                Err(_) => break,
            }
            left -= segment.len();
        }
        Ok(total)
    }
}

impl ModelFd {
    /// Calls the hook with nothing locked, so that it may do what any other thread may.
    fn call_hook(&self) {
        let slot = &self.model.inner.hook;
        let hook = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut hook) = hook {
            let nth = self.model.state().stats.reads;
            hook(&self.model, nth);
            // Unless it set another one.
            slot.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(hook);
        }
    }

    fn read_into(&mut self, into: Destination<'_>) -> Result<usize, i32> {
        if self.writes {
            return Err(libc::EBADF);
        }
        self.call_hook();
        self.model.inner.readers.fetch_add(1, Ordering::SeqCst);
        let result = self.read_locked(into);
        self.model.inner.readers.fetch_sub(1, Ordering::SeqCst);
        result
    }

    fn read_locked(&mut self, mut into: Destination<'_>) -> Result<usize, i32> {
        let mut state = self.model.state();
        state.stats.reads += 1;
        self.model.advance(state.costs.call_ns);
        let fault = state.fault(Op::Read);
        match fault {
            Some(Fault::Errno(errno)) => return Err(errno),
            Some(Fault::Short(len)) => into.count = len.min(into.count),
            Some(Fault::Late(_)) | None => {}
        }
        let before = self.ctx;
        let mut work = Work::default();
        let mut result = match state.order {
            Some(_) => htab_fd::read(&mut state.table, &mut self.ctx, &mut into, &mut work),
            None => Ok(0),
        };
        if let Some(Fault::Late(errno)) = fault {
            self.ctx = before;
            result = Err(errno);
        }
        state.stats.bytes_read += result.unwrap_or(0) as u64;
        state.stats.slots_read += work.slots + work.entries;
        state.stats.max_slots_in_a_read = state.stats.max_slots_in_a_read.max(work.slots + work.entries);
        self.model.advance(work.slots * state.costs.slot_ns + work.entries * state.costs.entry_ns);
        result
    }
}

impl Drop for ModelFd {
    /// `kvm_htab_release`.
    fn drop(&mut self) {
        if !self.writes {
            self.model.state().table.mod_interest -= 1;
        }
    }
}
