/* SPDX-License-Identifier: GPL-2.0-or-later */

#define _GNU_SOURCE
#include "dirty.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

/* As many changes as come in this time come at once. */
#define BURST_NS 4000000
/* How near to the save's position a change has to be to count as near. */
#define NEAR_GROUPS 64

struct dirtier {
    struct guest *guest;
    const struct SpaprHtab *save;
    uint64_t rate;
    atomic_bool stop;
    /* The thread's alone until it is joined. */
    struct dirty_counts counts;
    pthread_t thread;
};

/* Where the save is in its first pass, whose records leave no slot out; later on nobody tells. */
static uint64_t save_position(const struct dirtier *dirtier)
{
    struct SpaprHtabStats stats;
    int error = spapr_htab_stats(dirtier->save, sizeof stats, &stats);
    if (error < 0) {
        die("the dirtier asks for statistics: error %d", -error);
    }
    uint64_t slots = stats.save_total.valid + stats.save_total.invalid;
    return slots < dirtier->guest->books.slots ? slots / GROUP_SLOTS : 0;
}

/*
 * Half of the changes happen anywhere. The others happen where a save could go wrong: just behind and just
 * ahead of it, in the first and last groups, and again and again in the same few.
 */
static uint64_t choose_group(struct dirtier *dirtier)
{
    uint64_t *random = &dirtier->guest->random;
    uint64_t groups = guest_groups(dirtier->guest);
    uint64_t position;
    switch (random_below(random, 8)) {
    case 0:
    case 1:
        position = save_position(dirtier) + random_below(random, 2 * NEAR_GROUPS);
        return (position + groups - NEAR_GROUPS) % groups;
    case 2:
        return (groups - 4 + random_below(random, 8)) % groups;
    case 3:
        return groups / 2 + random_below(random, 4);
    default:
        return random_below(random, groups);
    }
}

static void *run(void *argument)
{
    struct dirtier *dirtier = argument;
    uint64_t next = now_ns();
    while (!atomic_load(&dirtier->stop)) {
        uint64_t most = 1 + 2 * dirtier->rate * BURST_NS / 1000000000;
        uint64_t burst = 1 + random_below(&dirtier->guest->random, most);
        for (uint64_t i = 0; i < burst; i++) {
            dirtier->counts.of[guest_change(dirtier->guest, choose_group(dirtier))]++;
        }
        next += burst * 1000000000 / dirtier->rate;
        sleep_until(next);
    }
    return NULL;
}

struct dirtier *dirty_start(struct guest *guest, const struct SpaprHtab *save, uint64_t rate)
{
    struct dirtier *dirtier = allocate(1, sizeof *dirtier);
    dirtier->guest = guest;
    dirtier->save = save;
    dirtier->rate = rate;
    errno = rate > 0 ? pthread_create(&dirtier->thread, NULL, run, dirtier) : 0;
    if (errno != 0) {
        die("starting the dirtier: %m");
    }
    return dirtier;
}

struct dirty_counts dirty_stop(struct dirtier *dirtier)
{
    atomic_store(&dirtier->stop, true);
    errno = dirtier->rate > 0 ? pthread_join(dirtier->thread, NULL) : 0;
    if (errno != 0) {
        die("stopping the dirtier: %m");
    }
    struct dirty_counts counts = dirtier->counts;
    free(dirtier);
    return counts;
}
