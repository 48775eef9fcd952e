/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QTest for the migration of a pseries guest's hashed page table (HPT)
 *
 * The guest is the small firmware below.  It fills the table by H_ENTER with
 * what this test knows to be there, changes and resizes it during a migration,
 * and reads all of it by H_READ afterwards.
 *
 * Each case runs twice: as /spapr-htab/NAME with the library spapr-htab, and
 * as /spapr-htab/qemu/NAME with QEMU's own code (x-rust-htab=off, or a QEMU
 * without the library), which is known to be wrong in some: these are skipped
 * unless SPAPR_HTAB_TEST_ALL is set.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "libqtest.h"

/*
 * The firmware: it stands at 0 and begins at 0x100, in real mode and
 * big-endian.  Assembled by
 *     powerpc64-linux-gnu-as -mpower8 -mbig -o fw.o fw.s
 *     powerpc64-linux-gnu-objcopy -O binary fw.o fw.bin
 *     xxd -p -c 4 fw.bin
 *
 *          lis     31, 1                # the control block, at 0x10000
 *  idle:   bl      beat
 *          ld      0, 0(31)             # the command
 *          cmpdi   0, 0
 *          beq     idle
 *          ld      14, 8(31)            # its arguments
 *          ld      15, 16(31)
 *          ld      16, 24(31)
 *          ld      17, 32(31)
 *          cmpdi   0, 2
 *          blt     hcall
 *          beq     fill
 *          cmpdi   0, 4
 *          blt     dump
 *          beq     churn
 *          cmpdi   0, 5
 *          beq     repeat
 *  done:   std     3, 40(31)            # the result
 *          li      0, 0
 *          std     0, 0(31)
 *          b       idle
 *
 *  beat:   ld      8, 48(31)            # counts, and writes to one page after
 *          addi    8, 8, 1              # the other of the MiB at 0x400000
 *          std     8, 48(31)
 *          rldic   9, 8, 12, 44
 *          addis   9, 9, 0x40
 *          std     8, 0(9)
 *          blr
 *
 *  hcall:  mr      3, 14                # r14(r15, r16, r17)
 *          mr      4, 15
 *          mr      5, 16
 *          mr      6, 17
 *          sc      1
 *          b       done
 *
 *  fill:   cmpld   14, 16               # slots r14, r14 + r15, ... below r16
 *          li      3, 0                 # get entries of the generation r17
 *          bge     done
 *          bl      enter
 *          cmpdi   3, 0
 *          bne     done
 *          add     14, 14, 15
 *          b       fill
 *
 *  dump:   lis     15, 0x100            # copies slots r14 up to r16 to 16 MiB
 *  1:      li      3, 0xc               # H_READ
 *          li      4, 1
 *          sldi    4, 4, 37             # H_READ_4
 *          mr      5, 14
 *          sc      1
 *          cmpdi   3, 0
 *          bne     done
 *          std     4, 0(15)
 *          std     5, 8(15)
 *          std     6, 16(15)
 *          std     7, 24(15)
 *          std     8, 32(15)
 *          std     9, 40(15)
 *          std     10, 48(15)
 *          std     11, 56(15)
 *          addi    15, 15, 64
 *          addi    14, 14, 4
 *          cmpld   14, 16
 *          blt     1b
 *          b       done
 *
 *  churn:  li      3, 4                 # H_REMOVE: as fill, but in a circle
 *          li      4, 0                 # that begins at 0, each round with the
 *          mr      5, 14                # next generation, until the command
 *          sc      1                    # changes
 *          bl      enter
 *          cmpdi   3, 0
 *          bne     done
 *          add     14, 14, 15
 *          cmpld   14, 16
 *          blt     1f
 *          li      14, 0
 *          addi    17, 17, 1
 *  1:      std     14, 8(31)
 *          std     17, 32(31)
 *          b       idle
 *
 *  repeat: li      4, 0                 # r14(0, r16) and r15(0, r16) until the
 *          mr      5, 16                # command changes
 *          mr      3, 14
 *          sc      1
 *          li      4, 0
 *          mr      5, 16
 *          mr      3, 15
 *          sc      1
 *          std     3, 40(31)
 *          b       idle
 *
 *  enter:  srdi    6, 14, 1             # slot r14, generation r17: see entry()
 *          rldic   6, 6, 4, 59
 *          srdi    7, 14, 3
 *          rldimi  6, 7, 12, 36
 *          rldimi  6, 14, 26, 35
 *          rldimi  6, 17, 40, 8
 *          ori     6, 6, 1
 *          mulli   7, 14, 25173
 *          add     7, 7, 17
 *          rldic   7, 7, 9, 37
 *          ori     7, 7, 0x12
 *          mr      5, 14
 *          li      4, 1
 *          sldi    4, 4, 39             # H_EXACT
 *          li      3, 8                 # H_ENTER
 *          sc      1
 *          blr
 */
static const uint32_t firmware[] = {
    0x3fe00001, 0x48000051, 0xe81f0000, 0x2c200000, 0x4182fff4, 0xe9df0008,
    0xe9ff0010, 0xea1f0018, 0xea3f0020, 0x2c200002, 0x41800048, 0x4182005c,
    0x2c200004, 0x41800074, 0x418200c4, 0x2c200005, 0x418200f8, 0xf87f0028,
    0x38000000, 0xf81f0000, 0x4bffffb4, 0xe91f0030, 0x39080001, 0xf91f0030,
    0x79096328, 0x3d290040, 0xf9090000, 0x4e800020, 0x7dc37378, 0x7de47b78,
    0x7e058378, 0x7e268b78, 0x44000022, 0x4bffffc0, 0x7c2e8040, 0x38600000,
    0x4080ffb4, 0x480000cd, 0x2c230000, 0x4082ffa8, 0x7dce7a14, 0x4bffffe4,
    0x3de00100, 0x3860000c, 0x38800001, 0x78842e86, 0x7dc57378, 0x44000022,
    0x2c230000, 0x4082ff80, 0xf88f0000, 0xf8af0008, 0xf8cf0010, 0xf8ef0018,
    0xf90f0020, 0xf92f0028, 0xf94f0030, 0xf96f0038, 0x39ef0040, 0x39ce0004,
    0x7c2e8040, 0x4180ffb8, 0x4bffff4c, 0x38600004, 0x38800000, 0x7dc57378,
    0x44000022, 0x48000055, 0x2c230000, 0x4082ff30, 0x7dce7a14, 0x7c2e8040,
    0x4180000c, 0x39c00000, 0x3a310001, 0xf9df0008, 0xfa3f0020, 0x4bfffed0,
    0x38800000, 0x7e058378, 0x7dc37378, 0x44000022, 0x38800000, 0x7e058378,
    0x7de37b78, 0x44000022, 0xf87f0028, 0x4bfffea8, 0x79c6f842, 0x78c626e8,
    0x79c7e8c2, 0x78e6612c, 0x79c6d0ec, 0x7a26420e, 0x60c60001, 0x1cee6255,
    0x7ce78a14, 0x78e74968, 0x60e70012, 0x7dc57378, 0x38800001, 0x78843e06,
    0x38600008, 0x44000022, 0x4e800020,
};

#define FIRMWARE_ENTRY          0x100

/* In the guest's memory */
#define CONTROL                 0x10000
#define DUMP                    (16 * MiB)
#define BALLAST                 (32 * MiB)

enum { COMMAND = CONTROL, ARGUMENT = CONTROL + 8, RESULT = CONTROL + 40,
       BEATS = CONTROL + 48 };
typedef enum { STOP, HCALL, FILL, DUMP_TABLE, CHURN, REPEAT } Command;

#define H_READ                  0xc
#define H_RESIZE_HPT_PREPARE    0x36c
#define H_RESIZE_HPT_COMMIT     0x370
#define H_SUCCESS               0
#define H_PARAMETER             (-4)
#define H_PTEG_FULL             (-6)
#define H_LONG_BUSY_100_MSEC    9902

#define V_VALID                 0x1
#define V_BOLTED                0x10
#define V_SOFTWARE              0x60    /* QEMU's dirty bit is one of them */

/* The order of the table that a machine of 256 MiB begins with */
#define ORDER                   21
#define SLOTS                   (1u << (ORDER - 4))

#define BODY                    (1 + 10 + 4 + 4)  /* After \nspapr/htab */

#define WAIT_FOR(what)                                                  \
    do {                                                                \
        int64_t end = g_get_monotonic_time() + 60 * G_TIME_SPAN_SECOND; \
        while (!(what)) {                                               \
            g_assert_cmpint(g_get_monotonic_time(), <, end);            \
            g_usleep(2000);                                             \
        }                                                               \
    } while (0)

static char *dir;
static bool have_property;

/* The table as it should be */

typedef struct {
    uint64_t v, r;
} Entry;

static Entry table[2 * SLOTS];
static unsigned slots;

static Entry entry(uint64_t slot, uint64_t generation)
{
    return (Entry) {
        .v = V_VALID | (slot & 2 ? V_BOLTED : 0) | ((slot >> 3) & 0x3fff) << 12
             | (slot & 7) << 26 | (generation & 0xffff) << 40,
        .r = ((slot * 25173 + generation) & 0x3ffff) << 9 | 0x12,
    };
}

static void table_fill(unsigned first, unsigned step, unsigned end,
                       uint64_t generation)
{
    for (unsigned i = first; i < end; i += step) {
        table[i] = entry(i, generation);
    }
}

/* As H_RESIZE_HPT_COMMIT does it for entries like the ones of entry() */
static void table_resize(unsigned order)
{
    g_autofree Entry *old = g_memdup2(table, sizeof(table));
    unsigned old_mask = slots / 8 - 1;
    unsigned old_slots = slots;

    slots = 1u << (order - 4);
    memset(table, 0, sizeof(table));
    for (unsigned i = 0; i < old_slots; i++) {
        uint64_t hash = old[i].v >> 12;

        if (old[i].v & V_BOLTED) {
            hash = (hash & ~old_mask) | i / 8;
            table[(hash & (slots / 8 - 1)) * 8 + i % 8] = old[i];
        }
    }
}

/* The guest */

static uint64_t beats(QTestState *qts)
{
    return qtest_readq(qts, BEATS);
}

static void guest_begin(QTestState *qts, Command command, uint64_t a,
                        uint64_t b, uint64_t c, uint64_t d)
{
    qtest_writeq(qts, ARGUMENT, a);
    qtest_writeq(qts, ARGUMENT + 8, b);
    qtest_writeq(qts, ARGUMENT + 16, c);
    qtest_writeq(qts, ARGUMENT + 24, d);
    qtest_writeq(qts, COMMAND, command);
}

static int64_t guest_do(QTestState *qts, Command command, uint64_t a,
                        uint64_t b, uint64_t c, uint64_t d)
{
    guest_begin(qts, command, a, b, c, d);
    WAIT_FOR(qtest_readq(qts, COMMAND) == STOP);
    return qtest_readq(qts, RESULT);
}

/* Ends CHURN and REPEAT, which run until then */
static void guest_stop(QTestState *qts, Command command)
{
    uint64_t before;

    g_assert_cmpint(qtest_readq(qts, COMMAND), ==, command);
    qtest_writeq(qts, COMMAND, STOP);
    before = beats(qts);
    WAIT_FOR(beats(qts) > before + 2);
}

static void guest_fill(QTestState *qts, unsigned step)
{
    slots = SLOTS;
    memset(table, 0, sizeof(table));
    table_fill(0, step, slots, 1);
    g_assert_cmpint(guest_do(qts, FILL, 0, step, slots, 1), ==, H_SUCCESS);
}

#define CHURN_FROM 16

static void guest_churn(QTestState *qts, unsigned step)
{
    guest_begin(qts, CHURN, 0, step, slots, CHURN_FROM);
}

static void guest_stop_churn(QTestState *qts, unsigned step)
{
    uint64_t at, generation;

    guest_stop(qts, CHURN);
    at = qtest_readq(qts, ARGUMENT);
    generation = qtest_readq(qts, ARGUMENT + 24);
    g_test_message("the guest changed the table %u times, and %u slots",
                   (unsigned)(generation - CHURN_FROM), (unsigned)at);
    if (generation > CHURN_FROM) {
        table_fill(0, step, slots, generation - 1);
    }
    table_fill(0, step, at, generation);
}

/* The number of slots that H_READ shows otherwise than they should be */
static unsigned guest_differs(QTestState *qts)
{
    g_autofree Entry *got = g_new(Entry, slots);
    unsigned differs = 0;

    g_assert_cmpint(guest_do(qts, HCALL, H_READ, 0, slots, 0), ==, H_PARAMETER);
    g_assert_cmpint(guest_do(qts, DUMP_TABLE, 0, 0, slots, 0), ==, H_SUCCESS);
    qtest_bufread(qts, DUMP, got, slots * sizeof(*got));
    for (unsigned i = 0; i < slots; i++) {
        uint64_t v = be64_to_cpu(got[i].v) & ~(uint64_t)V_SOFTWARE;
        uint64_t r = be64_to_cpu(got[i].r);

        if (v != table[i].v || r != table[i].r) {
            if (!differs++) {
                g_test_message("slot %u is %016" PRIx64 " %016" PRIx64 ", not %"
                               "016" PRIx64 " %016" PRIx64, i, v, r,
                               table[i].v, table[i].r);
            }
        }
    }
    return differs;
}

static void guest_check(QTestState *qts)
{
    uint64_t before = beats(qts);

    WAIT_FOR(beats(qts) > before);
    g_assert_cmpint(guest_differs(qts), ==, 0);
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

/* What QEMU says on stderr goes to the file of this name, for said() */
static QTestState *start(const char *name, bool rust, const char *machine,
                         const char *more)
{
    return qtest_initf("-accel tcg -machine pseries%s%s"
                       ",cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken"
                       ",cap-ccf-assist=off -cpu power8 -m 256M -nodefaults"
                       " -vga none -bios %s/firmware %s 2>%s/%s",
                       machine, rust || !have_property ? "" : ",x-rust-htab=off",
                       dir, more, dir, name);
}

static char *said(const char *name)
{
    g_autofree char *path = g_strdup_printf("%s/%s", dir, name);
    char *text = NULL;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    return text;
}

static bool qmp_ok(QDict *response)
{
    bool ok = qdict_haskey(response, "return");

    qobject_unref(response);
    return ok;
}

static bool set_capability(QTestState *qts, const char *name)
{
    return qmp_ok(qtest_qmp(qts, "{'execute': 'migrate-set-capabilities',"
                            " 'arguments': {'capabilities': [{"
                            " 'capability': %s, 'state': true}]}}", name));
}

/* Slow enough that a guest that runs keeps its migration from ending */
static void set_speed(QTestState *qts, bool slow)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate-set-parameters',"
                             " 'arguments': {'max-bandwidth': %u,"
                             " 'max-postcopy-bandwidth': %u,"
                             " 'downtime-limit': %u}}",
                             slow ? 8000000 : 4000000000u, 8000000,
                             slow ? 1 : 10000);
}

static void migrate(QTestState *qts, const char *uri)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate', 'arguments':"
                             " {'uri': %s}}", uri);
}

static QTestState *start_incoming(const char *name, bool rust)
{
    return start(name, rust, "", "-incoming defer");
}

static void incoming(QTestState *qts, const char *uri)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate-incoming',"
                             " 'arguments': {'uri': %s}}", uri);
}

static bool status_is(QTestState *qts, const char *wanted)
{
    QDict *response = qtest_qmp(qts, "{'execute': 'query-migrate'}");
    QDict *info = qdict_get_qdict(response, "return");
    const char *status = qdict_get_try_str(info, "status") ?: "none";
    bool is = g_str_equal(status, wanted);

    if (!is && (g_str_equal(status, "failed") ||
                g_str_equal(status, "completed"))) {
        g_test_message("%s, not %s: %s", status, wanted,
                       qdict_get_try_str(info, "error-desc") ?: "no reason");
        g_assert_not_reached();
    }
    qobject_unref(response);
    return is;
}

static void wait_status(QTestState *qts, const char *wanted)
{
    WAIT_FOR(status_is(qts, wanted));
}

/* All of the table was sent when RAM is in its third pass */
static void wait_passes(QTestState *qts)
{
    int64_t passes = 0;

    while (passes < 3) {
        QDict *response = qtest_qmp(qts, "{'execute': 'query-migrate'}");
        QDict *info = qdict_get_qdict(response, "return");
        QDict *ram = qdict_get_qdict(info, "ram");

        g_assert_cmpstr(qdict_get_try_str(info, "status"), !=, "failed");
        g_assert_cmpstr(qdict_get_try_str(info, "status"), !=, "completed");
        passes = ram ? qdict_get_int(ram, "dirty-sync-count") : 0;
        qobject_unref(response);
        g_usleep(2000);
    }
}

static void quit_failed(QTestState *qts)
{
    qtest_set_expected_status(qts, 1);
    WAIT_FOR(!qtest_probe_child(qts));
    qtest_quit(qts);
}

/* The cases that migrate a table */

typedef enum { LIVE, TO_FILE, POSTCOPY } Way;

typedef struct {
    const char *name;
    Way way;
    unsigned step;              /* Every how many slots one is filled */
    bool churn;                 /* The guest changes them all the while */
    const char *capabilities[2];
    const char *machine;        /* More options of the source */
    void (*meanwhile)(QTestState *from);
    const char *qemu_is_wrong;
} Case;

typedef struct {
    const Case *c;
    bool from_rust, to_rust;
} Run;

static bool skip(const char *reason)
{
    g_test_skip(reason);
    return true;
}

static bool skip_wrong(const char *reason, bool rust)
{
    return !rust && reason && !getenv("SPAPR_HTAB_TEST_ALL") && skip(reason);
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

static void resize_fails(QTestState *from)
{
    g_assert_cmpint(guest_resize(from, ORDER - 1), ==, H_PTEG_FULL);
    guest_churn(from, 1);
}

static void resize_fails_again(QTestState *from)
{
    guest_begin(from, REPEAT, H_RESIZE_HPT_PREPARE, H_RESIZE_HPT_COMMIT,
                ORDER - 1, 0);
}

static void cancel(QTestState *from)
{
    qtest_qmp_assert_success(from, "{'execute': 'migrate_cancel'}");
    wait_status(from, "cancelled");
}

static void reset(QTestState *from)
{
    qtest_qmp_assert_success(from, "{'execute': 'system_reset'}");
    qtest_qmp_eventwait(from, "RESET");
}

static void test_migrate(const void *opaque)
{
    const Run *run = opaque;
    const Case *c = run->c;
    g_autofree char *uri = g_strdup_printf("unix:%s/migration", dir);
    g_autofree char *read_uri = NULL;
    QTestState *from, *to;
    Command command;

    if (skip_wrong(c->qemu_is_wrong, run->from_rust && run->to_rust)) {
        return;
    }
    from = start("from", run->from_rust, c->machine ?: "", "");
    to = start_incoming("to", run->to_rust);
    for (int i = 0; i < 2 && c->capabilities[i]; i++) {
        if (!set_capability(from, c->capabilities[i]) ||
            !set_capability(to, c->capabilities[i])) {
            g_autofree char *reason =
                g_strdup_printf("no %s here", c->capabilities[i]);

            skip(reason);
            goto out;
        }
    }
    if (c->way == TO_FILE) {
        g_free(uri);
        uri = g_strdup_printf(c->capabilities[0] ? "file:%s/stream" :
                              "exec:cat >%s/stream", dir);
        read_uri = g_strdup_printf(c->capabilities[0] ? "file:%s/stream" :
                                   "exec:cat %s/stream", dir);
    } else {
        incoming(to, uri);
    }

    guest_fill(from, c->step);
    g_assert_cmpint(guest_differs(from), ==, 0);
    if (c->churn) {
        guest_churn(from, c->step);
    }
    set_speed(from, c->meanwhile || c->way == POSTCOPY);
    migrate(from, uri);
    if (c->way == POSTCOPY) {
        qtest_memset(from, BALLAST, 0x5a, 8 * MiB);
        wait_passes(from);
        qtest_qmp_assert_success(from, "{'execute': 'migrate-start-postcopy'}");
        wait_status(from, "postcopy-active");
        if (c->meanwhile) {
            c->meanwhile(from);
        }
    } else if (c->meanwhile) {
        wait_passes(from);
        c->meanwhile(from);
        set_speed(from, false);
        if (c->meanwhile == cancel) {
            quit_failed(to);
            to = start_incoming("to", run->to_rust);
            incoming(to, uri);
            migrate(from, uri);
        }
    }
    wait_status(from, "completed");
    if (c->way == TO_FILE) {
        incoming(to, read_uri);
    }
    wait_status(to, "completed");

    command = qtest_readq(to, COMMAND);
    if (command == CHURN) {
        guest_stop_churn(to, c->step);
    } else if (command != STOP) {
        guest_stop(to, command);
    }
    guest_check(to);
out:
    qtest_quit(from);
    qtest_quit(to);
}

static const Case cases[] = {
    { "live/full", .step = 1 },
    { "live/sparse", .step = 61 },
    { "live/changing", .step = 1, .churn = true },
    { "live/changing-sparse", .step = 61, .churn = true },
    { "live/crc", .step = 1, .churn = true, .machine = ",x-htab-crc=on",
      .qemu_is_wrong = "QEMU's own code has no checksum" },
    { "live/cancelled", .step = 1, .churn = true, .meanwhile = cancel },
    { "live/resized", .step = 1, .meanwhile = resize,
      .qemu_is_wrong = "QEMU's own code does not send the new size" },
    { "live/resize-fails", .step = 1, .meanwhile = resize_fails },
    { "live/resize-fails-again", .step = 1, .meanwhile = resize_fails_again },
    { "multifd/full", .step = 1, .capabilities = { "multifd" } },
    { "file/full", TO_FILE, .step = 1 },
    { "file/changing", TO_FILE, .step = 1, .churn = true },
    { "file/mapped-ram", TO_FILE, .step = 1, .churn = true,
      .capabilities = { "mapped-ram" } },
    { "file/mapped-ram-multifd", TO_FILE, .step = 61, .churn = true,
      .capabilities = { "mapped-ram", "multifd" } },
    { "postcopy/full", POSTCOPY, .step = 1,
      .capabilities = { "postcopy-ram" } },
    { "postcopy/changing", POSTCOPY, .step = 1, .churn = true,
      .capabilities = { "postcopy-ram" } },
    { "postcopy/reset", POSTCOPY, .step = 1, .meanwhile = reset,
      .capabilities = { "postcopy-ram" } },
};

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = NULL;
    uint8_t image[FIRMWARE_ENTRY + sizeof(firmware)] = { };
    QTestState *probe;
    int ret;

    g_test_init(&argc, &argv, NULL);
    if (!qtest_has_accel("tcg") || !qtest_has_machine("pseries")) {
        g_test_message("This needs TCG and the machine pseries");
        return g_test_run();
    }

    dir = g_dir_make_tmp("spapr-htab-test-XXXXXX", &error);
    g_assert_no_error(error);
    for (int i = 0; i < ARRAY_SIZE(firmware); i++) {
        stl_be_p(image + FIRMWARE_ENTRY + 4 * i, firmware[i]);
    }
    path = g_strdup_printf("%s/firmware", dir);
    g_assert_true(g_file_set_contents(path, (char *)image, sizeof(image),
                                      NULL));

    probe = start("probe", true, "", "");
    have_property = qmp_ok(qtest_qmp(probe, "{'execute': 'qom-get',"
                                     " 'arguments': {'path': '/machine',"
                                     " 'property': 'x-rust-htab'}}"));
    qtest_quit(probe);

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        for (int rust = have_property; rust >= 0; rust--) {
            Run *run = g_new(Run, 1);

            *run = (Run) { &cases[i], rust, rust };
            path = g_strdup_printf("/spapr-htab/%s%s", rust ? "" : "qemu/",
                                   cases[i].name);
            qtest_add_data_func_full(path, run, test_migrate, g_free);
        }
    }

    ret = g_test_run();
    return ret;
}
