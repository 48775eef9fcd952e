// SPDX-License-Identifier: GPL-2.0-or-later
//! The library as QEMU calls it: through the C interface, with callbacks.

use htab_harness::handle::{Failure, Handle, Input, Output};
use spapr_htab::inside::capi::types::{
    SPAPR_HTAB_TABLE_KERNEL, SPAPR_HTAB_TABLE_MEMORY, SpaprHtabHost, SpaprHtabTable,
};
use spapr_htab::inside::error::Errno;
use spapr_htab::inside::host::{StreamReader, StreamWriter};
use std::ffi::{c_int, c_void};
use std::ptr;

/// The program around the library: a table, which its callbacks describe.
pub struct Program {
    kind: u32,
    order: u32,
    memory: *mut c_void,
}

/// A handle whose failures end the benchmark.
pub struct Library(Handle<Program>);

// SAFETY: `put` takes what this leads to, which is borrowed for the length of the call.
unsafe impl Output<Program> for &mut Out {
    fn pointer(self) -> *mut c_void {
        (&raw mut *self).cast()
    }
}

// SAFETY: `get` takes what this leads to, which is borrowed for the length of the call.
unsafe impl Input<Program> for &mut In<'_> {
    fn pointer(self) -> *mut c_void {
        (&raw mut *self).cast()
    }
}

/// Where a body goes.
pub enum Out {
    /// Nowhere.
    Thrown,
    /// Into memory.
    Kept(Vec<u8>),
    /// Into a buffer, round and round, as QEMU's stream copies what it is given.
    Copied(Box<[u8]>, usize),
}

/// The buffer of a stream of QEMU's (`IO_BUF_SIZE`).
const STREAM_BUFFER: usize = 32 << 10;

impl Out {
    #[must_use]
    pub fn copied() -> Out {
        Out::Copied(vec![0; STREAM_BUFFER].into(), 0)
    }

    /// What was kept.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        if let Out::Kept(bytes) = self { bytes } else { Vec::new() }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        match self {
            Out::Thrown => {}
            Out::Kept(kept) => kept.extend_from_slice(bytes),
            Out::Copied(buffer, at) => {
                while !bytes.is_empty() {
                    let room = &mut buffer[*at..];
                    let (now, later) = bytes.split_at(bytes.len().min(room.len()));
                    room[..now.len()].copy_from_slice(now);
                    *at = (*at + now.len()) % STREAM_BUFFER;
                    bytes = later;
                }
            }
        }
    }
}

impl StreamWriter for Out {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.take(bytes);
        Ok(())
    }

    fn rate_limited(&mut self) -> bool {
        false
    }
}

/// What is left of a body.
pub struct In<'a>(pub &'a [u8]);

impl StreamReader for In<'_> {
    fn get(&mut self, bytes: &mut [u8]) -> Result<usize, Errno> {
        let (now, later) = self.0.split_at(bytes.len().min(self.0.len()));
        bytes[..now.len()].copy_from_slice(now);
        self.0 = later;
        Ok(now.len())
    }
}

fn must<T>(result: Result<T, Failure>) -> T {
    result.unwrap_or_else(|failure| panic!("{failure:?}"))
}

impl Library {
    /// For a table in the kernel; `flags` as in the host structure.
    #[must_use]
    pub fn kernel(vm_fd: c_int, order: u32, flags: u32) -> Library {
        let program = Program { kind: SPAPR_HTAB_TABLE_KERNEL, order, memory: ptr::null_mut() };
        Library::new(program, vm_fd, flags)
    }

    /// For a table in memory.
    ///
    /// # Safety
    /// The table outlives the result, and while calls of the result run nobody else uses it.
    #[must_use]
    pub unsafe fn memory(words: *mut u64, order: u32) -> Library {
        let program = Program { kind: SPAPR_HTAB_TABLE_MEMORY, order, memory: words.cast() };
        Library::new(program, -1, 0)
    }

    fn new(program: Program, vm_fd: c_int, flags: u32) -> Library {
        let host = |program: &Program| {
            // SAFETY: integers, null pointers and absent functions: all zeros is a value of it.
            let none: SpaprHtabHost = unsafe { std::mem::zeroed() };
            SpaprHtabHost {
                struct_size: size_of::<SpaprHtabHost>(),
                opaque: ptr::from_ref(program).cast_mut().cast(),
                vm_fd,
                flags,
                put: Some(put),
                get: Some(get),
                table: Some(table),
                table_allocate: Some(allocate),
                table_free: Some(free),
                ..none
            }
        };
        // SAFETY: the callbacks below take a `Program`.
        Library(unsafe { Handle::of(program, host) })
    }

    pub fn setup(&self, out: &mut Out) {
        must(self.0.setup(out));
    }

    /// Returns whether a whole sweep found nothing.
    pub fn iterate(&self, out: &mut Out, max_ns: i64) -> bool {
        must(self.0.iterate(out, max_ns)) == 1
    }

    pub fn complete(&self, out: &mut Out) {
        must(self.0.complete(out));
    }

    pub fn cleanup(&self) {
        must(self.0.cleanup());
    }

    pub fn load(&self, body: &[u8]) {
        let mut left = In(body);
        must(self.0.load(&mut left, 1));
        assert!(left.0.is_empty(), "{} bytes of a body were not read", left.0.len());
        must(self.0.load_cleanup());
    }
}

/// The calls of the host's `get` that a load of this body makes, and nothing else: what it costs the host to hand it
/// over.
///
/// # Panics
/// When it is no body of records.
pub fn gets(body: &[u8]) {
    let mut left = In(body);
    // Not known to the compiler, as a host's is not to the library's.
    let get = std::hint::black_box(get as unsafe extern "C" fn(_, _, _, _) -> i64);
    let mut room = vec![0; 8 + 16 * 65_535];
    let mut call = |len: usize| {
        // SAFETY: the callback takes the stream for what it is, and there is room for `len` bytes.
        let got = unsafe { get(ptr::null_mut(), (&raw mut left).cast(), room.as_mut_ptr(), len) };
        assert_eq!(usize::try_from(got), Ok(len), "the body is cut short");
        let header: [u8; 8] = room[len.max(8) - 8..][..8].try_into().unwrap_or_default();
        u64::from_be_bytes(header)
    };
    call(4);
    let mut header = call(8);
    while header != 0 {
        let entries = usize::try_from(header >> 16 & 0xffff).unwrap_or_default();
        header = call(16 * entries + 8);
    }
}

unsafe extern "C" fn put(_: *mut c_void, stream: *mut c_void, data: *const u8, len: usize) -> c_int {
    // SAFETY: `stream` is what `Library`'s functions gave, an `Out` that they borrow for the length of the call.
    let out = unsafe { &mut *stream.cast::<Out>() };
    // SAFETY: the library gives `len` bytes that live until this returns.
    out.take(unsafe { std::slice::from_raw_parts(data, len) });
    0
}

unsafe extern "C" fn get(_: *mut c_void, stream: *mut c_void, data: *mut u8, len: usize) -> i64 {
    // SAFETY: `stream` is what `Library::load` gave, an `In` that it borrows for the length of the call.
    let left = unsafe { &mut *stream.cast::<In<'_>>() };
    let (now, later) = left.0.split_at(len.min(left.0.len()));
    // SAFETY: the library gives room for `len` bytes, of which there are no more than that.
    unsafe { data.copy_from_nonoverlapping(now.as_ptr(), now.len()) };
    left.0 = later;
    i64::try_from(now.len()).unwrap_or(i64::MAX)
}

unsafe extern "C" fn table(opaque: *mut c_void, out: *mut SpaprHtabTable) -> c_int {
    // SAFETY: the opaque pointer is to the `Program` that the handle keeps; `out` is the library's.
    let (program, out) = unsafe { (&*opaque.cast::<Program>(), &mut *out) };
    out.kind = program.kind;
    out.order = program.order;
    out.memory = program.memory;
    0
}

unsafe extern "C" fn allocate(_: *mut c_void, _: u32) -> c_int {
    // Tables are made before they are measured.
    0
}

unsafe extern "C" fn free(_: *mut c_void) -> c_int {
    0
}
