// SPDX-License-Identifier: GPL-2.0-or-later
//! What only a running guest brings about: R and C set by the hardware (`hpte_dirty`, the harvest in
//! `record_hpte`), changes of the guest's own, EBUSY. Cases apart, since not every host can run one.

use super::{BIG, Case, ORDER, Outcome, open, put, read, remove, same, settled, shapes};
use crate::record::{R_C, R_R, Record, V_BOLTED, V_HVLOCK, V_VALID, hpte};
use crate::vm::{GUEST_CODE, GuestOp, H_ENTER, H_EXACT, H_PROTECT, H_REMOVE, Vm, VmFactory, WRITE};
use std::thread;
use std::time::{Duration, Instant};

/// Run apart from [`super::CASES`].
pub(super) const CASES: &[Case] = &[
    ("guest_load_makes_r_a_change", guest_load_makes_r_a_change),
    ("guest_store_makes_c_a_change", guest_store_makes_c_a_change),
    ("guest_use_after_the_harvest_is_no_change", guest_use_after_the_harvest),
    ("guest_use_needs_no_open_fd_to_be_seen", guest_use_needs_no_open_fd),
    ("guest_use_is_seen_by_one_fd_only", guest_use_is_seen_by_one_fd_only),
    ("removing_a_used_entry_is_one_change", removing_a_used_entry_is_one_change),
    ("guest_h_enter_and_h_remove_are_changes", guest_h_enter_and_h_remove),
    ("guest_h_protect_is_a_change", guest_h_protect_is_a_change),
    ("the_dirty_log_takes_c_and_leaves_a_change", dirty_log_leaves_a_change),
    ("c_that_was_reported_is_no_change_to_the_dirty_log", reported_is_no_change_to_the_dirty_log),
    ("a_page_with_c_clear_is_no_change_to_the_dirty_log", clear_is_no_change_to_the_dirty_log),
    ("the_dirty_log_with_no_read_fd_open_loses_the_change", dirty_log_with_no_read_fd_open),
    ("each_dirty_log_has_the_stores_since_the_last", each_dirty_log_has_the_stores_since),
    ("running_vcpus_make_writes_and_allocations_ebusy", running_vcpus_are_ebusy),
];

/// A page of the guest's data.
const DATA: u64 = 0x5000;
const R_M_RWX: u64 = 0x12;

/// The slot that the hardware looks in for a page of the virtual real mode area (`kvmppc_map_vrma`; the
/// seventh of its HPTEG), in a table of [`ORDER`]: the area's VSID is all ones.
fn vrma_slot(address: u64) -> u32 {
    let group = address >> 12 ^ 0x7ff;
    u32::try_from(group * 8 + 7).expect("one of the first 2048 pages")
}

/// The entry for a page of the area, with `rc` of R and C.
fn vrma_hpte(address: u64, rc: u64) -> (u64, u64) {
    (1 << 62 | 0x1ff_ffff << 24 | V_BOLTED | V_VALID, address | rc | R_M_RWX)
}

/// A VM whose guest has memory, its code mapped and used, and its data mapped and never used.
fn guest_vm(vms: &dyn VmFactory) -> Result<Box<dyn Vm>, String> {
    let vm = vms.hash(ORDER)?;
    vm.set_ram(1 << 20).map_err(super::errno("set_ram"))?;
    let page = |address, rc| Record::new(vrma_slot(address), &[vrma_hpte(address, rc)], 0);
    put(&*vm, &[page(GUEST_CODE, R_R | R_C), page(DATA, 0)])?;
    Ok(vm)
}

/// The data page's record as a read gives it.
fn data_record(rc: u64) -> Record {
    let (v, r) = vrma_hpte(DATA, rc);
    Record::new(vrma_slot(DATA), &[(v | V_HVLOCK, r)], 0)
}

fn guest_load_makes_r_a_change(vms: &dyn VmFactory) -> Outcome {
    let vm = guest_vm(vms)?;
    let mut fd = settled(&*vm)?;
    vm.guest(GuestOp::Load(DATA))?;
    same!(read(&mut fd, BIG)?, [data_record(R_R)], "changes");
    same!(read(&mut fd, BIG)?, [], "the read after");
    Ok(())
}

fn guest_store_makes_c_a_change(vms: &dyn VmFactory) -> Outcome {
    let vm = guest_vm(vms)?;
    vm.guest(GuestOp::Load(DATA))?;
    let mut fd = settled(&*vm)?;
    vm.guest(GuestOp::Store(DATA))?;
    same!(
        vm.dump().contains(&(vrma_slot(DATA).into(), vrma_hpte(DATA, 0).0, DATA | R_R | R_C | R_M_RWX)),
        true,
        "the dump has C"
    );
    same!(read(&mut fd, BIG)?, [data_record(R_R | R_C)], "changes");
    same!(read(&mut fd, BIG)?, [], "the read after");
    Ok(())
}

fn guest_use_after_the_harvest(vms: &dyn VmFactory) -> Outcome {
    let vm = guest_vm(vms)?;
    vm.guest(GuestOp::Store(DATA))?;
    let mut fd = settled(&*vm)?;
    vm.guest(GuestOp::Load(DATA))?;
    vm.guest(GuestOp::Store(DATA))?;
    same!(read(&mut fd, BIG)?, [], "changes");
    Ok(())
}

fn guest_use_needs_no_open_fd(vms: &dyn VmFactory) -> Outcome {
    let vm = guest_vm(vms)?;
    drop(settled(&*vm)?);
    vm.guest(GuestOp::Store(DATA))?;
    same!(read(&mut super::later_pass(&*vm)?, BIG)?, [data_record(R_R | R_C)], "changes");
    Ok(())
}

fn guest_use_is_seen_by_one_fd_only(vms: &dyn VmFactory) -> Outcome {
    let vm = guest_vm(vms)?;
    let mut one = settled(&*vm)?;
    let mut other = settled(&*vm)?;
    vm.guest(GuestOp::Store(DATA))?;
    same!(read(&mut one, BIG)?, [data_record(R_R | R_C)], "the one's changes");
    same!(read(&mut other, BIG)?, [], "the other's");
    Ok(())
}

fn removing_a_used_entry_is_one_change(vms: &dyn VmFactory) -> Outcome {
    let vm = guest_vm(vms)?;
    let mut fd = settled(&*vm)?;
    vm.guest(GuestOp::Store(DATA))?;
    remove(&*vm, &[vrma_slot(DATA)])?;
    same!(shapes(&mut fd, BIG)?, [(vrma_slot(DATA), 0, 1)], "changes");
    Ok(())
}

fn guest_h_enter_and_h_remove(vms: &dyn VmFactory) -> Outcome {
    let vm = guest_vm(vms)?;
    let mut fd = settled(&*vm)?;
    let (v, r) = hpte(0x90000);
    same!(vm.guest(GuestOp::Hcall([H_ENTER, H_EXACT, 1000, v, r]))?, 0, "H_ENTER");
    same!(read(&mut fd, BIG)?, [Record::new(1000, &[(v | V_HVLOCK, r)], 0)], "changes");
    same!(vm.guest(GuestOp::Hcall([H_REMOVE, 0, 1000, 0, 0]))?, 0, "H_REMOVE");
    same!(shapes(&mut fd, BIG)?, [(1000, 0, 1)], "changes");
    Ok(())
}

fn guest_h_protect_is_a_change(vms: &dyn VmFactory) -> Outcome {
    let vm = guest_vm(vms)?;
    let (v, r) = hpte(0x90000);
    put(&*vm, &[Record::new(1000, &[(v, r)], 0)])?;
    let mut fd = settled(&*vm)?;
    same!(vm.guest(GuestOp::Hcall([H_PROTECT, 3, 1000, 0, 0]))?, 0, "H_PROTECT");
    same!(read(&mut fd, BIG)?, [Record::new(1000, &[(v | V_HVLOCK, r | 3)], 0)], "changes");
    Ok(())
}

fn read_dirty_log(vm: &dyn Vm) -> Result<u64, String> {
    vm.read_dirty_log().map_err(super::errno("read_dirty_log"))
}

/// C moves from the hardware's entry to the guest's view: from then on MODIFIED alone says that it changed.
fn dirty_log_leaves_a_change(vms: &dyn VmFactory) -> Outcome {
    let vm = guest_vm(vms)?;
    vm.guest(GuestOp::Load(DATA))?;
    let mut fd = settled(&*vm)?;
    vm.guest(GuestOp::Store(DATA))?;
    same!(read_dirty_log(&*vm)?, 1, "dirty pages");
    same!(read(&mut fd, BIG)?, [data_record(R_R | R_C)], "changes");
    same!(read(&mut fd, BIG)?, [], "the read after");
    Ok(())
}

/// As long as the hardware had stored C when the fd was read. What it stores later: `Model::touch_delayed`.
fn reported_is_no_change_to_the_dirty_log(vms: &dyn VmFactory) -> Outcome {
    let vm = guest_vm(vms)?;
    let mut fd = settled(&*vm)?;
    vm.guest(GuestOp::Store(DATA))?;
    same!(read(&mut fd, BIG)?, [data_record(R_R | R_C)], "changes");
    same!(read_dirty_log(&*vm)?, 1, "dirty pages");
    same!(read(&mut fd, BIG)?, [], "changes after the log was read");
    Ok(())
}

fn clear_is_no_change_to_the_dirty_log(vms: &dyn VmFactory) -> Outcome {
    let vm = guest_vm(vms)?;
    vm.guest(GuestOp::Load(DATA))?;
    let mut fd = settled(&*vm)?;
    same!(read_dirty_log(&*vm)?, 0, "dirty pages");
    same!(read(&mut fd, BIG)?, [], "changes");
    Ok(())
}

fn dirty_log_with_no_read_fd_open(vms: &dyn VmFactory) -> Outcome {
    let vm = guest_vm(vms)?;
    vm.guest(GuestOp::Load(DATA))?;
    drop(settled(&*vm)?);
    vm.guest(GuestOp::Store(DATA))?;
    same!(read_dirty_log(&*vm)?, 1, "dirty pages");
    same!(read(&mut super::later_pass(&*vm)?, BIG)?, [], "changes: C is in the entry, and there is no mark");
    same!(
        vm.dump().contains(&(vrma_slot(DATA).into(), vrma_hpte(DATA, 0).0, DATA | R_R | R_C | R_M_RWX)),
        true,
        "the dump has C"
    );
    Ok(())
}

fn each_dirty_log_has_the_stores_since(vms: &dyn VmFactory) -> Outcome {
    let vm = guest_vm(vms)?;
    vm.guest(GuestOp::Store(DATA))?;
    let mut fd = settled(&*vm)?;
    same!(read_dirty_log(&*vm)?, 1, "dirty pages");
    same!(read_dirty_log(&*vm)?, 0, "dirty pages at once after");
    vm.guest(GuestOp::Store(DATA))?;
    same!(read_dirty_log(&*vm)?, 1, "dirty pages after another store");
    same!(read(&mut fd, BIG)?, [], "changes: the guest's view has had C all along");
    Ok(())
}

fn running_vcpus_are_ebusy(vms: &dyn VmFactory) -> Outcome {
    let vm = guest_vm(vms)?;
    let mut write = open(&*vm, WRITE, 0)?;
    let record = Record::new(1000, &[hpte(0x90000)], 0).to_bytes();
    let mut fd = settled(&*vm)?;
    let stopped = thread::scope(|scope| {
        let guest = scope.spawn(|| vm.guest(GuestOp::SpinUntilSet(DATA)));
        let deadline = Instant::now() + Duration::from_secs(20);
        while write.write(&record) != Err(libc::EBUSY) && Instant::now() < deadline {
            thread::yield_now();
        }
        let seen = [write.write(&record).err(), write.writev(&[&record]).err(), vm.allocate(ORDER).err()];
        let readable = read(&mut fd, BIG);
        vm.poke(DATA, 1);
        let guest = guest.join().map_err(|_| "the guest panicked".to_owned())?;
        guest.and(readable).map(|_| seen)
    })?;
    same!(stopped, [Some(libc::EBUSY); 3], "write, writev and allocate while it ran");
    same!(write.write(&record), Ok(24), "write after it stopped");
    Ok(())
}
