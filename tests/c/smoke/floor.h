/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What saving and loading cost without a library: a bare loop of read() over a first pass, and of writev() of
 * the same records into an empty table. Nothing that goes through the kernel's fd can be faster, so the
 * library is held against it.
 */

#ifndef DEMO_FLOOR_H
#define DEMO_FLOOR_H

#include "vm.h"

/* Nanoseconds; the best of a few rounds each, as the machine has other things to do, too. */
struct floor {
    uint64_t bare_reads;
    uint64_t save;
    uint64_t bare_writes;
    uint64_t load;
};

/*
 * `source` has the table, which nobody changes or saves meanwhile; `target` is anyone's. The library's side
 * is one first pass without a time limit, the save's to a stream that keeps nothing.
 */
struct floor floor_measure(struct vm *source, struct vm *target);

#endif
