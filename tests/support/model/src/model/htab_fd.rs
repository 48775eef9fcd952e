// SPDX-License-Identifier: GPL-2.0-or-later
//! The fd's read and write: the kernel's loops, faults included.
//!
//! Sources (Linux 6.1, `arch/powerpc/kvm/book3s_64_mmu_hv.c`): `kvm_htab_read`, `kvm_htab_write`; for
//! writev on a file that has only a plain write, `do_loop_readv_writev` in `fs/read_write.c`.

use super::table::{Table, has_page_size, is_vrma};
use crate::record::{HEADER_SIZE, HPTE_SIZE, header};

/// What the kernel keeps for one fd (`struct kvm_htab_ctx`).
#[derive(Clone, Copy)]
pub(super) struct Context {
    pub(super) index: u64,
    pub(super) bolted_only: bool,
    pub(super) first_pass: bool,
}

/// What a call did, for the clock and the statistics.
#[derive(Default)]
pub(super) struct Work {
    /// Slots visited without an entry: skipped as clean, or reported or made invalid.
    pub(super) slots: u64,
    /// Entries copied.
    pub(super) entries: u64,
}

/// Memory of the caller, which a read fills.
pub(super) struct Destination<'a> {
    /// What can be written.
    pub(super) bytes: &'a mut [u8],
    /// How long the caller says it is.
    pub(super) count: usize,
}

impl<'a> Destination<'a> {
    /// All of which can be written.
    pub(super) fn sound(bytes: &'a mut [u8]) -> Self {
        let count = bytes.len();
        Destination { bytes, count }
    }

    /// `__put_user`, `__copy_to_user`.
    fn store(&mut self, at: usize, bytes: &[u8]) -> Result<(), i32> {
        self.bytes.get_mut(at..at + bytes.len()).ok_or(libc::EFAULT)?.copy_from_slice(bytes);
        Ok(())
    }
}

/// `kvm_htab_read`. MODIFIED of a slot is clear before its entry or its header is stored, and an error returns at
/// once: the slots that this read has looked at have lost their marks then, while `ctx` is as it was.
pub(super) fn read(
    table: &mut Table,
    ctx: &mut Context,
    into: &mut Destination<'_>,
    work: &mut Work,
) -> Result<usize, i32> {
    let npte = table.len();
    let count = into.count;
    // Read once, at the start: a wrap makes the *next* call a later pass.
    let first_pass = ctx.first_pass;
    let mut i = ctx.index;
    let mut done = 0;
    // Strictly smaller: a buffer that one more record would fill exactly does not get it.
    while done + HEADER_SIZE + HPTE_SIZE < count {
        let start = done;
        done += HEADER_SIZE;
        if !first_pass {
            while i < npte && !table.is_dirty(usize_of(i)) {
                i += 1;
                work.slots += 1;
            }
        }
        // The header takes 32 bits of it, whatever the table's size.
        let index = u32::try_from(i & 0xffff_ffff).expect("masked");
        let mut n_valid = 0;
        while i < npte && n_valid < u16::MAX && done + HPTE_SIZE < count {
            let Some((v, r)) = table.record_hpte(usize_of(i), ctx.bolted_only, true, first_pass) else {
                break;
            };
            into.store(done, &v.to_be_bytes())?;
            into.store(done + 8, &r.to_be_bytes())?;
            done += HPTE_SIZE;
            n_valid += 1;
            i += 1;
            work.entries += 1;
        }
        let mut n_invalid = 0;
        while i < npte
            && n_invalid < u16::MAX
            && table.record_hpte(usize_of(i), ctx.bolted_only, false, first_pass).is_some()
        {
            n_invalid += 1;
            i += 1;
            work.slots += 1;
        }
        if n_valid > 0 || n_invalid > 0 {
            into.store(start, &header(index, n_valid, n_invalid))?;
        } else {
            done = start;
        }
        if i >= npte {
            i = 0;
            ctx.first_pass = false;
            break;
        }
    }
    ctx.index = i;
    Ok(done)
}

/// A write's buffer with what lies behind it: the kernel's bounds test forgets the header, so that it reads
/// up to 8 bytes too far.
struct Source<'a> {
    bytes: &'a [u8],
    past_end: u8,
}

impl Source<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|k| self.bytes.get(at + k).copied().unwrap_or(self.past_end))
    }
}

/// `kvm_htab_write`, without the checks that come before its loop. Returns what the system call returns,
/// which on an error does not say how much was applied; `mmu_ready` is set by an entry of the VRMA.
pub(super) fn write(
    table: &mut Table,
    bytes: &[u8],
    past_end: u8,
    mmu_ready: &mut bool,
    work: &mut Work,
) -> Result<usize, i32> {
    let source = Source { bytes, past_end };
    let npte = table.len();
    // How far the kernel believes it is, and how far its pointer is: the pointer never moves past entries.
    let mut done = 0;
    let mut at = 0;
    while done + HEADER_SIZE <= bytes.len() {
        let index = u32::from_ne_bytes(source.array(at));
        let n_valid = u16::from_ne_bytes(source.array(at + 4));
        let n_invalid = u16::from_ne_bytes(source.array(at + 6));
        if done + usize::from(n_valid) * HPTE_SIZE > bytes.len() {
            break;
        }
        done += HEADER_SIZE;
        at += HEADER_SIZE;

        let mut i = u64::from(index);
        if i >= npte || i + u64::from(n_valid) + u64::from(n_invalid) > npte {
            return Err(libc::EINVAL);
        }
        for k in 0..usize::from(n_valid) {
            let v = u64::from_be_bytes(source.array(at + k * HPTE_SIZE));
            let r = u64::from_be_bytes(source.array(at + k * HPTE_SIZE + 8));
            if v & crate::record::V_VALID == 0 || !has_page_size(v, r) {
                return Err(libc::EINVAL);
            }
            done += HPTE_SIZE;
            // The old entry is gone even when the new one is then refused.
            table.h_remove(usize_of(i));
            if !table.h_enter(usize_of(i), v, r) {
                return Err(libc::EIO);
            }
            *mmu_ready |= is_vrma(v);
            work.entries += 1;
            i += 1;
        }
        for _ in 0..n_invalid {
            table.h_remove(usize_of(i));
            work.slots += 1;
            i += 1;
        }
    }
    Ok(done)
}

/// A slot known to lie in the table as an index into it.
fn usize_of(slot: u64) -> usize {
    usize::try_from(slot).expect("a slot of a table that is in memory")
}
