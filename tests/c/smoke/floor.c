/* SPDX-License-Identifier: GPL-2.0-or-later */

#define _GNU_SOURCE
#include "floor.h"
#include "library.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROUNDS 3

/* A first pass as the kernel gave it, cut into its records. */
struct records {
    uint8_t *bytes;
    size_t length;
    size_t capacity;
    struct iovec *each;
    size_t count;
};

static void keep(void *context, const uint8_t *bytes, size_t length)
{
    struct records *records = context;
    if (length > records->capacity - records->length) {
        records->capacity = 2 * records->capacity + length;
        records->bytes = realloc(records->bytes, records->capacity);
        if (!records->bytes) {
            die("out of memory for the table's records");
        }
    }
    memcpy(records->bytes + records->length, bytes, length);
    records->length += length;
}

static struct records read_records(const struct vm *vm)
{
    struct records records = {0};
    int fd = vm_open_to_read(vm);
    vm_read_first_pass(vm, fd, keep, &records);
    if (close(fd) < 0) {
        die("closing the table of VM %c: %m", vm->name);
    }
    /* No record is shorter than a header. */
    records.each = allocate(records.length / 8, sizeof *records.each);
    for (size_t at = 0; at < records.length; records.count++) {
        size_t length = kernel_run_at(records.bytes + at).bytes;
        records.each[records.count] = (struct iovec){.iov_base = records.bytes + at, .iov_len = length};
        at += length;
    }
    return records;
}

static uint64_t time_bare_reads(const struct vm *source)
{
    int fd = vm_open_to_read(source);
    uint64_t began = now_ns();
    vm_read_first_pass(source, fd, NULL, NULL);
    uint64_t took = now_ns() - began;
    if (close(fd) < 0) {
        die("closing the table of VM %c: %m", source->name);
    }
    return took;
}

static uint64_t time_bare_writes(const struct vm *target, const struct records *records)
{
    int fd = vm_open_to_write(target);
    uint64_t began = now_ns();
    for (size_t done = 0; done < records->count; done += MAX_SEGMENTS) {
        size_t left = records->count - done;
        vm_write(target, fd, records->each + done, left < MAX_SEGMENTS ? (int)left : MAX_SEGMENTS);
    }
    uint64_t took = now_ns() - began;
    if (close(fd) < 0) {
        die("closing the table of VM %c: %m", target->name);
    }
    return took;
}

static uint64_t time_save(struct SpaprHtab *handle, struct stream *stream)
{
    struct stream setup = {.null = true};
    library_check(handle, "spapr_htab_save_setup", spapr_htab_save_setup(handle, &setup));
    uint64_t began = now_ns();
    int result = spapr_htab_save_iterate(handle, stream, -1);
    uint64_t took = now_ns() - began;
    library_check(handle, "spapr_htab_save_iterate", result);
    library_check(handle, "spapr_htab_save_cleanup", spapr_htab_save_cleanup(handle));
    return took;
}

static void empty(struct vm *vm, uint32_t order)
{
    int error = vm_allocate(vm, order);
    if (error < 0) {
        die("a table of order %u for VM %c: error %d", order, vm->name, -error);
    }
}

static void keep_best(uint64_t *best, uint64_t took)
{
    if (*best == 0 || took < *best) {
        *best = took;
    }
}

struct floor floor_measure(struct vm *source, struct vm *target)
{
    struct floor best = {0};
    struct SpaprHtab *saver = library_new(source, false);
    struct SpaprHtab *loader = library_new(target, false);
    struct stream null = {.null = true};
    for (int round = 0; round < ROUNDS; round++) {
        keep_best(&best.bare_reads, time_bare_reads(source));
        keep_best(&best.save, time_save(saver, &null));
    }

    struct records records = read_records(source);
    struct stream stream = {0};
    stream_begin_section(&stream);
    time_save(saver, &stream);
    stream_end_section(&stream);
    for (int round = 0; round < ROUNDS; round++) {
        empty(target, source->order);
        keep_best(&best.bare_writes, time_bare_writes(target, &records));
        empty(target, source->order);
        stream_rewind(&stream);
        stream_next_section(&stream);
        keep_best(&best.load, library_load_section(loader, &stream));
        library_check(loader, "spapr_htab_load_cleanup", spapr_htab_load_cleanup(loader));
    }
    free(records.each);
    free(records.bytes);
    stream_free(&stream);
    spapr_htab_free(loader);
    spapr_htab_free(saver);
    return best;
}
