/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The library with one of our VMs as its host. */

#ifndef DEMO_LIBRARY_H
#define DEMO_LIBRARY_H

#include "stream.h"
#include "vm.h"

#include <spapr_htab.h>

/* `log` says whether its lines are printed. */
struct SpaprHtab *library_new(struct vm *vm, bool log);

/* Hands on a result of the library's; ends the program with the library's sentence if it is an error. */
int library_check(const struct SpaprHtab *handle, const char *call, int result);

/* Loads the section that the stream has taken up, all of it. Returns the nanoseconds that it took. */
uint64_t library_load_section(struct SpaprHtab *handle, struct stream *stream);

/* System calls of this thread so far. */
struct system_calls {
    uint64_t reads;
    uint64_t writes;
};
struct system_calls system_calls(void);

#endif
