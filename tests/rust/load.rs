// SPDX-License-Identifier: GPL-2.0-or-later
//! Loading what a peer sent that is broken, hostile or merely old, and tables that refuse.

use htab_harness::host::{Input, VmHost};
use htab_harness::memory::MemoryHost;
use htab_harness::records::to_body;
use htab_model::model::{Fault, Op};
use htab_model::record::{Record, hpte};
use htab_model::{Model, Vm};
use proptest::prelude::*;
use spapr_htab::inside::error::Error;
use spapr_htab::inside::load::Loader;
use spapr_htab::inside::stats::LoadStats;
use std::sync::Arc;

fn entries(n: u64) -> Vec<(u64, u64)> {
    (0..n).map(hpte).collect()
}

fn kernel(order: u32) -> (Model, VmHost) {
    let model = Model::new(order);
    let host = VmHost::new(Arc::new(model.clone()), Some(order));
    (model, host)
}

fn into_kernel(host: &VmHost, bytes: &[u8]) -> Result<LoadStats, Error> {
    let mut loader = Loader::default();
    let mut input = Input::new(bytes);
    let result = loader.load(host, &mut input, 1);
    assert_eq!(host.open_fds(), 0, "no fd stays open");
    assert!(result.is_err() || input.bytes.is_empty(), "a body is read to its end and no further");
    result.map(|()| loader.stats().clone())
}

fn into_memory(host: &MemoryHost, bytes: &[u8]) -> Result<LoadStats, Error> {
    let mut loader = Loader::default();
    loader.load(host, &mut Input::new(bytes), 1).map(|()| loader.stats().clone())
}

/// Loads into both kinds of table; both refuse alike and have loaded nothing. Returns the errno and the sentence.
fn refused(bytes: &[u8]) -> (i32, String) {
    let (model, host) = kernel(18);
    let memory = MemoryHost::new(18);
    let error = into_kernel(&host, bytes).expect_err("refused");
    assert_eq!(into_memory(&memory, bytes).expect_err("refused").to_string(), error.to_string());
    assert_eq!(model.dump(), [], "nothing of it is in the kernel's table");
    assert_eq!(memory.dump(), [], "nothing of it is in memory");
    (error.errno().number(), error.to_string())
}

#[test]
fn orders_that_cannot_be_are_refused_in_any_body() {
    for order in [1_u32, 6, 7, 17, 37, 46, 47, 64, 255, 0x8000_0012, 0xffff_fffe] {
        let (errno, sentence) = refused(&order.to_be_bytes());
        assert_eq!(errno, libc::EINVAL);
        assert!(sentence.contains(&format!("order {order} ")), "{sentence}");
    }
}

#[test]
fn records_outside_the_table_are_refused_by_name() {
    let cases = [
        Record::new(u32::MAX, &entries(1), 0),
        Record::new(u32::MAX, &[], 1),
        Record::new(16_384, &entries(1), 0),
        Record::new(16_383, &entries(2), 0),
        Record::new(16_380, &entries(2), 3),
        Record::new(0, &[], u16::MAX),
        Record::new(0x8000_0000, &entries(1), u16::MAX),
    ];
    for bad in cases {
        let (errno, sentence) = refused(&to_body(&[bad]));
        assert_eq!(errno, libc::EINVAL);
        assert!(sentence.contains("record 0") && sentence.contains("byte 4"), "{sentence}");
        assert!(sentence.contains("ends at slot 16383"), "{sentence}");
    }
    // The place counts the good records before it.
    let (model, host) = kernel(18);
    let bytes = to_body(&[
        Record::new(7, &entries(2), 3),
        Record::new(9000, &[], 1),
        Record::new(20_000, &entries(1), 0),
    ]);
    let sentence = into_kernel(&host, &bytes).expect_err("refused").to_string();
    assert!(sentence.contains("record 2") && sentence.contains("byte 52"), "{sentence}");
    assert!(model.dump().len() <= 2);
}

#[test]
fn a_stream_that_ends_too_early_is_neither_one_that_fails_nor_an_end() {
    let whole = to_body(&[Record::new(5, &entries(3), 2), Record::new(500, &[], 4)]);
    for cut in 0..whole.len() {
        let (errno, sentence) = refused_cut(&whole[..cut], None);
        assert_eq!(errno, libc::EIO);
        assert!(sentence.contains("ended at"), "cut at {cut}: {sentence}");
        let (errno, sentence) = refused_cut(&whole[..cut], Some(libc::ECONNRESET));
        assert_eq!(errno, libc::ECONNRESET);
        assert!(sentence.contains("failed at"), "cut at {cut}: {sentence}");
        let at = match cut {
            ..4 => "record 0 of section spapr/htab, at its byte 0",
            4..60 => "record 0 of section spapr/htab, at its byte 4",
            60..68 => "record 1 of section spapr/htab, at its byte 60",
            68.. => "record 2 of section spapr/htab, at its byte 68",
        };
        assert!(sentence.contains(at), "cut at {cut}: {sentence}");
    }
}

fn refused_cut(bytes: &[u8], then: Option<i32>) -> (i32, String) {
    let (_, host) = kernel(18);
    for most in [usize::MAX, 1] {
        let result = Loader::default().load(&host, &mut Input { bytes, most, then }, 1);
        assert_eq!(host.open_fds(), 0);
        let error = result.expect_err("cut");
        if most == 1 {
            return (error.errno().number(), error.to_string());
        }
    }
    unreachable!()
}

#[test]
fn records_without_a_table_are_refused() {
    let (_, host) = kernel(18);
    host.forget();
    let bytes = to_body(&[Record::new(5, &entries(1), 0)]);
    let error = into_kernel(&host, &bytes).expect_err("no table");
    assert!(error.to_string().contains("slot 5"), "{error}");
    assert_eq!(into_memory(&MemoryHost::default(), &bytes).expect_err("no table"), error);
    // An empty body touches nothing: a source sends one after postcopy, when vCPUs run here already.
    let (model, host) = kernel(18);
    model.set_vcpus_running(true);
    into_kernel(&host, &to_body(&[])).expect("an empty body");
    assert_eq!(model.stats().opens, 0);
}

#[test]
fn other_versions_are_refused() {
    let (_, host) = kernel(18);
    for version in [-1, 0, 2, i32::MAX] {
        let error = Loader::default().load(&host, &mut Input::new(&[]), version).expect_err("version");
        assert_eq!(error, Error::Version(version));
    }
}

#[test]
fn a_new_size_in_any_body_begins_anew() {
    let memory = MemoryHost::new(18);
    into_memory(&memory, &to_body(&[Record::new(1, &entries(4), 0)])).expect("records");
    let stats = into_memory(&memory, &[0, 0, 0, 19]).expect("a size");
    assert_eq!((memory.dump(), stats.tally.records), (vec![], 0));
    into_memory(&memory, &to_body(&[Record::new(20_000, &entries(1), 0)]))
        .expect("a slot of the larger table");
    into_memory(&memory, &[0xff; 4]).expect("no table");
    assert!(memory.memory().is_none());
}

#[test]
fn entries_of_an_unpatched_source_are_repaired() {
    // QEMU's dirty bit on the wire, and an entry counted as valid that is not (its race under TCG).
    let (v, r) = hpte(1);
    let bytes = to_body(&[Record::new(10, &[(v | 0x40, r), (v & !1, r), (0x40, 0), (v, r)], 2)]);
    let (model, host) = kernel(18);
    let memory = MemoryHost::new(18);
    for slot in 8..20 {
        model.enter(slot, v, 0);
        memory.memory().as_ref().expect("a table").store(slot, v, 0);
    }
    let stats = into_kernel(&host, &bytes).expect("repaired");
    assert_eq!(stats.demoted, 2);
    assert_eq!(into_memory(&memory, &bytes).expect("repaired").demoted, 2);
    let expected: Vec<_> = (8..20)
        .filter(|slot| ![11, 12, 14, 15].contains(slot))
        .map(|slot| (slot, v, if [10, 13].contains(&slot) { r } else { 0 }))
        .collect();
    assert_eq!(model.dump(), expected);
    assert_eq!(memory.dump(), expected);
    assert_eq!(memory.memory().as_ref().expect("a table").raw(10).0, v, "without the dirty bit");
}

#[test]
fn the_longest_records_there_can_be_are_taken() {
    let (model, host) = kernel(22);
    let long = entries(65_535);
    let bytes = to_body(&[Record::new(3, &long, 65_535), Record::new(140_000, &long, 0)]);
    into_kernel(&host, &bytes).expect("an unpatched TCG source sends such records");
    assert_eq!(model.dump().len(), 2 * 65_535);
}

#[test]
fn adjacent_records_are_joined_and_written_a_record_to_a_segment() {
    let (model, host) = kernel(20);
    let records: Vec<_> = (0..8192).map(|n| Record::new(n * 8, &entries(1), 7)).collect();
    into_kernel(&host, &to_body(&records)).expect("loaded");
    assert_eq!(model.stats().writes, 8192, "records that do not join");
    assert_eq!(model.stats().write_calls, 8, "1024 to a call");
    model.clear_stats();
    let joined: Vec<_> = (0..8192).map(|n| Record::new(n * 8, &entries(8), 0)).collect();
    into_kernel(&host, &to_body(&joined)).expect("loaded");
    assert_eq!(model.stats().writes, 2, "65,536 entries in as few records as there can be");
    assert_eq!(model.dump().len(), 65_536);
}

#[test]
fn a_refusing_kernel_is_quoted_with_the_slot() {
    // The slot of a bad entry in the middle of a joined record is found.
    let (v, r) = hpte(1);
    let mut many = vec![(v, r); 300];
    many[211] = (v | 1 << 63, r);
    let (model, host) = kernel(18);
    let error = into_kernel(&host, &to_body(&[Record::new(5, &[(v, r)], 2), Record::new(1000, &many, 0)]))
        .expect_err("EIO");
    assert_eq!(error.errno().number(), libc::EIO);
    assert!(error.to_string().contains("slot 1211 "), "{error}");
    assert!(model.dump().iter().any(|entry| entry.0 == 5), "the record before was applied");

    let (model, host) = kernel(18);
    model.set_vcpus_running(true);
    let error = into_kernel(&host, &to_body(&[Record::new(7, &[(v, r); 3], 2)])).expect_err("EBUSY");
    assert_eq!(error.errno().number(), libc::EBUSY);
    for words in ["slot 7", "the 4 slots after it", "vCPUs"] {
        assert!(error.to_string().contains(words), "{error}");
    }

    for errno in [libc::EINVAL, libc::EFAULT, libc::ENOSPC] {
        let (model, host) = kernel(18);
        // For good: the same again when the entry is tried alone.
        (0..4).for_each(|_| model.fail(Op::Write, 0, Fault::Errno(errno)));
        let error = into_kernel(&host, &to_body(&[Record::new(9, &[(v, r)], 0)])).expect_err("a fault");
        assert_eq!(error.errno().number(), errno);
        assert!(error.to_string().contains("slot 9"), "{error}");
    }
}

#[test]
fn interrupted_writes_go_on_and_short_ones_are_reported() {
    let records: Vec<_> = (0..100).map(|n| Record::new(n * 8, &entries(1), 0)).collect();
    for nth in [0, 1, 50] {
        let (model, host) = kernel(18);
        model.fail(Op::Write, nth, Fault::Errno(libc::EINTR));
        into_kernel(&host, &to_body(&records)).expect("EINTR is no failure");
        assert_eq!(model.dump().len(), 100);
        let (model, host) = kernel(18);
        model.fail(Op::Write, nth, Fault::Short(0));
        let result = into_kernel(&host, &to_body(&records));
        // Between two records it is as if the call had ended there; in the first one nothing was taken at all.
        match result {
            Ok(_) => assert_eq!((nth > 0, model.dump().len()), (true, 100)),
            Err(error) => assert!(nth == 0 && error.to_string().contains("0 of the 24 bytes"), "{error}"),
        }
    }
    let (model, host) = kernel(18);
    model.fail(Op::Open, 0, Fault::Errno(libc::EMFILE));
    let error = into_kernel(&host, &to_body(&records)).expect_err("EMFILE");
    assert!(error.to_string().contains("open files"), "{error}");
}

/// A body of records that is sound, with some bytes of it changed: most of it makes sense.
fn nearly_sound() -> impl Strategy<Value = Vec<u8>> {
    let some = (0_u32..16_500, 0_u64..6, 0_u16..300)
        .prop_map(|(index, n, n_invalid)| Record::new(index, &entries(n), n_invalid));
    let sound = proptest::collection::vec(some, 0..6).prop_map(|records| to_body(&records));
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (sound, changes, any::<prop::sample::Index>()).prop_map(|(mut bytes, changes, cut)| {
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(bytes.len().min(16 + cut.index(bytes.len() * 2)));
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// No bytes panic, both kinds of table agree, however the stream is cut into pieces, and what is taken is valid.
    #[test]
    fn any_bytes_are_taken_or_refused_alike(bytes in nearly_sound(), most in 1_usize..64) {
        // A size of 64 GiB is sound and nothing to try.
        prop_assume!(bytes.get(..4).is_none_or(|head| head[3] < 22 || head != [0, 0, 0, head[3]]));
        let (model, host) = kernel(18);
        let memory = MemoryHost::new(18);
        let one = Loader::default().load(&host, &mut Input::new(&bytes), 1);
        let other = Loader::default().load(&memory, &mut Input { bytes: &bytes, most, then: None }, 1);
        prop_assert_eq!(host.open_fds(), 0);
        match (one, other) {
            (Ok(()), other) => {
                prop_assert!(other.is_ok(), "{:?}", other);
                prop_assert_eq!(model.dump().len(), memory.dump().len());
            }
            // The kernel also looks into the entries; its refusal names one.
            (Err(Error::KernelWrite { .. }), _) => {}
            (Err(one), other) => prop_assert_eq!(Some(one), other.err()),
        }
    }
}

/// Bodies of a few records each into a kernel's table, with records that wait.
struct Gathering {
    model: Model,
    host: VmHost,
    loader: Loader,
}

impl Gathering {
    fn new() -> Gathering {
        let (model, host) = kernel(20);
        Gathering { model, host, loader: Loader::new(true) }
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let result = self.loader.load(&self.host, &mut Input::new(bytes), 1);
        assert_eq!(self.host.open_fds(), 0, "no fd stays open");
        result
    }

    fn finish(&mut self) -> Result<(), Error> {
        let result = self.loader.finish(&self.host);
        assert_eq!(self.host.open_fds(), 0, "no fd stays open");
        result
    }
}

/// Records 40 to a body, none of which join.
fn forty(nth: u32) -> Vec<u8> {
    to_body(&(0..40).map(|n| Record::new(nth * 400 + n * 10, &entries(1), 0)).collect::<Vec<_>>())
}

#[test]
fn records_wait_until_a_call_has_all_it_can_take() {
    let mut to = Gathering::new();
    for nth in 0..100 {
        to.load(&forty(nth)).expect("a body");
        assert_eq!(to.model.stats().write_calls, u64::from(nth * 40 + 39) / 1024, "after body {nth}");
    }
    assert_eq!(to.loader.stats().tally.records, 3 * 1024, "what waits is not counted");
    to.finish().expect("the rest");
    assert_eq!((to.model.stats().write_calls, to.model.dump().len()), (4, 4000));
    assert_eq!((to.loader.stats().tally.records, to.loader.stats().bodies), (4000, 100));
    let mut at_once = Loader::default();
    let (model, host) = kernel(20);
    (0..100).for_each(|nth| at_once.load(&host, &mut Input::new(&forty(nth)), 1).expect("a body"));
    assert_eq!(at_once.stats().crc.value(), to.loader.stats().crc.value());
    assert_eq!(model.dump(), to.model.dump());
    assert_eq!(model.stats().write_calls, 100);
}

#[test]
fn what_waits_goes_into_the_table_in_the_order_in_which_it_came() {
    let mut to = Gathering::new();
    to.load(&to_body(&[Record::new(5, &entries(3), 0)])).expect("a body");
    to.load(&to_body(&[Record::new(8, &entries(2), 1), Record::new(6, &[], 1)]))
        .expect("a body that goes on where the last ended");
    to.load(&to_body(&[])).expect("an empty body");
    to.load(&to_body(&[Record::new(5, &[], 1), Record::new(6, &entries(1), 0)]))
        .expect("a body that says otherwise");
    assert_eq!(to.model.stats().opens, 0);
    to.finish().expect("all");
    let slots: Vec<_> = to.model.dump().iter().map(|(slot, ..)| *slot).collect();
    assert_eq!(slots, [6, 7, 8, 9]);
    to.finish().expect("nothing");
    assert_eq!(to.model.stats().opens, 1);
}

#[test]
fn nothing_waits_after_the_end_a_failure_or_another_table() {
    // The guest may run: nobody would see to what comes now.
    let mut to = Gathering::new();
    to.finish().expect("nothing");
    to.load(&to_body(&[Record::new(5, &entries(3), 0)])).expect("a body");
    assert_eq!(to.model.dump().len(), 3);
    // The next migration's do.
    to.load(&[0, 0, 0, 20]).expect("a size");
    to.load(&to_body(&[Record::new(5, &entries(3), 0)])).expect("a body");
    assert_eq!((to.model.dump().len(), to.loader.abandon(), to.loader.abandon()), (0, 1, 0));

    let mut to = Gathering::new();
    to.load(&forty(1)).expect("a body");
    to.load(&to_body(&[Record::new(u32::MAX, &entries(1), 0)])).expect_err("a slot that is not there");
    to.finish().expect("nothing");
    assert_eq!(to.model.dump(), []);

    let mut to = Gathering::new();
    to.load(&forty(1)).expect("a body");
    to.load(&[0, 0, 0, 18]).expect("another size");
    to.finish().expect("nothing");
    assert_eq!((to.model.dump(), to.loader.stats().tally.records), (vec![], 0));
}

#[test]
fn a_refusal_of_what_waited_is_reported_in_the_end() {
    let (v, r) = hpte(1);
    let mut to = Gathering::new();
    to.load(&to_body(&[Record::new(700, &[(v | 1 << 63, r)], 0)])).expect("it waits");
    let error = to.finish().expect_err("refused").to_string();
    assert!(error.contains("slot 700"), "{error}");

    let mut to = Gathering::new();
    to.load(&forty(1)).expect("a body");
    to.host.replace(22).expect("the host's own doing");
    assert_eq!(to.finish(), Err(Error::TableReplaced));
    to.load(&to_body(&[Record::new(5, &entries(1), 0)])).expect("nothing waits");
    assert_eq!(to.model.dump().len(), 1);

    let mut to = Gathering::new();
    to.load(&forty(1)).expect("a body");
    to.host.forget();
    assert_eq!(to.load(&forty(2)), Err(Error::TableReplaced));
}

#[test]
fn records_for_a_table_in_memory_do_not_wait() {
    let memory = MemoryHost::new(18);
    Loader::new(true)
        .load(&memory, &mut Input::new(&to_body(&[Record::new(5, &entries(3), 0)])), 1)
        .expect("a body");
    assert_eq!(memory.dump().len(), 3);
}
