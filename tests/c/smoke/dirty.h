/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guest goes on while its table is saved: a thread that changes it, in bursts, until told to stop. */

#ifndef DEMO_DIRTY_H
#define DEMO_DIRTY_H

#include "guest.h"

#include <spapr_htab.h>

struct dirtier;

/* The guest is the thread's until dirty_stop. `save` tells where the save is; `rate` is changes per second.
 */
struct dirtier *dirty_start(struct guest *guest, const struct SpaprHtab *save, uint64_t rate);

/* Changes of each kind. */
struct dirty_counts {
    uint64_t of[CHANGE_KINDS];
};

/* Returns when the last change is in the kernel's table. */
struct dirty_counts dirty_stop(struct dirtier *dirtier);

#endif
