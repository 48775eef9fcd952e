// SPDX-License-Identifier: GPL-2.0-or-later
//! One migration from VM to VM, section by section.

use crate::guest::{Fill, Guest, Numbers, Outcome};
use crate::host::{Input, Output, VmHost};
use htab_model::vm::{Vm, VmFactory};
use spapr_htab::inside::host::Nanos;
use spapr_htab::inside::load::Loader;
use spapr_htab::inside::save::session::SaveOptions;
use spapr_htab::inside::save::{Progress, Saver};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Where a migration takes place, and how its table is saved.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    pub factory: &'a dyn VmFactory,
    pub options: SaveOptions,
}

/// A table on its way from one VM to another.
pub struct Migration {
    pub source: VmHost,
    pub destination: VmHost,
    pub saver: Saver,
    options: SaveOptions,
    /// The section bodies so far.
    pub bodies: Vec<Vec<u8>>,
    loader: Loader,
}

fn words(error: &spapr_htab::inside::error::Error) -> String {
    error.to_string()
}

impl Migration {
    /// Two VMs, the source with an empty table of this order, the destination with none.
    pub fn new(setting: &Setting<'_>, order: u32) -> Result<Migration, String> {
        let source: Arc<dyn Vm> = Arc::from(setting.factory.hash(order)?);
        let destination: Arc<dyn Vm> = Arc::from(setting.factory.hash(18)?);
        Ok(Migration {
            source: VmHost::new(source, Some(order)),
            destination: VmHost::new(destination, None),
            saver: Saver::default(),
            options: setting.options,
            bodies: Vec::new(),
            // As QEMU has it: with KVM both, else neither.
            loader: Loader::new(setting.options.ahead.is_some()),
        })
    }

    /// A save that was set up, of a table of this order with this in it; and the guest.
    pub fn begin(
        setting: &Setting<'_>,
        order: u32,
        fill: Fill,
        seed: u64,
    ) -> Result<(Migration, Guest), String> {
        let mut migration = Migration::new(setting, order)?;
        let mut guest = migration.guest(order)?;
        guest.fill(fill, &mut Numbers(seed))?;
        migration.setup()?;
        Ok((migration, guest))
    }

    /// The guest on the source.
    pub fn guest(&self, order: u32) -> Result<Guest, String> {
        Guest::new(&self.source.vm, order)
    }

    pub fn setup(&mut self) -> Outcome {
        let mut out = Output::default();
        self.saver.setup(&self.source, &mut out, self.options).map_err(|error| words(&error))?;
        self.bodies = vec![out.bytes];
        Ok(())
    }

    pub fn iterate(&mut self, max: Option<u64>) -> Result<Progress, String> {
        self.iterate_into(&mut Output::default(), max)
    }

    /// As `iterate`, with a stream of the caller's.
    pub fn iterate_into(&mut self, out: &mut Output<'_>, max: Option<u64>) -> Result<Progress, String> {
        let progress =
            self.saver.iterate(&self.source, out, max.map(Nanos)).map_err(|error| words(&error))?;
        self.bodies.push(std::mem::take(&mut out.bytes));
        Ok(progress)
    }

    /// Iterates without a bound to the end of the pass.
    pub fn pass(&mut self) -> Result<Progress, String> {
        self.iterate(None)
    }

    /// The bytes still to come, as the library estimates them.
    pub fn pending(&self) -> Result<u64, String> {
        self.saver.pending().map_err(|error| words(&error))
    }

    pub fn complete(&mut self) -> Outcome {
        let mut out = Output::default();
        self.saver.complete(&self.source, &mut out).map_err(|error| words(&error))?;
        self.bodies.push(out.bytes);
        Ok(())
    }

    /// Completes, and arrives.
    pub fn finish(&mut self) -> Outcome {
        self.complete()?;
        self.arrive(usize::MAX)
    }

    pub fn cleanup(&self) -> Outcome {
        self.saver.cleanup().map_err(|error| words(&error))
    }

    /// Takes up the table there is now.
    pub fn resume(&self) -> Outcome {
        self.saver.resume(&self.source).map_err(|error| words(&error))
    }

    /// Cleans up, loads all bodies in pieces of `most` bytes and compares the tables and what both sides counted.
    pub fn arrive(&mut self, most: usize) -> Outcome {
        self.cleanup()?;
        for body in &self.bodies {
            let mut input = Input { bytes: body, most, then: None };
            self.loader.load(&self.destination, &mut input, 1).map_err(|error| words(&error))?;
            if !input.bytes.is_empty() {
                return Err(format!("{} bytes of a body were not read", input.bytes.len()));
            }
        }
        self.loader.finish(&self.destination).map_err(|error| words(&error))?;
        let open = (self.source.open_fds(), self.destination.open_fds());
        if open != (0, 0) {
            return Err(format!("{open:?} fds are still open"));
        }
        let crcs = (self.saver.stats().crc.value(), self.loader.stats().crc.value());
        if crcs.0 != crcs.1 {
            return Err(format!("CRCs differ: {crcs:x?}"));
        }
        self.compare()
    }

    /// Compares the two tables as the VMs show them, apart from the fds of both sides.
    pub fn compare(&self) -> Outcome {
        let (source, destination) = (self.source.vm.dump(), self.destination.vm.dump());
        if source == destination {
            return Ok(());
        }
        let (was, is) = (BTreeSet::from_iter(&source), BTreeSet::from_iter(&destination));
        Err(format!(
            "{} entries became {}; first that is only in the source {:x?}, in the destination {:x?}",
            source.len(),
            destination.len(),
            was.difference(&is).next(),
            is.difference(&was).next()
        ))
    }
}
