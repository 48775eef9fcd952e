/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a Linux guest does to its hash table: where it puts which page, and with what bits. The guest keeps
 * books of its own (a table in memory), so that it knows what there is to remove, and so that the kernel's
 * answer can be checked.
 */

#ifndef DEMO_GUEST_H
#define DEMO_GUEST_H

#include "common.h"
#include "vm.h"

#include <stdbool.h>

struct guest {
    const struct vm *vm;
    int write_fd;
    uint64_t random;
    struct table books;
};

/* What stands in the books. */
struct guest_counts {
    uint64_t entries;
    uint64_t bolted;
    uint64_t secondary;
    uint64_t groups_full;
    uint64_t groups_of_one;
};

struct guest guest_new(const struct vm *vm, uint64_t seed);
void guest_free(struct guest *guest);

/* Fills the empty table as a guest that has been up for a while has it. */
void guest_fill(struct guest *guest);

struct guest_counts guest_count(const struct guest *guest);
uint64_t guest_groups(const struct guest *guest);

/* One change in or near a group, at once in the kernel: a page comes, goes, or gets another protection. */
enum change { CHANGE_NONE, CHANGE_ENTER, CHANGE_REMOVE, CHANGE_PROTECT, CHANGE_KINDS };
enum change guest_change(struct guest *guest, uint64_t group);

/* The books' entry as debugfs shows one that the VM has no memory for. */
struct hpte guest_as_debugfs(struct hpte entry);

#endif
