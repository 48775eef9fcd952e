/* SPDX-License-Identifier: GPL-2.0-or-later */

#define _GNU_SOURCE
#include "stream.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A frame: this word, the body's length, the body, this word again. Both are be32. */
#define FRAME UINT32_C(0x48505421)
#define WORD sizeof(uint32_t)

static uint32_t word_at(const uint8_t *bytes)
{
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    return be32toh(word);
}

static void set_word(uint8_t *bytes, uint32_t word)
{
    word = htobe32(word);
    memcpy(bytes, &word, sizeof word);
}

static int append(struct stream *stream, const uint8_t *data, size_t length)
{
    if (length > stream->capacity - stream->length) {
        size_t capacity = 2 * stream->capacity + length + 65536;
        uint8_t *bytes = realloc(stream->bytes, capacity);
        if (!bytes) {
            return -ENOMEM;
        }
        stream->bytes = bytes;
        stream->capacity = capacity;
    }
    memcpy(stream->bytes + stream->length, data, length);
    stream->length += length;
    return 0;
}

static void append_word(struct stream *stream, uint32_t word)
{
    uint8_t bytes[WORD];
    set_word(bytes, word);
    if (append(stream, bytes, sizeof bytes) < 0) {
        die("out of memory for the stream");
    }
}

void stream_free(struct stream *stream)
{
    free(stream->bytes);
    *stream = (struct stream){0};
}

void stream_begin_section(struct stream *stream)
{
    stream->section = stream->length;
    append_word(stream, FRAME);
    append_word(stream, 0);
}

static struct tally tally_body(const uint8_t *at, const uint8_t *end)
{
    struct tally tally = {0};
    /* A body of records begins with a word of 0 and ends with a record of nothing; any other is one word. */
    if (end - at < 4 || word_at(at) != 0) {
        return tally;
    }
    for (at += WORD; end - at > 8;) {
        uint64_t valid = word_at(at + 4) >> 16;
        uint64_t invalid = word_at(at + 4) & 0xffff;
        size_t bytes = 8 + 16 * valid;
        if (bytes > (size_t)(end - at)) {
            die("the library wrote a record that goes beyond its section");
        }
        tally.records++;
        tally.valid += valid;
        tally.invalid += invalid;
        tally.bytes += bytes;
        tally.end = word_at(at) + valid + invalid;
        at += bytes;
    }
    if (end - at != 8 || word_at(at) != 0 || word_at(at + 4) != 0) {
        die("the library wrote a section without an end");
    }
    return tally;
}

struct tally stream_end_section(struct stream *stream)
{
    size_t body = stream->section + 2 * WORD;
    size_t length = stream->length - body;
    if (length > UINT32_MAX) {
        die("a section of %zu bytes is too long for this stream", length);
    }
    set_word(stream->bytes + stream->section + WORD, (uint32_t)length);
    struct tally tally = tally_body(stream->bytes + body, stream->bytes + stream->length);
    append_word(stream, FRAME);
    stream->sections++;
    return tally;
}

void stream_rewind(struct stream *stream)
{
    stream->at = stream->end = stream->section = 0;
}

bool stream_next_section(struct stream *stream)
{
    if (stream->section == stream->length) {
        return false;
    }
    const uint8_t *frame = stream->bytes + stream->section;
    stream->at = stream->section + 2 * WORD;
    stream->end = stream->at + word_at(frame + WORD);
    stream->section = stream->end + WORD;
    if (word_at(frame) != FRAME || stream->section > stream->length ||
        word_at(stream->bytes + stream->end) != FRAME) {
        die("the stream's frames make no sense");
    }
    return true;
}

size_t stream_unread(const struct stream *stream)
{
    return stream->end - stream->at;
}

int stream_put(void *opaque, void *stream, const uint8_t *data, size_t length)
{
    (void)opaque;
    struct stream *to = stream;
    return to->null ? 0 : append(to, data, length);
}

int64_t stream_get(void *opaque, void *stream, uint8_t *data, size_t length)
{
    (void)opaque;
    struct stream *from = stream;
    size_t got = length < stream_unread(from) ? length : stream_unread(from);
    memcpy(data, from->bytes + from->at, got);
    from->at += got;
    return (int64_t)got;
}
