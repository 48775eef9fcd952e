// SPDX-License-Identifier: GPL-2.0-or-later
//! A source swept by itself, without a save around it.

use spapr_htab::inside::error::Error;
use spapr_htab::inside::host::{Clock, Nanos};
use spapr_htab::inside::save::source::{Chunk, Position, Source};
use spapr_htab::inside::save::sweep::{DutyCycle, Read, Sweep, SweepEnd};

/// A source, and the library's own count of where its sweeps are.
pub struct Sweeper<S> {
    pub source: S,
    sweep: Sweep,
}

impl<S: Source> Sweeper<S> {
    /// At the start of the first pass.
    #[must_use]
    pub fn new(source: S) -> Sweeper<S> {
        let sweep = Sweep::new(source.slots(), DutyCycle::DEFAULT);
        Sweeper { source, sweep }
    }

    /// Where the next read begins.
    #[must_use]
    pub fn position(&self) -> Position {
        self.sweep.position()
    }

    /// One read, and how the sweep ended if it did.
    pub fn read(
        &mut self,
        buf: &mut [u8],
        clock: &dyn Clock,
        deadline: Option<Nanos>,
    ) -> Result<(Chunk, Option<SweepEnd>), Error> {
        let began = clock.now();
        let chunk = self.source.read(self.sweep.position(), buf, clock, deadline)?;
        let read = Read { chunk, stop: None, began, ended: clock.now() };
        Ok((chunk, self.sweep.advance(&read)))
    }

    /// Reads to the end of the sweep. Returns all its records.
    pub fn sweep(&mut self, buf: &mut [u8], clock: &dyn Clock) -> Result<Vec<u8>, Error> {
        let mut records = Vec::new();
        loop {
            let (chunk, end) = self.read(buf, clock, None)?;
            records.extend(buf.iter().take(usize::try_from(chunk.tally.bytes).unwrap_or(usize::MAX)));
            if end.is_some() {
                return Ok(records);
            }
        }
    }
}
