// SPDX-License-Identifier: GPL-2.0-or-later
//! What goes out, when, in what order, and how much waits.

use super::*;

#[test]
fn iterate_and_pending_do_not_wait_for_a_read() {
    let _alone = alone();
    let mut save = Save::begun(AHEAD);
    let gate = Arc::clone(&save.host.gate);
    // Nothing lets the read go on.
    let progress = without_waiting(&gate, || save.iterate(Some(u64::MAX >> 1)));
    assert_eq!(progress, Ok(Progress::More));
    assert_eq!(save.bodies[1], [0; 12], "nothing is ready");
    assert_eq!(without_waiting(&gate, || save.saver.pending()), Ok(SLOTS / 8 * 24));
    without_waiting(&gate, || save.saver.vm_state(true));
    wait_for(|| save.host.gate.waiting() == Some(Where::Before)).expect("in its first read");
    save.step(2);
    wait_for(|| save.saver.queue().bytes() > 0).expect("a chunk");
    assert_eq!(without_waiting(&gate, || save.iterate(Some(u64::MAX >> 1))), Ok(Progress::More));
    assert_eq!(
        save.bodies[2].len() as u64,
        12 + READ_BYTES,
        "what was read is sent, and no more is waited for"
    );
    save.host.gate.open();
    save.complete().expect("complete");
    save.arrive();
}

#[test]
fn a_reported_stop_does_not_wait_for_a_read_and_a_read_begun_before_does_not_count() {
    let _alone = alone();
    let mut save = Save::begun(AHEAD);
    let model = save.model.clone();
    let (v, r) = hpte(77);
    // The read that goes on while the VM stops has passed the slot of the last change.
    save.step(1);
    wait_for(|| save.host.gate.waiting() == Some(Where::After)).expect("in the first read");
    model.enter(3, v, r);
    save.saver.vm_state(false);
    let passed = model.stats().slots_read;
    save.host.gate.open();
    save.until(Activity::Parked);
    assert!(!model.is_dirty(3));
    assert!(model.stats().slots_read - passed >= SLOTS);
    let reads = model.stats().reads;
    save.complete().expect("complete");
    assert_eq!(model.stats().reads, reads, "all was read before complete");
    assert_eq!(save.saver.pending(), Ok(0));
    save.arrive();
}

#[test]
fn the_final_sweep_visits_each_slot_once() {
    let _alone = alone();
    for reported in [false, true] {
        let mut save = Save::begun(AHEAD);
        save.host.gate.open();
        while save.iterate(None) != Ok(Progress::Clean) {}
        save.until(Activity::Parked);
        let (v, r) = hpte(78);
        save.model.enter(SLOTS - 1, v, r);
        let passed = save.model.stats().slots_read;
        if reported {
            save.saver.vm_state(false);
        }
        save.complete().expect("complete");
        assert_eq!(save.model.stats().slots_read - passed, SLOTS);
        save.complete().expect("complete again");
        let sweeps = if reported { 1 } else { 2 };
        assert_eq!(save.model.stats().slots_read - passed, sweeps * SLOTS);
        save.arrive();
    }
}

#[test]
fn the_queue_keeps_its_bound_and_is_counted_exactly() {
    let _alone = alone();
    for limit in [0, MAX_CHUNK_BYTES, 3 * MAX_CHUNK_BYTES, 10 * MAX_CHUNK_BYTES - 1] {
        let mut save = Save::begun(SaveOptions { ahead: Some(limit), ..AHEAD });
        save.host.gate.open();
        let mut most = 0;
        let mut sent = 0;
        save.saver.vm_state(false);
        while save.saver.queue().activity() != Some(Activity::Parked) || sent < SLOTS * 16 {
            let queue = save.saver.queue();
            wait_for(|| queue.activity() != Some(Activity::Reading)).expect("full or parked");
            most = most.max(queue.bytes());
            let before = queue.bytes();
            let mut out = Output { limited: true, ..Output::default() };
            save.saver.iterate(&save.host, &mut out, None).expect("iterate");
            let records = out.bytes.len() - 12;
            assert!(records <= before || before == 0, "{records} bytes of {before}");
            sent += records as u64;
            save.bodies.push(out.bytes);
        }
        assert!(most <= limit.max(MAX_CHUNK_BYTES), "{most} bytes in a queue of {limit}");
        assert!(most + 2 * MAX_CHUNK_BYTES > limit, "a queue of {limit} is not filled: {most} bytes");
        save.complete().expect("complete");
        save.arrive();
    }
}

#[test]
fn what_is_pending_is_what_is_sent() {
    let _alone = alone();
    let mut save = Save::begun(AHEAD);
    save.saver.vm_state(false);
    save.host.gate.open();
    save.until(Activity::Parked);
    let mut pending = save.saver.pending().expect("a figure");
    assert_eq!(pending, 16 * SLOTS + 8 * SLOTS.div_ceil(READ_SLOTS), "all of the table, a record a read");
    while pending > 0 {
        let mut out = Output { limited: true, ..Output::default() };
        save.saver.iterate(&save.host, &mut out, Some(Nanos(1 << 40))).expect("iterate");
        let sent = out.bytes.len() as u64 - 12;
        assert_eq!(save.saver.pending(), Ok(pending - sent));
        pending -= sent;
        save.bodies.push(out.bytes);
    }
    save.complete().expect("complete");
    save.arrive();
}

#[test]
fn a_lookup_goes_out_behind_what_was_read_before_it() {
    let _alone = alone();
    let mut save = Save::begun(AHEAD);
    save.host.gate.open();
    save.until(Activity::Parked);
    // The first pass is in the queue, with slot 40 as it was. The lookup takes the mark of its change.
    let (v, r) = hpte(4000);
    save.model.enter(40, v, r);
    read_hptes(&save.host, &save.saver, Slot(40), 8).expect("a lookup");
    assert!(!save.model.is_dirty(40));
    save.complete().expect("complete");
    assert!(save.saver.stats().looked_up.records > 0);
    save.arrive();
}

#[test]
fn a_lookup_waits_for_the_read_that_is_under_way_and_none_begins_meanwhile() {
    let _alone = alone();
    let mut save = Save::begun(AHEAD);
    // The first read has been made, of slot 40 as it was, and is not in the queue yet.
    save.step(1);
    wait_for(|| save.host.gate.waiting() == Some(Where::After)).expect("after the first read");
    let (v, r) = hpte(4001);
    save.model.enter(40, v, r);
    while_reading(&save, || true, || read_hptes(&save.host, &save.saver, Slot(40), 8)).expect("a lookup");
    save.complete().expect("complete");
    save.arrive();
}

#[test]
fn the_first_pass_is_a_whole_table_in_order() {
    let _alone = alone();
    let mut save = Save::begun(AHEAD);
    save.host.gate.open();
    assert_eq!(save.iterate(None), Ok(Progress::More));
    let sent = records::replay(&records::of_body(&save.bodies[1]).expect("records"));
    assert!(sent == save.model.dump());
    save.complete().expect("complete");
    save.arrive();
}

#[test]
fn a_lookup_behind_a_sweep_that_nobody_waited_for_is_sent_too() {
    let _alone = alone();
    let mut save = Save::begun(AHEAD);
    save.host.gate.open();
    save.saver.vm_state(false);
    // All of it is passed, and what follows has nothing in it and stands before the lookup.
    assert_eq!(save.iterate(None), Ok(Progress::More));
    save.until(Activity::Parked);
    read_hptes(&save.host, &save.saver, Slot(40), 8).expect("a lookup");
    save.complete().expect("complete");
    assert_eq!(save.saver.pending(), Ok(0));
    save.arrive();
}
