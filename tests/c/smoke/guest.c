/* SPDX-License-Identifier: GPL-2.0-or-later */

#define _GNU_SOURCE
#include "guest.h"

#include <stdlib.h>
#include <unistd.h>

#define V_VALID UINT64_C(0x01)
#define V_SECONDARY UINT64_C(0x02)
#define V_LARGE UINT64_C(0x04)
#define V_BOLTED UINT64_C(0x10)
#define V_TERABYTE (UINT64_C(1) << 62)

/* Referenced, changed, memory coherent: what Linux enters for ordinary memory that was written to. */
#define R_WRITTEN UINT64_C(0x190)
#define R_READ UINT64_C(0x110)
#define R_DEVICE UINT64_C(0x1a8)
#define R_NO_EXEC UINT64_C(0x04)
/* Page protection: the kernel's alone, everyone reads and writes, everyone reads. */
#define PP_MASK UINT64_C(0x03)
#define PP_KERNEL UINT64_C(0x00)
#define PP_WRITE UINT64_C(0x02)
#define PP_READ UINT64_C(0x03)

/* Segments of 256 MiB and of 1 TiB, pages of 4 KiB; Linux calls a virtual address in units of the latter its
 * VPN. */
#define SEGMENT_SHIFT 28
#define TERABYTE_SHIFT 40
#define VPN_SHIFT 12

#define FIRST_USER_CONTEXT 5
#define CONTEXTS (UINT64_C(1) << 19)

struct page_size {
    unsigned shift;
    uint64_t v;
    uint64_t lp;
};

static const struct page_size PAGE_4K = {.shift = 12};
static const struct page_size PAGE_64K = {.shift = 16, .v = V_LARGE, .lp = 0x1000};
static const struct page_size PAGE_16M = {.shift = 24, .v = V_LARGE};

struct page {
    const struct page_size *size;
    bool terabyte;
    uint64_t vsid;
    uint64_t offset;
};

struct guest guest_new(const struct vm *vm, uint64_t seed)
{
    return (struct guest){
        .vm = vm, .write_fd = vm_open_to_write(vm), .random = seed, .books = table_new(vm->order)};
}

void guest_free(struct guest *guest)
{
    if (close(guest->write_fd) < 0) {
        die("closing the guest's table: %m");
    }
    table_free(&guest->books);
}

uint64_t guest_groups(const struct guest *guest)
{
    return guest->books.slots / GROUP_SLOTS;
}

/* Linux 6.1, arch/powerpc/include/asm/book3s/64/mmu-hash.h: get_vsid and vsid_scramble. */
static struct page page_at(const struct page_size *size, uint64_t context, uint64_t address)
{
    bool terabyte = address >> TERABYTE_SHIFT != 0;
    unsigned shift = terabyte ? TERABYTE_SHIFT : SEGMENT_SHIFT;
    unsigned esid_bits = 49 - shift;
    unsigned vsid_bits = 68 - shift;
    uint64_t proto_vsid = context << esid_bits | ((address >> shift) & ((UINT64_C(1) << esid_bits) - 1));
    return (struct page){
        .size = size,
        .terabyte = terabyte,
        .vsid = proto_vsid * 12538073 % ((UINT64_C(1) << vsid_bits) - 1),
        .offset = address & ((UINT64_C(1) << shift) - 1),
    };
}

/* The same file: hpt_hash. */
static uint64_t page_hash(const struct page *page)
{
    uint64_t hash = page->vsid ^ (page->offset >> page->size->shift);
    return page->terabyte ? hash ^ page->vsid << 25 : hash;
}

/* The same file: hpte_encode_v, hpte_encode_r. */
static struct hpte page_entry(const struct page *page, uint64_t real, uint64_t v, uint64_t r)
{
    unsigned shift = page->terabyte ? TERABYTE_SHIFT : SEGMENT_SHIFT;
    uint64_t vpn = page->vsid << (shift - VPN_SHIFT) | page->offset >> VPN_SHIFT;
    uint64_t frame = real & ~((UINT64_C(1) << page->size->shift) - 1);
    return (struct hpte){
        .v = vpn >> (23 - VPN_SHIFT) << 7 | (page->terabyte ? V_TERABYTE : 0) | page->size->v | V_VALID | v,
        .r = frame | page->size->lp | r,
    };
}

/*
 * As H_ENTER does: the first free slot of the group that the hash names, or else of the one that its
 * complement does. Tells the slot; the table's size if both groups are full.
 */
static uint64_t enter(struct guest *guest, const struct page *page, struct hpte entry)
{
    uint64_t hash = page_hash(page);
    for (int secondary = 0; secondary < 2; secondary++) {
        uint64_t first = (hash & (guest_groups(guest) - 1)) * GROUP_SLOTS;
        for (uint64_t slot = first; slot < first + GROUP_SLOTS; slot++) {
            if (guest->books.hpte[slot].v == 0) {
                entry.v |= secondary ? V_SECONDARY : 0;
                guest->books.hpte[slot] = entry;
                return slot;
            }
        }
        hash = ~hash;
    }
    return guest->books.slots;
}

/* Some process's page of 64 KiB that the hash puts into this group. */
static struct page page_for_group(struct guest *guest, uint64_t group)
{
    for (;;) {
        uint64_t context = FIRST_USER_CONTEXT + random_below(&guest->random, CONTEXTS - FIRST_USER_CONTEXT);
        struct page page = page_at(&PAGE_64K, context, random_below(&guest->random, 64) << SEGMENT_SHIFT);
        page.offset = ((page.vsid ^ group) & (guest_groups(guest) - 1)) << PAGE_64K.shift;
        if (page.offset >> SEGMENT_SHIFT == 0) {
            return page;
        }
    }
}

/* The guest's memory by the rule that gives its table a 128th of it. */
static uint64_t memory_bytes(const struct guest *guest)
{
    return guest->books.slots * sizeof(struct hpte) * 128;
}

static uint64_t some_memory(struct guest *guest)
{
    return random_below(&guest->random, memory_bytes(guest));
}

/* Pages that follow each other at `address`; the memory behind them does where `real` is given. */
static uint64_t map(struct guest *guest, uint64_t context, uint64_t address, uint64_t pages,
                    const uint64_t *real, uint64_t r)
{
    for (uint64_t i = 0; i < pages; i++) {
        struct page page = page_at(&PAGE_64K, context, address + (i << PAGE_64K.shift));
        uint64_t frame = real ? *real + (i << PAGE_64K.shift) : some_memory(guest);
        enter(guest, &page, page_entry(&page, frame, 0, r));
    }
    return pages;
}

/* A few hundred pages: text and libraries that others share, a heap, a stack. */
static uint64_t map_process(struct guest *guest, uint64_t context)
{
    static const uint64_t program = UINT64_C(0x1000000), libraries = UINT64_C(0x4000000);
    uint64_t *random = &guest->random;
    uint64_t pages =
        map(guest, context, UINT64_C(0x100000000), 4 + random_below(random, 24), &program, R_READ | PP_READ);
    pages += map(guest, context, UINT64_C(0x110000000) + (random_below(random, 4096) << 16),
                 20 + random_below(random, 200), NULL, R_WRITTEN | R_NO_EXEC | PP_WRITE);
    pages += map(guest, context, UINT64_C(0x7fff80000000), 30 + random_below(random, 60), &libraries,
                 R_READ | PP_READ);
    pages += map(guest, context, UINT64_C(0x7fffe0000000) + (random_below(random, 4096) << 16),
                 2 + random_below(random, 4), NULL, R_WRITTEN | R_NO_EXEC | PP_WRITE);
    return pages;
}

/* The kernel's own: all memory, bolted, as KVM guests have it in pages of 64 KiB; and a few devices. */
static void map_kernel(struct guest *guest)
{
    for (uint64_t real = 0; real < memory_bytes(guest); real += UINT64_C(1) << PAGE_64K.shift) {
        struct page page = page_at(&PAGE_64K, 1, UINT64_C(0xc000000000000000) | real);
        uint64_t r = R_WRITTEN | PP_KERNEL | (real >> 25 ? R_NO_EXEC : 0);
        enter(guest, &page, page_entry(&page, real, V_BOLTED, r));
    }
    for (uint64_t device = 0; device < 64; device++) {
        struct page page = page_at(&PAGE_4K, 3, UINT64_C(0xc00a000000000000) | device << 12);
        uint64_t real = (UINT64_C(1) << 45) + (device << 12);
        enter(guest, &page, page_entry(&page, real, 0, R_DEVICE | R_NO_EXEC | PP_KERNEL));
    }
}

/* All of the books, in records of neighbours: how the table came to be full is not what is looked at here. */
static void write_books(const struct guest *guest)
{
    const struct table *books = &guest->books;
    /* Longer runs are cut, so that each segment's bytes have a place of their own. */
    enum { RUN = 2 * GROUP_SLOTS };
    static uint8_t bytes[MAX_SEGMENTS][8 + 16 * RUN];
    struct iovec records[MAX_SEGMENTS];
    int count = 0;
    for (uint64_t slot = 0; slot < books->slots;) {
        uint16_t run = 0;
        while (run < RUN && slot + run < books->slots && books->hpte[slot + run].v != 0) {
            run++;
        }
        if (run > 0) {
            size_t length = kernel_record(bytes[count], slot, &books->hpte[slot], run);
            records[count] = (struct iovec){.iov_base = bytes[count], .iov_len = length};
            count++;
        }
        if (count == MAX_SEGMENTS) {
            vm_write(guest->vm, guest->write_fd, records, count);
            count = 0;
        }
        slot += run > 0 ? run : 1;
    }
    if (count > 0) {
        vm_write(guest->vm, guest->write_fd, records, count);
    }
}

void guest_fill(struct guest *guest)
{
    map_kernel(guest);

    /* One process has its heap in huge pages. */
    for (uint64_t huge = 0; huge < 16; huge++) {
        struct page page = page_at(&PAGE_16M, FIRST_USER_CONTEXT, UINT64_C(0x30000000) + (huge << 24));
        enter(guest, &page, page_entry(&page, some_memory(guest), 0, R_WRITTEN | R_NO_EXEC | PP_WRITE));
    }

    /* Bad luck with the hash: full groups, whose last pages went to the secondary group. */
    for (uint64_t hot = 0; hot < guest_groups(guest) / 1024; hot++) {
        uint64_t group = random_below(&guest->random, guest_groups(guest));
        for (int i = 0; i < GROUP_SLOTS + 4; i++) {
            struct page page = page_for_group(guest, group);
            enter(guest, &page, page_entry(&page, some_memory(guest), 0, R_WRITTEN | R_NO_EXEC | PP_WRITE));
        }
    }

    /* Processes, until there is an entry for every other group, as was found in a guest with 512 MiB. */
    uint64_t pages = memory_bytes(guest) >> PAGE_64K.shift;
    for (uint64_t context = FIRST_USER_CONTEXT + 1; pages < guest_groups(guest) / 2; context++) {
        pages += map_process(guest, context);
    }
    write_books(guest);
}

struct guest_counts guest_count(const struct guest *guest)
{
    struct guest_counts counts = {0};
    for (uint64_t group = 0; group < guest_groups(guest); group++) {
        uint64_t in_group = 0;
        for (uint64_t slot = group * GROUP_SLOTS; slot < (group + 1) * GROUP_SLOTS; slot++) {
            uint64_t v = guest->books.hpte[slot].v;
            in_group += v != 0;
            counts.bolted += (v & V_BOLTED) != 0;
            counts.secondary += (v & V_SECONDARY) != 0;
        }
        counts.entries += in_group;
        counts.groups_full += in_group == GROUP_SLOTS;
        counts.groups_of_one += in_group == 1;
    }
    return counts;
}

/* The next entry that may come and go, from the group on; NULL if there is none for a long way. */
static struct hpte *next_entry(struct guest *guest, uint64_t group)
{
    uint64_t start = group * GROUP_SLOTS + random_below(&guest->random, GROUP_SLOTS);
    for (uint64_t i = 0; i < 64 * GROUP_SLOTS; i++) {
        struct hpte *entry = &guest->books.hpte[(start + i) % guest->books.slots];
        if (entry->v != 0 && !(entry->v & V_BOLTED)) {
            return entry;
        }
    }
    return NULL;
}

enum change guest_change(struct guest *guest, uint64_t group)
{
    enum change change =
        CHANGE_ENTER + (enum change)random_below(&guest->random, CHANGE_KINDS - CHANGE_ENTER);
    struct hpte *entry = change == CHANGE_ENTER ? NULL : next_entry(guest, group);
    uint64_t slot;
    if (!entry) {
        change = CHANGE_ENTER;
        struct page page = page_for_group(guest, group);
        slot = enter(guest, &page, page_entry(&page, some_memory(guest), 0, R_READ | R_NO_EXEC | PP_WRITE));
        if (slot == guest->books.slots) {
            return CHANGE_NONE;
        }
        entry = &guest->books.hpte[slot];
    } else if (change == CHANGE_REMOVE) {
        *entry = (struct hpte){0};
    } else {
        /* A fork takes the right to write away, a fault gives it back and finds the page changed. */
        bool writable = (entry->r & PP_MASK) == PP_WRITE;
        entry->r = (entry->r & ~PP_MASK) | (writable ? PP_READ : PP_WRITE | R_WRITTEN);
    }
    slot = (uint64_t)(entry - guest->books.hpte);
    uint8_t bytes[8 + 16];
    size_t length = kernel_record(bytes, slot, entry, entry->v != 0 ? 1 : 0);
    vm_write(guest->vm, guest->write_fd, &(struct iovec){.iov_base = bytes, .iov_len = length}, 1);
    return change;
}

struct hpte guest_as_debugfs(struct hpte entry)
{
    if (entry.v == 0) {
        return entry;
    }
    /* ISA 3.0 has the segment size elsewhere, and without memory an entry is absent (0x20) rather than valid.
     */
    return (struct hpte){.v = (entry.v & UINT64_C(0x000fffffffffff9e)) | 0x20, .r = entry.r};
}
