// SPDX-License-Identifier: GPL-2.0-or-later
//! A save of a table that changes meanwhile, with lookups, resets, resizes, cancels and stops in any order, then a
//! load: both tables are equal.
#![no_main]

use htab_fuzz::Input;
use htab_harness::handle::Handle;
use htab_harness::world::{Kind, Place, Wire, World};
use htab_model::record::{R_C, R_R, hpte};
use libfuzzer_sys::fuzz_target;
use spapr_htab::inside::capi::types::{SPAPR_HTAB_COMPARE, SPAPR_HTAB_GATHER, SPAPR_HTAB_READ_AHEAD};

const ORDER: u32 = 18;
const MOST_CALLS: usize = 300;
/// The bits of reference and change.
const RC: u64 = R_R | R_C;

struct Run<'a> {
    input: Input<'a>,
    from: Handle,
    wire: Wire,
    /// The host reports stops; the VM is stopped.
    reports: bool,
    stopped: bool,
    /// Reference and change bits count, too.
    exact: bool,
}

impl Run<'_> {
    fn begin(&mut self) {
        self.wire = Wire::default();
        self.from.setup(&self.wire).expect("setup");
    }

    /// The guest runs, or nothing in its table changes.
    fn guest(&mut self) {
        let slots = self.from.world.slots();
        if self.stopped || slots == 0 {
            return;
        }
        for _ in 0..1 + (self.input.byte() & 7) {
            let slot = self.input.below(slots);
            match self.input.byte() & 7 {
                0 | 1 => self.from.world.store(slot, None),
                2 if self.exact => match self.from.world.place() {
                    Place::Memory(memory) => memory.touch(slot, RC),
                    _ => {
                        self.from.world.model().touch(slot, RC);
                    }
                },
                number => {
                    let (v, r) = hpte(u64::from(number) << 4 | slot & 0xff);
                    self.from.world.store(slot, Some((v, r & !RC)));
                }
            }
        }
    }

    fn stop(&mut self, stopped: bool) {
        self.stopped = stopped;
        if self.reports {
            self.from.vm_state(!stopped).expect("vm_state");
        }
    }

    fn replace(&mut self) {
        self.from.quiesce().expect("quiesce");
        let how = self.input.byte();
        match how & 3 {
            0 => self.from.world.replace(ORDER).expect("a reset"),
            1 => self.from.world.replace(ORDER + 1).expect("a resize"),
            2 => {}
            _ => {
                // Only a body that is sent meanwhile.
                self.from.iterate(&self.wire, -1).expect("an empty body");
            }
        }
        let resumed = if how & 6 == 6 { self.from.resume_unchanged() } else { self.from.resume() };
        resumed.expect("resume");
    }

    fn step(&mut self) {
        let slots = self.from.world.slots();
        match self.input.byte() & 15 {
            0..=5 => self.guest(),
            6..=8 => {
                let max = i64::from(self.input.byte()) << 8;
                self.from.iterate(&self.wire, max).expect("iterate");
            }
            9 => {
                self.from.iterate(&self.wire, -1).expect("iterate");
            }
            10 => {
                let first = self.input.below(slots);
                let count = usize::from(self.input.byte());
                if slots > 0 && first + count as u64 <= slots {
                    self.from.read_hptes(first, count).expect("a lookup");
                }
            }
            11 => {
                let (slot, number) = (self.input.below(slots), u64::from(self.input.byte()));
                let (v, r) = if number == 0 { (0, 0) } else { hpte(number) };
                self.from.write_hpte(slot, v, r).expect("a write");
            }
            12 => self.replace(),
            13 => {
                if self.input.byte() & 1 == 0 {
                    self.from.cleanup().expect("cleanup");
                }
                self.begin();
            }
            14 => {
                let _ = (self.from.pending(), self.from.stats());
                self.stop(false);
            }
            _ => self.complete(),
        }
    }

    /// What QEMU does in the end, too: if the size could not be sent any more it begins again.
    fn complete(&mut self) {
        self.stop(true);
        if let Err(failure) = self.from.complete(&self.wire) {
            assert_eq!(failure.errno, libc::EAGAIN, "{failure:?}");
            self.begin();
            self.from.complete(&self.wire).expect("complete");
        }
    }

    fn arrive(mut self, kind: Kind, flags: u32) {
        self.complete();
        assert_eq!(self.from.pending(), Ok(0));
        self.from.cleanup().expect("cleanup");
        assert_eq!(self.from.world.open_fds(), 0);
        let mut world = World::new(kind, None);
        world.most = match self.input.byte() {
            0 => usize::MAX,
            most => usize::from(most) * 16,
        };
        let to = Handle::new(world, flags, None);
        let wire = Wire::of(&self.wire.bytes());
        while wire.left() > 0 {
            to.load(&wire, 1).expect("load");
        }
        to.load_finish().expect("load_finish");
        to.load_cleanup().expect("load_cleanup");
        assert!(self.from.world.dump() == to.world.dump(), "the tables differ");
        assert_eq!(self.from.stats().save_crc32, to.stats().load_crc32);
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let how = input.byte();
    let kind = if how & 1 == 0 { Kind::Kernel } else { Kind::Memory };
    let to = if how & 2 == 0 { Kind::Kernel } else { Kind::Memory };
    let flags = match (kind, how & 0x1c) {
        (Kind::Kernel, 0x1c) => SPAPR_HTAB_READ_AHEAD,
        (Kind::Memory, compare) if compare & 4 != 0 => SPAPR_HTAB_COMPARE,
        _ => 0,
    };
    let exact = kind == Kind::Kernel || flags & SPAPR_HTAB_COMPARE != 0;
    let from = Handle::new(World::new(kind, Some(ORDER)), flags, None);
    let reports = how & 0x20 != 0;
    let mut run = Run { input, from, wire: Wire::default(), reports, stopped: false, exact };
    run.guest();
    run.begin();
    for _ in 0..MOST_CALLS {
        if run.input.is_empty() {
            break;
        }
        run.step();
    }
    run.arrive(to, if how & 0x40 == 0 { 0 } else { SPAPR_HTAB_GATHER });
});
