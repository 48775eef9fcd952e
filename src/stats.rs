// SPDX-License-Identifier: GPL-2.0-or-later
//! What a save or a load did, in figures.

use crate::format::crc;
use crate::format::hpte::Order;
use crate::format::record::Tally;
use crate::host::Nanos;
use std::fmt;

/// Passes kept one by one; what later passes did is added to the last.
pub const MAX_PASSES: usize = 256;

/// A running CRC-32 (the polynomial of zlib and Ethernet) of record bytes in stream order.
///
/// Both sides compute it over the same bytes, every record's header and entries as they are in the stream since the
/// last table header, so that two logs can be compared. The stream itself does not carry it.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordCrc(u32);

impl RecordCrc {
    /// Some more of the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0 = crc::update(self.0, bytes);
    }

    /// The CRC of all so far.
    #[must_use]
    pub fn value(&self) -> u32 {
        self.0
    }
}

/// What was sent of one pass over the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PassStats {
    /// Records and their contents.
    pub tally: Tally,
    /// Time spent in the library for it, stream included.
    pub time: Nanos,
}

/// What a save did since its setup.
#[derive(Clone, Debug, Default)]
pub struct SaveStats {
    /// The table's size; `None` without a table.
    pub order: Option<Order>,
    /// Each pass, the first pass first.
    pub passes: Vec<PassStats>,
    /// What complete sent, while the VM was stopped. Part of `passes` too.
    pub stopped: PassStats,
    /// What was sent because a lookup had taken the kernel's mark of its change. In no pass.
    pub looked_up: Tally,
    /// The CRC of the records since the table's size was sent.
    pub crc: RecordCrc,
    /// What of the total was sent before that.
    pub replaced: Tally,
    /// An estimate of the bytes still to come.
    pub pending: u64,
}

impl SaveStats {
    /// Counts records that were sent, of a pass counted from 1 or of lookups. `time` is what reading and sending took.
    pub fn count(&mut self, tally: Tally, pass: Option<u64>, time: Nanos, stopped: bool) {
        if stopped {
            self.stopped.tally += tally;
            self.stopped.time += time;
        }
        let Some(pass) = pass else {
            self.looked_up += tally;
            return;
        };
        let at = usize::try_from(pass).unwrap_or(MAX_PASSES).clamp(1, MAX_PASSES) - 1;
        if self.passes.len() <= at {
            self.passes.resize_with(at + 1, PassStats::default);
        }
        self.passes[at].tally += tally;
        self.passes[at].time += time;
    }

    /// All that was sent.
    #[must_use]
    pub fn total(&self) -> Tally {
        let mut total = self.looked_up;
        self.passes.iter().for_each(|pass| total += pass.tally);
        total
    }

    /// Another table's size was sent: what is sent from now on is counted anew.
    pub fn begin_table(&mut self, order: Option<Order>) {
        self.order = order;
        self.crc = RecordCrc::default();
        self.replaced = self.total();
    }

    /// Records since the table's size was sent, and their bytes; what the CRC is of.
    #[must_use]
    pub fn since_size(&self) -> (u64, u64) {
        let total = self.total();
        (total.records - self.replaced.records, total.bytes - self.replaced.bytes)
    }
}

impl fmt::Display for SaveStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        write!(
            f,
            "saved {} valid and {} invalid slots in {} records, {} bytes, {} passes; {} bytes while stopped; CRC-32 \
             {:08x}",
            total.valid,
            total.invalid,
            total.records,
            total.bytes,
            self.passes.len(),
            self.stopped.tally.bytes,
            self.crc.value()
        )
    }
}

/// What a load did since the last table header.
#[derive(Clone, Debug, Default)]
pub struct LoadStats {
    /// Records and their contents, as the stream had them.
    pub tally: Tally,
    /// Bodies, the table header's included.
    pub bodies: u64,
    /// Entries that the stream counted as valid but that were not; they were loaded as invalid slots.
    pub demoted: u64,
    /// The records' CRC.
    pub crc: RecordCrc,
    /// Time spent in the library, stream included.
    pub time: Nanos,
}

impl fmt::Display for LoadStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "loaded {} valid and {} invalid slots in {} records, {} bytes, {} sections; {} entries without their \
             valid bit; CRC-32 {:08x}",
            self.tally.valid,
            self.tally.invalid,
            self.tally.records,
            self.tally.bytes,
            self.bodies,
            self.demoted,
            self.crc.value()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TALLY: Tally = Tally { records: 1, valid: 2, invalid: 3, bytes: 40 };

    #[test]
    fn what_was_sent_is_counted_by_pass_and_since_the_size() {
        let mut stats = SaveStats::default();
        stats.crc.update(b"123456789");
        for (pass, time, stopped) in
            [(Some(1), 1, false), (Some(2), 10, true), (Some(2), 100, true), (None, 1000, false)]
        {
            stats.count(TALLY, pass, Nanos(time), stopped);
        }
        let twice = Tally { records: 2, valid: 4, invalid: 6, bytes: 80 };
        assert_eq!(stats.stopped, PassStats { tally: twice, time: Nanos(110) });
        assert_eq!(stats.passes, [PassStats { tally: TALLY, time: Nanos(1) }, stats.stopped]);
        assert_eq!(stats.looked_up, TALLY);
        assert_eq!(
            stats.to_string(),
            "saved 8 valid and 12 invalid slots in 4 records, 160 bytes, 2 passes; 80 bytes while stopped; CRC-32 \
             cbf43926"
        );
        assert_eq!(stats.since_size(), (4, 160));
        stats.begin_table(Some(Order::MIN));
        stats.count(TALLY, Some(1000), Nanos(1), false);
        assert_eq!((stats.since_size(), stats.passes.len(), stats.crc.value()), ((1, 40), MAX_PASSES, 0));
    }

    #[test]
    fn a_load_says_what_it_did() {
        let stats = LoadStats { tally: TALLY, bodies: 4, demoted: 5, ..LoadStats::default() };
        assert_eq!(
            stats.to_string(),
            "loaded 2 valid and 3 invalid slots in 1 records, 40 bytes, 4 sections; 5 entries without their valid bit; \
             CRC-32 00000000"
        );
    }
}
