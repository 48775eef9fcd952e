/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the monitor shows of the library spapr-htab
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-machine.h"
#include "qemu/error-report.h"
#include "hw/boards.h"
#include "hw/ppc/spapr.h"
#include "hw/ppc/spapr_htab_rust.h"
#include "monitor/monitor.h"

static SpaprHtab *current_handle(Error **errp)
{
    Object *machine = object_dynamic_cast(OBJECT(current_machine),
                                          TYPE_SPAPR_MACHINE);

    if (!machine) {
        error_setg(errp, "Only pseries machines have a hashed page table");
        return NULL;
    }
    if (!SPAPR_MACHINE(machine)->rust_htab->handle) {
        error_setg(errp, "The machine has x-rust-htab=off");
    }
    return SPAPR_MACHINE(machine)->rust_htab->handle;
}

static SpaprHptPass *pass_info(const SpaprHtabPass *pass)
{
    SpaprHptPass *info = g_new0(SpaprHptPass, 1);

    info->records = pass->records;
    info->valid = pass->valid;
    info->invalid = pass->invalid;
    info->bytes = pass->bytes;
    info->time_ns = pass->time_ns;
    return info;
}

SpaprHptInfo *qmp_x_query_spapr_htab(Error **errp)
{
    SpaprHtab *handle = current_handle(errp);
    SpaprHtabStats stats;
    SpaprHtabPass pass;
    SpaprHptInfo *info;
    SpaprHptPassList **tail;
    uint64_t i;

    if (!handle) {
        return NULL;
    }
    spapr_htab_stats(handle, sizeof(stats), &stats);

    info = g_new0(SpaprHptInfo, 1);
    info->version = g_strdup(spapr_htab_version());
    info->save_order = stats.save_order;
    info->save_crc32 = stats.save_crc32;
    info->save_pending = stats.save_pending;
    info->save_total = pass_info(&stats.save_total);
    info->save_stopped = pass_info(&stats.save_stopped);
    info->save_looked_up = pass_info(&stats.save_looked_up);
    info->load_total = pass_info(&stats.load_total);
    info->load_sections = stats.load_sections;
    info->load_demoted = stats.load_demoted;
    info->load_crc32 = stats.load_crc32;
    tail = &info->save_passes;
    for (i = 1; i <= stats.save_passes; i++) {
        if (spapr_htab_pass(handle, i, sizeof(pass), &pass) < 0) {
            break;
        }
        QAPI_LIST_APPEND(tail, pass_info(&pass));
    }
    return info;
}

void hmp_info_spapr_htab(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;
    SpaprHtab *handle = current_handle(&err);
    g_autofree char *text = NULL;
    size_t size;

    if (!handle) {
        error_report_err(err);
        return;
    }
    size = spapr_htab_describe(handle, 0, NULL) + 1;
    text = g_malloc(size);
    spapr_htab_describe(handle, size, text);
    monitor_printf(mon, "%s", text);
}
