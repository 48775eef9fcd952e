// SPDX-License-Identifier: GPL-2.0-or-later
//! What the library tells of a save and a load.

use super::*;

#[test]
fn passes_count_from_1() {
    let from = source(Kind::Kernel, ORDER, 0);
    let wire = Wire::default();
    from.setup(&wire).expect("setup");
    from.pass(1).expect_err("not begun");
    settle(&from, &wire);
    assert_eq!(from.pass(0).expect_err("no pass").errno, libc::EINVAL);
    assert_eq!(from.pass(1).expect("the first pass").valid, SLOTS.div_ceil(61));
    assert_eq!(from.pass(2).expect("the second").valid, 0);
    from.pass(3).expect_err("not begun");
}

#[test]
fn what_did_not_arrive_as_it_was_sent_is_named() {
    const SIZE: usize = size_of::<SpaprHtabSum>();
    for from in sources() {
        let wire = Wire::default();
        assert_eq!(from.sum(), SpaprHtabSum::default(), "nothing was sent");
        from.setup(&wire).expect("setup");
        settle(&from, &wire);
        from.complete(&wire).expect("complete");
        from.cleanup().expect("cleanup");
        let (sum, stats) = (from.sum(), from.stats());
        let (crc32, records, bytes) = (stats.save_crc32, stats.save_records, stats.save_bytes);
        assert_eq!(sum, SpaprHtabSum { order: ORDER, crc32, records, bytes });

        let to = Handle::new(World::new(Kind::Kernel, None), SPAPR_HTAB_GATHER, None);
        while wire.left() > 0 {
            to.load(&wire, 1).expect("a section");
        }
        to.load_check(SIZE, &sum).expect("all came, and what waited is in the table");
        assert_eq!(to.world.dump(), from.world.dump());
        let all = [
            (format!("order {ORDER} came, 19 went; "), SpaprHtabSum { order: 19, ..sum }),
            (format!("CRC-32 {crc32:08x} came, 00000001 went; "), SpaprHtabSum { crc32: 1, ..sum }),
            (format!("records {records} came, 2 went; "), SpaprHtabSum { records: 2, ..sum }),
            (format!("bytes {bytes} came, 3 went; "), SpaprHtabSum { bytes: 3, ..sum }),
        ];
        for (nth, (words, sent)) in all.iter().enumerate() {
            let failure = to.load_check(SIZE, sent).expect_err(words);
            assert_eq!(failure.errno, libc::EBADMSG);
            let begin = format!("the hash table did not arrive as it was sent: {words}section spapr/htab ");
            assert!(failure.sentence.starts_with(&begin), "{}", failure.sentence);
            // An older program knows the order and the CRC only.
            assert_eq!(to.load_check(8, sent).is_err(), nth < 2);
        }
        let other = SpaprHtabSum { order: 19, crc32: 1, records: 2, bytes: 3 };
        let sentence = to.load_check(SIZE, &other).expect_err("nothing is right").sentence;
        assert!(sentence.contains(&all.map(|(words, _)| words).concat()), "{sentence}");
        // The order is that of the table there is now.
        to.world.forget();
        let sentence = to.load_check(SIZE, &sum).expect_err("no table").sentence;
        assert!(sentence.contains(&format!("sent: order 0 came, {ORDER} went; section")), "{sentence}");
        to.load(&Wire::of(&19_u32.to_be_bytes()), 1).expect("a size");
        to.load(&Wire::of(&many(10)), 1).expect("records that wait");
        to.world.plan.fail(Call::Write, 0, Fault::Errno(libc::EBUSY));
        assert_eq!(to.load_check(SIZE, &sum).expect_err("vCPUs run").errno, libc::EBUSY);
    }
}

#[test]
fn what_the_library_did_is_described_in_lines() {
    let from = source(Kind::Kernel, ORDER, 0);
    let wire = Wire::default();
    from.setup(&wire).expect("setup");
    settle(&from, &wire);
    from.world.store(77, Some(hpte(99)));
    from.read_hptes(77, 1).expect("a lookup");
    from.complete(&wire).expect("complete");
    from.load(&Wire::of(&many(10)), 1).expect("a section");
    let stats = from.stats();
    let line = |what: &str, pass: SpaprHtabPass| {
        let SpaprHtabPass { records, valid, invalid, bytes, time_ns } = pass;
        let us = time_ns / 1000;
        format!("  {what}: {valid} valid, {invalid} invalid, {records} records, {bytes} bytes, {us} us")
    };
    let mut wanted = vec![
        format!("spapr-htab {}", env!("CARGO_PKG_VERSION")),
        format!("saved: order 18, CRC-32 {:08x}, pending 0 bytes", stats.save_crc32),
    ];
    let passes = 1..=stats.save_passes;
    wanted.extend(passes.map(|nth| line(&format!("pass {nth}"), from.pass(nth).expect("a pass"))));
    wanted.extend([
        line("all", stats.save_total),
        line("stopped", stats.save_stopped),
        line("looked up", stats.save_looked_up),
        format!("loaded: 1 sections, CRC-32 {:08x}, 0 demoted", stats.load_crc32),
        line("all", stats.load_total),
    ]);
    assert!(stats.save_passes >= 2 && stats.save_looked_up.valid > 0 && stats.load_total.records == 10);
    assert_eq!(from.describe(), wanted.join("\n") + "\n");
}
