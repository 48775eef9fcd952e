// SPDX-License-Identifier: GPL-2.0-or-later
//! Allocating and resetting the table (`kvmppc_alloc_reset_hpt`), and radix guests.

use super::{
    BIG, Case, ORDER, Outcome, enter, entry_at, occupied, open, read, remove, same, settled, shapes,
};
use crate::record::Replay;
use crate::vm::{VmFactory, WRITE};

pub(super) const CASES: &[Case] = &[
    ("a_radix_guest_reads_0", a_radix_guest_reads_0),
    ("a_radix_guest_refuses_writes", a_radix_guest_refuses_writes),
    ("allocating_turns_radix_to_hash", allocating_turns_radix_to_hash),
    ("allocation_grants_the_order_asked_for", allocation_grants_the_order_asked_for),
    ("reset_in_place_empties_the_table", reset_in_place_empties_the_table),
    ("reset_in_place_marks_nothing", reset_in_place_marks_nothing),
    ("reset_in_place_keeps_pending_changes", reset_in_place_keeps_pending_changes),
    ("reset_in_place_keeps_the_position_and_the_pass", reset_in_place_keeps_the_position),
    ("another_order_gives_an_empty_table", another_order_gives_an_empty_table),
    ("another_order_does_not_restart_the_first_pass", another_order_does_not_restart),
    ("a_smaller_table_ends_a_read_fds_sweep", a_smaller_table_ends_a_sweep),
    ("a_write_fd_goes_on_with_the_new_table", a_write_fd_goes_on_with_the_new_table),
    ("an_order_refused_takes_the_old_table_away", an_order_refused_takes_the_old_table_away),
];

fn a_radix_guest_reads_0(vms: &dyn VmFactory) -> Outcome {
    let Some(vm) = vms.radix()? else { return Ok(()) };
    let mut fd = open(&*vm, 0, 0)?;
    same!(shapes(&mut fd, BIG)?, [], "first read");
    same!(shapes(&mut fd, BIG)?, [], "second read");
    same!(vm.dump(), [], "table");
    Ok(())
}

fn a_radix_guest_refuses_writes(vms: &dyn VmFactory) -> Outcome {
    let Some(vm) = vms.radix()? else { return Ok(()) };
    let mut fd = open(&*vm, WRITE, 0)?;
    same!(fd.write(&entry_at(7, 1).to_bytes()), Err(libc::EINVAL), "write");
    same!(fd.writev(&[&entry_at(7, 1).to_bytes()]), Err(libc::EINVAL), "writev");
    same!(fd.write(&[]), Err(libc::EINVAL), "write of nothing");
    Ok(())
}

/// The fd from before is a first-pass fd still: what it read of the radix guest was no pass.
fn allocating_turns_radix_to_hash(vms: &dyn VmFactory) -> Outcome {
    let Some(vm) = vms.radix()? else { return Ok(()) };
    let mut fd = open(&*vm, 0, 0)?;
    same!(shapes(&mut fd, BIG)?, [], "read of the radix guest");
    same!(vm.allocate(ORDER), Ok(ORDER), "allocate");
    enter(&*vm, &[7], 1)?;
    same!(shapes(&mut fd, BIG)?, [(0, 0, 7), (7, 1, 16376)], "read of the hash guest");
    Ok(())
}

fn allocation_grants_the_order_asked_for(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    for order in [18, 19, 22, 18] {
        same!(vm.allocate(order), Ok(order), "allocate");
        let mut replay = Replay::default();
        let mut covered = 0;
        for record in read(&mut open(&*vm, 0, 0)?, BIG)? {
            covered += record.valid.len() + usize::from(record.n_invalid);
            replay.apply(&record);
        }
        same!(covered, 1 << (order - 4), "slots of order {order}");
        same!(replay.dump(), [], "table of order {order}");
    }
    Ok(())
}

fn reset_in_place_empties_the_table(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[1, 2, 16383], 1)?;
    same!(vm.allocate(ORDER), Ok(ORDER), "allocate");
    same!(vm.dump(), [], "table");
    same!(shapes(&mut open(&*vm, 0, 0)?, BIG)?, [(0, 0, 16384)], "first pass");
    Ok(())
}

fn reset_in_place_marks_nothing(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[1, 2, 16383], 1)?;
    let mut fd = settled(&*vm)?;
    same!(vm.allocate(ORDER), Ok(ORDER), "allocate");
    same!(shapes(&mut fd, BIG)?, [], "changes: three entries went without a word");
    same!(shapes(&mut fd, BIG)?, [], "the read after");
    Ok(())
}

fn reset_in_place_keeps_pending_changes(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[1, 2], 1)?;
    let mut fd = settled(&*vm)?;
    enter(&*vm, &[2, 9], 2)?;
    remove(&*vm, &[1])?;
    same!(vm.allocate(ORDER), Ok(ORDER), "allocate");
    same!(shapes(&mut fd, BIG)?, [(1, 0, 2), (9, 0, 1)], "changes: from before, now all invalid");
    Ok(())
}

fn reset_in_place_keeps_the_position(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[5000], 1)?;
    let mut fd = open(&*vm, 0, 0)?;
    same!(shapes(&mut fd, 25)?, [(0, 0, 5000)], "first read");
    same!(vm.allocate(ORDER), Ok(ORDER), "allocate");
    same!(shapes(&mut fd, 25)?, [(5000, 0, 11384)], "second read: still the first pass, and where it was");
    Ok(())
}

fn another_order_gives_an_empty_table(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[1, 2], 1)?;
    same!(vm.allocate(20), Ok(20), "allocate");
    same!(vm.dump(), [], "table");
    enter(&*vm, &[65535], 2)?;
    same!(occupied(&*vm), [65535], "slots in use");
    Ok(())
}

fn another_order_does_not_restart(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[1, 2], 1)?;
    let mut fd = settled(&*vm)?;
    same!(vm.allocate(20), Ok(20), "allocate");
    // The new revmap is not cleared: never-used slots may show up here, all of them invalid.
    let found = read(&mut fd, BIG)?;
    same!(found.iter().any(|record| !record.valid.is_empty()), false, "valid entries in {found:?}");
    enter(&*vm, &[60000], 2)?;
    same!(shapes(&mut fd, BIG)?, [(60000, 1, 0)], "changes, and no first pass of the new table");
    Ok(())
}

fn a_smaller_table_ends_a_sweep(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(20)?;
    let mut fd = settled(&*vm)?;
    enter(&*vm, &[60000], 1)?;
    same!(shapes(&mut fd, 25)?, [(60000, 1, 0)], "first read");
    same!(vm.allocate(ORDER), Ok(ORDER), "allocate");
    enter(&*vm, &[7], 1)?;
    same!(shapes(&mut fd, BIG)?, [], "second read, from past the end");
    same!(
        read(&mut fd, BIG)?.iter().filter(|record| record.index <= 7).count() > 0,
        true,
        "slot 7 comes third"
    );
    Ok(())
}

fn a_write_fd_goes_on_with_the_new_table(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = open(&*vm, WRITE, 0)?;
    same!(fd.write(&entry_at(16384, 1).to_bytes()), Err(libc::EINVAL), "slot 16384 of 16384");
    same!(vm.allocate(20), Ok(20), "allocate");
    same!(fd.write(&entry_at(16384, 1).to_bytes()), Ok(24), "slot 16384 of 65536");
    same!(occupied(&*vm), [16384], "slots in use");
    Ok(())
}

/// Order 0 is not tried: the kernel takes it for the order of a VM that has no table, and clears that.
fn an_order_refused_takes_the_old_table_away(vms: &dyn VmFactory) -> Outcome {
    for order in [17, 47, u32::MAX] {
        let vm = vms.hash(ORDER)?;
        enter(&*vm, &[7], 1)?;
        let mut fd = open(&*vm, 0, 0)?;
        same!(vm.allocate(order), Err(libc::EINVAL), "allocate {order}");
        same!(shapes(&mut fd, BIG)?, [], "read after order {order}");
        same!(open(&*vm, WRITE, 0)?.write(&entry_at(7, 1).to_bytes()), Err(libc::EINVAL), "write after it");
        same!(vm.allocate(ORDER), Ok(ORDER), "allocate again");
        same!(vm.dump(), [], "table");
    }
    Ok(())
}
