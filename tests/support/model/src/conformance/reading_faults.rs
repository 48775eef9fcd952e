// SPDX-License-Identifier: GPL-2.0-or-later
//! Reading, where it fails (`kvm_htab_read`): MODIFIED is cleared before anything is stored, and an error leaves the
//! position and the pass as they were.

use super::{BIG, Case, Fd, ORDER, Outcome, as_read, enter, open, remove, same, settled, shapes};
use crate::record::{Record, hpte, parse};
use crate::vm::VmFactory;

pub(super) const CASES: &[Case] = &[
    ("a_bad_buffer_is_efault_and_loses_the_change", a_bad_buffer_loses_the_change),
    ("a_read_that_fails_half_way_loses_what_it_looked_at", half_way_loses_what_it_looked_at),
    ("a_read_that_fails_at_a_header_loses_its_whole_run", at_a_header_loses_its_whole_run),
    ("a_read_that_failed_begins_again_where_it_began", begins_again_where_it_began),
    ("a_first_pass_that_failed_reports_the_same_again", first_pass_reports_the_same_again),
    ("a_lookup_that_fails_half_way_takes_marks_all_the_same", a_lookup_takes_marks_all_the_same),
    ("bad_memory_that_is_not_reached_does_no_harm", bad_memory_that_is_not_reached),
];

/// A read of [`BIG`] bytes fails, `good` of which can be stored. Returns those.
fn fail(fd: &mut Fd, good: usize) -> Result<Vec<u8>, String> {
    let mut buf = vec![0xa5; good];
    same!(fd.read_faulting(&mut buf, BIG), Err(libc::EFAULT), "read with {good} good bytes");
    Ok(buf)
}

fn a_bad_buffer_loses_the_change(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = settled(&*vm)?;
    enter(&*vm, &[7], 1)?;
    fail(&mut fd, 0)?;
    same!(shapes(&mut fd, BIG)?, [], "the read after: the change in slot 7 is lost");
    Ok(())
}

fn half_way_loses_what_it_looked_at(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = settled(&*vm)?;
    enter(&*vm, &[10, 20, 30, 40], 1)?;
    let stored = fail(&mut fd, 48)?;
    let entry = [as_read(hpte(1))];
    same!(
        parse(&stored)?,
        [Record::new(10, &entry, 0), Record::new(20, &entry, 0)],
        "what was stored: two records, lost to who goes by the errno"
    );
    same!(
        shapes(&mut fd, BIG)?,
        [(40, 1, 0)],
        "the read after: slot 30's mark went before its entry was stored"
    );
    same!(shapes(&mut fd, BIG)?, [], "and the next");
    Ok(())
}

fn at_a_header_loses_its_whole_run(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[10, 20, 21, 22, 23, 40], 1)?;
    let mut fd = settled(&*vm)?;
    remove(&*vm, &[10, 20, 21, 22, 23, 40])?;
    let stored = fail(&mut fd, 8)?;
    same!(parse(&stored)?, [Record::new(10, &[], 1)], "what was stored");
    same!(shapes(&mut fd, BIG)?, [(40, 0, 1)], "the read after");
    Ok(())
}

fn begins_again_where_it_began(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = settled(&*vm)?;
    enter(&*vm, &[10, 5000, 9000], 1)?;
    same!(shapes(&mut fd, 25)?, [(10, 1, 0)], "first read");
    fail(&mut fd, 0)?;
    // Behind the position, and between it and where the read failed.
    enter(&*vm, &[5, 15], 2)?;
    same!(shapes(&mut fd, BIG)?, [(15, 1, 0), (9000, 1, 0)], "the read after, from slot 11");
    same!(shapes(&mut fd, BIG)?, [(5, 1, 0)], "and the next, from 0");
    Ok(())
}

fn first_pass_reports_the_same_again(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[10, 9000], 1)?;
    let mut fd = open(&*vm, 0, 0)?;
    let stored = fail(&mut fd, 32)?;
    same!(
        parse(&stored)?,
        [Record::new(0, &[], 10), Record::new(10, &[as_read(hpte(1))], 8989)],
        "what was stored"
    );
    let expected = [(0, 0, 10), (10, 1, 8989), (9000, 1, 7383)];
    same!(shapes(&mut fd, BIG)?, expected, "the read after: a first pass needs no marks");
    same!(shapes(&mut fd, BIG)?, [], "and the next");
    Ok(())
}

/// A fresh fd as a debugger's lookup opens one: its failure costs the migration's fd what it looked at.
fn a_lookup_takes_marks_all_the_same(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut migration = settled(&*vm)?;
    enter(&*vm, &[10, 20, 30], 1)?;
    fail(&mut open(&*vm, 0, 10)?, 24)?;
    same!(shapes(&mut migration, BIG)?, [(30, 1, 0)], "the migration's read");
    Ok(())
}

fn bad_memory_that_is_not_reached(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = settled(&*vm)?;
    enter(&*vm, &[10], 1)?;
    let mut buf = [0; 24];
    same!(fd.read_faulting(&mut buf, BIG), Ok(24), "read with 24 good bytes");
    same!(parse(&buf)?, [Record::new(10, &[as_read(hpte(1))], 0)], "what was stored");
    Ok(())
}
