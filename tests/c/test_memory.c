/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A table in the program's memory, as under TCG, there and back; and the bytes in between, as QEMU 7.2
 * to 10.2 have them. */
#include "guests.h"
#include <errno.h>
#include <string.h>

static void assert_bytes(struct buffer *stream, const uint8_t *bytes, size_t len)
{
    assert_int_equal(stream->len, len);
    assert_memory_equal(stream->data, bytes, len);
    buffer_clear(stream);
}

#define ASSERT_BYTES(stream, ...)                                                                            \
    assert_bytes((stream), (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

#define END 0, 0, 0, 0, 0, 0, 0, 0
/* entry_v(n) and entry_r(n) for an n below 16, without the dirty bit. */
#define ENTRY(n)                                                                                             \
    0, 0, 0, 0, 0, 8, 0x80 * (n) / 0x100, (0x80 * (n)&0xff) | 1, 0, 0, 0, 0, 0, 0, (n) << 4 | 1, 0x92

static void bytes_on_the_wire(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);
    struct buffer stream = {0};

    (void)state;
    guest_enter(guest, 5, 1);
    guest_enter(guest, 6, 2);
    guest_enter(guest, 0x3fff, 3);

    assert_int_equal(spapr_htab_save_setup(guest->handle, &stream), 0);
    ASSERT_BYTES(&stream, 0, 0, 0, 18);

    /* The first pass: only what is valid. */
    assert_int_equal(spapr_htab_save_iterate(guest->handle, &stream, -1), 0);
    ASSERT_BYTES(&stream, 0, 0, 0, 0, 0, 0, 0, 5, 0, 2, 0, 0, ENTRY(1), ENTRY(2), 0, 0, 0x3f, 0xff, 0, 1, 0,
                 0, ENTRY(3), END);

    /* Later passes: what changed, and what went. */
    guest_remove(guest, 6);
    guest_enter(guest, 5, 4);
    assert_int_equal(spapr_htab_save_iterate(guest->handle, &stream, -1), 0);
    ASSERT_BYTES(&stream, 0, 0, 0, 0, 0, 0, 0, 5, 0, 1, 0, 1, ENTRY(4), END);

    assert_int_equal(spapr_htab_save_iterate(guest->handle, &stream, -1), 1);
    ASSERT_BYTES(&stream, 0, 0, 0, 0, END);

    guest_enter(guest, 0x100, 5);
    assert_int_equal(spapr_htab_save_complete(guest->handle, &stream), 0);
    ASSERT_BYTES(&stream, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, ENTRY(5), END);

    /* Again, as after postcopy: nothing may be sent, since the destination's vCPUs run. */
    assert_int_equal(spapr_htab_save_complete(guest->handle, &stream), 0);
    ASSERT_BYTES(&stream, 0, 0, 0, 0, END);
    guest_free(guest);
}

static void bytes_of_a_radix_guest(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 0);
    struct buffer stream = {0};

    (void)state;
    assert_int_equal(spapr_htab_save_setup(guest->handle, &stream), 0);
    ASSERT_BYTES(&stream, 0xff, 0xff, 0xff, 0xff);
    assert_int_equal(spapr_htab_save_iterate(guest->handle, &stream, -1), 1);
    ASSERT_BYTES(&stream, 0xff, 0xff, 0xff, 0xff);
    assert_int_equal(spapr_htab_save_complete(guest->handle, &stream), 0);
    ASSERT_BYTES(&stream, 0xff, 0xff, 0xff, 0xff);
    guest_free(guest);

    /* The other side drops what table it has. */
    guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);
    buffer_be32(&stream, 0xffffffff);
    assert_int_equal(load_all(guest, &stream), 0);
    assert_int_equal(guest->freed, 1);
    assert_int_equal(guest->order, 0);
    guest_free(guest);
    buffer_clear(&stream);
}

static void round_trip(uint32_t order, uint32_t one_in, size_t chunk)
{
    struct guest *from = guest_new(SPAPR_HTAB_TABLE_MEMORY, order);
    struct guest *to = guest_new(SPAPR_HTAB_TABLE_MEMORY, 0);
    struct buffer stream = {0};
    struct SpaprHtabStats saved, loaded;
    uint64_t pending;

    guest_fill(from, 12345, one_in);
    assert_int_equal(spapr_htab_save_setup(from->handle, &stream), 0);
    assert_int_equal(spapr_htab_save_pending(from->handle, &pending), 0);
    assert_true(pending > 0);
    for (uint64_t round = 0; round < 5; round++) {
        assert_in_range(spapr_htab_save_iterate(from->handle, &stream, 1000000), 0, 1);
        for (uint64_t change = 0; change < 100; change++) {
            uint64_t slot = (change * 7919 + round * 104729) % guest_slots(from);

            if (change % 3) {
                guest_enter(from, slot, change + round * 100);
            } else {
                guest_remove(from, slot);
            }
        }
    }
    iterate_until_clean(from, &stream);
    guest_enter(from, 1, 99);
    assert_int_equal(spapr_htab_save_complete(from->handle, &stream), 0);
    assert_int_equal(spapr_htab_save_pending(from->handle, &pending), 0);
    assert_int_equal(pending, 0);
    assert_int_equal(spapr_htab_save_cleanup(from->handle), 0);

    stream.chunk = chunk;
    assert_int_equal(load_all(to, &stream), 0);
    assert_int_equal(spapr_htab_load_cleanup(to->handle), 0);
    assert_int_equal(to->order, order);
    assert_int_equal(to->allocated, 1);
    assert_same_tables(from, to);

    saved = stats_of(from);
    loaded = stats_of(to);
    assert_int_equal(saved.save_order, order);
    assert_same_sums(from, to);
    assert_int_equal(saved.save_total.records, loaded.load_total.records);
    assert_int_equal(saved.save_total.valid, loaded.load_total.valid);
    assert_int_equal(saved.save_total.invalid, loaded.load_total.invalid);
    assert_int_equal(saved.save_total.bytes, loaded.load_total.bytes);
    assert_int_equal(loaded.load_demoted, 0);
    guest_free(from);
    guest_free(to);
    buffer_clear(&stream);
}

static void round_trip_smallest(void **state)
{
    (void)state;
    round_trip(18, 2, 0);
}

static void round_trip_full(void **state)
{
    (void)state;
    round_trip(18, 1, 0);
}

static void round_trip_in_short_gets(void **state)
{
    (void)state;
    round_trip(18, 10, 1);
    round_trip(18, 3, 13);
}

static void round_trip_order_24(void **state)
{
    (void)state;
    round_trip(order_from_environment(24), 4, 0);
}

static void never_the_dirty_bit(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);
    struct buffer stream = {0};
    struct record record;
    const uint8_t *at;

    (void)state;
    guest_fill(guest, 7, 5);
    assert_int_equal(spapr_htab_save_setup(guest->handle, &stream), 0);
    buffer_clear(&stream);
    assert_int_equal(spapr_htab_save_iterate(guest->handle, &stream, -1), 0);
    at = stream.data + 4;
    while (record_next(&at, stream.data + stream.len, IN_STREAM, &record)) {
        assert_true(record.n_valid > 0);
        for (unsigned n = 0; n < record.n_valid; n++) {
            assert_int_equal(entry_load(record.entries + 16 * n).v & 0x41, V_VALID);
        }
    }
    assert_ptr_equal(at, stream.data + stream.len);
    guest_free(guest);
    buffer_clear(&stream);
}

static void rounds_end_early_and_go_on(void **state)
{
    struct guest *from = guest_new(SPAPR_HTAB_TABLE_MEMORY, 22);
    struct guest *to = guest_new(SPAPR_HTAB_TABLE_MEMORY, 0);
    struct buffer stream = {0};
    unsigned rounds = 0;

    (void)state;
    guest_fill(from, 3, 1);
    assert_int_equal(spapr_htab_save_setup(from->handle, &stream), 0);
    /* Time is over at once, and so is the bandwidth: each round must get on all the same. */
    stream.puts_per_round = 1;
    while (spapr_htab_save_iterate(from->handle, &stream, 0) == 0) {
        stream.puts = 0;
        rounds++;
        assert_true(rounds < 1000);
    }
    assert_true(rounds > 10);
    assert_int_equal(spapr_htab_save_complete(from->handle, &stream), 0);
    assert_int_equal(load_all(to, &stream), 0);
    assert_same_tables(from, to);
    guest_free(from);
    guest_free(to);
    buffer_clear(&stream);
}

static void changes_without_a_mark(uint32_t flags, bool seen)
{
    struct guest *from = guest_without_handle(SPAPR_HTAB_TABLE_MEMORY, 18);
    struct guest *to = guest_new(SPAPR_HTAB_TABLE_MEMORY, 0);
    struct buffer stream = {0};

    from->host.flags = flags;
    guest_open(from);
    guest_fill(from, 9, 3);
    guest_enter(from, 77, 1);
    save_begin(from, &stream);
    /* The change bit, as TCG sets it: a byte, and no mark. */
    from->memory[77 * 16 + 15] ^= R_CHANGED;
    assert_int_equal(spapr_htab_save_complete(from->handle, &stream), 0);
    assert_int_equal(load_all(to, &stream), 0);
    assert_int_equal(guest_difference(from, to), seen ? -1 : 77);
    guest_free(from);
    guest_free(to);
    buffer_clear(&stream);
}

static void compare_finds_them(void **state)
{
    (void)state;
    changes_without_a_mark(SPAPR_HTAB_COMPARE, true);
    changes_without_a_mark(0, false);
}

static void replace_table(struct guest *guest, uint32_t order)
{
    assert_int_equal(guest->host.table_free(guest), 0);
    if (order) {
        assert_int_equal(guest->host.table_allocate(guest, order), 0);
    }
}

/* A guest that resets, once or with another order, or becomes radix, while it is saved. */
static void replaced(uint32_t order)
{
    struct guest *from = guest_new(SPAPR_HTAB_TABLE_MEMORY, 20);
    struct guest *to = guest_new(SPAPR_HTAB_TABLE_MEMORY, 0);
    struct buffer stream = {0};

    guest_fill(from, 1, 2);
    save_begin(from, &stream);
    assert_int_equal(spapr_htab_quiesce(from->handle), 0);
    assert_int_equal(spapr_htab_save_iterate(from->handle, &stream, -1), 0);
    replace_table(from, order);
    assert_int_equal(spapr_htab_resume(from->handle), 0);
    if (order) {
        guest_fill(from, 2, 3);
    }
    iterate_until_clean(from, &stream);
    if (order) {
        guest_enter(from, 3, 3);
    }
    assert_int_equal(spapr_htab_save_complete(from->handle, &stream), 0);
    assert_int_equal(load_all(to, &stream), 0);
    assert_int_equal(to->order, order);
    assert_same_tables(from, to);
    assert_same_sums(from, to);
    guest_free(from);
    guest_free(to);
    buffer_clear(&stream);
}

static void replaced_same_order(void **state)
{
    (void)state;
    replaced(20);
}

static void replaced_other_order(void **state)
{
    (void)state;
    replaced(19);
    replaced(21);
}

static void replaced_by_none(void **state)
{
    (void)state;
    replaced(0);
}

static void complete_while_replaced(void **state)
{
    struct guest *from = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);
    struct buffer stream = {0};

    (void)state;
    save_begin(from, &stream);
    assert_int_equal(spapr_htab_quiesce(from->handle), 0);
    assert_fails(from, spapr_htab_save_complete(from->handle, &stream), EINVAL, "replaced");
    /* The stream lacks its last section, whatever comes now. */
    assert_int_equal(spapr_htab_resume(from->handle), 0);
    assert_fails(from, spapr_htab_save_complete(from->handle, &stream), EINVAL, "replaced");
    assert_int_equal(spapr_htab_save_setup(from->handle, &stream), 0);
    assert_int_equal(spapr_htab_save_complete(from->handle, &stream), 0);
    guest_free(from);
    buffer_clear(&stream);
}

/* Its size has no place in the last section. */
static void replaced_just_before_the_end(void **state)
{
    struct guest *from = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);
    struct guest *to = guest_new(SPAPR_HTAB_TABLE_MEMORY, 0);
    struct buffer stream = {0};

    (void)state;
    guest_fill(from, 1, 2);
    save_begin(from, &stream);
    spapr_htab_quiesce(from->handle);
    replace_table(from, 18);
    assert_int_equal(spapr_htab_resume(from->handle), 0);
    guest_fill(from, 5, 3);
    assert_int_equal(spapr_htab_save_complete(from->handle, &stream), 0);
    assert_int_equal(load_all(to, &stream), 0);
    assert_same_tables(from, to);
    assert_same_sums(from, to);

    buffer_clear(&stream);
    save_begin(from, &stream);
    spapr_htab_quiesce(from->handle);
    replace_table(from, 0);
    assert_int_equal(spapr_htab_resume(from->handle), 0);
    assert_int_equal(spapr_htab_save_complete(from->handle, &stream), 0);
    assert_int_equal(load_all(to, &stream), 0);
    assert_int_equal(to->order, 0);
    assert_same_sums(from, to);
    replace_table(from, 18);

    buffer_clear(&stream);
    save_begin(from, &stream);
    spapr_htab_quiesce(from->handle);
    replace_table(from, 19);
    assert_int_equal(spapr_htab_resume(from->handle), 0);
    assert_fails(from, spapr_htab_save_complete(from->handle, &stream), EAGAIN, "order 19", "migrate again");
    guest_free(from);
    guest_free(to);
    buffer_clear(&stream);
}

/* Cancelled and tried again; the second attempt owes nothing to the first. */
static void retried(void **state)
{
    struct guest *from = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);
    struct guest *to = guest_new(SPAPR_HTAB_TABLE_MEMORY, 0);
    struct buffer stream = {0};

    (void)state;
    guest_fill(from, 1, 2);
    assert_int_equal(spapr_htab_save_setup(from->handle, &stream), 0);
    assert_int_equal(spapr_htab_save_iterate(from->handle, &stream, -1), 0);
    assert_int_equal(spapr_htab_save_cleanup(from->handle), 0);
    buffer_clear(&stream);
    save_begin(from, &stream);
    assert_int_equal(spapr_htab_save_complete(from->handle, &stream), 0);
    assert_int_equal(load_all(to, &stream), 0);
    assert_same_tables(from, to);
    guest_free(from);
    guest_free(to);
    buffer_clear(&stream);
}

static void single_entries(void **state)
{
    struct guest *from = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);
    static const uint8_t expected[32] = {ENTRY(7)};
    uint8_t entries[32];

    (void)state;
    assert_int_equal(spapr_htab_write_hpte(from->handle, 0x3ffe, entry_v(7), entry_r(7)), 0);
    assert_int_equal(spapr_htab_read_hptes(from->handle, 0x3ffe, 2, entries), 0);
    assert_memory_equal(entries, expected, sizeof(entries));
    assert_int_equal(from->memory[0x3ffe * 16 + 7] & V_DIRTY, V_DIRTY);
    assert_fails(from, spapr_htab_read_hptes(from->handle, 0x3ffe, 3, entries), EINVAL, "16384");
    assert_fails(from, spapr_htab_write_hpte(from->handle, 0x4000, 1, 0), EINVAL, "16384");
    guest_free(from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_on_the_wire),
        cmocka_unit_test(bytes_of_a_radix_guest),
        cmocka_unit_test(round_trip_smallest),
        cmocka_unit_test(round_trip_full),
        cmocka_unit_test(round_trip_in_short_gets),
        cmocka_unit_test(round_trip_order_24),
        cmocka_unit_test(never_the_dirty_bit),
        cmocka_unit_test(rounds_end_early_and_go_on),
        cmocka_unit_test(compare_finds_them),
        cmocka_unit_test(replaced_same_order),
        cmocka_unit_test(replaced_other_order),
        cmocka_unit_test(replaced_by_none),
        cmocka_unit_test(complete_while_replaced),
        cmocka_unit_test(replaced_just_before_the_end),
        cmocka_unit_test(retried),
        cmocka_unit_test(single_entries),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
