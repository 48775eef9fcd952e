// SPDX-License-Identifier: GPL-2.0-or-later
//! Saving when something fails, and in any order of events.

use htab_harness::guest::Numbers;
use htab_harness::host::{Output, VmHost};
use htab_harness::migration::{Migration, Setting};
use htab_model::model::{Fault, ModelFactory, Op};
use htab_model::record::{R_C, R_R, hpte};
use htab_model::{Model, Vm};
use proptest::prelude::*;
use spapr_htab::inside::error::Error;
use spapr_htab::inside::format::hpte::{Hpte, Slot, V_DIRTY, V_VALID};
use spapr_htab::inside::host::Nanos;
use spapr_htab::inside::lookup::{read_hptes, write_hpte};
use spapr_htab::inside::save::session::SaveOptions;
use spapr_htab::inside::save::sweep::DutyCycle;
use spapr_htab::inside::save::{Progress, Saver};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const ORDER: u32 = 18;
const PLAIN: SaveOptions = SaveOptions::DEFAULT;
const AHEAD: SaveOptions = SaveOptions { ahead: Some(0), ..PLAIN };

fn guest() -> (Model, VmHost) {
    let model = Model::new(ORDER);
    for n in 0..2000 {
        let (v, r) = hpte(n);
        model.enter(n * 8, v, r);
    }
    let host = VmHost::new(Arc::new(model.clone()), Some(ORDER));
    (model, host)
}

fn setup(saver: &Saver, host: &VmHost) -> Result<(), Error> {
    saver.setup(host, &mut Output::default(), PLAIN)
}

#[test]
fn calls_out_of_order_are_errors_and_cleanup_never_is() {
    let (model, host) = guest();
    let saver = Saver::default();
    saver.cleanup().expect("without setup");
    let iterate = saver.iterate(&host, &mut Output::default(), None);
    assert!(matches!(iterate, Err(Error::State(_))), "{iterate:?}");
    assert!(matches!(saver.complete(&host, &mut Output::default()), Err(Error::State(_))));
    assert_eq!(saver.pending(), Ok(0));
    saver.quiesce();
    saver.resume(&host).expect("nothing to resume");
    assert_eq!(model.stats().opens, 0);
    // A second setup without a cleanup between.
    setup(&saver, &host).expect("setup");
    setup(&saver, &host).expect("setup again");
    assert_eq!(model.read_fds(), 1);
    saver.cleanup().expect("cleanup");
    saver.cleanup().expect("twice");
    assert_eq!(model.read_fds(), 0);
}

#[test]
fn no_less_is_pending_than_the_rest_of_an_uneven_table() {
    const ORDER: u32 = 22;
    const SLOTS: u64 = 1 << (ORDER - 4);
    let model = Model::new(ORDER);
    for slot in (SLOTS / 2..SLOTS).step_by(8) {
        let (v, r) = hpte(slot & 0xffff);
        model.enter(slot, v, r);
    }
    let host = VmHost::new(Arc::new(model), Some(ORDER));
    let saver = Saver::default();
    setup(&saver, &host).expect("setup");
    saver.iterate(&host, &mut Output { limited: true, ..Output::default() }, None).expect("iterate");
    let pending = saver.pending().expect("a figure");
    let mut rest = Output::default();
    while saver.iterate(&host, &mut rest, None) != Ok(Progress::Clean) {}
    assert!(
        rest.bytes.len() > 200_000,
        "the first iterate sent too much: {} bytes are left",
        rest.bytes.len()
    );
    assert!(pending + 100 >= rest.bytes.len() as u64, "{pending} bytes pending, {} sent", rest.bytes.len());
}

#[test]
fn a_missing_capability_fails_in_setup_with_a_sentence() {
    let (model, host) = guest();
    model.fail(Op::Open, 0, Fault::Errno(libc::ENOTTY));
    let saver = Saver::default();
    let mut out = Output::default();
    let error = saver.setup(&host, &mut out, PLAIN).expect_err("no fd");
    assert_eq!(error.errno().number(), libc::ENOTTY);
    assert!(error.to_string().contains("KVM_PPC_GET_HTAB_FD"), "{error}");
    assert_eq!(out.bytes, [], "nothing was sent");
    setup(&saver, &host).expect("and the next one works");
}

#[test]
fn a_failing_read_names_slot_and_pass_and_a_new_setup_works() {
    let (model, host) = guest();
    let saver = Saver::default();
    setup(&saver, &host).expect("setup");
    saver.iterate(&host, &mut Output::default(), None).expect("the first pass");
    model.fail(Op::Read, 0, Fault::Errno(libc::EFAULT));
    let error = saver.iterate(&host, &mut Output::default(), None).expect_err("a failed read");
    assert_eq!(error.errno().number(), libc::EFAULT);
    assert!(error.to_string().contains("slot 0 on in pass 2"), "{error}");
    assert_eq!(saver.iterate(&host, &mut Output::default(), None), Err(error.clone()));
    assert_eq!(saver.complete(&host, &mut Output::default()), Err(error.clone()));
    assert_eq!(saver.pending(), Err(error));
    saver.cleanup().expect("cleanup");
    assert_eq!(host.open_fds(), 0);
    setup(&saver, &host).expect("a new setup");
    model.fail(Op::Read, 0, Fault::Errno(libc::EINTR));
    saver.iterate(&host, &mut Output::default(), None).expect("EINTR is no failure");
    saver.complete(&host, &mut Output::default()).expect("complete");
}

#[test]
fn a_failing_stream_fails_every_body_with_its_own_errno() {
    let (_, host) = guest();
    for at in [0, 3, 4, 12, 100, 40_000] {
        let saver = Saver::default();
        let failing = || Output { fail_at: Some((at, libc::EPIPE)), ..Output::default() };
        let in_setup = saver.setup(&host, &mut failing(), PLAIN);
        assert_eq!(in_setup.is_err(), at < 4);
        if in_setup.is_ok() {
            let iterate = saver.iterate(&host, &mut failing(), None).expect_err("EPIPE");
            assert_eq!(iterate.errno().number(), libc::EPIPE);
            assert!(iterate.to_string().contains("migration stream failed"), "{iterate}");
        }
        // The source goes on and migrates elsewhere.
        saver.cleanup().expect("cleanup");
        assert_eq!(host.open_fds(), 0);
        setup(&saver, &host).expect("setup");
        saver.complete(&host, &mut Output::default()).expect("complete");
    }
}

#[test]
fn complete_ends_after_one_sweep_whatever_the_table_does() {
    let (model, host) = guest();
    let saver = Saver::default();
    setup(&saver, &host).expect("setup");
    let mut numbers = Numbers(1);
    model.before_read(Box::new(move |model, _| {
        let (v, r) = hpte(numbers.below(1000));
        model.enter(3, v, r);
    }));
    saver.complete(&host, &mut Output::default()).expect("a sweep");
    assert_eq!(model.stats().slots_read, model.slots());
}

#[test]
fn a_table_of_another_size_than_the_host_says_is_noticed() {
    for (said, real) in [(19, ORDER), (ORDER, 19)] {
        let (_, host) = guest();
        host.replace(real).expect("allocate");
        let wrong = VmHost::new(Arc::clone(&host.vm), Some(said));
        let saver = Saver::default();
        setup(&saver, &wrong).expect("setup");
        let error = saver.iterate(&wrong, &mut Output::default(), None).expect_err("another size");
        assert!(error.to_string().contains("spapr_htab_quiesce"), "{error}");
    }
}

#[test]
fn statistics_add_up_and_reset() {
    let (model, host) = guest();
    let saver = Saver::default();
    for _ in 0..2 {
        setup(&saver, &host).expect("setup");
        let mut limited = Output { limited: true, ..Output::default() };
        saver.iterate(&host, &mut limited, Some(Nanos(0))).expect("iterate");
        assert_eq!(Ok(saver.stats().pending), saver.pending());
        assert!(saver.stats().pending > 1000);
        saver.iterate(&host, &mut Output::default(), None).expect("iterate");
        model.enter(1, hpte(1).0, 5);
        saver.complete(&host, &mut Output::default()).expect("complete");
        let stats = saver.stats();
        assert_eq!(
            (stats.passes[0].tally.valid, stats.stopped.tally.valid),
            (if model.is_dirty(1) { 0 } else { stats.passes[0].tally.valid }, 1)
        );
        assert_eq!(stats.total().valid + stats.total().invalid, (1 << 14) + 1);
        assert_eq!(stats.order.map(spapr_htab::inside::format::hpte::Order::log2_bytes), Some(ORDER));
        assert_eq!(saver.pending(), Ok(0));
    }
}

#[test]
fn after_a_sweep_that_found_nothing_the_next_one_waits_for_its_share_of_the_time() {
    for percent in [1, 25, 50, 99, 100] {
        let (model, host) = guest();
        let duty = DutyCycle::new(percent).expect("a part of the time");
        let saver = Saver::default();
        saver.setup(&host, &mut Output::default(), SaveOptions { duty, ..PLAIN }).expect("setup");
        let iterate = || saver.iterate(&host, &mut Output::default(), None).expect("iterate");
        iterate();
        model.set_costs(htab_model::model::Costs { call_ns: 0, slot_ns: 1, entry_ns: 1 });
        let clock = model.clock();
        let began = clock.load(Relaxed);
        assert_eq!(iterate(), Progress::Clean);
        let took = clock.load(Relaxed) - began;
        assert_eq!(took, model.slots());
        let mut sweeps = 0;
        // Looks in every eighth of a sweep's time, for the time of 400 sweeps.
        for _ in 0..400 * 8 {
            let reads = model.stats().reads;
            assert_eq!(iterate(), Progress::Clean, "at rest or swept, nothing was found");
            sweeps += model.stats().reads - reads;
            clock.fetch_add(took / 8, Relaxed);
        }
        let spent = sweeps * 100 / (400 + sweeps);
        assert!(spent <= u64::from(percent) && sweeps > 0, "{sweeps} sweeps: {spent} % of the time");
        assert!(percent < 100 || sweeps == 400 * 8, "all of the time");
    }
}

#[test]
fn complete_and_lookups_do_not_wait_for_a_share_of_the_time() {
    let (model, host) = guest();
    let saver = Saver::default();
    setup(&saver, &host).expect("setup");
    model.set_costs(htab_model::model::Costs { call_ns: 0, slot_ns: 1000, entry_ns: 0 });
    let iterate = || saver.iterate(&host, &mut Output::default(), None).expect("iterate");
    while iterate() == Progress::More {}
    model.enter(7, hpte(1).0, 5);
    model.enter(9, hpte(3).0, 5);
    assert_eq!(iterate(), Progress::Clean, "at rest");
    assert!(model.is_dirty(7));
    read_hptes(&host, &saver, Slot(7), 1).expect("a lookup");
    assert!(!model.is_dirty(7) && model.is_dirty(9), "no more is read than was asked for");
    assert_eq!(iterate(), Progress::More, "what was looked up goes out");
    while iterate() == Progress::More {}
    model.enter(8, hpte(2).0, 5);
    assert_eq!(iterate(), Progress::Clean, "at rest again");
    saver.complete(&host, &mut Output::default()).expect("complete");
    assert!(!model.is_dirty(8));
}

#[test]
fn a_write_changes_one_slot_whatever_its_bit_0x40() {
    let (model, host) = guest();
    let (before, (v, r)) = (model.dump(), hpte(5000));
    let write = |entry| write_hpte(&host, &Saver::default(), Slot(7), entry).expect("a write");
    write(Hpte { v: v | V_DIRTY, r });
    let mut written = before.clone();
    written.insert(1, (7, v, r));
    assert_eq!(model.dump(), written);
    write(Hpte { v: v & !V_VALID, r });
    assert_eq!(model.dump(), before);
}

#[test]
fn what_a_lookup_of_all_of_a_small_table_read_is_kept() {
    let (model, host) = guest();
    let saver = Saver::default();
    setup(&saver, &host).expect("setup");
    let look_up = || read_hptes(&host, &saver, Slot(0), model.slots()).expect("a lookup");
    look_up();
    saver.complete(&host, &mut Output::default()).expect("complete");
    assert_eq!(saver.stats().looked_up.valid, 2000);
    for _ in 0..30 {
        look_up();
        assert!(saver.queue().looked_up_bytes() <= 1 << 20, "up to what memory a host can spare");
    }
}

/// What may happen to a guest that is being migrated.
#[derive(Clone, Debug)]
enum Event {
    Enter(u64, u64),
    Remove(u64),
    /// The guest uses a page: reference and change bits.
    Touch(u64, u64),
    Iterate(Option<u64>, bool),
    Lookup(u64, usize),
    Reset,
    Resize(u32),
    Retry,
    /// The VM stops; what changes the table next makes it run again.
    Stop,
    /// A checkpoint.
    Complete,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    // Few slots, spread over the table, so that events meet.
    let slot = || prop_oneof![0_u64..40, 8000_u64..8010, 16_370_u64..16_384];
    let event = prop_oneof![
        8 => (slot(), 0_u64..1000).prop_map(|(slot, n)| Event::Enter(slot, n)),
        4 => slot().prop_map(Event::Remove),
        4 => (slot(), prop_oneof![Just(R_R), Just(R_C), Just(R_R | R_C)]).prop_map(|(slot, rc)| Event::Touch(slot, rc)),
        8 => (proptest::option::of(0_u64..3000), any::<bool>()).prop_map(|(max, limited)| Event::Iterate(max, limited)),
        3 => (slot(), 1_usize..9).prop_map(|(slot, count)| Event::Lookup(slot, count)),
        1 => Just(Event::Reset),
        1 => (18_u32..20).prop_map(Event::Resize),
        1 => Just(Event::Retry),
        2 => Just(Event::Stop),
        1 => Just(Event::Complete),
    ];
    proptest::collection::vec(event, 0..60)
}

fn run(events: &[Event], options: SaveOptions) -> Result<(), String> {
    let mut migration = Migration::new(&Setting { factory: &ModelFactory, options }, ORDER)?;
    let model = Model::new(ORDER);
    model.set_costs(htab_model::model::Costs { call_ns: 300, slot_ns: 1, entry_ns: 40 });
    migration.source = VmHost::new(Arc::new(model.clone()), Some(ORDER));
    migration.setup()?;
    let mut resized = false;
    for event in events {
        if let Event::Enter(..) | Event::Remove(_) | Event::Touch(..) | Event::Reset | Event::Resize(_) =
            event
        {
            migration.saver.vm_state(true);
        }
        match *event {
            Event::Stop => migration.saver.vm_state(false),
            // Its size would have no place in the body.
            Event::Complete if resized => {}
            Event::Complete => migration.complete()?,
            Event::Enter(slot, n) => {
                let (v, r) = hpte(n);
                model.enter(slot, v, r & !(R_R | R_C));
            }
            Event::Remove(slot) => _ = model.remove(slot),
            Event::Touch(slot, rc) => _ = model.touch(slot, rc),
            Event::Iterate(max, limited) => {
                let mut out = Output { limited, ..Output::default() };
                migration.iterate_into(&mut out, max)?;
                resized = false;
            }
            Event::Lookup(slot, count) => {
                let count = count.min(usize::try_from(model.slots() - slot).unwrap_or(1));
                read_hptes(&migration.source, &migration.saver, Slot(slot), count as u64)
                    .map_err(|error| error.to_string())?;
            }
            Event::Reset | Event::Resize(_) => {
                let order =
                    if let Event::Resize(order) = event { *order } else { model.order().unwrap_or(ORDER) };
                resized |= model.order() != Some(order);
                migration.saver.quiesce();
                migration.source.replace(order).map_err(|errno| format!("errno {errno}"))?;
                migration.saver.resume(&migration.source).map_err(|error| error.to_string())?;
            }
            Event::Retry => {
                migration.saver.cleanup().map_err(|error| error.to_string())?;
                migration.setup()?;
                resized = false;
            }
        }
    }
    if resized {
        migration.iterate(None)?;
    }
    migration.complete()?;
    migration.arrive(usize::MAX)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_is_lost(events in events()) {
        for options in [PLAIN, AHEAD] {
            if let Err(why) = run(&events, options) {
                prop_assert!(false, "{why} ({options:?})");
            }
        }
    }
}

#[test]
fn the_time_bound_ends_an_iterate_between_reads() {
    let (model, host) = guest();
    let saver = Saver::default();
    setup(&saver, &host).expect("setup");
    model.set_costs(htab_model::model::Costs { call_ns: 1000, slot_ns: 0, entry_ns: 0 });
    let before = model.stats().reads;
    let progress = saver.iterate(&host, &mut Output::default(), Some(Nanos(0))).expect("iterate");
    assert_eq!((progress, model.stats().reads - before), (Progress::More, 1));
}
