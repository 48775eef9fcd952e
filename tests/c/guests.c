/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guests.h"
#include "second.h"
#include <stdlib.h>
#include <string.h>

void check_failed(const char *condition, const char *file, int line)
{
    print_error("not true: %s\n", condition);
    _fail(file, line);
    abort();
}

static int open_fd(void *opaque, uint64_t flags, uint64_t start_index)
{
    return model_open_fd(((struct guest *)opaque)->model, flags, start_index);
}

static int64_t read_fd(void *opaque, int fd, uint8_t *data, size_t len)
{
    struct guest *guest = opaque;
    void (*before_read)(struct guest *, size_t) = guest->before_read;

    if (before_read) {
        guest->before_read = NULL;
        before_read(guest, len);
    }
    return model_read_fd(guest->model, fd, data, len);
}

static int64_t writev_fd(void *opaque, int fd, const struct iovec *data, int count)
{
    return model_writev_fd(((struct guest *)opaque)->model, fd, data, count);
}

static void close_fd(void *opaque, int fd)
{
    model_close_fd(((struct guest *)opaque)->model, fd);
}

static uint64_t clock_ns(void *opaque)
{
    return model_clock_ns(((struct guest *)opaque)->model);
}

static int kernel_allocate(struct guest *guest, uint32_t order)
{
    return model_allocate(guest->model, order);
}

struct guest *guest_without_handle(uint32_t kind, uint32_t order)
{
    struct guest *guest = calloc(1, sizeof(*guest));

    assert_non_null(guest);
    guest_init(guest, kind, order);
    if (kind == SPAPR_HTAB_TABLE_KERNEL) {
        guest->model = model_new(order ? order : 18);
        assert_non_null(guest->model);
        guest->kernel_allocate = kernel_allocate;
        guest->host.open_fd = open_fd;
        guest->host.read_fd = read_fd;
        guest->host.writev_fd = writev_fd;
        guest->host.close_fd = close_fd;
        guest->host.clock_ns = clock_ns;
    }
    return guest;
}

struct guest *guest_new(uint32_t kind, uint32_t order)
{
    struct guest *guest = guest_without_handle(kind, order);

    guest_open(guest);
    return guest;
}

void guest_free(struct guest *guest)
{
    guest_close(guest);
    if (guest->model) {
        assert_int_equal(model_open_fds(guest->model), 0);
        model_free(guest->model);
    }
    free(guest);
}

void guest_enter(struct guest *guest, uint64_t slot, uint64_t n)
{
    if (guest->model) {
        assert_int_equal(model_enter(guest->model, slot, entry_v(n), entry_r(n)), 0);
    } else {
        entry_store(guest->memory + slot * 16, entry_v(n) | V_DIRTY, entry_r(n));
    }
}

void guest_remove(struct guest *guest, uint64_t slot)
{
    if (guest->model) {
        assert_true(model_remove(guest->model, slot) >= 0);
    } else {
        entry_store(guest->memory + slot * 16, V_DIRTY, 0);
    }
}

void guest_fill(struct guest *guest, uint32_t seed, uint32_t one_in)
{
    uint32_t state = seed | 1;
    uint64_t slots = guest_slots(guest);

    for (uint64_t slot = 0; slot < slots;) {
        uint64_t run, gap;

        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        run = 1 + state % 8;
        gap = run * (one_in - 1) + (state >> 8) % 3;
        for (; run && slot < slots; run--, slot++) {
            guest_enter(guest, slot, slot + seed);
        }
        slot += gap;
    }
}

static struct entry memory_entry(const struct guest *guest, uint64_t slot)
{
    struct entry entry = entry_load(guest->memory + slot * 16);

    entry.v &= ~(uint64_t)V_DIRTY;
    return entry.v & V_VALID ? entry : (struct entry){0};
}

int64_t guest_difference(const struct guest *one, const struct guest *other)
{
    assert_int_equal(one->order, other->order);
    if (one->model && other->model) {
        return model_difference(one->model, other->model);
    }
    assert_true(!one->model && !other->model);
    for (uint64_t slot = 0; one->order && slot < guest_slots(one); slot++) {
        struct entry a = memory_entry(one, slot), b = memory_entry(other, slot);

        if (a.v != b.v || a.r != b.r) {
            return (int64_t)slot;
        }
    }
    return -1;
}

void assert_same_tables(const struct guest *one, const struct guest *other)
{
    assert_int_equal(guest_difference(one, other), -1);
}

void save_begin(struct guest *guest, struct buffer *stream)
{
    assert_int_equal(spapr_htab_save_setup(guest->handle, stream), 0);
    iterate_until_clean(guest, stream);
}

void iterate_until_clean(struct guest *guest, struct buffer *stream)
{
    for (int calls = 0; calls < 100000; calls++) {
        int result = spapr_htab_save_iterate(guest->handle, stream, 5000000);

        assert_in_range(result, 0, 1);
        if (result == 1) {
            return;
        }
    }
    fail_msg("iterate never said 1");
}

int load_all(struct guest *guest, struct buffer *stream)
{
    int result = 0;

    while (result == 0 && stream->at < stream->len) {
        result = spapr_htab_load(guest->handle, stream, 1);
    }
    return result;
}

/* Under valgrind a large table takes minutes; scripts/test-c says how large it may be. */
uint32_t order_from_environment(uint32_t order)
{
    const char *most = getenv("HTAB_MAX_ORDER");
    uint32_t limit = most ? (uint32_t)strtoul(most, NULL, 10) : order;

    return order < limit ? order : limit;
}

/* Of the records since the last size that was sent, whatever came before. */
void assert_same_sums(const struct guest *from, const struct guest *to)
{
    struct SpaprHtabStats saved = stats_of(from), loaded = stats_of(to);

    assert_int_equal(saved.save_crc32, loaded.load_crc32);
    assert_int_equal(saved.save_records, loaded.load_total.records);
    assert_int_equal(saved.save_bytes, loaded.load_total.bytes);
}

void check_failure(int result, int error, const struct guest *guest, const char *const *words,
                   const char *file, int line)
{
    const char *sentence = last_error(guest);

    if (result != -error) {
        print_error("returned %d, not -%d (%s); last error: %s\n", result, error, strerror(error), sentence);
        _fail(file, line);
    }
    for (; *words; words++) {
        if (!strstr(sentence, *words)) {
            print_error("\"%s\" is not in: %s\n", *words, sentence);
            _fail(file, line);
        }
    }
}
