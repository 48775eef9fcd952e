/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "support.h"
#include <stdlib.h>
#include <string.h>

/* Entries */

static uint64_t be_at(const uint8_t *bytes, int count)
{
    uint64_t value = 0;

    for (int i = 0; i < count; i++) {
        value = value << 8 | bytes[i];
    }
    return value;
}

struct entry entry_load(const uint8_t *bytes)
{
    return (struct entry){.v = be_at(bytes, 8), .r = be_at(bytes + 8, 8)};
}

void entry_store(uint8_t *bytes, uint64_t v, uint64_t r)
{
    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(v >> (56 - 8 * i));
        bytes[8 + i] = (uint8_t)(r >> (56 - 8 * i));
    }
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

/* Streams */

void buffer_bytes(struct buffer *buffer, const void *data, size_t len)
{
    if (buffer->room - buffer->len < len) {
        buffer->room = (buffer->len + len) * 2;
        buffer->data = realloc(buffer->data, buffer->room);
        check(buffer->data);
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
    uint8_t bytes[16];

    entry_store(bytes, v, r);
    buffer_bytes(buffer, bytes, sizeof(bytes));
}

void buffer_clear(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){0};
}

/* Records */

bool record_next(const uint8_t **at, const uint8_t *end, enum record_source source, struct record *record)
{
    const uint8_t *header = *at;

    check(end - header >= 8);
    if (source == IN_STREAM) {
        record->index = (uint32_t)be_at(header, 4);
        record->n_valid = (uint16_t)be_at(header + 4, 2);
        record->n_invalid = (uint16_t)be_at(header + 6, 2);
    } else {
        memcpy(&record->index, header, 4);
        memcpy(&record->n_valid, header + 4, 2);
        memcpy(&record->n_invalid, header + 6, 2);
    }
    record->entries = header + 8;
    check((end - record->entries) / 16 >= record->n_valid);
    *at = record->entries + (size_t)16 * record->n_valid;
    return record->index || record->n_valid || record->n_invalid;
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
    check(out->struct_size == sizeof(*out));
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
    check(guest->memory);
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
        result = guest->kernel_allocate(guest, order);
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

static void log_line(void *opaque, int level, const char *line)
{
    struct guest *guest = opaque;
    size_t len = strlen(line);

    check(level >= 1 && level <= guest->host.log_level);
    check(!strchr(line, '\n'));
    guest->log.text = realloc(guest->log.text, guest->log.len + len + 2);
    check(guest->log.text);
    memcpy(guest->log.text + guest->log.len, line, len);
    guest->log.len += len;
    guest->log.text[guest->log.len++] = '\n';
    guest->log.text[guest->log.len] = '\0';
}

/* Guests */

void guest_init(struct guest *guest, uint32_t kind, uint32_t order)
{
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
    if (kind == SPAPR_HTAB_TABLE_MEMORY && order) {
        memory_allocate(guest, order);
    }
}

void guest_open(struct guest *guest)
{
    check(spapr_htab_new(&guest->host, &guest->handle) == 0);
    check(guest->handle);
}

void guest_close(struct guest *guest)
{
    spapr_htab_free(guest->handle);
    memory_free(guest);
    free(guest->log.text);
}

uint64_t guest_slots(const struct guest *guest)
{
    return (uint64_t)1 << (guest->order - 4);
}

struct SpaprHtabStats stats_of(const struct guest *guest)
{
    struct SpaprHtabStats stats;

    check(spapr_htab_stats(guest->handle, sizeof(stats), &stats) == 0);
    return stats;
}

const char *last_error(const struct guest *guest)
{
    static char sentence[1024];
    size_t len = spapr_htab_last_error(guest->handle, sizeof(sentence), sentence);

    check(len == strlen(sentence));
    return sentence;
}
