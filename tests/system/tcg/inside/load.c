/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What guests do while their tables are measured, for as long as it lives.
 *
 * load still: writes to the same memory again and again: RAM is never all sent, and the table stays as it is
 *
 * load spawn: forks and executes a program that ends at once
 *
 * load compile: as a build does: two processes at a time, which read and map sources, take memory, write
 *
 * load hog MIB: maps so much memory, writes to its pages in no order, lets go of it, and begins again
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SOURCES 96
#define SOURCE_BYTES (192 << 10)
/* Of those, what one unit reads; a compiler takes the headers' contents from the page cache. */
#define READ_BY_A_UNIT 40
#define UNITS_AT_ONCE 2
#define LEAST_HEAP (2u << 20)
#define MOST_HEAP (24u << 20)
#define OUTPUT_BYTES (320 << 10)
/* At the rate that the measured migrations have, RAM takes half a second to send this. */
#define STILL_BYTES (4u << 20)
#define PAGE 65536
/* What QEMU sends of RAM at once, whatever the guest's pages are. */
#define SENT_PAGE 4096

static uint32_t next(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 8;
}

static void fail(const char *what)
{
    perror(what);
    _exit(1);
}

static void *memory(size_t bytes)
{
    void *fresh = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (fresh == MAP_FAILED) {
        fail("load: mmap");
    }
    return fresh;
}

static pid_t start(char *what, char *argument)
{
    pid_t pid = fork();

    if (pid < 0) {
        fail("load: fork");
    }
    if (pid == 0) {
        execl("/proc/self/exe", "load", what, argument, (char *)NULL);
        fail("load: exec");
    }
    return pid;
}

static void write_file(const char *name, const char *bytes, size_t len)
{
    int file = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    if (file < 0 || write(file, bytes, len) != (ssize_t)len) {
        fail(name);
    }
    close(file);
}

static void still(void)
{
    volatile char *all = memory(STILL_BYTES);

    for (char round = 0;; round++) {
        for (size_t at = 0; at < STILL_BYTES; at += SENT_PAGE) {
            all[at] = round;
        }
    }
}

static void spawn(void)
{
    for (;;) {
        start("nothing", NULL);
        wait(NULL);
    }
}

/* One compilation. */
static void unit(uint32_t seed)
{
    char name[64], *heap;
    size_t bytes = LEAST_HEAP + next(&seed) % (MOST_HEAP - LEAST_HEAP);
    uint64_t sum = 0;

    heap = memory(bytes);
    for (int i = 0; i < READ_BY_A_UNIT; i++) {
        const char *text;
        int file;

        snprintf(name, sizeof(name), "/tmp/source.%u", next(&seed) % SOURCES);
        file = open(name, O_RDONLY);
        text = file < 0 ? MAP_FAILED : mmap(NULL, SOURCE_BYTES, PROT_READ, MAP_PRIVATE, file, 0);
        if (text == MAP_FAILED) {
            fail(name);
        }
        for (size_t at = 0; at < SOURCE_BYTES; at += 64) {
            sum += (unsigned char)text[at];
        }
        munmap((void *)text, SOURCE_BYTES);
        close(file);
        /* What is read grows the heap. */
        memset(heap + bytes / READ_BY_A_UNIT * i, (int)sum, bytes / READ_BY_A_UNIT);
    }
    snprintf(name, sizeof(name), "/tmp/object.%d", getpid());
    write_file(name, heap, OUTPUT_BYTES);
    unlink(name);
}

static void compile(void)
{
    char *text = memory(SOURCE_BYTES);
    char seed[16];

    memset(text, 'x', SOURCE_BYTES);
    for (int i = 0; i < SOURCES; i++) {
        char name[64];

        snprintf(name, sizeof(name), "/tmp/source.%d", i);
        write_file(name, text, SOURCE_BYTES);
    }
    for (unsigned number = 0;; number++) {
        if (number >= UNITS_AT_ONCE) {
            wait(NULL);
        }
        snprintf(seed, sizeof(seed), "%u", number);
        start("unit", seed);
    }
}

static void hog(size_t pages)
{
    uint32_t seed = 1;

    for (;;) {
        char *all = memory(pages * PAGE);

        for (size_t i = 0; i < 4 * pages; i++) {
            all[next(&seed) % pages * PAGE] = 1;
        }
        munmap(all, pages * PAGE);
    }
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    if (strcmp(what, "still") == 0) {
        still();
    } else if (strcmp(what, "spawn") == 0) {
        spawn();
    } else if (strcmp(what, "compile") == 0) {
        compile();
    } else if (strcmp(what, "hog") == 0 && argc > 2) {
        hog((strtoul(argv[2], NULL, 10) << 20) / PAGE);
    } else if (strcmp(what, "unit") == 0 && argc > 2) {
        unit((uint32_t)strtoul(argv[2], NULL, 10));
    } else if (strcmp(what, "nothing") != 0) {
        fprintf(stderr, "load: still, spawn, compile or hog MIB\n");
        return 1;
    }
    return 0;
}
