// SPDX-License-Identifier: GPL-2.0-or-later
//! What every sentence of the library has to be: about the hash table, in one line, with its cause once.

use spapr_htab::inside::error::{Access, Errno, Error, Place};
use spapr_htab::inside::format::hpte::{Order, Slot};
use spapr_htab::inside::format::record::{RecordHeader, WrongRecord};
use std::io;

/// The variants without an errno of others. A variant that is missing here does not compile in `carries`.
fn own() -> Vec<Error> {
    let (order, place, header) = (Order::MIN, Place::default(), RecordHeader::END);
    let slot = Slot(5);
    vec![
        Error::Argument("it is"),
        Error::State("it is"),
        Error::Reentered("save_setup"),
        Error::Order { order: 5 },
        Error::NoSuchSlot { slot, order },
        Error::Buffer { bytes: 8 },
        Error::Memory { bytes: 8, what: "something" },
        Error::KernelRecord { wrong: WrongRecord { header, why: "it is" }, slot },
        Error::FirstPassShort { end: slot, order },
        Error::KernelShort { slot, took: 4, gave: 8 },
        Error::SizeUnsent { order },
        Error::Truncated(place),
        Error::Version(2),
        Error::OutOfTable(place, header, order),
        Error::NoTable(place, header),
        Error::TableReplaced,
        Error::TooLate(order),
        Error::NotAsSent("it is".to_owned()),
        Error::Internal("it is".to_owned()),
    ]
}

/// The variants with one.
fn of(errno: Errno) -> Vec<Error> {
    let slot = Slot(5);
    vec![
        Error::Table(errno),
        Error::Open(Access::Read, errno),
        Error::Open(Access::Write, errno),
        Error::KernelRead { slot, pass: 1, errno },
        Error::KernelWrite { slot, slots: 3, errno },
        Error::StreamWrite { pass: 1, sent: 8, errno },
        Error::StreamRead(Place::default(), errno),
        Error::Allocate(Order::MIN, errno),
        Error::Free(errno),
    ]
}

/// Whether the variant carries an errno of others: whoever adds one comes by here, and to the lists above.
fn carries(error: &Error) -> bool {
    match error {
        Error::Argument(_)
        | Error::State(_)
        | Error::Reentered(_)
        | Error::Order { .. }
        | Error::NoSuchSlot { .. }
        | Error::Buffer { .. }
        | Error::Memory { .. }
        | Error::KernelRecord { .. }
        | Error::FirstPassShort { .. }
        | Error::KernelShort { .. }
        | Error::SizeUnsent { .. }
        | Error::Truncated(_)
        | Error::Version(_)
        | Error::OutOfTable(..)
        | Error::NoTable(..)
        | Error::TableReplaced
        | Error::TooLate(_)
        | Error::NotAsSent(_)
        | Error::Internal(_) => false,
        Error::Table(_)
        | Error::Open(..)
        | Error::KernelRead { .. }
        | Error::KernelWrite { .. }
        | Error::StreamWrite { .. }
        | Error::StreamRead(..)
        | Error::Allocate(..)
        | Error::Free(_) => true,
    }
}

/// About the hash table, in one line, and nothing of Rust's.
fn check(error: &Error) -> String {
    let sentence = error.to_string();
    assert!(sentence.contains("hash table") || sentence.contains("section spapr/htab"), "{sentence}");
    assert!(!sentence.contains("os error") && !sentence.contains('\n'), "{sentence}");
    assert!(!sentence.contains("see the log"), "there may be none: {sentence}");
    sentence
}

#[test]
fn every_sentence_names_the_table() {
    for error in own() {
        check(&error);
        assert!(!carries(&error));
    }
    let mut known = 0;
    for number in 1..=133 {
        let text = io::Error::from_raw_os_error(number).to_string();
        let text = text.strip_suffix(&format!(" (os error {number})")).expect("as Rust has it");
        for error in of(Errno::new(number)) {
            let sentence = check(&error);
            assert!(carries(&error) && error.errno().number() == number);
            // Its own text, or in its place what it means here.
            match sentence.matches(text).count() {
                0 => known += 1,
                1 => {}
                _ => panic!("twice: {sentence}"),
            }
        }
    }
    assert_eq!(known, 2 * 7 + 6 + 3, "of opening, writing and allocating");
}

#[test]
fn a_table_that_cannot_be_had_is_named_with_its_size_and_the_limit() {
    for (order, size) in [(18, "256 KiB"), (20, "1 MiB"), (29, "512 MiB"), (30, "1 GiB"), (36, "64 GiB")] {
        let order = Order::new(order).expect("an order");
        let sentence = Error::Allocate(order, Errno::new(libc::ENOMEM)).to_string();
        let words = format!("(order {}, {size}): this host has no memory", order.log2_bytes());
        assert!(sentence.contains(&words) && sentence.contains("kvm_cma_resv_ratio"), "{sentence}");
    }
    let sentence = Error::Open(Access::Read, Errno::new(libc::EPERM)).to_string();
    assert_eq!(sentence, "cannot read the kernel's hash table: Operation not permitted");
}
