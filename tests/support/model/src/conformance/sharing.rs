// SPDX-License-Identifier: GPL-2.0-or-later
//! Several fds on one table: MODIFIED is one bit per HPTE, and whoever reads it first has it
//! (`record_hpte`, `HPTE_GR_MODIFIED` in the revmap).

use super::{BIG, Case, ORDER, Outcome, drain, enter, open, put, read, remove, same, settled, shapes};
use crate::record::{Record, Replay, bolted_hpte, hpte};
use crate::vm::{BOLTED_ONLY, VmFactory};

pub(super) const CASES: &[Case] = &[
    ("later_pass_fds_split_the_changes", later_pass_fds_split_the_changes),
    ("debug_fd_steals_changes", debug_fd_steals_changes),
    ("debug_fd_steals_invalidations", debug_fd_steals_invalidations),
    ("bolted_only_fd_steals_what_it_hides", bolted_only_fd_steals_what_it_hides),
    ("an_fd_with_no_room_steals_nothing", an_fd_with_no_room_steals_nothing),
    ("each_fd_has_its_own_first_pass", each_fd_has_its_own_first_pass),
    ("parallel_first_passes_and_one_later_pass_give_the_table", parallel_first_passes),
    ("the_dump_takes_nothing", the_dump_takes_nothing),
];

fn later_pass_fds_split_the_changes(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut one = settled(&*vm)?;
    let mut other = settled(&*vm)?;
    enter(&*vm, &[10, 20], 1)?;
    same!(shapes(&mut one, 25)?, [(10, 1, 0)], "the one's share");
    same!(shapes(&mut other, BIG)?, [(20, 1, 0)], "the other's");
    same!(shapes(&mut one, BIG)?, [], "left for the one");
    Ok(())
}

/// What QEMU's HPTE lookup for a debugger does: a fresh fd at the slot it wants.
fn debug_fd_steals_changes(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(20)?;
    let mut migration = settled(&*vm)?;
    enter(&*vm, &[2000, 2005], 1)?;
    let mut debugger = open(&*vm, 0, 2000)?;
    same!(shapes(&mut debugger, 57)?, [(2000, 1, 4), (2005, 1, 63530)], "the debugger's read");
    same!(shapes(&mut migration, BIG)?, [], "the migration's read");
    Ok(())
}

fn debug_fd_steals_invalidations(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(20)?;
    enter(&*vm, &[2000, 2005, 60000], 1)?;
    let mut migration = settled(&*vm)?;
    remove(&*vm, &[2005, 60000])?;
    let mut debugger = open(&*vm, 0, 2000)?;
    same!(shapes(&mut debugger, 25)?, [(2000, 1, 63535)], "the debugger's read of one entry");
    same!(shapes(&mut migration, BIG)?, [], "the migration's read: its copy keeps two entries too many");
    Ok(())
}

fn bolted_only_fd_steals_what_it_hides(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut migration = settled(&*vm)?;
    put(&*vm, &[Record::new(10, &[hpte(1), bolted_hpte(2)], 0)])?;
    read(&mut open(&*vm, BOLTED_ONLY, 0)?, BIG)?;
    same!(shapes(&mut migration, BIG)?, [], "the migration's read");
    Ok(())
}

fn an_fd_with_no_room_steals_nothing(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut migration = settled(&*vm)?;
    put(&*vm, &[Record::new(10, &[hpte(1), hpte(2)], 0)])?;
    let mut debugger = open(&*vm, 0, 10)?;
    same!(shapes(&mut debugger, 24)?, [], "a read of 24 bytes, as QEMU's one-entry lookup makes");
    same!(shapes(&mut debugger, 25)?, [(10, 1, 0)], "a read with room for one of the two");
    same!(shapes(&mut migration, BIG)?, [(11, 1, 0)], "the migration's read");
    Ok(())
}

fn each_fd_has_its_own_first_pass(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[10], 1)?;
    let mut one = open(&*vm, 0, 0)?;
    let mut other = open(&*vm, 0, 0)?;
    for (who, fd) in [("one", &mut one), ("other", &mut other)] {
        same!(shapes(fd, BIG)?, [(0, 0, 10), (10, 1, 16373)], "first pass of the {who}");
    }
    Ok(())
}

/// Four fds take a quarter of the first pass each while the table changes under them; one of them does the
/// later passes. With each slot's latest value kept, nothing is lost.
fn parallel_first_passes(vms: &dyn VmFactory) -> Outcome {
    const QUARTER: u32 = 4096;
    let vm = vms.hash(ORDER)?;
    for slot in (0..4 * QUARTER).step_by(31) {
        enter(&*vm, &[slot], 1)?;
    }
    let mut replay = Replay::default();
    let mut fds = Vec::new();
    for quarter in 0..4 {
        fds.push((quarter * QUARTER, open(&*vm, 0, u64::from(quarter * QUARTER))?));
    }
    let mut changing = 0;
    let mut open_ends = true;
    while open_ends {
        open_ends = false;
        for (quarter, (next, fd)) in (0..).zip(&mut fds) {
            if *next >= (quarter + 1) * QUARTER {
                continue;
            }
            open_ends = true;
            for record in read(fd, 200)? {
                let covered = u32::try_from(record.valid.len()).map_err(|e| e.to_string())?;
                *next = record.index + covered + u32::from(record.n_invalid);
                replay.apply(&record);
            }
            // Behind, ahead and far off, whichever fd gets to it.
            changing += 1;
            let slot = changing * 97 % (4 * QUARTER);
            enter(&*vm, &[slot], u64::from(changing))?;
            remove(&*vm, &[(slot + 5000) / 31 * 31 % (4 * QUARTER)])?;
        }
    }
    let later = &mut fds[3].1;
    drain(later, 300, &mut replay)?;
    drain(later, 300, &mut replay)?;
    same!(replay.dump() == vm.dump(), true, "the destination's table is the source's");
    Ok(())
}

fn the_dump_takes_nothing(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[11], 1)?;
    let mut fd = settled(&*vm)?;
    enter(&*vm, &[10], 1)?;
    remove(&*vm, &[11])?;
    same!(vm.dump().len(), 1, "entries in the dump");
    same!(shapes(&mut fd, BIG)?, [(10, 1, 1)], "changes after the dump");
    Ok(())
}
