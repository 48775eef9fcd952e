// SPDX-License-Identifier: GPL-2.0-or-later
//! What the rival sends of a table in memory that stands still: a line "INDEX VALID INVALID" for each record.
//!
//! `bench-rival FILE`, the table's bytes. tests/system/tcg/measure holds this against what QEMU's own code sent.

use htab_bench::library::{In, Out};
use htab_bench::rival::memory;
use spapr_htab::inside::host::StreamReader;
use spapr_htab::inside::host::SystemClock;

fn main() {
    let path = std::env::args().nth(1).expect("a file");
    let table = std::fs::read(path).expect("the table");
    let mut words: Vec<u64> =
        table.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_ne_bytes)).collect();
    let mut save = memory::Save::new(&mut words);
    let mut out = Out::Kept(Vec::new());
    save.complete(&mut out, &SystemClock::default()).expect("a save into memory");
    let bytes = out.into_bytes();
    let mut left = In(&bytes[4..]);
    loop {
        let mut head = [0; 8];
        assert_eq!(left.get(&mut head), Ok(head.len()), "a header");
        let word = u64::from_be_bytes(head);
        if word == 0 {
            break;
        }
        let (index, valid, invalid) = (word >> 32, word >> 16 & 0xffff, word & 0xffff);
        println!("{index} {valid} {invalid}");
        left.0 = &left.0[usize::try_from(valid * 16).expect("few")..];
    }
}
