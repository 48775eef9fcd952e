// SPDX-License-Identifier: GPL-2.0-or-later
//! What a real VM does only with luck or on other hardware (bits stored late, a stale revmap), the methods of the model
//! that stand for a guest, and what only a model has: a clock, statistics, faults, a hook.

use htab_model::model::{Config, Costs, Fault, Model, Op};
use htab_model::record::{R_C, R_MODIFIED, R_R, Record, V_HVLOCK, hpte, parse};
use htab_model::vm::{BOLTED_ONLY, HtabFd, Vm, WRITE};
use std::sync::atomic::Ordering;

const SLOTS: u64 = 16384;

fn read(fd: &mut Box<dyn HtabFd>, count: usize) -> Vec<Record> {
    let mut buf = vec![0; count];
    let len = fd.read(&mut buf).expect("read");
    parse(&buf[..len]).expect("whole records")
}

fn shapes(fd: &mut Box<dyn HtabFd>, count: usize) -> Vec<(u32, usize, u16)> {
    read(fd, count).iter().map(Record::shape).collect()
}

/// A model whose guest has 16 MiB, an entry without R and C in slot 10 that maps some of it, and a read fd
/// that is done with its first pass.
fn settled() -> (Model, Box<dyn HtabFd>) {
    let model = Model::new(18);
    model.set_ram(16 << 20).expect("ram");
    model.enter(10, 0x1281, 0x3012);
    let mut fd = model.open(0, 0).expect("open");
    read(&mut fd, 4096);
    assert_eq!(shapes(&mut fd, 4096), []);
    (model, fd)
}

#[test]
fn hardware_r_and_c_are_a_change_and_are_harvested() {
    let (model, mut fd) = settled();
    for (rc, all) in [(R_R, R_R), (R_C, R_R | R_C)] {
        assert!(model.touch(10, rc));
        assert!(model.is_dirty(10));
        assert!(!model.is_modified(10), "nobody has harvested it yet");
        assert_eq!(model.dump(), [(10, 0x1281, 0x3012 | all)]);
        assert_eq!(read(&mut fd, 4096), [Record::new(10, &[(0x1281 | V_HVLOCK, 0x3012 | all)], 0)]);
        assert!(!model.is_dirty(10));
    }
    model.touch(10, R_R | R_C);
    assert_eq!(shapes(&mut fd, 4096), [], "R and C that the guest's view has already are no change");
}

/// Unlike MODIFIED, which only a read fd sets.
#[test]
fn hardware_r_and_c_wait_for_the_fd_to_be_opened() {
    let (model, fd) = settled();
    drop(fd);
    model.touch(10, R_C);
    let mut fd = model.open(0, SLOTS).expect("open");
    assert_eq!(shapes(&mut fd, 4096), []);
    assert_eq!(shapes(&mut fd, 4096), [(10, 1, 0)]);
}

#[test]
fn r_and_c_written_need_no_harvest() {
    let (model, mut fd) = settled();
    model.enter(11, 0x1301, 0x4012 | R_R | R_C);
    assert_eq!(shapes(&mut fd, 4096), [(11, 1, 0)]);
    model.touch(11, R_R | R_C);
    assert_eq!(shapes(&mut fd, 4096), []);
}

#[test]
fn removing_takes_r_and_c_along() {
    let (model, mut fd) = settled();
    model.touch(10, R_C);
    assert!(model.remove(10));
    assert!(!model.remove(10));
    assert_eq!(shapes(&mut fd, 4096), [(10, 0, 1)]);
    assert_eq!(model.dump(), []);
}

/// The access first makes the entry valid to the hardware; that alone marks nothing.
#[test]
fn touching_an_absent_entry_makes_it_valid() {
    let model = Model::new(18);
    let (v, r) = (hpte(1).0, 0x1012);
    model.enter(10, v, r);
    let mut fd = model.open(0, 0).expect("open");
    read(&mut fd, 4096);
    assert!(model.touch(10, 0));
    assert_eq!(shapes(&mut fd, 4096), []);
    assert!(model.touch(10, R_C));
    assert_eq!(read(&mut fd, 4096), [Record::new(10, &[(v | V_HVLOCK, r | R_C)], 0)]);
    assert!(!model.touch(11, R_C), "an empty slot");
}

#[test]
fn a_bolted_only_fd_takes_the_r_and_c_it_hides() {
    let (model, mut fd) = settled();
    model.touch(10, R_C);
    let mut bolted = model.open(BOLTED_ONLY, 0).expect("open");
    assert_eq!(shapes(&mut bolted, 4096), [(0, 0, 16384)]);
    assert_eq!(shapes(&mut fd, 4096), []);
    assert_eq!(model.dump(), [(10, 0x1281, 0x3012 | R_C)]);
}

/// What a save can lose that reads once after the guest has stopped and before the dirty log is read.
#[test]
fn delayed_c_is_a_change_after_the_stop_when_the_dirty_log_is_read() {
    let (model, mut fd) = settled();
    assert!(model.touch_delayed(10, R_R | R_C));
    assert!(!model.touch_delayed(11, R_C), "an empty slot");
    assert!(!model.is_dirty(10));
    assert_eq!(shapes(&mut fd, 4096), [], "the sweep after the stop");
    assert_eq!(shapes(&mut fd, 4096), [], "and another");
    let before = model.dump();
    assert_eq!(model.read_dirty_log(), Ok(1));
    assert!(model.is_modified(10));
    assert_ne!(model.dump(), before);
    assert_eq!(read(&mut fd, 4096), [Record::new(10, &[(0x1281 | V_HVLOCK, 0x3012 | R_R | R_C)], 0)]);
    assert_eq!(model.read_dirty_log(), Ok(0));
}

#[test]
fn delayed_bits_wait_while_vcpus_run() {
    let (model, mut fd) = settled();
    model.set_vcpus_running(true);
    model.touch_delayed(10, R_C);
    assert_eq!(model.read_dirty_log(), Ok(0), "a later call is to pick it up");
    assert_eq!(shapes(&mut fd, 4096), []);
    model.set_vcpus_running(false);
    assert_eq!(model.read_dirty_log(), Ok(1));
    assert_eq!(shapes(&mut fd, 4096), [(10, 1, 0)]);
}

#[test]
fn delayed_bits_come_with_an_invalidation_and_go_with_the_table() {
    let (model, mut fd) = settled();
    model.touch_delayed(10, R_C);
    model.protect(10, 3);
    assert_eq!(read(&mut fd, 4096)[0].valid, [(0x1281 | V_HVLOCK, 0x3013 | R_C)]);
    model.enter(10, 0x1281, 0x3012);
    model.touch_delayed(10, R_C);
    model.enter(10, 0x1281, 0x3012);
    model.touch_delayed(10, R_R);
    assert_eq!(model.allocate(18), Ok(18));
    model.enter(10, 0x1281, 0x3012);
    assert_eq!(model.read_dirty_log(), Ok(0));
    assert_eq!(model.dump(), [(10, 0x1281, 0x3012)]);
    assert_eq!(Model::new(18).read_dirty_log(), Err(libc::ENOENT));
}

#[test]
fn protecting_is_a_change() {
    let (model, mut fd) = settled();
    assert!(model.protect(10, 3));
    assert!(!model.protect(11, 3));
    assert_eq!(read(&mut fd, 4096)[0].valid, [(0x1281 | V_HVLOCK, 0x3013)]);
}

#[test]
fn running_vcpus_make_writes_and_allocations_busy() {
    let (model, mut fd) = settled();
    let mut write = model.open(WRITE, 0).expect("open");
    let record = Record::new(20, &[hpte(1)], 0).to_bytes();
    model.set_vcpus_running(true);
    assert_eq!(write.write(&record), Err(libc::EBUSY));
    assert_eq!(write.writev(&[&record, &record]), Err(libc::EBUSY));
    assert_eq!(write.write(&[]), Err(libc::EBUSY));
    assert_eq!(model.allocate(18), Err(libc::EBUSY));
    assert_eq!(model.allocate(17), Err(libc::EBUSY));
    model.touch(10, R_C);
    assert_eq!(shapes(&mut fd, 4096), [(10, 1, 0)], "reads work");
    model.set_vcpus_running(false);
    assert_eq!(write.write(&record), Ok(24));
    assert_eq!(model.allocate(18), Ok(18));
}

#[test]
fn the_first_vrma_entry_makes_the_mmu_ready() {
    let model = Model::new(18);
    let mut fd = model.open(WRITE, 0).expect("open");
    assert_eq!(fd.write(&Record::new(0, &[hpte(1)], 0).to_bytes()), Ok(24));
    assert!(!model.mmu_ready());
    let vrma = (1 << 62 | 0x1ff_ffff << 24 | 0x11, 0x192);
    assert_eq!(fd.write(&Record::new(7, &[vrma], 0).to_bytes()), Ok(24));
    assert!(model.mmu_ready());
    assert_eq!(model.allocate(18), Ok(18));
    assert!(!model.mmu_ready(), "a reset table has no VRMA");
}

#[test]
fn switching_to_radix_ends_all_reads_and_writes() {
    let (model, mut fd) = settled();
    let mut write = model.open(WRITE, 0).expect("open");
    model.touch(10, R_C);
    model.switch_to_radix();
    assert_eq!(shapes(&mut fd, 4096), []);
    assert_eq!(write.write(&Record::new(0, &[], 1).to_bytes()), Err(libc::EINVAL));
    assert_eq!((model.order(), model.slots(), model.dump()), (None, 0, vec![]));
}

#[test]
fn never_used_slots_of_a_stale_revmap_show_up_as_changed() {
    let model = Model::with(Config { stale_revmap: R_MODIFIED, ..Config::hash(18) });
    assert_eq!(model.dirty_slots(), SLOTS);
    let mut fd = model.open(0, SLOTS).expect("open");
    assert_eq!(shapes(&mut fd, 4096), []);
    assert_eq!(shapes(&mut fd, 4096), [(0, 0, 16384)]);
    assert_eq!(shapes(&mut fd, 4096), []);
}

#[test]
fn power8_keeps_the_high_address_bits_that_isa_3_0_drops() {
    for (isa300, kept) in [(true, 0x4000_0000_0000_1281), (false, 0x7ff0_0000_0000_1281)] {
        let model = Model::with(Config { isa300, ..Config::hash(18) });
        model.enter(3, 0x7ff0_0000_0000_1281, 0x1012);
        assert_eq!(model.dump(), [(3, kept, 0x1012)]);
    }
}

#[test]
fn a_later_pass_takes_as_long_as_the_table_is_and_a_small_buffer_does_not_help() {
    let (model, mut fd) = settled();
    model.set_costs(Costs { call_ns: 1000, slot_ns: 10, entry_ns: 100 });
    model.touch(10, R_C);
    assert_eq!(shapes(&mut fd, 25), [(10, 1, 0)]);
    assert_eq!(model.clock_ns(), 1000 + 10 * 10 + 100);
    model.clear_stats();
    assert_eq!(shapes(&mut fd, 25), []);
    assert_eq!(model.clock_ns(), 2 * 1000 + 10 * 10 + 100 + (SLOTS - 11) * 10);
    assert_eq!(model.stats().max_slots_in_a_read, SLOTS - 11);
    let mut write = model.open(WRITE, 0).expect("open");
    let before = model.clock().swap(0, Ordering::Relaxed);
    assert!(before > 0);
    let bytes = Record::new(0, &[hpte(1), hpte(2)], 3).to_bytes();
    assert_eq!(write.writev(&[&bytes, &bytes]), Ok(80));
    assert_eq!(model.clock_ns(), 1000 + 2 * (2 * 100 + 3 * 10));
}

#[test]
fn statistics_count_calls_and_bytes() {
    let (model, mut fd) = settled();
    model.clear_stats();
    let mut write = model.open(WRITE, 0).expect("open");
    let bytes = Record::new(0, &[hpte(1)], 0).to_bytes();
    write.write(&bytes).expect("write");
    write.writev(&[&bytes, &bytes]).expect("writev");
    read(&mut fd, 4096);
    read(&mut fd, 4096);
    let stats = model.stats();
    assert_eq!((stats.opens, stats.reads, stats.writes, stats.write_calls), (1, 2, 3, 2));
    assert_eq!((stats.bytes_read, stats.bytes_written, stats.overlaps), (24, 72, 0));
}

#[test]
fn faults_strike_the_call_they_were_set_for() {
    let (model, mut fd) = settled();
    let mut write = model.open(WRITE, 0).expect("open");
    let record = |slot| Record::new(slot, &[hpte(1)], 0).to_bytes();
    model.fail(Op::Open, 0, Fault::Errno(libc::EMFILE));
    model.fail(Op::Allocate, 0, Fault::Errno(libc::ENOMEM));
    model.fail(Op::Read, 1, Fault::Errno(libc::EFAULT));
    model.fail(Op::Write, 1, Fault::Errno(libc::EIO));
    model.fail(Op::Write, 2, Fault::Short(8));
    assert_eq!(model.open(0, 0).err(), Some(libc::EMFILE));
    assert!(model.open(0, 0).is_ok());
    assert_eq!(model.allocate(18), Err(libc::ENOMEM));
    assert_eq!(write.writev(&[&record(1), &record(2)]), Ok(24));
    assert_eq!(write.write(&record(3)), Ok(0), "a header without its entry is left alone");
    assert_eq!(write.write(&record(4)), Ok(24));
    assert_eq!(shapes(&mut fd, 25), [(1, 1, 0)]);
    assert_eq!(fd.read(&mut [0; 64]), Err(libc::EFAULT));
    model.fail(Op::Read, 0, Fault::Short(24));
    assert_eq!(shapes(&mut fd, 4096), []);
    assert_eq!(shapes(&mut fd, 4096), [(4, 1, 0)], "no fault moved the position");
}

#[test]
fn a_late_fault_has_done_the_work() {
    let (model, mut fd) = settled();
    model.enter(5, hpte(1).0, hpte(1).1);
    model.enter(9, hpte(1).0, hpte(1).1);
    assert_eq!(shapes(&mut fd, 25), [(5, 1, 0)]);
    model.fail(Op::Read, 0, Fault::Late(libc::EFAULT));
    assert_eq!(fd.read(&mut [0; 64]), Err(libc::EFAULT));
    assert_eq!(model.dirty_slots(), 0, "slot 9's mark is gone");
    model.enter(7, hpte(1).0, hpte(1).1);
    assert_eq!(shapes(&mut fd, 64), [(7, 1, 0)], "from where the one that failed began");

    let mut first_pass = model.open(0, 0).expect("open");
    model.fail(Op::Read, 0, Fault::Late(libc::EFAULT));
    assert_eq!(first_pass.read(&mut [0; 4096]), Err(libc::EFAULT));
    let expected = [(0, 0, 5), (5, 1, 1), (7, 1, 1), (9, 2, 16373)];
    assert_eq!(shapes(&mut first_pass, 4096), expected, "still a first pass");

    let mut write = model.open(WRITE, 0).expect("open");
    model.fail(Op::Write, 0, Fault::Late(libc::EIO));
    assert_eq!(write.write(&Record::new(20, &[hpte(2)], 0).to_bytes()), Err(libc::EIO));
    assert!(model.is_modified(20));
}

/// The loss that QEMU's completion had: a change behind the position, and then a read that finds nothing.
#[test]
fn the_hook_changes_slots_right_before_a_read() {
    let (model, mut fd) = settled();
    model.clear_stats();
    model.enter(5000, hpte(1).0, hpte(1).1);
    model.before_read(Box::new(|model, nth| {
        if nth == 1 {
            model.enter(5, hpte(2).0, hpte(2).1);
        }
    }));
    assert_eq!(shapes(&mut fd, 25), [(5000, 1, 0)]);
    assert_eq!(shapes(&mut fd, 25), []);
    assert_eq!(shapes(&mut fd, 25), [(5, 1, 0)]);
}

#[test]
fn a_hook_may_replace_itself_and_the_table() {
    let (model, mut fd) = settled();
    model.before_read(Box::new(|model, _| {
        assert_eq!(model.allocate(19), Ok(19));
        model.before_read(Box::new(|_, _| ()));
    }));
    assert_eq!(shapes(&mut fd, 4096), []);
    assert_eq!(model.slots(), 2 * SLOTS);
    model.enter(3, hpte(1).0, hpte(1).1);
    assert_eq!(shapes(&mut fd, 4096), [(3, 1, 0)]);
    assert_eq!(model.stats().overlaps, 0, "before a read is not during it");
}

#[test]
fn dropping_an_fd_closes_it() {
    let (model, fd) = settled();
    let other = model.open(0, 0).expect("open");
    let write = model.open(WRITE, 0).expect("open");
    assert_eq!((model.read_fds(), model.references()), (2, 4));
    drop((other, write));
    assert_eq!((model.read_fds(), model.references()), (1, 2));
    drop(fd);
    assert_eq!((model.read_fds(), model.references()), (0, 1));
}

#[test]
fn what_lies_behind_a_short_write_is_configurable() {
    let model = Model::with(Config { past_end: 0xff, ..Config::hash(18) });
    let mut bytes = Record::new(0, &[(0x1281, 0x1000)], 0).to_bytes();
    bytes.truncate(22);
    assert_eq!(model.open(WRITE, 0).expect("open").write(&bytes), Ok(24));
    assert_eq!(model.dump(), [(0, 0x1281, 0xffff)]);
}
