// SPDX-License-Identifier: GPL-2.0-or-later
//! The least that could do the same: the system calls alone, on the same data, nothing parsed, kept or sent.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The kernel starts no record with this much room left or less.
const ROOM_NEEDED: usize = 24;

/// Reads to the end of the table with the buffer's size.
pub fn read_pass(fd: BorrowedFd<'_>, buf: &mut [u8], mut each: impl FnMut(&[u8])) {
    loop {
        // SAFETY: the kernel writes at most `len` bytes from the slice's start, within the slice.
        let got = unsafe { libc::read(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) };
        let got = usize::try_from(got).unwrap_or_else(|_| panic!("read: {}", io::Error::last_os_error()));
        each(&buf[..got]);
        if got + ROOM_NEEDED < buf.len() {
            return;
        }
    }
}

/// Kernel records, each a segment of a vectored write.
pub struct Segments<'a>(Vec<&'a [u8]>);

impl<'a> Segments<'a> {
    /// Cuts what reads returned into its records.
    ///
    /// # Panics
    /// When it is no whole number of them.
    #[must_use]
    pub fn cut(bytes: &'a [u8]) -> Segments<'a> {
        Segments(htab_model::record::cut(bytes).expect("whole records"))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The vectors for the calls, made beforehand: the call alone counts.
    #[must_use]
    pub fn vectors(&self) -> Vec<libc::iovec> {
        let vector = |record: &&[u8]| libc::iovec {
            iov_base: record.as_ptr().cast_mut().cast(),
            iov_len: record.len(),
        };
        self.0.iter().map(vector).collect()
    }

    /// Writes them all, 1024 to a call.
    pub fn write(&self, fd: BorrowedFd<'_>, vectors: &[libc::iovec]) {
        for (some, records) in vectors.chunks(1024).zip(self.0.chunks(1024)) {
            let all: usize = records.iter().map(|record| record.len()).sum();
            let segments = libc::c_int::try_from(some.len()).expect("1024 at most");
            // SAFETY: each vector is one of the slices in `self`, which the kernel only reads.
            let took = unsafe { libc::writev(fd.as_raw_fd(), some.as_ptr(), segments) };
            assert_eq!(usize::try_from(took).ok(), Some(all), "writev: {}", io::Error::last_os_error());
        }
    }
}
