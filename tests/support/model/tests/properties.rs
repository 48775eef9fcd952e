// SPDX-License-Identifier: GPL-2.0-or-later
//! Truths simple enough to be seen without knowing how the kernel does it, on random tables and histories.

use htab_model::model::{Config, Model};
use htab_model::record::{HEADER_SIZE, R_C, R_R, Record, Replay, hpte, parse};
use htab_model::vm::{HtabFd, Vm, WRITE};
use proptest::collection::vec;
use proptest::prelude::*;

const SLOTS: u32 = 16384;

/// What happens to a table while it is read.
#[derive(Clone, Debug)]
enum Step {
    Enter(u32, u64),
    Remove(u32),
    Touch(u32, u64),
    Protect(u32, u64),
    Read(usize),
}

/// Few slots, so that histories meet: around both ends, and a stretch in the middle.
fn slot() -> impl Strategy<Value = u32> {
    prop_oneof![0..12_u32, 8000..8040_u32, SLOTS - 12..SLOTS]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (slot(), 0..4000_u64).prop_map(|(slot, n)| Step::Enter(slot, n)),
        2 => slot().prop_map(Step::Remove),
        2 => (slot(), prop_oneof![Just(R_R), Just(R_C), Just(R_R | R_C)]).prop_map(|(s, rc)| Step::Touch(s, rc)),
        1 => (slot(), 0..4_u64).prop_map(|(slot, pp)| Step::Protect(slot, pp)),
        4 => count().prop_map(Step::Read),
    ]
}

/// Buffer sizes that can make progress.
fn count() -> impl Strategy<Value = usize> {
    prop_oneof![25..26_usize, 25..100_usize, 100..3000_usize]
}

fn change(model: &Model, step: &Step) {
    match *step {
        Step::Enter(slot, n) => {
            let (v, r) = hpte(n);
            // Half of them without R and C, so that there is something to harvest.
            model.enter(slot.into(), v, if n % 2 == 0 { r } else { r & !(R_R | R_C) });
        }
        Step::Remove(slot) => {
            model.remove(slot.into());
        }
        Step::Touch(slot, rc) => {
            model.touch(slot.into(), rc);
        }
        Step::Protect(slot, pp) => {
            model.protect(slot.into(), pp);
        }
        Step::Read(_) => {}
    }
}

fn read(fd: &mut Box<dyn HtabFd>, count: usize) -> Vec<Record> {
    let mut buf = vec![0x5a; count];
    let len = fd.read(&mut buf).expect("a read fails only with a bad buffer");
    assert!(len < count, "a buffer of {count} was filled to {len}");
    assert!(
        buf[len..].iter().all(|&b| b == 0x5a) || len + HEADER_SIZE <= count,
        "bytes behind what was read"
    );
    parse(&buf[..len]).expect("whole records")
}

fn model() -> Model {
    let model = Model::with(Config { stale_revmap: 1 << 62, ..Config::hash(18) });
    model.set_ram(8 << 20).expect("ram");
    model
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens between the reads and however large they are: once the guest stops, two sweeps in a
    /// row that find nothing mean that the destination has the table.
    #[test]
    fn everything_read_gives_the_table(before in vec(step(), 0..40), steps in vec(step(), 0..120), last in count()) {
        let model = model();
        before.iter().for_each(|step| change(&model, step));
        let mut fd = model.open(0, 0).expect("open");
        let mut replay = Replay::default();
        for step in &steps {
            change(&model, step);
            if let Step::Read(count) = *step {
                read(&mut fd, count).iter().for_each(|record| replay.apply(record));
            }
        }
        let mut zeros = 0;
        while zeros < 2 {
            let records = read(&mut fd, last);
            zeros = if records.is_empty() { zeros + 1 } else { 0 };
            records.iter().for_each(|record| replay.apply(record));
        }
        prop_assert_eq!(replay.dump(), model.dump());
        prop_assert_eq!(model.dirty_slots(), 0);
    }

    /// A read that left room for a header, an entry and one byte has wrapped: so one sweep from there, begun
    /// after the guest stopped, is enough, and a read never reports less than what it covers.
    #[test]
    fn one_sweep_after_the_stop_is_enough_from_index_0(steps in vec(step(), 0..80), last in count()) {
        let model = model();
        let mut fd = model.open(0, 0).expect("open");
        let mut replay = Replay::default();
        for step in &steps {
            change(&model, step);
            if let Step::Read(count) = *step {
                read(&mut fd, count).iter().for_each(|record| replay.apply(record));
            }
        }
        // To a wrap, and more changes after it.
        while read_into(&mut fd, 1 << 20, &mut replay) + 24 >= 1 << 20 {}
        steps.iter().rev().for_each(|step| change(&model, step));
        while read_into(&mut fd, last, &mut replay) + 24 >= last {}
        prop_assert_eq!(replay.dump(), model.dump());
    }

    /// The records of a source, written one a call, make the same table on a destination.
    #[test]
    fn what_was_read_can_be_written(steps in vec(step(), 0..80), count in count(), vectored: bool) {
        let (source, destination) = (model(), Model::new(18));
        steps.iter().for_each(|step| change(&source, step));
        let mut fd = source.open(0, 0).expect("open");
        let mut write = destination.open(WRITE, 0).expect("open");
        loop {
            let records = read(&mut fd, count);
            if records.is_empty() {
                break;
            }
            let bytes: Vec<_> = records.iter().map(Record::to_bytes).collect();
            let segments: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
            if vectored {
                prop_assert_eq!(write.writev(&segments), Ok(segments.concat().len()));
            } else {
                for segment in segments {
                    prop_assert_eq!(write.write(segment), Ok(segment.len()));
                }
            }
        }
        prop_assert_eq!(destination.dump(), source.dump());
    }

    /// No bytes bring the model down or make it claim more than 8 bytes too many.
    #[test]
    fn any_bytes_can_be_written(bytes in vec(prop_oneof![3 => Just(0_u8), 1 => Just(1_u8), 1 => any::<u8>()], 0..200)) {
        let model = model();
        match model.open(WRITE, 0).expect("open").write(&bytes) {
            Ok(written) => prop_assert!(written <= bytes.len() + 8),
            Err(errno) => prop_assert!(errno == libc::EINVAL || errno == libc::EIO),
        }
    }
}

fn read_into(fd: &mut Box<dyn HtabFd>, count: usize, replay: &mut Replay) -> usize {
    let records = read(fd, count);
    records.iter().for_each(|record| replay.apply(record));
    records.iter().map(|record| record.to_bytes().len()).sum()
}
