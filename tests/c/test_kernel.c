/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A table in the kernel, which tests/support/model stands for: saved while it changes, and loaded into
 * another kernel. */
#include "guests.h"
#include "second.h"
#include <errno.h>
#include <string.h>

#define KERNEL SPAPR_HTAB_TABLE_KERNEL

struct pair {
    struct guest *from, *to;
    struct buffer stream;
};

static struct pair pair_new(uint32_t order)
{
    return (struct pair){.from = guest_new(KERNEL, order), .to = guest_new(KERNEL, 0)};
}

static void pair_load_and_free(struct pair *pair)
{
    assert_int_equal(spapr_htab_save_cleanup(pair->from->handle), 0);
    assert_int_equal(model_open_fds(pair->from->model), 0);
    assert_int_equal(load_all(pair->to, &pair->stream), 0);
    assert_int_equal(model_open_fds(pair->to->model), 0);
    assert_same_tables(pair->from, pair->to);
    assert_same_sums(pair->from, pair->to);
    guest_free(pair->from);
    guest_free(pair->to);
    buffer_clear(&pair->stream);
}

static void complete(struct pair *pair)
{
    assert_int_equal(spapr_htab_save_complete(pair->from->handle, &pair->stream), 0);
}

static void changes_while_saved(uint32_t order, uint32_t one_in, int64_t max_ns)
{
    struct pair pair = pair_new(order);
    uint64_t slots = guest_slots(pair.from);

    model_set_costs(pair.from->model, 300, 2, 40);
    guest_fill(pair.from, 4, one_in);
    assert_int_equal(spapr_htab_save_setup(pair.from->handle, &pair.stream), 0);
    assert_int_equal(model_open_fds(pair.from->model), 1);
    for (uint64_t round = 0; round < 40; round++) {
        assert_in_range(spapr_htab_save_iterate(pair.from->handle, &pair.stream, max_ns), 0, 1);
        for (uint64_t change = 0; change < 50; change++) {
            uint64_t slot = (change * 7919 + round * 104729) % slots;

            switch (change % 3) {
            case 0:
                guest_enter(pair.from, slot, change + round);
                break;
            case 1:
                guest_remove(pair.from, slot);
                break;
            default:
                assert_true(model_touch(pair.from->model, slot, R_CHANGED) >= 0);
            }
        }
    }
    complete(&pair);
    pair_load_and_free(&pair);
}

static void changes_bounded(void **state)
{
    (void)state;
    changes_while_saved(20, 2, 100000);
    changes_while_saved(20, 50, 20000);
    changes_while_saved(18, 1, 0);
}

static void changes_unbounded(void **state)
{
    (void)state;
    changes_while_saved(18, 3, -1);
}

static void changes_order_24(void **state)
{
    (void)state;
    changes_while_saved(order_from_environment(24), 4, 5000000);
}

/* As many changes, in records of 24 bytes each, as this read has room for: it ends behind the last, not at
 * the table's end. */
static void fill_the_read(struct guest *guest, size_t len)
{
    for (uint64_t change = 0; change < (len - 1) / 24; change++) {
        guest_enter(guest, 100000 + 2 * change, change);
    }
}

static void must_not_read(struct guest *guest, size_t len)
{
    (void)guest, (void)len;
    fail_msg("the table was read");
}

/*
 * What QEMU loses: the last iterate stops in mid-table with its buffer full, a slot before that place
 * changes, the VM stops, and the read from there to the end says 0.
 */
static void change_behind_the_position(void **state)
{
    struct pair pair = pair_new(22);
    struct SpaprHtabPass pass;
    uint64_t entries;

    (void)state;
    save_begin(pair.from, &pair.stream);
    pair.from->before_read = fill_the_read;
    /* One read, and the bandwidth is used up. */
    pair.stream.puts_per_round = 1;
    assert_int_equal(spapr_htab_save_iterate(pair.from->handle, &pair.stream, 5000000), 0);
    pair.stream.puts_per_round = 0;
    /* Else this shows nothing: all of them are sent, and the sweep not at its end. */
    entries = model_entries(pair.from->model);
    assert_int_equal(spapr_htab_pass(pair.from->handle, stats_of(pair.from).save_passes, sizeof(pass), &pass),
                     0);
    assert_true(entries > 0);
    assert_int_equal(pass.valid, entries);
    guest_enter(pair.from, 5, 5);
    complete(&pair);
    pair_load_and_free(&pair);
}

/* The host reports that the VM stopped: what is read from then on is not read again. */
static void stop_reported_early(void **state)
{
    struct pair pair = pair_new(18);
    size_t before;

    (void)state;
    guest_fill(pair.from, 4, 3);
    assert_int_equal(spapr_htab_vm_state(pair.from->handle, 1), 0);
    save_begin(pair.from, &pair.stream);
    guest_enter(pair.from, 5, 5);
    assert_int_equal(spapr_htab_vm_state(pair.from->handle, 0), 0);
    iterate_until_clean(pair.from, &pair.stream);
    before = pair.stream.len;
    pair.from->before_read = must_not_read;
    complete(&pair);
    complete(&pair);
    assert_int_equal(pair.stream.len, before + 2 * (4 + 8));
    assert_int_equal(stats_of(pair.from).save_pending, 0);

    /* It went on, as after a checkpoint. */
    pair.from->before_read = NULL;
    assert_int_equal(spapr_htab_vm_state(pair.from->handle, 1), 0);
    guest_enter(pair.from, 6, 6);
    assert_int_equal(spapr_htab_vm_state(pair.from->handle, 0), 0);
    complete(&pair);
    pair_load_and_free(&pair);
}

static void debugger_reads(bool by_debugger)
{
    struct pair pair = pair_new(22);
    uint8_t entries[16 * 6] = {0};
    uint64_t v, r;

    guest_fill(pair.from, 8, 20);
    save_begin(pair.from, &pair.stream);
    guest_enter(pair.from, 2000, 1);
    guest_enter(pair.from, 2005, 2);
    guest_remove(pair.from, 2004);
    /* Within the invalid slots after the last one that is asked for, which the kernel takes as reported, too.
     */
    guest_remove(pair.from, 2100);
    if (by_debugger) {
        assert_int_equal(spapr_htab_read_hptes(pair.from->handle, 2000, 6, entries), 0);
        assert_int_equal(model_open_fds(pair.from->model), 1);
        assert_int_equal(entries[7], V_VALID | (entry_v(1) & 0x80));
        assert_int_equal(model_get(pair.from->model, 2004, &v, &r), 0);
        for (size_t i = 4 * 16; i < 5 * 16; i++) {
            assert_int_equal(entries[i], 0);
        }
    }
    complete(&pair);
    if (by_debugger) {
        assert_true(stats_of(pair.from).save_looked_up.records > 0);
    }
    pair_load_and_free(&pair);
}

static void debugger_steals_nothing(void **state)
{
    (void)state;
    debugger_reads(false);
    debugger_reads(true);
}

/* In the first pass, before, at and behind the position; and so much that the table is sent anew. */
static void debugger_reads_all(void **state)
{
    enum { SLOTS = 1 << 16 };
    static uint8_t entries[16 * SLOTS];
    struct pair pair = pair_new(20);

    (void)state;
    guest_fill(pair.from, 8, 1);
    assert_int_equal(spapr_htab_save_setup(pair.from->handle, &pair.stream), 0);
    model_set_costs(pair.from->model, 300, 2, 40);
    assert_int_equal(spapr_htab_save_iterate(pair.from->handle, &pair.stream, 20000), 0);
    assert_int_equal(spapr_htab_read_hptes(pair.from->handle, 0, SLOTS, entries), 0);
    for (int round = 0; round < 2; round++) {
        for (uint64_t slot = 0; slot < SLOTS; slot += 3) {
            guest_remove(pair.from, slot);
        }
        assert_int_equal(spapr_htab_read_hptes(pair.from->handle, 0, SLOTS, entries), 0);
        assert_in_range(spapr_htab_save_iterate(pair.from->handle, &pair.stream, 20000), 0, 1);
        for (uint64_t slot = 0; slot < SLOTS; slot += 3) {
            guest_enter(pair.from, slot, slot + 1);
        }
    }
    assert_int_equal(spapr_htab_read_hptes(pair.from->handle, 0, SLOTS, entries), 0);
    complete(&pair);
    pair_load_and_free(&pair);
}

static void lookups_without_a_save(void **state)
{
    struct guest *guest = guest_new(KERNEL, 18);
    uint8_t entry[16];
    uint64_t v, r;

    (void)state;
    assert_int_equal(spapr_htab_write_hpte(guest->handle, 9, entry_v(1), entry_r(1)), 0);
    assert_int_equal(model_get(guest->model, 9, &v, &r), 1);
    assert_true(v == entry_v(1) && r == entry_r(1));
    assert_int_equal(spapr_htab_read_hptes(guest->handle, 9, 1, entry), 0);
    assert_int_equal(entry[7], (entry_v(1) & 0xff));
    assert_int_equal(spapr_htab_write_hpte(guest->handle, 9, 0, 0), 0);
    assert_int_equal(model_get(guest->model, 9, &v, &r), 0);
    assert_fails(guest, spapr_htab_read_hptes(guest->handle, 1 << 14, 1, entry), EINVAL, "16384");
    model_set_vcpus_running(guest->model, 1);
    assert_fails(guest, spapr_htab_write_hpte(guest->handle, 9, entry_v(1), entry_r(1)), EBUSY, "slot 9",
                 "vCPUs are running");
    assert_int_equal(model_open_fds(guest->model), 0);
    guest_free(guest);
}

static void replaced(uint32_t order)
{
    struct pair pair = pair_new(20);

    guest_fill(pair.from, 1, 2);
    save_begin(pair.from, &pair.stream);
    assert_int_equal(spapr_htab_quiesce(pair.from->handle), 0);
    /* The fd stays open, in case that the table is not replaced after all. */
    assert_int_equal(model_open_fds(pair.from->model), 1);
    assert_int_equal(spapr_htab_save_iterate(pair.from->handle, &pair.stream, -1), 0);
    assert_int_equal(pair.from->host.table_allocate(pair.from, order), 0);
    assert_int_equal(spapr_htab_resume(pair.from->handle), 0);
    assert_int_equal(model_open_fds(pair.from->model), 1);
    guest_fill(pair.from, 2, 3);
    iterate_until_clean(pair.from, &pair.stream);
    guest_enter(pair.from, 3, 3);
    complete(&pair);
    assert_int_equal(stats_of(pair.from).save_order, order);
    pair_load_and_free(&pair);
}

static void replaced_same_order(void **state)
{
    (void)state;
    replaced(20);
}

static void replaced_other_order(void **state)
{
    (void)state;
    replaced(18);
    replaced(22);
}

static void resume_fails(void **state)
{
    struct guest *guest = guest_new(KERNEL, 18);
    struct buffer stream = {0};

    (void)state;
    save_begin(guest, &stream);
    spapr_htab_quiesce(guest->handle);
    model_fail(guest->model, 'o', 0, EMFILE, 0);
    assert_fails(guest, spapr_htab_resume(guest->handle), EMFILE, "raise the limit");
    assert_int_equal(spapr_htab_save_iterate(guest->handle, &stream, -1), -EMFILE);
    assert_int_equal(spapr_htab_save_complete(guest->handle, &stream), -EMFILE);
    assert_int_equal(spapr_htab_save_cleanup(guest->handle), 0);
    guest_free(guest);
    buffer_clear(&stream);
}

/* Such a guest keeps its order, and the fd reads 0 at once. */
static void rebooted_to_radix(void **state)
{
    struct guest *guest = guest_new(KERNEL, 18);
    struct buffer stream = {0};

    (void)state;
    model_switch_to_radix(guest->model);
    save_begin(guest, &stream);
    assert_int_equal(spapr_htab_save_complete(guest->handle, &stream), 0);
    guest_free(guest);
    buffer_clear(&stream);
}

/* Records wait for those of the next section, and are loaded in the end; not if the migration ends before. */
static void gathered(void **state)
{
    struct guest *from = guest_new(KERNEL, 18), *to = guest_without_handle(KERNEL, 0);
    struct buffer stream = {0};

    (void)state;
    to->host.flags = SPAPR_HTAB_GATHER;
    guest_open(to);
    save_begin(from, &stream);
    for (uint64_t slot = 0; slot < 200; slot += 2) {
        guest_enter(from, slot, slot);
        assert_in_range(spapr_htab_save_iterate(from->handle, &stream, -1), 0, 1);
    }
    assert_int_equal(spapr_htab_save_complete(from->handle, &stream), 0);
    assert_int_equal(load_all(to, &stream), 0);
    assert_int_equal(model_entries(to->model), 0);
    assert_int_equal(spapr_htab_load_finish(to->handle), 0);
    assert_int_equal(spapr_htab_load_cleanup(to->handle), 0);
    assert_null(strstr(to->log.text, "before"));
    assert_same_tables(from, to);
    assert_same_sums(from, to);

    stream.at = 0;
    assert_int_equal(load_all(to, &stream), 0);
    assert_int_equal(spapr_htab_load_cleanup(to->handle), 0);
    /* The empty table's, and one for each entry. */
    assert_non_null(strstr(to->log.text, "the migration ended before 101 records were loaded"));
    assert_int_equal(spapr_htab_load_finish(to->handle), 0);
    assert_int_equal(model_entries(to->model), 0);
    guest_free(from);
    guest_free(to);
    buffer_clear(&stream);
}

static void kernel_to_memory(void **state)
{
    struct guest *from = guest_new(KERNEL, 18), *to = guest_new(SPAPR_HTAB_TABLE_MEMORY, 0);
    struct buffer stream = {0};
    uint8_t entries[16 * 64];

    (void)state;
    guest_fill(from, 6, 2);
    save_begin(from, &stream);
    assert_int_equal(spapr_htab_save_complete(from->handle, &stream), 0);
    assert_int_equal(load_all(to, &stream), 0);
    for (uint64_t slot = 0; slot < guest_slots(to); slot += 64) {
        assert_int_equal(spapr_htab_read_hptes(from->handle, slot, 64, entries), 0);
        assert_memory_equal(to->memory + slot * 16, entries, sizeof(entries));
    }
    guest_free(from);
    guest_free(to);
    buffer_clear(&stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(changes_bounded),     cmocka_unit_test(changes_unbounded),
        cmocka_unit_test(changes_order_24),    cmocka_unit_test(change_behind_the_position),
        cmocka_unit_test(stop_reported_early), cmocka_unit_test(debugger_steals_nothing),
        cmocka_unit_test(debugger_reads_all),  cmocka_unit_test(lookups_without_a_save),
        cmocka_unit_test(replaced_same_order), cmocka_unit_test(replaced_other_order),
        cmocka_unit_test(resume_fails),        cmocka_unit_test(rebooted_to_radix),
        cmocka_unit_test(kernel_to_memory),    cmocka_unit_test(gathered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
