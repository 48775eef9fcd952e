/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two Rust static libraries in one program: a panic in each is caught in it, whatever became of the other's.
 * Linked with an archive that has spapr_htab_test_panic (src/capi/test_panic.rs). Needs no cmocka, so that it
 * can be cross-built.
 */
#include "second.h"
#include "spapr_htab.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

int spapr_htab_test_panic(struct SpaprHtab *handle);

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                        \
            return 1;                                                                                        \
        }                                                                                                    \
    } while (0)

static char logged[1024];

static void log_line(void *opaque, int level, const char *line)
{
    (void)opaque, (void)level;
    snprintf(logged, sizeof(logged), "%s", line);
}

static int table(void *opaque, struct SpaprHtabTable *out)
{
    (void)opaque;
    out->kind = SPAPR_HTAB_TABLE_NONE;
    return 0;
}

static int put(void *opaque, void *stream, const uint8_t *data, size_t len)
{
    (void)opaque, (void)stream, (void)data, (void)len;
    return 0;
}

int main(void)
{
    struct SpaprHtabHost host = {.struct_size = sizeof(host),
                                 .vm_fd = -1,
                                 .put = put,
                                 .table = table,
                                 .log = log_line,
                                 .log_level = 1};
    struct SpaprHtab *handle = NULL;
    char sentence[256];

    CHECK(spapr_htab_new(&host, &handle) == 0);
    for (int round = 0; round < 3; round++) {
#ifndef SECOND_ABORTS
        CHECK(second_catch_panic() == 1);
#else
        /* A panic in it would end the program, as it is built to. */
        model_free(model_new(18));
#endif
        CHECK(spapr_htab_save_setup(handle, NULL) == 0);
        CHECK(spapr_htab_test_panic(handle) == -ENOTRECOVERABLE);
        CHECK(strstr(logged, "panic"));
        spapr_htab_last_error(handle, sizeof(sentence), sentence);
        CHECK(strstr(sentence, "bug in spapr-htab") && strstr(sentence, "asked for by a test"));
        /* Refused until it is set up again. */
        CHECK(spapr_htab_save_iterate(handle, NULL, -1) == -ENOTRECOVERABLE);
        CHECK(spapr_htab_save_cleanup(handle) == 0);
#ifndef SECOND_ABORTS
        CHECK(second_catch_panic() == 1);
#endif
    }
    spapr_htab_free(handle);
    return 0;
}
