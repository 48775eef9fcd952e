// SPDX-License-Identifier: GPL-2.0-or-later
//! The kernel's fd of tables too large for the model's memory, and too slow: up to order 36, in virtual time.
//!
//! What is used is known by rules and not slot by slot, and what is not is skipped at once, so that only what is read
//! costs real time. A property holds it against the model.

use htab_model::record::hpte;
use spapr_htab::inside::error::{Errno, Error};
use spapr_htab::inside::format::hpte::Order;
use spapr_htab::inside::host::StreamWriter;
use spapr_htab::inside::host::{Clock, Nanos};
use spapr_htab::inside::host::{Host, HptFd, OpenOptions};
use spapr_htab::inside::sync::lock::lock;
use spapr_htab::inside::table::Table;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

const GROUP: u64 = 8;
const MOST: u64 = 65_535;

/// What things take, in picoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Costs {
    /// A system call.
    pub call: u64,
    /// A clean slot that a later pass skips.
    pub clean: u64,
    /// An invalid slot that is reported.
    pub invalid: u64,
    /// An entry that is reported.
    pub entry: u64,
    /// A byte put to the stream.
    pub byte: u64,
}

/// What a part of a table holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fill {
    Empty,
    /// The first slot of each group.
    Groups,
    Full,
}

/// Virtual time, in picoseconds.
#[derive(Clone, Default)]
pub struct VirtualClock(Arc<AtomicU64>);

impl VirtualClock {
    pub fn advance(&self, ps: u64) {
        self.0.fetch_add(ps, Ordering::Relaxed);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Nanos {
        Nanos(self.0.load(Ordering::Relaxed) / 1000)
    }
}

/// A table and the VM's marks of change. Clones are the same table.
#[derive(Clone)]
pub struct Vast {
    pub order: Order,
    pub costs: Costs,
    pub clock: VirtualClock,
    /// The time of a thread that reads ahead, which passes beside that of the host.
    beside: Option<VirtualClock>,
    /// Each part's end and what it holds.
    parts: Arc<[(u64, Fill)]>,
    changed: Arc<Mutex<BTreeSet<u64>>>,
    /// Slots that first passes reported so far.
    reported: Arc<AtomicU64>,
}

impl Vast {
    /// The last part goes to the end of the table, whatever end it has.
    #[must_use]
    pub fn new(order: u32, parts: &[(u64, Fill)], costs: Costs) -> Vast {
        let order = Order::new(order).expect("an order");
        let mut parts = parts.to_vec();
        parts.last_mut().expect("a part").0 = order.slots();
        Vast {
            order,
            costs,
            clock: VirtualClock::default(),
            beside: None,
            parts: parts.into(),
            changed: Arc::default(),
            reported: Arc::default(),
        }
    }

    /// To be read ahead: the fd takes a thread's time, not the host's.
    #[must_use]
    pub fn read_beside(self) -> Vast {
        Vast { beside: Some(VirtualClock::default()), ..self }
    }

    /// The kernel works.
    fn work(&self, ps: u64) {
        self.beside.as_ref().unwrap_or(&self.clock).advance(ps);
    }

    fn changes(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        lock(&self.changed)
    }

    /// Slots that first passes reported so far.
    #[must_use]
    pub fn reported_first(&self) -> u64 {
        self.reported.load(Ordering::Relaxed)
    }

    /// The guest changes these slots; they are used or not as before.
    pub fn change(&self, slots: impl IntoIterator<Item = u64>) {
        self.changes().extend(slots);
    }

    /// Opens an fd of its own, at the start of its first pass.
    #[must_use]
    pub fn fd(&self) -> VastFd {
        VastFd { table: self.clone(), index: 0, first_pass: true }
    }

    fn part(&self, slot: u64) -> (u64, Fill) {
        self.parts[self.parts.partition_point(|part| part.0 <= slot)]
    }

    fn is_used(&self, slot: u64) -> bool {
        match self.part(slot).1 {
            Fill::Empty => false,
            Fill::Groups => slot % GROUP == 0,
            Fill::Full => true,
        }
    }

    /// The first slot from `slot` on that is used, or the end.
    fn next_used(&self, mut slot: u64) -> u64 {
        while slot < self.order.slots() {
            let (end, fill) = self.part(slot);
            let used = match fill {
                Fill::Empty => end,
                Fill::Groups => slot.next_multiple_of(GROUP),
                Fill::Full => slot,
            };
            if used < end {
                return used;
            }
            slot = end;
        }
        slot
    }
}

/// One open fd.
pub struct VastFd {
    table: Vast,
    index: u64,
    first_pass: bool,
}

impl VastFd {
    /// The next record with room for so many entries: its first slot, its entries and its invalid slots.
    fn record(&mut self, room: u64) -> (u64, u64, u64) {
        let slots = self.table.order.slots();
        let table = self.table.clone();
        let mut changed = table.changes();
        let mut work = 0;
        if !self.first_pass {
            let next = changed.range(self.index..).next().copied().unwrap_or(slots);
            work += (next - self.index) * table.costs.clean;
            self.index = next;
        }
        let first = self.index;
        let first_pass = self.first_pass;
        // A slot that is reported is changed no more.
        let report = |changed: &mut BTreeSet<u64>, slot: u64| changed.remove(&slot) || first_pass;
        let mut valid = 0;
        while self.index < slots
            && valid < room.min(MOST)
            && table.is_used(self.index)
            && report(&mut changed, self.index)
        {
            valid += 1;
            self.index += 1;
        }
        let free_to = table.next_used(self.index).min(self.index + MOST);
        let mut invalid = 0;
        if first_pass {
            invalid = free_to - self.index;
            let reported: Vec<u64> = changed.range(self.index..free_to).copied().collect();
            for slot in reported {
                changed.remove(&slot);
            }
            self.index = free_to;
        } else {
            while self.index < free_to && report(&mut changed, self.index) {
                invalid += 1;
                self.index += 1;
            }
        }
        if first_pass {
            table.reported.fetch_add(self.index - first, Ordering::Relaxed);
        }
        work += valid * table.costs.entry + invalid * table.costs.invalid;
        table.work(work);
        (first, valid, invalid)
    }
}

impl HptFd for VastFd {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Errno> {
        self.table.work(self.table.costs.call);
        let mut done = 0;
        while done + 24 < buf.len() {
            let room = (buf.len() - done - 8 - 1) / 16;
            let (first, valid, invalid) = self.record(room as u64);
            if valid + invalid > 0 {
                let index = u32::try_from(first).map_err(|_| Errno::EIO)?;
                let [valid, invalid] = [valid, invalid].map(u16::try_from);
                let (valid, invalid) = (valid.map_err(|_| Errno::EIO)?, invalid.map_err(|_| Errno::EIO)?);
                buf[done..done + 8].copy_from_slice(&htab_model::record::header(index, valid, invalid));
                done += 8;
                for slot in first..first + u64::from(valid) {
                    let (v, r) = hpte(slot & 0xff_ffff);
                    // With the bit of the lock that the kernel holds while it reads.
                    buf[done..done + 8].copy_from_slice(&(v | 0x40).to_be_bytes());
                    buf[done + 8..done + 16].copy_from_slice(&r.to_be_bytes());
                    done += 16;
                }
            }
            if self.index >= self.table.order.slots() {
                self.index = 0;
                self.first_pass = false;
                break;
            }
        }
        Ok(done)
    }

    fn write(&mut self, _: &[&[u8]]) -> Result<usize, Errno> {
        Err(Errno::EIO)
    }
}

impl Clock for Vast {
    fn now(&self) -> Nanos {
        self.clock.now()
    }
}

impl Host for Vast {
    fn clock(&self) -> &dyn Clock {
        self
    }

    fn thread_clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.beside.clone().unwrap_or_default())
    }

    fn table(&self) -> Result<Table, Error> {
        Ok(Table::Kernel(self.order))
    }

    fn allocate(&self, _: Order) -> Result<(), Errno> {
        Err(Errno::EIO)
    }

    fn free(&self) -> Result<(), Errno> {
        Err(Errno::EIO)
    }

    fn open(&self, _: OpenOptions) -> Result<Box<dyn HptFd>, Errno> {
        Ok(Box::new(self.fd()))
    }
}

/// A stream that takes what it is given, and as long as it costs.
pub struct VastStream(pub Vast);

impl StreamWriter for VastStream {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.0.clock.advance(bytes.len() as u64 * self.0.costs.byte);
        Ok(())
    }

    fn rate_limited(&mut self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use htab_harness::guest::Numbers;
    use htab_model::model;
    use htab_model::{Model, Vm};

    const ORDER: u32 = 21;

    /// The same bytes for the same reads, at the same time.
    #[test]
    fn it_reads_as_the_model_does() {
        let costs = Costs { call: 500_000, clean: 2000, invalid: 2000, entry: 60_000, byte: 0 };
        for seed in 0..12 {
            let mut numbers = Numbers(seed);
            let slots = 1 << (ORDER - 4);
            let mut parts = Vec::new();
            let mut end = 0;
            while end < slots {
                end += 1 + numbers.below(slots / 3);
                let fills = [Fill::Empty, Fill::Groups, Fill::Full];
                parts.push((end, fills[usize::try_from(numbers.below(3)).expect("one of three")]));
            }
            let vast = Vast::new(ORDER, &parts, costs);
            let model = Model::new(ORDER);
            for slot in (0..slots).filter(|&slot| vast.is_used(slot)) {
                let (v, r) = hpte(slot & 0xff_ffff);
                model.enter(slot, v, r);
            }
            model.set_costs(model::Costs { call_ns: 500, slot_ns: 2, entry_ns: 60 });
            let (mut one, mut other) = (vast.fd(), model.open(0, 0).expect("an fd"));
            for _ in 0..400 {
                let most = 1 << (5 + numbers.below(12));
                let (mut was, mut is) = (vec![0; most], vec![0; most]);
                let got = other.read(&mut was).expect("a read");
                assert_eq!(one.read(&mut is).expect("a read"), got);
                assert!(was[..got] == is[..got], "seed {seed}: other bytes");
                assert_eq!(vast.now().0, model.clock_ns(), "seed {seed}: another time");
                for _ in 0..numbers.below(30) {
                    let at = numbers.below(slots);
                    // Neighbours, too, so that records have more than a slot.
                    for slot in at..(at + 1 + numbers.below(4)).min(slots) {
                        vast.change([slot]);
                        let (v, r) = hpte(slot & 0xff_ffff);
                        if vast.is_used(slot) {
                            model.enter(slot, v, r);
                        } else {
                            model.enter(slot, v, r);
                            model.remove(slot);
                        }
                    }
                }
            }
        }
    }
}
