// SPDX-License-Identifier: GPL-2.0-or-later
//! A handle of the C interface in a [`World`], with results as Rust has them.

use crate::plan::as_library;
use crate::world::{Wire, World};
use libc::c_int;
use spapr_htab::exports::{
    spapr_htab_dirty_log_read, spapr_htab_free, spapr_htab_last_error, spapr_htab_load,
    spapr_htab_load_cleanup, spapr_htab_load_finish, spapr_htab_new, spapr_htab_pass, spapr_htab_quiesce,
    spapr_htab_read_hptes, spapr_htab_resume, spapr_htab_resume_unchanged, spapr_htab_save_cleanup,
    spapr_htab_save_complete, spapr_htab_save_iterate, spapr_htab_save_pending, spapr_htab_save_setup,
    spapr_htab_stats, spapr_htab_vm_state, spapr_htab_write_hpte,
};
use spapr_htab::inside::capi::types::{SpaprHtabPass, SpaprHtabStats};

/// What a function failed with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub errno: i32,
    pub sentence: String,
}

/// As C has it.
pub type Raw = *mut spapr_htab::inside::capi::handle::SpaprHtab;

/// A handle and the program that it calls back.
pub struct Handle {
    raw: Raw,
    // Boxed: the handle knows its address.
    pub world: Box<World>,
}

impl Handle {
    /// # Panics
    /// No handle is to be had.
    #[must_use]
    pub fn new(world: World, flags: u32, vm_fd: Option<c_int>) -> Handle {
        let world = Box::new(world);
        let host = world.host(flags, vm_fd);
        let mut raw = std::ptr::null_mut();
        // SAFETY: the world lives as long as the handle does.
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
    fn call(&self, function: impl FnOnce(Raw) -> c_int) -> Result<c_int, Failure> {
        match as_library(|| function(self.raw)) {
            result @ 0.. => Ok(result),
            errno => Err(Failure { errno: -errno, sentence: self.last_error() }),
        }
    }

    /// The sentence of the last failure.
    ///
    /// # Panics
    /// It is not what the interface says.
    #[must_use]
    pub fn last_error(&self) -> String {
        // SAFETY: the handle is live; no bytes may be written, then as many as it said there are.
        let len = unsafe { spapr_htab_last_error(self.raw, 0, std::ptr::null_mut()) };
        let mut text = vec![b'?'; len + 1];
        // SAFETY: as above.
        unsafe { spapr_htab_last_error(self.raw, text.len(), text.as_mut_ptr().cast()) };
        assert_eq!(text.pop(), Some(0));
        String::from_utf8(text).expect("UTF-8")
    }

    /// # Errors
    /// The library's.
    pub fn setup(&self, wire: &Wire) -> Result<c_int, Failure> {
        // SAFETY: the handle and the wire are live; so below.
        self.call(|raw| unsafe { spapr_htab_save_setup(raw, pointer(wire)) })
    }

    /// # Errors
    /// The library's.
    pub fn iterate(&self, wire: &Wire, max_ns: i64) -> Result<c_int, Failure> {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_save_iterate(raw, pointer(wire), max_ns) })
    }

    /// # Errors
    /// The library's.
    pub fn complete(&self, wire: &Wire) -> Result<c_int, Failure> {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_save_complete(raw, pointer(wire)) })
    }

    /// # Errors
    /// The library's.
    pub fn cleanup(&self) -> Result<c_int, Failure> {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_save_cleanup(raw) })
    }

    /// # Errors
    /// What the save failed with.
    pub fn pending(&self) -> Result<u64, Failure> {
        let mut pending = u64::MAX;
        // SAFETY: see `setup`; the place is ours.
        self.call(|raw| unsafe { spapr_htab_save_pending(raw, &raw mut pending) })?;
        Ok(pending)
    }

    /// # Errors
    /// The library's.
    pub fn dirty_log_read(&self) -> Result<c_int, Failure> {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_dirty_log_read(raw) })
    }

    /// # Errors
    /// The library's.
    pub fn vm_state(&self, running: bool) -> Result<c_int, Failure> {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_vm_state(raw, running.into()) })
    }

    /// # Errors
    /// The library's.
    pub fn quiesce(&self) -> Result<c_int, Failure> {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_quiesce(raw) })
    }

    /// # Errors
    /// The library's.
    pub fn resume(&self) -> Result<c_int, Failure> {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_resume(raw) })
    }

    /// # Errors
    /// The library's.
    pub fn resume_unchanged(&self) -> Result<c_int, Failure> {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_resume_unchanged(raw) })
    }

    /// # Errors
    /// The library's.
    pub fn load(&self, wire: &Wire, version: c_int) -> Result<c_int, Failure> {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_load(raw, pointer(wire), version) })
    }

    /// # Errors
    /// The library's.
    pub fn load_finish(&self) -> Result<c_int, Failure> {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_load_finish(raw) })
    }

    /// # Errors
    /// The library's.
    pub fn load_cleanup(&self) -> Result<c_int, Failure> {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_load_cleanup(raw) })
    }

    /// Looks entries up; more than are asked for have no room.
    ///
    /// # Errors
    /// The library's.
    pub fn read_hptes(&self, first: u64, count: usize) -> Result<Vec<u8>, Failure> {
        let mut entries = vec![0; count * 16];
        let place = entries.as_mut_ptr().cast();
        // SAFETY: see `setup`; the place is as large as the entries are.
        self.call(|raw| unsafe { spapr_htab_read_hptes(raw, first, count, place) })?;
        Ok(entries)
    }

    /// # Errors
    /// The library's.
    pub fn write_hpte(&self, slot: u64, v: u64, r: u64) -> Result<c_int, Failure> {
        // SAFETY: see `setup`.
        self.call(|raw| unsafe { spapr_htab_write_hpte(raw, slot, v, r) })
    }

    /// A pass, counted from 1.
    ///
    /// # Errors
    /// The library's.
    pub fn pass(&self, pass: u64) -> Result<SpaprHtabPass, Failure> {
        let mut out = SpaprHtabPass::default();
        let place = &raw mut out;
        // SAFETY: see `setup`; the place is ours, of that size.
        self.call(|raw| unsafe { spapr_htab_pass(raw, pass, size_of::<SpaprHtabPass>(), place) })?;
        Ok(out)
    }

    /// # Panics
    /// They are not to be had.
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

fn pointer(wire: &Wire) -> *mut libc::c_void {
    std::ptr::from_ref(wire).cast_mut().cast()
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle came from `spapr_htab_new` and is used no more.
        unsafe { spapr_htab_free(self.raw) };
    }
}
