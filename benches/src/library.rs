// SPDX-License-Identifier: GPL-2.0-or-later
//! The library as QEMU calls it: through the C interface, with callbacks.

use spapr_htab::exports;
use spapr_htab::inside::capi::handle::SpaprHtab;
use spapr_htab::inside::capi::types::{
    SPAPR_HTAB_TABLE_KERNEL, SPAPR_HTAB_TABLE_MEMORY, SpaprHtabHost, SpaprHtabTable,
};
use spapr_htab::inside::error::Errno;
use spapr_htab::inside::host::{StreamReader, StreamWriter};
use std::ffi::{c_int, c_void};
use std::ptr;

/// What the callbacks say of the table.
struct Described {
    kind: u32,
    order: u32,
    memory: *mut c_void,
}

/// A handle.
pub struct Library {
    handle: *mut SpaprHtab,
    /// The host's opaque pointer leads here.
    _described: Box<Described>,
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

/// Negative results of the library end the benchmark.
fn check(result: c_int) -> c_int {
    assert!(result >= 0, "the library returned {result}");
    result
}

impl Library {
    /// For a table in the kernel; `flags` as in the host structure.
    #[must_use]
    pub fn kernel(vm_fd: c_int, order: u32, flags: u32) -> Library {
        Library::new(
            Described { kind: SPAPR_HTAB_TABLE_KERNEL, order, memory: ptr::null_mut() },
            vm_fd,
            flags,
        )
    }

    /// For a table in memory.
    ///
    /// # Safety
    /// The table outlives the result, and while calls of the result run nobody else uses it.
    #[must_use]
    pub unsafe fn memory(words: *mut u64, order: u32) -> Library {
        Library::new(Described { kind: SPAPR_HTAB_TABLE_MEMORY, order, memory: words.cast() }, -1, 0)
    }

    fn new(described: Described, vm_fd: c_int, flags: u32) -> Library {
        let mut described = Box::new(described);
        // SAFETY: integers, null pointers and absent functions: all zeros is a value of it.
        let mut host: SpaprHtabHost = unsafe { std::mem::zeroed() };
        host.struct_size = size_of::<SpaprHtabHost>();
        host.opaque = (&raw mut *described).cast();
        host.vm_fd = vm_fd;
        host.flags = flags;
        host.put = Some(put);
        host.get = Some(get);
        host.table = Some(table);
        host.table_allocate = Some(allocate);
        host.table_free = Some(free);
        let mut handle = ptr::null_mut();
        // SAFETY: both pointers are to values of ours.
        check(unsafe { exports::spapr_htab_new(&raw const host, &raw mut handle) });
        Library { handle, _described: described }
    }

    pub fn setup(&self, out: &mut Out) {
        // SAFETY: the handle is live, and the callbacks take the stream for what it is.
        check(unsafe { exports::spapr_htab_save_setup(self.handle, (&raw mut *out).cast()) });
    }

    /// Returns whether a whole sweep found nothing.
    pub fn iterate(&self, out: &mut Out, max_ns: i64) -> bool {
        // SAFETY: as in `setup`.
        check(unsafe { exports::spapr_htab_save_iterate(self.handle, (&raw mut *out).cast(), max_ns) }) == 1
    }

    pub fn complete(&self, out: &mut Out) {
        // SAFETY: as in `setup`.
        check(unsafe { exports::spapr_htab_save_complete(self.handle, (&raw mut *out).cast()) });
    }

    pub fn cleanup(&self) {
        // SAFETY: the handle is live.
        check(unsafe { exports::spapr_htab_save_cleanup(self.handle) });
    }

    pub fn load(&self, body: &[u8]) {
        let mut left = In(body);
        // SAFETY: as in `setup`.
        check(unsafe { exports::spapr_htab_load(self.handle, (&raw mut left).cast(), 1) });
        assert!(left.0.is_empty(), "{} bytes of a body were not read", left.0.len());
        // SAFETY: the handle is live.
        check(unsafe { exports::spapr_htab_load_cleanup(self.handle) });
    }
}

/// The calls of the host's `get` that a load of this body makes, and nothing else: what it costs the host to hand it over.
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

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: the handle is live and is not used again.
        unsafe { exports::spapr_htab_free(self.handle) };
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
    // SAFETY: the opaque pointer is to the `Described` that the `Library` keeps; `out` is the library's.
    let (described, out) = unsafe { (&*opaque.cast::<Described>(), &mut *out) };
    out.kind = described.kind;
    out.order = described.order;
    out.memory = described.memory;
    0
}

unsafe extern "C" fn allocate(_: *mut c_void, _: u32) -> c_int {
    // Tables are made before they are measured.
    0
}

unsafe extern "C" fn free(_: *mut c_void) -> c_int {
    0
}
