/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "support.h"
#include "second.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t be64(uint64_t value)
{
    uint8_t bytes[8];

    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(value >> (56 - 8 * i));
    }
    memcpy(&value, bytes, 8);
    return value;
}

/* Streams */

void buffer_bytes(struct buffer *buffer, const void *data, size_t len)
{
    if (buffer->room - buffer->len < len) {
        buffer->room = (buffer->len + len) * 2;
        buffer->data = realloc(buffer->data, buffer->room);
        assert_non_null(buffer->data);
    }
    memcpy(buffer->data + buffer->len, data, len);
    buffer->len += len;
}

void buffer_be32(struct buffer *buffer, uint32_t value)
{
    uint8_t bytes[] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8), (uint8_t)value};

    buffer_bytes(buffer, bytes, sizeof(bytes));
}

void buffer_record(struct buffer *buffer, uint32_t index, uint16_t n_valid, uint16_t n_invalid)
{
    buffer_be32(buffer, index);
    buffer_be32(buffer, (uint32_t)n_valid << 16 | n_invalid);
}

void buffer_entry(struct buffer *buffer, uint64_t v, uint64_t r)
{
    uint64_t words[] = {be64(v), be64(r)};

    buffer_bytes(buffer, words, sizeof(words));
}

void buffer_clear(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){0};
}

/* Callbacks */

static int put(void *opaque, void *stream, const uint8_t *data, size_t len)
{
    struct buffer *buffer = stream;

    (void)opaque;
    if (buffer->put_limit && buffer->len + len > buffer->put_limit) {
        return -buffer->put_error;
    }
    buffer->puts++;
    buffer_bytes(buffer, data, len);
    return 0;
}

static int rate_limited(void *opaque, void *stream)
{
    struct buffer *buffer = stream;

    (void)opaque;
    return buffer->puts_per_round && buffer->puts >= buffer->puts_per_round;
}

static int64_t get(void *opaque, void *stream, uint8_t *data, size_t len)
{
    struct buffer *buffer = stream;
    size_t end = buffer->len;

    (void)opaque;
    if (buffer->get_limit && buffer->get_limit < end) {
        end = buffer->get_limit;
    }
    if (buffer->at == end) {
        return buffer->get_result;
    }
    if (len > end - buffer->at) {
        len = end - buffer->at;
    }
    if (buffer->chunk && len > buffer->chunk) {
        len = buffer->chunk;
    }
    memcpy(data, buffer->data + buffer->at, len);
    buffer->at += len;
    return (int64_t)len;
}

static int stream_error(void *opaque, void *stream)
{
    struct buffer *buffer = stream;

    (void)opaque;
    return -buffer->stream_error;
}

static int table(void *opaque, struct SpaprHtabTable *out)
{
    struct guest *guest = opaque;

    if (guest->table_error) {
        return -guest->table_error;
    }
    assert_int_equal(out->struct_size, sizeof(*out));
    out->kind = guest->order ? guest->kind : SPAPR_HTAB_TABLE_NONE;
    out->order = guest->order;
    out->memory = guest->memory;
    return 0;
}

static void memory_free(struct guest *guest)
{
    free(guest->memory);
    guest->memory = NULL;
}

static void memory_allocate(struct guest *guest, uint32_t order)
{
    memory_free(guest);
    /* calloc aligns to 16 bytes, which is enough for the library. */
    guest->memory = calloc(1, (size_t)1 << order);
    assert_non_null(guest->memory);
}

static int table_allocate(void *opaque, uint32_t order)
{
    struct guest *guest = opaque;
    int result;

    if (guest->allocate_error) {
        return -guest->allocate_error;
    }
    guest->allocated++;
    if (guest->kind == SPAPR_HTAB_TABLE_KERNEL) {
        result = model_allocate(guest->model, order);
        if (result < 0) {
            return result;
        }
    } else {
        memory_allocate(guest, order);
    }
    guest->order = order;
    return 0;
}

static int table_free(void *opaque)
{
    struct guest *guest = opaque;

    if (guest->free_error) {
        return -guest->free_error;
    }
    guest->freed++;
    memory_free(guest);
    guest->order = 0;
    return 0;
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

static void log_line(void *opaque, int level, const char *line)
{
    struct guest *guest = opaque;
    size_t len = strlen(line);

    assert_in_range(level, 1, guest->host.log_level);
    assert_null(strchr(line, '\n'));
    guest->log.text = realloc(guest->log.text, guest->log.len + len + 2);
    assert_non_null(guest->log.text);
    memcpy(guest->log.text + guest->log.len, line, len);
    guest->log.len += len;
    guest->log.text[guest->log.len++] = '\n';
    guest->log.text[guest->log.len] = '\0';
}

/* Guests */

struct guest *guest_without_handle(uint32_t kind, uint32_t order)
{
    struct guest *guest = calloc(1, sizeof(*guest));

    assert_non_null(guest);
    guest->kind = kind;
    guest->order = order;
    guest->host = (struct SpaprHtabHost){
        .struct_size = sizeof(guest->host),
        .opaque = guest,
        .vm_fd = -1,
        .put = put,
        .rate_limited = rate_limited,
        .get = get,
        .stream_error = stream_error,
        .table = table,
        .table_allocate = table_allocate,
        .table_free = table_free,
        .log = log_line,
        .log_level = 3,
    };
    if (kind == SPAPR_HTAB_TABLE_KERNEL) {
        guest->model = model_new(order ? order : 18);
        assert_non_null(guest->model);
        guest->host.open_fd = open_fd;
        guest->host.read_fd = read_fd;
        guest->host.writev_fd = writev_fd;
        guest->host.close_fd = close_fd;
        guest->host.clock_ns = clock_ns;
    } else if (order) {
        memory_allocate(guest, order);
    }
    return guest;
}

void guest_open(struct guest *guest)
{
    assert_int_equal(spapr_htab_new(&guest->host, &guest->handle), 0);
    assert_non_null(guest->handle);
}

struct guest *guest_new(uint32_t kind, uint32_t order)
{
    struct guest *guest = guest_without_handle(kind, order);

    guest_open(guest);
    return guest;
}

void guest_free(struct guest *guest)
{
    spapr_htab_free(guest->handle);
    if (guest->model) {
        assert_int_equal(model_open_fds(guest->model), 0);
        model_free(guest->model);
    }
    memory_free(guest);
    free(guest->log.text);
    free(guest);
}

uint64_t guest_slots(const struct guest *guest)
{
    return (uint64_t)1 << (guest->order - 4);
}

/* Entries that the model takes: 4 KiB pages, a virtual page number that old and new hardware formats keep. */
uint64_t entry_v(uint64_t n)
{
    return (0x1000 + n) << 7 | V_VALID;
}

uint64_t entry_r(uint64_t n)
{
    return (n & 0xffffff) << 12 | 0x192;
}

/* As QEMU stores entries: the second word first when one appears, the first word first when one goes. */
static void memory_store(struct guest *guest, uint64_t slot, uint64_t v, uint64_t r)
{
    uint64_t words[] = {be64(v), be64(r)};

    memcpy(guest->memory + slot * 16, words, sizeof(words));
}

void guest_enter(struct guest *guest, uint64_t slot, uint64_t n)
{
    if (guest->model) {
        assert_int_equal(model_enter(guest->model, slot, entry_v(n), entry_r(n)), 0);
    } else {
        memory_store(guest, slot, entry_v(n) | V_DIRTY, entry_r(n));
    }
}

void guest_remove(struct guest *guest, uint64_t slot)
{
    if (guest->model) {
        assert_true(model_remove(guest->model, slot) >= 0);
    } else {
        memory_store(guest, slot, V_DIRTY, 0);
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

static const uint64_t *memory_entry(const struct guest *guest, uint64_t slot, uint64_t entry[2])
{
    memcpy(entry, guest->memory + slot * 16, 16);
    entry[0] = be64(entry[0]) & ~(uint64_t)V_DIRTY;
    entry[1] = be64(entry[1]);
    if (!(entry[0] & V_VALID)) {
        entry[0] = entry[1] = 0;
    }
    return entry;
}

int64_t guest_difference(const struct guest *one, const struct guest *other)
{
    uint64_t a[2], b[2];

    assert_int_equal(one->order, other->order);
    if (one->model && other->model) {
        return model_difference(one->model, other->model);
    }
    assert_true(!one->model && !other->model);
    for (uint64_t slot = 0; one->order && slot < guest_slots(one); slot++) {
        if (memcmp(memory_entry(one, slot, a), memory_entry(other, slot, b), sizeof(a)) != 0) {
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

struct SpaprHtabStats stats_of(const struct guest *guest)
{
    struct SpaprHtabStats stats;

    assert_int_equal(spapr_htab_stats(guest->handle, sizeof(stats), &stats), 0);
    return stats;
}

/* Of the records since the last size that was told, whatever came before. */
void assert_same_sums(const struct guest *from, const struct guest *to)
{
    struct SpaprHtabStats saved = stats_of(from), loaded = stats_of(to);

    assert_int_equal(saved.save_crc32, loaded.load_crc32);
    assert_int_equal(saved.save_records, loaded.load_total.records);
    assert_int_equal(saved.save_bytes, loaded.load_total.bytes);
}

const char *last_error(const struct guest *guest)
{
    static char sentence[1024];
    size_t len = spapr_htab_last_error(guest->handle, sizeof(sentence), sentence);

    assert_int_equal(len, strlen(sentence));
    return sentence;
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
