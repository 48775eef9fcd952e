// SPDX-License-Identifier: GPL-2.0-or-later
//! The rule that ends a complete, on a table so small that every case can be tried: each position of the sweep, each
//! set of changed slots, each size of reads.
//!
//! The table is a double of [`Source`] with 16 slots, since no real one has less than 16,384. It reads as the kernel
//! does: on from where the last read ended, past clean slots for nothing, until the buffer is full or the table ends.

use super::*;
use crate::error::Errno;
use crate::format::hpte::{Order, Slot};
use crate::format::record::Tally;
use crate::host::{Clock, HptFd, Nanos, OpenOptions, StreamWriter, SystemClock};
use crate::save::queue::{Activity, Queue};
use crate::save::source::{Chunk, Position};
use crate::save::sweep::{Read, Sweep};
use crate::save::{Progress, Saver};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};

const SLOTS: u64 = 16;

/// The table, from outside.
#[derive(Default)]
pub struct Small {
    /// The slots that changed since they were last reported.
    pub changed: AtomicU16,
    /// Slots that reads visited so far.
    pub visited: AtomicU64,
}

/// The table, being swept.
pub struct SmallSource {
    pub table: Arc<Small>,
    /// The most slots that a read reports.
    pub room: u64,
}

impl Source for SmallSource {
    fn slots(&self) -> u64 {
        SLOTS
    }

    fn read(
        &mut self,
        at: Position,
        buf: &mut [u8],
        _: &dyn Clock,
        _: Option<Nanos>,
    ) -> Result<Chunk, Error> {
        let mut tally = Tally::default();
        let mut slot = at.slot.0;
        while slot < SLOTS && tally.records < self.room {
            let bit = 1 << slot;
            let changed = self.table.changed.fetch_and(!bit, Relaxed) & bit != 0;
            if changed || at.pass == 1 {
                let to = usize::try_from(tally.bytes).unwrap();
                let header = RecordHeader { index: u32::try_from(slot).unwrap(), n_valid: 0, n_invalid: 1 };
                buf[to..to + HEADER_BYTES].copy_from_slice(&header.to_stream());
                tally.count(header);
            }
            slot += 1;
        }
        let slots = slot - at.slot.0;
        self.table.visited.fetch_add(slots, Relaxed);
        Ok(Chunk { tally, slots })
    }
}

/// Which slots the destination heard of.
#[derive(Default)]
pub struct Heard(pub u16);

impl StreamWriter for Heard {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.len() % HEADER_BYTES == 0 {
            for header in bytes.chunks_exact(HEADER_BYTES) {
                let header = RecordHeader::from_stream(header.try_into().unwrap());
                // Not the record that ends a body.
                self.0 |= u16::from(header.n_invalid > 0) << header.index;
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
    /// Every one. In a first pass what changed from the position on makes no difference: it is reported in any case. A
    /// read with room for one more than changed is as good as any larger one.
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
        let source = SmallSource { table: Arc::clone(&table), room: self.room };
        (table, source)
    }

    pub fn sweep(&self) -> Sweep {
        let at = Position { slot: Slot(self.position), pass: self.pass };
        Sweep::new(SLOTS, DutyCycle::DEFAULT).starting_at(at)
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

fn saving(case: &Case, saver: &Saver) -> Arc<Small> {
    let (table, source) = case.source();
    let mut session = saver.session();
    session.end();
    saver.queue().open(case.sweep(), 0, None);
    session.phase = Phase::Open(Reader::of_caller(saver.queue(), Box::new(source)));
    table
}

/// The most that reads pass which end a complete as soon as they may: the last one may begin a slot before the start,
/// and it goes on to the table's end.
fn most_visited(position: u64) -> u64 {
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
        let visited = table.visited.load(Relaxed);
        assert!(
            visited >= SLOTS && visited <= most_visited(case.position),
            "{case}: {visited} slots visited"
        );
        cases += 1;
    });
    println!("{cases} cases");
}

#[test]
fn what_was_visited_before_the_stop_does_not_count_and_what_was_visited_after_does() {
    let saver = saver();
    let host = NoHost::default();
    // 256 of the sets of changes, each with every other set after the reads.
    for position in 0..SLOTS {
        for (before, after, reported) in (0..=u16::MAX).map(|set| (set & 0xff, set >> 8, set % 3 == 0)) {
            let spread = |set: u16| set | set << 8;
            let case = Case { pass: 2, position, changed: spread(before), room: 3 };
            saver.vm_state(true);
            let table = saving(&case, &saver);
            let mut heard = Heard::default();
            saver.iterate(&host, &mut heard, None).unwrap();
            // The last changes, and the stop.
            table.changed.fetch_or(spread(after).rotate_left(3), Relaxed);
            let due = heard.0 | table.changed.load(Relaxed);
            if reported {
                saver.vm_state(false);
                saver.iterate(&host, &mut heard, None).unwrap();
                table.visited.store(0, Relaxed);
            }
            saver.complete(&host, &mut heard).unwrap();
            assert_eq!(heard.0, due, "{case}, then {after:#b}");
            if reported {
                assert!(
                    table.visited.load(Relaxed) < most_visited(1),
                    "{case}: what was read since the stop counts"
                );
                table.visited.store(0, Relaxed);
                saver.complete(&host, &mut heard).unwrap();
                assert_eq!(table.visited.load(Relaxed), 0, "nothing is read twice for one stop");
                saver.disturbed();
                saver.complete(&host, &mut heard).unwrap();
                assert!(table.visited.load(Relaxed) >= SLOTS, "but after a write of the host's");
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
        assert_eq!(saver.pending(), Ok(0));
    }
    assert_eq!(saver.iterate(&host, &mut Heard::default(), None).unwrap(), Progress::Clean);
    // The VM went on without a word.
    table.changed.store(1, Relaxed);
    assert_eq!(saver.iterate(&host, &mut Heard::default(), None).unwrap(), Progress::More);
    assert!(saver.pending().unwrap() > 0, "as much as the last sweep reported");
}

/// A save whose table is read ahead, by whoever calls `work`.
struct Pumped {
    saver: Saver,
    table: Arc<Small>,
    source: SmallSource,
}

impl Pumped {
    fn begun(case: &Case, saver: Saver) -> Pumped {
        let (table, source) = case.source();
        {
            let mut session = saver.session();
            session.end();
            saver.queue().open(case.sweep(), 0, Some(1 << 20));
            session.phase =
                Phase::Open(Reader::without_thread(saver.queue(), Arc::new(SystemClock::default())));
        }
        Pumped { saver, table, source }
    }

    fn queue(&self) -> &Queue {
        self.saver.queue()
    }

    /// A read, in the middle of which something happens.
    fn read(&mut self, meanwhile: impl FnOnce(&Saver, &Small)) {
        let job = self.queue().wait_for_job().expect("it is not to end");
        let mut buf = vec![0; 200];
        let chunk = self.source.read(job.at, &mut buf, &SystemClock::default(), None).unwrap();
        meanwhile(&self.saver, &self.table);
        let read = Read { chunk, stop: job.stop, began: Nanos(0), ended: Nanos(0) };
        self.queue().finish_job(Ok((read, buf)));
    }

    /// All that a thread would read now.
    fn work(&mut self) {
        while self.queue().activity() == Some(Activity::Reading) {
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
        let visited = save.table.visited.load(Relaxed);
        let mut heard = Heard::default();
        save.saver.complete(&host, &mut heard).unwrap();
        assert_eq!(heard.0, case.due(), "{case}");
        assert!(
            visited >= SLOTS && visited <= most_visited(case.position),
            "{case}: {visited} slots visited"
        );
        assert_eq!(save.table.visited.load(Relaxed), visited, "{case}: complete reads nothing");
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

#[test]
fn quiesce_ends_a_complete_that_waits_between_two_reads() {
    let saver = saver();
    let case = Case { pass: 2, position: 0, changed: 0, room: 17 };
    // No thread reads, so complete waits.
    let save = Pumped::begun(&case, saver);
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| done.send(save.saver.complete(&NoHost::default(), &mut Heard::default())).unwrap());
        while save.saver.queue().waiting() == 0 {
            std::thread::yield_now();
        }
        save.saver.quiesce();
        let result = ended.recv_timeout(std::time::Duration::from_secs(20));
        // Whatever came of it, it is over now.
        save.saver.fail(Error::Internal(String::new()));
        assert_eq!(
            result.expect("complete has ended"),
            Err(Error::State("the table was replaced during complete"))
        );
    });
}

#[test]
fn while_the_vm_is_stopped_an_iterate_with_nothing_to_send_waits_as_long_as_it_may() {
    let save = Pumped::begun(&Case { pass: 2, position: 0, changed: 0, room: 17 }, saver());
    for (running, most) in [(true, 10_000_000_000), (false, 20_000_000)] {
        save.saver.vm_state(running);
        let began = std::time::Instant::now();
        let progress = save.saver.iterate(&NoHost::default(), &mut Heard::default(), Some(Nanos(most)));
        assert_eq!(progress, Ok(Progress::More));
        assert_eq!(began.elapsed().as_nanos() >= u128::from(most), !running);
    }
}

/// A stream during whose writes the save fails, as it does if another thread's lookup cannot open the table anew.
struct Failing<'a>(&'a Saver);

impl StreamWriter for Failing<'_> {
    fn put(&mut self, _: &[u8]) -> Result<(), Errno> {
        self.0.fail(Error::Internal(String::new()));
        Ok(())
    }

    fn rate_limited(&mut self) -> bool {
        false
    }
}

#[test]
fn a_save_that_fails_in_the_middle_of_a_body_ends_it_with_its_error() {
    let saver = saver();
    saving(&Case { pass: 2, position: 0, changed: 0, room: 17 }, &saver);
    assert_eq!(saver.complete(&NoHost::default(), &mut Failing(&saver)), Err(Error::Internal(String::new())));
}
