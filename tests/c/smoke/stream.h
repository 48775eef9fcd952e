/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The migration stream, in memory. As in QEMU, the library writes and reads bodies, and the stream puts a
 * frame around each, a section. This one's frames tell the body's length, so that a body read too short or
 * too far is found out.
 */

#ifndef DEMO_STREAM_H
#define DEMO_STREAM_H

#include "common.h"

#include <stdbool.h>

/* What a section's records tell, counted from its bytes: the library's figures are held against this. */
struct tally {
    uint64_t records;
    uint64_t valid;
    uint64_t invalid;
    uint64_t bytes;
    /* The slot after the last one told. */
    uint64_t end;
};

struct stream {
    /* Takes everything and keeps nothing. */
    bool null;
    uint8_t *bytes;
    size_t length;
    size_t capacity;
    /* Where the section being written began, or where the one being read goes on and ends. */
    size_t section;
    size_t at;
    size_t end;
    uint64_t sections;
};

void stream_free(struct stream *stream);

/* Puts a frame around what is written in between. */
void stream_begin_section(struct stream *stream);
struct tally stream_end_section(struct stream *stream);

/* Takes the next section up for reading; false if there is none. */
void stream_rewind(struct stream *stream);
bool stream_next_section(struct stream *stream);
/* Bytes of its body that nobody has read. */
size_t stream_unread(const struct stream *stream);

/* The library's callbacks. */
int stream_put(void *opaque, void *stream, const uint8_t *data, size_t length);
int64_t stream_get(void *opaque, void *stream, uint8_t *data, size_t length);

#endif
