// SPDX-License-Identifier: GPL-2.0-or-later
//! Lookups of single entries, alone and in the middle of a save, from which the kernel lets them steal changes.

use super::{Case, ORDER, check};
use crate::guest::{Fill, Numbers, Outcome};
use crate::migration::{Migration, Setting};
use spapr_htab::inside::format::hpte::{Hpte, Slot};
use spapr_htab::inside::lookup::{read_hptes, write_hpte};
use spapr_htab::inside::save::Progress;

pub const CASES: &[Case] = &[
    ("a_lookup_sees_the_table", sees),
    ("one_entry_can_be_looked_up", one),
    ("a_lookup_outside_the_table_is_refused", outside),
    ("changes_a_lookup_reads_are_not_lost", not_lost),
    ("an_invalidation_a_lookup_reads_is_not_lost", invalidation_not_lost),
    ("a_lookup_during_the_first_pass_changes_nothing", first_pass),
    ("many_lookups_are_not_lost_either", many),
    ("an_entry_can_be_written_and_removed", write),
];

fn look(migration: &Migration, first: u64, count: usize) -> Result<Vec<(u64, u64)>, String> {
    let bytes = read_hptes(&migration.source, &migration.saver, Slot(first), count as u64)
        .map_err(|error| error.to_string())?;
    check!(bytes.len() == count * 16, "{} bytes of {count} entries", bytes.len());
    let entry = |bytes: &[u8]| {
        let Hpte { v, r } = Hpte::from_be_bytes(bytes.try_into().unwrap_or_default());
        (v, r)
    };
    Ok(bytes.chunks_exact(16).map(entry).collect())
}

fn sees(setting: &Setting<'_>) -> Outcome {
    let migration = Migration::new(setting, ORDER)?;
    migration.guest(ORDER)?.fill(Fill::Linux, &mut Numbers(40))?;
    let count = 3000;
    let mut expected = vec![(0, 0); count];
    for (slot, v, r) in migration.source.vm.dump() {
        if let Some(entry) = usize::try_from(slot).ok().and_then(|slot| expected.get_mut(slot)) {
            *entry = (v, r);
        }
    }
    for (first, length) in [(0, 8), (8, 8), (3, 1), (7, 2), (0, count), (100, 513)] {
        let seen = look(&migration, first as u64, length)?;
        check!(seen == expected[first..first + length], "{length} entries from {first} on");
    }
    check!(migration.source.open_fds() == 0, "a lookup leaves no fd");
    Ok(())
}

fn one(setting: &Setting<'_>) -> Outcome {
    let migration = Migration::new(setting, ORDER)?;
    let mut guest = migration.guest(ORDER)?;
    let last = guest.slots - 1;
    guest.enter(last, 5)?;
    let (v, r) = htab_model::record::hpte(5);
    check!(look(&migration, last, 1)? == [(v, r)], "the last entry");
    check!(look(&migration, 0, 1)? == [(0, 0)], "an invalid one");
    Ok(())
}

fn outside(setting: &Setting<'_>) -> Outcome {
    let migration = Migration::new(setting, ORDER)?;
    let slots = migration.guest(ORDER)?.slots;
    for (first, count) in
        [(slots, 1), (slots - 1, 2), (0, usize::MAX >> 4), (u64::MAX, 1), (u64::from(u32::MAX), 8)]
    {
        let why = look(&migration, first, count).err().unwrap_or_default();
        check!(why.contains("outside the hash table"), "{count} from {first} on: {why:?}");
    }
    Ok(())
}

fn not_lost(setting: &Setting<'_>) -> Outcome {
    let (mut migration, mut guest) = Migration::begin(setting, ORDER, Fill::Empty, 0)?;
    migration.pass()?;
    migration.pass()?;
    // What was seen to be lost: a change at the slot looked up, and one in the run of invalid slots behind it.
    guest.enter(2000, 1)?;
    guest.enter(2005, 2)?;
    look(&migration, 2000, 1)?;
    check!(migration.pending()? > 0, "what was looked up is still to be sent");
    migration.complete()?;
    check!(migration.saver.stats().looked_up.records > 0, "the lookup's records were sent");
    migration.arrive(usize::MAX)
}

fn invalidation_not_lost(setting: &Setting<'_>) -> Outcome {
    let mut migration = Migration::new(setting, ORDER)?;
    let mut guest = migration.guest(ORDER)?;
    guest.enter(3000, 1)?;
    guest.enter(3100, 1)?;
    migration.setup()?;
    migration.pass()?;
    guest.remove(3000)?;
    guest.remove(3100)?;
    look(&migration, 3000, 8)?;
    // And a change after the lookup has the last word.
    guest.enter(3000, 9)?;
    migration.pass()?;
    migration.finish()
}

fn first_pass(setting: &Setting<'_>) -> Outcome {
    let (mut migration, mut guest) = Migration::begin(setting, ORDER, Fill::Linux, 41)?;
    let mut numbers = Numbers(42);
    for _ in 0..50 {
        migration.iterate(Some(0))?;
        guest.change(&mut numbers)?;
        look(&migration, numbers.below(guest.slots - 8), 8)?;
    }
    migration.finish()
}

fn many(setting: &Setting<'_>) -> Outcome {
    let (mut migration, mut guest) = Migration::begin(setting, ORDER, Fill::Dense, 43)?;
    migration.pass()?;
    check!(migration.pass()? == Progress::Clean, "at rest");
    // More than is kept for the stream: 8 times the table, 2 MiB.
    for n in 0..8 {
        guest.enter(n, 500 + n)?;
        look(&migration, 0, 16_384)?;
    }
    guest.remove(9)?;
    look(&migration, 9, 1)?;
    migration.finish()
}

fn write(setting: &Setting<'_>) -> Outcome {
    let mut migration = Migration::new(setting, ORDER)?;
    migration.setup()?;
    migration.pass()?;
    let (v, r) = htab_model::record::hpte(7);
    let put = |slot, v, r| {
        write_hpte(&migration.source, &migration.saver, Slot(slot), Hpte { v, r })
            .map_err(|error| error.to_string())
    };
    put(50, v | 0x40, r)?;
    put(51, v, r)?;
    put(51, 0, 0)?;
    let why = put(1 << 32, v, r).err().unwrap_or_default();
    check!(why.contains("outside the hash table"), "{why:?}");
    check!(look(&migration, 50, 2)? == [(v, r), (0, 0)], "written, and removed again");
    migration.finish()
}
