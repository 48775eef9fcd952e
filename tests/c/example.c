/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest's hash table goes from one place in memory to another, by way of a file, as in a migration.
 *
 *   cc example.c $(pkg-config --cflags --libs --static spapr-htab) -o example && ./example
 */
#include <errno.h>
#include <spapr_htab.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct guest {
    uint32_t order; /* of the table: log2 of its bytes; 0 without one */
    unsigned char *table;
};

static int describe_table(void *opaque, struct SpaprHtabTable *out)
{
    struct guest *guest = opaque;

    out->kind = guest->order ? SPAPR_HTAB_TABLE_MEMORY : SPAPR_HTAB_TABLE_NONE;
    out->order = guest->order;
    out->memory = guest->table;
    return 0;
}

static int free_table(void *opaque)
{
    struct guest *guest = opaque;

    free(guest->table);
    *guest = (struct guest){0};
    return 0;
}

static int allocate_table(void *opaque, uint32_t order)
{
    struct guest *guest = opaque;

    free_table(guest);
    guest->table = calloc((size_t)1 << order, 1);
    guest->order = guest->table ? order : 0;
    return guest->table ? 0 : -ENOMEM;
}

static int put(void *opaque, void *stream, const uint8_t *data, size_t len)
{
    (void)opaque;
    return fwrite(data, 1, len, stream) == len ? 0 : -EIO;
}

static int64_t get(void *opaque, void *stream, uint8_t *data, size_t len)
{
    (void)opaque;
    return (int64_t)fread(data, 1, len, stream);
}

static struct SpaprHtab *handle_for(struct guest *guest)
{
    struct SpaprHtab *handle = NULL;
    struct SpaprHtabHost host = {
        .struct_size = sizeof(host),
        .opaque = guest,
        .vm_fd = -1,
        .put = put,
        .get = get,
        .table = describe_table,
        .table_allocate = allocate_table,
        .table_free = free_table,
    };

    return spapr_htab_new(&host, &handle) == 0 ? handle : NULL;
}

/* Says why, if a call failed. */
static int failed(struct SpaprHtab *handle, int result)
{
    char sentence[512];

    if (result < 0) {
        spapr_htab_last_error(handle, sizeof(sentence), sentence);
        fprintf(stderr, "%s\n", sentence);
    }
    return result < 0;
}

int main(void)
{
    struct guest source = {0}, destination = {0};
    struct SpaprHtab *from = handle_for(&source), *to = handle_for(&destination);
    FILE *stream = tmpfile();
    int sections, result;

    if (!from || !to || !stream || allocate_table(&source, 18) < 0) {
        return 1;
    }
    source.table[16 * 5 + 7] = 0x41; /* slot 5 holds a valid entry: 0x01 valid, 0x40 changed */

    /* The source: the table's size, then what there is to send while the guest runs, then the rest. */
    if (failed(from, spapr_htab_save_setup(from, stream))) {
        return 1;
    }
    sections = 1;
    do {
        result = spapr_htab_save_iterate(from, stream, 5000000);
        sections++;
    } while (result == 0);
    if (failed(from, result) || failed(from, spapr_htab_save_complete(from, stream))) {
        return 1;
    }
    sections++;
    spapr_htab_save_cleanup(from);

    /* The destination: each section as it comes. */
    rewind(stream);
    for (; sections > 0; sections--) {
        if (failed(to, spapr_htab_load(to, stream, 1))) {
            return 1;
        }
    }
    spapr_htab_load_cleanup(to);

    source.table[16 * 5 + 7] &= ~0x40;
    result = destination.order == 18 && memcmp(source.table, destination.table, 1 << 18) == 0;
    printf("spapr-htab %s: the tables are %s\n", spapr_htab_version(), result ? "equal" : "DIFFERENT");

    fclose(stream);
    spapr_htab_free(from);
    spapr_htab_free(to);
    free_table(&source);
    free_table(&destination);
    return result ? 0 : 1;
}
