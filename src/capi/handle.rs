// SPDX-License-Identifier: GPL-2.0-or-later
//! What a handle stands for.

use super::host::CHost;
use super::log;
use super::types::{SPAPR_HTAB_COMPARE, SPAPR_HTAB_READ_AHEAD};
use crate::load::Loader;
use crate::save::Saver;
use crate::save::reader::DEFAULT_QUEUE_BYTES;
use crate::save::session::SaveOptions;
use crate::save::sweep::DutyCycle;
use crate::stats::LoadStats;
use crate::sync::lock::Exclusive;
use std::sync::Mutex;

/// One guest's hash table on its way through migrations. Opaque.
pub struct SpaprHtab {
    pub(super) host: CHost,
    pub(super) saver: Saver,
    pub(super) loading: Exclusive<Loader>,
    pub(super) loaded: Mutex<LoadStats>,
    pub(super) last_error: Mutex<String>,
}

impl SpaprHtab {
    pub(super) fn log_sink(&self) -> log::Sink {
        let calls = &self.host.calls;
        log::Sink { opaque: calls.opaque, log: calls.log, level: log::level(calls.log_level) }
    }

    pub(super) fn save_options(&self) -> SaveOptions {
        let calls = &self.host.calls;
        let queue_bytes = match calls.queue_bytes {
            0 => DEFAULT_QUEUE_BYTES,
            bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
        };
        SaveOptions {
            compare: calls.flags & SPAPR_HTAB_COMPARE != 0,
            duty: DutyCycle::new(calls.sweep_share).unwrap_or(DutyCycle::DEFAULT),
            ahead: (calls.flags & SPAPR_HTAB_READ_AHEAD != 0).then_some(queue_bytes),
        }
    }
}
