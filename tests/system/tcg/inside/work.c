/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest's work, which checks itself: for each processor a process that forks, maps memory, fills it, writes
 * files and looks whether everything is still as it was left. A wrong translation shows as a wrong word.
 *
 * Prints "tick N forks F checks C bad B" each second. "work churn" only maps and unmaps memory, for as long
 * as it lives.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEPT_BYTES (24 << 20)
#define CHURNED_BYTES (16 << 20)
#define PAGE 65536
#define WORDS (PAGE / sizeof(uint64_t))

struct shared {
    uint64_t forks, checks, bad;
};

static struct shared *shared;

static uint64_t word(uint64_t seed, uint64_t at)
{
    uint64_t x = (seed << 32) ^ (at * 0x9e3779b97f4a7c15);

    return x ^ (x >> 29);
}

static void count(uint64_t *counter)
{
    __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

static void complain(const char *what, uint64_t at, uint64_t got, uint64_t wanted)
{
    count(&shared->bad);
    printf("BAD %s at %llu: %016llx, not %016llx\n", what, (unsigned long long)at, (unsigned long long)got,
           (unsigned long long)wanted);
    fflush(stdout);
}

static void fill(uint64_t *page, uint64_t seed)
{
    for (size_t i = 0; i < WORDS; i += 64) {
        page[i] = word(seed, i);
    }
}

static void check(const char *what, const uint64_t *page, uint64_t seed)
{
    for (size_t i = 0; i < WORDS; i += 64) {
        if (page[i] != word(seed, i)) {
            complain(what, i, page[i], word(seed, i));
            return;
        }
    }
    count(&shared->checks);
}

/* What a child does: memory of its own, new and inherited, and a file through a mapping. */
static void child(uint64_t seed, uint64_t *kept, size_t pages)
{
    char name[64];
    uint64_t *fresh = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int file;

    if (fresh == MAP_FAILED) {
        _exit(0);
    }
    for (size_t i = 0; i < 8; i++) {
        fill(fresh + i * WORDS, seed + i);
    }
    /* Copies on write, and protections that change. */
    fill(kept + (seed % pages) * WORDS, seed);
    check("copied page", kept + (seed % pages) * WORDS, seed);
    mprotect(fresh, 4 * PAGE, PROT_READ);
    snprintf(name, sizeof(name), "/tmp/work.%d", getpid());
    file = open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (file >= 0) {
        uint64_t *mapped;

        if (write(file, fresh, PAGE) == PAGE) {
            mapped = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, file, 0);
            if (mapped != MAP_FAILED) {
                check("file", mapped, seed);
            }
        }
        close(file);
        unlink(name);
    }
    for (size_t i = 0; i < 8; i++) {
        check("fresh page", fresh + i * WORDS, seed + i);
    }
    _exit(0);
}

static void worker(uint64_t number)
{
    size_t pages = KEPT_BYTES / PAGE;
    uint64_t *kept = mmap(NULL, KEPT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t *seeds = calloc(pages, sizeof(*seeds));

    if (kept == MAP_FAILED || !seeds) {
        perror("work");
        _exit(1);
    }
    for (size_t i = 0; i < pages; i++) {
        fill(kept + i * WORDS, seeds[i]);
    }
    for (uint64_t round = 1;; round++) {
        size_t page = (round * 7919) % pages;
        pid_t pid = fork();

        if (pid == 0) {
            child((number << 24) + round, kept, pages);
        } else if (pid > 0) {
            int status;

            waitpid(pid, &status, 0);
            if (!WIFEXITED(status)) {
                complain("child's end", round, (uint64_t)status, 0);
            }
            count(&shared->forks);
        }
        check("kept page", kept + page * WORDS, seeds[page]);
        seeds[page] = (number << 24) + round;
        fill(kept + page * WORDS, seeds[page]);
    }
}

/* For the table alone: maps, touches and unmaps memory as fast as it goes, each page an entry that comes and
 * goes. */
static void churn(void)
{
    for (;;) {
        uint64_t *fresh =
            mmap(NULL, CHURNED_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (fresh == MAP_FAILED) {
            perror("work churn");
            _exit(1);
        }
        for (size_t i = 0; i < CHURNED_BYTES / PAGE; i++) {
            fill(fresh + i * WORDS, i);
        }
        munmap(fresh, CHURNED_BYTES);
    }
}

int main(int argc, char **argv)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);

    if (argc == 2 && strcmp(argv[1], "churn") == 0) {
        churn();
    }
    shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        perror("work");
        return 1;
    }
    for (long i = 0; i < processors; i++) {
        if (fork() == 0) {
            worker((uint64_t)i + 1);
        }
    }
    for (uint64_t tick = 1;; tick++) {
        sleep(1);
        printf("tick %llu forks %llu checks %llu bad %llu\n", (unsigned long long)tick,
               (unsigned long long)shared->forks, (unsigned long long)shared->checks,
               (unsigned long long)shared->bad);
        fflush(stdout);
    }
}
