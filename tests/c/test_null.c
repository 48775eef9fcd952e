/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every export with NULLs and zero sizes. CMakeLists.txt compares the names that --list prints with the
 * committed list of exports, so that none is forgotten.
 */
#include "guests.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

static void null_new(void **state)
{
    struct guest *guest = guest_without_handle(SPAPR_HTAB_TABLE_MEMORY, 18);
    struct SpaprHtab *out = (struct SpaprHtab *)guest;
    struct SpaprHtabHost zeros = {0};

    (void)state;
    assert_int_equal(spapr_htab_new(NULL, NULL), -EINVAL);
    assert_int_equal(spapr_htab_new(NULL, &out), -EINVAL);
    assert_int_equal(spapr_htab_new(&guest->host, NULL), -EINVAL);
    assert_int_equal(spapr_htab_new(&zeros, &out), -EINVAL);
    assert_ptr_equal(out, guest);
    guest_free(guest);
}

static void null_free(void **state)
{
    (void)state;
    spapr_htab_free(NULL);
}

static void null_last_error(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);
    char text[4] = "abc";
    size_t whole;

    (void)state;
    assert_int_equal(spapr_htab_last_error(NULL, 0, NULL), 0);
    assert_int_equal(spapr_htab_last_error(NULL, sizeof(text), text), 0);
    assert_int_equal(spapr_htab_last_error(guest->handle, sizeof(text), text), 0);
    assert_string_equal(text, "");
    assert_int_equal(spapr_htab_save_complete(guest->handle, NULL), -EINVAL);
    strcpy(text, "abc");
    whole = spapr_htab_last_error(guest->handle, 0, NULL);
    assert_true(whole > 20);
    assert_int_equal(spapr_htab_last_error(guest->handle, sizeof(text), NULL), whole);
    assert_int_equal(spapr_htab_last_error(guest->handle, 0, text), whole);
    assert_string_equal(text, "abc");
    assert_int_equal(spapr_htab_last_error(guest->handle, 1, text), whole);
    assert_string_equal(text, "");
    assert_int_equal(spapr_htab_last_error(guest->handle, 3, text), whole);
    assert_int_equal(strlen(text), 2);
    guest_free(guest);
}

static void null_version(void **state)
{
    (void)state;
    assert_non_null(spapr_htab_version());
}

static void null_abi_version(void **state)
{
    (void)state;
    assert_int_equal(spapr_htab_abi_version(), SPAPR_HTAB_ABI_VERSION);
}

static void null_save_setup(void **state)
{
    struct buffer stream = {0};
    struct guest *guest;
    uint8_t *memory;

    (void)state;
    assert_int_equal(spapr_htab_save_setup(NULL, NULL), -EINVAL);
    assert_int_equal(spapr_htab_save_setup(NULL, &stream), -EINVAL);

    /* Without the callback that saving needs. */
    guest = guest_without_handle(SPAPR_HTAB_TABLE_MEMORY, 18);
    guest->host.put = NULL;
    guest_open(guest);
    assert_true(spapr_htab_save_setup(guest->handle, &stream) < 0);
    guest_free(guest);

    /* With no more than is needed. */
    guest = guest_without_handle(SPAPR_HTAB_TABLE_MEMORY, 18);
    guest->host.rate_limited = NULL;
    guest->host.get = NULL;
    guest->host.stream_error = NULL;
    guest->host.table_allocate = NULL;
    guest->host.table_free = NULL;
    guest->host.log = NULL;
    guest_open(guest);
    save_begin(guest, &stream);
    assert_int_equal(spapr_htab_save_complete(guest->handle, &stream), 0);
    guest_free(guest);
    buffer_clear(&stream);

    /* A table at no address, and one where no table can be. */
    guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);
    guest->memory += 4;
    assert_fails(guest, spapr_htab_save_setup(guest->handle, &stream), EFAULT, "hash table");
    guest->memory -= 4;
    memory = guest->memory;
    guest->memory = NULL;
    assert_fails(guest, spapr_htab_save_setup(guest->handle, &stream), EFAULT, "hash table");
    guest->memory = memory;
    assert_int_equal(stream.len, 0);
    guest_free(guest);
    buffer_clear(&stream);
}

static void null_save_iterate(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);

    (void)state;
    assert_int_equal(spapr_htab_save_iterate(NULL, NULL, 0), -EINVAL);
    assert_fails(guest, spapr_htab_save_iterate(guest->handle, NULL, 0), EINVAL, "before setup");
    guest_free(guest);
}

static void null_save_complete(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);

    (void)state;
    assert_int_equal(spapr_htab_save_complete(NULL, NULL), -EINVAL);
    assert_fails(guest, spapr_htab_save_complete(guest->handle, NULL), EINVAL, "before setup");
    guest_free(guest);
}

static void null_save_complete_again(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);

    (void)state;
    assert_int_equal(spapr_htab_save_complete_again(NULL, NULL), -EINVAL);
    assert_fails(guest, spapr_htab_save_complete_again(guest->handle, NULL), EINVAL, "before setup");
    guest_free(guest);
}

static void null_vm_state(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);

    (void)state;
    assert_int_equal(spapr_htab_vm_state(NULL, 0), -EINVAL);
    assert_int_equal(spapr_htab_vm_state(NULL, 1), -EINVAL);
    assert_int_equal(spapr_htab_vm_state(guest->handle, 0), 0);
    assert_int_equal(spapr_htab_vm_state(guest->handle, 1), 0);
    guest_free(guest);
}

static void null_save_cleanup(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);

    (void)state;
    assert_int_equal(spapr_htab_save_cleanup(NULL), -EINVAL);
    assert_int_equal(spapr_htab_save_cleanup(guest->handle), 0);
    assert_int_equal(spapr_htab_save_cleanup(guest->handle), 0);
    guest_free(guest);
}

static void null_save_pending(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);
    uint64_t pending = 1;

    (void)state;
    assert_int_equal(spapr_htab_save_pending(NULL, NULL), -EINVAL);
    assert_int_equal(spapr_htab_save_pending(NULL, &pending), -EINVAL);
    assert_int_equal(pending, 1);
    assert_int_equal(spapr_htab_save_pending(guest->handle, NULL), -EINVAL);
    assert_int_equal(spapr_htab_save_pending(guest->handle, &pending), 0);
    assert_int_equal(pending, 0);
    guest_free(guest);
}

static void null_quiesce(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);

    (void)state;
    assert_int_equal(spapr_htab_quiesce(NULL), -EINVAL);
    assert_int_equal(spapr_htab_quiesce(guest->handle), 0);
    guest_free(guest);
}

static void null_resume(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);

    (void)state;
    assert_int_equal(spapr_htab_resume(NULL), -EINVAL);
    assert_int_equal(spapr_htab_resume(guest->handle), 0);
    guest_free(guest);
}

static void null_resume_unchanged(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);

    (void)state;
    assert_int_equal(spapr_htab_resume_unchanged(NULL), -EINVAL);
    assert_int_equal(spapr_htab_resume_unchanged(guest->handle), 0);
    guest_free(guest);
}

static void null_dirty_log_read(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);

    (void)state;
    assert_int_equal(spapr_htab_dirty_log_read(NULL), -EINVAL);
    assert_int_equal(spapr_htab_dirty_log_read(guest->handle), 0);
    guest_free(guest);
}

static void null_load(void **state)
{
    struct buffer stream = {0};
    struct guest *guest;

    (void)state;
    assert_int_equal(spapr_htab_load(NULL, NULL, 1), -EINVAL);

    guest = guest_without_handle(SPAPR_HTAB_TABLE_MEMORY, 18);
    guest->host.get = NULL;
    guest_open(guest);
    assert_true(spapr_htab_load(guest->handle, &stream, 1) < 0);
    guest_free(guest);

    guest = guest_without_handle(SPAPR_HTAB_TABLE_MEMORY, 0);
    guest->host.table_allocate = NULL;
    guest->host.table_free = NULL;
    guest_open(guest);
    buffer_be32(&stream, 18);
    assert_true(spapr_htab_load(guest->handle, &stream, 1) < 0);
    buffer_be32(&stream, 0xffffffff);
    assert_true(spapr_htab_load(guest->handle, &stream, 1) < 0);
    guest_free(guest);
    buffer_clear(&stream);

    /* No stream_error: an end is an end. */
    guest = guest_without_handle(SPAPR_HTAB_TABLE_MEMORY, 0);
    guest->host.stream_error = NULL;
    guest_open(guest);
    assert_fails(guest, spapr_htab_load(guest->handle, &stream, 1), EIO, "ended");
    guest_free(guest);
}

static void null_load_discard(void **state)
{
    struct buffer stream = {0};
    struct guest *guest;

    (void)state;
    assert_int_equal(spapr_htab_load_discard(NULL, NULL, 1), -EINVAL);
    assert_int_equal(spapr_htab_load_discard(NULL, &stream, 1), -EINVAL);

    guest = guest_without_handle(SPAPR_HTAB_TABLE_MEMORY, 18);
    guest->host.get = NULL;
    guest_open(guest);
    assert_fails(guest, spapr_htab_load_discard(guest->handle, &stream, 1), EINVAL, "get callback");
    guest_free(guest);

    /* With no more than is needed. */
    guest = guest_without_handle(SPAPR_HTAB_TABLE_MEMORY, 0);
    guest->host.stream_error = NULL;
    guest->host.table_allocate = NULL;
    guest->host.table_free = NULL;
    guest_open(guest);
    assert_fails(guest, spapr_htab_load_discard(guest->handle, &stream, 1), EIO, "ended");
    buffer_be32(&stream, 0xffffffff);
    assert_int_equal(spapr_htab_load_discard(guest->handle, &stream, 1), 0);
    guest_free(guest);
    buffer_clear(&stream);
}

static void null_load_check(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);
    struct SpaprHtabSum sum = {.order = 18};

    (void)state;
    assert_int_equal(spapr_htab_load_check(NULL, 0, NULL), -EINVAL);
    assert_int_equal(spapr_htab_load_check(NULL, sizeof(sum), &sum), -EINVAL);
    assert_fails(guest, spapr_htab_load_check(guest->handle, sizeof(sum), NULL), EINVAL, "NULL");
    assert_fails(guest, spapr_htab_load_check(guest->handle, 0, &sum), EINVAL, "empty");
    assert_int_equal(spapr_htab_load_check(guest->handle, sizeof(sum), &sum), 0);
    guest_free(guest);
}

static void null_load_cleanup(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);

    (void)state;
    assert_int_equal(spapr_htab_load_cleanup(NULL), -EINVAL);
    assert_int_equal(spapr_htab_load_cleanup(guest->handle), 0);
    guest_free(guest);
}

static void null_load_finish(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);

    (void)state;
    assert_int_equal(spapr_htab_load_finish(NULL), -EINVAL);
    assert_int_equal(spapr_htab_load_finish(guest->handle), 0);
    guest_free(guest);
}

static void null_read_hptes(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);
    uint8_t entry[16] = "unchanged";

    (void)state;
    assert_int_equal(spapr_htab_read_hptes(NULL, 0, 0, NULL), -EINVAL);
    assert_int_equal(spapr_htab_read_hptes(NULL, 0, 1, entry), -EINVAL);
    assert_fails(guest, spapr_htab_read_hptes(guest->handle, 0, 1, NULL), EINVAL, "NULL");
    assert_fails(guest, spapr_htab_read_hptes(guest->handle, 0, SIZE_MAX, entry), EINVAL, "outside");
    assert_fails(guest, spapr_htab_read_hptes(guest->handle, 0, SIZE_MAX / 32, entry), EINVAL, "outside");
    assert_fails(guest, spapr_htab_read_hptes(guest->handle, UINT64_MAX, 1, entry), EINVAL,
                 "outside the hash table");
    assert_string_equal((char *)entry, "unchanged");
    assert_int_equal(spapr_htab_read_hptes(guest->handle, 0, 0, entry), 0);
    assert_string_equal((char *)entry, "unchanged");
    guest_free(guest);
}

static void null_write_hpte(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 0);

    (void)state;
    assert_int_equal(spapr_htab_write_hpte(NULL, 0, 0, 0), -EINVAL);
    assert_fails(guest, spapr_htab_write_hpte(guest->handle, 0, 0, 0), EINVAL, "without a hash table");
    guest_free(guest);
}

static void null_stats(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);
    struct SpaprHtabStats stats = {.save_order = 77};

    (void)state;
    assert_int_equal(spapr_htab_stats(NULL, sizeof(stats), &stats), -EINVAL);
    assert_int_equal(spapr_htab_stats(NULL, 0, NULL), -EINVAL);
    assert_int_equal(spapr_htab_stats(guest->handle, sizeof(stats), NULL), -EINVAL);
    assert_int_equal(spapr_htab_stats(guest->handle, 0, &stats), -EINVAL);
    assert_int_equal(stats.save_order, 77);
    guest_free(guest);
}

static void null_save_sum(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);
    struct SpaprHtabSum sum = {.order = 77};

    (void)state;
    assert_int_equal(spapr_htab_save_sum(NULL, 0, NULL), -EINVAL);
    assert_int_equal(spapr_htab_save_sum(NULL, sizeof(sum), &sum), -EINVAL);
    assert_int_equal(spapr_htab_save_sum(guest->handle, sizeof(sum), NULL), -EINVAL);
    assert_int_equal(spapr_htab_save_sum(guest->handle, 0, &sum), -EINVAL);
    assert_int_equal(sum.order, 77);
    guest_free(guest);
}

static void null_describe(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);
    char text[16] = "abc";
    size_t whole;

    (void)state;
    assert_int_equal(spapr_htab_describe(NULL, 0, NULL), 0);
    assert_int_equal(spapr_htab_describe(NULL, sizeof(text), text), 0);
    whole = spapr_htab_describe(guest->handle, 0, NULL);
    assert_true(whole > 100);
    assert_int_equal(spapr_htab_describe(guest->handle, sizeof(text), NULL), whole);
    assert_int_equal(spapr_htab_describe(guest->handle, 0, text), whole);
    assert_string_equal(text, "abc");
    assert_int_equal(spapr_htab_describe(guest->handle, 1, text), whole);
    assert_string_equal(text, "");
    assert_int_equal(spapr_htab_describe(guest->handle, sizeof("spapr-htab"), text), whole);
    assert_string_equal(text, "spapr-htab");
    guest_free(guest);
}

static void null_pass(void **state)
{
    struct guest *guest = guest_new(SPAPR_HTAB_TABLE_MEMORY, 18);
    struct SpaprHtabPass pass = {.records = 77};
    struct buffer stream = {0};

    (void)state;
    assert_int_equal(spapr_htab_pass(NULL, 1, sizeof(pass), &pass), -EINVAL);
    assert_int_equal(spapr_htab_pass(guest->handle, 0, sizeof(pass), &pass), -EINVAL);
    save_begin(guest, &stream);
    assert_int_equal(spapr_htab_pass(guest->handle, 1, sizeof(pass), NULL), -EINVAL);
    assert_int_equal(spapr_htab_pass(guest->handle, 1, 0, &pass), -EINVAL);
    assert_int_equal(spapr_htab_pass(guest->handle, 0, sizeof(pass), &pass), -EINVAL);
    assert_int_equal(spapr_htab_pass(guest->handle, UINT64_MAX, sizeof(pass), &pass), -EINVAL);
    assert_int_equal(pass.records, 77);
    guest_free(guest);
    buffer_clear(&stream);
}

#define TEST(name)                                                                                           \
    {                                                                                                        \
        "spapr_htab_" #name, null_##name, NULL, NULL, NULL                                                   \
    }

static const struct CMUnitTest tests[] = {
    TEST(new),
    TEST(free),
    TEST(last_error),
    TEST(version),
    TEST(abi_version),
    TEST(save_setup),
    TEST(save_iterate),
    TEST(save_complete),
    TEST(save_complete_again),
    TEST(vm_state),
    TEST(save_cleanup),
    TEST(save_pending),
    TEST(quiesce),
    TEST(resume),
    TEST(resume_unchanged),
    TEST(dirty_log_read),
    TEST(load),
    TEST(load_discard),
    TEST(load_finish),
    TEST(load_check),
    TEST(load_cleanup),
    TEST(read_hptes),
    TEST(write_hpte),
    TEST(stats),
    TEST(save_sum),
    TEST(pass),
    TEST(describe),
};

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
            puts(tests[i].name);
        }
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
