/* SPDX-License-Identifier: GPL-2.0-or-later */

#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct table table_new(uint32_t order)
{
    uint64_t slots = (UINT64_C(1) << order) / sizeof(struct hpte);
    return (struct table){.slots = slots, .hpte = allocate(slots, sizeof(struct hpte))};
}

void table_free(struct table *table)
{
    free(table->hpte);
    table->hpte = NULL;
}

void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    fputs("demo: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    /* Not exit(): another thread may be in the library, whose buffers it would free under it. */
    _Exit(2);
}

void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (!memory) {
        die("out of memory for %zu times %zu bytes", count, size);
    }
    return memory;
}

uint64_t now_ns(void)
{
    struct timespec time;
    if (clock_gettime(CLOCK_MONOTONIC, &time) < 0) {
        die("CLOCK_MONOTONIC: %m");
    }
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

double seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

void sleep_until(uint64_t ns)
{
    struct timespec time = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    int error;
    do {
        error = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
    } while (error == EINTR);
    if (error != 0) {
        errno = error;
        die("clock_nanosleep: %m");
    }
}

/* SplitMix64 (Steele, Lea, Flood 2014): any seed will do, 0 too. */
uint64_t random_next(uint64_t *state)
{
    uint64_t mixed = *state += UINT64_C(0x9e3779b97f4a7c15);
    mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94d049bb133111eb);
    return mixed ^ (mixed >> 31);
}

uint64_t random_below(uint64_t *state, uint64_t bound)
{
    return random_next(state) % bound;
}
