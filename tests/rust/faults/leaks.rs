// SPDX-License-Identifier: GPL-2.0-or-later
//! What a run leaves behind: memory, file descriptors, threads. And memory that is not to be had.

use htab_harness::plan::in_program;
use htab_harness::threads::{readers, wait_for};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};

/// From this size on the library reports an allocation that fails. For less it relies on the program, as QEMU does on
/// its own allocator.
pub const LARGE: usize = 32 << 10;

static BYTES: AtomicI64 = AtomicI64::new(0);
static BLOCKS: AtomicI64 = AtomicI64::new(0);
/// Large allocations of the library's until one fails; none does at 0.
static UNTIL: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, counting; one large allocation can be made to fail.
pub struct Counting;

fn count(layout: Layout, sign: i64) {
    BYTES.fetch_add(sign * i64::try_from(layout.size()).unwrap_or(0), SeqCst);
    BLOCKS.fetch_add(sign, SeqCst);
}

fn refused(layout: Layout) -> bool {
    layout.size() >= LARGE
        && !in_program()
        && UNTIL.fetch_update(SeqCst, SeqCst, |until| until.checked_sub(1)) == Ok(1)
}

// SAFETY: the system's allocator does the work; a null pointer says that there is no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if refused(layout) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise is the one asked for.
        let block = unsafe { System.alloc(layout) };
        if !block.is_null() {
            count(layout, 1);
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(layout, -1);
        // SAFETY: the caller's promise is the one asked for.
        unsafe { System.dealloc(block, layout) };
    }
}

/// The `nth` large allocation of the library's from now on (0: the next) fails.
pub fn refuse(nth: u64) {
    UNTIL.store(nth + 1, SeqCst);
}

/// No allocation fails from now on. Whether one did.
pub fn refuse_no_more() -> bool {
    UNTIL.swap(0, SeqCst) == 0
}

/// What the process has.
#[derive(PartialEq, Eq, Debug)]
pub struct Holdings {
    bytes: i64,
    blocks: i64,
    /// A bit for each.
    fds: [u64; 16],
}

impl Holdings {
    /// When no thread of the library's is left.
    pub fn now() -> Holdings {
        wait_for(|| readers() == Ok(0)).expect("a thread is left");
        let (bytes, blocks) = (BYTES.load(SeqCst), BLOCKS.load(SeqCst));
        let mut fds = [0; 16];
        for fd in std::fs::read_dir("/proc/self/fd").expect("/proc").flatten() {
            let fd: usize = fd.file_name().to_string_lossy().parse().expect("a number");
            fds[fd / 64] |= 1 << (fd % 64);
        }
        Holdings { bytes, blocks, fds }
    }
}

/// Runs something that leaves nothing behind.
pub fn nothing_is_left_by<T>(run: impl Fn() -> T) -> T {
    let before = Holdings::now();
    let result = run();
    assert_eq!(Holdings::now(), before);
    result
}
