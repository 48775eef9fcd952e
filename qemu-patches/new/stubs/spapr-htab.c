/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-machine.h"

SpaprHptInfo *qmp_x_query_spapr_htab(Error **errp)
{
    error_setg(errp, "Only pseries machines have a hashed page table");
    return NULL;
}
