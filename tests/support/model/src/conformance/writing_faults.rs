// SPDX-License-Identifier: GPL-2.0-or-later
//! Writing, where it fails or does what nobody would think (`kvm_htab_write`).

use super::{
    BIG, Case, ORDER, Outcome, enter, entry_at, occupied, open, put, replayed, same, settled, shapes,
};
use crate::record::{self, Record, V_LARGE, V_VALID, header, hpte};
use crate::vm::{VmFactory, WRITE};

pub(super) const CASES: &[Case] = &[
    ("several_valid_records_in_one_write_fail", several_valid_records_in_one_write_fail),
    ("valid_then_header_only_stops_short_without_error", valid_then_header_only_stops_short),
    ("entry_bytes_can_pass_as_a_header", entry_bytes_can_pass_as_a_header),
    ("short_record_by_up_to_8_bytes_overcounts", short_record_by_up_to_8_bytes_overcounts),
    ("a_short_record_takes_bytes_from_behind_the_buffer", short_record_takes_bytes_from_behind),
    ("a_record_short_by_9_returns_what_came_before", a_record_short_by_9),
    ("a_piece_of_a_header_is_ignored", a_piece_of_a_header_is_ignored),
    ("slots_out_of_range_are_einval", slots_out_of_range_are_einval),
    ("an_entry_without_valid_is_einval", an_entry_without_valid_is_einval),
    ("an_unknown_page_size_is_einval", an_unknown_page_size_is_einval),
    ("a_reserved_segment_size_is_eio", a_reserved_segment_size_is_eio),
    ("a_page_larger_than_the_hosts_is_eio", a_page_larger_than_the_hosts_is_eio),
    ("a_refused_entry_leaves_its_slot_empty", a_refused_entry_leaves_its_slot_empty),
    ("an_invalid_entry_leaves_its_slot_alone", an_invalid_entry_leaves_its_slot_alone),
    ("an_error_neither_undoes_nor_reports_what_was_applied", an_error_neither_undoes_nor_reports),
    ("an_error_skips_the_records_invalid_slots", an_error_skips_the_records_invalid_slots),
    ("what_an_error_left_applied_is_a_change", what_an_error_left_applied_is_a_change),
    ("the_fd_works_on_after_an_error", the_fd_works_on_after_an_error),
];

/// An entry whose bytes, taken for a header, name a slot that no table has, in either byte order.
const ENTRY_AS_BAD_HEADER: (u64, u64) = (0x0000_ff00_0000_0001, 0x1192);
/// An entry whose bytes, taken for a header, are {0, 0, 257}, in either byte order.
const ENTRY_AS_GOOD_HEADER: (u64, u64) = (0x0101, 0x1192);
/// An entry whose bytes, taken for a header, promise more entries than a small write has.
const ENTRY_AS_LONG_HEADER: (u64, u64) = (0x0808_0001, 0x1192);

fn several_valid_records_in_one_write_fail(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let records: Vec<_> = (0..100).map(|k| Record::new(k * 9, &[ENTRY_AS_BAD_HEADER], 0)).collect();
    same!(open(&*vm, WRITE, 0)?.write(&record::to_bytes(&records)), Err(libc::EINVAL), "write");
    same!(occupied(&*vm), [0], "slots in use: the first record was applied");
    Ok(())
}

fn valid_then_header_only_stops_short(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[100], 1)?;
    let records = [Record::new(7, &[ENTRY_AS_LONG_HEADER], 0), Record::new(100, &[], 1)];
    same!(open(&*vm, WRITE, 0)?.write(&record::to_bytes(&records)), Ok(24), "write of 32 bytes");
    same!(occupied(&*vm), [7, 100], "slots in use: 100 was to be emptied");
    Ok(())
}

fn entry_bytes_can_pass_as_a_header(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[0, 5, 256, 257, 400], 1)?;
    let records = [Record::new(300, &[ENTRY_AS_GOOD_HEADER], 0), Record::new(400, &[], 1)];
    same!(open(&*vm, WRITE, 0)?.write(&record::to_bytes(&records)), Ok(32), "write: all is well, it says");
    same!(occupied(&*vm), [257, 300, 400], "slots in use: 0 to 256 emptied, 400 not");
    Ok(())
}

fn short_record_by_up_to_8_bytes_overcounts(vms: &dyn VmFactory) -> Outcome {
    for missing in 1..=8 {
        let vm = vms.hash(ORDER)?;
        let record = Record::new(7, &[hpte(1), hpte(2), hpte(3), hpte(4)], 0);
        // The rest lies behind the buffer, so that what the kernel takes from there is known.
        let mut bytes = record.to_bytes();
        let given = bytes.len() - missing;
        bytes[given..].fill(0);
        same!(open(&*vm, WRITE, 0)?.write(&bytes[..given]), Ok(72), "write of {given} bytes");
        same!(occupied(&*vm), [7, 8, 9, 10], "slots in use, {missing} bytes missing");
    }
    Ok(())
}

/// With the missing bytes zero on both sides: what the model supplies, and what is put there for the kernel.
fn short_record_takes_bytes_from_behind(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut bytes = Record::new(7, &[hpte(1), (0x1281, 0x1234_5192)], 0).to_bytes();
    bytes[38..].fill(0);
    same!(open(&*vm, WRITE, 0)?.write(&bytes[..38]), Ok(40), "write");
    let expected = Record::new(7, &[hpte(1), (0x1281, 0x1234_0000)], 0);
    same!(vm.dump(), replayed(&[expected]), "table: the last two bytes came from behind");
    Ok(())
}

fn a_record_short_by_9(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[100], 1)?;
    let bytes = record::to_bytes(&[Record::new(100, &[], 1), Record::new(7, &[hpte(1), hpte(2)], 0)]);
    let mut fd = open(&*vm, WRITE, 0)?;
    same!(fd.write(&bytes[8..39]), Ok(0), "the first record cut short by 9");
    same!(occupied(&*vm), [100], "slots in use");
    same!(fd.write(&bytes[..39]), Ok(8), "the second one cut short by 9");
    same!(occupied(&*vm), [], "slots in use");
    Ok(())
}

fn a_piece_of_a_header_is_ignored(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[100, 101], 1)?;
    let bytes = record::to_bytes(&[Record::new(100, &[], 1), Record::new(101, &[], 1)]);
    let mut fd = open(&*vm, WRITE, 0)?;
    same!(fd.write(&bytes[..7]), Ok(0), "7 bytes");
    same!(fd.write(&bytes[..15]), Ok(8), "15 bytes");
    same!(occupied(&*vm), [101], "slots in use");
    Ok(())
}

fn slots_out_of_range_are_einval(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[16383], 1)?;
    let entries = [hpte(2), hpte(3)];
    let records = [
        Record::new(16384, &[], 0),
        Record::new(16384, &[], 1),
        Record::new(16383, &[], 2),
        Record::new(16383, &entries, 0),
        Record::new(16382, &entries, 1),
        Record::new(u32::MAX, &entries[..1], 0),
        Record::new(u32::MAX, &[], 1),
        Record::new(0x8000_0000, &[], 1),
    ];
    let mut fd = open(&*vm, WRITE, 0)?;
    for record in &records {
        same!(fd.write(&record.to_bytes()), Err(libc::EINVAL), "write of {:?}", record.shape());
    }
    same!(vm.dump(), replayed(&[entry_at(16383, 1)]), "table: untouched");
    Ok(())
}

fn an_entry_without_valid_is_einval(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let (v, r) = hpte(1);
    for v in [v & !V_VALID, 0, !V_VALID] {
        let record = Record::new(7, &[(v, r)], 0).to_bytes();
        same!(open(&*vm, WRITE, 0)?.write(&record), Err(libc::EINVAL), "write of v {v:#x}");
    }
    same!(occupied(&*vm), [], "slots in use");
    Ok(())
}

fn an_unknown_page_size_is_einval(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    for lp in [0x2, 0x4, 0x5, 0x6, 0x9, 0xf, 0x10, 0x13, 0x18, 0x28] {
        let record = Record::new(7, &[(0x1280 | V_LARGE | V_VALID, lp << 12 | 0x192)], 0).to_bytes();
        same!(open(&*vm, WRITE, 0)?.write(&record), Err(libc::EINVAL), "write with LP {lp:#x}");
    }
    same!(occupied(&*vm), [], "slots in use");
    Ok(())
}

fn a_reserved_segment_size_is_eio(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    for b in [2, 3] {
        let record = Record::new(7, &[(hpte(1).0 | b << 62, 0x1192)], 0).to_bytes();
        same!(open(&*vm, WRITE, 0)?.write(&record), Err(libc::EIO), "write with B {b}");
    }
    same!(occupied(&*vm), [], "slots in use");
    Ok(())
}

/// A 16 MiB page in memory whose host pages are smaller.
const TOO_LARGE: (u64, u64) = (0x1280 | V_LARGE | V_VALID, 0x192);

fn a_page_larger_than_the_hosts_is_eio(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    vm.set_ram(16 << 20).map_err(super::errno("set_ram"))?;
    let mut fd = open(&*vm, WRITE, 0)?;
    same!(fd.write(&Record::new(7, &[TOO_LARGE], 0).to_bytes()), Err(libc::EIO), "write");
    let beyond = Record::new(7, &[(TOO_LARGE.0, 0x200_0192)], 0);
    same!(fd.write(&beyond.to_bytes()), Ok(24), "write of one beyond the memory");
    Ok(())
}

fn a_refused_entry_leaves_its_slot_empty(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    vm.set_ram(16 << 20).map_err(super::errno("set_ram"))?;
    enter(&*vm, &[7, 8], 0x9_0000)?;
    let record = Record::new(7, &[TOO_LARGE], 0).to_bytes();
    same!(open(&*vm, WRITE, 0)?.write(&record), Err(libc::EIO), "write");
    same!(occupied(&*vm), [8], "slots in use");
    Ok(())
}

fn an_invalid_entry_leaves_its_slot_alone(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[7], 1)?;
    let record = Record::new(7, &[(0x1280, 0x1192)], 0).to_bytes();
    same!(open(&*vm, WRITE, 0)?.write(&record), Err(libc::EINVAL), "write");
    same!(vm.dump(), replayed(&[entry_at(7, 1)]), "table");
    Ok(())
}

fn an_error_neither_undoes_nor_reports(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[100], 1)?;
    let mut bytes = header(100, 0, 1).to_vec();
    bytes.extend(Record::new(7, &[hpte(1), hpte(2), (0, 0), hpte(4)], 0).to_bytes());
    same!(open(&*vm, WRITE, 0)?.write(&bytes), Err(libc::EINVAL), "write");
    same!(occupied(&*vm), [7, 8], "slots in use: 100 emptied, two entries in");
    Ok(())
}

fn an_error_skips_the_records_invalid_slots(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[8], 1)?;
    let record = Record::new(7, &[(0, 0)], 1).to_bytes();
    same!(open(&*vm, WRITE, 0)?.write(&record), Err(libc::EINVAL), "write");
    same!(occupied(&*vm), [8], "slots in use");
    Ok(())
}

fn what_an_error_left_applied_is_a_change(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut read_fd = settled(&*vm)?;
    let record = Record::new(7, &[hpte(1), (0, 0)], 0).to_bytes();
    same!(open(&*vm, WRITE, 0)?.write(&record), Err(libc::EINVAL), "write");
    same!(shapes(&mut read_fd, BIG)?, [(7, 1, 0)], "changes");
    Ok(())
}

fn the_fd_works_on_after_an_error(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = open(&*vm, WRITE, 0)?;
    same!(fd.write(&Record::new(7, &[(0, 0)], 0).to_bytes()), Err(libc::EINVAL), "write");
    same!(fd.write(&entry_at(7, 1).to_bytes()), Ok(24), "the write after");
    put(&*vm, &[entry_at(8, 1)])?;
    same!(occupied(&*vm), [7, 8], "slots in use");
    Ok(())
}
