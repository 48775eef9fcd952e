/* SPDX-License-Identifier: GPL-2.0-or-later */

#define _GNU_SOURCE
#include "report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

const char *grouped(uint64_t number)
{
    static char places[8][32];
    static unsigned turn;
    char *at = &places[turn++ % 8][31];
    *at = '\0';
    for (int digits = 0; digits == 0 || number > 0; digits++, number /= 10) {
        if (digits > 0 && digits % 3 == 0) {
            *--at = ',';
        }
        *--at = (char)('0' + number % 10);
    }
    return at;
}

static const char *kernel_release(void)
{
    static struct utsname names;
    if (uname(&names) < 0) {
        die("uname: %m");
    }
    return names.release;
}

struct difference outcome_difference(const struct outcome *outcome)
{
    const struct difference *a = &outcome->by_debugfs, *b = &outcome->by_fd;
    return (struct difference){
        .lost = a->lost > b->lost ? a->lost : b->lost,
        .extra = a->extra > b->extra ? a->extra : b->extra,
        .different = a->different > b->different ? a->different : b->different,
    };
}

bool outcome_same(const struct outcome *outcome)
{
    struct difference difference = outcome_difference(outcome);
    return difference.lost + difference.extra + difference.different == 0 &&
           outcome->saved.save_crc32 == outcome->loaded.load_crc32;
}

static double ratio(uint64_t a, uint64_t b)
{
    return b == 0 ? 0 : (double)a / (double)b;
}

static double ms(uint64_t ns)
{
    return (double)ns / 1e6;
}

/* A character for each doubling: the first pass has thousands of times what later ones have. */
static const char *bar_of(uint64_t bytes)
{
    static const char whole[] = "################################################################";
    const char *bar = whole + sizeof whole - 1;
    for (; bytes > 0; bytes /= 2) {
        bar--;
    }
    return bar;
}

static void print_pass(const char *name, const struct SpaprHtabPass *pass)
{
    printf("  %-16s %10s %12s %10s %12s %9.1f ms  %s\n", name, grouped(pass->valid), grouped(pass->invalid),
           grouped(pass->records), grouped(pass->bytes), ms(pass->time_ns), bar_of(pass->bytes));
}

static void print_guest(const struct outcome *outcome)
{
    const struct guest_counts *filled = &outcome->filled;
    const uint64_t *changed = outcome->changed.of;
    uint64_t slots = (UINT64_C(1) << outcome->order) / 16;
    printf("The guest (Linux %s, KVM-HV)\n", kernel_release());
    printf("  table      order %" PRIu32 ": %s KiB, %s slots in groups of 8\n", outcome->order,
           grouped((UINT64_C(1) << outcome->order) / 1024), grouped(slots));
    printf("  entries    %s: %s bolted, %s in their secondary group\n", grouped(filled->entries),
           grouped(filled->bolted), grouped(filled->secondary));
    printf("  groups     %s with one entry, %s full\n", grouped(filled->groups_of_one),
           grouped(filled->groups_full));
    printf("  changes    %s pages entered, %s removed, %s protected, while it was saved (seed %" PRIu64
           ")\n\n",
           grouped(changed[CHANGE_ENTER]), grouped(changed[CHANGE_REMOVE]), grouped(changed[CHANGE_PROTECT]),
           outcome->seed);
}

static void print_save(const struct outcome *outcome)
{
    const struct SpaprHtabStats *saved = &outcome->saved;
    const struct SpaprHtabPass *total = &saved->save_total;
    const struct SpaprHtabPass *first = &outcome->passes[0];
    printf("Saved while the guest ran, then stopped\n");
    printf("  %-16s %10s %12s %10s %12s %12s  %s\n", "", "entries", "invalid", "records", "bytes", "time",
           "twice the bytes, one # more");
    for (uint64_t i = 0; i < saved->save_passes; i++) {
        char name[32];
        snprintf(name, sizeof name, i == 0 ? "first pass" : "later pass %" PRIu64, i);
        print_pass(name, &outcome->passes[i]);
    }
    print_pass("all", total);
    print_pass("  while stopped", &saved->save_stopped);
    printf("  %s sections of up to %.0f ms; setup %.1f ms, complete %.1f ms; %s reads of the fd\n",
           grouped(outcome->sections), ms((uint64_t)outcome->max_ns), ms(outcome->setup_ns),
           ms(outcome->complete_ns), grouped(outcome->save_calls.reads));
    printf("  the guest was stopped when the save had come to slot %s\n", grouped(outcome->stopped_at));
    printf("  density in the first pass: %.1f %% of slots valid, %.1f entries a record, %.2f bytes a slot\n",
           100 * ratio(first->valid, first->valid + first->invalid), ratio(first->valid, first->records),
           ratio(first->bytes, first->valid + first->invalid));
    printf("  CRC-32 %08" PRIx32 "\n\n", saved->save_crc32);
}

static void print_load(const struct outcome *outcome)
{
    const struct SpaprHtabStats *loaded = &outcome->loaded;
    printf("Loaded into a second VM\n");
    print_pass("all", &loaded->load_total);
    printf("  %s sections in %.1f ms; %s writes\n", grouped(loaded->load_sections), ms(outcome->load_ns),
           grouped(outcome->load_calls.writes));
    printf("  CRC-32 %08" PRIx32 "%s\n\n", loaded->load_crc32,
           loaded->load_crc32 == outcome->saved.save_crc32 ? ", the same" : ", NOT WHAT WAS SAVED");
}

static void print_floor(const struct outcome *outcome)
{
    const struct floor *floor = &outcome->floor;
    printf("Against the kernel alone (the same table at rest, no time limit, best of a few rounds)\n");
    printf("  save  %7.1f ms, %.2fx the bare reads  (%.1f ms: a loop of read(), the same buffer, nothing "
           "kept)\n",
           ms(floor->save), ratio(floor->save, floor->bare_reads), ms(floor->bare_reads));
    printf(
        "  load  %7.1f ms, %.2fx the bare writes (%.1f ms: a loop of writev(), a record in each segment)\n\n",
        ms(floor->load), ratio(floor->load, floor->bare_writes), ms(floor->bare_writes));
}

static void print_difference(const char *name, const struct difference *difference)
{
    printf("  %-24s %8s %8s %10s\n", name, grouped(difference->lost), grouped(difference->extra),
           grouped(difference->different));
}

void report_print(const struct outcome *outcome)
{
    printf("\n");
    print_guest(outcome);
    print_save(outcome);
    print_load(outcome);
    print_floor(outcome);
    printf("Second table against first, every slot\n");
    printf("  %-24s %8s %8s %10s\n", "", "lost", "extra", "different");
    print_difference("by the kernel's debugfs", &outcome->by_debugfs);
    print_difference("by fresh reads of the fd", &outcome->by_fd);
    printf("\n%s\n", outcome_same(outcome)
                         ? "The second VM has the first one's table: nothing lost, extra or different."
                         : "WRONG: the second VM does not have the first one's table.");
}

static void json_pass(const struct SpaprHtabPass *pass)
{
    printf("{\"valid\":%" PRIu64 ",\"invalid\":%" PRIu64 ",\"records\":%" PRIu64 ",\"bytes\":%" PRIu64
           ",\"seconds\":%.6f}",
           pass->valid, pass->invalid, pass->records, pass->bytes, seconds(pass->time_ns));
}

void report_json(const struct outcome *outcome)
{
    const struct difference difference = outcome_difference(outcome);
    const uint64_t *changed = outcome->changed.of;
    const struct floor *floor = &outcome->floor;
    printf("@json {\"kernel\":\"%s\",\"order\":%" PRIu32 ",\"passes\":[", kernel_release(), outcome->order);
    for (uint64_t i = 0; i < outcome->saved.save_passes; i++) {
        printf("%s", i == 0 ? "" : ",");
        json_pass(&outcome->passes[i]);
    }
    printf("],\"stopped\":");
    json_pass(&outcome->saved.save_stopped);
    printf(",\"lost\":%" PRIu64 ",\"extra\":%" PRIu64 ",\"different\":%" PRIu64, difference.lost,
           difference.extra, difference.different);
    printf(",\"seed\":%" PRIu64 ",\"entries\":%" PRIu64 ",\"sections\":%" PRIu64, outcome->seed,
           outcome->filled.entries, outcome->sections);
    printf(",\"changes\":{\"per_second\":%" PRIu64 ",\"entered\":%" PRIu64 ",\"removed\":%" PRIu64
           ",\"protected\":%" PRIu64 "}",
           outcome->rate, changed[CHANGE_ENTER], changed[CHANGE_REMOVE], changed[CHANGE_PROTECT]);
    printf(",\"crc32\":{\"saved\":\"%08" PRIx32 "\",\"loaded\":\"%08" PRIx32 "\"}", outcome->saved.save_crc32,
           outcome->loaded.load_crc32);
    printf(",\"seconds\":{\"setup\":%.6f,\"complete\":%.6f,\"load\":%.6f}", seconds(outcome->setup_ns),
           seconds(outcome->complete_ns), seconds(outcome->load_ns));
    printf(",\"floor_seconds\":{\"bare_reads\":%.6f,\"save\":%.6f,\"bare_writes\":%.6f,\"load\":%.6f}}\n",
           seconds(floor->bare_reads), seconds(floor->save), seconds(floor->bare_writes),
           seconds(floor->load));
}
