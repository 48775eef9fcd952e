// SPDX-License-Identifier: GPL-2.0-or-later
//! Reading ahead: what the calls wait for, what they leave behind, and in what order things go out, with a reader that
//! is stopped at every point.

mod ending;
mod sending;

use htab_harness::gate::{Gate, GatedHost, Where};
use htab_harness::host::{Input, Output, VmHost};
use htab_harness::records;
use htab_harness::threads::{readers, status, wait_for};
use htab_model::model::{Fault, Op};
use htab_model::record::hpte;
use htab_model::{Model, Vm};
use spapr_htab::inside::error::Error;
use spapr_htab::inside::format::hpte::Slot;
use spapr_htab::inside::format::record::MAX_WIRE_VALID;
use spapr_htab::inside::host::Nanos;
use spapr_htab::inside::load::Loader;
use spapr_htab::inside::lookup::read_hptes;
use spapr_htab::inside::save::queue::Activity;
use spapr_htab::inside::save::reader::{DEFAULT_QUEUE_BYTES, THREAD_NAME};
use spapr_htab::inside::save::session::SaveOptions;
use spapr_htab::inside::save::source::MAX_CHUNK_BYTES;
use spapr_htab::inside::save::{Progress, Saver};
use spapr_htab::inside::sync::lock::lock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

const ORDER: u32 = 20;
const SLOTS: u64 = 1 << (ORDER - 4);
/// Slots of a dense table in a full read; the kernel leaves room for one more.
const READ_SLOTS: u64 = MAX_WIRE_VALID as u64 - 1;
/// And the record of such a read.
const READ_BYTES: u64 = 8 + 16 * READ_SLOTS;
const AHEAD: SaveOptions = SaveOptions { ahead: Some(DEFAULT_QUEUE_BYTES), ..SaveOptions::DEFAULT };

/// Threads are counted, so one test runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    lock(&ALONE)
}

/// The kernel shows a thread for a moment after it was joined.
fn no_reader_is_left() {
    wait_for(|| readers() == Ok(0)).expect("no thread");
}

struct Save {
    model: Model,
    host: GatedHost,
    saver: Saver,
    bodies: Vec<Vec<u8>>,
}

impl Save {
    /// A save of a dense table, 1 MiB, its reader at the gate of its first read.
    fn begun(options: SaveOptions) -> Save {
        let model = Model::new(ORDER);
        for slot in 0..SLOTS {
            let (v, r) = hpte(slot & 0xffff);
            model.enter(slot, v, r);
        }
        let host = GatedHost::new(VmHost::new(Arc::new(model.clone()), Some(ORDER)));
        let mut save = Save { model, host, saver: Saver::default(), bodies: Vec::new() };
        save.setup(options).expect("setup");
        save
    }

    fn setup(&mut self, options: SaveOptions) -> Result<(), Error> {
        let mut out = Output::default();
        self.saver.setup(&self.host, &mut out, options)?;
        self.bodies = vec![out.bytes];
        Ok(())
    }

    fn iterate(&mut self, max: Option<u64>) -> Result<Progress, Error> {
        let mut out = Output::default();
        let max = max.map(Nanos);
        let progress = self.saver.iterate(&self.host, &mut out, max);
        self.bodies.push(out.bytes);
        progress
    }

    fn complete(&mut self) -> Result<(), Error> {
        let mut out = Output::default();
        let done = self.saver.complete(&self.host, &mut out);
        self.bodies.push(out.bytes);
        done
    }

    /// Goes through so many waits of the reader, to the next.
    fn step(&self, waits: u64) {
        for _ in 0..waits {
            wait_for(|| self.host.gate.waiting().is_some()).expect("the reader comes to the gate");
            self.host.gate.let_through(1);
        }
    }

    fn until(&self, activity: Activity) {
        wait_for(|| self.saver.queue().activity() == Some(activity))
            .unwrap_or_else(|why| panic!("not {activity:?}: {why}"));
    }

    /// Every table that was read is as the source's.
    fn arrive(self) {
        let destination = VmHost::new(Arc::new(Model::new(18)), None);
        self.saver.cleanup().expect("cleanup");
        let mut loader = Loader::default();
        for body in &self.bodies {
            loader.load(&destination, &mut Input::new(body), 1).expect("a load");
        }
        assert!(self.model.dump() == destination.vm.dump(), "the tables differ");
        no_reader_is_left();
    }
}

impl Drop for Save {
    /// A reader that waits at the gate would never end.
    fn drop(&mut self) {
        self.host.gate.open();
    }
}

/// Runs `call` while the reader is inside a read; lets the read go on once the call has come `so_far`.
fn while_reading<T: Send>(save: &Save, so_far: impl Fn() -> bool, call: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let call = scope.spawn(call);
        let came = wait_for(|| so_far() || call.is_finished());
        // A call that does not wait for the read would be over soon.
        thread::sleep(Duration::from_millis(20));
        let waited = !call.is_finished();
        save.host.gate.open();
        came.expect("the call comes so far");
        assert!(waited, "it did not wait for the read");
        call.join().expect("the call")
    })
}

/// Runs `call`, which is not to wait for the read that the reader is inside of.
fn without_waiting<T: Send>(gate: &Gate, call: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let call = scope.spawn(call);
        let came_back = wait_for(|| call.is_finished());
        if came_back.is_err() {
            gate.open();
        }
        came_back.expect("it does not wait for the read");
        call.join().expect("the call")
    })
}
