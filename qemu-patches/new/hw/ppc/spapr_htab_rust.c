/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The HPT of a pseries guest in a migration, through the library spapr-htab
 *
 * The library reads and writes the bodies of the section "spapr/htab"; here
 * are the handlers that the migration core calls, and what the library asks
 * of QEMU in turn: the stream, the guest's table and where to put the log.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
%if qemu < 10.0
#include "qemu/main-loop.h"
%end
#include "qemu/units.h"
#include "hw/ppc/spapr.h"
#include "hw/ppc/spapr_htab_rust.h"
#include "migration/migration.h"
#include "migration/misc.h"
%if qemu >= 10.0
#include "migration/client-options.h"
%end
#include "migration/qemu-file.h"
#include "migration/register.h"
#include "migration/vmstate.h"
%if patch >= 6
#include "monitor/monitor.h"
%end
%if qemu >= 10.0
#include "system/kvm.h"
#include "system/runstate.h"
%else
#include "sysemu/kvm.h"
#include "sysemu/runstate.h"
%end
#include "kvm_ppc.h"
#include "mmu-book3s-v3.h"
#include "trace.h"

/* What one call of the iterate handler may take, as in QEMU's own */
#define MAX_ITERATION_NS    5000000 /* 5 ms */

/* KVM_GET_HTAB_WRITE, which only builds with KVM know by that name */
#define HTAB_FD_WRITE       2

/*
 * Why a callback failed, in QEMU's words.  The library returns to set_error()
 * in the thread that it called back in.
 */
static __thread Error *host_error;

static void forget_host_error(void)
{
    error_free(host_error);
    host_error = NULL;
}

/* What the library last failed with */
static void set_error(SpaprMachineState *spapr, Error **errp)
{
    char sentence[512];

    if (host_error) {
        error_propagate_prepend(errp, host_error, "spapr/htab: ");
        host_error = NULL;
        return;
    }
    spapr_htab_last_error(spapr->rust_htab->handle, sizeof(sentence), sentence);
    error_setg(errp, "%s", sentence);
}

/*
 * What the library calls.  Those for the stream run on the thread and under
 * the locks that the migration core called the handler with: load in a
 * coroutine, where get may yield; iterate without the BQL.
 */

static int htab_put(void *opaque, void *stream, const uint8_t *data, size_t len)
{
    qemu_put_buffer(stream, data, len);
    return qemu_file_get_error(stream);
}

static int htab_rate_limited(void *opaque, void *stream)
{
%if qemu >= 10.0
    return migration_rate_exceeded(stream);
%else
    return qemu_file_rate_limit(stream);
%end
}

%if qemu >= 10.0
static int64_t coroutine_mixed_fn htab_get(void *opaque, void *stream,
                                           uint8_t *data, size_t len)
%else
static int64_t htab_get(void *opaque, void *stream, uint8_t *data, size_t len)
%end
{
    return qemu_get_buffer(stream, data, len);
}

static int htab_stream_error(void *opaque, void *stream)
{
    return qemu_file_get_error(stream);
}

static int htab_table(void *opaque, SpaprHtabTable *out)
{
    SpaprMachineState *spapr = opaque;

    out->order = spapr->htab_shift;
    out->memory = spapr->htab;
    /* On a host in radix mode a guest that reboots from hash keeps the order */
    if (!spapr->htab_shift || (spapr->patb_entry & PATE1_GR)) {
        out->kind = SPAPR_HTAB_TABLE_NONE;
    } else if (spapr->htab) {
        out->kind = SPAPR_HTAB_TABLE_MEMORY;
    } else {
        out->kind = SPAPR_HTAB_TABLE_KERNEL;
    }
    return 0;
}

/*
 * The two below replace the table at the library's own wish.  Not through
 * the functions that tell the library so: it is inside a call already.
 */
static int htab_table_allocate(void *opaque, uint32_t order)
{
    uint64_t memory = MACHINE(opaque)->maxram_size;
    int ret;

    forget_host_error();
    /* The usual table is a 128th of the memory: this one is of another kind */
    if (1ULL << order > MAX(memory, 1ULL << 18)) {
        error_setg(&host_error, "the source's hash table of order %u (%llu MiB)"
                   " is larger than all memory this machine may have (%" PRIu64
                   " MiB)", order, (1ULL << order) / MiB, memory / MiB);
        error_append_hint(&host_error,
                          "Start both sides with the same -m and maxmem.\n");
        return -EFBIG;
    }

    ret = spapr_do_reallocate_hpt(opaque, order, &host_error);
    if (ret < 0 && kvm_enabled()) {
        error_append_hint(&host_error, "KVM takes an HPT in one piece from what"
                          " the host reserved at its start: see the kernel's"
                          " kvm_cma_resv_ratio.\n");
    }
    return ret;
}

static int htab_table_free(void *opaque)
{
    spapr_do_free_hpt(opaque);
    return 0;
}

static int htab_open_fd(void *opaque, uint64_t flags, uint64_t start_index)
{
    forget_host_error();
    return kvmppc_get_htab_fd(flags & HTAB_FD_WRITE, start_index, &host_error);
}

static void htab_log(void *opaque, int level, const char *line)
{
    trace_spapr_htab_log(level, line);
    /* What fails is returned as well */
    if (level == 2) {
        warn_report("%s", line);
    }
}

/* What the migration core calls */

/*
 * The migration core shows the error that it was told first.  It is told here,
 * as the stream, if that is what failed, keeps an error of its own that does
 * not say what was sent.
 */
static void save_failed(SpaprMachineState *spapr, QEMUFile *f, int ret)
{
    MigrationState *s = migrate_get_current();
    Error *err = NULL;
    Error *stream_err = NULL;

    set_error(spapr, &err);
    if (runstate_check(RUN_STATE_SAVE_VM)) {
        /* An error left in the migration's state fails the next loadvm */
        error_report_err(err);
        qemu_file_set_error(f, ret);
        return;
    }
    qemu_file_get_error_obj(f, &stream_err);
    if (stream_err) {
        error_prepend(&stream_err, "%s: ", error_get_pretty(err));
        error_free(err);
        err = stream_err;
    }
    /* A migration that is being cancelled has no error */
    if (s->state != MIGRATION_STATUS_CANCELLING) {
        migrate_set_error(s, err);
    }
    qemu_file_set_error_obj(f, ret, err);
}

%if qemu >= 10.0
static int rust_htab_save_setup(QEMUFile *f, void *opaque, Error **errp)
{
    SpaprMachineState *spapr = opaque;
    int ret;

%else
static int rust_htab_save_setup(QEMUFile *f, void *opaque)
{
    SpaprMachineState *spapr = opaque;
    bool locked = qemu_mutex_iothread_locked();
    int ret;

    /* A reset must not replace the table while it is being looked up */
    if (!locked) {
        qemu_mutex_lock_iothread();
    }
%end
    /* The HPT of a guest that goes on is another than its registers' */
    if (spapr->htab_shift && migrate_background_snapshot() &&
        !runstate_check(RUN_STATE_SAVE_VM)) {
        error_setg(&host_error, "a guest with a hashed page table cannot go on"
                   " while it is saved (background-snapshot)");
        ret = -ENOTSUP;
    } else {
        ret = spapr_htab_save_setup(spapr->rust_htab->handle, f);
    }
    trace_spapr_htab_save_setup(spapr->htab_shift, ret);
%if qemu >= 10.0
    if (ret < 0) {
        set_error(spapr, errp);
    }
%else
    if (ret < 0) {
        save_failed(spapr, f, ret);
    }
    if (!locked) {
        qemu_mutex_unlock_iothread();
    }
%end
    return ret;
}

static int rust_htab_save_iterate(QEMUFile *f, void *opaque)
{
    SpaprMachineState *spapr = opaque;
    int ret = spapr_htab_save_iterate(spapr->rust_htab->handle, f,
                                      MAX_ITERATION_NS);

    trace_spapr_htab_save_iterate(ret);
    if (ret < 0) {
        /* The core finds the stream's error itself, and knows a cancel */
        int stream_ret = qemu_file_get_error(f);

        save_failed(spapr, f, ret);
        return stream_ret ? 0 : ret;
    }
    return ret;
}

static int rust_htab_save_complete(QEMUFile *f, void *opaque)
{
    SpaprMachineState *spapr = opaque;
    SpaprHtab *handle = spapr->rust_htab->handle;
    int ret;

%if qemu >= 10.2
    if (migration_in_postcopy()) {
        /* The guest runs on the destination, with a table of its own */
        ret = spapr_htab_save_complete_again(handle, f);
    } else {
        ret = spapr_htab_save_complete(handle, f);
    }
%else
    ret = spapr_htab_save_complete(handle, f);
%end
    trace_spapr_htab_save_complete(ret);
    if (ret < 0) {
        save_failed(spapr, f, ret);
    }
    return ret;
}

static void rust_htab_save_cleanup(void *opaque)
{
    SpaprMachineState *spapr = opaque;

    trace_spapr_htab_save_cleanup();
    spapr_htab_save_cleanup(spapr->rust_htab->handle);
}

%if qemu >= 10.0
/* The estimate is cheap and there is no better one */
static void rust_htab_state_pending(void *opaque, uint64_t *must_precopy,
                                    uint64_t *can_postcopy)
%else
static void rust_htab_state_pending(QEMUFile *f, void *opaque,
                                    uint64_t threshold_size,
                                    uint64_t *must_precopy,
                                    uint64_t *res_compatible,
                                    uint64_t *can_postcopy)
%end
{
    SpaprMachineState *spapr = opaque;
    uint64_t pending = 0;

    spapr_htab_save_pending(spapr->rust_htab->handle, &pending);
    trace_spapr_htab_state_pending(pending);
    *must_precopy += pending;
}

/*
 * An incoming migration keeps the error for query-migrate, and prints it where
 * it ends QEMU.  A loadvm would take an error left there for its own.
 */
void spapr_htab_rust_load_failed(SpaprMachineState *spapr)
{
    Error *err = NULL;

    set_error(spapr, &err);
%if qemu >= 10.0
    if (runstate_check(RUN_STATE_INMIGRATE) ||
        migration_in_incoming_postcopy()) {
        migrate_set_error(migrate_get_current(), err);
        error_free(err);
        return;
    }
%end
    error_report_err(err);
}

static int rust_htab_load(QEMUFile *f, void *opaque, int version_id)
{
    SpaprMachineState *spapr = opaque;
    SpaprHtab *handle = spapr->rust_htab->handle;
    int ret;

    /*
     * The guest may have run by now, and its table is the newer one.  QEMU
     * 10.2 ends the section again at the end of postcopy.
     */
    if (migration_in_incoming_postcopy()) {
        ret = spapr_htab_load_discard(handle, f, version_id);
    } else {
        ret = spapr_htab_load(handle, f, version_id);
    }
    trace_spapr_htab_load(version_id, ret);
    if (ret < 0) {
        spapr_htab_rust_load_failed(spapr);
    }
    return ret;
}

static int rust_htab_load_cleanup(void *opaque)
{
    SpaprMachineState *spapr = opaque;

    return spapr_htab_load_cleanup(spapr->rust_htab->handle);
}

static const SaveVMHandlers rust_htab_handlers = {
    .save_setup = rust_htab_save_setup,
    .save_live_iterate = rust_htab_save_iterate,
%if qemu >= 10.2
    .save_complete = rust_htab_save_complete,
%else
    .save_live_complete_precopy = rust_htab_save_complete,
%end
    .save_cleanup = rust_htab_save_cleanup,
%if qemu >= 10.0
    .state_pending_estimate = rust_htab_state_pending,
    .state_pending_exact = rust_htab_state_pending,
%else
    .save_live_pending = rust_htab_state_pending,
%end
    .load_state = rust_htab_load,
    .load_cleanup = rust_htab_load_cleanup,
};

/*
 * All processors stand when this is told that the guest has stopped, and none
 * goes on before it was told so: what is read in between is read for good.
 */
static void vm_state_changed(void *opaque, bool running, RunState state)
{
    SpaprMachineState *spapr = opaque;

    spapr_htab_vm_state(spapr->rust_htab->handle, running);
}

/*
 * KVM takes changed pages from the HPT for its dirty log: what was read of a
 * stopped guest before RAM's last look at the log is not for good.
 */
%if qemu >= 10.0
static int precopy_step(NotifierWithReturn *notifier, void *data, Error **errp)
%else
static int precopy_step(NotifierWithReturn *notifier, void *data)
%end
{
    struct SpaprHtabRust *rust =
        container_of(notifier, struct SpaprHtabRust, precopy);
    PrecopyNotifyData *step = data;

    if (step->reason == PRECOPY_NOTIFY_AFTER_BITMAP_SYNC) {
        spapr_htab_dirty_log_read(rust->handle);
    }
    return 0;
}

static bool can_be_set(Error **errp)
{
    if (phase_check(PHASE_MACHINE_INITIALIZED)) {
        error_setg(errp, "it can be set only when the machine is made");
        return false;
    }
    return true;
}

static bool get_enabled(Object *obj, Error **errp)
{
    return SPAPR_MACHINE(obj)->rust_htab->enabled;
}

static void set_enabled(Object *obj, bool value, Error **errp)
{
    if (can_be_set(errp)) {
        SPAPR_MACHINE(obj)->rust_htab->enabled = value;
    }
}
%if patch >= 7

static bool get_crc(Object *obj, Error **errp)
{
    return SPAPR_MACHINE(obj)->rust_htab->crc;
}

static void set_crc(Object *obj, bool value, Error **errp)
{
    if (can_be_set(errp)) {
        SPAPR_MACHINE(obj)->rust_htab->crc = value;
    }
}
%end

void spapr_htab_rust_class_init(ObjectClass *oc)
{
    object_class_property_add_bool(oc, "x-rust-htab", get_enabled, set_enabled);
    object_class_property_set_description(oc, "x-rust-htab",
        "Migrate the hashed page table through the library spapr-htab, not"
        " QEMU's own code");
%if patch >= 7
    object_class_property_add_bool(oc, "x-htab-crc", get_crc, set_crc);
    object_class_property_set_description(oc, "x-htab-crc",
        "Send a checksum of the hashed page table, which the destination checks"
        " before the guest runs there");
%end
}

void spapr_htab_rust_instance_init(SpaprMachineState *spapr)
{
    spapr->rust_htab = g_new0(struct SpaprHtabRust, 1);
    spapr->rust_htab->enabled = true;
}

void spapr_htab_rust_instance_finalize(SpaprMachineState *spapr)
{
    struct SpaprHtabRust *rust = spapr->rust_htab;

    if (rust->handle) {
        precopy_remove_notifier(&rust->precopy);
        qemu_del_vm_change_state_handler(rust->vm_state);
    }
    spapr_htab_free(rust->handle);
    g_free(rust);
}

bool spapr_htab_rust_register(SpaprMachineState *spapr)
{
    struct SpaprHtabRust *rust = spapr->rust_htab;
    SpaprHtabHost host = {
        .struct_size = sizeof(host),
        .opaque = spapr,
        .vm_fd = -1,
        /*
         * KVM-PR changes the table in QEMU's memory without the dirty bit.
         * TCG sets it, and needs no second table to compare with.  A read of
         * the table in KVM-HV takes as long as the table is large: a thread
         * makes it, so that neither RAM nor the guest waits.  A write has as
         * many records as fit; spapr_htab_rust_load_finish() ends it.
         */
        .flags = kvm_enabled() ? SPAPR_HTAB_COMPARE | SPAPR_HTAB_READ_AHEAD |
                                 SPAPR_HTAB_GATHER : 0,
        .put = htab_put,
        .rate_limited = htab_rate_limited,
        .get = htab_get,
        .stream_error = htab_stream_error,
        .table = htab_table,
        .table_allocate = htab_table_allocate,
        .table_free = htab_table_free,
        .open_fd = htab_open_fd,
        .log = htab_log,
        .log_level = 4,
    };

%if patch >= 6
    monitor_register_hmp("spapr-htab", true, hmp_info_spapr_htab);
%end
    if (!rust->enabled) {
%if patch >= 7
        if (rust->crc) {
            error_report("x-htab-crc=on needs x-rust-htab=on: QEMU's own code"
                         " has no checksum");
            exit(1);
        }
%end
        return false;
    }
    if (spapr_htab_abi_version() != SPAPR_HTAB_ABI_VERSION ||
        spapr_htab_new(&host, &rust->handle) < 0) {
        error_report("the library spapr-htab %s does not fit this QEMU",
                     spapr_htab_version());
        exit(1);
    }
    rust->vm_state = qemu_add_vm_change_state_handler(vm_state_changed, spapr);
    rust->precopy.notify = precopy_step;
    precopy_add_notifier(&rust->precopy);
    register_savevm_live("spapr/htab", VMSTATE_INSTANCE_ID_ANY, 1,
                         &rust_htab_handlers, spapr);
    return true;
}

int spapr_htab_rust_load_finish(SpaprMachineState *spapr)
{
    SpaprHtab *handle = spapr->rust_htab->handle;
    int ret = handle ? spapr_htab_load_finish(handle) : 0;

    trace_spapr_htab_load_finish(ret);
    if (ret < 0) {
        spapr_htab_rust_load_failed(spapr);
    }
    return ret;
}

void spapr_htab_rust_quiesce(SpaprMachineState *spapr)
{
    if (spapr->rust_htab->handle) {
        trace_spapr_htab_quiesce(spapr->htab_shift);
        spapr_htab_quiesce(spapr->rust_htab->handle);
    }
}

/* What fails in these fails the migration at its next step */

void spapr_htab_rust_resume(SpaprMachineState *spapr)
{
    if (spapr->rust_htab->handle) {
        int ret = spapr_htab_resume(spapr->rust_htab->handle);

        forget_host_error();
        trace_spapr_htab_resume(spapr->htab_shift, ret);
    }
}
%if patch >= 3

void spapr_htab_rust_resume_unchanged(SpaprMachineState *spapr)
{
    if (spapr->rust_htab->handle) {
        int ret = spapr_htab_resume_unchanged(spapr->rust_htab->handle);

        forget_host_error();
        trace_spapr_htab_resume(spapr->htab_shift, ret);
    }
}
%end
%if patch >= 4

void spapr_htab_rust_mark_dirty(SpaprMachineState *spapr, hwaddr ptex)
{
    uint64_t *hpte = spapr->htab + ptex * HASH_PTE_SIZE_64;

    /*
     * vCPUs get here without the BQL, and the library takes the mark away in
     * another thread: it has to be atomic, and after the change that it is
     * for.  A hypercall that stores to the entry meanwhile sets the mark, too.
     */
    if (spapr->rust_htab->handle) {
        qatomic_or(hpte, cpu_to_be64(HPTE64_V_HPTE_DIRTY));
    }
}
%end
%if patch >= 5

bool spapr_htab_rust_read_hptes(SpaprMachineState *spapr,
                                ppc_hash_pte64_t *hptes, hwaddr ptex, int n)
{
    SpaprHtab *handle = spapr->rust_htab->handle;

    if (handle && spapr_htab_read_hptes(handle, ptex, n, hptes) < 0) {
        Error *err = NULL;

        /* For a debugger there is then nothing mapped: no reason to abort */
        set_error(spapr, &err);
        error_report_err(err);
        memset(hptes, 0, n * HASH_PTE_SIZE_64);
    }
    return handle;
}

bool spapr_htab_rust_write_hpte(SpaprMachineState *spapr, hwaddr ptex,
                                uint64_t pte0, uint64_t pte1)
{
    SpaprHtab *handle = spapr->rust_htab->handle;

    if (handle && spapr_htab_write_hpte(handle, ptex, pte0, pte1) < 0) {
        Error *err = NULL;

        /* The guest was told that its entry is in the table */
        set_error(spapr, &err);
        error_report_err(err);
        abort();
    }
    return handle;
}
%end
