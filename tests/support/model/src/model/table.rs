// SPDX-License-Identifier: GPL-2.0-or-later
//! The table and its reverse map, and the operations of the kernel on one slot.
//!
//! Sources (Linux 6.1): `kvmppc_do_h_enter`, `kvmppc_do_h_remove`, `kvmppc_h_protect` in
//! `arch/powerpc/kvm/book3s_hv_rm_mmu.c`; `kvmppc_hpte_page_shifts`, `note_hpte_modification`,
//! `is_vrma_hpte` in `arch/powerpc/include/asm/kvm_book3s_64.h`; `hpte_dirty`, `record_hpte` and
//! `kvm_test_clear_dirty_npages` in `arch/powerpc/kvm/book3s_64_mmu_hv.c`; the ISA 3.0 conversions in
//! `arch/powerpc/include/asm/book3s/64/mmu-hash.h`.

use crate::record::{R_C, R_MODIFIED, R_R, V_ABSENT, V_BOLTED, V_HVLOCK, V_LARGE, V_VALID};
use std::collections::{BTreeMap, BTreeSet};

/// Present in the guest's eyes.
const V_PRESENT: u64 = V_VALID | V_ABSENT;
const RC: u64 = R_R | R_C;
/// The real page number's field of the second doubleword (`HPTE_R_RPN`).
const R_RPN: u64 = 0x0fff_ffff_ffff_f000;
/// The bits of the first doubleword that ISA 3.0 keeps (`HPTE_V_COMMON_BITS`).
const V_ISA300: u64 = 0x000f_ffff_ffff_ffff;
/// `HPTE_R_PP0 | HPTE_R_PP`, and its two values that do not let anyone store (`hpte_is_writable`).
const R_PP: u64 = 1 << 63 | 3;
const PP_RXRX: u64 = 3;
const PP_RXXX: u64 = 1 << 63 | 2;
/// The segment size is at the top of the first doubleword, and in ISA 3.0 here in the second one.
const ISA300_B_SHIFT: u32 = 58;
const ISA300_B: u64 = 3 << ISA300_B_SHIFT;

/// One slot: the entry as the hardware has it, and the revmap's copy of the second doubleword, which is
/// the guest's view of it and carries MODIFIED.
#[derive(Clone, Copy, Default)]
pub(super) struct Slot {
    hw_v: u64,
    hw_r: u64,
    guest_r: u64,
}

/// The guest's memory: entries that map it become valid to the hardware.
#[derive(Clone, Copy)]
pub(super) struct Ram {
    pub(super) bytes: u64,
    pub(super) host_page: u64,
}

/// What the guest and userspace change; one per allocation, but for what outlives the table.
pub(super) struct Table {
    pub(super) slots: Vec<Slot>,
    pub(super) isa300: bool,
    pub(super) ram: Option<Ram>,
    /// How many read fds are open: MODIFIED is set only while somebody is interested.
    pub(super) mod_interest: u32,
    /// R and C bits that the processor has set for itself and not yet stored in the table.
    pub(super) delayed: BTreeMap<usize, u64>,
}

/// What [`Table::record_hpte`] made of a slot.
pub(super) type Recorded = Option<(u64, u64)>;

impl Table {
    pub(super) fn len(&self) -> u64 {
        self.slots.len() as u64
    }

    /// The slots of a new table. The revmap is not cleared when the kernel allocates it, so `stale` is what
    /// each slot's copy of the second doubleword happens to hold.
    pub(super) fn fresh_slots(order: u32, stale: u64) -> Vec<Slot> {
        vec![Slot { guest_r: stale, ..Slot::default() }; 1 << (order - 4)]
    }

    /// `kvmppc_alloc_reset_hpt` with the order it already has: the table is zeroed, the revmap is not.
    pub(super) fn reset_in_place(&mut self) {
        for slot in &mut self.slots {
            slot.hw_v = 0;
            slot.hw_r = 0;
        }
        self.delayed.clear();
    }

    /// Another table in place of this one.
    pub(super) fn replace(&mut self, slots: Vec<Slot>) {
        self.slots = slots;
        self.delayed.clear();
    }

    /// `tlbie` of an entry: the processor stores what it has held back of it.
    fn invalidate(&mut self, i: usize) {
        if let Some(rc) = self.delayed.remove(&i) {
            self.slots[i].hw_r |= rc;
        }
    }

    fn note_modification(&mut self, i: usize) {
        if self.mod_interest > 0 {
            self.slots[i].guest_r |= R_MODIFIED;
        }
    }

    pub(super) fn is_present(&self, i: usize) -> bool {
        self.slots[i].hw_v & V_PRESENT != 0
    }

    pub(super) fn is_modified(&self, i: usize) -> bool {
        self.slots[i].guest_r & R_MODIFIED != 0
    }

    /// `hpte_dirty`: MODIFIED, or hardware R/C that the guest's view does not have yet.
    pub(super) fn is_dirty(&self, i: usize) -> bool {
        let slot = &self.slots[i];
        slot.guest_r & R_MODIFIED != 0 || slot.hw_v & V_VALID != 0 && slot.hw_r & !slot.guest_r & RC != 0
    }

    /// The first doubleword in the old format.
    fn old_v(&self, slot: &Slot) -> u64 {
        if self.isa300 {
            slot.hw_v & V_ISA300 | (slot.hw_r & ISA300_B) << (62 - ISA300_B_SHIFT)
        } else {
            slot.hw_v
        }
    }

    /// The entry as [`crate::Vm::dump`] gives it.
    pub(super) fn dump_one(&self, i: usize) -> Option<(u64, u64)> {
        let slot = &self.slots[i];
        if slot.hw_v & V_PRESENT == 0 {
            return None;
        }
        let harvest = if slot.hw_v & V_VALID != 0 { slot.hw_r & RC } else { 0 };
        Some((self.old_v(slot) & !V_ABSENT | V_VALID, (slot.guest_r | harvest) & !R_MODIFIED))
    }

    /// `record_hpte`: the entry when the slot is of the kind wanted and worth reporting, which clears its
    /// MODIFIED. It looks twice, without the HPTE's lock and with it, and the two looks do not ask quite the
    /// same; here nothing runs in between, but what it does to MODIFIED on the way to a refusal stays.
    pub(super) fn record_hpte(
        &mut self,
        i: usize,
        bolted_only: bool,
        want_valid: bool,
        first_pass: bool,
    ) -> Recorded {
        let dirty = self.is_dirty(i);
        if !first_pass && !dirty {
            return None;
        }
        let slot = self.slots[i];
        let valid = slot.hw_v & V_PRESENT != 0 && (!bolted_only || slot.hw_v & V_BOLTED != 0);
        if valid != want_valid {
            return None;
        }
        if !valid && !dirty {
            return Some((0, 0));
        }

        // From here on the kernel holds the lock bit, and what it reads of the entry has it set.
        let mut v = self.old_v(&slot) | V_HVLOCK;
        let mut valid = v & V_VALID != 0;
        let slot = &mut self.slots[i];
        let unharvested = slot.hw_r & !slot.guest_r & RC;
        if valid && unharvested != 0 {
            slot.guest_r |= unharvested | R_MODIFIED;
        }
        let dirty = slot.guest_r & R_MODIFIED != 0;
        if v & V_ABSENT != 0 {
            v = v & !V_ABSENT | V_VALID;
            valid = true;
        }
        if bolted_only && v & V_BOLTED == 0 {
            valid = false;
        }
        if valid != want_valid {
            return None;
        }
        slot.guest_r &= !R_MODIFIED;
        (first_pass || dirty).then_some((v, slot.guest_r))
    }

    /// `kvmppc_do_h_enter` with `H_EXACT`, on a slot known to be free. False when the entry is refused.
    pub(super) fn h_enter(&mut self, i: usize, v: u64, r: u64) -> bool {
        // B = 0b1x is reserved, and the kernel keeps it from its own TLBIE.
        if v >> 63 != 0 {
            return false;
        }
        let Some(page) = actual_page_size(v, r) else { return false };
        let mut hw_v = v & !(V_HVLOCK | V_PRESENT);
        let guest_r = r & !R_MODIFIED;
        let mut hw_r = guest_r;
        let address = guest_r & R_RPN & !(page - 1);
        match self.ram {
            Some(ram) if address < ram.bytes => {
                // The memslot must hold whole pages of that size, and a host page must hold a guest page.
                if page > ram.host_page {
                    return false;
                }
                hw_v |= V_VALID;
                // R and C of the hardware's entry start clear: they come from the page's own record.
                hw_r &= !RC;
            }
            // No memslot: emulated MMIO, or memory that is yet to come.
            _ => hw_v |= V_ABSENT,
        }
        if self.isa300 {
            hw_r = hw_r & !ISA300_B | hw_v >> 62 << ISA300_B_SHIFT;
            hw_v &= V_ISA300;
        }
        self.slots[i] = Slot { hw_v, hw_r, guest_r };
        self.note_modification(i);
        true
    }

    /// `kvmppc_do_h_remove`. False when there was nothing to remove.
    pub(super) fn h_remove(&mut self, i: usize) -> bool {
        if !self.is_present(i) {
            return false;
        }
        self.invalidate(i);
        let slot = &mut self.slots[i];
        if slot.hw_v & V_VALID != 0 {
            slot.guest_r |= slot.hw_r & RC;
        }
        slot.hw_v = 0;
        self.note_modification(i);
        true
    }

    /// `kvmppc_h_protect`, reduced to what the fd can see: the guest's view gets new permission bits.
    pub(super) fn h_protect(&mut self, i: usize, pp: u64) -> bool {
        if !self.is_present(i) {
            return false;
        }
        self.invalidate(i);
        let slot = &mut self.slots[i];
        slot.guest_r = slot.guest_r & !3 | pp & 3;
        self.note_modification(i);
        true
    }

    /// The hardware sets R and C (bits of `rc`). An absent entry is first made valid, as the page fault that
    /// such an access takes would (`kvmppc_book3s_hv_page_fault`), which by itself marks nothing.
    pub(super) fn touch(&mut self, i: usize, rc: u64) -> bool {
        if !self.make_valid(i) {
            return false;
        }
        self.slots[i].hw_r |= rc & RC;
        true
    }

    /// As [`Table::touch`], but the processor keeps the bits until somebody invalidates the entry.
    pub(super) fn touch_delayed(&mut self, i: usize, rc: u64) -> bool {
        if !self.make_valid(i) {
            return false;
        }
        assert!(rc & R_C == 0 || is_writable(self.slots[i].guest_r), "a store to a page that is read-only");
        *self.delayed.entry(i).or_default() |= rc & RC;
        true
    }

    fn make_valid(&mut self, i: usize) -> bool {
        if !self.is_present(i) {
            return false;
        }
        let slot = &mut self.slots[i];
        if slot.hw_v & V_ABSENT != 0 {
            slot.hw_v = slot.hw_v & !V_ABSENT | V_VALID;
            slot.hw_r &= !RC;
        }
        true
    }

    /// `kvm_test_clear_dirty_npages` for each page of the guest's memory; returns how many of them were dirty. The
    /// guest's view of an entry stands for the hardware's where permissions are concerned.
    pub(super) fn read_dirty_log(&mut self, host_page: u64, vcpus_running: bool) -> u64 {
        let mut dirty = BTreeSet::new();
        for i in 0..self.slots.len() {
            let slot = self.slots[i];
            if slot.hw_v & V_VALID == 0 {
                continue;
            }
            // With the vCPUs stopped even C = 0 has to be settled by a tlbie; a later call does it otherwise.
            if slot.hw_r & R_C == 0 && (!is_writable(slot.guest_r) || vcpus_running) {
                continue;
            }
            self.invalidate(i);
            let slot = &mut self.slots[i];
            if slot.hw_r & R_C == 0 {
                continue;
            }
            slot.hw_r &= !R_C;
            dirty.insert((slot.guest_r & R_RPN) / host_page);
            if slot.guest_r & R_C == 0 {
                slot.guest_r |= R_C;
                self.note_modification(i);
            }
        }
        dirty.len() as u64
    }
}

/// `hpte_is_writable`.
fn is_writable(r: u64) -> bool {
    ![PP_RXRX, PP_RXXX].contains(&(r & R_PP))
}

/// `kvmppc_hpte_page_shifts`: log2 of the base and of the actual page size, None for an encoding that
/// POWER7 to POWER9 do not have.
fn page_shifts(v: u64, r: u64) -> Option<(u32, u32)> {
    if v & V_LARGE == 0 {
        return Some((12, 12));
    }
    match ((r >> 16) & 0xf, (r >> 12) & 0xf) {
        (0, 0) => Some((24, 24)),
        (_, 1) => Some((16, 16)),
        (0, 3) => Some((34, 34)),
        (_, 7) => Some((12, 16)),
        (0, 8) => Some((16, 24)),
        (3, 8) => Some((12, 24)),
        _ => None,
    }
}

/// Whether the base page size is one the kernel knows (`kvmppc_hpte_base_page_shift`).
pub(super) fn has_page_size(v: u64, r: u64) -> bool {
    page_shifts(v, r).is_some()
}

fn actual_page_size(v: u64, r: u64) -> Option<u64> {
    page_shifts(v, r).map(|(_, actual)| 1 << actual)
}

/// `is_vrma_hpte`: an entry of the virtual real mode area, 1 TiB segments and VSID 0x1ffffff.
pub(super) fn is_vrma(v: u64) -> bool {
    v & !0xff_ffff == 1 << 62 | 0x1ff_ffff << 24
}
