/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A table in the kernel, which tests/support/model stands for, read ahead by the library's thread. */
#include "guests.h"
#include "second.h"
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#define KERNEL SPAPR_HTAB_TABLE_KERNEL

static struct guest *guest_ahead(uint32_t order, uint64_t queue_bytes)
{
    struct guest *guest = guest_without_handle(KERNEL, order);

    guest->host.flags = SPAPR_HTAB_READ_AHEAD;
    guest->host.queue_bytes = queue_bytes;
    guest_open(guest);
    return guest;
}

static unsigned count_threads(void)
{
    DIR *tasks = opendir("/proc/self/task");
    unsigned count = 0;

    assert_non_null(tasks);
    while (readdir(tasks)) {
        count++;
    }
    closedir(tasks);
    return count;
}

/* The kernel shows a thread for a moment after it was joined. */
static void wait_for_threads(unsigned count)
{
    for (int tries = 0; count_threads() != count; tries++) {
        assert_in_range(tries, 0, 10000);
        usleep(1000);
    }
}

static void iterate(struct guest *guest, struct buffer *stream, int64_t max_ns)
{
    assert_in_range(spapr_htab_save_iterate(guest->handle, stream, max_ns), 0, 1);
}

static void complete_and_load(struct guest *from, struct buffer *stream)
{
    struct guest *to = guest_new(KERNEL, 0);

    assert_int_equal(spapr_htab_save_complete(from->handle, stream), 0);
    assert_int_equal(stats_of(from).save_pending, 0);
    assert_int_equal(stats_of(from).save_queue_bytes, 0);
    assert_int_equal(spapr_htab_save_cleanup(from->handle), 0);
    assert_int_equal(model_open_fds(from->model), 0);
    assert_int_equal(load_all(to, stream), 0);
    assert_same_tables(from, to);
    assert_int_equal(stats_of(from).save_crc32, stats_of(to).load_crc32);
    guest_free(to);
}

static void changes_while_read_ahead(void **state)
{
    struct guest *guest = guest_ahead(20, 0);
    struct buffer stream = {0};

    (void)state;
    guest_fill(guest, 4, 2);
    assert_int_equal(spapr_htab_save_setup(guest->handle, &stream), 0);
    for (uint64_t round = 0; round < 40; round++) {
        iterate(guest, &stream, round % 2 ? -1 : 0);
        for (uint64_t change = 0; change < 50; change++) {
            uint64_t slot = (change * 7919 + round * 104729) % guest_slots(guest);

            if (change % 2) {
                guest_enter(guest, slot, change + round);
            } else {
                guest_remove(guest, slot);
            }
        }
    }
    assert_int_equal(spapr_htab_vm_state(guest->handle, 0), 0);
    complete_and_load(guest, &stream);
    guest_free(guest);
    buffer_clear(&stream);
}

static void no_thread_between_migrations(void **state)
{
    struct guest *guest = guest_ahead(18, 0);
    unsigned before = count_threads();
    struct buffer stream = {0};

    (void)state;
    for (int round = 0; round < 3; round++) {
        assert_int_equal(stats_of(guest).save_reader, SPAPR_HTAB_READER_NONE);
        assert_int_equal(spapr_htab_save_setup(guest->handle, &stream), 0);
        assert_int_not_equal(stats_of(guest).save_reader, SPAPR_HTAB_READER_NONE);
        assert_int_equal(count_threads(), before + 1);
        iterate(guest, &stream, 0);
        assert_int_equal(spapr_htab_save_cleanup(guest->handle), 0);
        assert_int_equal(model_open_fds(guest->model), 0);
        wait_for_threads(before);
    }
    /* And the last one, by freeing the handle in the middle of a save. */
    assert_int_equal(spapr_htab_save_setup(guest->handle, &stream), 0);
    guest_free(guest);
    wait_for_threads(before);
    buffer_clear(&stream);
}

static void the_queue_is_bounded(void **state)
{
    struct guest *guest = guest_ahead(20, 200000);
    struct buffer stream = {0};
    uint64_t bytes;

    (void)state;
    guest_fill(guest, 4, 1);
    assert_int_equal(spapr_htab_save_setup(guest->handle, &stream), 0);
    for (int tries = 0; stats_of(guest).save_reader != SPAPR_HTAB_READER_FULL; tries++) {
        assert_in_range(tries, 0, 10000);
        usleep(1000);
    }
    bytes = stats_of(guest).save_queue_bytes;
    assert_in_range(bytes, 120000, 200000);
    assert_in_range(stats_of(guest).save_pending, bytes, (uint64_t)1 << 22);
    complete_and_load(guest, &stream);
    guest_free(guest);
    buffer_clear(&stream);
}

static void replaced_while_read_ahead(void **state)
{
    struct guest *guest = guest_ahead(20, 0);
    struct buffer stream = {0};

    (void)state;
    guest_fill(guest, 1, 4);
    assert_int_equal(spapr_htab_save_setup(guest->handle, &stream), 0);
    iterate(guest, &stream, 0);
    assert_int_equal(spapr_htab_quiesce(guest->handle), 0);
    assert_int_equal(model_open_fds(guest->model), 1);
    assert_int_equal(guest->host.table_allocate(guest, 18), 0);
    assert_int_equal(spapr_htab_resume(guest->handle), 0);
    assert_int_equal(model_open_fds(guest->model), 1);
    guest_fill(guest, 2, 3);
    iterate(guest, &stream, -1);
    complete_and_load(guest, &stream);
    guest_free(guest);
    buffer_clear(&stream);
}

static void a_failed_read_is_reported_by_the_next_call(void **state)
{
    struct guest *guest = guest_ahead(18, 0);
    struct buffer stream = {0};

    (void)state;
    model_fail(guest->model, 'r', 0, EFAULT, 0);
    assert_int_equal(spapr_htab_save_setup(guest->handle, &stream), 0);
    assert_fails(guest, spapr_htab_save_iterate(guest->handle, &stream, -1), EFAULT, "pass 1");
    assert_int_equal(spapr_htab_save_complete(guest->handle, &stream), -EFAULT);
    assert_int_equal(spapr_htab_save_cleanup(guest->handle), 0);
    guest_free(guest);
    buffer_clear(&stream);
}

/* A program of the first version says nothing of what came later, whatever lies behind its structure. */
static void a_shorter_structure_has_defaults(void **state)
{
    struct guest *guest = guest_without_handle(KERNEL, 18);
    struct buffer stream = {0};

    (void)state;
    guest->host.struct_size = offsetof(struct SpaprHtabHost, queue_bytes);
    guest->host.queue_bytes = guest->host.sweep_share = guest->host.reserved = 12345;
    guest_open(guest);
    guest_fill(guest, 4, 2);
    save_begin(guest, &stream);
    assert_int_equal(stats_of(guest).save_reader, SPAPR_HTAB_READER_NONE);
    complete_and_load(guest, &stream);
    guest_free(guest);
    buffer_clear(&stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(changes_while_read_ahead),
        cmocka_unit_test(no_thread_between_migrations),
        cmocka_unit_test(the_queue_is_bounded),
        cmocka_unit_test(replaced_while_read_ahead),
        cmocka_unit_test(a_failed_read_is_reported_by_the_next_call),
        cmocka_unit_test(a_shorter_structure_has_defaults),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
