// SPDX-License-Identifier: GPL-2.0-or-later
//! Signals, which are the host's: a thread of ours takes none of them.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// All signals blocked on the calling thread, and on threads that it makes, until this is dropped. (QEMU reads its own
/// from a signalfd, where a signal only arrives if every thread has it blocked.)
pub struct Blocked {
    before: libc::sigset_t,
    /// The mask is the thread's.
    not_send: PhantomData<*const ()>,
}

impl Blocked {
    /// Blocks them.
    #[must_use]
    pub fn all() -> Blocked {
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: sigfillset initialises the set it is given. pthread_sigmask reads one and writes the other; it fails
        // for an unknown first argument only, so that `before` is initialised after it.
        let before = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            before.assume_init()
        };
        Blocked { before, not_send: PhantomData }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set was filled by pthread_sigmask; a null pointer says that the old one is not wanted.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut());
        }
    }
}
