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
 * all sent.  Assembled by
 *     powerpc64-linux-gnu-as -mpower8 -mbig -o fw.o fw.s
 *     powerpc64-linux-gnu-objcopy -O binary fw.o fw.bin
 *     xxd -p -c 4 fw.bin
 *
 *         lis 31,1                                        # 0x10000: CONTROL
 * idle:   ld 8,48(31); addi 8,8,1; std 8,48(31)
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
    0x3fe00001, 0xe91f0030, 0x39080001, 0xf91f0030, 0x790962e8, 0x3d290040,
    0xf9090000, 0xe81f0000, 0x2c200000, 0x4182ffe0, 0xe9df0008, 0xe9ff0010,
    0xea1f0018, 0xea3f0020, 0x2c200002, 0x41800028, 0x4182003c, 0x2c200004,
    0x41800054, 0x418200a0, 0x480000d8, 0xf87f0028, 0x38000000, 0xf81f0000,
    0x4bffffa4, 0x7dc37378, 0x7de47b78, 0x7e058378, 0x7e268b78, 0x44000022,
    0x4bffffdc, 0x7c2e8040, 0x38600000, 0x4080ffd0, 0x480000c5, 0x2c230000,
    0x4082ffc4, 0x7dce7a14, 0x4bffffe4, 0x3860000c, 0x38800001, 0x78842e86,
    0x7dc57378, 0x44000022, 0x2c230000, 0x4082ffa0, 0xf88f0000, 0xf8af0008,
    0xf8cf0010, 0xf8ef0018, 0xf90f0020, 0xf92f0028, 0xf94f0030, 0xf96f0038,
    0x39ef0040, 0x39ce0004, 0x7c2e8040, 0x4180ffb8, 0x4bffff6c, 0x38600004,
    0x38800000, 0x7dc57378, 0x44000022, 0x48000051, 0x2c230000, 0x4082ff50,
    0x7dce7a14, 0x7c2e8040, 0x4180000c, 0x39c00000, 0x3a310001, 0xf9df0008,
    0xfa3f0020, 0x4bfffee0, 0x7dc37378, 0x38800000, 0x7e058378, 0x44000022,
    0x7de37b78, 0x38800000, 0x7e058378, 0x44000022, 0x4bfffebc, 0x79c6f842,
    0x78c626e8, 0x79c7e8c2, 0x78e6612c, 0x79c6d0ec, 0x7a26420e, 0x60c60001,
    0x1cee6255, 0x7ce78a14, 0x78e74968, 0x60e70012, 0x7dc57378, 0x38800001,
    0x78843e06, 0x38600008, 0x44000022, 0x4e800020,
};

#define FIRMWARE_ENTRY          0x100

/* In the guest's memory */
enum {
    CONTROL = 0x10000,
    COMMAND = CONTROL,          /* 0 is idle */
    ARGUMENT = CONTROL + 8,     /* Four of them, in r14 to r17 */
    RESULT = CONTROL + 40,
    BEATS = CONTROL + 48,
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
#define V_SOFTWARE              0x60 /* QEMU's own dirty bit is one of them */

/* The order of the table that a machine of 256 MiB begins with */
#define ORDER                   21
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

static Entry entry(uint64_t slot, uint64_t generation)
{
    return (Entry) {
        .v = V_VALID | (slot & 2 ? V_BOLTED : 0) | ((slot >> 3) & 0x3fff) << 12
             | (slot & 7) << 26 | (generation & 0xffff) << 40,
        .r = ((slot * 25173 + generation) & 0x3ffff) << 9 | 0x12,
    };
}

static void table_fill(unsigned step, unsigned end, uint64_t generation)
{
    for (unsigned i = 0; i < end; i += step) {
        table[i] = entry(i, generation);
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

/* Ends CHURN, if so with the step that it was begun with, and REPEAT */
static void guest_stop(QTestState *qts, unsigned step)
{
    Command command = qtest_readq(qts, COMMAND);
    uint64_t before, at, generation;

    qtest_writeq(qts, COMMAND, STOP);
    before = beats(qts);
    WAIT_FOR(beats(qts) > before + 2);
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
        uint64_t v = be64_to_cpu(got[i].v) & ~(uint64_t)V_SOFTWARE;
        uint64_t r = be64_to_cpu(got[i].r);

        if ((v != table[i].v || r != table[i].r) && !differs++) {
            g_test_message("slot %u is %016" PRIx64 " %016" PRIx64 ", not"
                           " %016" PRIx64 " %016" PRIx64,
                           i, v, r, table[i].v, table[i].r);
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

static QTestState *start_incoming(bool rust)
{
    return start("to", rust, NULL, "-incoming defer");
}

/* It exits by itself, with status 1 and by no signal */
static void quit_failed(QTestState *qts)
{
    qtest_set_expected_status(qts, 1);
    WAIT_FOR(!qtest_probe_child(qts));
    qtest_quit(qts);
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
static void set_slow(QTestState *qts, bool slow)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate-set-parameters',"
                             " 'arguments': {'max-bandwidth': %u,"
                             " 'max-postcopy-bandwidth': 16000000,"
                             " 'downtime-limit': %u}}",
                             slow ? 16000000 : 4000000000u, slow ? 1 : 10000);
}

static void migrate(QTestState *qts, const char *uri)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate',"
                             " 'arguments': {'uri': %s}}", uri);
}

static void incoming(QTestState *qts, const char *uri)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate-incoming',"
                             " 'arguments': {'uri': %s}}", uri);
}

static QDict *query_migrate(QTestState *qts)
{
    QDict *response = qtest_qmp(qts, "{'execute': 'query-migrate'}");
    QDict *info = qdict_get_qdict(response, "return");

    qobject_ref(info);
    qobject_unref(response);
    return info;
}

static bool status_is(QTestState *qts, const char *wanted)
{
    QDict *info = query_migrate(qts);
    const char *status = qdict_get_try_str(info, "status") ?: "none";
    bool is = g_str_equal(status, wanted);

    if (!is && (g_str_equal(status, "failed") ||
                g_str_equal(status, "completed"))) {
        g_test_message("%s, not %s: %s", status, wanted,
                       qdict_get_try_str(info, "error-desc") ?: "no reason");
        g_assert_not_reached();
    }
    qobject_unref(info);
    return is;
}

static void wait_status(QTestState *qts, const char *wanted)
{
    WAIT_FOR(status_is(qts, wanted));
}

static bool is_in_pass(QTestState *qts, int pass)
{
    QDict *info = query_migrate(qts);
    QDict *ram = qdict_get_qdict(info, "ram");
    bool is = ram && qdict_get_int(ram, "dirty-sync-count") >= pass;

    g_assert_cmpstr(qdict_get_try_str(info, "status"), !=, "failed");
    g_assert_cmpstr(qdict_get_try_str(info, "status"), !=, "completed");
    qobject_unref(info);
    return is;
}

static char *error_desc(QTestState *qts)
{
    QDict *info;
    char *desc;

    wait_status(qts, "failed");
    info = query_migrate(qts);
    desc = g_strdup(qdict_get_try_str(info, "error-desc") ?: "");
    qobject_unref(info);
    g_test_message("%s", desc);
    return desc;
}

static char *in_dir(const char *before, const char *name)
{
    return g_strdup_printf("%s%s/%s", before, dir, name);
}

/* What a test is called with */
typedef struct {
    const void *c;
    bool from, to;              /* With the library? */
    bool stays;                 /* With exit-on-error=false? */
} Run;

static bool skip_wrong(const Run *run, const char *reason)
{
    if (run->from || !reason || getenv("SPAPR_HTAB_TEST_ALL")) {
        return false;
    }
    g_test_skip(reason);
    return true;
}

/* Migrations */

typedef enum { LIVE, TO_FILE, POSTCOPY } Way;

typedef struct {
    const char *name;
    Way way;
    unsigned step;              /* Every how many slots one is filled */
    bool churn;                 /* The guest changes them all the while */
    bool mixed;                 /* Also between the library and QEMU's code */
    const char *capabilities[2];
    const char *machine;        /* More options of the source */
    void (*meanwhile)(QTestState *from);
    const char *qemu_is_wrong;
} Case;

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

/* Two entries of each group do not fit into the smaller table */
static void resize_fails(QTestState *from)
{
    g_assert_cmpint(guest_resize(from, ORDER - 1), ==, H_PTEG_FULL);
    guest_churn(from, 1);
}

static void resize_fails_on(QTestState *from)
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
    const char *file = c->capabilities[0] ? "file:" : "exec:cat ";
    bool slow = c->way == POSTCOPY || c->meanwhile ||
                (c->way == LIVE && c->churn);
    g_autofree char *uri = in_dir("unix:", "migration");
    g_autofree char *read_uri = in_dir(file, "stream");
    QTestState *from, *to;

    if (skip_wrong(run, c->qemu_is_wrong)) {
        return;
    }
    from = start("from", run->from, c->machine, "");
    to = start_incoming(run->to);
    for (int i = 0; i < 2 && c->capabilities[i]; i++) {
        if (!set_capability(from, c->capabilities[i]) ||
            !set_capability(to, c->capabilities[i])) {
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
        WAIT_FOR(is_in_pass(from, 3));
    }
    if (c->way == POSTCOPY) {
        qtest_memset(from, BALLAST, 0x5a, 8 * MiB);
        qtest_qmp_assert_success(from, "{'execute': 'migrate-start-postcopy'}");
        wait_status(from, "postcopy-active");
    }
    if (c->meanwhile) {
        c->meanwhile(from);
    }
    if (slow && c->way != POSTCOPY) {
        set_slow(from, false);
    }
    if (c->meanwhile == cancel) {
        quit_failed(to);
        to = start_incoming(run->to);
        incoming(to, uri);
        migrate(from, uri);
    }
    wait_status(from, "completed");
    if (c->way == TO_FILE) {
        incoming(to, read_uri);
    }
    wait_status(to, "completed");
    guest_stop(to, c->step);
    guest_check(to);
out:
    qtest_quit(from);
    qtest_quit(to);
}

#define NO_CHECKSUM "QEMU's own code has no checksum"

static const Case cases[] = {
    { "live/full", .step = 1 },
    { "live/sparse", .step = 61 },
    { "live/changing", .step = 1, .churn = true, .mixed = true },
    { "live/changing-sparse", .step = 61, .churn = true },
    { "live/crc", .step = 1, .churn = true, .machine = ",x-htab-crc=on",
      .qemu_is_wrong = NO_CHECKSUM },
    { "live/cancelled", .step = 1, .churn = true, .meanwhile = cancel },
    { "live/resized", .step = 1, .meanwhile = resize, .mixed = true,
      .qemu_is_wrong = "QEMU's own code does not send the new size" },
    { "live/resize-fails", .step = 1, .meanwhile = resize_fails },
    { "live/resize-fails-on", .step = 1, .meanwhile = resize_fails_on },
    { "live/multifd", .step = 1, .capabilities = { "multifd" } },
    { "file/full", TO_FILE, .step = 1 },
    { "file/changing", TO_FILE, .step = 1, .churn = true },
    { "file/mapped-ram", TO_FILE, .step = 1, .churn = true,
      .capabilities = { "mapped-ram" } },
    { "file/mapped-ram-multifd", TO_FILE, .step = 61, .churn = true,
      .capabilities = { "mapped-ram", "multifd" } },
    { "postcopy/full", POSTCOPY, .step = 1,
      .capabilities = { "postcopy-ram" } },
    { "postcopy/changing", POSTCOPY, .step = 1, .churn = true, .mixed = true,
      .capabilities = { "postcopy-ram" } },
    { "postcopy/reset", POSTCOPY, .step = 1, .meanwhile = reset,
      .capabilities = { "postcopy-ram" } },
};

/* Streams that are damaged in their table */

typedef enum { FLIP, BEYOND, SIZE } Damage;

typedef struct {
    const char *name;
    Damage damage;
    const char *sentence;       /* A part of why it is refused, if it is */
    const char *machine;
    unsigned order;
    const char *qemu_is_wrong;
} Broken;

static void damage_file(const char *path, Damage damage, unsigned order)
{
    static const char name[] = "\nspapr/htab";
    g_autofree char *data = NULL;
    char part[9] = { 2 };
    char *at;
    size_t size;

    g_assert_true(g_file_get_contents(path, &data, &size, NULL));
    for (at = data + 4; memcmp(at, name, strlen(name)); at++) {
        g_assert_cmpuint(at - data + strlen(name), <, size);
    }
    memcpy(part + 1, at - 4, 4); /* The section's id */
    at += strlen(name) + 4 + 4;
    g_assert_cmpuint(ldl_be_p(at), ==, ORDER);
    if (damage == SIZE) {
        stl_be_p(at, order);
    } else {
        /* The first record: its slot, the number of its entries, and these */
        for (; memcmp(at, part, sizeof(part)); at++) {
            g_assert_cmpuint(at - data + sizeof(part), <, size);
        }
        at += sizeof(part);
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

static void test_broken(const void *opaque)
{
    const Run *run = opaque;
    const Broken *b = run->c;
    g_autofree char *path = in_dir("", "stream");
    g_autofree char *uri = in_dir("exec:cat >", "stream");
    g_autofree char *read_uri = in_dir("exec:cat ", "stream");
    g_autofree char *said = in_dir("", "to");
    g_autofree char *sentence = NULL;
    QTestState *from, *to;

    if (skip_wrong(run, run->stays ? "QEMU's own code says why on stderr only" :
                   b->qemu_is_wrong)) {
        return;
    }
    from = start("from", run->from, b->machine, "");
    guest_fill(from, 1);
    migrate(from, uri);
    wait_status(from, "completed");
    qtest_quit(from);
    damage_file(path, b->damage, b->order);

    to = start_incoming(run->to);
    if (!b->sentence) {
        incoming(to, read_uri);
        wait_status(to, "completed");
        g_assert_cmpint(guest_differs(to), ==, 1);
        qtest_quit(to);
        return;
    }
    if (!run->stays) {
        incoming(to, read_uri);
        quit_failed(to);
        g_assert_true(g_file_get_contents(said, &sentence, NULL, NULL));
        g_test_message("%s", sentence);
    } else if (qmp_ok(qtest_qmp(to, "{'execute': 'migrate-incoming',"
                                " 'arguments': {'uri': %s,"
                                " 'exit-on-error': false}}", read_uri))) {
        sentence = error_desc(to);
        qtest_quit(to);
    } else {
        g_test_skip("this QEMU has no exit-on-error");
        qtest_quit(to);
        return;
    }
    g_assert_nonnull(strstr(sentence, b->sentence));
}

#define TAKES_ANY_SIZE "QEMU's own code takes any size, or aborts"

static const Broken broken[] = {
    { "flipped-bit", FLIP },
    { "flipped-bit-crc", FLIP, "hash table", .machine = ",x-htab-crc=on",
      .qemu_is_wrong = NO_CHECKSUM },
    { "slot-beyond-table", BEYOND, "131072" },
    { "table-beyond-memory", SIZE, "30", .order = 30,
      .qemu_is_wrong = TAKES_ANY_SIZE },
    { "largest-table", SIZE, "36", .order = 36,
      .qemu_is_wrong = TAKES_ANY_SIZE },
};

/* Snapshots */

/*
 * The drive that they go to.  It cannot grow beyond 11 MiB: a second snapshot
 * fails in the table, which is in the middle of its 7 MiB.
 */
static char *make_image(void)
{
    const char *program = getenv("QTEST_QEMU_IMG") ?: "false";
    g_autofree char *path = in_dir("", "image");
    g_autofree char *command = g_strdup_printf("%s create -q -f qcow2 %s 64M",
                                               program, path);

    unlink(path);
    if (!g_spawn_command_line_sync(command, NULL, NULL, NULL, NULL) ||
        truncate(path, 11 * MiB)) {
        g_test_skip("QTEST_QEMU_IMG is not set, or does not work");
        return NULL;
    }
    return g_strdup_printf("-drive if=none,id=d,driver=qcow2,file.driver=raw,"
                           "file.size=11M,file.file.driver=file,"
                           "file.file.filename=%s", path);
}

static bool hmp_ok(QTestState *qts, const char *command)
{
    g_autofree char *answer = qtest_hmp(qts, "%s", command);

    g_test_message("%s: %s", command, answer);
    return !*answer;
}

static void test_snapshot(const void *opaque)
{
    const Run *run = opaque;
    g_autofree char *image = make_image();
    QTestState *qts;

    if (!image) {
        return;
    }
    qts = start("from", run->from, NULL, image);
    guest_fill(qts, 1);
    guest_churn(qts, 1);
    WAIT_FOR(qtest_readq(qts, ARGUMENT) > SLOTS / 2);
    g_assert_true(hmp_ok(qts, "savevm s"));
    for (int i = 0; i < 2; i++) {
        WAIT_FOR(qtest_readq(qts, ARGUMENT + 24) > CHURN_FROM);
        g_assert_true(hmp_ok(qts, "loadvm s"));
    }
    guest_stop(qts, 1);
    guest_check(qts);
    qtest_quit(qts);
}

static void test_snapshot_fails(const void *opaque)
{
    const Run *run = opaque;
    g_autofree char *image = make_image();
    QTestState *qts;

    if (!image) {
        return;
    }
    qts = start("from", run->from, NULL, image);
    guest_fill(qts, 1);
    g_assert_true(hmp_ok(qts, "savevm s"));
    guest_churn(qts, 5);
    g_assert_false(hmp_ok(qts, "savevm t"));
    guest_stop(qts, 5);
    guest_check(qts);
    g_assert_true(hmp_ok(qts, "loadvm s"));
    table_fill(1, slots, 1);
    guest_check(qts);
    qtest_quit(qts);
}

static void test_snapshot_broken(const void *opaque)
{
    const Run *run = opaque;
    g_autofree char *image = make_image();
    g_autofree char *path = in_dir("", "image");
    QTestState *qts;

    if (!image || skip_wrong(run, TAKES_ANY_SIZE)) {
        return;
    }
    qts = start("from", run->from, NULL, image);
    g_assert_true(hmp_ok(qts, "savevm s"));
    qtest_quit(qts);
    damage_file(path, SIZE, 36);
    qts = start("from", run->from, NULL, image);
    g_assert_false(hmp_ok(qts, "loadvm s"));
    qtest_quit(qts);
}

static void test_background(const void *opaque)
{
    const Run *run = opaque;
    g_autofree char *uri = in_dir("exec:cat >", "stream");
    g_autofree char *sentence = NULL;
    QTestState *qts;

    if (skip_wrong(run, "QEMU's own code saves a table that is newer than the"
                   " memory with it")) {
        return;
    }
    qts = start("from", run->from, NULL, "");
    if (set_capability(qts, "background-snapshot")) {
        guest_fill(qts, 1);
        migrate(qts, uri);
        sentence = error_desc(qts);
        g_assert_nonnull(strstr(sentence, "background"));
        guest_check(qts);
    } else {
        g_test_skip("QEMU or the host has no background-snapshot");
    }
    qtest_quit(qts);
}

static void add(const char *kind, const char *name, void (*test)(const void *),
                Run run)
{
    g_autofree char *path = g_strdup_printf("/spapr-htab/%s%s", kind, name);

    qtest_add_data_func_full(path, g_memdup2(&run, sizeof(run)), test, g_free);
}

static void add_all(bool rust)
{
    const char *kind = rust ? "" : "qemu/";
    Run run = { NULL, rust, rust };

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        add(kind, cases[i].name, test_migrate, (Run) { &cases[i], rust, rust });
        if (have_library && cases[i].mixed) {
            add(rust ? "to-qemu/" : "from-qemu/", cases[i].name, test_migrate,
                (Run) { &cases[i], rust, !rust });
        }
    }
    for (int i = 0; i < ARRAY_SIZE(broken); i++) {
        g_autofree char *exits = g_strdup_printf("%sbroken/", kind);
        g_autofree char *stays = g_strdup_printf("%sbroken-stays/", kind);

        run = (Run) { &broken[i], rust, rust };
        add(exits, broken[i].name, test_broken, run);
        if (broken[i].sentence) {
            run.stays = true;
            add(stays, broken[i].name, test_broken, run);
        }
    }
    add(kind, "snapshot/changing", test_snapshot, run);
    add(kind, "snapshot/fails", test_snapshot_fails, run);
    add(kind, "snapshot/broken", test_snapshot_broken, run);
    add(kind, "snapshot/background", test_background, run);
}

int main(int argc, char **argv)
{
    static const char *const files[] = { "firmware", "probe", "from", "to",
                                         "stream", "image", "migration" };
    uint8_t image[FIRMWARE_ENTRY + sizeof(firmware)] = { };
    g_autofree char *path = NULL;
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

    probe = start("probe", true, NULL, "");
    have_library = qmp_ok(qtest_qmp(probe, "{'execute': 'qom-get',"
                                    " 'arguments': {'path': '/machine',"
                                    " 'property': 'x-rust-htab'}}"));
    qtest_quit(probe);
    if (have_library) {
        add_all(true);
    }
    add_all(false);

    ret = g_test_run();
    for (int i = 0; i < ARRAY_SIZE(files); i++) {
        g_autofree char *file = in_dir("", files[i]);

        unlink(file);
    }
    rmdir(dir);
    g_free(dir);
    return ret;
}
