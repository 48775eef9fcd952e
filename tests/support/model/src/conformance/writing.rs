// SPDX-License-Identifier: GPL-2.0-or-later
//! Writing, where it works (`kvm_htab_write`; for writev `do_loop_readv_writev`).

use super::{
    BIG, Case, ORDER, Outcome, enter, entry_at, occupied, open, put, replayed, same, settled, shapes,
};
use crate::record::{self, Record, V_LARGE, V_VALID, bolted_hpte, hpte};
use crate::vm::{VmFactory, WRITE};

pub(super) const CASES: &[Case] = &[
    ("entries_go_to_their_exact_slots", entries_go_to_their_exact_slots),
    ("an_entry_replaces_the_one_before", an_entry_replaces_the_one_before),
    ("invalid_slots_are_emptied", invalid_slots_are_emptied),
    ("every_known_page_size_is_taken", every_known_page_size_is_taken),
    ("no_memslot_is_needed", no_memslot_is_needed),
    ("entries_that_map_memory_read_the_same", entries_that_map_memory_read_the_same),
    ("removing_entries_that_map_memory_is_a_change", removing_entries_that_map_memory),
    ("header_only_records_then_one_valid_record_work", header_only_records_then_one_valid_record),
    ("one_record_holds_65535_entries", one_record_holds_65535_entries),
    ("merged_records_do_what_the_parts_did", merged_records_do_what_the_parts_did),
    ("a_record_to_the_very_end_of_the_table", a_record_to_the_very_end_of_the_table),
    ("an_empty_record_does_nothing", an_empty_record_does_nothing),
    ("a_write_of_nothing_returns_0", a_write_of_nothing_returns_0),
    ("start_index_means_nothing_to_a_write_fd", start_index_means_nothing_to_a_write_fd),
    ("writev_one_record_per_segment_applies_all", writev_one_record_per_segment),
    ("writev_takes_1024_segments_and_no_more", writev_takes_1024_segments),
    ("writev_after_an_error_returns_what_was_applied", writev_after_an_error),
    ("writev_error_in_the_first_segment_is_returned", writev_error_in_the_first_segment),
    ("writev_stops_after_a_short_segment", writev_stops_after_a_short_segment),
    ("writev_does_not_join_segments", writev_does_not_join_segments),
    ("writev_skips_empty_segments", writev_skips_empty_segments),
];

fn entries_go_to_their_exact_slots(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let records = [
        Record::new(0, &[hpte(1)], 0),
        Record::new(5000, &[hpte(2), bolted_hpte(3), hpte(4)], 0),
        Record::new(16383, &[hpte(5)], 0),
    ];
    put(&*vm, &records)?;
    same!(vm.dump(), replayed(&records), "table");
    same!(occupied(&*vm), [0, 5000, 5001, 5002, 16383], "slots in use");
    Ok(())
}

fn an_entry_replaces_the_one_before(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[10, 11], 1)?;
    enter(&*vm, &[11], 2)?;
    same!(vm.dump(), replayed(&[entry_at(10, 1), entry_at(11, 2)]), "table");
    Ok(())
}

fn invalid_slots_are_emptied(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[9, 10, 11, 12, 13], 1)?;
    put(&*vm, &[Record::new(10, &[hpte(2)], 2)])?;
    same!(vm.dump(), replayed(&[entry_at(9, 1), entry_at(10, 2), entry_at(13, 1)]), "table");
    Ok(())
}

fn every_known_page_size_is_taken(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    // 4K; then, with the large bit: 64K, 16M, 64K of 4K, 16M of 4K, 16M of 64K, 16G.
    let large = [0x5_1192, 0x100_0192, 0x5_7192, 0x103_8192, 0x100_8192, 0x3192];
    let mut entries = vec![hpte(1)];
    entries.extend(large.map(|r| (0x1280 | V_LARGE | V_VALID, r)));
    let record = Record::new(100, &entries, 0);
    put(&*vm, std::slice::from_ref(&record))?;
    same!(vm.dump(), replayed(&[record]), "table");
    Ok(())
}

fn no_memslot_is_needed(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let high = Record::new(1, &[(V_VALID, 0x0fff_ffff_ffff_f192)], 0);
    put(&*vm, std::slice::from_ref(&high))?;
    same!(vm.dump(), replayed(&[high]), "table");
    Ok(())
}

fn entries_that_map_memory_read_the_same(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    vm.set_ram(16 << 20).map_err(super::errno("set_ram"))?;
    let mut fd = settled(&*vm)?;
    // R and C as written belong to the guest's view; the hardware's entry starts without.
    let record = Record::new(100, &[(0x1281, 0x3000 | 0x192), (0x1301, 0x4000 | 0x12)], 0);
    put(&*vm, std::slice::from_ref(&record))?;
    same!(vm.dump(), replayed(std::slice::from_ref(&record)), "table");
    same!(replayed(&super::read(&mut fd, BIG)?), vm.dump(), "what is read");
    same!(shapes(&mut fd, BIG)?, [], "the read after");
    Ok(())
}

fn removing_entries_that_map_memory(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    vm.set_ram(16 << 20).map_err(super::errno("set_ram"))?;
    put(&*vm, &[Record::new(100, &[(0x1281, 0x3192), (0x1301, 0x4012)], 0)])?;
    let mut fd = settled(&*vm)?;
    super::remove(&*vm, &[101])?;
    same!(occupied(&*vm), [100], "slots in use");
    same!(shapes(&mut fd, BIG)?, [(101, 0, 1)], "changes");
    Ok(())
}

fn header_only_records_then_one_valid_record(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[10, 11, 500, 16383], 1)?;
    let records = [
        Record::new(500, &[], 1),
        Record::new(10, &[], 2),
        Record::new(16000, &[], 384),
        Record::new(7, &[hpte(2), hpte(3)], 0),
    ];
    let bytes = record::to_bytes(&records);
    same!(open(&*vm, WRITE, 0)?.write(&bytes), Ok(bytes.len()), "write");
    same!(vm.dump(), replayed(&records), "table");
    Ok(())
}

fn one_record_holds_65535_entries(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(21)?;
    let entries: Vec<_> = (0..65535).map(hpte).collect();
    let record = Record::new(33, &entries, 65535 - 33);
    put(&*vm, std::slice::from_ref(&record))?;
    same!(vm.dump() == replayed(&[record]), true, "the table is what was written");
    Ok(())
}

fn merged_records_do_what_the_parts_did(vms: &dyn VmFactory) -> Outcome {
    let tables = [
        vec![
            Record::new(10, &[hpte(1), hpte(2)], 0),
            Record::new(12, &[hpte(3)], 1),
            Record::new(14, &[], 2),
        ],
        vec![Record::new(10, &[hpte(1), hpte(2), hpte(3)], 3)],
    ];
    for records in &tables {
        let vm = vms.hash(ORDER)?;
        enter(&*vm, &[9, 10, 11, 12, 13, 14, 15, 16], 9)?;
        put(&*vm, records)?;
        let mut expected = vec![entry_at(9, 9), entry_at(16, 9)];
        expected.extend_from_slice(&tables[0]);
        same!(vm.dump(), replayed(&expected), "table after {} records", records.len());
    }
    Ok(())
}

fn a_record_to_the_very_end_of_the_table(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[16383], 9)?;
    let records = [Record::new(16381, &[hpte(1), hpte(2)], 1)];
    put(&*vm, &records)?;
    same!(vm.dump(), replayed(&records), "table");
    Ok(())
}

fn an_empty_record_does_nothing(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[0, 5], 1)?;
    let mut fd = settled(&*vm)?;
    put(&*vm, &[Record::new(0, &[], 0), Record::new(5, &[], 0)])?;
    same!(occupied(&*vm), [0, 5], "slots in use");
    same!(shapes(&mut fd, BIG)?, [], "changes");
    Ok(())
}

fn a_write_of_nothing_returns_0(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let mut fd = open(&*vm, WRITE, 0)?;
    same!(fd.write(&[]), Ok(0), "write");
    same!(fd.writev(&[]), Ok(0), "writev of no segment");
    same!(fd.writev(&[&[], &[]]), Ok(0), "writev of empty segments");
    Ok(())
}

fn start_index_means_nothing_to_a_write_fd(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    for start_index in [9, 1 << 40] {
        let mut fd = open(&*vm, WRITE, start_index)?;
        same!(fd.write(&entry_at(3, 1).to_bytes()), Ok(24), "write with start_index {start_index:#x}");
        same!(vm.dump(), replayed(&[entry_at(3, 1)]), "table");
    }
    Ok(())
}

fn writev_one_record_per_segment(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    enter(&*vm, &[70], 9)?;
    let records = [
        Record::new(7, &[hpte(1), hpte(2)], 0),
        Record::new(60, &[hpte(3)], 20),
        Record::new(900, &[], 40),
        Record::new(5, &[hpte(4)], 0),
    ];
    let bytes: Vec<_> = records.iter().map(Record::to_bytes).collect();
    let segments: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    same!(open(&*vm, WRITE, 0)?.writev(&segments), Ok(40 + 24 + 8 + 24), "writev");
    same!(vm.dump(), replayed(&records), "table");
    Ok(())
}

fn writev_takes_1024_segments(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let records: Vec<_> = (0..1025).map(|k| entry_at(k * 8, u64::from(k))).collect();
    let bytes: Vec<_> = records.iter().map(Record::to_bytes).collect();
    let segments: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    let mut fd = open(&*vm, WRITE, 0)?;
    same!(fd.writev(&segments), Err(libc::EINVAL), "1025 segments");
    same!(occupied(&*vm), [], "slots in use after it");
    same!(fd.writev(&segments[..1024]), Ok(1024 * 24), "1024 segments");
    same!(vm.dump() == replayed(&records[..1024]), true, "the table is what was written");
    Ok(())
}

fn writev_after_an_error(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let good = Record::new(7, &[hpte(1), hpte(2)], 0);
    let bad = Record::new(100, &[(hpte(3).0 & !V_VALID, hpte(3).1)], 0).to_bytes();
    let after = entry_at(200, 4).to_bytes();
    let written = open(&*vm, WRITE, 0)?.writev(&[&good.to_bytes(), &bad, &after]);
    same!(written, Ok(40), "writev with a bad second record");
    same!(vm.dump(), replayed(&[good]), "table");
    Ok(())
}

fn writev_error_in_the_first_segment(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let bad = Record::new(16384, &[], 1).to_bytes();
    let after = entry_at(200, 4).to_bytes();
    same!(open(&*vm, WRITE, 0)?.writev(&[&bad, &after]), Err(libc::EINVAL), "writev");
    same!(occupied(&*vm), [], "slots in use");
    Ok(())
}

fn writev_stops_after_a_short_segment(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let first = entry_at(7, 1).to_bytes();
    // A record of two entries with the second cut off: nothing of it is taken.
    let cut = &Record::new(100, &[hpte(2), hpte(3)], 0).to_bytes()[..24];
    let after = entry_at(200, 4).to_bytes();
    same!(open(&*vm, WRITE, 0)?.writev(&[&first, cut, &after]), Ok(24), "writev");
    same!(occupied(&*vm), [7], "slots in use");
    Ok(())
}

fn writev_does_not_join_segments(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let record = entry_at(7, 1).to_bytes();
    let (head, entry) = record.split_at(8);
    same!(open(&*vm, WRITE, 0)?.writev(&[head, entry]), Ok(0), "header and entry in segments of their own");
    same!(occupied(&*vm), [], "slots in use");
    Ok(())
}

fn writev_skips_empty_segments(vms: &dyn VmFactory) -> Outcome {
    let vm = vms.hash(ORDER)?;
    let (one, other) = (entry_at(7, 1).to_bytes(), entry_at(9, 2).to_bytes());
    same!(open(&*vm, WRITE, 0)?.writev(&[&[], &one, &[], &other]), Ok(48), "writev");
    same!(occupied(&*vm), [7, 9], "slots in use");
    Ok(())
}
