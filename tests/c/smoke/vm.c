/* SPDX-License-Identifier: GPL-2.0-or-later */

#define _GNU_SOURCE
#include "vm.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define WRITE_FLAG 2

/* Bit 62 of the guest's second doubleword is the kernel's mark of a change that an fd has not told yet. */
#define KERNEL_MODIFIED (UINT64_C(1) << 62)

struct vm vm_create(char name)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0) {
        die("/dev/kvm: %m");
    }
    struct vm vm = {.name = name, .fd = ioctl(kvm, KVM_CREATE_VM, KVM_VM_PPC_HV)};
    if (vm.fd < 0) {
        die("a VM of KVM-HV: %m");
    }
    if (ioctl(vm.fd, KVM_CHECK_EXTENSION, KVM_CAP_PPC_HTAB_FD) <= 0) {
        die("this kernel does not have KVM_PPC_GET_HTAB_FD");
    }
    if (close(kvm) < 0) {
        die("closing /dev/kvm: %m");
    }
    return vm;
}

void vm_destroy(struct vm *vm)
{
    if (close(vm->fd) < 0) {
        die("closing VM %c: %m", vm->name);
    }
    vm->fd = -1;
}

int vm_allocate(struct vm *vm, uint32_t order)
{
    uint32_t got = order;
    if (ioctl(vm->fd, KVM_PPC_ALLOCATE_HTAB, &got) < 0) {
        return -errno;
    }
    /* The kernel may settle for less. */
    if (got != order) {
        return -ENOMEM;
    }
    vm->order = order;
    return 0;
}

static int open_htab(const struct vm *vm, uint64_t flags)
{
    struct kvm_get_htab_fd ask = {.flags = flags};
    int fd = ioctl(vm->fd, KVM_PPC_GET_HTAB_FD, &ask);
    if (fd < 0) {
        die("opening the table of VM %c: %m", vm->name);
    }
    return fd;
}

int vm_open_to_read(const struct vm *vm)
{
    return open_htab(vm, 0);
}

int vm_open_to_write(const struct vm *vm)
{
    return open_htab(vm, WRITE_FLAG);
}

struct table vm_dump_by_debugfs(const struct vm *vm)
{
    struct table table = table_new(vm->order);
    char path[64];
    snprintf(path, sizeof path, "/sys/kernel/debug/kvm/%d-%d/htab", (int)getpid(), vm->fd);
    FILE *file = fopen(path, "r");
    if (!file) {
        die("%s: %m", path);
    }
    char line[128];
    while (fgets(line, sizeof line, file)) {
        /* The slot, then v, the r that the hardware would see, and the r that the guest gave: all
         * hexadecimal. */
        char *end;
        uint64_t slot = strtoull(line, &end, 16);
        uint64_t v = strtoull(end, &end, 16);
        strtoull(end, &end, 16);
        uint64_t r = strtoull(end, &end, 16);
        if (*end != '\n' || slot >= table.slots || v == 0) {
            die("%s: what is this? %s", path, line);
        }
        table.hpte[slot] = (struct hpte){.v = v, .r = r & ~KERNEL_MODIFIED};
    }
    if (ferror(file) || fclose(file) != 0) {
        die("reading %s: %m", path);
    }
    return table;
}

void vm_read_first_pass(const struct vm *vm, int fd,
                        void (*take)(void *context, const uint8_t *bytes, size_t length), void *context)
{
    static uint8_t buffer[READ_BYTES];
    ssize_t got;
    do {
        got = read(fd, buffer, sizeof buffer);
        if (got < 0) {
            die("reading the table of VM %c: %m", vm->name);
        }
        if (take && got > 0) {
            take(context, buffer, (size_t)got);
        }
        /* With room left for another record the read ended at the table's end. */
    } while ((size_t)got + 24 >= sizeof buffer);
}

static void take_into_table(void *context, const uint8_t *bytes, size_t length)
{
    struct table *table = context;
    const uint8_t *end = bytes + length;
    while (bytes < end) {
        struct kernel_run run = kernel_run_at(bytes);
        if (run.bytes > (size_t)(end - bytes) ||
            (uint64_t)run.index + run.n_valid + run.n_invalid > table->slots) {
            die("the kernel's record {%u, %u, %u} makes no sense", run.index, run.n_valid, run.n_invalid);
        }
        for (uint16_t n = 0; n < run.n_valid; n++) {
            table->hpte[run.index + n] = kernel_entry(&run, n);
        }
        bytes += run.bytes;
    }
}

struct table vm_dump_by_fd(const struct vm *vm)
{
    struct table table = table_new(vm->order);
    int fd = vm_open_to_read(vm);
    vm_read_first_pass(vm, fd, take_into_table, &table);
    if (close(fd) < 0) {
        die("closing the table of VM %c: %m", vm->name);
    }
    return table;
}

void vm_write(const struct vm *vm, int fd, const struct iovec *records, int count)
{
    ssize_t gave = 0;
    for (int i = 0; i < count; i++) {
        gave += (ssize_t)records[i].iov_len;
    }
    ssize_t took = writev(fd, records, count);
    if (took < 0) {
        die("writing to the table of VM %c: %m", vm->name);
    }
    if (took != gave) {
        die("the table of VM %c took %zd of %zd bytes", vm->name, took, gave);
    }
}

size_t kernel_record(uint8_t *out, uint64_t slot, const struct hpte *entries, uint16_t n_valid)
{
    struct kvm_get_htab_header header = {
        .index = (uint32_t)slot, .n_valid = n_valid, .n_invalid = n_valid == 0 ? 1 : 0};
    memcpy(out, &header, sizeof header);
    uint8_t *at = out + sizeof header;
    for (uint16_t n = 0; n < n_valid; n++, at += 16) {
        uint64_t words[2] = {htobe64(entries[n].v), htobe64(entries[n].r)};
        memcpy(at, words, sizeof words);
    }
    return (size_t)(at - out);
}

struct kernel_run kernel_run_at(const uint8_t *at)
{
    struct kvm_get_htab_header header;
    memcpy(&header, at, sizeof header);
    return (struct kernel_run){
        .index = header.index,
        .n_valid = header.n_valid,
        .n_invalid = header.n_invalid,
        .entries = at + sizeof header,
        .bytes = sizeof header + (size_t)16 * header.n_valid,
    };
}

struct hpte kernel_entry(const struct kernel_run *run, uint16_t n)
{
    uint64_t words[2];
    memcpy(words, run->entries + (size_t)16 * n, sizeof words);
    return (struct hpte){.v = be64toh(words[0]), .r = be64toh(words[1])};
}
