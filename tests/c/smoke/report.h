/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What came of it: as tables for a person and as JSON for a program. */

#ifndef DEMO_REPORT_H
#define DEMO_REPORT_H

#include "dirty.h"
#include "floor.h"
#include "library.h"

/* What the second VM's table has wrong, slot by slot. */
struct difference {
    uint64_t lost;
    uint64_t extra;
    uint64_t different;
};

struct outcome {
    uint32_t order;
    uint64_t seed;
    uint64_t rate;
    int64_t max_ns;
    /* The slot where the save was when the guest was stopped. */
    uint64_t stopped_at;
    struct guest_counts filled;
    struct dirty_counts changed;

    struct SpaprHtabStats saved;
    struct SpaprHtabPass *passes;
    uint64_t setup_ns;
    uint64_t complete_ns;
    struct system_calls save_calls;

    struct SpaprHtabStats loaded;
    uint64_t sections;
    uint64_t load_ns;
    struct system_calls load_calls;

    struct floor floor;
    struct difference by_debugfs;
    struct difference by_fd;
};

/* Whether the second table is the first, by either way of looking. */
struct difference outcome_difference(const struct outcome *outcome);

/* Whether that is nothing, and the streams' sums agree. */
bool outcome_same(const struct outcome *outcome);

void report_print(const struct outcome *outcome);

/* One line, which begins with the word @json. */
void report_json(const struct outcome *outcome);

/* A number with its thousands apart; in one of a few places that are used in turn. */
const char *grouped(uint64_t number);

#endif
