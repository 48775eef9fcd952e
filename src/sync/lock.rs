// SPDX-License-Identifier: GPL-2.0-or-later
//! Locks that outlive a panic and return an error to a caller who comes back to itself, instead of waiting for ever.

use crate::error::Error;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// Locks; what a panic left behind is dealt with by whoever caught it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// State that one call at a time may work on, callbacks into the host included.
///
/// A callback that leads back here (QEMU's coroutines and nested event loops make that possible) would wait for
/// itself; it gets an error.
#[derive(Debug, Default)]
pub struct Exclusive<T> {
    state: Mutex<T>,
    /// The mark of the thread inside, or 0.
    holder: AtomicUsize,
}

/// A number that no other live thread has: the address of a thread-local. (std's thread handle would stay allocated for
/// as long as the program that we are linked into lives.)
fn mark() -> usize {
    thread_local!(static MARK: u8 = const { 0 });
    MARK.with(|mark| std::ptr::from_ref(mark).addr())
}

/// The right to work on it.
pub struct Entered<'a, T> {
    state: MutexGuard<'a, T>,
    holder: &'a AtomicUsize,
}

impl<T> Exclusive<T> {
    /// With nobody inside.
    pub fn new(state: T) -> Exclusive<T> {
        Exclusive { state: Mutex::new(state), holder: AtomicUsize::new(0) }
    }

    /// Waits for other threads.
    ///
    /// # Errors
    /// [`Error::Reentered`] if the calling thread is inside already.
    pub fn enter(&self, what: &'static str) -> Result<Entered<'_, T>, Error> {
        // Only this thread ever stores its own mark, so it reads it here if and only if it is inside.
        if self.holder.load(Ordering::Relaxed) == mark() {
            return Err(Error::Reentered(what));
        }
        Ok(self.hold(lock(&self.state)))
    }

    /// Does not wait.
    ///
    /// # Errors
    /// [`Error::Reentered`] if anyone is inside.
    pub fn try_enter(&self, what: &'static str) -> Result<Entered<'_, T>, Error> {
        match self.state.try_lock() {
            Ok(state) => Ok(self.hold(state)),
            Err(TryLockError::Poisoned(poisoned)) => Ok(self.hold(poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => Err(Error::Reentered(what)),
        }
    }

    fn hold<'a>(&'a self, state: MutexGuard<'a, T>) -> Entered<'a, T> {
        self.holder.store(mark(), Ordering::Relaxed);
        Entered { state, holder: &self.holder }
    }
}

impl<T> Drop for Entered<'_, T> {
    fn drop(&mut self) {
        self.holder.store(0, Ordering::Relaxed);
    }
}

impl<T> Deref for Entered<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.state
    }
}

impl<T> DerefMut for Entered<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn coming_back_to_oneself_is_an_error_and_leaving_ends_it() {
        let exclusive = Exclusive::<u32>::default();
        let inside = exclusive.enter("it").unwrap();
        assert_eq!(exclusive.enter("it").err(), Some(Error::Reentered("it")));
        assert_eq!(exclusive.try_enter("it").err(), Some(Error::Reentered("it")));
        drop(inside);
        drop(exclusive.enter("it").unwrap());
    }

    #[test]
    fn another_thread_waits() {
        let exclusive = Exclusive::<u32>::default();
        let mut inside = exclusive.enter("it").unwrap();
        thread::scope(|scope| {
            let other = scope.spawn(|| *exclusive.enter("it").unwrap());
            *inside = 7;
            drop(inside);
            assert_eq!(other.join().unwrap(), 7);
        });
    }
}
