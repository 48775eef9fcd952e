/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The border itself: structures of other sizes than the library's, versions, the log. */
#include "guests.h"
#include "second.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY SPAPR_HTAB_TABLE_MEMORY
#define FILLED 0xa5

static void all_bytes(const void *bytes, size_t from, size_t to, uint8_t value)
{
    for (size_t i = from; i < to; i++) {
        assert_int_equal(((const uint8_t *)bytes)[i], value);
    }
}

/* An older program knows less of a structure, a newer one more. */
static void stats_of_any_size(void **state)
{
    struct guest *guest = guest_new(MEMORY, 18);
    uint8_t bytes[sizeof(struct SpaprHtabStats) + 64];
    struct SpaprHtabStats whole;
    struct buffer stream = {0};

    (void)state;
    guest_fill(guest, 3, 3);
    save_begin(guest, &stream);
    assert_int_equal(spapr_htab_save_complete(guest->handle, &stream), 0);
    whole = stats_of(guest);
    assert_int_equal(whole.save_order, 18);
    assert_true(whole.save_passes >= 2);
    assert_int_equal(whole.save_pending, 0);
    for (size_t size = 1; size <= sizeof(bytes); size++) {
        size_t known = size < sizeof(whole) ? size : sizeof(whole);

        memset(bytes, FILLED, sizeof(bytes));
        assert_int_equal(spapr_htab_stats(guest->handle, size, (struct SpaprHtabStats *)(void *)bytes), 0);
        assert_memory_equal(bytes, &whole, known);
        all_bytes(bytes, known, size, 0);
        all_bytes(bytes, size, sizeof(bytes), FILLED);
    }
    guest_free(guest);
    buffer_clear(&stream);
}

static void pass_of_any_size(void **state)
{
    struct guest *guest = guest_new(MEMORY, 18);
    uint8_t bytes[sizeof(struct SpaprHtabPass) + 64];
    struct SpaprHtabPass sum = {0}, pass;
    struct SpaprHtabStats stats;
    struct buffer stream = {0};

    (void)state;
    guest_fill(guest, 3, 3);
    save_begin(guest, &stream);
    guest_enter(guest, 1, 1);
    assert_int_equal(spapr_htab_save_complete(guest->handle, &stream), 0);
    stats = stats_of(guest);
    for (uint64_t number = 1; number <= stats.save_passes; number++) {
        assert_int_equal(spapr_htab_pass(guest->handle, number, sizeof(pass), &pass), 0);
        assert_int_equal(pass.bytes, 8 * pass.records + 16 * pass.valid);
        sum.records += pass.records;
        sum.valid += pass.valid;
        sum.invalid += pass.invalid;
        sum.bytes += pass.bytes;
        sum.time_ns += pass.time_ns;
        for (size_t size = 1; size <= sizeof(bytes); size++) {
            size_t known = size < sizeof(pass) ? size : sizeof(pass);

            memset(bytes, FILLED, sizeof(bytes));
            assert_int_equal(
                spapr_htab_pass(guest->handle, number, size, (struct SpaprHtabPass *)(void *)bytes), 0);
            assert_memory_equal(bytes, &pass, known);
            all_bytes(bytes, known, size, 0);
            all_bytes(bytes, size, sizeof(bytes), FILLED);
        }
    }
    assert_memory_equal(&sum, &stats.save_total, sizeof(sum));
    assert_int_equal(stats.save_stopped.valid, 1);
    assert_fails(guest, spapr_htab_pass(guest->handle, stats.save_passes + 1, sizeof(pass), &pass), EINVAL,
                 "pass");
    guest_free(guest);
    buffer_clear(&stream);
}

static void sum_of_any_size(void **state)
{
    struct guest *guest = guest_new(MEMORY, 18);
    union {
        struct SpaprHtabSum sum;
        uint8_t bytes[sizeof(struct SpaprHtabSum) + 64];
    } known;
    struct SpaprHtabSum whole, empty = {.order = 18};
    struct buffer stream = {0};

    (void)state;
    guest_fill(guest, 3, 3);
    save_begin(guest, &stream);
    assert_int_equal(spapr_htab_save_complete(guest->handle, &stream), 0);
    assert_int_equal(spapr_htab_save_sum(guest->handle, sizeof(whole), &whole), 0);
    assert_int_equal(whole.order, 18);
    assert_int_equal(whole.crc32, stats_of(guest).save_crc32);
    assert_true(whole.records > 0 && whole.bytes > 0);
    for (size_t size = 1; size <= sizeof(known); size++) {
        size_t both = size < sizeof(whole) ? size : sizeof(whole);

        memset(&known, FILLED, sizeof(known));
        assert_int_equal(spapr_htab_save_sum(guest->handle, size, &known.sum), 0);
        assert_memory_equal(&known, &whole, both);
        all_bytes(&known, both, size, 0);
        all_bytes(&known, size, sizeof(known), FILLED);

        /* Nothing was loaded. What only one side knows is not compared. */
        memset(&known, FILLED, sizeof(known));
        memcpy(&known, &empty, both);
        assert_int_equal(spapr_htab_load_check(guest->handle, size, &known.sum), 0);
        known.bytes[both - 1] ^= 1;
        assert_int_equal(spapr_htab_load_check(guest->handle, size, &known.sum), -EBADMSG);
    }
    guest_free(guest);
    buffer_clear(&stream);
}

static void host_of_any_size(void **state)
{
    struct {
        struct SpaprHtabHost host;
        uint8_t beyond[64];
    } newer;
    struct guest *guest = guest_without_handle(MEMORY, 18);
    struct SpaprHtab *handle = NULL;

    (void)state;
    for (size_t size = 0; size < offsetof(struct SpaprHtabHost, log_level) + sizeof(int); size++) {
        guest->host.struct_size = size;
        assert_int_equal(spapr_htab_new(&guest->host, &handle), -EINVAL);
    }
    assert_null(handle);

    /* A newer program: fine as long as it asks for nothing that this library does not know. */
    memset(&newer, 0, sizeof(newer));
    for (size_t more = 0; more <= sizeof(newer.beyond); more++) {
        newer.host = guest->host;
        newer.host.struct_size = sizeof(newer.host) + more;
        assert_int_equal(spapr_htab_new(&newer.host, &handle), 0);
        spapr_htab_free(handle);
        handle = NULL;
        if (more > 0) {
            newer.beyond[more - 1] = 1;
            assert_int_equal(spapr_htab_new(&newer.host, &handle), -EINVAL);
            assert_null(handle);
            newer.beyond[more - 1] = 0;
        }
    }
    newer.host.struct_size = 4097;
    assert_int_equal(spapr_htab_new(&newer.host, &handle), -EINVAL);
    newer.host.struct_size = SIZE_MAX;
    assert_int_equal(spapr_htab_new(&newer.host, &handle), -EINVAL);

    guest->host.struct_size = sizeof(guest->host);
    guest->host.flags = SPAPR_HTAB_COMPARE | 8;
    assert_int_equal(spapr_htab_new(&guest->host, &handle), -EINVAL);
    guest->host.flags = 0x80000000;
    assert_int_equal(spapr_htab_new(&guest->host, &handle), -EINVAL);
    guest->host.flags = 0;
    guest->host.reserved = 1;
    assert_int_equal(spapr_htab_new(&guest->host, &handle), -EINVAL);
    guest->host.reserved = 0;
    guest->host.sweep_share = 101;
    assert_int_equal(spapr_htab_new(&guest->host, &handle), -EINVAL);
    guest->host.sweep_share = 0;
    guest->host.table = NULL;
    assert_int_equal(spapr_htab_new(&guest->host, &handle), -EINVAL);
    assert_null(handle);
    guest_free(guest);
}

/* The structure is copied: what becomes of the caller's does not matter. */
static void host_is_copied(void **state)
{
    struct guest *guest = guest_new(MEMORY, 18);
    struct SpaprHtabHost host = guest->host;
    struct buffer stream = {0};

    (void)state;
    memset(&guest->host, FILLED, sizeof(guest->host));
    assert_int_equal(spapr_htab_save_setup(guest->handle, &stream), 0);
    guest->host = host;
    guest_free(guest);
    buffer_clear(&stream);
}

/* The CRC in the line that a side logs when it is done. */
static unsigned long logged_crc(struct guest *guest, const char *word)
{
    const char *line = guest->log.text ? strstr(guest->log.text, word) : NULL, *crc;

    assert_non_null(line);
    crc = strstr(line, "CRC-32 ");
    assert_non_null(crc);
    return strtoul(crc + strlen("CRC-32 "), NULL, 16);
}

static void both_sides_log_the_same_crc(void **state)
{
    struct guest *from = guest_new(SPAPR_HTAB_TABLE_KERNEL, 18), *to = guest_new(SPAPR_HTAB_TABLE_KERNEL, 0);
    struct buffer stream = {0};

    (void)state;
    guest_fill(from, 11, 4);
    save_begin(from, &stream);
    guest_enter(from, 12, 1);
    assert_int_equal(spapr_htab_save_complete(from->handle, &stream), 0);
    assert_int_equal(spapr_htab_save_cleanup(from->handle), 0);
    assert_int_equal(load_all(to, &stream), 0);
    assert_int_equal(spapr_htab_load_cleanup(to->handle), 0);
    assert_int_equal(logged_crc(from, "saved "), stats_of(from).save_crc32);
    assert_int_equal(logged_crc(to, "loaded "), stats_of(to).load_crc32);
    assert_int_equal(stats_of(from).save_crc32, stats_of(to).load_crc32);
    assert_int_not_equal(stats_of(from).save_crc32, 0);
    guest_free(from);
    guest_free(to);
    buffer_clear(&stream);
}

static void errors_are_logged_to_their_own_handle(void **state)
{
    struct guest *one = guest_new(MEMORY, 18), *other = guest_new(MEMORY, 18);
    struct guest *silent = guest_without_handle(MEMORY, 18);

    (void)state;
    silent->host.log_level = 0;
    guest_open(silent);
    assert_int_equal(spapr_htab_save_complete(one->handle, NULL), -EINVAL);
    assert_non_null(one->log.text);
    assert_non_null(strstr(one->log.text, last_error(one)));
    assert_null(other->log.text);
    assert_int_equal(spapr_htab_save_complete(silent->handle, NULL), -EINVAL);
    assert_null(silent->log.text);
    assert_string_equal(last_error(other), "");
    guest_free(one);
    guest_free(other);
    guest_free(silent);
}

#define TEXT(x) TEXT_OF(x)
#define TEXT_OF(x) #x

static void versions_agree(void **state)
{
    (void)state;
    assert_string_equal(
        spapr_htab_version(),
        TEXT(SPAPR_HTAB_VERSION_MAJOR) "." TEXT(SPAPR_HTAB_VERSION_MINOR) "." TEXT(SPAPR_HTAB_VERSION_PATCH));
    assert_int_equal(spapr_htab_abi_version(), SPAPR_HTAB_ABI_VERSION);
    /* What meson wrote into spapr-htab.pc. */
    assert_string_equal(spapr_htab_version(), PC_VERSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stats_of_any_size),
        cmocka_unit_test(pass_of_any_size),
        cmocka_unit_test(sum_of_any_size),
        cmocka_unit_test(host_of_any_size),
        cmocka_unit_test(host_is_copied),
        cmocka_unit_test(both_sides_log_the_same_crc),
        cmocka_unit_test(errors_are_logged_to_their_own_handle),
        cmocka_unit_test(versions_agree),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
