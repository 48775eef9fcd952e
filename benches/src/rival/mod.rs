// SPDX-License-Identifier: GPL-2.0-or-later
//! QEMU's own way to carry the table (7.2 to 10.2, `x-rust-htab=off`), written for these benchmarks after what it does and
//! not after its text. Where the two differ in cost, this one is cheaper: a record's header is put and got in one call
//! where QEMU takes eight, and no buffer is allocated for a record.

pub mod kernel;
pub mod memory;

use spapr_htab::error::Errno;
use spapr_htab::stream::{Get, Put};

/// What a body of records begins with, and what it ends with.
const RECORDS: [u8; 4] = [0; 4];
const END: [u8; 8] = [0; 8];

/// A record's header in the stream.
fn header(index: u32, n_valid: u16, n_invalid: u16) -> [u8; 8] {
    (u64::from(index) << 32 | u64::from(n_valid) << 16 | u64::from(n_invalid)).to_be_bytes()
}

fn parse(header: [u8; 8]) -> (u32, u16, u16) {
    let [a, b, c, d, e, f, g, h] = header;
    (u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, f]), u16::from_be_bytes([g, h]))
}

fn get_exactly(stream: &mut dyn Get, mut bytes: &mut [u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let got = stream.get(bytes)?;
        if got == 0 {
            return Err(Errno::EIO);
        }
        bytes = &mut bytes[got..];
    }
    Ok(())
}

/// The body that says how large the table is.
///
/// # Errors
/// The stream's.
pub fn announce(stream: &mut dyn Put, order: u32) -> Result<(), Errno> {
    stream.put(&order.to_be_bytes())
}

/// Puts a body of records around what `records` puts.
fn body<T>(stream: &mut dyn Put, records: impl FnOnce(&mut dyn Put) -> Result<T, Errno>) -> Result<T, Errno> {
    stream.put(&RECORDS)?;
    let done = records(stream)?;
    stream.put(&END)?;
    Ok(done)
}
