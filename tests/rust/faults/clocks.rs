// SPDX-License-Identifier: GPL-2.0-or-later
//! Clocks that no system should have. A bound on time is then worth nothing; the migration ends, and loses nothing.

use crate::leaks::nothing_is_left_by;
use crate::migration::{Migration, WAYS};
use htab_harness::world::ClockScript;

pub fn a_clock_may_say_anything() -> String {
    type Script = fn(u64) -> u64;
    const CLOCKS: [(&str, Script); 6] = [
        ("stands still", |_| 5_000_000),
        ("goes backwards", |look| u64::MAX - look * 1000),
        ("jumps back now and then", |look| look % 7 * 1_000_000),
        ("jumps from one end to the other", |look| if look % 2 == 0 { 0 } else { u64::MAX }),
        ("is at its end", |_| u64::MAX),
        ("is very fast", |look| look.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
    ];
    for way in WAYS {
        for (name, script) in CLOCKS {
            nothing_is_left_by(|| {
                let migration = Migration::new(way);
                for side in [&migration.from, &migration.to] {
                    side.handle.world.set_clock(Box::new(script) as ClockScript);
                }
                migration.run().unwrap_or_else(|failure| panic!("{way:?}, a clock that {name}: {failure:?}"));
                migration.arrived();
                let _ = (migration.from.handle.stats(), migration.to.handle.stats());
            });
        }
    }
    format!("{} clocks, {} ways", CLOCKS.len(), WAYS.len())
}
