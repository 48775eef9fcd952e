/* SPDX-License-Identifier: GPL-2.0-or-later */

#define _GNU_SOURCE
#include "library.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#define LOG_INFO_LEVEL 3

static int host_table(void *opaque, struct SpaprHtabTable *out)
{
    const struct vm *vm = opaque;
    out->kind = vm->order == 0 ? SPAPR_HTAB_TABLE_NONE : SPAPR_HTAB_TABLE_KERNEL;
    out->order = vm->order;
    return 0;
}

static int host_table_allocate(void *opaque, uint32_t order)
{
    return vm_allocate(opaque, order);
}

static int host_table_free(void *opaque)
{
    (void)opaque;
    /* None of the demo's guests is a radix guest. */
    return -ENOTSUP;
}

static void host_log(void *opaque, int level, const char *line)
{
    const struct vm *vm = opaque;
    printf("@log\t%d\tVM %c: %s\n", level, vm->name, line);
    fflush(stdout);
}

struct SpaprHtab *library_new(struct vm *vm, bool log)
{
    struct SpaprHtabHost host = {
        .struct_size = sizeof host,
        .opaque = vm,
        .vm_fd = vm->fd,
        .put = stream_put,
        .get = stream_get,
        .table = host_table,
        .table_allocate = host_table_allocate,
        .table_free = host_table_free,
        .log = host_log,
        .log_level = log ? LOG_INFO_LEVEL : 2,
    };
    struct SpaprHtab *handle = NULL;
    int error = spapr_htab_new(&host, &handle);
    if (error < 0) {
        die("spapr_htab_new: error %d", -error);
    }
    return handle;
}

int library_check(const struct SpaprHtab *handle, const char *call, int result)
{
    if (result < 0) {
        char why[512];
        spapr_htab_last_error(handle, sizeof why, why);
        die("%s: error %d: %s", call, -result, why);
    }
    return result;
}

uint64_t library_load_section(struct SpaprHtab *handle, struct stream *stream)
{
    uint64_t began = now_ns();
    int result = spapr_htab_load(handle, stream, 1);
    uint64_t took = now_ns() - began;
    library_check(handle, "spapr_htab_load", result);
    if (stream_unread(stream) != 0) {
        die("spapr_htab_load left %zu bytes of a section unread", stream_unread(stream));
    }
    return took;
}

struct system_calls system_calls(void)
{
    struct system_calls calls = {0};
    FILE *file = fopen("/proc/thread-self/io", "r");
    if (!file) {
        die("/proc/thread-self/io: %m");
    }
    /* The first two lines, in bytes, are not asked for. */
    if (fscanf(file, "%*s %*u %*s %*u syscr: %" SCNu64 " syscw: %" SCNu64, &calls.reads, &calls.writes) !=
        2) {
        die("/proc/thread-self/io is not as expected");
    }
    fclose(file);
    return calls;
}
