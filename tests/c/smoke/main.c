/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The library's main job on a real kernel: the table of VM A is saved while its guest goes on changing it,
 * and loaded into VM B, which must then have the same table. scripts/demo builds and runs this and draws what
 * it prints:
 *
 *   @step TEXT                   what begins now
 *   @bar  NAME DONE TOTAL TEXT   how far a pass is
 *   @log  LEVEL LINE             the library's log
 *   @json ...                    the result for programs
 *
 * with tabs in between, and other lines as they are. Status: 0 the tables are the same, 1 they are not, 2 it
 * could not be found out.
 */

#define _GNU_SOURCE
#include "dirty.h"
#include "floor.h"
#include "library.h"
#include "report.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* QEMU gives an iterate 5 ms. Here, in emulation, entries and slots cost some ten times what they cost on a
 * POWER9. */
#define MAX_NS INT64_C(50000000)
/* Between two calls QEMU sends memory, and the guest runs. */
#define BETWEEN_NS 10000000
/* Before the last call, for more changes than one of its reads can take. */
#define GATHER_NS 200000000
/* The migration stops the guest with less than this to send, or after so many later passes. */
#define ENOUGH_BYTES 512
#define LATER_PASSES 4

/* What not to load, to see the comparison fail. */
enum sabotage { SABOTAGE_NONE, SABOTAGE_SECTION, SABOTAGE_LAST };

struct options {
    uint32_t order;
    uint64_t seed;
    uint64_t rate;
    enum sabotage sabotage;
};

static void step(const char *text)
{
    printf("@step\t%s\n", text);
    fflush(stdout);
}

static uint64_t number(const char *text, uint64_t least, uint64_t most)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || value < least || value > most) {
        die("%s is not a number from %" PRIu64 " to %" PRIu64, text, least, most);
    }
    return value;
}

static struct options parse(int argc, char **argv)
{
    static const struct option known[] = {
        {"order", required_argument, NULL, 'o'},
        {"seed", required_argument, NULL, 's'},
        {"changes", required_argument, NULL, 'c'},
        {"sabotage", required_argument, NULL, 'S'},
        {0},
    };
    struct options options = {.order = 24, .seed = 1, .rate = 5000};
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (option) {
        case 'o':
            options.order = (uint32_t)number(optarg, 18, 26);
            break;
        case 's':
            options.seed = number(optarg, 0, UINT64_MAX);
            break;
        case 'c':
            options.rate = number(optarg, 0, 1000000);
            break;
        case 'S':
            if (strcmp(optarg, "section") != 0 && strcmp(optarg, "last") != 0) {
                die("--sabotage is section or last");
            }
            options.sabotage = optarg[0] == 's' ? SABOTAGE_SECTION : SABOTAGE_LAST;
            break;
        default:
            exit(2);
        }
    }
    if (optind != argc) {
        die("what is %s?", argv[optind]);
    }
    return options;
}

static struct SpaprHtabStats statistics(const struct SpaprHtab *handle)
{
    struct SpaprHtabStats stats;
    library_check(handle, "spapr_htab_stats", spapr_htab_stats(handle, sizeof stats, &stats));
    return stats;
}

static void show_iteration(const struct SpaprHtabStats *stats, const struct tally *section, uint64_t slots)
{
    char name[32];
    snprintf(name, sizeof name, stats->save_passes == 1 ? "first pass" : "later pass %" PRIu64,
             stats->save_passes - 1);
    printf("@bar\t%s\t%" PRIu64 "\t%" PRIu64 "\t%s bytes\n", name, section->end, slots,
           grouped(stats->save_total.bytes));
    fflush(stdout);
}

static void add(struct tally *all, const struct tally *section)
{
    all->records += section->records;
    all->valid += section->valid;
    all->invalid += section->invalid;
    all->bytes += section->bytes;
}

static void add_calls(struct system_calls *all, const struct system_calls *before)
{
    struct system_calls after = system_calls();
    /* The read that told of those before counts itself afterwards. */
    all->reads += after.reads - before->reads - 1;
    all->writes += after.writes - before->writes;
}

static void save_setup(struct SpaprHtab *handle, struct stream *stream, struct outcome *outcome)
{
    stream_begin_section(stream);
    uint64_t began = now_ns();
    int result = spapr_htab_save_setup(handle, stream);
    outcome->setup_ns = now_ns() - began;
    library_check(handle, "spapr_htab_save_setup", result);
    stream_end_section(stream);
}

struct iteration {
    struct tally section;
    uint64_t passes;
    uint64_t pending;
    bool clean;
};

static struct iteration iterate(struct SpaprHtab *handle, struct stream *stream, int64_t max_ns,
                                struct outcome *outcome)
{
    struct system_calls before = system_calls();
    stream_begin_section(stream);
    int result = spapr_htab_save_iterate(handle, stream, max_ns);
    library_check(handle, "spapr_htab_save_iterate", result);
    struct iteration done = {.section = stream_end_section(stream), .clean = result == 1};
    add_calls(&outcome->save_calls, &before);

    struct SpaprHtabStats stats = statistics(handle);
    done.passes = stats.save_passes;
    library_check(handle, "spapr_htab_save_pending", spapr_htab_save_pending(handle, &done.pending));
    show_iteration(&stats, &done.section, (UINT64_C(1) << outcome->order) / 16);
    return done;
}

/* The first pass and some later ones, while the guest goes on. */
static struct tally save_running(struct SpaprHtab *handle, struct stream *stream, struct outcome *outcome)
{
    struct tally all = {0};
    struct iteration last;
    do {
        last = iterate(handle, stream, MAX_NS, outcome);
        add(&all, &last.section);
        sleep_until(now_ns() + BETWEEN_NS);
    } while (!last.clean && (last.passes < 2 || last.pending >= ENOUGH_BYTES) && last.passes <= LATER_PASSES);

    /*
     * Changes gather, and one call without time to take them all leaves the save in mid-table. Those that
     * come behind it before the guest stops are what QEMU's own code loses.
     */
    sleep_until(now_ns() + GATHER_NS);
    last = iterate(handle, stream, 0, outcome);
    add(&all, &last.section);
    outcome->stopped_at = last.section.end;
    sleep_until(now_ns() + BETWEEN_NS);
    return all;
}

static struct tally save_stopped(struct SpaprHtab *handle, struct stream *stream, struct outcome *outcome)
{
    struct system_calls before = system_calls();
    stream_begin_section(stream);
    uint64_t began = now_ns();
    int result = spapr_htab_save_complete(handle, stream);
    outcome->complete_ns = now_ns() - began;
    library_check(handle, "spapr_htab_save_complete", result);
    struct tally section = stream_end_section(stream);
    add_calls(&outcome->save_calls, &before);
    return section;
}

/* The library's figures, which must be what went into the stream. */
static void take_save_figures(const struct SpaprHtab *handle, const struct tally *sent,
                              struct outcome *outcome)
{
    outcome->saved = statistics(handle);
    const struct SpaprHtabPass *told = &outcome->saved.save_total;
    if (told->records != sent->records || told->valid != sent->valid || told->invalid != sent->invalid ||
        told->bytes != sent->bytes) {
        die("the library says it sent %s records, %s bytes; in the stream are %s, %s", grouped(told->records),
            grouped(told->bytes), grouped(sent->records), grouped(sent->bytes));
    }
    outcome->passes = allocate(outcome->saved.save_passes, sizeof *outcome->passes);
    for (uint64_t i = 0; i < outcome->saved.save_passes; i++) {
        library_check(handle, "spapr_htab_pass",
                      spapr_htab_pass(handle, i, sizeof *outcome->passes, &outcome->passes[i]));
    }
}

static void save(struct vm *vm, struct guest *guest, struct stream *stream, struct outcome *outcome)
{
    struct SpaprHtab *handle = library_new(vm, true);
    step("saving the first VM's table while its guest changes it");
    struct dirtier *dirtier = dirty_start(guest, handle, outcome->rate);
    save_setup(handle, stream, outcome);
    struct tally sent = save_running(handle, stream, outcome);
    outcome->changed = dirty_stop(dirtier);
    step("the guest is stopped: saving the rest");
    struct tally rest = save_stopped(handle, stream, outcome);
    add(&sent, &rest);
    outcome->sections = stream->sections;
    take_save_figures(handle, &sent, outcome);
    library_check(handle, "spapr_htab_save_cleanup", spapr_htab_save_cleanup(handle));
    spapr_htab_free(handle);
}

static void load(struct vm *vm, struct stream *stream, enum sabotage sabotage, struct outcome *outcome)
{
    struct SpaprHtab *handle = library_new(vm, true);
    step("loading it into the second VM");
    /* The first section is setup's, and the next the first pass's beginning. */
    uint64_t skipped = UINT64_MAX;
    if (sabotage != SABOTAGE_NONE) {
        skipped = sabotage == SABOTAGE_SECTION ? 1 : stream->sections - 1;
    }
    struct system_calls before = system_calls();
    stream_rewind(stream);
    for (uint64_t section = 0; stream_next_section(stream); section++) {
        if (section == skipped) {
            printf("sabotage: section %" PRIu64 ", %zu bytes, is not loaded\n", section,
                   stream_unread(stream));
            continue;
        }
        outcome->load_ns += library_load_section(handle, stream);
    }
    add_calls(&outcome->load_calls, &before);
    outcome->loaded = statistics(handle);
    library_check(handle, "spapr_htab_load_cleanup", spapr_htab_load_cleanup(handle));
    spapr_htab_free(handle);
}

static struct difference compare(const struct table *first, const struct table *second)
{
    struct difference difference = {0};
    for (uint64_t slot = 0; slot < first->slots; slot++) {
        struct hpte a = first->hpte[slot], b = second->hpte[slot];
        difference.lost += a.v != 0 && b.v == 0;
        difference.extra += a.v == 0 && b.v != 0;
        difference.different += a.v != 0 && b.v != 0 && (a.v != b.v || a.r != b.r);
    }
    return difference;
}

/* The comparison is worth something only if the first VM's table is what the guest meant it to be. */
static void check_books(const struct guest *guest, const struct table *table)
{
    for (uint64_t slot = 0; slot < table->slots; slot++) {
        struct hpte meant = guest_as_debugfs(guest->books.hpte[slot]), is = table->hpte[slot];
        if (meant.v != is.v || meant.r != is.r) {
            die("slot %" PRIu64 " of the first VM is %016" PRIx64 " %016" PRIx64
                ", but the guest made it %016" PRIx64 " %016" PRIx64,
                slot, is.v, is.r, meant.v, meant.r);
        }
    }
}

static void compare_vms(const struct vm *a, const struct vm *b, const struct guest *guest,
                        struct outcome *outcome)
{
    step("comparing the tables");
    /* debugfs first: the fds take the marks of changes, which debugfs shows, and so a mistake here could hide
     * one. */
    struct table first = vm_dump_by_debugfs(a);
    struct table second = vm_dump_by_debugfs(b);
    check_books(guest, &first);
    outcome->by_debugfs = compare(&first, &second);
    table_free(&first);
    table_free(&second);
    first = vm_dump_by_fd(a);
    second = vm_dump_by_fd(b);
    outcome->by_fd = compare(&first, &second);
    table_free(&first);
    table_free(&second);
}

int main(int argc, char **argv)
{
    struct options options = parse(argc, argv);
    struct outcome outcome = {
        .order = options.order, .seed = options.seed, .rate = options.rate, .max_ns = MAX_NS};

    step("filling the first VM's table as a guest does");
    struct vm a = vm_create('A');
    int error = vm_allocate(&a, options.order);
    if (error < 0) {
        die("a table of order %" PRIu32 ": %s", options.order, strerror(-error));
    }
    struct guest guest = guest_new(&a, options.seed);
    guest_fill(&guest);
    outcome.filled = guest_count(&guest);

    step("timing the kernel alone, and the library on a table at rest");
    struct vm c = vm_create('C');
    outcome.floor = floor_measure(&a, &c);
    vm_destroy(&c);

    struct stream stream = {0};
    save(&a, &guest, &stream, &outcome);
    struct vm b = vm_create('B');
    load(&b, &stream, options.sabotage, &outcome);
    compare_vms(&a, &b, &guest, &outcome);
    report_print(&outcome);
    report_json(&outcome);

    stream_free(&stream);
    guest_free(&guest);
    free(outcome.passes);
    vm_destroy(&b);
    vm_destroy(&a);
    return outcome_same(&outcome) ? 0 : 1;
}
