// SPDX-License-Identifier: GPL-2.0-or-later
//! A migration with all there can be in one: two passes, a lookup, a write, a reset, the stop, the load.

use crate::system::VmFd;
use htab_harness::handle::{Failure, Handle};
use htab_harness::plan::Call;
use htab_harness::world::{Kind, Wire, World};
use htab_model::record::hpte;
use spapr_htab::inside::capi::types::{SPAPR_HTAB_COMPARE, SPAPR_HTAB_GATHER, SPAPR_HTAB_READ_AHEAD};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

pub const ORDER: u32 = 18;
const SLOTS: u64 = 1 << (ORDER - 4);

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    Setup,
    FirstPass,
    LookUp,
    LaterPass,
    Replacing,
    Complete,
    Load,
}

/// All of them, as they are numbered.
pub const STAGES: [Stage; 7] = [
    Stage::Setup,
    Stage::FirstPass,
    Stage::LookUp,
    Stage::LaterPass,
    Stage::Replacing,
    Stage::Complete,
    Stage::Load,
];

/// Where tables are, and by which way the library gets at them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Way {
    pub kind: Kind,
    pub flags: u32,
    /// Without callbacks for the kernel's fd.
    pub system_calls: bool,
}

const fn way(kind: Kind, flags: u32, system_calls: bool) -> Way {
    Way { kind, flags, system_calls }
}

pub const WAYS: [Way; 7] = [
    way(Kind::Kernel, 0, false),
    way(Kind::Kernel, 0, true),
    way(Kind::Kernel, SPAPR_HTAB_GATHER, false),
    way(Kind::Kernel, SPAPR_HTAB_READ_AHEAD, false),
    way(Kind::Kernel, SPAPR_HTAB_READ_AHEAD | SPAPR_HTAB_GATHER, true),
    way(Kind::Memory, 0, false),
    way(Kind::Memory, SPAPR_HTAB_COMPARE, false),
];

impl Way {
    /// Which read comes at which moment is the thread's affair.
    pub fn is_repeatable(self) -> bool {
        self.flags & SPAPR_HTAB_READ_AHEAD == 0
    }
}

/// One side.
pub struct Side {
    pub handle: Handle,
    // Behind the handle, which closes what it opened by way of this.
    _vm_fd: Option<VmFd>,
}

impl Side {
    pub fn new(way: Way, order: Option<u32>) -> Side {
        let vm_fd = way.system_calls.then(VmFd::new);
        let handle = Handle::new(World::new(way.kind, order), way.flags, vm_fd.as_ref().map(|vm_fd| vm_fd.0));
        if let Some(vm_fd) = &vm_fd {
            vm_fd.belongs_to(&handle.world);
        }
        Side { handle, _vm_fd: vm_fd }
    }
}

/// Both sides, and what the guest knows of its table.
pub struct Migration {
    pub from: Side,
    pub to: Side,
    pub stage: Cell<Stage>,
    guest: RefCell<BTreeMap<u64, (u64, u64)>>,
    number: Cell<u64>,
    /// What a lookup failed with. Saving goes on then.
    lookup: RefCell<Option<Failure>>,
}

impl Migration {
    pub fn new(way: Way) -> Migration {
        let migration = Migration {
            from: Side::new(way, Some(ORDER)),
            to: Side::new(way, None),
            stage: Cell::new(Stage::Setup),
            guest: RefCell::default(),
            number: Cell::new(1),
            lookup: RefCell::default(),
        };
        migration.fill();
        migration
    }

    /// Clusters and single entries, a few thousand of them: more than one read of 64 KiB gives.
    fn fill(&self) {
        for cluster in 0..12 {
            self.enter((0..380).map(|slot| cluster * (SLOTS / 12) + slot));
        }
        self.enter((0..40).map(|nth| nth * 401));
    }

    fn enter(&self, slots: impl Iterator<Item = u64>) {
        for slot in slots {
            self.number.set(self.number.get() % 0xffff + 1);
            let entry = hpte(self.number.get());
            self.from.handle.world.store(slot, Some(entry));
            self.guest.borrow_mut().insert(slot, entry);
        }
    }

    fn enter_stage(&self, stage: Stage) {
        self.stage.set(stage);
        for side in [0, 1] {
            self.world(side).plan.mark(stage as u32);
        }
    }

    /// The guest runs a little.
    fn change(&self) {
        self.enter((0..30).map(|nth| nth * 517 + 3));
        for slot in (0..10).map(|nth| nth * 1103) {
            self.from.handle.world.store(slot, None);
            self.guest.borrow_mut().remove(&slot);
        }
    }

    /// Saves into one wire.
    pub fn save(&self, wire: &Wire) -> Result<(), Failure> {
        let from = &self.from.handle;
        from.vm_state(true)?;
        self.enter_stage(Stage::Setup);
        from.setup(wire)?;
        self.enter_stage(Stage::FirstPass);
        for _ in 0..3 {
            from.iterate(wire, 20_000)?;
        }
        from.iterate(wire, -1)?;
        self.change();
        self.enter_stage(Stage::LookUp);
        self.look_up();
        self.write_one()?;
        self.enter_stage(Stage::LaterPass);
        from.iterate(wire, -1)?;
        self.enter_stage(Stage::Replacing);
        from.quiesce()?;
        from.world.replace(ORDER).expect("a reset");
        self.guest.borrow_mut().clear();
        self.fill();
        from.resume()?;
        from.iterate(wire, -1)?;
        from.iterate(wire, -1)?;
        self.change();
        // The marks of these changes are taken by a lookup, and nothing but the end comes behind it.
        self.enter_stage(Stage::LookUp);
        self.look_up();
        from.vm_state(false)?;
        self.enter_stage(Stage::Complete);
        from.complete(wire)?;
        from.cleanup()?;
        Ok(())
    }

    fn look_up(&self) {
        if let Err(failure) = self.from.handle.read_hptes(400, 700) {
            self.lookup.replace(Some(failure));
        }
    }

    /// The host's own write, which may have been made even if it failed.
    fn write_one(&self) -> Result<(), Failure> {
        let (slot, (v, r)) = (77, hpte(9));
        let result = self.from.handle.write_hpte(slot, v, r);
        let is = self.from.handle.world.dump().into_iter().find(|entry| entry.0 == slot);
        if result.is_ok() || is == Some((slot, v, r)) {
            self.guest.borrow_mut().insert(slot, (v, r));
        }
        result.map(|_| ())
    }

    /// Loads all of it, into a guest that had no table before.
    pub fn load(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.enter_stage(Stage::Load);
        let to = &self.to.handle;
        let wire = Wire::of(&[&[0xff; 4], bytes].concat());
        while wire.left() > 0 {
            let result = to.load(&wire, 1);
            assert_eq!(to.world.open_fds(), 0, "a load has closed its fd when it returns");
            result?;
        }
        to.load_finish()?;
        assert_eq!(to.world.open_fds(), 0);
        to.load_cleanup().map(|_| ())
    }

    /// All of it. A lookup that failed is a failure in the end, by when it has lost nothing.
    pub fn run(&self) -> Result<(), Failure> {
        let wire = Wire::with_room(1 << 20);
        self.lookup.take();
        self.save(&wire)?;
        self.load(&wire.bytes())?;
        self.lookup.take().map_or(Ok(()), |failure| {
            self.arrived();
            Err(failure)
        })
    }

    /// What the guest knows is what both tables hold.
    pub fn arrived(&self) {
        self.guest_goes_on();
        assert_eq!(self.to.handle.world.dump(), self.from.handle.world.dump(), "the tables differ");
    }

    /// Nothing that the library did changed the guest's table.
    pub fn guest_goes_on(&self) {
        let knows: Vec<_> = self.guest.borrow().iter().map(|(&slot, &(v, r))| (slot, v, r)).collect();
        assert_eq!(self.from.handle.world.dump(), knows, "the guest's own table");
    }

    /// Side 0 saves, side 1 loads.
    pub fn world(&self, side: usize) -> &World {
        let side = if side == 0 { &self.from } else { &self.to };
        &side.handle.world
    }

    /// Calls of a kind so far, on both sides.
    pub fn calls(&self, call: Call) -> [u64; 2] {
        [0, 1].map(|side| self.world(side).plan.calls(call))
    }
}
