// SPDX-License-Identifier: GPL-2.0-or-later
//! QEMU's own way to carry the table (7.2 to 10.2, `x-rust-htab=off`), written for these benchmarks after what it does
//! and not after its text. Where the two differ in cost, this one is cheaper: it puts and gets a number in one call,
//! QEMU byte by byte. tests/system/tcg/measure holds the memory's side against QEMU's own code.

pub mod kernel;
pub mod memory;

use spapr_htab::inside::error::Errno;
use spapr_htab::inside::host::{StreamReader, StreamWriter};

/// What a body of records begins with, and what it ends with.
const RECORDS: [u8; 4] = [0; 4];
const END: [u8; 8] = [0; 8];

/// Puts a record's header, a number at a time.
fn put_header(stream: &mut dyn StreamWriter, index: u32, n_valid: u16, n_invalid: u16) -> Result<(), Errno> {
    stream.put(&index.to_be_bytes())?;
    stream.put(&n_valid.to_be_bytes())?;
    stream.put(&n_invalid.to_be_bytes())
}

/// Gets one; `None` at the end of the body.
fn get_header(stream: &mut dyn StreamReader) -> Result<Option<(u32, u16, u16)>, Errno> {
    let (mut index, mut n_valid, mut n_invalid) = ([0; 4], [0; 2], [0; 2]);
    get_exactly(stream, &mut index)?;
    get_exactly(stream, &mut n_valid)?;
    get_exactly(stream, &mut n_invalid)?;
    let header = (u32::from_be_bytes(index), u16::from_be_bytes(n_valid), u16::from_be_bytes(n_invalid));
    Ok(Some(header).filter(|&header| header != (0, 0, 0)))
}

fn get_exactly(stream: &mut dyn StreamReader, mut bytes: &mut [u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let got = stream.get(bytes)?;
        if got == 0 {
            return Err(Errno::EIO);
        }
        bytes = &mut bytes[got..];
    }
    Ok(())
}

/// Puts a body of records around what `records` puts.
fn body<T>(
    stream: &mut dyn StreamWriter,
    records: impl FnOnce(&mut dyn StreamWriter) -> Result<T, Errno>,
) -> Result<T, Errno> {
    stream.put(&RECORDS)?;
    let done = records(stream)?;
    stream.put(&END)?;
    Ok(done)
}
