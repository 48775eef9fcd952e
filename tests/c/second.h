/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The model of the kernel's HPT file descriptor, for C: what tests/c/second exports, documented there.
 *
 * The functions named like callbacks of SpaprHtabHost can serve as such, with the model as the opaque
 * pointer.
 */
#ifndef SECOND_H
#define SECOND_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

void *model_new(uint32_t order);
void model_free(void *model);
int model_allocate(void *model, uint32_t order);
void model_switch_to_radix(void *model);

int model_open_fd(void *model, uint64_t flags, uint64_t start_index);
int64_t model_read_fd(void *model, int fd, uint8_t *data, size_t len);
int64_t model_writev_fd(void *model, int fd, const struct iovec *data, int count);
void model_close_fd(void *model, int fd);
uint32_t model_open_fds(const void *model);

uint64_t model_clock_ns(void *model);
void model_set_costs(void *model, uint64_t call_ns, uint64_t slot_ns, uint64_t entry_ns);

int model_enter(void *model, uint64_t slot, uint64_t v, uint64_t r);
int model_remove(void *model, uint64_t slot);
int model_touch(void *model, uint64_t slot, uint64_t rc);
int model_get(const void *model, uint64_t slot, uint64_t *v, uint64_t *r);
uint64_t model_entries(const void *model);
int64_t model_difference(const void *one, const void *other);
void model_set_vcpus_running(void *model, int running);
int model_fail(void *model, int call, uint64_t nth, int error, size_t len);

int second_catch_panic(void);

#endif
