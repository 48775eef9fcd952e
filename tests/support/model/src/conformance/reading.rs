// SPDX-License-Identifier: GPL-2.0-or-later
//! Reading (`kvm_htab_read`, `record_hpte`).

use super::{
    BIG, Case, ORDER, Outcome, SLOTS, as_read, drain, enter, open, put, read, remove, same, settled, shapes,
};
use crate::record::{R_MODIFIED, Record, Replay, V_ABSENT, V_HVLOCK, bolted_hpte, hpte};
use crate::vm::{BOLTED_ONLY, VmFactory};

pub(super) const CASES: &[Case] = &[
    ("empty_table_reads_as_header_only_records", empty_table_reads_as_header_only_records),
    ("first_pass_reports_every_slot_once_in_order", first_pass_reports_every_slot_once_in_order),
    ("first_pass_with_any_buffer_gives_the_table", first_pass_with_any_buffer_gives_the_table),
    ("n_valid_stops_at_65535", n_valid_stops_at_65535),
    ("header_is_host_endian_entries_are_big_endian", header_is_host_endian_entries_are_big_endian),
    ("entries_read_carry_the_lock_bit", entries_read_carry_the_lock_bit),
    ("absent_and_lock_bits_written_are_dropped", absent_and_lock_bits_written_are_dropped),
    ("modified_bit_never_shows_in_an_entry", modified_bit_never_shows_in_an_entry),
    ("an_entry_read_is_a_fixed_point", an_entry_read_is_a_fixed_point),
    ("later_passes_report_only_changes", later_passes_report_only_changes),
    ("a_change_is_reported_once", a_change_is_reported_once),
    ("rewriting_the_same_entry_is_a_change", rewriting_the_same_entry_is_a_change),
    ("removing_an_empty_slot_is_no_change", removing_an_empty_slot_is_no_change),
    ("entered_and_removed_between_reads_comes_as_invalid", entered_and_removed_comes_as_invalid),
    ("a_later_pass_joins_valid_then_invalid", a_later_pass_joins_valid_then_invalid),
    ("a_later_pass_splits_invalid_then_valid", a_later_pass_splits_invalid_then_valid),
    ("a_later_pass_splits_at_a_clean_slot", a_later_pass_splits_at_a_clean_slot),
    ("read_count_of_24_returns_0_with_changes_pending", read_count_of_24_returns_0),
    ("a_buffer_that_fits_exactly_is_not_filled", a_buffer_that_fits_exactly_is_not_filled),
    ("k_entries_need_more_than_8_plus_16k", k_entries_need_more_than_8_plus_16k),
    ("reads_go_on_where_the_last_one_ended", reads_go_on_where_the_last_one_ended),
    ("zero_read_only_covers_to_the_end", zero_read_only_covers_to_the_end),
    ("a_read_never_wraps_within_one_call", a_read_never_wraps_within_one_call),
    ("room_for_one_more_record_means_wrapped", room_for_one_more_record_means_wrapped),
    ("reporting_the_last_slot_wraps_even_with_a_full_buffer", reporting_the_last_slot_wraps),
    ("a_change_behind_the_first_pass_comes_later", a_change_behind_the_first_pass_comes_later),
    ("a_change_ahead_of_the_first_pass_comes_once", a_change_ahead_of_the_first_pass_comes_once),
    ("one_header_covers_65535_empty_slots_in_a_small_buffer", one_header_covers_65535_empty_slots),
    ("bolted_only_reports_others_as_invalid", bolted_only_reports_others_as_invalid),
    ("bolted_only_later_pass_reports_others_as_invalid", bolted_only_later_pass),
];

fn empty_table_reads_as_header_only_records(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(24)?;
    let mut fd = open(&*vm, 0, 0)?;
    let mut expected: Vec<_> = (0..16).map(|k| (k * 65535, 0, 65535)).collect();
    expected.push((16 * 65535, 0, 16));
    same!(shapes(&mut fd, 65536)?, expected, "first read of 1M empty slots, 136 bytes");
    same!(shapes(&mut fd, 65536)?, [], "second read");
    Ok(())
}

fn first_pass_reports_every_slot_once_in_order(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[0, 1, 2, 7, 8, 4095, 4096, 16382, 16383], 1)?;
    let mut fd = open(&*vm, 0, 0)?;
    let expected = [(0, 3, 4), (7, 2, 4086), (4095, 2, 12285), (16382, 2, 0)];
    same!(shapes(&mut fd, BIG)?, expected, "first pass");
    Ok(())
}

fn first_pass_with_any_buffer_gives_the_table(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    for slot in 0..40 {
        enter(&*vm, &[slot * slot * 10, slot * slot * 10 + 1], u64::from(slot))?;
    }
    for count in [25, 40, 41, 48, 49, 64, 100, 2048] {
        let mut fd = open(&*vm, 0, 0)?;
        let mut replay = Replay::default();
        let mut next = 0;
        while next < SLOTS {
            let records = read(&mut fd, count)?;
            same!(records.is_empty(), false, "read of {count} bytes at slot {next} returned 0");
            for record in records {
                same!(u64::from(record.index), next, "next record's index with {count} bytes");
                next += record.valid.len() as u64 + u64::from(record.n_invalid);
                replay.apply(&record);
            }
        }
        same!(replay.dump(), vm.dump(), "table read through {count} bytes");
        same!(shapes(&mut fd, count)?, [], "read after the first pass");
    }
    Ok(())
}

fn n_valid_stops_at_65535(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(21)?;
    let entries: Vec<_> = (0..65535).map(hpte).collect();
    put(&*vm, &[Record::new(1, &entries, 0), Record::new(65536, &entries[..2], 0)])?;
    let mut fd = open(&*vm, 0, 0)?;
    let expected = [(0, 0, 1), (1, 65535, 0), (65536, 2, 65534)];
    same!(shapes(&mut fd, BIG)?, expected, "first pass");
    Ok(())
}

fn header_is_host_endian_entries_are_big_endian(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = settled(&*vm)?;
    put(&*vm, &[Record::new(0x123, &[(0x000a_0b0c_0d0e_0f81, 0x0001_0203_0405_6192)], 0)])?;
    let mut buf = [0; 64];
    same!(fd.read(&mut buf), Ok(24), "read");
    same!(buf[..4], 0x123_u32.to_ne_bytes(), "index");
    same!(buf[4..6], 1_u16.to_ne_bytes(), "n_valid");
    same!(buf[6..8], [0, 0], "n_invalid");
    same!(buf[8..16], [0x00, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0xc1], "first doubleword");
    same!(buf[16..24], [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x61, 0x92], "second doubleword");
    Ok(())
}

fn entries_read_carry_the_lock_bit(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = open(&*vm, 0, 9)?;
    enter(&*vm, &[9], 1)?;
    same!(read(&mut fd, 25)?[0].valid, [as_read(hpte(1))], "in the first pass");
    let mut fd = settled(&*vm)?;
    enter(&*vm, &[9], 2)?;
    same!(read(&mut fd, BIG)?[0].valid, [as_read(hpte(2))], "in a later pass");
    Ok(())
}

fn absent_and_lock_bits_written_are_dropped(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let (v, r) = hpte(1);
    put(&*vm, &[Record::new(9, &[(v | V_ABSENT | V_HVLOCK, r)], 0)])?;
    same!(vm.dump(), [(9, v, r)], "table");
    same!(read(&mut open(&*vm, 0, 9)?, 25)?[0].valid, [as_read((v, r))], "entry read");
    Ok(())
}

fn modified_bit_never_shows_in_an_entry(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = settled(&*vm)?;
    let (v, r) = hpte(1);
    put(&*vm, &[Record::new(9, &[(v, r | R_MODIFIED)], 0)])?;
    same!(vm.dump(), [(9, v, r)], "table");
    same!(read(&mut fd, BIG)?[0].valid, [as_read((v, r))], "entry read");
    Ok(())
}

fn an_entry_read_is_a_fixed_point(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = settled(&*vm)?;
    let odd = [
        (u64::MAX >> 1, !0xf_f000 | 0x1000),
        (0x7fff_ffff_ffff_ff85, 0x0fff_ffff_ff05_1196),
        (0x4000_0000_0000_1281, R_MODIFIED | 0x190),
        (0x0000_0000_0001_2319, 0x1038_0fff),
    ];
    put(&*vm, &[Record::new(50, &odd, 0)])?;
    let once = read(&mut fd, BIG)?;
    same!(once[0].shape(), (50, 4, 0), "what was read");
    put(&*vm, &once)?;
    same!(read(&mut fd, BIG)?, once, "what is read after it was written back");
    Ok(())
}

fn later_passes_report_only_changes(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[10, 11, 12, 13, 300, 16000], 1)?;
    let mut fd = settled(&*vm)?;
    enter(&*vm, &[12, 4000], 2)?;
    remove(&*vm, &[300])?;
    let expected = [Record::new(12, &[as_read(hpte(2))], 0), Record::new(300, &[], 1)];
    same!(read(&mut fd, BIG)?[..2], expected, "changes");
    same!(shapes(&mut fd, BIG)?, [], "the read after");
    Ok(())
}

fn a_change_is_reported_once(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = settled(&*vm)?;
    enter(&*vm, &[12], 1)?;
    enter(&*vm, &[12], 2)?;
    same!(read(&mut fd, BIG)?, [Record::new(12, &[as_read(hpte(2))], 0)], "changes: the latest value");
    for _ in 0..3 {
        same!(shapes(&mut fd, BIG)?, [], "the reads after");
    }
    Ok(())
}

fn rewriting_the_same_entry_is_a_change(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[12], 1)?;
    let mut fd = settled(&*vm)?;
    enter(&*vm, &[12], 1)?;
    same!(shapes(&mut fd, BIG)?, [(12, 1, 0)], "changes");
    Ok(())
}

fn removing_an_empty_slot_is_no_change(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = settled(&*vm)?;
    put(&*vm, &[Record::new(0, &[], 16384)])?;
    same!(shapes(&mut fd, BIG)?, [], "changes");
    Ok(())
}

fn entered_and_removed_comes_as_invalid(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = settled(&*vm)?;
    enter(&*vm, &[12], 1)?;
    remove(&*vm, &[12])?;
    same!(shapes(&mut fd, BIG)?, [(12, 0, 1)], "changes");
    Ok(())
}

fn a_later_pass_joins_valid_then_invalid(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[12, 13], 1)?;
    let mut fd = settled(&*vm)?;
    enter(&*vm, &[10, 11], 2)?;
    remove(&*vm, &[12, 13])?;
    same!(shapes(&mut fd, BIG)?, [(10, 2, 2)], "changes");
    Ok(())
}

fn a_later_pass_splits_invalid_then_valid(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[10, 11], 1)?;
    let mut fd = settled(&*vm)?;
    remove(&*vm, &[10, 11])?;
    enter(&*vm, &[12], 2)?;
    same!(shapes(&mut fd, BIG)?, [(10, 0, 2), (12, 1, 0)], "changes");
    Ok(())
}

fn a_later_pass_splits_at_a_clean_slot(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[10, 11, 12, 20, 22], 1)?;
    let mut fd = settled(&*vm)?;
    enter(&*vm, &[10, 12], 2)?;
    remove(&*vm, &[20, 22])?;
    let expected = [(10, 1, 0), (12, 1, 0), (20, 0, 1), (22, 0, 1)];
    same!(shapes(&mut fd, BIG)?, expected, "changes");
    Ok(())
}

fn read_count_of_24_returns_0(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut first_pass = open(&*vm, 0, 0)?;
    let mut fd = settled(&*vm)?;
    enter(&*vm, &[9], 1)?;
    for count in [0, 1, 8, 23, 24] {
        same!(shapes(&mut first_pass, count)?, [], "first pass, {count} bytes");
        same!(shapes(&mut fd, count)?, [], "later pass, {count} bytes");
    }
    same!(shapes(&mut fd, 25)?, [(9, 1, 0)], "later pass, 25 bytes");
    same!(shapes(&mut first_pass, 25)?, [(0, 0, 9)], "first pass, 25 bytes");
    Ok(())
}

fn a_buffer_that_fits_exactly_is_not_filled(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = settled(&*vm)?;
    let slots = [0, 10, 20, 30, 40, 50, 60, 70];
    enter(&*vm, &slots, 1)?;
    same!(shapes(&mut fd, 48)?, [(0, 1, 0)], "48 bytes");
    same!(shapes(&mut fd, 49)?, [(10, 1, 0), (20, 1, 0)], "49 bytes");
    same!(shapes(&mut fd, 72)?, [(30, 1, 0), (40, 1, 0)], "72 bytes");
    same!(shapes(&mut fd, 73)?, [(50, 1, 0), (60, 1, 0), (70, 1, 0)], "73 bytes");
    Ok(())
}

fn k_entries_need_more_than_8_plus_16k(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    for k in 1..6 {
        for (count, entries) in [(8 + 16 * k, k - 1), (9 + 16 * k, k), (24 + 16 * k, k)] {
            let mut fd = settled(&*vm)?;
            put(&*vm, &[Record::new(100, &[hpte(1); 8], 0)])?;
            let expected = if entries == 0 { vec![] } else { vec![(100, entries, 0)] };
            same!(shapes(&mut fd, count)?, expected, "{count} bytes");
        }
    }
    Ok(())
}

fn reads_go_on_where_the_last_one_ended(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = settled(&*vm)?;
    put(&*vm, &[Record::new(100, &[hpte(1); 5], 0)])?;
    same!(shapes(&mut fd, 41)?, [(100, 2, 0)], "first read");
    // Behind the position and at it: the one comes after the wrap, the other at once.
    enter(&*vm, &[100, 102], 2)?;
    same!(shapes(&mut fd, 41)?, [(102, 2, 0)], "second read");
    same!(shapes(&mut fd, 49)?, [(104, 1, 0)], "third read");
    same!(shapes(&mut fd, 41)?, [(100, 1, 0)], "fourth read");
    Ok(())
}

fn zero_read_only_covers_to_the_end(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = settled(&*vm)?;
    let slots: Vec<u32> = (0..85).map(|k| 8000 + 2 * k).collect();
    enter(&*vm, &slots, 1)?;
    // 85 records of 24 bytes fill 2040 of 2048: no room was left, so the position is behind the last.
    same!(shapes(&mut fd, 2048)?.len(), 85, "records in 2 KiB");
    enter(&*vm, &[5], 1)?;
    same!(shapes(&mut fd, 2048)?, [], "from there to the end: nothing, though slot 5 changed");
    same!(shapes(&mut fd, 2048)?, [(5, 1, 0)], "one more read");
    Ok(())
}

fn a_read_never_wraps_within_one_call(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = settled(&*vm)?;
    enter(&*vm, &[5000, 5002], 1)?;
    same!(shapes(&mut fd, 25)?, [(5000, 1, 0)], "first read");
    enter(&*vm, &[5], 1)?;
    same!(shapes(&mut fd, BIG)?, [(5002, 1, 0)], "second read, room to spare");
    same!(shapes(&mut fd, BIG)?, [(5, 1, 0)], "third read");
    Ok(())
}

fn room_for_one_more_record_means_wrapped(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = settled(&*vm)?;
    for (count, wrapped) in [(48, false), (49, true)] {
        enter(&*vm, &[5000], 1)?;
        same!(shapes(&mut fd, count)?, [(5000, 1, 0)], "24 bytes of {count}");
        enter(&*vm, &[5], 1)?;
        if !wrapped {
            same!(shapes(&mut fd, BIG)?, [], "the rest of the sweep");
        }
        same!(shapes(&mut fd, BIG)?, [(5, 1, 0)], "from 0 after {count} bytes");
    }
    Ok(())
}

fn reporting_the_last_slot_wraps(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = settled(&*vm)?;
    enter(&*vm, &[16383], 1)?;
    same!(shapes(&mut fd, 25)?, [(16383, 1, 0)], "the last slot, no room for another");
    enter(&*vm, &[5], 1)?;
    same!(shapes(&mut fd, 25)?, [(5, 1, 0)], "the next read begins at 0");
    Ok(())
}

fn a_change_behind_the_first_pass_comes_later(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[10, 9000], 1)?;
    let mut fd = open(&*vm, 0, 0)?;
    same!(shapes(&mut fd, 25)?, [(0, 0, 10)], "first read");
    same!(shapes(&mut fd, 25)?, [(10, 1, 8989)], "second read");
    enter(&*vm, &[10], 2)?;
    same!(shapes(&mut fd, 25)?, [(9000, 1, 7383)], "third read, to the end");
    same!(read(&mut fd, 25)?, [Record::new(10, &[as_read(hpte(2))], 0)], "fourth read");
    Ok(())
}

fn a_change_ahead_of_the_first_pass_comes_once(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[10], 1)?;
    let mut fd = open(&*vm, 0, 0)?;
    same!(shapes(&mut fd, 25)?, [(0, 0, 10)], "first read");
    enter(&*vm, &[11], 1)?;
    let mut replay = Replay::default();
    drain(&mut fd, 25, &mut replay)?;
    same!(replay.dump(), vm.dump(), "what the first pass read");
    same!(shapes(&mut fd, 25)?, [], "the read after");
    Ok(())
}

fn one_header_covers_65535_empty_slots(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(21)?;
    let mut fd = open(&*vm, 0, 0)?;
    same!(shapes(&mut fd, 25)?, [(0, 0, 65535)], "25 bytes");
    same!(shapes(&mut fd, 33)?, [(65535, 0, 65535), (131_070, 0, 2)], "33 bytes");
    Ok(())
}

fn bolted_only_reports_others_as_invalid(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    put(&*vm, &[Record::new(10, &[hpte(1), bolted_hpte(2), hpte(3)], 0)])?;
    let mut fd = open(&*vm, BOLTED_ONLY, 0)?;
    let expected = [Record::new(0, &[], 11), Record::new(11, &[as_read(bolted_hpte(2))], 16372)];
    same!(read(&mut fd, BIG)?, expected, "first pass");
    Ok(())
}

fn bolted_only_later_pass(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = open(&*vm, BOLTED_ONLY, 0)?;
    read(&mut fd, BIG)?;
    put(&*vm, &[Record::new(10, &[hpte(1), bolted_hpte(2), hpte(3)], 0)])?;
    same!(shapes(&mut fd, BIG)?, [(10, 0, 1), (11, 1, 1)], "changes");
    same!(shapes(&mut fd, BIG)?, [], "the read after");
    Ok(())
}
