// SPDX-License-Identifier: GPL-2.0-or-later
//! The file that is inspected, or a pipe: read once from start to end, with a count of bytes.

use crate::fault::Fault;
use indicatif::{ProgressBar, ProgressStyle};
use spapr_htab::inside::error::Errno;
use spapr_htab::inside::host::StreamReader;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

/// Reading in smaller pieces would be a system call for each page of RAM.
const BUFFER_BYTES: usize = 1 << 20;
/// A bar for less would be gone before it is seen.
const LEAST_FOR_A_BAR: u64 = 64 << 20;
/// Bytes from one movement of the bar to the next.
const BAR_STEP: u64 = 4 << 20;

enum Source {
    File(io::BufReader<File>, u64),
    Pipe(io::BufReader<Box<dyn Read>>),
    Memory(Cursor<Vec<u8>>),
}

/// Where bytes come from.
pub struct Input {
    from: Source,
    offset: u64,
    /// Read before they were wanted; the next to be read is the last.
    pushed: Vec<u8>,
    bar: ProgressBar,
}

impl Input {
    /// `-` is standard input.
    pub fn open(path: &Path, quiet: bool) -> io::Result<Input> {
        if path == Path::new("-") {
            return Ok(Input::pipe(Box::new(io::stdin())));
        }
        let file = File::open(path)?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Ok(Input::pipe(Box::new(file)));
        }
        let bar = if quiet || about.len() < LEAST_FOR_A_BAR {
            ProgressBar::hidden()
        } else {
            let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {eta} to go");
            // On standard error, and not at all where that is no terminal.
            ProgressBar::new(about.len()).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        };
        let reader = io::BufReader::with_capacity(BUFFER_BYTES, file);
        Ok(Input { from: Source::File(reader, about.len()), offset: 0, pushed: Vec::new(), bar })
    }

    fn pipe(from: Box<dyn Read>) -> Input {
        let reader = io::BufReader::with_capacity(BUFFER_BYTES, from);
        Input { from: Source::Pipe(reader), offset: 0, pushed: Vec::new(), bar: ProgressBar::hidden() }
    }

    /// For tests: a pipe's worth of bytes.
    #[cfg(test)]
    pub fn of(bytes: &[u8]) -> Input {
        Input::pipe(Box::new(Cursor::new(bytes.to_vec())))
    }

    /// Bytes read or skipped so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What can be known of the size: that of a file, or of what was kept of a pipe.
    fn size(&self) -> Option<u64> {
        match &self.from {
            Source::File(_, size) => Some(*size),
            Source::Pipe(_) => None,
            Source::Memory(rest) => Some(self.offset + rest.get_ref().len() as u64 - rest.position()),
        }
    }

    fn some(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let got = if let (Some(byte), [first, ..]) = (self.pushed.pop(), &mut *bytes) {
            *first = byte;
            1
        } else {
            match &mut self.from {
                Source::File(file, _) => file.read(bytes)?,
                Source::Pipe(pipe) => pipe.read(bytes)?,
                Source::Memory(rest) => rest.read(bytes)?,
            }
        };
        self.advance(got as u64);
        Ok(got)
    }

    fn advance(&mut self, bytes: u64) {
        if self.offset / BAR_STEP != (self.offset + bytes) / BAR_STEP {
            self.bar.set_position(self.offset + bytes);
        }
        self.offset += bytes;
    }

    /// Fills `bytes`; `what` is for the sentence if that cannot be done.
    pub fn exactly(&mut self, bytes: &mut [u8], what: &str) -> Result<(), Fault> {
        let begin = self.offset;
        let mut filled = 0;
        while filled < bytes.len() {
            match self.some(&mut bytes[filled..]) {
                Ok(0) => return Err(ended(begin, what, self.offset)),
                Ok(got) => filled += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(self.offset, &error)),
            }
        }
        Ok(())
    }

    pub fn byte(&mut self, what: &str) -> Result<u8, Fault> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    pub fn be16(&mut self, what: &str) -> Result<u16, Fault> {
        self.array(what).map(u16::from_be_bytes)
    }

    pub fn be32(&mut self, what: &str) -> Result<u32, Fault> {
        self.array(what).map(u32::from_be_bytes)
    }

    pub fn be64(&mut self, what: &str) -> Result<u64, Fault> {
        self.array(what).map(u64::from_be_bytes)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.exactly(&mut bytes, what)?;
        Ok(bytes)
    }

    /// A name of that many bytes.
    pub fn text(&mut self, len: usize, what: &str) -> Result<String, Fault> {
        let begin = self.offset;
        let mut bytes = vec![0; len];
        self.exactly(&mut bytes, what)?;
        match String::from_utf8(bytes) {
            Ok(text) if !text.is_empty() && !text.contains(char::is_control) => Ok(text),
            _ => Err(Fault::new(begin, format!("{what} is not text"))),
        }
    }

    /// A name behind its length in one byte, as QEMU writes them.
    pub fn name(&mut self, what: &str) -> Result<String, Fault> {
        let len = self.byte(what)?;
        self.text(usize::from(len), what)
    }

    /// The next `bytes.len()` bytes if there are as many, which stay where they are.
    pub fn peek<const N: usize>(&mut self) -> Result<Option<[u8; N]>, Fault> {
        let mut bytes = [0; N];
        let mut filled = 0;
        while filled < N {
            match self.some(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(got) => filled += got,
                Err(error) => return Err(unreadable(self.offset, &error)),
            }
        }
        self.pushed.extend(bytes[..filled].iter().rev());
        self.offset -= filled as u64;
        Ok((filled == N).then_some(bytes))
    }

    /// Passes that many bytes.
    pub fn skip(&mut self, bytes: u64, what: &str) -> Result<(), Fault> {
        let begin = self.offset;
        let Some(target) = begin.checked_add(bytes) else {
            return Err(ended(begin, what, begin));
        };
        while self.offset < target && !self.pushed.is_empty() {
            self.byte(what)?;
        }
        let left = target - self.offset;
        let skipped = match &mut self.from {
            Source::File(file, size) => {
                let (skipped, distance) = (left.min(size.saturating_sub(self.offset)), i64::try_from(left));
                match distance {
                    Ok(distance) if skipped == left => file.seek_relative(distance).map(|()| skipped),
                    _ => Ok(skipped),
                }
            }
            Source::Pipe(pipe) => io::copy(&mut pipe.take(left), &mut io::sink()),
            Source::Memory(rest) => io::copy(&mut rest.take(left), &mut io::sink()),
        };
        match skipped {
            Ok(skipped) => self.advance(skipped),
            Err(error) => return Err(unreadable(self.offset, &error)),
        }
        if self.offset == target { Ok(()) } else { Err(ended(begin, what, self.offset)) }
    }

    /// The last bytes of a file, at most that many; nothing of a pipe.
    pub fn tail(&mut self, most: u64) -> Result<Option<Vec<u8>>, Fault> {
        let offset = self.offset;
        let (Source::File(file, size), true) = (&mut self.from, self.pushed.is_empty()) else {
            return Ok(None);
        };
        let begin = size.saturating_sub(most).max(offset);
        let mut tail = Vec::new();
        let mut read = || {
            file.seek(SeekFrom::Start(begin))?;
            file.read_to_end(&mut tail)?;
            file.seek(SeekFrom::Start(offset))
        };
        read().map_err(|error| unreadable(begin, &error))?;
        Ok(Some(tail))
    }

    /// Keeps all that is to come, at most that many bytes, and lets one look at it.
    pub fn keep_rest(&mut self, most: u64) -> Result<&[u8], Fault> {
        let mut rest: Vec<u8> = self.pushed.drain(..).rev().collect();
        let read = match &mut self.from {
            Source::File(file, _) => file.take(most).read_to_end(&mut rest),
            Source::Pipe(pipe) => pipe.take(most).read_to_end(&mut rest),
            Source::Memory(memory) => memory.take(most).read_to_end(&mut rest),
        };
        read.map_err(|error| unreadable(self.offset, &error))?;
        self.from = Source::Memory(Cursor::new(rest));
        match &self.from {
            Source::Memory(rest) => Ok(rest.get_ref()),
            _ => Ok(&[]),
        }
    }

    /// Bytes from here to the end.
    pub fn count_rest(&mut self) -> Result<u64, Fault> {
        if let Some(size) = self.size() {
            return Ok(size.saturating_sub(self.offset));
        }
        let begin = self.offset;
        let mut buffer = [0; 4096];
        loop {
            match self.some(&mut buffer) {
                Ok(0) => return Ok(self.offset - begin),
                Ok(_) => {}
                Err(error) => return Err(unreadable(self.offset, &error)),
            }
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl StreamReader for Input {
    fn get(&mut self, bytes: &mut [u8]) -> Result<usize, Errno> {
        self.some(bytes).map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::new))
    }
}

fn ended(begin: u64, what: &str, end: u64) -> Fault {
    Fault::new(begin, format!("{what} is cut off: the file ends at byte {end}"))
}

fn unreadable(offset: u64, error: &io::Error) -> Fault {
    Fault::new(offset, format!("cannot be read: {error}"))
}
