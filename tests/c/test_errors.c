/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What can go wrong: the errno, a sentence that says what and where, no fd left open, and nothing written
 * astray. */
#include "guests.h"
#include "second.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY SPAPR_HTAB_TABLE_MEMORY
#define KERNEL SPAPR_HTAB_TABLE_KERNEL

/* Saving */

static void put_fails_anywhere(void **state)
{
    for (uint32_t kind = KERNEL; kind <= MEMORY; kind++) {
        struct buffer whole = {0};
        struct guest *guest = guest_new(kind, 18);

        (void)state;
        guest_fill(guest, 5, 500);
        save_begin(guest, &whole);
        assert_int_equal(spapr_htab_save_complete(guest->handle, &whole), 0);
        for (size_t limit = 1; limit < whole.len; limit += 1 + limit / 16) {
            struct buffer stream = {.put_limit = limit, .put_error = ENOSPC};
            int result = spapr_htab_save_setup(guest->handle, &stream);

            while (result == 0) {
                result = spapr_htab_save_iterate(guest->handle, &stream, -1);
            }
            if (result == 1) {
                result = spapr_htab_save_complete(guest->handle, &stream);
            }
            assert_fails(guest, result, ENOSPC, "stream failed", "pass", "bytes", "No space left");
            assert_int_equal(spapr_htab_save_cleanup(guest->handle), 0);
            if (guest->model) {
                assert_int_equal(model_open_fds(guest->model), 0);
            }
            buffer_clear(&stream);
        }
        guest_free(guest);
        buffer_clear(&whole);
    }
}

static void save_kernel_refuses(void **state)
{
    struct guest *guest = guest_new(KERNEL, 18);
    struct buffer stream = {0};

    (void)state;
    guest_fill(guest, 5, 3);
    model_fail(guest->model, 'o', 0, ENOTTY, 0);
    assert_fails(guest, spapr_htab_save_setup(guest->handle, &stream), ENOTTY, "KVM_PPC_GET_HTAB_FD");
    /* What fails stays failed, and nothing was written. */
    assert_int_equal(stream.len, 0);
    assert_fails(guest, spapr_htab_save_iterate(guest->handle, &stream, -1), ENOTTY, "KVM_PPC_GET_HTAB_FD");

    assert_int_equal(spapr_htab_save_setup(guest->handle, &stream), 0);
    model_fail(guest->model, 'r', 0, EFAULT, 0);
    assert_fails(guest, spapr_htab_save_iterate(guest->handle, &stream, -1), EFAULT, "slot 0", "pass 1");
    assert_int_equal(spapr_htab_save_cleanup(guest->handle), 0);

    /* The kernel's table is smaller than the host says: somebody replaced it. */
    guest->order = 19;
    assert_int_equal(spapr_htab_save_setup(guest->handle, &stream), 0);
    assert_fails(guest, spapr_htab_save_iterate(guest->handle, &stream, -1), EIO, "16384", "order 19",
                 "spapr_htab_quiesce");
    assert_int_equal(spapr_htab_save_cleanup(guest->handle), 0);
    guest_free(guest);
    buffer_clear(&stream);
}

static void save_host_fails(void **state)
{
    static const uint32_t orders[] = {1, 6, 17, 37, 46, 64, UINT32_MAX};
    struct guest *guest = guest_new(KERNEL, 18);
    struct buffer stream = {0};

    (void)state;
    guest->table_error = ENXIO;
    assert_fails(guest, spapr_htab_save_setup(guest->handle, &stream), ENXIO, "host", "hash table");
    guest->table_error = 0;
    for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        guest->order = orders[i];
        assert_fails(guest, spapr_htab_save_setup(guest->handle, &stream), EINVAL, "18 to 36");
    }
    guest->order = 18;
    guest->kind = 3;
    assert_fails(guest, spapr_htab_save_setup(guest->handle, &stream), EINVAL, "hash table");
    assert_int_equal(stream.len, 0);
    guest_free(guest);
}

/* Loading */

struct loading {
    struct guest *guest;
    struct buffer stream;
};

static struct loading loading(uint32_t kind, uint32_t order)
{
    struct loading loading = {.guest = guest_new(kind, 0)};

    if (order) {
        buffer_be32(&loading.stream, order);
    }
    return loading;
}

static void loading_free(struct loading *loading)
{
    if (loading->guest->model) {
        /* Not only in the end: a failed load has closed its fd when it returns. */
        assert_int_equal(model_open_fds(loading->guest->model), 0);
    }
    guest_free(loading->guest);
    buffer_clear(&loading->stream);
}

#define ASSERT_LOAD_FAILS(l, error, ...)                                                                     \
    assert_fails((l).guest, load_all((l).guest, &(l).stream), (error), __VA_ARGS__)

static void hostile_orders(void **state)
{
    static const uint32_t orders[] = {1, 6, 7, 17, 37, 46, 64, 0x80000012, 0xfffffffe};

    (void)state;
    for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        struct loading l = loading(MEMORY, orders[i]);

        ASSERT_LOAD_FAILS(l, EINVAL, "18 to 36");
        assert_int_equal(l.guest->allocated, 0);
        loading_free(&l);
    }
}

static void hostile_records(void **state)
{
    static const struct {
        uint32_t index;
        uint16_t n_valid, n_invalid;
    } records[] = {
        {0xffffffff, 1, 0}, {0xffffffff, 0, 1}, {0xffffffff, 0xffff, 0xffff},
        {0x4000, 1, 0},     {0x4000, 0, 1},     {0x3fff, 2, 0},
        {0x3fff, 1, 1},     {0x3fff, 0, 2},     {1, 0, 0x4000},
        {0x80000000, 1, 0},
    };

    (void)state;
    for (uint32_t kind = KERNEL; kind <= MEMORY; kind++) {
        for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++) {
            struct loading l = loading(kind, 18);

            buffer_be32(&l.stream, 0);
            buffer_record(&l.stream, 7, 1, 0);
            buffer_entry(&l.stream, entry_v(7), entry_r(7));
            buffer_record(&l.stream, records[i].index, records[i].n_valid, records[i].n_invalid);
            for (uint32_t entry = 0; entry < records[i].n_valid; entry++) {
                buffer_entry(&l.stream, entry_v(entry), entry_r(entry));
            }
            buffer_record(&l.stream, 0, 0, 0);
            ASSERT_LOAD_FAILS(l, EINVAL, "record 1", "byte 28", "order 18", "16383");
            loading_free(&l);
        }
    }
}

static void records_without_a_table(void **state)
{
    (void)state;
    for (uint32_t kind = KERNEL; kind <= MEMORY; kind++) {
        struct loading l = loading(kind, 0);

        buffer_be32(&l.stream, 0);
        buffer_record(&l.stream, 9, 1, 0);
        buffer_entry(&l.stream, entry_v(1), entry_r(1));
        buffer_record(&l.stream, 0, 0, 0);
        ASSERT_LOAD_FAILS(l, EINVAL, "slot 9", "no hash table was announced");
        loading_free(&l);

        /* An empty body needs none. */
        l = loading(kind, 0);
        buffer_be32(&l.stream, 0);
        buffer_record(&l.stream, 0, 0, 0);
        assert_int_equal(load_all(l.guest, &l.stream), 0);
        loading_free(&l);
    }
}

static void a_good_body(struct buffer *stream)
{
    buffer_be32(stream, 0);
    buffer_record(stream, 5, 2, 3);
    buffer_entry(stream, entry_v(1), entry_r(1));
    buffer_entry(stream, entry_v(2), entry_r(2));
    buffer_record(stream, 100, 1, 0);
    buffer_entry(stream, entry_v(3), entry_r(3));
    buffer_record(stream, 0, 0, 0);
}

/* A stream that ends reads as zeros in QEMU, and zeros are the end marker: neither an end nor an error may
 * pass for one. */
static void cut_anywhere(void **state)
{
    size_t whole = 4 + 4 + 8 + 32 + 8 + 16 + 8;

    (void)state;
    for (uint32_t kind = KERNEL; kind <= MEMORY; kind++) {
        for (size_t limit = 4; limit < whole; limit++) {
            struct loading l = loading(kind, 18);

            a_good_body(&l.stream);
            assert_int_equal(l.stream.len, whole);
            l.stream.get_limit = limit;
            assert_int_equal(spapr_htab_load(l.guest->handle, &l.stream, 1), 0);
            assert_fails(l.guest, spapr_htab_load(l.guest->handle, &l.stream, 1), EIO, "ended", "record",
                         "byte");
            loading_free(&l);
        }
    }
}

static void get_fails_anywhere(void **state)
{
    (void)state;
    for (size_t limit = 4; limit < 80; limit += 5) {
        for (int how = 0; how < 2; how++) {
            struct loading l = loading(KERNEL, 18);

            a_good_body(&l.stream);
            l.stream.get_limit = limit;
            /* By its own return value, or as QEMU's files do: 0 bytes and an error kept for who asks. */
            l.stream.get_result = how ? -ECONNRESET : 0;
            l.stream.stream_error = how ? 0 : ECONNRESET;
            ASSERT_LOAD_FAILS(l, ECONNRESET, "stream failed", "record", "byte", "reset by peer");
            loading_free(&l);
        }
    }
}

static int64_t get_more_than_there_is_room(void *opaque, void *stream, uint8_t *data, size_t len)
{
    (void)opaque, (void)stream;
    memset(data, 0, len);
    return (int64_t)len + 1;
}

static void get_lies(void **state)
{
    struct guest *guest = guest_without_handle(MEMORY, 18);

    (void)state;
    guest->host.get = get_more_than_there_is_room;
    guest_open(guest);
    assert_fails(guest, spapr_htab_load(guest->handle, NULL, 1), EIO, "stream failed");
    guest_free(guest);
}

static void versions(void **state)
{
    static const int others[] = {0, 2, -1, INT32_MAX, INT32_MIN};
    struct loading l = loading(MEMORY, 18);

    (void)state;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        assert_fails(l.guest, spapr_htab_load(l.guest->handle, &l.stream, others[i]), EINVAL, "version");
    }
    assert_int_equal(l.stream.at, 0);
    loading_free(&l);
}

/* A size in mid-stream is obeyed, as in every QEMU: a new, empty table. */
static void second_size(void **state)
{
    (void)state;
    for (uint32_t kind = KERNEL; kind <= MEMORY; kind++) {
        struct loading l = loading(kind, 18);
        uint8_t entry[16], zeros[16] = {0};

        a_good_body(&l.stream);
        assert_int_equal(load_all(l.guest, &l.stream), 0);
        buffer_be32(&l.stream, 19);
        buffer_be32(&l.stream, 0);
        buffer_record(&l.stream, 0x7fff, 1, 0);
        buffer_entry(&l.stream, entry_v(1), entry_r(1));
        buffer_record(&l.stream, 0, 0, 0);
        assert_int_equal(load_all(l.guest, &l.stream), 0);
        assert_int_equal(l.guest->allocated, 2);
        assert_int_equal(l.guest->order, 19);
        assert_int_equal(spapr_htab_read_hptes(l.guest->handle, 5, 1, entry), 0);
        assert_memory_equal(entry, zeros, 16);
        assert_int_equal(spapr_htab_read_hptes(l.guest->handle, 0x7fff, 1, entry), 0);
        assert_memory_not_equal(entry, zeros, 16);
        loading_free(&l);
    }
}

/* An unpatched source under TCG: valid by count, not by its bit; and its own mark. Not an error, and no
 * entry. */
static void entries_that_are_not_valid(void **state)
{
    (void)state;
    for (uint32_t kind = KERNEL; kind <= MEMORY; kind++) {
        struct loading l = loading(kind, 18);
        uint8_t entries[16 * 4], zeros[16] = {0};

        a_good_body(&l.stream);
        buffer_be32(&l.stream, 0);
        buffer_record(&l.stream, 5, 3, 1);
        buffer_entry(&l.stream, entry_v(1) | V_DIRTY, entry_r(1));
        buffer_entry(&l.stream, (entry_v(2) & ~(uint64_t)V_VALID) | V_DIRTY, entry_r(2));
        buffer_entry(&l.stream, entry_v(3), entry_r(3));
        buffer_record(&l.stream, 0, 0, 0);
        assert_int_equal(load_all(l.guest, &l.stream), 0);
        assert_int_equal(stats_of(l.guest).load_demoted, 1);
        assert_int_equal(spapr_htab_read_hptes(l.guest->handle, 5, 4, entries), 0);
        assert_int_equal(entries[7] & 0x41, V_VALID);
        assert_memory_equal(entries + 16, zeros, 16);
        assert_int_equal(entries[32 + 7] & 0x41, V_VALID);
        assert_memory_equal(entries + 48, zeros, 16);
        loading_free(&l);
    }
}

static void load_kernel_refuses(void **state)
{
    static const struct {
        int call, error;
        const char *word;
    } faults[] = {
        {'o', EMFILE, "raise the limit"}, {'w', EBUSY, "vCPUs are running"},
        {'w', EINVAL, "slot 5"},          {'w', EIO, "slot 5"},
        {'w', EFAULT, "slot 5"},          {'a', ENOMEM, "order 18"},
        {'a', EBUSY, "order 18"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        struct loading l = loading(KERNEL, 18);

        a_good_body(&l.stream);
        assert_int_equal(model_fail(l.guest->model, faults[i].call, 0, faults[i].error, 0), 0);
        ASSERT_LOAD_FAILS(l, faults[i].error, faults[i].word);
        loading_free(&l);
    }
    /* The kernel stops short of a record's end and says nothing. */
    struct loading l = loading(KERNEL, 18);

    a_good_body(&l.stream);
    assert_int_equal(model_fail(l.guest->model, 'w', 0, 0, 20), 0);
    ASSERT_LOAD_FAILS(l, EIO, "slot 5", "40 bytes", "incomplete");
    loading_free(&l);

    l = loading(KERNEL, 18);
    a_good_body(&l.stream);
    assert_int_equal(spapr_htab_load(l.guest->handle, &l.stream, 1), 0);
    model_set_vcpus_running(l.guest->model, 1);
    assert_fails(l.guest, spapr_htab_load(l.guest->handle, &l.stream, 1), EBUSY, "vCPUs are running");
    loading_free(&l);
}

/* Named to the slot, in the middle of a record. */
static void the_culprit(void **state)
{
    struct loading l = loading(KERNEL, 18);

    (void)state;
    buffer_be32(&l.stream, 0);
    buffer_record(&l.stream, 50, 3, 0);
    buffer_entry(&l.stream, entry_v(1), entry_r(1));
    /* Large, with a page size that no kernel knows. */
    buffer_entry(&l.stream, entry_v(2) | 4, 0xf000 | entry_r(2));
    buffer_entry(&l.stream, entry_v(3), entry_r(3));
    buffer_record(&l.stream, 0, 0, 0);
    ASSERT_LOAD_FAILS(l, EINVAL, "slot 51", "page size");
    loading_free(&l);
}

static void load_host_fails(void **state)
{
    struct loading l = loading(MEMORY, 18);

    (void)state;
    a_good_body(&l.stream);
    l.guest->allocate_error = ENOMEM;
    ASSERT_LOAD_FAILS(l, ENOMEM, "order 18", "allocate");
    loading_free(&l);

    l = loading(MEMORY, 0xffffffff);
    l.guest->free_error = EPERM;
    ASSERT_LOAD_FAILS(l, EPERM, "free");
    loading_free(&l);

    l = loading(MEMORY, 18);
    a_good_body(&l.stream);
    l.guest->table_error = ENXIO;
    ASSERT_LOAD_FAILS(l, ENXIO, "hash table");
    loading_free(&l);
}

/* Callbacks that return what they should not: a failure stays one. */
static int put_nonsense(void *opaque, void *stream, const uint8_t *data, size_t len)
{
    (void)opaque, (void)stream, (void)data, (void)len;
    return INT32_MIN;
}

static void nonsense_is_eio(void **state)
{
    struct guest *guest = guest_without_handle(MEMORY, 18);

    (void)state;
    guest->host.put = put_nonsense;
    guest_open(guest);
    assert_fails(guest, spapr_htab_save_setup(guest->handle, NULL), EIO, "stream failed");
    guest_free(guest);
}

/* A stream callback that comes back. */
struct reentrant {
    struct SpaprHtabHost host;
    struct SpaprHtab *handle;
    int iterate, setup, cleanup, complete, stats, quiesce, resume, lookup, vm_state;
    size_t sentence;
};

static int put_and_come_back(void *opaque, void *stream, const uint8_t *data, size_t len)
{
    struct reentrant *back = stream;
    struct SpaprHtabStats stats;
    uint8_t entry[16];

    (void)opaque, (void)data, (void)len;
    back->iterate = spapr_htab_save_iterate(back->handle, NULL, -1);
    back->setup = spapr_htab_save_setup(back->handle, NULL);
    back->cleanup = spapr_htab_save_cleanup(back->handle);
    back->complete = spapr_htab_save_complete(back->handle, NULL);
    back->sentence = spapr_htab_last_error(back->handle, 0, NULL);
    back->stats = spapr_htab_stats(back->handle, sizeof(stats), &stats);
    back->lookup = spapr_htab_read_hptes(back->handle, 0, 1, entry);
    back->quiesce = spapr_htab_quiesce(back->handle);
    back->resume = spapr_htab_resume(back->handle);
    back->vm_state = spapr_htab_vm_state(back->handle, 1);
    return 0;
}

static void callbacks_that_come_back(void **state)
{
    struct guest *guest = guest_without_handle(MEMORY, 18);
    struct reentrant back = {0};

    (void)state;
    guest->host.put = put_and_come_back;
    guest_open(guest);
    back.handle = guest->handle;
    assert_int_equal(spapr_htab_save_setup(guest->handle, &back), 0);
    for (int twice = 0; twice < 2; twice++) {
        assert_int_equal(back.iterate, -EDEADLK);
        assert_int_equal(back.setup, -EDEADLK);
        assert_int_equal(back.cleanup, -EDEADLK);
        assert_int_equal(back.complete, -EDEADLK);
        assert_true(back.sentence > 0);
        assert_int_equal(back.stats, 0);
        assert_int_equal(back.lookup, 0);
        assert_int_equal(back.quiesce, 0);
        assert_int_equal(back.resume, 0);
        assert_int_equal(back.vm_state, 0);
        back.iterate = 77;
        assert_in_range(spapr_htab_save_iterate(guest->handle, &back, -1), 0, 1);
    }
    guest_free(guest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(put_fails_anywhere),
        cmocka_unit_test(save_kernel_refuses),
        cmocka_unit_test(save_host_fails),
        cmocka_unit_test(hostile_orders),
        cmocka_unit_test(hostile_records),
        cmocka_unit_test(records_without_a_table),
        cmocka_unit_test(cut_anywhere),
        cmocka_unit_test(get_fails_anywhere),
        cmocka_unit_test(get_lies),
        cmocka_unit_test(versions),
        cmocka_unit_test(second_size),
        cmocka_unit_test(entries_that_are_not_valid),
        cmocka_unit_test(load_kernel_refuses),
        cmocka_unit_test(the_culprit),
        cmocka_unit_test(load_host_fails),
        cmocka_unit_test(nonsense_is_eio),
        cmocka_unit_test(callbacks_that_come_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
