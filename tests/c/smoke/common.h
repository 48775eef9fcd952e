/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What every part of the demo needs: entries and tables of them, time, chance, and a way to give up. */

#ifndef DEMO_COMMON_H
#define DEMO_COMMON_H

#include <stddef.h>
#include <stdint.h>

#define GROUP_SLOTS 8

/* One slot of a hash table, in host byte order; v is 0 in a slot without an entry. */
struct hpte {
    uint64_t v;
    uint64_t r;
};

/* A hash table as ordinary memory: what someone says, or has read, that is in the kernel's. */
struct table {
    uint64_t slots;
    struct hpte *hpte;
};

struct table table_new(uint32_t order);
void table_free(struct table *table);

/* Ends the program with status 2: nothing was found out. */
_Noreturn __attribute__((format(printf, 1, 2))) void die(const char *format, ...);

/* Zeroed memory. */
void *allocate(size_t count, size_t size);

uint64_t now_ns(void);
double seconds(uint64_t ns);
void sleep_until(uint64_t ns);

/* Numbers that follow from the seed alone, so that a run can be had again. */
uint64_t random_next(uint64_t *state);
uint64_t random_below(uint64_t *state, uint64_t bound);

#endif
