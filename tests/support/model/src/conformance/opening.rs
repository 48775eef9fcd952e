// SPDX-License-Identifier: GPL-2.0-or-later
//! Opening the fd (`kvm_vm_ioctl_get_htab_fd`) and closing it (`kvm_htab_release`).

use super::{
    BIG, Case, ORDER, Outcome, SLOTS, enter, later_pass, occupied, open, read, same, settled, shapes,
};
use crate::record::Replay;
use crate::vm::{BOLTED_ONLY, VmFactory, WRITE};

pub(super) const CASES: &[Case] = &[
    ("capability_is_reported", capability_is_reported),
    ("unknown_flags_are_einval", unknown_flags_are_einval),
    ("a_read_fd_cannot_write", a_read_fd_cannot_write),
    ("a_write_fd_cannot_read", a_write_fd_cannot_read),
    ("write_flag_wins_over_bolted_only", write_flag_wins_over_bolted_only),
    ("the_fd_outlives_the_vm_handle", the_fd_outlives_the_vm_handle),
    ("start_index_past_end_loses_first_pass", start_index_past_end_loses_first_pass),
    ("start_index_of_the_last_slot_reports_it", start_index_of_the_last_slot_reports_it),
    ("slots_before_start_index_come_only_when_changed", slots_before_start_index_come_only_when_changed),
    ("nothing_is_tracked_without_a_read_fd", nothing_is_tracked_without_a_read_fd),
    ("a_write_fd_does_not_start_tracking", a_write_fd_does_not_start_tracking),
    ("closing_the_last_read_fd_stops_tracking", closing_the_last_read_fd_stops_tracking),
    ("an_untracked_write_forgets_an_earlier_change", an_untracked_write_forgets_an_earlier_change),
    ("changes_outlive_the_fd_they_were_tracked_for", changes_outlive_the_fd_they_were_tracked_for),
];

fn capability_is_reported(vms: &dyn VmFactory) -> Outcome {
    same!(vms.hash(ORDER)?.has_htab_fd(), true, "KVM_CAP_PPC_HTAB_FD on the VM");
    Ok(())
}

fn unknown_flags_are_einval(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    for flags in [4, 5, 6, 8, 1 << 31, 1 << 32, 1 << 63, u64::MAX] {
        same!(vm.open(flags, 0).err(), Some(libc::EINVAL), "flags {flags:#x}");
    }
    for flags in 0..4 {
        same!(vm.open(flags, 0).err(), None, "flags {flags:#x}");
    }
    Ok(())
}

fn a_read_fd_cannot_write(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = open(&*vm, 0, 0)?;
    let record = super::entry_at(1, 1).to_bytes();
    same!(fd.write(&record), Err(libc::EBADF), "write");
    same!(fd.writev(&[&record]), Err(libc::EBADF), "writev");
    same!(occupied(&*vm), [], "slots in use");
    Ok(())
}

fn a_write_fd_cannot_read(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    same!(open(&*vm, WRITE, 0)?.read(&mut [0; 64]), Err(libc::EBADF), "read");
    Ok(())
}

fn write_flag_wins_over_bolted_only(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = open(&*vm, WRITE | BOLTED_ONLY, 0)?;
    same!(fd.write(&super::entry_at(7, 1).to_bytes()), Ok(24), "write");
    same!(fd.read(&mut [0; 64]), Err(libc::EBADF), "read");
    same!(occupied(&*vm), [7], "slots in use: an entry that is not bolted is written all the same");
    Ok(())
}

fn the_fd_outlives_the_vm_handle(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[42], 1)?;
    let mut fd = open(&*vm, 0, 0)?;
    drop(vm);
    same!(shapes(&mut fd, BIG)?, [(0, 0, 42), (42, 1, 16341)], "first pass without the VM's fd");
    Ok(())
}

fn start_index_past_end_loses_first_pass(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[3, 5000], 1)?;
    let _settled = settled(&*vm)?;
    for start_index in [SLOTS, SLOTS + 1, 1 << 40, u64::MAX] {
        let mut fd = open(&*vm, 0, start_index)?;
        same!(shapes(&mut fd, BIG)?, [], "first read from {start_index:#x}");
        same!(shapes(&mut fd, BIG)?, [], "second read from {start_index:#x}: no first pass to come");
        enter(&*vm, &[3], 2)?;
        same!(shapes(&mut fd, BIG)?, [(3, 1, 0)], "third read from {start_index:#x}: a later pass");
    }
    Ok(())
}

fn start_index_of_the_last_slot_reports_it(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[16383], 1)?;
    let _settled = settled(&*vm)?;
    let mut fd = open(&*vm, 0, SLOTS - 1)?;
    same!(shapes(&mut fd, BIG)?, [(16383, 1, 0)], "first read");
    same!(shapes(&mut fd, BIG)?, [], "second read: it wrapped, and the first pass is over");
    Ok(())
}

fn slots_before_start_index_come_only_when_changed(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[10, 20, 9000], 1)?;
    let _settled = settled(&*vm)?;
    let mut fd = open(&*vm, 0, 8192)?;
    same!(shapes(&mut fd, BIG)?, [(8192, 0, 808), (9000, 1, 7383)], "first pass, from the middle");
    same!(shapes(&mut fd, BIG)?, [], "second read, from 0: slots 10 and 20 never come");
    enter(&*vm, &[20], 2)?;
    same!(shapes(&mut fd, BIG)?, [(20, 1, 0)], "after a change");
    Ok(())
}

fn nothing_is_tracked_without_a_read_fd(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    drop(settled(&*vm)?);
    enter(&*vm, &[100], 1)?;
    let mut fd = later_pass(&*vm)?;
    same!(shapes(&mut fd, BIG)?, [], "changes from before the fd was opened");
    enter(&*vm, &[101], 1)?;
    same!(shapes(&mut fd, BIG)?, [(101, 1, 0)], "changes from after it");
    Ok(())
}

fn a_write_fd_does_not_start_tracking(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    drop(settled(&*vm)?);
    let _write_fd = open(&*vm, WRITE, 0)?;
    enter(&*vm, &[100], 1)?;
    same!(shapes(&mut later_pass(&*vm)?, BIG)?, [], "changes while only write fds were open");
    Ok(())
}

fn closing_the_last_read_fd_stops_tracking(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let first = settled(&*vm)?;
    let second = open(&*vm, 0, 0)?;
    drop(first);
    enter(&*vm, &[1], 1)?;
    drop(second);
    enter(&*vm, &[2], 1)?;
    same!(
        shapes(&mut later_pass(&*vm)?, BIG)?,
        [(1, 1, 0)],
        "changes: one with a read fd left, one with none"
    );
    Ok(())
}

fn an_untracked_write_forgets_an_earlier_change(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let fd = settled(&*vm)?;
    enter(&*vm, &[1, 2], 1)?;
    drop(fd);
    // Entering replaces the revmap's copy, MODIFIED and all, and with no read fd nothing sets it again.
    enter(&*vm, &[1], 2)?;
    same!(shapes(&mut later_pass(&*vm)?, BIG)?, [(2, 1, 0)], "changes");
    Ok(())
}

fn changes_outlive_the_fd_they_were_tracked_for(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let fd = settled(&*vm)?;
    enter(&*vm, &[77], 1)?;
    drop(fd);
    let mut fd = later_pass(&*vm)?;
    let mut replay = Replay::default();
    read(&mut fd, BIG)?.iter().for_each(|record| replay.apply(record));
    same!(replay.dump(), vm.dump(), "what a later fd reports of it");
    Ok(())
}
