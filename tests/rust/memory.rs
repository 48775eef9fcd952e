// SPDX-License-Identifier: GPL-2.0-or-later
//! A table in QEMU's memory, saved and loaded.

use htab_harness::guest::Numbers;
use htab_harness::host::{Input, Output};
use htab_harness::memory::{MemoryHost, MemorySave, same};
use htab_harness::records;
use htab_harness::sweeper::Sweeper;
use htab_model::record::parse_stream;
use proptest::prelude::*;
use spapr_htab::inside::format::hpte::{Hpte, Slot, V_DIRTY, V_VALID};
use spapr_htab::inside::load::Loader;
use spapr_htab::inside::lookup::{read_hptes, write_hpte};
use spapr_htab::inside::save::Progress;
use spapr_htab::inside::save::session::SaveOptions;
use spapr_htab::inside::save::source::{MemoryOptions, MemorySource};
use spapr_htab::inside::table::Table;
use std::sync::atomic::Ordering;

const COMPARE: SaveOptions = SaveOptions { compare: true, ..SaveOptions::DEFAULT };
const PLAIN: SaveOptions = SaveOptions::DEFAULT;

fn store(host: &MemoryHost, slot: u64, v: u64, r: u64) {
    host.memory().as_ref().expect("a table").store(slot, v, r);
}

fn filled(order: u32, seed: u64) -> MemoryHost {
    let host = MemoryHost::new(order);
    let mut numbers = Numbers(seed);
    let slots = 1 << (order - 4);
    for _ in 0..slots / 6 {
        let v = numbers.any() & !0x7f | V_VALID;
        store(&host, numbers.below(slots), v, numbers.any());
    }
    host
}

#[test]
fn tables_of_several_orders_arrive() {
    for (order, options) in [(18, PLAIN), (18, COMPARE), (20, PLAIN), (24, PLAIN), (25, COMPARE)] {
        let host = filled(order, 1);
        let mut save = MemorySave::begin(&host, options);
        assert_eq!(save.iterate(None), Progress::More);
        assert_eq!(save.iterate(None), Progress::Clean);
        save.arrive().expect("it arrives");
    }
}

#[test]
fn the_first_pass_sends_valid_entries_only_and_the_dirty_bit_of_none() {
    let host = filled(18, 2);
    store(&host, 77, 0x1000, 5);
    let mut save = MemorySave::begin(&host, PLAIN);
    save.iterate(None);
    let records = records::of_body(&save.bodies[1]).expect("a body of records");
    assert!(records.iter().all(|record| record.n_invalid == 0));
    assert!(records.iter().flat_map(|record| &record.valid).all(|(v, _)| v & V_DIRTY == 0));
    same(&host.dump(), &records::replay(&records)).expect("all of it");
    let left =
        (0..1 << 14).filter(|slot| host.memory().as_ref().expect("a table").raw(*slot).0 & V_DIRTY != 0);
    assert_eq!(left.count(), 0, "every mark was cleared, on invalid slots too");
}

#[test]
fn later_passes_send_what_is_marked() {
    let host = filled(18, 3);
    let mut save = MemorySave::begin(&host, PLAIN);
    save.iterate(None);
    store(&host, 5, 0x5000 | V_VALID, 1);
    store(&host, 6, 0x6000, 1);
    store(&host, 7, 0x7000, 1);
    host.memory().as_ref().expect("a table").touch(200, 0x180);
    save.iterate(None);
    let records = records::of_body(&save.bodies[2]).expect("a body of records");
    let shapes: Vec<_> = records.iter().map(htab_model::record::Record::shape).collect();
    assert_eq!(shapes, [(5, 1, 2)], "one record, and nothing of a touched slot without a mark");
}

#[test]
fn comparing_finds_what_carries_no_mark() {
    let host = filled(18, 4);
    let mut save = MemorySave::begin(&host, COMPARE);
    save.iterate(None);
    let (touched, _, r) = host.dump()[10];
    host.memory().as_ref().expect("a table").touch(touched, !r);
    assert_eq!(save.iterate(None), Progress::More);
    let records = records::of_body(&save.bodies[2]).expect("a body of records");
    assert_eq!(records.len(), 1);
    assert_eq!(u64::from(records[0].index), touched);
    assert_eq!(save.iterate(None), Progress::Clean);
    save.arrive().expect("it arrives");

    // The same without comparing is the loss that this option is for.
    let mut save = MemorySave::begin(&host, PLAIN);
    save.iterate(None);
    host.memory().as_ref().expect("a table").flip(touched, 0x180);
    assert!(save.arrive().is_err());
}

#[test]
fn the_bound_on_time_holds_for_empty_and_clean_tables() {
    let host = MemoryHost::new(26);
    let mut save = MemorySave::begin(&host, PLAIN);
    host.tick.store(1, Ordering::Relaxed);
    let mut calls = 0;
    let mut progress = Progress::More;
    while progress == Progress::More {
        let before = host.clock_now();
        progress = save.iterate(Some(16));
        // Each look at the clock takes a nanosecond; a few more are for the statistics and the time of the turn.
        let took = host.clock_now() - before;
        assert!(took <= 16 + 5, "call {calls} took {took} of 16 ns");
        calls += 1;
    }
    // 4,194,304 slots, 4096 of them to a look at the clock: 1024 looks a pass, at most 16 to a call.
    assert!(calls >= 2 * 1024 / 16, "{calls} calls");
}

#[test]
fn tiny_and_odd_buffers_read_the_same_table() {
    let host = filled(18, 5);
    let Table::Memory(table) = spapr_htab::inside::host::Host::table(&host).expect("a table") else {
        panic!()
    };
    for explicit_invalid in [false, true] {
        for size in [25, 26, 39, 40, 41, 100, 4096, 1 << 20] {
            let options = MemoryOptions { explicit_invalid, ..MemoryOptions::default() };
            let mut sweeper = Sweeper::new(MemorySource::new(table, options).expect("a source"));
            let stream = sweeper.sweep(&mut vec![0; size], &host).expect("a sweep");
            let records = parse_stream(&stream).expect("whole records");
            same(&host.dump(), &records::replay(&records)).expect("the same table");
            let reported: u64 =
                records.iter().map(|record| record.valid.len() as u64 + u64::from(record.n_invalid)).sum();
            assert_eq!(reported == 1 << 14, explicit_invalid, "{reported} slots reported");
        }
    }
    let mut sweeper = Sweeper::new(MemorySource::new(table, MemoryOptions::default()).expect("a source"));
    assert!(sweeper.read(&mut [0; 24], &host, None).is_err());
}

#[test]
fn a_replaced_table_is_sent_in_full_with_its_invalid_slots() {
    let host = filled(18, 7);
    let mut save = MemorySave::begin(&host, PLAIN);
    save.iterate(None);
    save.saver.quiesce();
    // A reset clears the table in place; nothing in it is marked.
    *host.memory() = Some(htab_harness::memory::Memory::new(18));
    store(&host, 3, 0x3000 | V_VALID, 3);
    save.saver.resume(&host).expect("resume");
    // The stop comes before the new size could be sent; it is the old one, so records will do.
    save.arrive().expect("it arrives");
}

#[test]
fn lookups_and_writes_reach_the_table_and_the_stream() {
    let host = filled(18, 8);
    let mut save = MemorySave::begin(&host, PLAIN);
    save.iterate(None);
    let entry = Hpte { v: 0x1234_0000 | V_VALID, r: 7 };
    // With the mark or without it: it is not the caller's.
    write_hpte(&host, &save.saver, Slot(8), entry).expect("a write");
    write_hpte(&host, &save.saver, Slot(9), Hpte { v: entry.v | V_DIRTY, ..entry }).expect("a write");
    let bytes = read_hptes(&host, &save.saver, Slot(9), 1).expect("a lookup");
    assert_eq!(bytes, entry.to_be_bytes());
    let last = (1 << 14) - 1;
    read_hptes(&host, &save.saver, Slot(last), 1).expect("a lookup of the last slot");
    assert!(
        read_hptes(&host, &save.saver, Slot(last), 2).is_err()
            && read_hptes(&host, &save.saver, Slot(last + 1), 1).is_err()
    );
    save.arrive().expect("it arrives");
}

#[test]
fn entries_are_stored_whole_and_invalid_slots_cleared() {
    let host = filled(18, 9);
    let body = [&[0; 4][..], &[0, 0, 0, 5, 0, 1, 0, 3], &[0x11; 7], &[0x41], &[0x22; 8], &[0; 8]].concat();
    for slot in 4..12 {
        store(&host, slot, 0xff00 | V_VALID, 0xff);
    }
    let mut loader = Loader::default();
    loader.load(&host, &mut Input::new(&body), 1).expect("a load");
    let raw = |slot| host.memory().as_ref().expect("a table").raw(slot);
    assert_eq!(raw(4), (0xff00 | V_VALID | V_DIRTY, 0xff), "not named, not touched");
    assert_eq!(raw(5), (0x1111_1111_1111_1101, 0x2222_2222_2222_2222));
    assert_eq!([raw(6), raw(7), raw(8)], [(0, 0); 3]);
    assert_eq!(raw(9).0 & V_VALID, V_VALID);
    assert_eq!(loader.stats().demoted, 0);
}

#[test]
fn a_change_behind_a_sweep_that_ran_out_of_time_is_not_lost() {
    for options in [PLAIN, COMPARE] {
        let host = MemoryHost::new(18);
        let mut save = MemorySave::begin(&host, options);
        save.iterate(None);
        // In the middle of a pass that found nothing so far; then the VM changes a slot behind it, and stops.
        save.iterate(Some(0));
        assert_eq!(save.saver.queue().pass(), 2);
        store(&host, 5, 0x5000 | V_VALID, 1);
        save.arrive().expect("it arrives");
    }
}

/// What may happen to a guest that is being migrated.
#[derive(Clone, Debug)]
enum Event {
    Store(u64, bool, u64),
    Protect(u64, u64),
    Touch(u64),
    Iterate(u64, bool),
    Write(u64, u64),
    Reset(u32),
    Retry,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    // Few slots, spread over the table, so that events meet.
    let slot = || prop_oneof![0_u64..20, 8000_u64..8010, 16_370_u64..16_384];
    let event = prop_oneof![
        8 => (slot(), any::<bool>(), any::<u64>()).prop_map(|(slot, valid, r)| Event::Store(slot, valid, r)),
        3 => (slot(), any::<u64>()).prop_map(|(slot, r)| Event::Protect(slot, r)),
        3 => slot().prop_map(Event::Touch),
        10 => (0_u64..12, any::<bool>()).prop_map(|(max, limited)| Event::Iterate(max, limited)),
        1 => (slot(), any::<u64>()).prop_map(|(slot, r)| Event::Write(slot, r)),
        1 => (18_u32..20).prop_map(Event::Reset),
        1 => Just(Event::Retry),
    ];
    proptest::collection::vec(event, 0..60)
}

fn run(events: &[Event], options: SaveOptions) -> Result<(), String> {
    let host = MemoryHost::new(18);
    host.tick.store(1, Ordering::Relaxed);
    let mut save = MemorySave::begin(&host, options);
    let table = |host: &MemoryHost| host.memory().as_ref().expect("a table").clone();
    let mut unsent = false;
    for event in events {
        match *event {
            Event::Store(slot, valid, r) => table(&host).store(slot, r & !0x7f | u64::from(valid), r),
            Event::Protect(slot, r) => table(&host).protect(slot, r),
            Event::Touch(slot) if options.compare => table(&host).touch(slot, 0x180),
            Event::Touch(_) => {}
            Event::Iterate(max, limited) => {
                save.iterate_into(Output { limited, ..Output::default() }, Some(max));
                unsent = false;
            }
            Event::Write(slot, r) => {
                let entry = Hpte { v: 0x7000 | V_VALID, r };
                write_hpte(&host, &save.saver, Slot(slot), entry).map_err(|error| error.to_string())?;
            }
            Event::Reset(order) => {
                save.saver.quiesce();
                *host.memory() = Some(htab_harness::memory::Memory::new(order));
                save.saver.resume(&host).map_err(|error| error.to_string())?;
                unsent = true;
            }
            Event::Retry => {
                save.saver.cleanup().map_err(|error| error.to_string())?;
                save.setup(options);
                unsent = false;
            }
        }
    }
    if unsent {
        save.iterate(None);
    }
    save.arrive().map(|_| ())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_is_lost(events in events()) {
        for options in [PLAIN, COMPARE] {
            if let Err(why) = run(&events, options) {
                prop_assert!(false, "{why} ({options:?})");
            }
        }
    }
}
