/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The C harness: a migration stream in memory and a reader of its records, and a guest as the library's host.
 * It needs nothing but the library, so that tests/c/smoke can run it on the real kernel; what the CTest
 * programs need beyond it is in guests.h.
 */
#ifndef SUPPORT_H
#define SUPPORT_H

#include "spapr_htab.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define V_VALID 0x1u
#define V_DIRTY 0x40u
#define R_CHANGED 0x80u

/* A slot's two doublewords in host order; v is 0 in a slot without an entry. */
struct entry {
    uint64_t v, r;
};

/* Big-endian, as in streams, tables and the kernel's records. */
struct entry entry_load(const uint8_t *bytes);
void entry_store(uint8_t *bytes, uint64_t v, uint64_t r);
/* An entry that real and modelled kernels take. `n` makes it differ from others. */
uint64_t entry_v(uint64_t n);
uint64_t entry_r(uint64_t n);

/* The harness's own assertion. The program that links it has check_failed. */
#define check(condition) ((condition) ? (void)0 : check_failed(#condition, __FILE__, __LINE__))
_Noreturn void check_failed(const char *condition, const char *file, int line);

/* A stream: what was put, in order, and how far it was read. Zeroed is empty. */
struct buffer {
    uint8_t *data;
    size_t len, room, at;
    /* Faults: once `put_limit` bytes are in (if not 0), and when the first byte beyond `get_limit` is wanted.
     */
    size_t put_limit;
    int put_error;
    size_t get_limit;
    int64_t get_result;
    int stream_error;
    /* The most that one get returns, if not 0. */
    size_t chunk;
    /* How many puts until the rate limit is reached; 0 for none. */
    unsigned puts_per_round, puts;
};

void buffer_bytes(struct buffer *buffer, const void *data, size_t len);
void buffer_be32(struct buffer *buffer, uint32_t value);
/* A record's header. */
void buffer_record(struct buffer *buffer, uint32_t index, uint16_t n_valid, uint16_t n_invalid);
void buffer_entry(struct buffer *buffer, uint64_t v, uint64_t r);
void buffer_clear(struct buffer *buffer);

struct record {
    uint32_t index;
    uint16_t n_valid, n_invalid;
    const uint8_t *entries;
};

/* A header is big-endian in the stream, and in host order at the kernel's fd; entries are big-endian. */
enum record_source { IN_STREAM, FROM_KERNEL };
/* Reads the record at `*at` and moves behind it. False if it is the empty one that ends a section's records.
 */
bool record_next(const uint8_t **at, const uint8_t *end, enum record_source source, struct record *record);

struct log {
    char *text;
    size_t len;
};

/* A guest and the handle that migrates it. */
struct guest {
    struct SpaprHtabHost host;
    struct SpaprHtab *handle;
    uint32_t kind, order;
    uint8_t *memory;
    /* KVM_PPC_ALLOCATE_HTAB for a table in a kernel, real or modelled: 0 or -errno. */
    int (*kernel_allocate)(struct guest *guest, uint32_t order);
    void *model;
    struct log log;
    unsigned allocated, freed;
    int table_error, allocate_error, free_error;
    /* Called once before the next read of the modelled kernel's fd, with what that asks for. */
    void (*before_read)(struct guest *guest, size_t len);
};

/* Fills in a zeroed guest's host structure. `order` 0: without a table, and it gets one of `kind` on loading.
 * A table in a kernel is the caller's to make. */
void guest_init(struct guest *guest, uint32_t kind, uint32_t order);
/* Gives the host structure to the library. */
void guest_open(struct guest *guest);
/* Frees the handle and what guest_init and the callbacks allocated. */
void guest_close(struct guest *guest);

uint64_t guest_slots(const struct guest *guest);

struct SpaprHtabStats stats_of(const struct guest *guest);
/* In a buffer that the next call overwrites. */
const char *last_error(const struct guest *guest);

#endif
