// SPDX-License-Identifier: GPL-2.0-or-later
//! The table in QEMU's memory as QEMU sweeps and fills it: plain loads and stores, and the clock looked at only after a
//! record.

use super::{body, get_exactly, get_header, put_header};
use spapr_htab::inside::error::Errno;
use spapr_htab::inside::format::hpte::{V_DIRTY, V_VALID};
use spapr_htab::inside::host::{Clock, Nanos};
use spapr_htab::inside::host::{StreamReader, StreamWriter};

const VALID: u64 = V_VALID.to_be();
const DIRTY: u64 = V_DIRTY.to_be();
const MOST: usize = 65_535;

/// A table, two words a slot, big-endian, and how far a save of it is.
pub struct Save<'a> {
    words: &'a mut [u64],
    index: usize,
    first_pass: bool,
}

/// When a bounded call has to end.
struct Bound<'a> {
    clock: &'a dyn Clock,
    began: Nanos,
    max: Option<Nanos>,
}

impl Bound<'_> {
    fn is_over(&self) -> bool {
        self.max.is_some_and(|max| self.clock.now().since(self.began) > max)
    }
}

impl<'a> Save<'a> {
    pub fn new(words: &'a mut [u64]) -> Save<'a> {
        Save { words, index: 0, first_pass: true }
    }

    fn slots(&self) -> usize {
        self.words.len() / 2
    }

    fn is(&self, index: usize, bit: u64) -> bool {
        self.words[index * 2] & bit != 0
    }

    /// A load and a store, whatever the mark was.
    fn clean(&mut self, index: usize) {
        self.words[index * 2] &= !DIRTY;
    }

    fn put(
        &self,
        stream: &mut dyn StreamWriter,
        from: usize,
        valid: usize,
        invalid: usize,
    ) -> Result<(), Errno> {
        let number = |count: usize| u16::try_from(count).map_err(|_| Errno::EIO);
        let index = u32::try_from(from).map_err(|_| Errno::EIO)?;
        put_header(stream, index, number(valid)?, number(invalid)?)?;
        let entries = &self.words[from * 2..(from + valid) * 2];
        // SAFETY: words are plain memory, as many bytes as the slice has; they are borrowed as long as the bytes are.
        let bytes = unsafe { std::slice::from_raw_parts(entries.as_ptr().cast(), size_of_val(entries)) };
        stream.put(bytes)
    }

    /// Valid entries only, from where the last call ended; every slot is stored to.
    fn first_pass(&mut self, stream: &mut dyn StreamWriter, bound: &Bound<'_>) -> Result<(), Errno> {
        let slots = self.slots();
        while self.index < slots && !stream.rate_limited() {
            while self.index < slots && !self.is(self.index, VALID) {
                self.clean(self.index);
                self.index += 1;
            }
            let from = self.index;
            while self.index < slots && self.index - from < MOST && self.is(self.index, VALID) {
                self.clean(self.index);
                self.index += 1;
            }
            if self.index > from {
                self.put(stream, from, self.index - from, 0)?;
                if bound.is_over() {
                    break;
                }
            }
        }
        if self.index >= slots {
            self.index = 0;
            self.first_pass = false;
        }
        Ok(())
    }

    /// What carries the mark, once round the table from where the last call ended. Returns whether there was nothing.
    fn later_pass(
        &mut self,
        stream: &mut dyn StreamWriter,
        bound: &Bound<'_>,
        last: bool,
    ) -> Result<bool, Errno> {
        let slots = self.slots();
        let (mut examined, mut sent) = (0, 0);
        while examined < slots && (last || !stream.rate_limited()) {
            let begin = self.index;
            while self.index < slots && !self.is(self.index, DIRTY) {
                self.index += 1;
            }
            let from = self.index;
            while self.index < slots
                && self.index - from < MOST
                && self.is(self.index, DIRTY)
                && self.is(self.index, VALID)
            {
                self.clean(self.index);
                self.index += 1;
            }
            let invalid_from = self.index;
            while self.index < slots
                && self.index - invalid_from < MOST
                && self.is(self.index, DIRTY)
                && !self.is(self.index, VALID)
            {
                self.clean(self.index);
                self.index += 1;
            }
            examined += self.index - begin;
            if self.index > from {
                self.put(stream, from, invalid_from - from, self.index - invalid_from)?;
                sent += self.index - from;
                if !last && bound.is_over() {
                    break;
                }
            }
            if self.index >= slots {
                self.index = 0;
            }
        }
        Ok(examined >= slots && sent == 0)
    }

    /// A body while the guest runs. Returns whether a whole sweep found nothing.
    ///
    /// # Errors
    /// The stream's.
    pub fn iterate(
        &mut self,
        stream: &mut dyn StreamWriter,
        clock: &dyn Clock,
        max: Option<Nanos>,
    ) -> Result<bool, Errno> {
        let bound = Bound { clock, began: clock.now(), max };
        body(stream, |stream| {
            if self.first_pass {
                self.first_pass(stream, &bound).map(|()| false)
            } else {
                self.later_pass(stream, &bound, false)
            }
        })
    }

    /// The last body: the rest of the first pass, and once round the table.
    ///
    /// # Errors
    /// The stream's.
    pub fn complete(&mut self, stream: &mut dyn StreamWriter, clock: &dyn Clock) -> Result<(), Errno> {
        let bound = Bound { clock, began: clock.now(), max: None };
        body(stream, |stream| {
            if self.first_pass {
                self.first_pass(stream, &bound)?;
            }
            self.later_pass(stream, &bound, true).map(|_| ())
        })
    }
}

/// Loads a body of records.
///
/// # Errors
/// The stream's.
pub fn load(stream: &mut dyn StreamReader, words: &mut [u64]) -> Result<(), Errno> {
    get_exactly(stream, &mut [0; 4])?;
    while let Some((index, n_valid, n_invalid)) = get_header(stream)? {
        let from = usize::try_from(index).map_err(|_| Errno::EIO)? * 2;
        let invalid_from = from + usize::from(n_valid) * 2;
        let entries = words.get_mut(from..invalid_from).ok_or(Errno::EIO)?;
        // SAFETY: words are plain memory, as many bytes as the slice has; they are borrowed as long as the bytes are.
        let bytes =
            unsafe { std::slice::from_raw_parts_mut(entries.as_mut_ptr().cast(), size_of_val(entries)) };
        get_exactly(stream, bytes)?;
        words.get_mut(invalid_from..invalid_from + usize::from(n_invalid) * 2).ok_or(Errno::EIO)?.fill(0);
    }
    Ok(())
}
