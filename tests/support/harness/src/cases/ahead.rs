// SPDX-License-Identifier: GPL-2.0-or-later
//! What only a thread that reads ahead does.

use super::{Case, ORDER, check};
use crate::guest::{Fill, Outcome};
use crate::migration::{Migration, Setting};
use crate::threads::{readers, wait_for};
use spapr_htab::inside::save::Progress;
use spapr_htab::inside::save::queue::Activity;

pub const CASES: &[Case] = &[
    ("the_first_pass_begins_in_setup", early),
    ("the_final_sweep_begins_when_the_stop_is_reported", final_sweep),
    ("the_queue_is_bounded_and_counted_exactly", queue),
    ("no_thread_is_left_after_a_save", no_thread),
];

/// Waits until the reader does this.
fn until(migration: &Migration, activity: Activity) -> Outcome {
    wait_for(|| migration.saver.queue().activity() == Some(activity))
        .map_err(|why| format!("the reader is not {activity:?}: {why}"))
}

fn ready(migration: &Migration) -> usize {
    migration.saver.queue().bytes()
}

fn early(setting: &Setting<'_>) -> Outcome {
    let (mut migration, _) = Migration::begin(setting, ORDER, Fill::Sparse, 50)?;
    until(&migration, Activity::Parked)?;
    check!(ready(&migration) > 20 * 16, "the table is read before anyone asks");
    migration.finish()
}

fn final_sweep(setting: &Setting<'_>) -> Outcome {
    let (mut migration, mut guest) = Migration::begin(setting, ORDER, Fill::Linux, 51)?;
    while migration.pass()? == Progress::More {}
    until(&migration, Activity::Parked)?;
    guest.enter(5, 1)?;
    check!(ready(&migration) == 0, "nothing is read while nobody iterates");
    migration.saver.vm_state(false);
    until(&migration, Activity::Parked)?;
    check!((ready(&migration), migration.pending()?) == (24, 24), "the change is read");
    migration.finish()
}

fn queue(setting: &Setting<'_>) -> Outcome {
    // 1 MiB of entries, and a queue for an eighth of that.
    let (mut migration, _) = Migration::begin(setting, 20, Fill::Dense, 52)?;
    until(&migration, Activity::Full)?;
    let limit = setting.options.ahead.unwrap_or_default();
    check!(ready(&migration) <= limit, "{} bytes of {limit}", ready(&migration));
    migration.saver.vm_state(false);
    migration.complete()?;
    check!(migration.pending()? == 0, "all is sent");
    migration.arrive(usize::MAX)
}

fn no_thread(setting: &Setting<'_>) -> Outcome {
    let before = readers()?;
    let mut migration = Migration::new(setting, ORDER)?;
    for _ in 0..20 {
        migration.setup()?;
        // It gives itself its name, when it comes to run.
        wait_for(|| readers() == Ok(before + 1))?;
        migration.iterate(Some(0))?;
        migration.cleanup()?;
        // The kernel shows a thread for a moment after it was joined.
        wait_for(|| readers() == Ok(before)).map_err(|why| format!("a thread is left: {why}"))?;
    }
    Ok(())
}
