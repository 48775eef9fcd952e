// SPDX-License-Identifier: GPL-2.0-or-later
//! What the rival sends of a table in memory that stands still: a line "INDEX VALID INVALID" for each record.
//!
//! `bench-rival FILE`, the table's bytes. tests/system/tcg/measure holds this against what QEMU's own code sent.

use htab_bench::library::Out;
use htab_bench::rival::memory;
use htab_harness::records::of_body;
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
    for record in of_body(&bytes).expect("a body of records") {
        let (index, valid, invalid) = record.shape();
        println!("{index} {valid} {invalid}");
    }
}
