/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The library's main job on a real kernel: VM A's table is saved while it changes, and loaded into VM B,
 * which must then have the same table. scripts/demo builds this, checks the arguments, and shows what is
 * printed: a line that begins with "- " says what begins now, and the last one is "@json" and the result for
 * programs.
 *
 *   smoke ORDER SEED CHANGES-PER-SECOND none|section|last
 *
 * The last argument is what not to load, to see the comparison fail. Status: 0 the tables are the same, 1
 * they are not, 2 it could not be found out.
 */
#include "support.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

/* QEMU gives an iterate 5 ms. In emulation, entries and slots cost some ten times what they cost on a POWER9.
 */
#define MAX_NS 50000000
/* Between two calls QEMU sends memory, and the guest runs. */
#define BETWEEN_US 10000
/* Before the last call, for more changes than one of its reads can take; and before the stop, for some behind
 * it. */
#define GATHER_US 200000
/* The migration stops the guest with less than this to send, or after so many later passes. */
#define ENOUGH_BYTES 512
#define LATER_PASSES 4

#define HTAB_FD_WRITE 2
/* In the second doubleword: the kernel's mark of a change that no fd has reported yet. */
#define R_MODIFIED ((uint64_t)1 << 62)
#define V_BOLTED 0x10u
/* In the first one: the lock that the kernel holds while it reads, and shows. */
#define V_HVLOCK 0x40u
#define GROUP 8

void check_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "%s:%d: not true: %s (errno: %s)\n", file, line, condition, strerror(errno));
    /* Not exit(): another thread may be in the library, whose memory it would free. */
    _Exit(2);
}

static int called(const struct guest *vm, const char *call, int result)
{
    if (result < 0) {
        fprintf(stderr, "%s: %s: %s\n", call, strerror(-result), last_error(vm));
        _Exit(2);
    }
    return result;
}
#define CALL(vm, function, ...) called((vm), #function, function((vm)->handle, __VA_ARGS__))

static void step(const char *text)
{
    printf("- %s\n", text);
    fflush(stdout);
}

/* VMs of KVM-HV without vCPUs or memory */

static int kernel_allocate(struct guest *vm, uint32_t order)
{
    uint32_t got = order;

    if (ioctl(vm->host.vm_fd, KVM_PPC_ALLOCATE_HTAB, &got) < 0) {
        return -errno;
    }
    /* The kernel may settle for less. */
    return got == order ? 0 : -ENOMEM;
}

static void vm_new(struct guest *vm, uint32_t order)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    check(kvm >= 0);
    guest_init(vm, SPAPR_HTAB_TABLE_KERNEL, order);
    vm->kernel_allocate = kernel_allocate;
    vm->host.vm_fd = ioctl(kvm, KVM_CREATE_VM, KVM_VM_PPC_HV);
    check(vm->host.vm_fd >= 0);
    check(ioctl(vm->host.vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_PPC_HTAB_FD) > 0);
    check(order == 0 || kernel_allocate(vm, order) == 0);
    close(kvm);
    guest_open(vm);
}

static int open_table(const struct guest *vm, uint64_t flags)
{
    struct kvm_get_htab_fd ask = {.flags = flags};
    int fd = ioctl(vm->host.vm_fd, KVM_PPC_GET_HTAB_FD, &ask);

    check(fd >= 0);
    return fd;
}

static struct entry *new_table(const struct guest *vm)
{
    struct entry *table = calloc(guest_slots(vm), sizeof(*table));

    check(table);
    return table;
}

/* The table by the kernel's debug output, which leaves the marks of changes alone. */
static struct entry *dump_by_debugfs(const struct guest *vm)
{
    struct entry *table = new_table(vm);
    char path[64], line[128], *end;
    FILE *file;

    snprintf(path, sizeof(path), "/sys/kernel/debug/kvm/%d-%d/htab", (int)getpid(), vm->host.vm_fd);
    file = fopen(path, "r");
    check(file);
    while (fgets(line, sizeof(line), file)) {
        /* The slot, v, the r that the hardware would see, and the r that the guest gave, in hexadecimal. */
        uint64_t slot = strtoull(line, &end, 16), v = strtoull(end, &end, 16), r;

        strtoull(end, &end, 16);
        r = strtoull(end, &end, 16);
        check(*end == '\n' && slot < guest_slots(vm) && v != 0);
        table[slot] = (struct entry){.v = v, .r = r & ~R_MODIFIED};
    }
    check(!ferror(file) && fclose(file) == 0);
    return table;
}

/* The table by the first pass of an fd of its own, which takes the marks: no save may be under way. */
static struct entry *dump_by_fd(const struct guest *vm)
{
    static uint8_t buffer[64 << 10];
    struct entry *table = new_table(vm);
    int fd = open_table(vm, 0);
    struct record record;
    ssize_t got;

    do {
        const uint8_t *at = buffer;

        got = read(fd, buffer, sizeof(buffer));
        check(got >= 0);
        while (at < buffer + got) {
            check(record_next(&at, buffer + got, FROM_KERNEL, &record));
            check((uint64_t)record.index + record.n_valid + record.n_invalid <= guest_slots(vm));
            for (unsigned n = 0; n < record.n_valid; n++) {
                table[record.index + n] = entry_load(record.entries + 16 * n);
                table[record.index + n].v &= ~(uint64_t)V_HVLOCK;
            }
        }
        /* With room left for another record the read ended at the table's end. */
    } while ((size_t)got + 24 >= sizeof(buffer));
    close(fd);
    return table;
}

/* In place of guest code: changes to VM A's table through an fd, and what must then be in it */

static struct guest a, b;
static int write_fd;
static struct entry *meant;
static uint64_t seed, rate, filled, changes;
static atomic_bool stop;

/* SplitMix64 (Steele, Lea, Flood 2014): any seed will do, 0 too. */
static uint64_t below(uint64_t bound)
{
    uint64_t mixed = seed += UINT64_C(0x9e3779b97f4a7c15);

    mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (mixed ^ (mixed >> 31)) % bound;
}

/* Gives the kernel what is meant to be in the slot. */
static void write_slot(uint64_t slot)
{
    uint8_t bytes[8 + 16];
    bool valid = meant[slot].v != 0;
    struct kvm_get_htab_header header = {.index = (uint32_t)slot, .n_valid = valid, .n_invalid = !valid};
    ssize_t len = valid ? 8 + 16 : 8;

    memcpy(bytes, &header, 8);
    entry_store(bytes + 8, meant[slot].v, meant[slot].r);
    check(write(write_fd, bytes, (size_t)len) == len);
}

static struct entry new_entry(void)
{
    uint64_t n = below(1 << 24);

    return (struct entry){.v = entry_v(n), .r = entry_r(n)};
}

/* As a guest has it that has been up for a while: half of the groups empty, most others with one entry, some
 * full or nearly so; a third of all entries bolted. */
static void fill(void)
{
    write_fd = open_table(&a, HTAB_FD_WRITE);
    meant = new_table(&a);
    for (uint64_t group = 0; group < guest_slots(&a); group += GROUP) {
        uint64_t kind = below(16), count = kind < 8 ? 0 : kind < 15 ? 1 : 4 + below(5);

        for (uint64_t slot = group; slot < group + count; slot++) {
            meant[slot] = new_entry();
            meant[slot].v |= below(3) == 0 ? V_BOLTED : 0;
            write_slot(slot);
        }
        filled += count;
    }
}

/*
 * Half of the changes happen anywhere. The others happen where a save could go wrong: just behind and just
 * ahead of its first pass, in the first and last groups, and again and again in the same few slots.
 */
static uint64_t choose_slot(void)
{
    uint64_t slots = guest_slots(&a), near = 64 * GROUP, kind = below(8);
    struct SpaprHtabPass all = stats_of(&a).save_total;

    if (kind < 4) {
        return below(slots);
    } else if (kind == 4) {
        return slots / 2 + below(4 * GROUP);
    } else if (kind == 5) {
        return (slots - 4 * GROUP + below(8 * GROUP)) % slots;
    }
    /* The first pass leaves no slot out, so that its slots say where it is. */
    return (all.valid + all.invalid + slots - near + below(2 * near)) % slots;
}

/* A page comes; or one near there that is not bolted goes, or gets another protection. */
static void change(void)
{
    uint64_t slots = guest_slots(&a), slot = choose_slot(), kind = below(3);

    for (int tries = 0; (meant[slot].v & V_BOLTED || (kind > 0 && meant[slot].v == 0)); tries++) {
        slot = (slot + 1) % slots;
        if (tries == 64 * GROUP) {
            return;
        }
    }
    if (kind == 0) {
        meant[slot] = new_entry();
    } else if (kind == 1) {
        meant[slot] = (struct entry){0};
    } else {
        meant[slot].r ^= 1;
    }
    write_slot(slot);
    changes++;
}

/* Some `rate` changes a second, in bursts. */
static void *keep_changing(void *unused)
{
    while (!atomic_load(&stop)) {
        for (uint64_t burst = (rate + below(500)) / 500; burst > 0; burst--) {
            change();
        }
        usleep(2000);
    }
    return unused;
}

/* Save and load */

/* What was put, where each section in it ends, and what its records say. */
static struct buffer stream;
static size_t ends[4096];
static unsigned sections;
static struct SpaprHtabPass sent;

static void end_section(void)
{
    const uint8_t *at = stream.data + (sections ? ends[sections - 1] : 0), *end = stream.data + stream.len;
    struct record record;

    check(sections < sizeof(ends) / sizeof(*ends));
    ends[sections++] = stream.len;
    if (sections == 1) {
        /* The table's size. */
        check(end - at == 4);
        return;
    }
    for (at += 4; record_next(&at, end, IN_STREAM, &record);) {
        sent.records++;
        sent.valid += record.n_valid;
        sent.invalid += record.n_invalid;
        sent.bytes += 8 + (uint64_t)16 * record.n_valid;
    }
    check(at == end);
}

static int iterate(int64_t max_ns)
{
    int clean = CALL(&a, spapr_htab_save_iterate, &stream, max_ns);

    end_section();
    usleep(BETWEEN_US);
    return clean;
}

static struct SpaprHtabStats save(void)
{
    struct SpaprHtabStats stats;
    pthread_t changing;
    uint64_t pending;
    int clean;

    step("saving VM A's table while it changes");
    check(pthread_create(&changing, NULL, keep_changing, NULL) == 0);
    CALL(&a, spapr_htab_save_setup, &stream);
    end_section();
    do {
        clean = iterate(MAX_NS);
        CALL(&a, spapr_htab_save_pending, &pending);
        stats = stats_of(&a);
    } while (!clean && (stats.save_passes < 2 || pending >= ENOUGH_BYTES) &&
             stats.save_passes <= LATER_PASSES);
    /*
     * Changes gather, and one call without time to take them all leaves the save in mid-table. Those that
     * come behind it before the VM stops are what QEMU's own code loses.
     */
    usleep(GATHER_US);
    iterate(0);
    usleep(GATHER_US);
    atomic_store(&stop, true);
    check(pthread_join(changing, NULL) == 0);
    step("nothing changes any more: saving the rest");
    CALL(&a, spapr_htab_save_complete, &stream);
    end_section();
    stats = stats_of(&a);
    check(stats.save_total.records == sent.records && stats.save_total.bytes == sent.bytes);
    check(stats.save_total.valid == sent.valid && stats.save_total.invalid == sent.invalid);
    return stats;
}

static struct SpaprHtabStats load(const char *sabotage)
{
    /* The first section is setup's, and the next the first pass's beginning. */
    unsigned skipped = *sabotage == 's' ? 1 : *sabotage == 'l' ? sections - 1 : sections;

    step("loading it into VM B");
    for (unsigned n = 0; n < sections; n++) {
        stream.get_limit = ends[n];
        if (n == skipped) {
            printf("sabotage: section %u, %zu bytes, is not loaded\n", n, ends[n] - stream.at);
            stream.at = ends[n];
        } else {
            CALL(&b, spapr_htab_load, &stream, 1);
        }
        check(stream.at == ends[n]);
    }
    return stats_of(&b);
}

/* Comparison and report */

struct difference {
    uint64_t lost, extra, different;
};

static struct difference compare(const struct entry *first, const struct entry *second)
{
    struct difference found = {0};

    for (uint64_t slot = 0; slot < guest_slots(&a); slot++) {
        bool one = first[slot].v != 0, other = second[slot].v != 0;

        found.lost += one && !other;
        found.extra += !one && other;
        found.different += one && other && memcmp(&first[slot], &second[slot], sizeof(*first)) != 0;
    }
    return found;
}

static bool none(struct difference found)
{
    return found.lost + found.extra + found.different == 0;
}

static struct difference compare_by(const char *name, struct entry *dump(const struct guest *))
{
    struct entry *first = dump(&a), *second = dump(&b);
    struct difference found = compare(first, second);

    printf("%-22s %9" PRIu64 " %9" PRIu64 " %9" PRIu64 "\n", name, found.lost, found.extra, found.different);
    /* Equal tables show something only if the first one is what it was meant to be. */
    check(dump == dump_by_debugfs || none(compare(meant, first)));
    free(first);
    free(second);
    return found;
}

static void print_pass(const char *name, const struct SpaprHtabPass *pass)
{
    printf("%-22s %9" PRIu64 " %9" PRIu64 " %9" PRIu64 " %10" PRIu64 " %9.1f ms\n", name, pass->valid,
           pass->invalid, pass->records, pass->bytes, (double)pass->time_ns / 1e6);
}

static void json_pass(const char *before, const struct SpaprHtabPass *pass)
{
    printf("%s{\"valid\":%" PRIu64 ",\"invalid\":%" PRIu64 ",\"records\":%" PRIu64 ",\"bytes\":%" PRIu64
           ",\"seconds\":%.6f}",
           before, pass->valid, pass->invalid, pass->records, pass->bytes, (double)pass->time_ns / 1e9);
}

/* All as tables, and then again for programs. */
static bool report(const struct SpaprHtabStats *saved, const struct SpaprHtabStats *loaded)
{
    struct SpaprHtabPass passes[64];
    struct difference by_debugfs, by_fd, worse;
    struct utsname system;
    char name[32];
    bool same;

    uname(&system);
    printf("\nVM A under Linux %s: order %" PRIu32 ", %" PRIu64 " slots, %" PRIu64 " entries; %" PRIu64
           " changes while it was saved\n\n%-22s %9s %9s %9s %10s %12s\n",
           system.release, a.order, guest_slots(&a), filled, changes, "", "entries", "invalid", "records",
           "bytes", "time");
    check(saved->save_passes <= sizeof(passes) / sizeof(*passes));
    for (unsigned n = 0; n < saved->save_passes; n++) {
        CALL(&a, spapr_htab_pass, n + 1, sizeof(*passes), &passes[n]);
        snprintf(name, sizeof(name), n == 0 ? "first pass" : "pass %u", n + 1);
        print_pass(name, &passes[n]);
    }
    print_pass("saved", &saved->save_total);
    print_pass("  while stopped", &saved->save_stopped);
    print_pass("loaded into VM B", &loaded->load_total);
    printf("\n%-22s %9s %9s %9s\n", "B's table against A's", "lost", "extra", "different");
    /* debugfs first: the fds take the marks of changes, so that a mistake here could hide one. */
    by_debugfs = compare_by("by debugfs", dump_by_debugfs);
    by_fd = compare_by("by fresh reads", dump_by_fd);
    worse = none(by_fd) ? by_debugfs : by_fd;
    same = none(worse) && saved->save_crc32 == loaded->load_crc32;
    printf("CRC-32 of the records   %08" PRIx32 " saved, %08" PRIx32 " loaded\n\n%s\n", saved->save_crc32,
           loaded->load_crc32,
           same ? "VM B has VM A's table: nothing lost, extra or different."
                : "WRONG: VM B does not have VM A's table.");

    printf("@json {\"kernel\":\"%s\",\"order\":%" PRIu32 ",\"entries\":%" PRIu64 ",\"rate\":%" PRIu64
           ",\"changes\":%" PRIu64 ",\"sections\":%u,\"passes\":",
           system.release, a.order, filled, rate, changes, sections);
    for (unsigned n = 0; n < saved->save_passes; n++) {
        json_pass(n == 0 ? "[" : ",", &passes[n]);
    }
    json_pass("],\"stopped\":", &saved->save_stopped);
    json_pass(",\"loaded\":", &loaded->load_total);
    printf(",\"crc32\":{\"saved\":\"%08" PRIx32 "\",\"loaded\":\"%08" PRIx32 "\"},\"lost\":%" PRIu64
           ",\"extra\":%" PRIu64 ",\"different\":%" PRIu64 "}\n",
           saved->save_crc32, loaded->load_crc32, worse.lost, worse.extra, worse.different);
    return same;
}

int main(int argc, char **argv)
{
    struct SpaprHtabStats saved, loaded;
    bool same;

    check(argc == 5);
    step("filling VM A's table");
    seed = strtoull(argv[2], NULL, 10);
    rate = strtoull(argv[3], NULL, 10);
    vm_new(&a, (uint32_t)strtoul(argv[1], NULL, 10));
    fill();
    saved = save();
    vm_new(&b, 0);
    loaded = load(argv[4]);
    step("comparing the tables slot by slot");
    check(b.order == a.order);
    same = report(&saved, &loaded);
    guest_close(&a);
    guest_close(&b);
    return same ? 0 : 1;
}
