/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * spapr-htab: carries a POWER guest's hashed page table through QEMU migration.
 *
 * Pointers: a handle is NULL or came from spapr_htab_new and was not freed since; other pointers are NULL or valid for
 * what the function says, for the length of the call.
 * Rules for every function, unless it says otherwise:
 * - A handle is used by any number of threads; each function says what it waits for.
 * - Functions return 0 or more, or -errno; spapr_htab_last_error has the sentence that belongs to it.
 * - Inputs come before outputs. Outputs are written on success only.
 * - A NULL handle gives -EINVAL, and so does a NULL where something is needed. spapr_htab_free(NULL) is fine.
 * - Nothing is printed; the log goes to the host's callback.
 *
 * Made by cbindgen from src/capi. Do not edit.
 */

#ifndef SPAPR_HTAB_H
#define SPAPR_HTAB_H

#include <stddef.h>
#include <stdint.h>

struct iovec; /* <sys/uio.h> */

#define SPAPR_HTAB_VERSION_MAJOR 0
#define SPAPR_HTAB_VERSION_MINOR 1
#define SPAPR_HTAB_VERSION_PATCH 0

/* The guest has no hash table: a radix guest. */
#define SPAPR_HTAB_TABLE_NONE 0

/* The guest's hash table is in the kernel: KVM-HV. */
#define SPAPR_HTAB_TABLE_KERNEL 1

/* The guest's hash table is in this process's memory: TCG and KVM-PR. */
#define SPAPR_HTAB_TABLE_MEMORY 2

/*
 * Flag of SpaprHtabHost: find changes in a table in memory that carry no dirty bit (reference and change bits under
 * TCG, everything under KVM-PR), by comparing every entry with what was last sent. Exact. While a save is under way it
 * takes as much memory again as the table has.
 */
#define SPAPR_HTAB_COMPARE 1

/*
 * Flag of SpaprHtabHost: read a table in the kernel ahead, on a thread of the library's own that lives from
 * spapr_htab_save_setup to spapr_htab_save_cleanup. spapr_htab_save_iterate then sends what is ready and does not wait
 * for reads of the table; without a thread to be had it reads by itself. The thread is named "spapr-htab-read", blocks
 * all signals, and calls read_fd and no other callback.
 */
#define SPAPR_HTAB_READ_AHEAD 2

/*
 * Flag of SpaprHtabHost: records for a table in the kernel may wait from one spapr_htab_load to the next, so that each
 * system call has as many as the kernel takes. Who sets it calls spapr_htab_load_finish when all sections have come,
 * before the guest runs and before the table or the load's figures are looked at.
 */
#define SPAPR_HTAB_GATHER 4

/* No thread reads ahead. */
#define SPAPR_HTAB_READER_NONE 0

/* The thread reads. */
#define SPAPR_HTAB_READER_READING 1

/* The thread has nothing to do: the next sweep is not due yet, or the VM is stopped and all was read. */
#define SPAPR_HTAB_READER_PARKED 2

/* The thread waits for room in the queue. */
#define SPAPR_HTAB_READER_FULL 3

/* The number that changes when a program built for an older library can no longer use this one. */
#define SPAPR_HTAB_ABI_VERSION 1

/* One guest's hash table on its way through migrations. Opaque. */
typedef struct SpaprHtab SpaprHtab;

/*
 * The guest's hash table, as the host's callback `table` describes it.
 *
 * The library zeroes the structure and sets `struct_size` before it asks; the host fills in the rest.
 */
typedef struct SpaprHtabTable {
    /* The size of this structure as the library knows it. A host leaves fields beyond it alone. */
    size_t struct_size;
    /* One of SPAPR_HTAB_TABLE_*. */
    uint32_t kind;
    /* log2 of the table's bytes, 18 to 36. Unused without a table. */
    uint32_t order;
    /*
     * SPAPR_HTAB_TABLE_MEMORY only: the table, 1 << order bytes, aligned to 8 bytes, big-endian entries. It stays
     * allocated until table_allocate or table_free is called, spapr_htab_quiesce has returned, or no save or load is
     * under way. Other threads may read and write it meanwhile in whole 64-bit words (or, in the second doubleword,
     * in bytes), marking what they change in the first doubleword with 0x40 as QEMU does.
     */
    void *memory;
} SpaprHtabTable;

/*
 * The host: what the library calls back.
 *
 * Zero the structure, set `struct_size` to its size, fill in what is needed. Every callback gets `opaque`; those for
 * the stream also get the `stream` that was given to the save or load function. Callbacks return 0 or more, or
 * -errno. They are called on the thread that called the library, under the locks it holds, but for read_fd with
 * SPAPR_HTAB_READ_AHEAD, which is called on the library's thread without any; they must not unwind or longjmp
 * through the library. They must not wait for a lock under which another thread calls the library (QEMU: not
 * for the BQL). The callbacks table, table_allocate, table_free, open_fd, read_fd, writev_fd, close_fd,
 * clock_ns and log must not call back into the library; the stream's may call spapr_htab_stats,
 * spapr_htab_last_error, spapr_htab_vm_state, spapr_htab_dirty_log_read, spapr_htab_quiesce, spapr_htab_resume,
 * spapr_htab_resume_unchanged and the lookups.
 */
typedef struct SpaprHtabHost {
    /* sizeof(SpaprHtabHost). */
    size_t struct_size;
    /* Given to every callback. */
    void *opaque;
    /* The VM's KVM file descriptor, for KVM_PPC_GET_HTAB_FD; -1 if there is none. Stays the caller's. */
    int vm_fd;
    /* SPAPR_HTAB_COMPARE, SPAPR_HTAB_READ_AHEAD and SPAPR_HTAB_GATHER, or 0. */
    uint32_t flags;
    /*
     * Needed to save: takes all `len` bytes of `data` before it returns, or fails for good. QEMU: qemu_put_buffer,
     * then qemu_file_get_error.
     */
    int (*put)(void *opaque, void *stream, const uint8_t *data, size_t len);
    /* Optional: 1 if this round's share of the bandwidth is used up, else 0. */
    int (*rate_limited)(void *opaque, void *stream);
    /*
     * Needed to load: reads 1 to `len` bytes into `data` and returns their number; 0 at the end of the stream. May
     * yield to other coroutines of the same thread.
     */
    int64_t (*get)(void *opaque, void *stream, uint8_t *data, size_t len);
    /* Optional: 0, or -errno if the stream has failed. Asked when `get` returns 0, which may be a failure or an end. */
    int (*stream_error)(void *opaque, void *stream);
    /* Needed: describes the guest's table as it is now. */
    int (*table)(void *opaque, struct SpaprHtabTable *out);
    /* Needed to load: gives the guest a new, empty table of this order in place of the one it has. */
    int (*table_allocate)(void *opaque, uint32_t order);
    /* Needed to load: the guest has no hash table from now on. */
    int (*table_free)(void *opaque);
    /*
     * Optional, in place of the ioctl on vm_fd: opens the kernel's table. `flags`: 2 to write, else 0.
     * Returns a file descriptor that the library will close.
     */
    int (*open_fd)(void *opaque, uint64_t flags, uint64_t start_index);
    /* Optional, in place of read(2) on what open_fd returned. */
    int64_t (*read_fd)(void *opaque, int fd, uint8_t *data, size_t len);
    /* Optional, in place of writev(2) on what open_fd returned. */
    int64_t (*writev_fd)(void *opaque, int fd, const struct iovec *data, int count);
    /* Optional, in place of close(2) on what open_fd returned. */
    void (*close_fd)(void *opaque, int fd);
    /* Optional, in place of CLOCK_MONOTONIC: nanoseconds. */
    uint64_t (*clock_ns)(void *opaque);
    /* Optional: takes a line of log, without a newline. Level 1 error, 2 warning, 3 info, 4 debug, 5 trace. */
    void (*log)(void *opaque, int level, const char *line);
    /* The highest level that `log` wants; 0 for none. */
    int log_level;
    /*
     * SPAPR_HTAB_READ_AHEAD: the most bytes of memory for records that wait to be sent, in buffers of 131,080 bytes;
     * 0 for the default, 4 MiB; 131,080 at least.
     */
    uint64_t queue_bytes;
    /*
     * The part of the time, in percent, that sweeps may take which find nothing, while iterate is called; 1 to 100, 0
     * for the default, 25.
     */
    uint32_t sweep_share;
    /* 0. */
    uint32_t reserved;
} SpaprHtabHost;

/* What the records since the table's size come to. Equal on the source, at its end, and on the destination. */
typedef struct SpaprHtabSum {
    /* The table's order; 0 without one. */
    uint32_t order;
    /* CRC-32 of all record bytes. */
    uint32_t crc32;
    /* Records. */
    uint64_t records;
    /* Their bytes, headers included. */
    uint64_t bytes;
} SpaprHtabSum;

/* What one pass over the table sent, or a load received. */
typedef struct SpaprHtabPass {
    /* Records. */
    uint64_t records;
    /* Entries sent as valid. */
    uint64_t valid;
    /* Slots sent as invalid. */
    uint64_t invalid;
    /* Bytes of the records, headers included. */
    uint64_t bytes;
    /* Nanoseconds spent in the library for it, callbacks included. */
    uint64_t time_ns;
} SpaprHtabPass;

/* What the last save and the last load did, or are doing. */
typedef struct SpaprHtabStats {
    /* The order of the table being saved; 0 without one. */
    uint32_t save_order;
    /* CRC-32 of all record bytes since the table's size was sent. */
    uint32_t save_crc32;
    /* Passes begun; see spapr_htab_pass. */
    uint64_t save_passes;
    /*
     * Estimate of the bytes still to be sent, whether spapr_htab_save_pending has a host wait for them or not; 0 after
     * a complete.
     */
    uint64_t save_pending;
    /* All that was sent since the setup, of every table there was. */
    struct SpaprHtabPass save_total;
    /* What of it was sent by spapr_htab_save_complete. */
    struct SpaprHtabPass save_stopped;
    /*
     * What of it was sent because lookups had taken the kernel's mark of the change; part of no pass, and without
     * a time of its own.
     */
    struct SpaprHtabPass save_looked_up;
    /* All that was loaded since the table's size arrived. What waits with SPAPR_HTAB_GATHER is not counted yet. */
    struct SpaprHtabPass load_total;
    /* Sections read since the table's size arrived, the one with the size included. */
    uint64_t load_sections;
    /* Entries that came as valid without their valid bit, and were loaded as invalid slots. */
    uint64_t load_demoted;
    /* CRC-32 of all record bytes since the table's size arrived. Equals save_crc32 of the source at its end. */
    uint32_t load_crc32;
    /* Always 0. */
    uint32_t reserved;
    /* Bytes that were read ahead and wait to be sent. */
    uint64_t save_queue_bytes;
    /* One of SPAPR_HTAB_READER_*. */
    uint32_t save_reader;
    /* Always 0. */
    uint32_t reserved2;
    /* Records since the table's size was sent. Equals the `records` of the destination's load_total at the end. */
    uint64_t save_records;
    /* Their bytes, headers included. Equals the `bytes` of the destination's load_total at the end. */
    uint64_t save_bytes;
} SpaprHtabStats;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 * Makes a handle for one guest. It serves any number of saves and loads.
 *
 * - `host`: what the library calls back. The structure is copied; what its pointers point to lives until the handle is
 * freed.
 * - `out`: where the handle is stored.
 *
 * Returns 0; -EINVAL if `host` or `out` is NULL or `host` is not as SpaprHtabHost says.
 *
 * Any thread, any lock; waits for nothing.
 */
int spapr_htab_new(const struct SpaprHtabHost *host,
                   struct SpaprHtab **out);

/*
 * Frees a handle. A save that was not cleaned up ends, and its file descriptor is closed.
 *
 * - `handle`: NULL is fine. No other call on the handle is running, and none follows.
 *
 * Any thread, any lock; waits for a read of the table by the library's thread.
 */
void spapr_htab_free(struct SpaprHtab *handle);

/*
 * Copies the sentence that says what last failed, and what to do. It is UTF-8 in one line; empty if nothing failed
 * yet.
 *
 * - `size`: bytes that may be written to `buf`.
 * - `buf`: takes as much of the sentence as fits, with a NUL at its end. NULL with a `size` of 0 asks for the length.
 *
 * Returns the length in bytes of the whole sentence, without the NUL; 0 if `handle` is NULL.
 *
 * Any thread, any lock; waits for nothing. Another thread's failure may come between a call and this one.
 */
size_t spapr_htab_last_error(const struct SpaprHtab *handle,
                             size_t size,
                             char *buf);

/*
 * Which version of the library is linked in.
 *
 * Returns "MAJOR.MINOR.PATCH", a constant string.
 *
 * Any thread, any lock; waits for nothing.
 */
const char *spapr_htab_version(void);

/*
 * Which interface the library that is linked in has.
 *
 * Returns its SPAPR_HTAB_ABI_VERSION, to be compared with the header's.
 *
 * Any thread, any lock; waits for nothing.
 */
uint32_t spapr_htab_abi_version(void);

/*
 * Begins a save: writes the section's first body, which is the table's size or that there is none, and begins to track
 * changes. Ends a save that was under way.
 *
 * With a table in the kernel its fd is opened here, so that a kernel that cannot do it fails the migration at once.
 *
 * - `stream`: given to the callback `put`; used during the call only.
 *
 * Returns 0 or -errno: the host's from `table` and `put`; -EINVAL for a table order outside 18 to 36; -ENOTTY,
 * -EMFILE, -ENOMEM and the like from opening the fd; -EDEADLK if called from a stream callback. After an error the
 * save functions return that same error until the next setup or cleanup.
 *
 * The caller holds whatever lock keeps the table from being replaced (QEMU: the BQL). Waits for another save function.
 */
int spapr_htab_save_setup(struct SpaprHtab *handle,
                          void *stream);

/*
 * Writes one body with some of what there is to send, while the guest runs.
 *
 * It ends when the time is over, the stream's rate limit is reached, or the end of the table is. With a table in
 * memory the time is kept to within 4096 slots. With one in the kernel a first pass takes longer by at most one read
 * of the smallest size (65,535 empty slots), but a later pass may need one read over the whole table, which nothing
 * can interrupt. With SPAPR_HTAB_READ_AHEAD the call sends what was read and waits for no read, except in two cases:
 * without a bound it waits for the end of the sweep, and while the VM is reported to be stopped it waits for more
 * until the time is over.
 *
 * - `stream`: given to the callbacks `put` and `rate_limited`; used during the call only.
 * - `max_ns`: the time in nanoseconds; negative for no bound.
 *
 * Returns 0 if there may be more; 1 if the last sweep of the whole table found nothing; -errno: -EINVAL before setup,
 * the host's from `put`, the kernel's, -EIO if the kernel's records make no sense, -ENOMEM, -EDEADLK if called from a
 * stream callback. After an error, -EDEADLK apart, the save functions return that same error until the next setup or
 * cleanup: a part of the stream may be missing.
 *
 * Any thread, with or without the lock that keeps the table from being replaced (QEMU: the BQL). Waits for another
 * save function.
 */
int spapr_htab_save_iterate(struct SpaprHtab *handle,
                            void *stream,
                            int64_t max_ns);

/*
 * Writes one body with all that is left to send. The VM is stopped.
 *
 * The table is read once around, from where iterate ended. Reads count that were begun since the stop, as reported by
 * spapr_htab_vm_state, and since the last spapr_htab_dirty_log_read; without a reported stop all is read here. May be
 * called again with the VM stopped again; if nothing changed since, the body is empty.
 *
 * - `stream`: given to the callback `put`; used during the call only.
 *
 * Returns 0 or -errno: as spapr_htab_save_iterate; -EAGAIN if the table was replaced by one of another size since the
 * last iterate, whose size can no longer be sent (migrate again); -EINVAL if the VM is reported to run meanwhile, or
 * the table is being replaced. After an error the guest can run on, and the save functions return that same error
 * until the next setup or cleanup.
 *
 * The caller holds whatever lock keeps the table from being replaced (QEMU: the BQL). Waits for another save function,
 * and with SPAPR_HTAB_READ_AHEAD for the library's thread.
 */
int spapr_htab_save_complete(struct SpaprHtab *handle,
                             void *stream);

/*
 * Writes the section's end a second time, for a host that asks for it when the guest runs elsewhere already (QEMU 10.2
 * at the end of postcopy). If a complete has succeeded since the last setup, the body is empty, or says that there is
 * no table if the last one of the save is gone: what the table has become here since, by a reset, is not sent, and no
 * table is read. Else this is spapr_htab_save_complete.
 *
 * - `stream`: given to the callback `put`; used during the call only.
 *
 * Returns 0 or -errno: the host's from `put`; else as spapr_htab_save_complete.
 *
 * As for spapr_htab_save_complete; after a complete, any lock.
 */
int spapr_htab_save_complete_again(struct SpaprHtab *handle,
                                   void *stream);

/*
 * Reports that the VM has stopped or is about to run. Optional: reads of the table since the stop then count for
 * spapr_htab_save_complete. A host that reports one reports all, whether a save is under way or not; until the first
 * report nothing is taken as known. QEMU: a VM state change handler.
 *
 * - `running`: 0 if no vCPU runs any more; else the VM is about to run, and no vCPU runs yet.
 *
 * Returns 0; -EINVAL for a NULL handle.
 *
 * Any thread, any lock; waits for nothing.
 */
int spapr_htab_vm_state(struct SpaprHtab *handle,
                        int running);

/*
 * Reports that the VM's dirty log was read (KVM_GET_DIRTY_LOG). The kernel then takes up reference and change bits
 * that the hardware has set, and so may change entries though the VM is stopped: with a reported stop, only reads of
 * the table that begin after this call count for spapr_htab_save_complete. A host that reports stops and reads the
 * dirty log after them reports each such reading. QEMU: after RAM's last synchronization of its dirty bitmap. Without
 * reported stops this is fine and has no effect.
 *
 * Returns 0; -EINVAL for a NULL handle.
 *
 * Any thread, any lock; waits for nothing.
 */
int spapr_htab_dirty_log_read(struct SpaprHtab *handle);

/*
 * Ends a save, whatever became of it: ends the library's thread, closes the fd, frees buffers. The statistics stay.
 * Fine without a setup.
 *
 * Returns 0; -EINVAL for a NULL handle; -EDEADLK if called from a stream callback.
 *
 * Any thread, any lock; waits for another save function and for a read of the table that is under way.
 */
int spapr_htab_save_cleanup(struct SpaprHtab *handle);

/*
 * Stores an estimate of what is still to be sent: exactly what was read and waits, and of what is still to be read,
 * what is left of the first pass at the density seen so far, or one entry in each group of 8 slots if that is more,
 * then as much as the last sweep sent. The table is not read.
 *
 * After a complete it is 0 until the next setup or iterate, whatever a reset or lookups leave meanwhile. It is 0, too,
 * if 1 second has passed since setup or the last iterate ended: a host that does not call iterate must not wait for
 * what only iterate sends. `save_pending` of SpaprHtabStats stays the estimate then. It is 0 without a table and
 * outside a save.
 *
 * - `out`: where the bytes are stored.
 *
 * Returns 0; -EINVAL for a NULL; what an earlier save function failed with.
 *
 * Any thread, any lock. Waits for a read of the table that another call is in, but not for one of the library's
 * thread.
 */
int spapr_htab_save_pending(const struct SpaprHtab *handle,
                            uint64_t *out);

/*
 * Says that the table is about to be freed or replaced (reset, resize, a switch to radix): when this returns, nothing
 * of the library reads it. Fine outside a save.
 *
 * Until spapr_htab_resume or spapr_htab_resume_unchanged, iterate writes empty bodies, complete fails, and so do
 * lookups; a setup writes that there is no table, and the size follows. The kernel's fd stays open, unread.
 *
 * Returns 0; -EINVAL for a NULL handle.
 *
 * The caller holds the lock under which the table is replaced (QEMU: the BQL). Waits for a read of the table that is
 * under way, not for the stream.
 */
int spapr_htab_quiesce(struct SpaprHtab *handle);

/*
 * Says that the table was replaced, by one of the same size or not, or is gone: the size that `table` gives now is
 * sent, then all of it. Fine, and without effect, when nothing was quiesced.
 *
 * Returns 0 or -errno as spapr_htab_save_setup. After an error the save functions return that same error until the
 * next setup or cleanup.
 *
 * The caller holds the lock under which the table was replaced (QEMU: the BQL). Waits for a save function that reads
 * the table.
 */
int spapr_htab_resume(struct SpaprHtab *handle);

/*
 * Says that the table was not replaced after all, such as when a resize failed: it is the same one, with the same
 * content but for changes that the kernel or QEMU has marked. Nothing is sent again. If `table` describes another
 * table than before, this is spapr_htab_resume. Fine, and without effect, when nothing was quiesced.
 *
 * Returns 0; -EINVAL for a NULL handle; as spapr_htab_resume if there is another table, or if spapr_htab_save_setup
 * was called since the quiesce.
 *
 * As for spapr_htab_resume.
 */
int spapr_htab_resume_unchanged(struct SpaprHtab *handle);

/*
 * Reads one body of the section into the guest's table. The vCPUs are stopped.
 *
 * A body with a table's size calls `table_allocate`, one that says there is none `table_free`; a save that is under
 * way on the same handle is quiesced before and resumed after. One with records calls `table` before it hands over any
 * of them, as often as there may be another table. With SPAPR_HTAB_GATHER what came for a table in the kernel may not
 * be in it when this returns; spapr_htab_load_finish sees to that.
 *
 * - `stream`: given to the callbacks `get` and `stream_error`; used during the call only.
 * - `version_id`: the section's version; 1 is the only one known.
 *
 * Returns 0 or -errno: -EINVAL for another version, an order outside 18 to 36, a record outside the table or without
 * one, a table that was replaced meanwhile, or an entry that the kernel does not take; -EIO for a stream that ended
 * early or an entry that the kernel refuses; -EBUSY if vCPUs run; -ENOMEM; -EDEADLK if another load is under way; the
 * host's errors. After an error the table is not to be used; nothing of the record that was refused was loaded, and no
 * fd is left open.
 *
 * The caller holds whatever lock keeps the table from being replaced (QEMU: the BQL), except while `get` yields: other
 * functions may then be called on the handle, but not this one. A body with a size waits for a read of a save on the
 * same handle.
 */
int spapr_htab_load(struct SpaprHtab *handle,
                    void *stream,
                    int version_id);

/*
 * Reads one body of the section and throws it away, for a destination whose guest may already run (the end of postcopy
 * from a QEMU 10.2 without this library). The table is neither asked for nor written; statistics, the load's CRC and
 * records that wait do not change.
 *
 * - `stream`, `version_id`: as for spapr_htab_load.
 *
 * Returns 0 for an empty body, one with records and one that says there is no table; -errno: -EINVAL for one with a
 * table's size, as the table of a guest that may have run is not replaced, for another version, and for a record that
 * is in no table; -EIO for a stream that ended early; -ENOMEM; the host's from `get` and `stream_error`.
 *
 * Any thread, any lock; waits for nothing but the stream.
 */
int spapr_htab_load_discard(struct SpaprHtab *handle,
                            void *stream,
                            int version_id);

/*
 * Loads what SPAPR_HTAB_GATHER let wait. Called when all sections have come, before the guest runs; fine without the
 * flag, without a load, and again. Records that come after it do not wait. The vCPUs are stopped. QEMU: the machine's
 * post_load, as the machine is loaded after the tables' last sections.
 *
 * Returns 0 or -errno, as spapr_htab_load for records.
 *
 * As for spapr_htab_load.
 */
int spapr_htab_load_finish(struct SpaprHtab *handle);

/*
 * Does what spapr_htab_load_finish does, and compares what was loaded with what the source says it sent: the order of
 * the table that the guest has now, the number of records, their bytes and their CRC-32.
 *
 * - `size`: the size of the structure as the caller knows it. Fields beyond it, and fields that the library does not
 * know, are not compared.
 * - `sent`: what spapr_htab_save_sum gave on the source after its complete.
 *
 * Returns 0 if all is equal; -EBADMSG if not; -EINVAL for a NULL or a size of 0; as spapr_htab_load_finish; the host's
 * from `table`.
 *
 * As for spapr_htab_load.
 */
int spapr_htab_load_check(struct SpaprHtab *handle,
                          size_t size,
                          const struct SpaprHtabSum *sent);

/*
 * Ends an incoming migration, whatever became of it, and logs what was loaded. What waits is not loaded any more. Fine
 * without a load.
 *
 * Returns 0; -EINVAL for a NULL handle.
 *
 * Any thread, any lock; waits for nothing.
 */
int spapr_htab_load_cleanup(struct SpaprHtab *handle);

/*
 * Reads entries as the guest's hardware sees them, big-endian. Invalid slots of a table in the kernel read as zeros,
 * and 0x40 of the first doubleword is 0.
 *
 * May be called while a save is under way: the kernel then takes changes as reported that were not sent, and so they
 * are sent. If the lookup fails, the whole table is sent again.
 *
 * - `first`: the first slot.
 * - `count`: how many entries.
 * - `out`: where they are stored, `16 * count` bytes.
 *
 * Returns 0 or -errno: -EINVAL for slots outside the table or a NULL; -ENOMEM; the kernel's errors.
 *
 * Any thread; the caller holds whatever lock keeps the table from being replaced (QEMU: the BQL). Waits for a read of
 * the table that is under way.
 */
int spapr_htab_read_hptes(struct SpaprHtab *handle,
                          uint64_t first,
                          size_t count,
                          void *out);

/*
 * Replaces one entry. With a table in the kernel the vCPUs are stopped. A save that is under way sends it.
 *
 * - `slot`: which.
 * - `v`, `r`: its doublewords in host byte order. Without the valid bit (1) in `v` the slot becomes invalid.
 *
 * Returns 0 or -errno: -EINVAL for a slot outside the table or an entry that the kernel does not take; -EBUSY if vCPUs
 * run; -EIO if the kernel refuses the entry.
 *
 * As for spapr_htab_read_hptes.
 */
int spapr_htab_write_hpte(struct SpaprHtab *handle,
                          uint64_t slot,
                          uint64_t v,
                          uint64_t r);

/*
 * Stores what the last save and load did, or are doing.
 *
 * - `size`: the size of the structure as the caller knows it. Fields that the library does not know are set to 0;
 * fields beyond `size` are not written.
 * - `out`: the structure.
 *
 * Returns 0; -EINVAL for a NULL or a size of 0.
 *
 * Any thread, any lock, at any time; waits for nothing.
 */
int spapr_htab_stats(const struct SpaprHtab *handle,
                     size_t size,
                     struct SpaprHtabStats *out);

/*
 * Stores what the save sent since its table's size: `save_order`, `save_crc32`, `save_records` and `save_bytes` of
 * SpaprHtabStats, for spapr_htab_load_check on the destination.
 *
 * - `size`, `out`: as for spapr_htab_stats.
 *
 * Returns 0; -EINVAL for a NULL or a size of 0.
 *
 * Any thread, any lock, at any time; waits for nothing.
 */
int spapr_htab_save_sum(const struct SpaprHtab *handle,
                        size_t size,
                        struct SpaprHtabSum *out);

/*
 * Stores what one pass of the last save sent.
 *
 * - `pass`: which, counted from 1. From the 256th on passes are added up in one.
 * - `size`, `out`: as for spapr_htab_stats.
 *
 * Returns 0; -EINVAL for a NULL, a size of 0 or a pass that was not begun.
 *
 * Any thread, any lock, at any time; waits for nothing.
 */
int spapr_htab_pass(const struct SpaprHtab *handle,
                    uint64_t pass,
                    size_t size,
                    struct SpaprHtabPass *out);

/*
 * Writes a text of several lines, each with a newline at its end, for people: the library's version, what the last
 * save and load did, or are doing, and each pass of the save. It may change with any version.
 *
 * - `size`, `buf`: as for spapr_htab_last_error.
 *
 * Returns the length in bytes of the whole text, without the NUL; 0 if `handle` is NULL. A save that is under way may
 * have lengthened it when it is asked for again.
 *
 * Any thread, any lock, at any time; waits for nothing.
 */
size_t spapr_htab_describe(const struct SpaprHtab *handle,
                           size_t size,
                           char *buf);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SPAPR_HTAB_H */
