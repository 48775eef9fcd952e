// SPDX-License-Identifier: GPL-2.0-or-later
//! Properties of the formats: records and their headers, batches of them, and the CRC.

use proptest::prelude::*;
use spapr_htab::inside::format::crc::{LEAST_BYTES, looked_up, sparse};
use spapr_htab::inside::format::hpte::{HPTE_BYTES, Hpte, V_VALID};
use spapr_htab::inside::format::record::RecordHeader;
use spapr_htab::inside::load::batch::Batch;
use std::collections::BTreeMap;

proptest! {
    #[test]
    fn it_is_the_crc_that_crc32fast_knows(
        crc: u32,
        seed in proptest::collection::vec(any::<u8>(), 1..300),
        len in LEAST_BYTES..150_000_usize,
    ) {
        let bytes: Vec<u8> = seed.iter().copied().cycle().take(len).collect();
        prop_assert_eq!(sparse(crc, &bytes), looked_up(crc, &bytes));
    }
}

proptest! {
    #[test]
    fn headers_survive_the_round_trip(bytes: [u8; 8]) {
        prop_assert_eq!(RecordHeader::from_kernel(bytes).to_kernel(), bytes);
        prop_assert_eq!(RecordHeader::from_stream(bytes).to_stream(), bytes);
    }
}

/// What the records of a batch leave in a table: each slot they name, and its entry if it is valid.
fn effect(batch: &mut Batch) -> BTreeMap<u64, Option<Vec<u8>>> {
    let (bytes, records) = batch.parts();
    let mut effect = BTreeMap::new();
    for record in records {
        // As a sink does: nothing else may stand there.
        bytes[record.start..record.entries()].fill(0xff);
    }
    for record in records {
        let entries = bytes[record.entries()..record.end()].chunks_exact(HPTE_BYTES);
        let slots = u64::from(record.header.index)..record.header.end();
        let valid = entries.map(|entry| Some(entry.to_vec())).chain(std::iter::repeat(None));
        effect.extend(slots.zip(valid));
    }
    effect
}

fn entry(number: usize, valid: bool) -> [u8; HPTE_BYTES] {
    let v = (number as u64) << 12 | if valid { V_VALID } else { 0 };
    Hpte { v, r: number as u64 }.to_be_bytes()
}

proptest! {
    /// Records that touch or not, whose entries are valid or not: each slot has its entry, or is invalid.
    #[test]
    fn joined_and_split_records_say_the_same(
        runs in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(any::<bool>(), 0..9), 0_u16..4, proptest::bool::weighted(0.1)),
            1..12,
        ),
    ) {
        let mut batch = Batch::default();
        let mut expected = BTreeMap::new();
        let (mut slot, mut number) = (0, 0);
        for (apart, valid, n_invalid, long) in runs {
            slot += u64::from(apart);
            let index = u32::try_from(slot).expect("few");
            let n_valid = u16::try_from(valid.len()).expect("few");
            let n_invalid = if long { u16::MAX - n_invalid } else { n_invalid };
            let header = RecordHeader { index, n_valid, n_invalid };
            let room = batch.room(header).expect("memory");
            for (at, &valid) in valid.iter().enumerate() {
                number += 1;
                let entry = entry(number, valid);
                room[at * HPTE_BYTES..(at + 1) * HPTE_BYTES].copy_from_slice(&entry);
                expected.insert(slot + at as u64, valid.then(|| entry.to_vec()));
            }
            expected.extend((slot + u64::from(n_valid)..header.end()).map(|slot| (slot, None)));
            slot = header.end();
            batch.push(header).expect("memory");
        }
        let demoted = expected.len();
        let invalid_before = batch.records().iter().map(|record| usize::from(record.header.n_invalid)).sum::<usize>();
        let valid = expected.values().flatten().count();
        let scrubbed = usize::try_from(batch.scrub().expect("memory")).expect("few");
        prop_assert_eq!(scrubbed, demoted - valid - invalid_before);
        batch.join();
        prop_assert_eq!(effect(&mut batch), expected);
    }
}

#[test]
fn a_body_that_goes_on_for_ever_is_handed_over_in_parts() {
    let mut batch = Batch::default();
    batch.first_header();
    let mut most = 0;
    for index in 0..200_000_u32 {
        let header = RecordHeader { index: index * 8, n_valid: 8, n_invalid: 0 };
        if batch.is_full(header) {
            assert_eq!(batch.header(), RecordHeader::END, "the header behind the records");
            batch.clear();
        }
        batch.room(header).expect("memory");
        batch.push(header).expect("memory");
        most = most.max(batch.bytes().len());
    }
    assert!(most <= 2 << 20, "{most} bytes");
}

#[test]
fn records_of_no_slots_do_not_pile_up() {
    let header = RecordHeader { index: 5, n_valid: 0, n_invalid: 0 };
    let mut batch = Batch::default();
    while !batch.is_full(header) {
        batch.room(header).expect("memory");
        batch.push(header).expect("memory");
        assert!(batch.records().len() <= 1024);
    }
}
