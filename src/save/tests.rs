// SPDX-License-Identifier: GPL-2.0-or-later
//! The rule that ends a complete, on a table so small that every case can be tried: each position of the sweep, each set of
//! changed slots, each size of reads.
//!
//! The table is a double of [`Source`] with 16 slots, since no real one has less than 16,384. It reads as the kernel does:
//! on from where the last read ended, past clean slots for nothing, until the buffer is full or the table ends.

use super::*;
use crate::error::Errno;
use crate::format::hpte::Order;
use crate::host::Nanos;
use crate::host::StreamWriter;
use crate::host::{Clock, SystemClock};
use crate::host::{HptFd, OpenOptions};
use crate::save::ahead::{Activity, Queue, ReadAhead};
use crate::save::source::Source;
use crate::save::sweep::Read;
use crate::save::{Progress, Saver};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};

const SLOTS: u64 = 16;

/// The table, from outside.
#[derive(Default)]
pub struct Small {
    /// The slots that changed since they were last told.
    pub changed: AtomicU16,
    /// Slots that reads passed so far.
    pub passed: AtomicU64,
}

/// The table, being swept.
pub struct SmallSource {
    pub table: Arc<Small>,
    pub position: u64,
    pub pass: u64,
    /// The most slots that a read tells.
    pub room: u64,
}

impl Source for SmallSource {
    fn read(&mut self, buf: &mut [u8], _: &dyn Clock, _: Option<Nanos>) -> Result<Chunk, Error> {
        let mut tally = Tally::default();
        let began = self.position;
        while self.position < SLOTS && tally.records < self.room {
            let bit = 1 << self.position;
            let changed = self.table.changed.fetch_and(!bit, Relaxed) & bit != 0;
            if changed || self.pass == 1 {
                let at = usize::try_from(tally.bytes).unwrap();
                let index = u32::try_from(self.position).unwrap();
                let run = RecordHeader { index, n_valid: 0, n_invalid: 1 };
                buf[at..at + HEADER_BYTES].copy_from_slice(&StreamHeader(run).to_bytes());
                tally.count(run);
            }
            self.position += 1;
        }
        let slots = self.position - began;
        self.table.passed.fetch_add(slots, Relaxed);
        let wrapped = self.position == SLOTS;
        self.position %= SLOTS;
        self.pass += u64::from(wrapped);
        Ok(Chunk { tally, slots, wrapped })
    }

    fn position(&self) -> Slot {
        Slot(self.position)
    }

    fn pass(&self) -> u64 {
        self.pass
    }

    fn slots(&self) -> u64 {
        SLOTS
    }
}

/// Which slots the destination heard of.
#[derive(Default)]
pub struct Heard(pub u16);

impl StreamWriter for Heard {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.len() % HEADER_BYTES == 0 {
            for header in bytes.chunks_exact(HEADER_BYTES) {
                let StreamHeader(run) = StreamHeader::parse(header.try_into().unwrap());
                // Not the record that ends a body.
                self.0 |= u16::from(run.n_invalid > 0) << run.index;
            }
        }
        Ok(())
    }

    fn rate_limited(&mut self) -> bool {
        true
    }
}

/// A host that is asked for nothing but the time.
#[derive(Default)]
pub struct NoHost(SystemClock);

impl Clock for NoHost {
    fn now(&self) -> Nanos {
        self.0.now()
    }
}

impl Host for NoHost {
    fn clock(&self) -> &dyn Clock {
        self
    }
    fn table(&self) -> Result<Table, Error> {
        Ok(Table::None)
    }
    fn allocate(&self, _: Order) -> Result<(), Errno> {
        Err(Errno::EIO)
    }
    fn free(&self) -> Result<(), Errno> {
        Err(Errno::EIO)
    }
    fn open(&self, _: OpenOptions) -> Result<Box<dyn HptFd>, Errno> {
        Err(Errno::EIO)
    }
}

/// A save in mid-sweep.
pub struct Case {
    pub pass: u64,
    pub position: u64,
    pub changed: u16,
    pub room: u64,
}

impl Case {
    /// Every one. In a first pass what changed from the position on makes no difference: it is told in any case. A read with
    /// room for one more than changed is as good as any larger one.
    pub fn each(mut try_it: impl FnMut(&Case)) {
        for position in 0..SLOTS {
            for changed in 0..=u16::MAX {
                for room in 1..=u64::from(changed.count_ones()) + 1 {
                    try_it(&Case { pass: 2, position, changed, room });
                }
            }
            for changed in 0..1 << position {
                for room in 1..=SLOTS + 1 {
                    try_it(&Case { pass: 1, position, changed, room });
                }
            }
        }
    }

    pub fn source(&self) -> (Arc<Small>, SmallSource) {
        let table = Arc::new(Small { changed: AtomicU16::new(self.changed), ..Small::default() });
        let source = SmallSource {
            table: Arc::clone(&table),
            position: self.position,
            pass: self.pass,
            room: self.room,
        };
        (table, source)
    }

    /// What the destination has to hear.
    pub fn due(&self) -> u16 {
        let ahead = if self.pass == 1 { u16::MAX << self.position } else { 0 };
        self.changed | ahead
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Case { pass, position, changed, room } = self;
        write!(f, "pass {pass} at slot {position}, changed {changed:#018b}, {room} to a read")
    }
}

/// In a save, of whatever table is put in.
fn saver() -> Saver {
    let saver = Saver::default();
    saver.setup(&NoHost::default(), &mut Heard::default(), SaveOptions::default()).unwrap();
    saver
}

fn in_call(source: SmallSource) -> Phase {
    let sweep = Sweep::of(&source, DutyCycle::DEFAULT);
    Phase::Sweeping(Reader::InCall(Box::new(source)), sweep)
}

fn saving(case: &Case, saver: &Saver) -> Arc<Small> {
    let (table, source) = case.source();
    *saver.feed() = Session { phase: in_call(source), ..Session::default() };
    table
}

/// The most that reads pass which end a complete as soon as they may: the last one may begin a slot before the start, and
/// it goes on to the table's end.
fn most_passed(position: u64) -> u64 {
    if position == 0 { SLOTS } else { 2 * SLOTS - position }
}

#[test]
fn complete_loses_nothing_and_reads_no_further_than_it_must() {
    let saver = saver();
    let mut cases = 0_u64;
    Case::each(|case| {
        let table = saving(case, &saver);
        let mut heard = Heard::default();
        saver.complete(&NoHost::default(), &mut heard).unwrap();
        assert_eq!(heard.0, case.due(), "{case}");
        let passed = table.passed.load(Relaxed);
        assert!(passed >= SLOTS && passed <= most_passed(case.position), "{case}: {passed} slots passed");
        cases += 1;
    });
    println!("{cases} cases");
}

#[test]
fn what_was_passed_before_the_stop_does_not_count_and_what_was_passed_after_does() {
    let saver = saver();
    let host = NoHost::default();
    // 256 of the sets of changes, each with every other set after the reads.
    for position in 0..SLOTS {
        for (before, after, told) in (0..=u16::MAX).map(|set| (set & 0xff, set >> 8, set % 3 == 0)) {
            let spread = |set: u16| set | set << 8;
            let case = Case { pass: 2, position, changed: spread(before), room: 3 };
            saver.vm_state(true);
            let table = saving(&case, &saver);
            let mut heard = Heard::default();
            saver.iterate(&host, &mut heard, None).unwrap();
            // The last changes, and the stop.
            table.changed.fetch_or(spread(after).rotate_left(3), Relaxed);
            let due = heard.0 | table.changed.load(Relaxed);
            if told {
                saver.vm_state(false);
                saver.iterate(&host, &mut heard, None).unwrap();
                table.passed.store(0, Relaxed);
            }
            saver.complete(&host, &mut heard).unwrap();
            assert_eq!(heard.0, due, "{case}, then {after:#b}");
            if told {
                assert!(
                    table.passed.load(Relaxed) < most_passed(1),
                    "{case}: what was read since the stop counts"
                );
                table.passed.store(0, Relaxed);
                saver.complete(&host, &mut heard).unwrap();
                assert_eq!(table.passed.load(Relaxed), 0, "nothing is read twice for one stop");
                saver.written();
                saver.complete(&host, &mut heard).unwrap();
                assert!(table.passed.load(Relaxed) >= SLOTS, "but after a write of the host's");
            }
        }
    }
}

#[test]
fn each_complete_without_the_hosts_word_is_a_stop_of_its_own() {
    let saver = saver();
    let host = NoHost::default();
    let case = Case { pass: 2, position: 0, changed: 0, room: 17 };
    let table = saving(&case, &saver);
    for slot in [3, 15, 0] {
        table.changed.fetch_or(1 << slot, Relaxed);
        let mut heard = Heard::default();
        saver.complete(&host, &mut heard).unwrap();
        assert_eq!(heard.0, 1 << slot);
        assert_eq!(saver.pending(), 0);
    }
    assert_eq!(saver.iterate(&host, &mut Heard::default(), None).unwrap(), Progress::Clean);
    // The VM went on without a word.
    table.changed.store(1, Relaxed);
    assert_eq!(saver.iterate(&host, &mut Heard::default(), None).unwrap(), Progress::More);
    assert!(saver.pending() > 0, "as much as the last sweep told");
}

/// A save whose table is read ahead, by whoever calls `work`.
struct Pumped {
    saver: Saver,
    table: Arc<Small>,
    source: SmallSource,
    queue: SharedQueue,
    buf: Vec<u8>,
}

impl Pumped {
    fn begun(case: &Case, saver: Saver) -> Pumped {
        let (table, source) = case.source();
        let sweep = Sweep::of(&source, DutyCycle::DEFAULT);
        let queue = SharedQueue::new(Queue::new(sweep, 1 << 20));
        let ahead = ReadAhead::without_thread(queue.clone(), Arc::new(SystemClock::default()), saver.halt());
        *saver.feed() = Session { phase: Phase::Sweeping(Reader::Ahead(ahead), sweep), ..Session::default() };
        Pumped { saver, table, source, queue, buf: vec![0; 200] }
    }

    /// A read, in the middle of which something happens.
    fn read(&mut self, meanwhile: impl FnOnce(&Saver, &Small)) {
        let stop = self.queue.begin_read().expect("it is not to end");
        let chunk = self.source.read(&mut self.buf, &SystemClock::default(), None).unwrap();
        meanwhile(&self.saver, &self.table);
        let records = self.buf[..usize::try_from(chunk.tally.bytes).unwrap()].to_vec();
        self.queue.end_read(Ok((Read { chunk, stop, time: Default::default() }, records)));
    }

    /// All that a thread would read now.
    fn work(&mut self) {
        while self.queue.activity() == Activity::Reading {
            self.read(|_, _| ());
        }
    }
}

#[test]
fn what_is_read_ahead_since_the_stop_loses_nothing_and_reads_no_further_than_it_must() {
    let mut saver = saver();
    let host = NoHost::default();
    Case::each(|case| {
        saver.vm_state(true);
        let mut save = Pumped::begun(case, std::mem::take(&mut saver));
        save.saver.vm_state(false);
        save.work();
        let passed = save.table.passed.load(Relaxed);
        let mut heard = Heard::default();
        save.saver.complete(&host, &mut heard).unwrap();
        assert_eq!(heard.0, case.due(), "{case}");
        assert!(passed >= SLOTS && passed <= most_passed(case.position), "{case}: {passed} slots passed");
        assert_eq!(save.table.passed.load(Relaxed), passed, "{case}: complete reads nothing");
        saver = save.saver;
    });
}

#[test]
fn a_read_that_the_stop_comes_in_the_middle_of_does_not_count() {
    let mut saver = saver();
    let host = NoHost::default();
    // Each of 256 sets of changes before the read, with each after it.
    for position in 0..SLOTS {
        for (before, after) in (0..=u16::MAX).map(|set| (set & 0xff, set >> 8)) {
            let spread = |set: u16| set | set << 8;
            let case = Case { pass: 2, position, changed: spread(before), room: 3 };
            saver.vm_state(true);
            let mut save = Pumped::begun(&case, std::mem::take(&mut saver));
            save.read(|saver, table| {
                table.changed.fetch_or(spread(after), Relaxed);
                saver.vm_state(false);
            });
            save.work();
            let mut heard = Heard::default();
            save.saver.complete(&host, &mut heard).unwrap();
            assert_eq!(heard.0, spread(before | after), "{case}, then {after:#b}");
            assert_eq!(save.table.changed.load(Relaxed), 0, "{case}, then {after:#b}");
            saver = save.saver;
        }
    }
}
