/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A VM of KVM-HV without vCPUs or memory: nothing but a hash table in the kernel, and the ways to look into
 * it. */

#ifndef DEMO_VM_H
#define DEMO_VM_H

#include "common.h"

#include <sys/types.h>
#include <sys/uio.h>

/* The kernel takes no more segments in one writev. */
#define MAX_SEGMENTS 1024
/* The buffer of the library's reads, and so of the bare ones they are held against: 4096 entries and their
 * header. */
#define READ_BYTES (8 + 16 * 4096)

struct vm {
    char name;
    int fd;
    /* 0 before vm_allocate. */
    uint32_t order;
};

struct vm vm_create(char name);
void vm_destroy(struct vm *vm);

/* Gives the VM an empty table, in place of the one it had. Returns 0 or -errno. */
int vm_allocate(struct vm *vm, uint32_t order);

/* KVM_PPC_GET_HTAB_FD, a second time after what the library does itself. */
int vm_open_to_read(const struct vm *vm);
int vm_open_to_write(const struct vm *vm);

/* The table by the kernel's debug output, which leaves the marks of changes alone. */
struct table vm_dump_by_debugfs(const struct vm *vm);

/* The table by the first pass of an fd of its own. It takes the marks of changes: no save may be under way.
 */
struct table vm_dump_by_fd(const struct vm *vm);

/* Reads a first pass, calling `take` for each read's bytes; NULL to throw them away. */
void vm_read_first_pass(const struct vm *vm, int fd,
                        void (*take)(void *context, const uint8_t *bytes, size_t length), void *context);

/* Writes kernel records, one in each segment (the kernel gets lost in a write of several). */
void vm_write(const struct vm *vm, int fd, const struct iovec *records, int count);

/* Builds a kernel record of `n_valid` entries or, with 0, of one invalid slot; returns its length. */
size_t kernel_record(uint8_t *out, uint64_t slot, const struct hpte *entries, uint16_t n_valid);

/* Walks over kernel records: takes the next header off `*at` and tells where its entries stand. */
struct kernel_run {
    uint32_t index;
    uint16_t n_valid;
    uint16_t n_invalid;
    const uint8_t *entries;
    size_t bytes;
};
struct kernel_run kernel_run_at(const uint8_t *at);
struct hpte kernel_entry(const struct kernel_run *run, uint16_t n);

#endif
