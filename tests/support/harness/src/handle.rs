// SPDX-License-Identifier: GPL-2.0-or-later
//! A handle of the C interface and the program that it calls back, with results as Rust has them.

use crate::plan::as_library;
use crate::world::{Wire, World};
use libc::{c_char, c_int, c_void};
use spapr_htab::exports::{
    spapr_htab_describe, spapr_htab_dirty_log_read, spapr_htab_free, spapr_htab_last_error, spapr_htab_load,
    spapr_htab_load_check, spapr_htab_load_cleanup, spapr_htab_load_discard, spapr_htab_load_finish,
    spapr_htab_new, spapr_htab_pass, spapr_htab_quiesce, spapr_htab_read_hptes, spapr_htab_resume,
    spapr_htab_resume_unchanged, spapr_htab_save_cleanup, spapr_htab_save_complete,
    spapr_htab_save_complete_again, spapr_htab_save_iterate, spapr_htab_save_pending, spapr_htab_save_setup,
    spapr_htab_save_sum, spapr_htab_stats, spapr_htab_vm_state, spapr_htab_write_hpte,
};
use spapr_htab::inside::capi::types::{SpaprHtabHost, SpaprHtabPass, SpaprHtabStats, SpaprHtabSum};

/// What a function failed with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub errno: i32,
    pub sentence: String,
}

/// 0 or more, or the failure.
pub type Outcome = Result<c_int, Failure>;

/// As C has it.
pub type Raw = *mut spapr_htab::inside::capi::handle::SpaprHtab;

/// A stream that programs of type `P` put to.
///
/// # Safety
/// Their callback for it takes what the pointer leads to, for as long as a call lasts.
pub unsafe trait Output<P> {
    /// The stream as the callback gets it.
    fn pointer(self) -> *mut c_void;
}

/// A stream that programs of type `P` get from.
///
/// # Safety
/// As for [`Output`].
pub unsafe trait Input<P> {
    /// The stream as the callback gets it.
    fn pointer(self) -> *mut c_void;
}

// SAFETY: the callbacks of a `World` take wires.
unsafe impl Output<World> for &Wire {
    fn pointer(self) -> *mut c_void {
        std::ptr::from_ref(self).cast_mut().cast()
    }
}

// SAFETY: the callbacks of a `World` take wires.
unsafe impl Input<World> for &Wire {
    fn pointer(self) -> *mut c_void {
        Output::pointer(self)
    }
}

/// A handle and the program that it calls back. A function's errors are the library's.
pub struct Handle<P = World> {
    raw: Raw,
    // Boxed: the handle knows its address.
    pub world: Box<P>,
}

impl Handle {
    #[must_use]
    pub fn new(world: World, flags: u32, vm_fd: Option<c_int>) -> Handle {
        // SAFETY: a world's callbacks are for itself.
        unsafe { Handle::of(world, |world| world.host(flags, vm_fd)) }
    }
}

impl<P> Handle<P> {
    /// # Safety
    /// The callbacks of the host structure take the program given to `host` for as long as the handle lives.
    #[must_use]
    pub unsafe fn of(program: P, host: impl FnOnce(&P) -> SpaprHtabHost) -> Handle<P> {
        let world = Box::new(program);
        let host = host(&world);
        let mut raw = std::ptr::null_mut();
        // SAFETY: the caller's promise; the program lives as long as the handle does.
        let made = unsafe { spapr_htab_new(&raw const host, &raw mut raw) };
        assert_eq!(made, 0, "a handle");
        Handle { raw, world }
    }

    /// The handle itself, for calls that are not in here.
    #[must_use]
    pub fn raw(&self) -> Raw {
        self.raw
    }

    /// Calls a function of the interface.
    fn call(&self, function: impl FnOnce(Raw) -> c_int) -> Outcome {
        match as_library(|| function(self.raw)) {
            result @ 0.. => Ok(result),
            errno => Err(Failure { errno: -errno, sentence: self.last_error() }),
        }
    }

    /// The sentence of the last failure.
    #[must_use]
    pub fn last_error(&self) -> String {
        // SAFETY: the handle is live, and `size` bytes at `text` may be written.
        text(|size, text| unsafe { spapr_htab_last_error(self.raw, size, text) })
    }

    /// What the monitor shows.
    #[must_use]
    pub fn describe(&self) -> String {
        // SAFETY: as above.
        text(|size, text| unsafe { spapr_htab_describe(self.raw, size, text) })
    }

    pub fn setup(&self, out: impl Output<P>) -> Outcome {
        // SAFETY: the handle is live, and so is the stream, which the callbacks take; so below.
        self.call(|raw| unsafe { spapr_htab_save_setup(raw, out.pointer()) })
    }

    pub fn iterate(&self, out: impl Output<P>, max_ns: i64) -> Outcome {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_save_iterate(raw, out.pointer(), max_ns) })
    }

    pub fn complete(&self, out: impl Output<P>) -> Outcome {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_save_complete(raw, out.pointer()) })
    }

    pub fn complete_again(&self, out: impl Output<P>) -> Outcome {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_save_complete_again(raw, out.pointer()) })
    }

    pub fn cleanup(&self) -> Outcome {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_save_cleanup(raw) })
    }

    pub fn pending(&self) -> Result<u64, Failure> {
        let mut pending = u64::MAX;
        // SAFETY: see `setup`; the place is ours.
        self.call(|raw| unsafe { spapr_htab_save_pending(raw, &raw mut pending) }).map(|_| pending)
    }

    pub fn vm_state(&self, running: bool) -> Outcome {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_vm_state(raw, running.into()) })
    }

    pub fn dirty_log_read(&self) -> Outcome {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_dirty_log_read(raw) })
    }

    pub fn quiesce(&self) -> Outcome {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_quiesce(raw) })
    }

    pub fn resume(&self) -> Outcome {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_resume(raw) })
    }

    pub fn resume_unchanged(&self) -> Outcome {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_resume_unchanged(raw) })
    }

    pub fn load(&self, input: impl Input<P>, version: c_int) -> Outcome {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_load(raw, input.pointer(), version) })
    }

    pub fn load_discard(&self, input: impl Input<P>, version: c_int) -> Outcome {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_load_discard(raw, input.pointer(), version) })
    }

    /// Finishes the load, and compares the first `size` bytes.
    pub fn load_check(&self, size: usize, sent: &SpaprHtabSum) -> Outcome {
        assert!(size <= size_of::<SpaprHtabSum>());
        // SAFETY: see `setup`; there are as many bytes.
        self.call(|raw| unsafe { spapr_htab_load_check(raw, size, sent) })
    }

    pub fn load_finish(&self) -> Outcome {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_load_finish(raw) })
    }

    pub fn load_cleanup(&self) -> Outcome {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_load_cleanup(raw) })
    }

    pub fn read_hptes(&self, first: u64, count: usize) -> Result<Vec<u8>, Failure> {
        let mut entries = vec![0; count * 16];
        let place = entries.as_mut_ptr().cast();
        // SAFETY: see `setup`; the place is as large as the entries are.
        self.call(|raw| unsafe { spapr_htab_read_hptes(raw, first, count, place) })?;
        Ok(entries)
    }

    pub fn write_hpte(&self, slot: u64, v: u64, r: u64) -> Outcome {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_write_hpte(raw, slot, v, r) })
    }

    #[must_use]
    pub fn sum(&self) -> SpaprHtabSum {
        let mut sum = SpaprHtabSum::default();
        let place = &raw mut sum;
        // SAFETY: see `setup`; the place is ours, of that size.
        let result = self.call(|raw| unsafe { spapr_htab_save_sum(raw, size_of::<SpaprHtabSum>(), place) });
        assert_eq!(result, Ok(0));
        sum
    }

    /// What a pass sent, counted from 1.
    pub fn pass(&self, pass: u64) -> Result<SpaprHtabPass, Failure> {
        let mut figures = SpaprHtabPass::default();
        let place = &raw mut figures;
        // SAFETY: see `setup`; the place is ours, of that size.
        self.call(|raw| unsafe { spapr_htab_pass(raw, pass, size_of::<SpaprHtabPass>(), place) })?;
        Ok(figures)
    }

    #[must_use]
    pub fn stats(&self) -> SpaprHtabStats {
        let mut stats = SpaprHtabStats::default();
        let place = &raw mut stats;
        // SAFETY: see `setup`; the place is ours, of that size.
        let result = self.call(|raw| unsafe { spapr_htab_stats(raw, size_of::<SpaprHtabStats>(), place) });
        assert_eq!(result, Ok(0));
        stats
    }
}

/// A text of the library's, of which nothing is asked for but its length first.
fn text(ask: impl Fn(usize, *mut c_char) -> usize) -> String {
    let len = ask(0, std::ptr::null_mut());
    let mut text = vec![b'?'; len + 1];
    assert_eq!(ask(text.len(), text.as_mut_ptr().cast()), len);
    assert_eq!(text.pop(), Some(0));
    String::from_utf8(text).expect("UTF-8")
}

impl<P> Drop for Handle<P> {
    fn drop(&mut self) {
        // SAFETY: the handle came from `spapr_htab_new` and is used no more.
        unsafe { spapr_htab_free(self.raw) };
    }
}
