/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the CTest programs share: guests whose table is in memory or in the modelled kernel. */
#ifndef GUESTS_H
#define GUESTS_H

#include "support.h"

/* cmocka.h needs these before it. */
#include <setjmp.h>
#include <stdarg.h>
/* cmocka: */
#include <cmocka.h>

/* Makes a guest with an empty table and its handle. `order` 0: without a table, and it gets one of `kind` on
 * loading. */
struct guest *guest_new(uint32_t kind, uint32_t order);
/* The same, with the host structure not yet given to the library: handle is NULL. */
struct guest *guest_without_handle(uint32_t kind, uint32_t order);
/* Frees both, and fails the test if an fd was left open. */
void guest_free(struct guest *guest);

/* Puts an entry into a slot as the running guest does. `n` makes it differ from others. */
void guest_enter(struct guest *guest, uint64_t slot, uint64_t n);
void guest_remove(struct guest *guest, uint64_t slot);
/* Fills about one slot in `one_in` with entries that follow from `seed`, in runs. */
void guest_fill(struct guest *guest, uint32_t seed, uint32_t one_in);

/* The first slot in which the tables differ as guests see them; -1 if they are equal. */
int64_t guest_difference(const struct guest *one, const struct guest *other);
void assert_same_tables(const struct guest *one, const struct guest *other);

/* setup, then iterate until it says 1. */
void save_begin(struct guest *guest, struct buffer *stream);
void iterate_until_clean(struct guest *guest, struct buffer *stream);
/* Loads every body in the stream. The first error, or 0. */
int load_all(struct guest *guest, struct buffer *stream);

uint32_t order_from_environment(uint32_t order);
void assert_same_sums(const struct guest *from, const struct guest *to);

/* The call gives -errno, and the sentence kept for it has each of the words. */
#define assert_fails(guest, call, error, ...)                                                                \
    check_failure((call), (error), (guest), (const char *const[]){__VA_ARGS__, NULL}, __FILE__, __LINE__)
void check_failure(int result, int error, const struct guest *guest, const char *const *words,
                   const char *file, int line);

#endif
