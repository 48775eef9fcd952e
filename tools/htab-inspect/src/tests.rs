// SPDX-License-Identifier: GPL-2.0-or-later
//! Whole streams, built as QEMU's migration/savevm.c writes them, read and broken.

use crate::bodies::{Bodies, Part, Sent, What};
use crate::compare::Comparison;
use crate::fault::Fault;
use crate::input::Input;
use crate::replay::{Replay, V_BOLTED};
use crate::report::Report;
use crate::{page, picture, qemu, text};
use proptest::prelude::*;
use spapr_htab::inside::format::hpte::{Hpte, Order, V_DIRTY, V_VALID};
use spapr_htab::inside::format::record::RecordHeader;
use spapr_htab::inside::format::section::BodyHeader;

const PAGE: usize = 4096;
const RAM: u32 = 2;
const HTAB: u32 = 3;
const START: u8 = 1;
const PART: u8 = 2;
const END: u8 = 3;
const FULL: u8 = 4;

/// A stream while it is built.
struct Builder(Vec<u8>);

impl Builder {
    fn new(capabilities: &[&str]) -> Builder {
        let mut stream = Builder(b"QEVM\0\0\0\x03\x07\0\0\0\x0cpseries-10.0".to_vec());
        if !capabilities.is_empty() {
            stream.byte(5).name("configuration/capabilities").be32(1);
            stream.be32(u32::try_from(capabilities.len()).unwrap());
            capabilities.iter().for_each(|name| _ = stream.name(name));
        }
        stream
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Builder {
        self.0.extend_from_slice(bytes);
        self
    }

    fn byte(&mut self, byte: u8) -> &mut Builder {
        self.bytes(&[byte])
    }

    fn be16(&mut self, number: u16) -> &mut Builder {
        self.bytes(&number.to_be_bytes())
    }

    fn be32(&mut self, number: u32) -> &mut Builder {
        self.bytes(&number.to_be_bytes())
    }

    fn be64(&mut self, number: u64) -> &mut Builder {
        self.bytes(&number.to_be_bytes())
    }

    fn name(&mut self, name: &str) -> &mut Builder {
        self.byte(u8::try_from(name.len()).unwrap()).bytes(name.as_bytes())
    }

    /// A section's header, its body and its footer.
    fn section(&mut self, kind: u8, id: u32, name: Option<(&str, u32)>, body: &[u8]) -> &mut Builder {
        self.byte(kind).be32(id);
        if let Some((name, version)) = name {
            self.name(name).be32(0).be32(version);
        }
        self.bytes(body).byte(0x7e).be32(id)
    }

    fn command(&mut self, command: u16, arguments: &[u8]) -> &mut Builder {
        self.byte(8).be16(command).be16(u16::try_from(arguments.len()).unwrap()).bytes(arguments)
    }

    fn end(&mut self, description: Option<&str>) -> Vec<u8> {
        self.byte(0);
        if let Some(json) = description {
            self.byte(6).be32(u32::try_from(json.len()).unwrap()).bytes(json.as_bytes());
        }
        std::mem::take(&mut self.0)
    }
}

fn body(build: impl FnOnce(&mut Builder)) -> Vec<u8> {
    let mut body = Builder(Vec::new());
    build(&mut body);
    body.0
}

fn entry(number: u64) -> Hpte {
    Hpte { v: number << 12 | V_VALID | if number % 2 == 0 { V_BOLTED } else { 0 }, r: number << 16 }
}

fn records(records: &[(u32, u16, u16)]) -> Vec<u8> {
    let mut bytes = BodyHeader::Records.to_bytes().to_vec();
    for &(index, n_valid, n_invalid) in records {
        bytes.extend(RecordHeader { index, n_valid, n_invalid }.to_stream());
        (0..n_valid).for_each(|at| bytes.extend(entry(u64::from(index) + u64::from(at)).to_be_bytes()));
    }
    bytes.extend(RecordHeader::END.to_stream());
    bytes
}

fn size() -> Vec<u8> {
    BodyHeader::Table(Order::MIN).to_bytes().to_vec()
}

/// The first body of RAM: one block.
fn blocks() -> Vec<u8> {
    body(|ram| _ = ram.be64(1 << 20 | 0x004).name("ppc_spapr.ram").be64(1 << 20).be64(0x010))
}

/// Pages in each way that a QEMU sends them.
fn pages() -> Vec<u8> {
    body(|ram| {
        ram.be64(0x008).name("ppc_spapr.ram").bytes(&[7; PAGE]);
        ram.be64(0x1000 | 0x022).byte(0);
        ram.be64(0x2000 | 0x060).byte(1).be16(3).bytes(b"xyz");
        ram.be64(0x3000 | 0x120).be32(4).bytes(b"zlib");
        ram.be64(0x200).be64(0x010);
    })
}

const DESCRIPTION: &str = r#"{"page_size": 4096, "devices": [{"name": "spapr", "instance_id": 0, "version": 3,
    "fields": [{"name": "rtc", "type": "uint64", "size": 8}, {"name": "n", "array_len": 2, "size": 3}],
    "subsections": [{"vmsd_name": "spapr/x", "version": 1, "fields": [{"name": "y", "size": 1}]}]}]}"#;

/// A whole migration: a first pass, two later ones, and what is sent after the stop.
fn migration(description: Option<&str>) -> Vec<u8> {
    let mut stream = Builder::new(&["some-other"]);
    stream.section(START, RAM, Some(("ram", 4)), &blocks());
    stream.section(START, HTAB, Some(("spapr/htab", 1)), &size());
    stream.section(PART, RAM, None, &pages());
    stream.section(PART, HTAB, None, &records(&[(0, 3, 5), (100, 1, 0), (9000, 2, 0)]));
    stream.section(PART, HTAB, None, &records(&[(1, 0, 1), (9001, 1, 0)]));
    stream.section(PART, HTAB, None, &records(&[]));
    stream.command(11, &[]);
    stream.section(END, RAM, None, &pages());
    stream.section(END, HTAB, None, &records(&[(100, 0, 1), (200, 1, 0)]));
    let state = body(|state| {
        // What looks like the description's beginning, and a footer.
        state.be64(0x0006_0000_0002_7b7d).bytes(b"~\0\0\0\x03n").byte(5).name("spapr/x").be32(1).byte(9);
    });
    stream.section(FULL, 4, Some(("spapr", 3)), &state);
    stream.end(description)
}

fn read(bytes: &[u8]) -> (Option<qemu::Stream>, Bodies, Option<Fault>) {
    crate::read(&mut Input::of(bytes), 0)
}

fn good(bytes: &[u8]) -> (Option<qemu::Stream>, Bodies) {
    let (stream, bodies, fault) = read(bytes);
    assert_eq!(fault, None);
    (stream, bodies)
}

#[test]
fn a_migration_is_walked_to_its_end() {
    let (stream, bodies) = good(&migration(Some(DESCRIPTION)));
    let stream = stream.unwrap();
    let ram = &stream.ram;
    assert_eq!((ram.pages, ram.zero_pages, ram.xbzrle_pages, ram.compressed_pages), (2, 2, 2, 2));
    assert_eq!((stream.devices, stream.trailing), (1, 0));
    assert_eq!(stream.machine, "pseries-10.0");
    let parts: Vec<_> = bodies.sections.iter().map(|section| section.part).collect();
    assert_eq!(parts, [Part::First, Part::Live, Part::Live, Part::Live, Part::Last]);
    assert_eq!(bodies.sections[0].what, What::Table(18));

    let report = Report::new("f".into(), 0, Some(stream), &bodies, None);
    let table = report.table.as_ref().unwrap();
    let slots: Vec<_> = table.passes.iter().map(|pass| (pass.sent.valid, pass.sent.invalid)).collect();
    assert_eq!(slots, [(6, 5), (1, 1), (1, 1)]);
    assert_eq!(table.stopped, Sent { valid: 1, invalid: 1, records: 2, bytes: 32 });
    assert_eq!(table.first_pass.valid_runs.clone().into_iter().collect::<Vec<_>>(), [(1, 1), (2, 1), (3, 1)]);
    assert_eq!(table.later_passes.valid_runs.clone().into_iter().collect::<Vec<_>>(), [(0, 2), (1, 2)]);
    assert_eq!(table.total.indexed_bytes, 15 * 20);
    // 0, 2, 9000, 9001 and 200 are left, 1 and 100 went.
    let contents = &table.contents;
    assert_eq!((contents.valid, contents.bolted, contents.slots_sent_again), (5, 4, 4));
    assert_eq!(contents.groups_with, [2045, 1, 2, 0, 0, 0, 0, 0, 0]);
    assert_eq!((table.map.entries[0], table.map.sent_again[0], table.map.sent_again[1125]), (2, 1, 1));
}

#[test]
fn the_table_that_is_left_is_compared_slot_by_slot() {
    let (_, bodies) = good(&migration(Some(DESCRIPTION)));
    let ours = &bodies.table.as_ref().unwrap().replay;
    let mut dump = vec![0_u8; 1 << 18];
    for slot in [0, 2, 200, 9000, 9001] {
        // In QEMU's memory with its mark.
        let Hpte { v, r } = entry(slot);
        let at = usize::try_from(slot).unwrap() * 16;
        dump[at..at + 16].copy_from_slice(&Hpte { v: v | V_DIRTY, r }.to_be_bytes());
    }
    let compare = |dump: &[u8]| Comparison::of(ours, &Replay::of_dump(Order::MIN, dump));
    assert!(compare(&dump).same());
    dump[2 * 16 + 14] ^= 1; // the reference bit
    dump[200 * 16 + 7] ^= 1; // the valid bit
    dump[9000 * 16 + 9] ^= 4;
    dump[9002 * 16 + 7] = 1;
    let found = compare(&dump);
    assert_eq!(found.entries, 5);
    for (slots, slot) in
        [(found.r_and_c, 2), (found.here_only, 200), (found.different, 9000), (found.there_only, 9002)]
    {
        assert_eq!((slots.count, slots.first), (1, vec![slot]));
    }
}

#[test]
fn mapped_ram_and_addresses_are_passed() {
    let mut stream = Builder::new(&["mapped-ram", "x-ignore-shared"]);
    let mut ram = body(|ram| _ = ram.be64(8192 | 0x004).name("a").be64(8192).be64(0xdead_0000));
    ram.extend(body(|ram| _ = ram.be32(1).be64(4096).be64(4096).be64(65536)));
    let begin = stream.0.len() + 1 + 4 + 1 + 3 + 4 + 4;
    ram.resize(65536 + 8192 - begin, 0xff);
    ram.extend(0x010_u64.to_be_bytes());
    stream.section(START, RAM, Some(("ram", 4)), &ram);
    stream.section(END, RAM, None, &0x010_u64.to_be_bytes());
    let (stream, _) = good(&stream.end(None));
    assert!(stream.unwrap().ram.mapped);
}

#[test]
fn page_sizes_of_postcopy_are_known_from_what_follows() {
    let mut stream = Builder::new(&[]);
    stream.command(3, &[0; 16]);
    let ram = body(|ram| {
        ram.be64(0x6000 | 0x004).name("huge").be64(0x2000).be64(1 << 24);
        ram.name("usual").be64(0x4000);
        ram.be64(0x010);
    });
    stream.section(START, RAM, Some(("ram", 4)), &ram).section(END, RAM, None, &0x010_u64.to_be_bytes());
    assert_eq!(good(&stream.end(None)).0.unwrap().ram.size, 0x6000);
}

#[test]
fn without_a_description_the_tables_are_shown_and_the_devices_refused() {
    let bytes = migration(None);
    let at = bytes.windows(9).position(|window| window == b"\x04\0\0\0\x04\x05spa").unwrap();
    let (_, bodies, fault) = read(&bytes);
    let fault = fault.unwrap();
    assert!(fault.offset == at as u64 && fault.reason.contains("the tables are whole"), "{fault}");
    assert_eq!(bodies.sections.len(), 5);
}

#[test]
fn a_device_before_the_tables_end_needs_a_file() {
    let mut stream = Builder::new(&[]);
    stream.section(START, HTAB, Some(("spapr/htab", 1)), &size());
    stream.section(FULL, 4, Some(("early", 1)), b"state");
    let fault = read(&stream.end(None)).2.unwrap();
    assert!(fault.reason.contains("early"), "{fault}");
}

#[test]
fn what_stands_before_a_stream_is_skipped_and_counted() {
    let whole = migration(Some(DESCRIPTION));
    let (_, bodies, fault) = crate::read(&mut Input::of(&[b"a header", &whole[..]].concat()), 8);
    assert_eq!(fault, None);
    assert_eq!(bodies.sections[0].offset, good(&whole).1.sections[0].offset + 8);
}

#[test]
fn bodies_alone_are_read_too() {
    let bytes = [size(), records(&[(0, 2, 0)]), records(&[(1, 1, 0)])].concat();
    let (stream, bodies) = good(&bytes);
    assert!(stream.is_none());
    // The second record is of a slot that the first has sent.
    assert_eq!(bodies.table.unwrap().passes.len(), 2);
    let (_, bodies) = good(&[size(), records(&[(0, 2, 0), (2, 1, 3)]), records(&[(6, 1, 0)])].concat());
    assert_eq!(bodies.table.unwrap().passes.len(), 1);
    let (_, bodies) = good(&[&bytes[..], &size(), &records(&[(7, 1, 0)])].concat());
    assert_eq!((bodies.replaced, bodies.replaced_bytes), (1, 2 * 8 + 3 * 16));
    assert_eq!(bodies.table.unwrap().total().valid, 1);
}

/// What a file is, and what is wrong with it where.
fn refused(bytes: &[u8], offset: usize, reason: &str) {
    let fault = read(bytes).2.expect("it is broken");
    assert!(fault.offset == offset as u64 && fault.reason.contains(reason), "{fault}");
}

#[test]
fn what_is_broken_is_named_with_its_place() {
    refused(b"", 0, "neither");
    refused(b"\x7fELF", 0, "neither");
    refused(b"QEVM\0\0\0\x02", 4, "version 2");
    refused(&[&size()[..], &records(&[(16383, 1, 1)])].concat(), 8, "slots 16383 to 16384");
    refused(&records(&[(5, 1, 0)]), 4, "no hash table was announced");
    refused(&[&size()[..], &records(&[(1, 1, 0)])[..21]].concat(), 8, "the source was cut off");

    let whole = migration(Some(DESCRIPTION));
    let at = |pattern: &[u8]| whole.windows(pattern.len()).position(|window| window == pattern).unwrap();
    let broken = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        bytes
    };
    let footer = at(b"\x7e\0\0\0\x02\x01");
    refused(&broken(footer + 4, 9), footer, "the footer of section 9 behind section 2");
    refused(&broken(footer, 0x55), footer, "type 0x55");
    let name = at(b"\x0aspapr/htab");
    refused(&broken(name + 1, b'S'), name - 4, "section Spapr/htab of version 1");
    refused(&broken(name + 18, 2), name + 19, "version 2");
    let part = at(b"\x02\0\0\0\x03");
    refused(&broken(part + 4, 9), part + 1, "section 9, which has not begun");
    let page = at(b"\x0dppc_spapr.ram\x07") - 8;
    refused(&broken(page + 7, 0x40 | 0x08), page, "flags 0x048");
    refused(&broken(page + 9, b'q'), page + 8, "a RAM block qpc_spapr.ram");
    refused(&whole[..page + 100], page + 22, "cut off");
}

#[test]
fn pictures_and_texts_of_a_broken_file_say_so() {
    let bytes = migration(Some(DESCRIPTION));
    let (stream, bodies, fault) = read(&bytes[..bytes.len() - 900]);
    let report = Report::new("<f>".into(), 0, stream, &bodies, fault);
    let svg = picture::svg(&report);
    assert!(svg.contains("The file is broken") && svg.trim_end().ends_with("</svg>"));
    let html = page::html(&report);
    assert!(html.contains("&lt;f&gt;") && html.contains(&svg));
    assert!(text::text(&report, true).contains("a table of order 18"));
}

/// All that is made of a file, whatever it is.
fn fault_of(bytes: &[u8]) -> Option<Fault> {
    let (stream, bodies, fault) = read(bytes);
    let report = Report::new("f".into(), 0, stream, &bodies, fault);
    text::text(&report, true);
    picture::svg(&report);
    serde_json::to_string(&report).expect("the report is JSON");
    report.fault
}

#[test]
fn cut_off_anywhere_it_is_refused() {
    let whole = migration(Some(DESCRIPTION));
    for len in 0..whole.len() {
        let fault = read(&whole[..len]).2;
        let is_inside = fault.as_ref().is_some_and(|fault| fault.offset <= len as u64);
        assert!(is_inside, "{len} of {}: {fault:?}", whole.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn bytes_that_flip_do_no_harm(
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        within_bodies: bool,
    ) {
        let mut bytes = if within_bodies {
            [size(), records(&[(0, 3, 5), (100, 1, 0)]), records(&[(8, 2, 7)])].concat()
        } else {
            migration(Some(DESCRIPTION))
        };
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
        }
        if let Some(fault) = fault_of(&bytes) {
            prop_assert!(fault.offset <= bytes.len() as u64, "{fault}");
        }
    }
}
