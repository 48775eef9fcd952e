/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the C tests share: a migration stream in memory, and guests whose table is in memory or in the
 * modelled kernel.
 */
#ifndef SUPPORT_H
#define SUPPORT_H

#include "spapr_htab.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* cmocka.h needs these before it. */
#include <setjmp.h>
#include <stdarg.h>
/* cmocka: */
#include <cmocka.h>

#define V_VALID 0x1u
#define V_DIRTY 0x40u
#define R_CHANGED 0x80u

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
    void *model;
    struct log log;
    unsigned allocated, freed;
    int table_error, allocate_error, free_error;
    /* Called once before the next read of the kernel's fd, with what that asks for. */
    void (*before_read)(struct guest *guest, size_t len);
};

/* Makes a guest with an empty table and its handle. `order` 0: without a table, and it gets one of `kind` on
 * loading. */
struct guest *guest_new(uint32_t kind, uint32_t order);
/* The same, with the host structure not yet given to the library: handle is NULL. */
struct guest *guest_without_handle(uint32_t kind, uint32_t order);
void guest_open(struct guest *guest);
/* Frees both, and fails the test if an fd was left open. */
void guest_free(struct guest *guest);

uint64_t guest_slots(const struct guest *guest);
/* Puts an entry into a slot as the running guest does. `n` makes it differ from others. */
void guest_enter(struct guest *guest, uint64_t slot, uint64_t n);
void guest_remove(struct guest *guest, uint64_t slot);
/* Fills about one slot in `one_in` with entries that follow from `seed`, in runs. */
void guest_fill(struct guest *guest, uint32_t seed, uint32_t one_in);
/* The entry that guest_enter puts in. */
uint64_t entry_v(uint64_t n);
uint64_t entry_r(uint64_t n);

/* The first slot in which the tables differ as guests see them; -1 if they are equal. */
int64_t guest_difference(const struct guest *one, const struct guest *other);
void assert_same_tables(const struct guest *one, const struct guest *other);

/* setup, then iterate until it says 1. */
void save_begin(struct guest *guest, struct buffer *stream);
void iterate_until_clean(struct guest *guest, struct buffer *stream);
/* Loads every body in the stream. The first error, or 0. */
int load_all(struct guest *guest, struct buffer *stream);

uint32_t order_from_environment(uint32_t order);
struct SpaprHtabStats stats_of(const struct guest *guest);
void assert_same_sums(const struct guest *from, const struct guest *to);
const char *last_error(const struct guest *guest);

/* The call gives -errno, and the sentence kept for it has each of the words. */
#define assert_fails(guest, call, error, ...)                                                                \
    check_failure((call), (error), (guest), (const char *const[]){__VA_ARGS__, NULL}, __FILE__, __LINE__)
void check_failure(int result, int error, const struct guest *guest, const char *const *words,
                   const char *file, int line);

#endif
