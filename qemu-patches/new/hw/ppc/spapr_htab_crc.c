/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the HPT of a pseries guest should have come as: a subsection of the
 * machine, which the migration core sends and loads after all of the table
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "hw/ppc/spapr.h"
#include "hw/ppc/spapr_htab_rust.h"
#include "migration/colo.h"
#include "migration/vmstate.h"

/* COLO makes it up before it sends what changed */
static bool crc_needed(void *opaque)
{
    SpaprMachineState *spapr = opaque;

    return spapr->rust_htab->crc && !migration_in_colo_state();
}

static int crc_pre_save(void *opaque)
{
    SpaprMachineState *spapr = opaque;
    struct SpaprHtabRust *rust = spapr->rust_htab;

    return spapr_htab_save_sum(rust->handle, sizeof(rust->sent), &rust->sent);
}

static int crc_post_load(void *opaque, int version_id)
{
    SpaprMachineState *spapr = opaque;
    struct SpaprHtabRust *rust = spapr->rust_htab;
    int ret = spapr_htab_load_check(rust->handle, sizeof(rust->sent),
                                    &rust->sent);

    if (!rust->handle) {
        error_report("with x-rust-htab=off the checksum that the source sent of"
                     " its hashed page table cannot be checked");
    } else if (ret < 0) {
        spapr_htab_rust_load_failed(spapr);
    }
    return ret;
}

static const VMStateDescription vmstate_sent = {
    .name = "spapr_htab_crc_sent",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(sent.order, struct SpaprHtabRust),
        VMSTATE_UINT32(sent.crc32, struct SpaprHtabRust),
        VMSTATE_UINT64(sent.records, struct SpaprHtabRust),
        VMSTATE_UINT64(sent.bytes, struct SpaprHtabRust),
        VMSTATE_END_OF_LIST()
    },
};

const VMStateDescription vmstate_spapr_htab_crc = {
    .name = "spapr_htab_crc",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = crc_needed,
    .pre_save = crc_pre_save,
    .post_load = crc_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_STRUCT_POINTER(rust_htab, SpaprMachineState, vmstate_sent,
                               struct SpaprHtabRust),
        VMSTATE_END_OF_LIST()
    },
};
