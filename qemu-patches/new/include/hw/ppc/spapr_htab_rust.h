/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The HPT of a pseries guest in a migration, through the library spapr-htab
 *
 * All of these are called under the BQL, unless they say "any thread".
 */

#ifndef HW_PPC_SPAPR_HTAB_RUST_H
#define HW_PPC_SPAPR_HTAB_RUST_H

#include "hw/ppc/spapr.h"
%if patch >= 5
#include "mmu-hash64.h"
%end

#ifdef CONFIG_SPAPR_HTAB

#include <spapr_htab.h>

struct SpaprHtabRust {
    bool enabled;
%if patch >= 7
    bool crc;
    /* What the source counted; in the stream with x-htab-crc=on */
    SpaprHtabSum sent;
%end
    /* NULL with x-rust-htab=off */
    SpaprHtab *handle;
    VMChangeStateEntry *vm_state;
    NotifierWithReturn precopy;
};

%if patch >= 7
/* What the machine sends with x-htab-crc=on, after the table */
extern const VMStateDescription vmstate_spapr_htab_crc;

/* Adds the machine's properties x-rust-htab and x-htab-crc */
%else
/* Adds the machine's property x-rust-htab */
%end
void spapr_htab_rust_class_init(ObjectClass *oc);
void spapr_htab_rust_instance_init(SpaprMachineState *spapr);
void spapr_htab_rust_instance_finalize(SpaprMachineState *spapr);

/*
 * Registers the section "spapr/htab".  Returns false if the machine does not
 * want the library; QEMU's own handlers are for the caller to register then.
 */
bool spapr_htab_rust_register(SpaprMachineState *spapr);

/*
 * Puts what waits of an incoming table into the HPT.  The migration core loads
 * the table's sections before the machine, whose post_load calls this.
 */
int spapr_htab_rust_load_finish(SpaprMachineState *spapr);

/* Tells who is to hear of it what the library failed with in a load */
void spapr_htab_rust_load_failed(SpaprMachineState *spapr);

/*
 * Go around everything that frees or replaces the HPT: a migration that goes
 * on meanwhile lets go of the table, and then sends all of the one there is.
 * Without effect outside a migration.
 */
void spapr_htab_rust_quiesce(SpaprMachineState *spapr);
void spapr_htab_rust_resume(SpaprMachineState *spapr);
%if patch >= 3

/*
 * For the end of what may have left the table as it was: if it is still in the
 * same place and as large, the migration goes on with it where it was.
 */
void spapr_htab_rust_resume_unchanged(SpaprMachineState *spapr);
%end
%if patch >= 4

/*
 * For an entry whose second doubleword was changed without its first: makes
 * a migration tell it again; any thread.
 */
void spapr_htab_rust_mark_dirty(SpaprMachineState *spapr, hwaddr ptex);
%end
%if patch >= 5

/*
 * kvmppc_read_hptes() and kvmppc_write_hpte(), but a migration under way
 * hears of the changes that the read takes from it.  They return false if
 * the machine does not want the library.  Reading: any thread.
 */
bool spapr_htab_rust_read_hptes(SpaprMachineState *spapr,
                                ppc_hash_pte64_t *hptes, hwaddr ptex, int n);
bool spapr_htab_rust_write_hpte(SpaprMachineState *spapr, hwaddr ptex,
                                uint64_t pte0, uint64_t pte1);
%end
%if patch >= 6

void hmp_info_spapr_htab(Monitor *mon, const QDict *qdict);
%end

#else

static inline void spapr_htab_rust_class_init(ObjectClass *oc) {}
static inline void spapr_htab_rust_instance_init(SpaprMachineState *spapr) {}
static inline void spapr_htab_rust_instance_finalize(SpaprMachineState *spapr)
{
}

static inline bool spapr_htab_rust_register(SpaprMachineState *spapr)
{
    return false;
}

static inline int spapr_htab_rust_load_finish(SpaprMachineState *spapr)
{
    return 0;
}

static inline void spapr_htab_rust_quiesce(SpaprMachineState *spapr) {}
static inline void spapr_htab_rust_resume(SpaprMachineState *spapr) {}
%if patch >= 3
static inline void spapr_htab_rust_resume_unchanged(SpaprMachineState *spapr) {}
%end
%if patch >= 4
static inline void spapr_htab_rust_mark_dirty(SpaprMachineState *spapr,
                                              hwaddr ptex) {}
%end
%if patch >= 5

static inline bool spapr_htab_rust_read_hptes(SpaprMachineState *spapr,
                                              ppc_hash_pte64_t *hptes,
                                              hwaddr ptex, int n)
{
    return false;
}

static inline bool spapr_htab_rust_write_hpte(SpaprMachineState *spapr,
                                              hwaddr ptex, uint64_t pte0,
                                              uint64_t pte1)
{
    return false;
}
%end

#endif

#endif /* HW_PPC_SPAPR_HTAB_RUST_H */
