// SPDX-License-Identifier: GPL-2.0-or-later
//! What the kernel's HPT fd does, as cases: each one claim, stated so that it can fail, and run by the same
//! code on the [model](crate::model) and on a [real kernel](crate::kvm).
//!
//! What takes a running guest (hardware R/C, EBUSY, hypercalls) is in [`GUEST_CASES`]; what only a model has
//! is in its own tests (`tests/model_only.rs`).

mod guest;
mod opening;
mod reading;
mod reading_faults;
mod sharing;
mod table;
mod writing;
mod writing_faults;

use crate::record::{self, Record, Replay, V_HVLOCK};
use crate::vm::{HtabFd, Vm, VmFactory, WRITE};

/// A claim's name and its check.
pub type Case = (&'static str, fn(&dyn VmFactory) -> Result<(), String>);

/// All cases, by what they are about.
pub const CASES: &[&[Case]] = &[
    opening::CASES,
    reading::CASES,
    reading_faults::CASES,
    sharing::CASES,
    writing::CASES,
    writing_faults::CASES,
    table::CASES,
];

/// The cases that need a guest that runs, which not every host and not every emulator of one has.
pub const GUEST_CASES: &[Case] = guest::CASES;

/// Every case in order, but for [`GUEST_CASES`].
pub fn cases() -> impl Iterator<Item = Case> {
    CASES.iter().flat_map(|group| group.iter().copied())
}

/// Fails the case unless both sides are equal.
macro_rules! same {
    ($left:expr, $right:expr, $($what:tt)+) => {
        match (&$left, &$right) {
            (left, right) => {
                if left != right {
                    return Err(format!("{}: {left:?}, expected {right:?}", format_args!($($what)+)));
                }
            }
        }
    };
}
use same;

/// Order of most cases' tables: 16384 slots, the smallest the kernel grants.
const ORDER: u32 = 18;
/// Slots of a table of [`ORDER`].
const SLOTS: u64 = 1 << (ORDER - 4);
/// A buffer that holds any first pass of these tables.
const BIG: usize = 4 << 20;

type Fd = Box<dyn HtabFd>;
type Outcome = Result<(), String>;
type Shape = (u32, usize, u16);

fn errno(call: &'static str) -> impl Fn(i32) -> String {
    move |errno| format!("{call}: errno {errno}")
}

fn open(vm: &dyn Vm, flags: u64, start_index: u64) -> Result<Fd, String> {
    vm.open(flags, start_index).map_err(errno("open"))
}

/// One read with a buffer of `count` bytes, taken apart.
fn read(fd: &mut Fd, count: usize) -> Result<Vec<Record>, String> {
    let mut buf = vec![0xa5; count];
    let len = fd.read(&mut buf).map_err(errno("read"))?;
    let filled = buf.get(..len).ok_or_else(|| format!("read of {count} bytes returned {len}"))?;
    record::parse(filled)
}

/// One read, as the records' (index, n_valid, n_invalid).
fn shapes(fd: &mut Fd, count: usize) -> Result<Vec<Shape>, String> {
    Ok(read(fd, count)?.iter().map(Record::shape).collect())
}

/// Reads until a read returns 0, into `replay`.
fn drain(fd: &mut Fd, count: usize, replay: &mut Replay) -> Result<usize, String> {
    for reads in 0..20_000 {
        let records = read(fd, count)?;
        if records.is_empty() {
            return Ok(reads);
        }
        records.iter().for_each(|record| replay.apply(record));
    }
    Err("20,000 reads and still changes".to_owned())
}

/// A read fd that is done with its first pass, at index 0, with no change pending.
fn settled(vm: &dyn Vm) -> Result<Fd, String> {
    let mut fd = open(vm, 0, 0)?;
    // A read with room to spare goes to the end and wraps.
    read(&mut fd, BIG)?;
    same!(shapes(&mut fd, BIG)?, [], "first read after the first pass");
    Ok(fd)
}

/// A read fd in a later pass from its first useful read on, without having touched anything.
fn later_pass(vm: &dyn Vm) -> Result<Fd, String> {
    let mut fd = open(vm, 0, 1 << 40)?;
    same!(shapes(&mut fd, BIG)?, [], "first read of an fd past the end");
    Ok(fd)
}

/// Writes the records, a write each.
fn put(vm: &dyn Vm, records: &[Record]) -> Outcome {
    let mut fd = open(vm, WRITE, 0)?;
    for record in records {
        let bytes = record.to_bytes();
        same!(fd.write(&bytes), Ok(bytes.len()), "write of {:?}", record.shape());
    }
    Ok(())
}

/// Enters [`record::hpte`] number `n` in each of the slots.
fn enter(vm: &dyn Vm, slots: &[u32], n: u64) -> Outcome {
    put(vm, &slots.iter().map(|&slot| entry_at(slot, n)).collect::<Vec<_>>())
}

/// Removes what is in the slots.
fn remove(vm: &dyn Vm, slots: &[u32]) -> Outcome {
    put(vm, &slots.iter().map(|&slot| Record::new(slot, &[], 1)).collect::<Vec<_>>())
}

/// A record of one entry.
fn entry_at(slot: u32, n: u64) -> Record {
    Record::new(slot, &[record::hpte(n)], 0)
}

/// The slots that have an entry.
fn occupied(vm: &dyn Vm) -> Vec<u64> {
    vm.dump().iter().map(|&(slot, _, _)| slot).collect()
}

/// The table that these records make of an empty one.
fn replayed(records: &[Record]) -> Vec<(u64, u64, u64)> {
    let mut replay = Replay::default();
    records.iter().for_each(|record| replay.apply(record));
    replay.dump()
}

/// An entry as a read returns it, from what was written: with the kernel's own lock bit.
fn as_read((v, r): (u64, u64)) -> (u64, u64) {
    (v | V_HVLOCK, r)
}
