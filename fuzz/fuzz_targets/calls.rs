// SPDX-License-Identifier: GPL-2.0-or-later
//! The C interface, called in any order with anything its contract allows, by a program whose callbacks fail: no byte
//! is touched that is not the library's (AddressSanitizer), no panic comes out, and the handle can always be freed.
#![no_main]

use htab_fuzz::Input;
use htab_harness::handle::Handle;
use htab_harness::world::{Kind, Wire, World};
use htab_model::record::hpte;
use libfuzzer_sys::fuzz_target;
use spapr_htab::exports::{
    spapr_htab_free, spapr_htab_new, spapr_htab_pass, spapr_htab_read_hptes, spapr_htab_stats,
};
use spapr_htab::inside::capi::types::{SpaprHtabHost, SpaprHtabPass, SpaprHtabStats, SpaprHtabSum};
use std::ptr;

const MOST_CALLS: usize = 200;
const DIRTY: u64 = 0x40;

/// A host structure of any size, in as many bytes and no more.
fn make(input: &mut Input<'_>, world: &World) {
    let mut host = world.host(u32::from(input.byte()), None);
    host.sweep_share = u32::from(input.byte());
    host.reserved = u32::from(input.byte() & 1);
    host.queue_bytes = input.long();
    let size = usize::from(input.word() & 0x1fff);
    host.struct_size = size;
    let mut bytes = vec![input.byte() & 1; size.max(size_of::<usize>())];
    let known = size_of::<SpaprHtabHost>().min(bytes.len());
    let mut out = ptr::null_mut();
    // SAFETY: `known` bytes of both; the copy is aligned as a vector of words is.
    unsafe {
        let mut words = vec![0_u64; bytes.len().div_ceil(8)];
        bytes.as_mut_ptr().copy_from_nonoverlapping(ptr::from_ref(&host).cast(), known);
        words.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        if spapr_htab_new(words.as_ptr().cast(), &raw mut out) == 0 {
            assert!(!out.is_null());
            spapr_htab_free(out);
        } else {
            assert!(out.is_null());
        }
    }
}

/// Outputs of any size, in as many bytes and no more.
fn figures(input: &mut Input<'_>, handle: &Handle) {
    let size = usize::from(input.word() % 600);
    let mut room = vec![0xa5_u64; size.div_ceil(8)];
    let place: *mut SpaprHtabStats = if size == 0 { ptr::null_mut() } else { room.as_mut_ptr().cast() };
    // SAFETY: `size` bytes at `place`.
    unsafe { spapr_htab_stats(handle.raw(), size, place) };
    let place: *mut SpaprHtabPass = place.cast();
    // SAFETY: as above.
    unsafe { spapr_htab_pass(handle.raw(), input.long() & 0x1ff, size, place) };
}

/// More slots than there is room for are never written: outside the table nothing is.
fn look_up(input: &mut Input<'_>, handle: &Handle) {
    let (first, count) = (input.below(1 << 15), usize::from(input.byte()));
    let first = if input.byte() & 7 == 0 { input.long() } else { first };
    if first > 1 << 40 {
        // SAFETY: none of these slots exists, so nothing is written.
        let result =
            unsafe { spapr_htab_read_hptes(handle.raw(), first, usize::MAX, ptr::null_mut::<u64>().cast()) };
        assert!(result < 0);
    }
    let _ = handle.read_hptes(first, count);
}

fn step(input: &mut Input<'_>, handle: &Handle, wire: &Wire) {
    let world = &handle.world;
    let kind = input.byte();
    let result = match kind & 31 {
        0 => handle.setup(wire),
        1..=4 => handle.iterate(wire, i64::from(input.word()) - 1),
        5 => handle.iterate(wire, i64::MAX),
        6 | 7 if kind & 32 == 0 => handle.complete(wire),
        6 | 7 => handle.complete_again(wire),
        8 => handle.cleanup(),
        9 => handle.quiesce(),
        10 if kind & 32 == 0 => handle.resume(),
        10 => handle.resume_unchanged(),
        11 if kind & 32 == 0 => handle.vm_state(false),
        11 => handle.dirty_log_read(),
        12 => handle.vm_state(true),
        13 => handle.write_hpte(input.below(1 << 15), input.long(), input.long()),
        14 if kind & 32 == 0 => handle.load_cleanup(),
        14 if kind & 64 == 0 => handle.load_finish(),
        14 => handle.load_check(size_of::<SpaprHtabSum>(), &handle.sum()),
        // Not behind the library's back: the table stays where it is while a save reads it.
        15 => handle.quiesce().inspect(|_| {
            let _ = world.replace(18 + u32::from(input.byte() & 3));
        }),
        16 => handle.quiesce().inspect(|_| {
            world.forget();
        }),
        17..=20 => {
            let slots = world.slots();
            if slots > 0 {
                let number = u64::from(input.byte());
                world.store(input.below(slots), (number > 3).then(|| hpte(number)));
            }
            Ok(0)
        }
        21 => {
            look_up(input, handle);
            Ok(0)
        }
        22 => {
            figures(input, handle);
            Ok(0)
        }
        23 => {
            make(input, world);
            Ok(0)
        }
        24 if kind & 32 != 0 => {
            let len = usize::from(input.word());
            handle.load_discard(&Wire::of(input.bytes(len)), i32::from(input.byte() & 1))
        }
        // A table that is loaded takes the place of the one there is.
        24 | 25 => handle.cleanup().and_then(|_| {
            let len = usize::from(input.word());
            let wire = Wire::of(input.bytes(len));
            handle.load(&wire, i32::from(input.byte() & 3))
        }),
        26 => {
            let _ = (handle.pending(), handle.describe());
            Ok(0)
        }
        27 => {
            let looks = u64::from(input.byte());
            let jump = input.long();
            world.set_clock(Box::new(move |look| if look % (looks + 1) == 0 { jump } else { look * 1000 }));
            Ok(0)
        }
        _ => {
            input.plan_fault(world);
            Ok(0)
        }
    };
    if let Err(failure) = result {
        assert!(failure.errno > 0 && !failure.sentence.is_empty());
        assert!(!failure.sentence.contains("a bug in spapr-htab"), "{failure:?}");
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let how = input.byte();
    let kind = if how & 1 == 0 { Kind::Kernel } else { Kind::Memory };
    // Reading ahead seldom: a thread for each run would be most of what is tried.
    let gather = u32::from(how >> 6 & 1) << 2;
    let flags = gather | if how & 0x1e == 0x1e { 2 } else { u32::from(how >> 5 & 1) };
    let handle = Handle::new(World::new(kind, Some(18)), flags, None);
    let wire = Wire::default();
    for _ in 0..MOST_CALLS {
        if input.is_empty() {
            break;
        }
        step(&mut input, &handle, &wire);
    }
    assert!(handle.world.dump().iter().all(|(_, v, _)| v & DIRTY == 0));
});
