// SPDX-License-Identifier: GPL-2.0-or-later
//! The structures that cross the C border.

use libc::{c_char, c_int, c_void, iovec};

/// The guest has no hash table: a radix guest.
pub const SPAPR_HTAB_TABLE_NONE: u32 = 0;
/// The guest's hash table is in the kernel: KVM-HV.
pub const SPAPR_HTAB_TABLE_KERNEL: u32 = 1;
/// The guest's hash table is in this process's memory: TCG and KVM-PR.
pub const SPAPR_HTAB_TABLE_MEMORY: u32 = 2;

/// Flag of SpaprHtabHost: find changes in a table in memory that carry no dirty bit (reference and change bits under
/// TCG, everything under KVM-PR), by comparing every entry with what was last sent. Exact. While a save is under way it
/// takes as much memory again as the table has.
pub const SPAPR_HTAB_COMPARE: u32 = 1;

/// Flag of SpaprHtabHost: read a table in the kernel ahead, on a thread of the library's own that lives from
/// spapr_htab_save_setup to spapr_htab_save_cleanup. spapr_htab_save_iterate then sends what is ready and does not wait
/// for reads of the table; without a thread to be had it reads by itself. The thread is named "spapr-htab-read", blocks
/// all signals, and calls read_fd and no other callback.
pub const SPAPR_HTAB_READ_AHEAD: u32 = 2;

/// Flag of SpaprHtabHost: records for a table in the kernel may wait from one spapr_htab_load to the next, so that each
/// system call has as many as the kernel takes. Who sets it calls spapr_htab_load_finish when all sections have come,
/// before the guest runs and before the table or the load's figures are looked at.
pub const SPAPR_HTAB_GATHER: u32 = 4;

/// No thread reads ahead.
pub const SPAPR_HTAB_READER_NONE: u32 = 0;
/// The thread reads.
pub const SPAPR_HTAB_READER_READING: u32 = 1;
/// The thread has nothing to do: the next sweep is not due yet, or the VM is stopped and all was read.
pub const SPAPR_HTAB_READER_PARKED: u32 = 2;
/// The thread waits for room in the queue.
pub const SPAPR_HTAB_READER_FULL: u32 = 3;

/// The guest's hash table, as the host's callback `table` describes it.
///
/// The library zeroes the structure and sets `struct_size` before it asks; the host fills in the rest.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SpaprHtabTable {
    /// The size of this structure as the library knows it. A host leaves fields beyond it alone.
    pub struct_size: usize,
    /// One of SPAPR_HTAB_TABLE_*.
    pub kind: u32,
    /// log2 of the table's bytes, 18 to 36. Unused without a table.
    pub order: u32,
    /// SPAPR_HTAB_TABLE_MEMORY only: the table, 1 << order bytes, aligned to 8 bytes, big-endian entries. It stays
    /// allocated until table_allocate or table_free is called, spapr_htab_quiesce has returned, or no save or load is
    /// under way. Other threads may read and write it meanwhile in whole 64-bit words (or, in the second doubleword,
    /// in bytes), marking what they change in the first doubleword with 0x40 as QEMU does.
    pub memory: *mut c_void,
}

/// The host: what the library calls back.
///
/// Zero the structure, set `struct_size` to its size, fill in what is needed. Every callback gets `opaque`; those for
/// the stream also get the `stream` that was given to the save or load function. Callbacks return 0 or more, or
/// -errno. They are called on the thread that called the library, under the locks it holds, but for read_fd with
/// SPAPR_HTAB_READ_AHEAD, which is called on the library's thread without any; they must not unwind or longjmp
/// through the library. They must not wait for a lock under which another thread calls the library (QEMU: not
/// for the BQL). The callbacks table, table_allocate, table_free, open_fd, read_fd, writev_fd, close_fd,
/// clock_ns and log must not call back into the library; the stream's may call spapr_htab_stats,
/// spapr_htab_last_error, spapr_htab_vm_state, spapr_htab_dirty_log_read, spapr_htab_quiesce, spapr_htab_resume,
/// spapr_htab_resume_unchanged and the lookups.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SpaprHtabHost {
    /// sizeof(SpaprHtabHost).
    pub struct_size: usize,
    /// Given to every callback.
    pub opaque: *mut c_void,
    /// The VM's KVM file descriptor, for KVM_PPC_GET_HTAB_FD; -1 if there is none. Stays the caller's.
    pub vm_fd: c_int,
    /// SPAPR_HTAB_COMPARE, SPAPR_HTAB_READ_AHEAD and SPAPR_HTAB_GATHER, or 0.
    pub flags: u32,
    /// Needed to save: takes all `len` bytes of `data` before it returns, or fails for good. QEMU: qemu_put_buffer,
    /// then qemu_file_get_error.
    pub put: Option<
        unsafe extern "C" fn(opaque: *mut c_void, stream: *mut c_void, data: *const u8, len: usize) -> c_int,
    >,
    /// Optional: 1 if this round's share of the bandwidth is used up, else 0.
    pub rate_limited: Option<unsafe extern "C" fn(opaque: *mut c_void, stream: *mut c_void) -> c_int>,
    /// Needed to load: reads 1 to `len` bytes into `data` and returns their number; 0 at the end of the stream. May
    /// yield to other coroutines of the same thread.
    pub get: Option<
        unsafe extern "C" fn(opaque: *mut c_void, stream: *mut c_void, data: *mut u8, len: usize) -> i64,
    >,
    /// Optional: 0, or -errno if the stream has failed. Asked when `get` returns 0, which may be a failure or an end.
    pub stream_error: Option<unsafe extern "C" fn(opaque: *mut c_void, stream: *mut c_void) -> c_int>,
    /// Needed: describes the guest's table as it is now.
    pub table: Option<unsafe extern "C" fn(opaque: *mut c_void, out: *mut SpaprHtabTable) -> c_int>,
    /// Needed to load: gives the guest a new, empty table of this order in place of the one it has.
    pub table_allocate: Option<unsafe extern "C" fn(opaque: *mut c_void, order: u32) -> c_int>,
    /// Needed to load: the guest has no hash table from now on.
    pub table_free: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Optional, in place of the ioctl on vm_fd: opens the kernel's table. `flags`: 2 to write, else 0.
    /// Returns a file descriptor that the library will close.
    pub open_fd: Option<unsafe extern "C" fn(opaque: *mut c_void, flags: u64, start_index: u64) -> c_int>,
    /// Optional, in place of read(2) on what open_fd returned.
    pub read_fd:
        Option<unsafe extern "C" fn(opaque: *mut c_void, fd: c_int, data: *mut u8, len: usize) -> i64>,
    /// Optional, in place of writev(2) on what open_fd returned.
    pub writev_fd:
        Option<unsafe extern "C" fn(opaque: *mut c_void, fd: c_int, data: *const iovec, count: c_int) -> i64>,
    /// Optional, in place of close(2) on what open_fd returned.
    pub close_fd: Option<unsafe extern "C" fn(opaque: *mut c_void, fd: c_int)>,
    /// Optional, in place of CLOCK_MONOTONIC: nanoseconds.
    pub clock_ns: Option<unsafe extern "C" fn(opaque: *mut c_void) -> u64>,
    /// Optional: takes a line of log, without a newline. Level 1 error, 2 warning, 3 info, 4 debug, 5 trace.
    pub log: Option<unsafe extern "C" fn(opaque: *mut c_void, level: c_int, line: *const c_char)>,
    /// The highest level that `log` wants; 0 for none.
    pub log_level: c_int,
    /// SPAPR_HTAB_READ_AHEAD: the most bytes of memory for records that wait to be sent, in buffers of 131,080 bytes;
    /// 0 for the default, 4 MiB; 131,080 at least.
    pub queue_bytes: u64,
    /// The part of the time, in percent, that sweeps may take which find nothing, while iterate is called; 1 to 100, 0
    /// for the default, 25.
    pub sweep_share: u32,
    /// 0.
    pub reserved: u32,
}

/// What one pass over the table sent, or a load received.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SpaprHtabPass {
    /// Records.
    pub records: u64,
    /// Entries sent as valid.
    pub valid: u64,
    /// Slots sent as invalid.
    pub invalid: u64,
    /// Bytes of the records, headers included.
    pub bytes: u64,
    /// Nanoseconds spent in the library for it, callbacks included.
    pub time_ns: u64,
}

/// What the records since the table's size come to. Equal on the source, at its end, and on the destination.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaprHtabSum {
    /// The table's order; 0 without one.
    pub order: u32,
    /// CRC-32 of all record bytes.
    pub crc32: u32,
    /// Records.
    pub records: u64,
    /// Their bytes, headers included.
    pub bytes: u64,
}

/// What the last save and the last load did, or are doing.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct SpaprHtabStats {
    /// The order of the table being saved; 0 without one.
    pub save_order: u32,
    /// CRC-32 of all record bytes since the table's size was sent.
    pub save_crc32: u32,
    /// Passes begun; see spapr_htab_pass.
    pub save_passes: u64,
    /// Estimate of the bytes still to be sent, whether spapr_htab_save_pending has a host wait for them or not; 0 after
    /// a complete.
    pub save_pending: u64,
    /// All that was sent since the setup, of every table there was.
    pub save_total: SpaprHtabPass,
    /// What of it was sent by spapr_htab_save_complete.
    pub save_stopped: SpaprHtabPass,
    /// What of it was sent because lookups had taken the kernel's mark of the change; part of no pass, and without
    /// a time of its own.
    pub save_looked_up: SpaprHtabPass,
    /// All that was loaded since the table's size arrived. What waits with SPAPR_HTAB_GATHER is not counted yet.
    pub load_total: SpaprHtabPass,
    /// Sections read since the table's size arrived, the one with the size included.
    pub load_sections: u64,
    /// Entries that came as valid without their valid bit, and were loaded as invalid slots.
    pub load_demoted: u64,
    /// CRC-32 of all record bytes since the table's size arrived. Equals save_crc32 of the source at its end.
    pub load_crc32: u32,
    /// Always 0.
    pub reserved: u32,
    /// Bytes that were read ahead and wait to be sent.
    pub save_queue_bytes: u64,
    /// One of SPAPR_HTAB_READER_*.
    pub save_reader: u32,
    /// Always 0.
    pub reserved2: u32,
    /// Records since the table's size was sent. Equals the `records` of the destination's load_total at the end.
    pub save_records: u64,
    /// Their bytes, headers included. Equals the `bytes` of the destination's load_total at the end.
    pub save_bytes: u64,
}
