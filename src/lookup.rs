// SPDX-License-Identifier: GPL-2.0-or-later
//! Single entries for a debugger, the monitor and QEMU's own walks of the guest's table.
//!
//! Under KVM-HV every read of the kernel's fd takes the mark of change away from all entries it reports, and from up to
//! 65,535 invalid slots after them. A save that is under way would never hear of those changes, so it gets the
//! records too.

use crate::error::{Access, Errno, Error, reserve};
use crate::format::hpte::{HPTE_BYTES, Hpte, Order, Slot, V_DIRTY};
use crate::format::record::{HEADER_BYTES, KernelRecords, RecordHeader};
use crate::host::{Host, HptFd, OpenOptions, retry};
use crate::load::batch::Batch;
use crate::load::sink::{KernelSink, Sink};
use crate::save::Saver;
use crate::save::session::Session;
use crate::table::Table;

/// Entries asked of the kernel at once.
const MAX_ENTRIES_PER_READ: usize = 512;

/// Reads `count` entries from `first` on, as they stand in the table (big-endian), 16 bytes each. Invalid slots of a
/// kernel table read as zeros.
///
/// # Errors
/// Slots outside the table, no table, no memory, the kernel's errors.
pub fn read_hptes(host: &dyn Host, saver: &Saver, first: Slot, count: u64) -> Result<Vec<u8>, Error> {
    let mut session = saver.at_rest();
    let table = table(host, &session)?;
    check_range(&table, first, count)?;
    // The count is within the table now, which may still be more than there is memory for.
    let mut entries = Vec::new();
    let len = usize::try_from(count * HPTE_BYTES as u64).unwrap_or(usize::MAX);
    reserve(&mut entries, len, "entries that are looked up")?;
    entries.resize(len, 0);
    match table {
        Table::None => {}
        Table::Kernel(order) => {
            let read = read_kernel(host, &mut session, order, first, &mut entries);
            // Whatever became of it: what it read is no longer marked.
            session.settle(host)?;
            read?;
        }
        Table::Memory(memory) => {
            for (slot, entry) in (first.0..).zip(entries.chunks_exact_mut(HPTE_BYTES)) {
                entry.copy_from_slice(&memory.peek(Slot(slot)).to_be_bytes());
            }
        }
    }
    Ok(entries)
}

/// Replaces one entry; without its valid bit the slot becomes invalid. A save that is under way sends it.
///
/// # Errors
/// A slot outside the table, no table, the kernel's errors.
pub fn write_hpte(host: &dyn Host, saver: &Saver, slot: Slot, entry: Hpte) -> Result<(), Error> {
    let session = saver.session();
    let table = table(host, &session)?;
    let index = check_range(&table, slot, 1)?;
    let written = write(host, table, slot, index, entry);
    // Reads that began before may have visited the slot too early. An error does not say that nothing was written.
    saver.disturbed();
    written
}

fn write(host: &dyn Host, table: Table, slot: Slot, index: u32, entry: Hpte) -> Result<(), Error> {
    match table {
        Table::None => Ok(()),
        Table::Kernel(_) => {
            let valid = u16::from(entry.is_valid());
            let header = RecordHeader { index, n_valid: valid, n_invalid: 1 - valid };
            // Bit 0x40 is dropped by the kernel.
            KernelSink::open(host)?.load(&mut Batch::of(header, entry.to_be_bytes())?)
        }
        Table::Memory(memory) => {
            memory.store(slot, Hpte { v: entry.v | V_DIRTY, ..entry });
            Ok(())
        }
    }
}

fn table(host: &dyn Host, session: &Session) -> Result<Table, Error> {
    if session.is_being_replaced() {
        return Err(Error::State("a lookup while the table is being replaced"));
    }
    host.table()
}

/// Checks that `count` slots from `first` on exist. Returns the first as an index.
fn check_range(table: &Table, first: Slot, count: u64) -> Result<u32, Error> {
    let order = table.order().ok_or(Error::State("a lookup in a guest without a hash table"))?;
    let last = Slot(first.0.saturating_add(count.saturating_sub(1)));
    match u32::try_from(first.0) {
        Ok(index) if last.0 < order.slots() => Ok(index),
        _ => Err(Error::NoSuchSlot { slot: last, order }),
    }
}

fn read_kernel(
    host: &dyn Host,
    session: &mut Session,
    order: Order,
    first: Slot,
    entries: &mut [u8],
) -> Result<(), Error> {
    let options = OpenOptions { start: first, ..OpenOptions::new(Access::Read) };
    let mut fd = host.open(options).map_err(|errno| Error::Open(Access::Read, errno))?;
    let wanted_to = first.0 + (entries.len() / HPTE_BYTES) as u64;
    let mut buf = [0; HEADER_BYTES + MAX_ENTRIES_PER_READ * HPTE_BYTES + 1];
    let mut at = first.0;
    while at < wanted_to {
        let ask = usize::try_from(wanted_to - at).unwrap_or(usize::MAX).min(MAX_ENTRIES_PER_READ);
        // One byte more than the entries take: the kernel never fills a buffer to the brim.
        let room = &mut buf[..HEADER_BYTES + ask * HPTE_BYTES + 1];
        let read = keep_records(session, &mut *fd, order, first, at, room, entries);
        // The kernel takes marks away before it copies what it reports, so a read that fails may have taken some.
        at = read.inspect_err(|_| session.lose())?;
    }
    Ok(())
}

/// Reads the records from slot `at` on, leaves them to the session, and copies those entries that were asked for.
/// Returns where the last record ends.
fn keep_records(
    session: &mut Session,
    fd: &mut dyn HptFd,
    order: Order,
    first: Slot,
    at: u64,
    room: &mut [u8],
    entries: &mut [u8],
) -> Result<u64, Error> {
    let failed = |errno| Error::KernelRead { slot: Slot(at), pass: 1, errno };
    let got = retry(|| fd.read(room)).map_err(failed)?;
    let records = room.get_mut(..got).ok_or_else(|| failed(Errno::EIO))?;
    let mut end = at;
    for record in KernelRecords::new(records, order, at, true) {
        let record = record.map_err(|wrong| Error::KernelRecord { wrong, slot: Slot(at) })?;
        let header = record.header;
        let reported = record.into_stream();
        session.keep(header, reported);
        copy(entries, first.0, header, reported);
        end = header.end();
    }
    if end == at { Err(Error::FirstPassShort { end: Slot(at), order }) } else { Ok(end) }
}

/// Copies the part of a record that was asked for, zeros for its invalid slots.
fn copy(entries: &mut [u8], first: u64, header: RecordHeader, reported: &[u8]) {
    let skip = usize::try_from(u64::from(header.index) - first).unwrap_or(usize::MAX);
    let wanted = entries.chunks_exact_mut(HPTE_BYTES).skip(skip);
    let slots = usize::from(header.n_valid) + usize::from(header.n_invalid);
    let mut valid = reported.chunks_exact(HPTE_BYTES);
    for entry in wanted.take(slots) {
        entry.copy_from_slice(valid.next().unwrap_or(&[0; HPTE_BYTES]));
    }
}
