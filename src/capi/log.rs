// SPDX-License-Identifier: GPL-2.0-or-later
//! The library's log, routed to the callback of the handle that the calling thread is inside of.

use crate::save::reader::THREAD_NAME;
use libc::{c_int, c_void};
use log::{LevelFilter, Log, Metadata, Record};
use std::cell::Cell;
use std::ffi::CString;
use std::panic;
use std::sync::Once;
use std::thread;

/// A handle's log callback.
#[derive(Clone, Copy)]
pub struct Sink {
    pub opaque: *mut c_void,
    pub log: Option<unsafe extern "C" fn(*mut c_void, c_int, *const libc::c_char)>,
    pub level: LevelFilter,
}

thread_local! {
    static CURRENT: Cell<Option<Sink>> = const { Cell::new(None) };
}

/// Routes the thread's log to `sink` until dropped; then to where it went before.
pub struct Routed(Option<Sink>);

impl Routed {
    pub fn to(sink: Sink) -> Routed {
        Routed(CURRENT.replace(Some(sink)))
    }
}

impl Drop for Routed {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// Takes the log of handles without a callback: tools and tests see it on stderr, under RUST_LOG.
#[cfg(feature = "env_logger")]
static FALLBACK: std::sync::LazyLock<env_logger::Logger> =
    std::sync::LazyLock::new(|| env_logger::Builder::from_default_env().build());

struct Router;

impl Log for Router {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        CURRENT.get().is_some_and(|sink| match sink.log {
            Some(_) => metadata.level() <= sink.level,
            None => cfg!(feature = "env_logger"),
        })
    }

    fn log(&self, record: &Record<'_>) {
        let Some(sink) = CURRENT.get().filter(|_| self.enabled(record.metadata())) else { return };
        let Some(log) = sink.log else {
            #[cfg(feature = "env_logger")]
            FALLBACK.log(record);
            return;
        };
        let level = record.level() as c_int;
        let line = record.args().to_string().replace(['\0', '\n'], " ");
        if let Ok(line) = CString::new(line) {
            // SAFETY: the host promised, in making the handle whose sink this is, that its callback takes its own
            // opaque pointer and a string; the handle exists, since the thread is inside a call on it.
            unsafe {
                log(sink.opaque, level, line.as_ptr());
            }
        }
    }

    fn flush(&self) {}
}

/// Makes the router the logger, once in a process, and keeps panics caught at the border off stderr. A program that has
/// set a logger of its own before keeps that.
pub fn install(level: LevelFilter) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if log::set_logger(&Router).is_ok() {
            log::set_max_level(LevelFilter::Off);
        }
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |panic| match CURRENT.get() {
            Some(_) => log::error!("spapr/htab: {panic}"),
            // The next call on the handle fails with what it said.
            None if thread::current().name() == Some(THREAD_NAME) => {}
            None => others(panic),
        }));
    });
    #[cfg(feature = "env_logger")]
    let level = level.max(FALLBACK.filter());
    log::set_max_level(log::max_level().max(level));
}

/// A level as the C interface counts them.
pub fn level(level: c_int) -> LevelFilter {
    match level {
        ..=0 => LevelFilter::Off,
        1 => LevelFilter::Error,
        2 => LevelFilter::Warn,
        3 => LevelFilter::Info,
        4 => LevelFilter::Debug,
        5.. => LevelFilter::Trace,
    }
}
