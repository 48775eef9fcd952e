// SPDX-License-Identifier: GPL-2.0-or-later
//! Single entries for a debugger, the monitor and QEMU's own walks of the guest's table.
//!
//! Under KVM-HV every read of the kernel's fd takes the mark of change away from all entries it tells, and from up to
//! 65,535 invalid slots after them. A save that goes on meanwhile would never hear of those changes, so it gets the
//! records too.

use crate::error::{Access, Errno, Error, reserve};
use crate::format::hpte::{self, HPTE_BYTES, Hpte, Order, Slot, V_DIRTY};
use crate::format::record::{HEADER_BYTES, KernelHeader, RecordHeader};
use crate::host::{Host, OpenOptions, retry};
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
    let mut feed = saver.feed_at_rest();
    let table = table(host, &feed)?;
    check_range(&table, first, count)?;
    // The count is within the table now, which may still be more than there is memory for.
    let mut entries = Vec::new();
    let len = usize::try_from(count * HPTE_BYTES as u64).unwrap_or(usize::MAX);
    reserve(&mut entries, len, "for the entries that are looked up")?;
    entries.resize(len, 0);
    match table {
        Table::None => {}
        Table::Kernel(order) => {
            let read = read_kernel(host, &mut feed, order, first, &mut entries);
            // Whatever became of it: what it read is no longer marked.
            saver.settle(host, &mut feed)?;
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

/// Replaces one entry; without its valid bit the slot becomes invalid. A save that goes on tells it.
///
/// # Errors
/// A slot outside the table, no table, the kernel's errors.
pub fn write_hpte(host: &dyn Host, saver: &Saver, slot: Slot, entry: Hpte) -> Result<(), Error> {
    let feed = saver.feed();
    let table = table(host, &feed)?;
    let index = check_range(&table, slot, 1)?;
    let written = write(host, table, slot, index, entry);
    // Reads that began before may have passed the slot too early. An error does not say that nothing was written.
    saver.written();
    written
}

fn write(host: &dyn Host, table: Table, slot: Slot, index: u32, entry: Hpte) -> Result<(), Error> {
    match table {
        Table::None => Ok(()),
        Table::Kernel(_) => {
            let valid = u16::from(entry.is_valid());
            let run = RecordHeader { index, n_valid: valid, n_invalid: 1 - valid };
            let clean = Hpte { v: entry.v & !V_DIRTY, ..entry };
            KernelSink::open(host)?.load(&mut Batch::of(run, clean.to_be_bytes())?)
        }
        Table::Memory(memory) => {
            memory.store(slot, Hpte { v: entry.v | V_DIRTY, ..entry });
            Ok(())
        }
    }
}

fn table(host: &dyn Host, feed: &Session) -> Result<Table, Error> {
    if feed.is_being_replaced() {
        return Err(Error::State("a lookup while the table is being replaced"));
    }
    host.table()
}

/// Checks that `count` slots from `first` on exist; tells the first as an index.
fn check_range(table: &Table, first: Slot, count: u64) -> Result<u32, Error> {
    let order = table.order().ok_or(Error::State("a lookup in a guest without a hash table"))?;
    let last = Slot(first.0.saturating_add(count.saturating_sub(1)));
    match u32::try_from(first.0) {
        Ok(index) if last.0 < order.slots() => Ok(index),
        _ => Err(Error::StartIndex { start: last, order }),
    }
}

fn read_kernel(
    host: &dyn Host,
    feed: &mut Session,
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
        let got =
            retry(|| fd.read(room)).map_err(|errno| Error::KernelRead { slot: Slot(at), pass: 1, errno })?;
        if got == 0 {
            return Err(Error::FirstPassShort { end: Slot(at), order });
        }
        let mut rest =
            room.get_mut(..got).ok_or(Error::KernelRead { slot: Slot(at), pass: 1, errno: Errno::EIO })?;
        while !rest.is_empty() {
            let wrong = |record, why| Err(Error::KernelRecord { record, slot: Slot(at), why });
            let Some((header, after)) = std::mem::take(&mut rest).split_first_chunk_mut::<HEADER_BYTES>()
            else {
                return wrong(RecordHeader::default(), "its header is cut short");
            };
            let KernelHeader(run) = KernelHeader::parse(*header);
            let parts = after.split_at_mut_checked(run.payload_bytes());
            let Some((told, next)) = parts.filter(|_| run.fits(order) && u64::from(run.index) == at) else {
                return wrong(run, "a lookup's records do not follow each other");
            };
            // In the stream it could be what ends a body.
            if run.end() == at {
                return wrong(run, "it names no slots");
            }
            hpte::scrub(told);
            feed.keep(run, told);
            copy(entries, first.0, run, told);
            at = run.end();
            rest = next;
        }
    }
    Ok(())
}

/// Copies the part of a record that was asked for, zeros for its invalid slots.
fn copy(entries: &mut [u8], first: u64, run: RecordHeader, told: &[u8]) {
    let skip = usize::try_from(u64::from(run.index) - first).unwrap_or(usize::MAX);
    let wanted = entries.chunks_exact_mut(HPTE_BYTES).skip(skip);
    let slots = usize::from(run.n_valid) + usize::from(run.n_invalid);
    let mut valid = told.chunks_exact(HPTE_BYTES);
    for entry in wanted.take(slots) {
        entry.copy_from_slice(valid.next().unwrap_or(&[0; HPTE_BYTES]));
    }
}
