/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QTest for the migration of a pseries guest's hashed page table (HPT)
 *
 * The guest is the small firmware below.  It fills the table by H_ENTER with
 * what this test knows to be there, changes and resizes it during a migration,
 * and reads all of it by H_READ afterwards.
 *
 * /spapr-htab/NAME migrates with the library spapr-htab, /spapr-htab/qemu/NAME
 * with QEMU's own code (x-rust-htab=off, or a QEMU without the library), and
 * to-qemu/ and from-qemu/ from the one to the other.  Where QEMU's own code is
 * known to be wrong it is not run, unless SPAPR_HTAB_TEST_ALL is set.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "libqtest.h"

/*
 * The firmware, which stands at 0 and begins at 0x100, in real mode and
 * big-endian.  In idle it counts, and writes the count to one page after the
 * other of 2 MiB, more than set_slow() lets pass in 0.1 s, so that RAM is never
 * all sent.  It flushes the TLB before: QEMU up to 8.2 misses stores to pages
 * that were sent and that the TLB still has for writing.  Assembled by
 *     powerpc64-linux-gnu-as -mpower8 -mbig -o fw.o fw.s
 *     powerpc64-linux-gnu-objcopy -O binary fw.o fw.bin
 *     xxd -p -c 4 fw.bin
 *
 *         lis 31,1                                        # 0x10000: CONTROL
 * idle:   lis 10,0x800; li 11,0; slbmte 11,10; slbie 10; isync
 *         ld 8,48(31); addi 8,8,1; std 8,48(31)
 *         rldic 9,8,12,43; addis 9,9,0x40; std 8,0(9)
 *         ld 0,0(31); cmpdi 0,0; beq idle
 *         ld 14,8(31); ld 15,16(31); ld 16,24(31); ld 17,32(31)
 *         cmpdi 0,2; blt hcall; beq fill
 *         cmpdi 0,4; blt dump; beq churn; b repeat
 * done:   std 3,40(31); li 0,0; std 0,0(31); b idle
 *
 *         # HCALL: r14(r15, r16, r17)
 * hcall:  mr 3,14; mr 4,15; mr 5,16; mr 6,17; sc 1; b done
 *
 *         # FILL: slots r14, r14 + r15, ... below r16, of generation r17
 * fill:   cmpld 14,16; li 3,0; bge done
 *         bl enter; cmpdi 3,0; bne done
 *         add 14,14,15; b fill
 *
 *         # DUMP: slots r14 up to r16 to the address r15
 * dump:   li 3,0xc; li 4,1; sldi 4,4,37; mr 5,14; sc 1    # H_READ, H_READ_4
 *         cmpdi 3,0; bne done
 *         std 4,0(15); std 5,8(15); std 6,16(15); std 7,24(15)
 *         std 8,32(15); std 9,40(15); std 10,48(15); std 11,56(15)
 *         addi 15,15,64; addi 14,14,4; cmpld 14,16; blt dump; b done
 *
 *         # CHURN: as FILL, but in a circle from 0 on, each of the next
 *         # generation, until the command changes
 * churn:  li 3,4; li 4,0; mr 5,14; sc 1                   # H_REMOVE
 *         bl enter; cmpdi 3,0; bne done
 *         add 14,14,15; cmpld 14,16; blt 1f; li 14,0; addi 17,17,1
 * 1:      std 14,8(31); std 17,32(31); b idle
 *
 *         # REPEAT: r14(0, r16) and r15(0, r16) until the command changes
 * repeat: mr 3,14; li 4,0; mr 5,16; sc 1
 *         mr 3,15; li 4,0; mr 5,16; sc 1; b idle
 *
 *         # Slot r14, generation r17: see entry()
 * enter:  srdi 6,14,1; rldic 6,6,4,59; srdi 7,14,3; rldimi 6,7,12,36
 *         rldimi 6,14,26,35; rldimi 6,17,40,8; ori 6,6,1
 *         mulli 7,14,25173; add 7,7,17; rldic 7,7,9,37; ori 7,7,0x12
 *         mr 5,14; li 4,1; sldi 4,4,39; li 3,8; sc 1; blr # H_ENTER, H_EXACT
 */
static const uint32_t firmware[] = {
    0x3fe00001, 0x3d400800, 0x39600000, 0x7d605324, 0x7c005364, 0x4c00012c,
    0xe91f0030, 0x39080001, 0xf91f0030, 0x790962e8, 0x3d290040, 0xf9090000,
    0xe81f0000, 0x2c200000, 0x4182ffcc, 0xe9df0008, 0xe9ff0010, 0xea1f0018,
    0xea3f0020, 0x2c200002, 0x41800028, 0x4182003c, 0x2c200004, 0x41800054,
    0x418200a0, 0x480000d8, 0xf87f0028, 0x38000000, 0xf81f0000, 0x4bffff90,
    0x7dc37378, 0x7de47b78, 0x7e058378, 0x7e268b78, 0x44000022, 0x4bffffdc,
    0x7c2e8040, 0x38600000, 0x4080ffd0, 0x480000c5, 0x2c230000, 0x4082ffc4,
    0x7dce7a14, 0x4bffffe4, 0x3860000c, 0x38800001, 0x78842e86, 0x7dc57378,
    0x44000022, 0x2c230000, 0x4082ffa0, 0xf88f0000, 0xf8af0008, 0xf8cf0010,
    0xf8ef0018, 0xf90f0020, 0xf92f0028, 0xf94f0030, 0xf96f0038, 0x39ef0040,
    0x39ce0004, 0x7c2e8040, 0x4180ffb8, 0x4bffff6c, 0x38600004, 0x38800000,
    0x7dc57378, 0x44000022, 0x48000051, 0x2c230000, 0x4082ff50, 0x7dce7a14,
    0x7c2e8040, 0x4180000c, 0x39c00000, 0x3a310001, 0xf9df0008, 0xfa3f0020,
    0x4bfffecc, 0x7dc37378, 0x38800000, 0x7e058378, 0x44000022, 0x7de37b78,
    0x38800000, 0x7e058378, 0x44000022, 0x4bfffea8, 0x79c6f842, 0x78c626e8,
    0x79c7e8c2, 0x78e6612c, 0x79c6d0ec, 0x7a26420e, 0x60c60001, 0x1cee6255,
    0x7ce78a14, 0x78e74968, 0x60e70012, 0x7dc57378, 0x38800001, 0x78843e06,
    0x38600008, 0x44000022, 0x4e800020,
};

#define FIRMWARE_ENTRY          0x100

/* In the guest's memory */
enum {
    COMMAND = 0x10000,
    ARGUMENT = COMMAND + 8,     /* Four of them, in r14 to r17 */
    RESULT = COMMAND + 40,
    BEATS = COMMAND + 48,
    DUMPED = 16 * MiB,
    BALLAST = 32 * MiB,
};

typedef enum { STOP, HCALL, FILL, DUMP, CHURN, REPEAT } Command;

#define H_READ                  0xc
#define H_RESIZE_HPT_PREPARE    0x36c
#define H_RESIZE_HPT_COMMIT     0x370
#define H_SUCCESS               0
#define H_PARAMETER             (-4)
#define H_PTEG_FULL             (-6)
#define H_LONG_BUSY_100_MSEC    9902

#define V_VALID                 0x1
#define V_BOLTED                0x10
#define V_SOFTWARE              0x60ull /* QEMU's dirty bit is one of them */

#define ORDER                   21 /* Of the table of a machine of 256 MiB */
#define SLOTS                   (1 << (ORDER - 4))
#define CHURN_FROM              16 /* CHURN's first generation */

#define WAIT_FOR(what)                                                  \
    do {                                                                \
        int64_t end = g_get_monotonic_time() + 60 * G_TIME_SPAN_SECOND; \
        while (!(what)) {                                               \
            g_assert_cmpint(g_get_monotonic_time(), <, end);            \
            g_usleep(2000);                                             \
        }                                                               \
    } while (0)

static char *dir;
static bool have_library;

/* The table as it should be */

typedef struct {
    uint64_t v, r;
} Entry;

static Entry table[2 * SLOTS];
static unsigned slots;

static void table_fill(unsigned step, unsigned end, uint64_t generation)
{
    for (uint64_t i = 0; i < end; i += step) {
        table[i].v = V_VALID | (i & 2 ? V_BOLTED : 0) | (i & 7) << 26 |
                     ((i >> 3) & 0x3fff) << 12 | (generation & 0xffff) << 40;
        table[i].r = ((i * 25173 + generation) & 0x3ffff) << 9 | 0x12;
    }
}

/* As H_RESIZE_HPT_COMMIT does it, of pages of 4 KiB in segments of 256 MiB */
static void table_resize(unsigned order)
{
    g_autofree Entry *old = g_memdup2(table, sizeof(table));
    uint64_t old_mask = slots / 8 - 1;
    unsigned old_slots = slots;

    slots = 1 << (order - 4);
    memset(table, 0, sizeof(table));
    for (unsigned i = 0; i < old_slots; i++) {
        uint64_t hash = ((old[i].v >> 12) & ~old_mask) | i / 8;

        if (old[i].v & V_BOLTED) {
            table[(hash & (slots / 8 - 1)) * 8 + i % 8] = old[i];
        }
    }
}

/* The guest */

static void guest_begin(QTestState *qts, Command command, uint64_t a,
                        uint64_t b, uint64_t c, uint64_t d)
{
    qtest_writeq(qts, ARGUMENT, a);
    qtest_writeq(qts, ARGUMENT + 8, b);
    qtest_writeq(qts, ARGUMENT + 16, c);
    qtest_writeq(qts, ARGUMENT + 24, d);
    qtest_writeq(qts, RESULT, H_SUCCESS);
    qtest_writeq(qts, COMMAND, command);
}

static int64_t guest_do(QTestState *qts, Command command, uint64_t a,
                        uint64_t b, uint64_t c, uint64_t d)
{
    guest_begin(qts, command, a, b, c, d);
    WAIT_FOR(qtest_readq(qts, COMMAND) == STOP);
    return qtest_readq(qts, RESULT);
}

static void guest_fill(QTestState *qts, unsigned step)
{
    slots = SLOTS;
    memset(table, 0, sizeof(table));
    table_fill(step, slots, 1);
    g_assert_cmpint(guest_do(qts, FILL, 0, step, slots, 1), ==, H_SUCCESS);
}

static void guest_churn(QTestState *qts, unsigned step)
{
    guest_begin(qts, CHURN, 0, step, slots, CHURN_FROM);
}

/* Sees that the guest runs, and ends CHURN, of this step, and REPEAT */
static void guest_stop(QTestState *qts, unsigned step)
{
    Command command = qtest_readq(qts, COMMAND);
    uint64_t beats = qtest_readq(qts, BEATS);
    uint64_t at, generation;

    WAIT_FOR(qtest_readq(qts, BEATS) > beats);
    qtest_writeq(qts, COMMAND, STOP);
    beats = qtest_readq(qts, BEATS);
    WAIT_FOR(qtest_readq(qts, BEATS) > beats + 2);
    g_assert_cmpint(qtest_readq(qts, RESULT), ==, H_SUCCESS);
    if (command == CHURN) {
        at = qtest_readq(qts, ARGUMENT);
        generation = qtest_readq(qts, ARGUMENT + 24);
        g_test_message("the guest changed the table %d times and up to slot %d",
                       (int)generation - CHURN_FROM, (int)at);
        if (generation > CHURN_FROM) {
            table_fill(step, slots, generation - 1);
        }
        table_fill(step, at, generation);
    }
}

/* The number of slots that H_READ shows otherwise than they should be */
static unsigned guest_differs(QTestState *qts)
{
    g_autofree Entry *got = g_new(Entry, slots);
    unsigned differs = 0;

    g_assert_cmpint(guest_do(qts, HCALL, H_READ, 0, slots, 0), ==, H_PARAMETER);
    g_assert_cmpint(guest_do(qts, DUMP, 0, DUMPED, slots, 0), ==, H_SUCCESS);
    qtest_bufread(qts, DUMPED, got, slots * sizeof(*got));
    for (unsigned i = 0; i < slots; i++) {
        uint64_t v = be64_to_cpu(got[i].v) & ~V_SOFTWARE;
        uint64_t r = be64_to_cpu(got[i].r);

        if ((v != table[i].v || r != table[i].r) && !differs++) {
            g_test_message("slot %u is %016" PRIx64 " %016" PRIx64 ", not"
                           " %016" PRIx64 " %016" PRIx64,
                           i, v, r, table[i].v, table[i].r);
        }
    }
    return differs;
}

static int64_t guest_resize(QTestState *qts, unsigned order)
{
    int64_t ret;

    do {
        ret = guest_do(qts, HCALL, H_RESIZE_HPT_PREPARE, 0, order, 0);
    } while (ret == H_LONG_BUSY_100_MSEC);
    g_assert_cmpint(ret, ==, H_SUCCESS);
    return guest_do(qts, HCALL, H_RESIZE_HPT_COMMIT, 0, order, 0);
}

/* QEMU */

static char *in_dir(const char *before, const char *name)
{
    return g_strdup_printf("%s%s/%s", before, dir, name);
}

/* What it says on stderr goes to the file of this name */
static QTestState *start(const char *name, bool rust, const char *machine,
                         const char *more)
{
    return qtest_initf("-accel tcg -cpu power8 -m 256M -nodefaults -vga none"
                       " -machine pseries,cap-cfpc=broken,cap-sbbc=broken,"
                       "cap-ibs=broken,cap-ccf-assist=off%s%s"
                       " -bios %s/firmware %s 2>%s/%s",
                       machine ?: "",
                       have_library && !rust ? ",x-rust-htab=off" : "",
                       dir, more, dir, name);
}

static bool G_GNUC_PRINTF(2, 3) hmp_ok(QTestState *qts, const char *fmt, ...)
{
    g_autofree char *answer = NULL;
    va_list ap;

    va_start(ap, fmt);
    answer = qtest_vhmp(qts, fmt, ap);
    va_end(ap);
    if (*answer) {
        g_test_message("%s", answer);
    }
    return !*answer;
}

/* Slow enough that a guest that runs keeps its migration from ending */
static void set_slow(QTestState *qts, bool slow)
{
    g_assert_true(hmp_ok(qts, "migrate_set_parameter max-bandwidth %s",
                         slow ? "8M" : "4096M"));
    g_assert_true(hmp_ok(qts, "migrate_set_parameter downtime-limit %s",
                         slow ? "1" : "10000"));
}

static void migrate(QTestState *qts, const char *uri)
{
    g_assert_true(hmp_ok(qts, "migrate -d \"%s\"", uri));
}

static void incoming(QTestState *qts, const char *uri)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate-incoming',"
                             " 'arguments': {'uri': %s}}", uri);
}

/* Is this the status, with this in its reason, or else the pass of RAM? */
static bool is_at(QTestState *qts, const char *wanted, const char *sentence,
                  int pass)
{
    QDict *response = qtest_qmp(qts, "{'execute': 'query-migrate'}");
    QDict *info = qdict_get_qdict(response, "return");
    QDict *ram = qdict_get_qdict(info, "ram");
    const char *status = qdict_get_try_str(info, "status") ?: "none";
    const char *reason = qdict_get_try_str(info, "error-desc") ?: "";
    bool is = wanted ? g_str_equal(status, wanted) :
              ram && qdict_get_int(ram, "dirty-sync-count") >= pass;

    if (*reason) {
        g_test_message("%s", reason);
    }
    if (g_str_equal(status, "failed") || g_str_equal(status, "completed")) {
        g_assert_cmpstr(status, ==, wanted);
    }
    g_assert_true(!is || !sentence || strstr(reason, sentence));
    qobject_unref(response);
    return is;
}

static void wait_status(QTestState *qts, const char *wanted)
{
    WAIT_FOR(is_at(qts, wanted, NULL, 0));
}

static void wait_failed(QTestState *qts, const char *sentence)
{
    WAIT_FOR(is_at(qts, "failed", sentence, 0));
}

/* It exits by itself, with status 1 and by no signal */
static void quit_failed(QTestState *qts, const char *sentence)
{
    g_autofree char *path = in_dir("", "to");
    g_autofree char *said = NULL;

    qtest_set_expected_status(qts, 1);
    WAIT_FOR(!qtest_probe_child(qts));
    qtest_quit(qts);
    g_assert_true(g_file_get_contents(path, &said, NULL, NULL));
    g_test_message("%s", said);
    g_assert_nonnull(strstr(said, sentence));
}

/* Migrations */

typedef enum { LIVE, TO_FILE, POSTCOPY } Way;
enum { FLIP = 1, BEYOND };

typedef struct {
    const char *name;
    Way way;
    unsigned step;              /* Every how many slots one is filled */
    bool churn;                 /* The guest changes them all the while */
    bool mixed;                 /* Also between the library and QEMU's code */
    const char *capabilities[2];
    const char *machine;        /* More options of the source */
    void (*meanwhile)(QTestState *from);
    int damage;                 /* To a file: FLIP, BEYOND, or another order */
    const char *sentence;       /* A part of why it is refused, if it is */
    const char *qemu_is_wrong;
} Case;

typedef enum { EXITS, STAYS, WORKS, FAILS, BROKEN } How;

/* What a test is called with */
typedef struct {
    const Case *c;
    bool from, to;              /* With the library? */
    How how;                    /* What is refused, or a snapshot */
} Run;

static bool skip_wrong(const Run *run, const char *reason)
{
    if (run->from || !reason || getenv("SPAPR_HTAB_TEST_ALL")) {
        return false;
    }
    g_test_skip(reason);
    return true;
}

static void resize(QTestState *from)
{
    for (int i = 0; i < 3; i++) {
        unsigned order = i & 1 ? ORDER : ORDER + 1;

        g_assert_cmpint(guest_resize(from, order), ==, H_SUCCESS);
        table_resize(order);
        g_usleep(50000);
    }
    guest_churn(from, 1);
}

/* Half of the bolted entries do not fit into the smaller table */
static void resize_fails(QTestState *from)
{
    g_assert_cmpint(guest_resize(from, ORDER - 1), ==, H_PTEG_FULL);
    guest_begin(from, REPEAT, H_RESIZE_HPT_PREPARE, H_RESIZE_HPT_COMMIT,
                ORDER - 1, 0);
}

static void cancel(QTestState *from)
{
    g_assert_true(hmp_ok(from, "migrate_cancel"));
    wait_status(from, "cancelled");
}

static void reset(QTestState *from)
{
    g_assert_true(hmp_ok(from, "system_reset"));
    qtest_qmp_eventwait(from, "RESET");
}

/* In its table, of which the first section has the size, the next all slots */
static void damage_file(const char *file, int damage)
{
    static const char name[] = "\nspapr/htab";
    g_autofree char *path = in_dir("", file);
    g_autofree char *data = NULL;
    char part[9] = { 2 };
    char *at, *last;
    size_t size;

    g_assert_true(g_file_get_contents(path, &data, &size, NULL));
    last = data + size - strlen(name);
    for (at = data + 4; memcmp(at, name, strlen(name)); at++) {
        g_assert_true(at < last);
    }
    memcpy(part + 1, at - 4, 4); /* The section's id */
    at += strlen(name) + 4 + 4;
    g_assert_cmpuint(ldl_be_p(at), ==, ORDER);
    if (damage > BEYOND) {
        stl_be_p(at, damage);
    } else {
        for (; memcmp(at, part, sizeof(part)); at++) {
            g_assert_true(at < last);
        }
        at += sizeof(part); /* A slot, the number of entries, and these */
        g_assert_cmpuint(ldl_be_p(at), ==, 0);
        g_assert_cmpuint(lduw_be_p(at + 4), >, 100);
        if (damage == FLIP) {
            at[8 + 16 * 100 + 14] ^= 0x40;
        } else {
            stl_be_p(at, SLOTS);
        }
    }
    g_assert_true(g_file_set_contents(path, data, size, NULL));
}

static void test_refused(QTestState *to, const char *uri, const Run *run)
{
    QDict *response;

    if (run->how == EXITS) {
        incoming(to, uri);
        quit_failed(to, run->c->sentence);
        return;
    }
    response = qtest_qmp(to, "{'execute': 'migrate-incoming', 'arguments':"
                         " {'uri': %s, 'exit-on-error': false}}", uri);
    if (qdict_haskey(response, "return")) {
        wait_failed(to, run->c->sentence);
    } else {
        g_test_skip("this QEMU has no exit-on-error");
    }
    qobject_unref(response);
    qtest_quit(to);
}

static void test_migrate(const void *opaque)
{
    const Run *run = opaque;
    const Case *c = run->c;
    const char *file = c->capabilities[0] ? "file:" : "exec:cat ";
    bool slow = c->way == POSTCOPY || c->meanwhile ||
                (c->way == LIVE && c->churn);
    g_autofree char *uri = in_dir("unix:", "migration");
    g_autofree char *read_uri = in_dir(file, "stream");
    QTestState *from, *to;

    if (skip_wrong(run, run->how == STAYS ?
                   "QEMU's own code says why on stderr only" : c->churn ?
                   "QEMU's own code loses a change now and then" :
                   c->qemu_is_wrong)) {
        return;
    }
    from = start("from", run->from, c->machine, "");
    to = start("to", run->to, NULL, "-incoming defer");
    for (int i = 0; i < 2 && c->capabilities[i]; i++) {
        if (!hmp_ok(from, "migrate_set_capability %s on", c->capabilities[i]) ||
            !hmp_ok(to, "migrate_set_capability %s on", c->capabilities[i])) {
            g_test_skip("QEMU or the host does not have what this needs");
            goto out;
        }
    }
    if (c->way == TO_FILE) {
        g_free(uri);
        uri = in_dir(c->capabilities[0] ? file : "exec:cat >", "stream");
    } else {
        incoming(to, uri);
    }

    guest_fill(from, c->step);
    if (c->churn) {
        guest_churn(from, c->step);
    }
    set_slow(from, slow);
    migrate(from, uri);
    if (slow) {
        /* All of the table has been sent once then */
        WAIT_FOR(is_at(from, NULL, NULL, 3));
    }
    if (c->way == POSTCOPY) {
        g_assert_true(hmp_ok(from, "migrate_set_parameter"
                             " max-postcopy-bandwidth 16M"));
        qtest_memset(from, BALLAST, 0x5a, 8 * MiB);
        g_assert_true(hmp_ok(from, "migrate_start_postcopy"));
        wait_status(from, "postcopy-active");
    }
    if (c->meanwhile) {
        c->meanwhile(from);
    }
    if (slow && c->way != POSTCOPY) {
        set_slow(from, false);
    }
    if (c->meanwhile == cancel) {
        quit_failed(to, "load of migration failed");
        to = start("to", run->to, NULL, "-incoming defer");
        incoming(to, uri);
        migrate(from, uri);
    }
    wait_status(from, "completed");
    if (c->damage) {
        damage_file("stream", c->damage);
    }
    if (c->sentence) {
        test_refused(to, read_uri, run);
        qtest_quit(from);
        return;
    }
    if (c->way == TO_FILE) {
        incoming(to, read_uri);
    }
    wait_status(to, "completed");
    guest_stop(to, c->step);
    g_assert_cmpint(guest_differs(to), ==, c->damage ? 1 : 0);
out:
    qtest_quit(from);
    qtest_quit(to);
}

#define NO_CHECKSUM "QEMU's own code has no checksum"
#define ANY_SIZE "QEMU's own code takes any size, or aborts"

static const Case cases[] = {
    { "live/full", .step = 1, .mixed = true },
    { "live/sparse", .step = 61 },
    { "live/changing", .step = 1, .churn = true, .mixed = true },
    { "live/changing-cancelled", .step = 1, .churn = true,
      .meanwhile = cancel },
    { "live/changing-sparse", .step = 61, .churn = true },
    { "live/crc", .step = 1, .churn = true, .machine = ",x-htab-crc=on",
      .qemu_is_wrong = NO_CHECKSUM },
    { "live/cancelled", .step = 1, .meanwhile = cancel },
    { "live/resized", .step = 1, .meanwhile = resize, .mixed = true,
      .qemu_is_wrong = "QEMU's own code does not send the new size" },
    { "live/resize-fails", .step = 1, .meanwhile = resize_fails },
    { "live/multifd", .step = 1, .capabilities = { "multifd" } },
    { "file/full", TO_FILE, .step = 1 },
    { "file/changing", TO_FILE, .step = 1, .churn = true },
    { "file/mapped-ram", TO_FILE, .step = 1,
      .capabilities = { "mapped-ram" } },
    { "file/mapped-ram-multifd", TO_FILE, .step = 61, .churn = true,
      .capabilities = { "mapped-ram", "multifd" } },
    { "postcopy/full", POSTCOPY, .step = 1, .mixed = true,
      .capabilities = { "postcopy-ram" } },
    { "postcopy/changing", POSTCOPY, .step = 1, .churn = true, .mixed = true,
      .capabilities = { "postcopy-ram" } },
    { "postcopy/reset", POSTCOPY, .step = 1, .meanwhile = reset,
      .capabilities = { "postcopy-ram" },
      .qemu_is_wrong = "QEMU's own code, in 10.2, sends the new table, too" },
    { "broken/bit", TO_FILE, .step = 1, .damage = FLIP },
    { "broken/bit-crc", TO_FILE, .step = 1, .machine = ",x-htab-crc=on",
      .damage = FLIP, .sentence = "hash table", .qemu_is_wrong = NO_CHECKSUM },
    { "broken/slot", TO_FILE, .step = 1, .damage = BEYOND,
      .sentence = "131072" },
    { "broken/size-beyond-memory", TO_FILE, .step = 1, .damage = 30,
      .sentence = "order 30", .qemu_is_wrong = ANY_SIZE },
    { "broken/size-beyond-any", TO_FILE, .step = 1, .damage = 36,
      .sentence = "order 36", .qemu_is_wrong = ANY_SIZE },
};

/* Snapshots */

/*
 * To a drive that cannot grow beyond 11 MiB: a second snapshot fails in the
 * table, which is in the middle of its 7 MiB.
 */
static void test_snapshot(const void *opaque)
{
    const Run *run = opaque;
    const char *qemu_img = getenv("QTEST_QEMU_IMG");
    g_autofree char *path = in_dir("", "image");
    g_autofree char *make =
        g_strdup_printf("%s create -q -f qcow2 %s 64M", qemu_img, path);
    g_autofree char *drive =
        g_strdup_printf("-drive if=none,id=d,driver=qcow2,file.driver=raw,"
                        "file.size=11M,file.file.driver=file,"
                        "file.file.filename=%s", path);
    QTestState *qts;

    if (skip_wrong(run, run->how == BROKEN ? ANY_SIZE : NULL)) {
        return;
    }
    if (!qemu_img || !g_spawn_command_line_sync(make, NULL, NULL, NULL, NULL)) {
        g_test_skip("no qemu-img (QTEST_QEMU_IMG)");
        return;
    }
    g_assert_cmpint(truncate(path, 11 * MiB), ==, 0);

    qts = start("from", run->from, NULL, drive);
    guest_fill(qts, 1);
    guest_churn(qts, 1);
    WAIT_FOR(qtest_readq(qts, ARGUMENT) > SLOTS / 2);
    g_assert_true(hmp_ok(qts, "savevm s"));
    if (run->how == BROKEN) {
        qtest_quit(qts);
        damage_file("image", 36);
        qts = start("from", run->from, NULL, drive);
        g_assert_false(hmp_ok(qts, "loadvm s"));
        qtest_quit(qts);
        return;
    }
    if (run->how == FAILS) {
        g_assert_false(hmp_ok(qts, "savevm t"));
    }
    for (int i = 0; i < 2; i++) {
        WAIT_FOR(qtest_readq(qts, ARGUMENT + 24) > CHURN_FROM);
        g_assert_true(hmp_ok(qts, "loadvm s"));
    }
    guest_stop(qts, 1);
    g_assert_cmpint(guest_differs(qts), ==, 0);
    qtest_quit(qts);
}

static void test_background(const void *opaque)
{
    const Run *run = opaque;
    g_autofree char *uri = in_dir("exec:cat >", "stream");
    QTestState *qts;

    if (skip_wrong(run, "QEMU's own code saves a table that is newer than the"
                   " memory with it")) {
        return;
    }
    qts = start("from", run->from, NULL, "");
    if (hmp_ok(qts, "migrate_set_capability background-snapshot on")) {
        guest_fill(qts, 1);
        migrate(qts, uri);
        wait_failed(qts, "background");
        guest_stop(qts, 1);
        g_assert_cmpint(guest_differs(qts), ==, 0);
    } else {
        g_test_skip("QEMU or the host has no background-snapshot");
    }
    qtest_quit(qts);
}

static void add(const char *kind, const char *name, void (*test)(const void *),
                const Case *c, bool from, bool to, How how)
{
    Run run = { c, from, to, how };
    g_autofree char *path = g_strdup_printf("/spapr-htab/%s%s", kind, name);

    qtest_add_data_func_full(path, g_memdup2(&run, sizeof(run)), test, g_free);
}

static void add_all(bool rust)
{
    const char *kind = rust ? "" : "qemu/";

    for (const Case *c = cases; c < cases + ARRAY_SIZE(cases); c++) {
        add(kind, c->name, test_migrate, c, rust, rust, EXITS);
        if (c->sentence) {
            g_autofree char *name = g_strdup_printf("%s-stays", c->name);

            add(kind, name, test_migrate, c, rust, rust, STAYS);
        }
        if (c->mixed && have_library) {
            add(rust ? "to-qemu/" : "from-qemu/", c->name, test_migrate, c,
                rust, !rust, EXITS);
        }
    }
    add(kind, "snapshot/works", test_snapshot, NULL, rust, rust, WORKS);
    add(kind, "snapshot/fails", test_snapshot, NULL, rust, rust, FAILS);
    add(kind, "snapshot/broken", test_snapshot, NULL, rust, rust, BROKEN);
    add(kind, "snapshot/background", test_background, NULL, rust, rust, WORKS);
}

int main(int argc, char **argv)
{
    uint8_t image[FIRMWARE_ENTRY + sizeof(firmware)] = { };
    g_autofree char *path = NULL;
    g_autofree char *properties = NULL;
    g_autofree char *remove_all = NULL;
    QTestState *probe;
    int ret;

    g_test_init(&argc, &argv, NULL);
    if (!qtest_has_accel("tcg") || !qtest_has_machine("pseries")) {
        g_test_message("This needs TCG and the machine pseries");
        return g_test_run();
    }

    dir = g_dir_make_tmp("spapr-htab-test-XXXXXX", NULL);
    path = in_dir("", "firmware");
    for (int i = 0; i < ARRAY_SIZE(firmware); i++) {
        stl_be_p(image + FIRMWARE_ENTRY + 4 * i, firmware[i]);
    }
    g_assert_true(g_file_set_contents(path, (char *)image, sizeof(image),
                                      NULL));

    probe = start("from", true, NULL, "");
    properties = qtest_hmp(probe, "qom-list /machine");
    have_library = strstr(properties, "x-rust-htab");
    qtest_quit(probe);
    if (have_library) {
        add_all(true);
    }
    add_all(false);

    ret = g_test_run();
    remove_all = g_strdup_printf("rm -r %s", dir);
    g_spawn_command_line_sync(remove_all, NULL, NULL, NULL, NULL);
    return ret;
}
