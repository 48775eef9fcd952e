// SPDX-License-Identifier: GPL-2.0-or-later
//! Tables that are replaced while they are saved: reset, resized, dropped.

use super::{Case, ORDER, check};
use crate::guest::{Fill, Numbers, Outcome};
use crate::migration::{Migration, Setting};
use spapr_htab::inside::format::hpte::Slot;
use spapr_htab::inside::lookup::read_hptes;
use spapr_htab::inside::save::Progress;

pub const CASES: &[Case] = &[
    ("a_resize_between_passes_arrives", resize),
    ("a_resize_in_mid_pass_arrives", resize_mid_pass),
    ("a_reset_in_place_arrives", reset),
    ("a_reset_just_before_the_stop_arrives", reset_before_stop),
    ("a_resize_just_before_the_stop_is_an_error", resize_before_stop),
    ("a_table_that_went_and_came_back_arrives", gone_and_back),
    ("while_quiesced_nothing_is_read", quiesced),
    ("a_save_may_begin_while_the_table_is_replaced", begun_while_quiesced),
];

/// Replaces the table as QEMU's hooks do.
fn replace(migration: &Migration, order: u32) -> Outcome {
    migration.saver.quiesce();
    migration.source.replace(order).map_err(|errno| format!("allocating: errno {errno}"))?;
    migration.guest(order)?.fill(Fill::Sparse, &mut Numbers(u64::from(order)))?;
    migration.resume()
}

fn started(setting: &Setting<'_>) -> Result<Migration, String> {
    Migration::begin(setting, ORDER, Fill::Linux, 30).map(|(migration, _)| migration)
}

fn resize(setting: &Setting<'_>) -> Outcome {
    let mut migration = started(setting)?;
    migration.pass()?;
    for order in [20, 19, 19, 24] {
        replace(&migration, order)?;
        check!(migration.pending()? > 0, "the new table is still to be sent");
        check!(migration.pass()? == Progress::More, "its size goes first");
        let size = u8::try_from(order).unwrap_or(0);
        check!(migration.bodies.last() == Some(&vec![0, 0, 0, size]), "a body of its own");
        migration.pass()?;
    }
    migration.finish()
}

fn resize_mid_pass(setting: &Setting<'_>) -> Outcome {
    let mut migration = started(setting)?;
    migration.iterate(Some(0))?;
    replace(&migration, 20)?;
    migration.iterate(Some(0))?;
    migration.iterate(Some(0))?;
    replace(&migration, ORDER)?;
    migration.pass()?;
    migration.finish()
}

fn reset(setting: &Setting<'_>) -> Outcome {
    let mut migration = started(setting)?;
    migration.pass()?;
    replace(&migration, ORDER)?;
    while migration.pass()? == Progress::More {}
    migration.finish()
}

fn reset_before_stop(setting: &Setting<'_>) -> Outcome {
    let mut migration = started(setting)?;
    migration.pass()?;
    replace(&migration, ORDER)?;
    migration.finish()
}

fn resize_before_stop(setting: &Setting<'_>) -> Outcome {
    let mut migration = started(setting)?;
    migration.pass()?;
    replace(&migration, 20)?;
    for failed in [migration.complete(), migration.complete(), migration.pass().map(drop)] {
        let why = failed.err().unwrap_or_default();
        check!(why.contains("migrate again"), "{why:?}");
    }
    migration.setup()?;
    migration.finish()
}

fn gone_and_back(setting: &Setting<'_>) -> Outcome {
    let mut migration = started(setting)?;
    migration.pass()?;
    migration.saver.quiesce();
    migration.source.forget();
    migration.resume()?;
    check!(migration.pass()? == Progress::Clean, "nothing to send without a table");
    check!(migration.bodies.last() == Some(&vec![0xff; 4]), "the destination hears of it");
    replace(&migration, 20)?;
    migration.pass()?;
    migration.finish()
}

fn quiesced(setting: &Setting<'_>) -> Outcome {
    let mut migration = started(setting)?;
    migration.iterate(Some(0))?;
    migration.saver.quiesce();
    migration.saver.quiesce();
    check!(migration.pass()? == Progress::More, "there is more to come");
    check!(migration.bodies.last() == Some(&vec![0; 12]), "an empty body");
    let why = read_hptes(&migration.source, &migration.saver, Slot(0), 1).err();
    check!(why.is_some_and(|why| why.to_string().contains("being replaced")), "a lookup is refused");
    migration.resume()?;
    migration.resume()?;
    migration.pass()?;
    migration.saver.quiesce();
    let why = migration.complete().err().unwrap_or_default();
    check!(why.contains("being replaced"), "{why:?}");
    migration.resume()?;
    check!(migration.complete().err() == Some(why), "what fails stays failed");
    migration.setup()?;
    migration.finish()
}

fn begun_while_quiesced(setting: &Setting<'_>) -> Outcome {
    let mut migration = Migration::new(setting, ORDER)?;
    migration.saver.quiesce();
    migration.setup()?;
    check!(migration.bodies == [vec![0xff; 4]], "there is no table for now");
    check!(migration.source.open_fds() == 0, "the table is not touched");
    migration.cleanup()?;
    migration.setup()?;
    migration.source.replace(19).map_err(|errno| format!("allocating: errno {errno}"))?;
    migration.guest(19)?.fill(Fill::Sparse, &mut Numbers(31))?;
    migration.resume()?;
    migration.pass()?;
    check!(migration.bodies.last() == Some(&vec![0, 0, 0, 19]), "its size, once there is one");
    migration.pass()?;
    migration.finish()
}
