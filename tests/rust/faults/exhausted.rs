// SPDX-License-Identifier: GPL-2.0-or-later
//! No memory and no file descriptor is left.

use crate::leaks::{LARGE, nothing_is_left_by, refuse, refuse_no_more};
use crate::migration::{Migration, WAYS};
use htab_harness::plan::Call;
use htab_harness::records::to_body;
use htab_harness::world::{Kind, Wire};
use htab_model::record::{Record, hpte};

/// A body of one long record, and of many others to be joined.
fn long_body() -> Vec<u8> {
    let mut long = vec![hpte(5); 9000];
    // The last entry is not valid, as QEMU's race leaves them.
    long[8999].0 = 0;
    let others = (9000..14_000).map(|index| Record::new(index, &[hpte(5)], 0));
    let records: Vec<_> = std::iter::once(Record::new(0, &long, 0)).chain(others).collect();
    [&18_u32.to_be_bytes()[..], &to_body(&records)].concat()
}

pub fn no_memory_for_any_large_allocation() -> String {
    let long = long_body();
    let mut refused = 0;
    for way in WAYS {
        let migration = Migration::new(way);
        migration.run().expect("nothing goes wrong");
        for nth in 0.. {
            let fired = nothing_is_left_by(|| {
                let migration = Migration::new(way);
                refuse(nth);
                let result = migration.run().and_then(|()| migration.load(&long));
                let fired = refuse_no_more();
                if let Err(failure) = &result {
                    assert!(fired && failure.errno == libc::ENOMEM, "{failure:?}");
                    assert!(failure.sentence.contains("bytes of memory"), "{failure:?}");
                    migration.from.handle.cleanup().expect("cleanup");
                    migration.run().expect("there is memory again");
                    migration.arrived();
                }
                migration.guest_goes_on();
                fired
            });
            if !fired {
                assert!(nth > 0, "there is none to be refused");
                refused += nth;
                break;
            }
        }
    }
    format!("{refused} allocations of {LARGE} bytes or more refused")
}

/// As many descriptors as the process has, and no more.
fn limit_descriptors(limit: u64) -> u64 {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: reads and writes the structure.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limits), 0);
        let before = limits.rlim_cur;
        limits.rlim_cur = limit.min(limits.rlim_max);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limits), 0);
        before
    }
}

pub fn no_file_descriptor_is_left() -> String {
    let mut refusals = 0;
    for way in WAYS.into_iter().filter(|way| way.kind == Kind::Kernel) {
        refusals += nothing_is_left_by(|| {
            let migration = Migration::new(way);
            let wire = Wire::with_room(1 << 20);
            migration.save(&wire).expect("nothing goes wrong");
            let (from, to) = (&migration.from.handle, &migration.to.handle);
            let opens = || migration.calls(Call::Open);
            let before = opens();
            // Setup, the lookup in mid-save, and the load.
            let limit = limit_descriptors(0);
            let setup = from.setup(&Wire::with_room(4096));
            limit_descriptors(limit);
            from.setup(&Wire::with_room(4096)).expect("setup");
            limit_descriptors(0);
            let lookup = from.read_hptes(0, 8).map(|_| 0);
            let load = migration.load(&wire.bytes());
            limit_descriptors(limit);
            let results = [setup, lookup, load.map(|()| 0)];
            let count = results.len();
            for result in results {
                let failure = result.expect_err("no descriptor");
                assert_eq!(failure.errno, libc::EMFILE);
                assert!(failure.sentence.contains("raise the limit on open files"), "{failure:?}");
            }
            from.cleanup().expect("cleanup");
            assert_eq!(to.world.open_fds() + from.world.open_fds(), 0);
            assert!(opens() > before);
            migration.run().expect("there are descriptors again");
            migration.arrived();
            count
        });
    }
    format!("{refusals} times EMFILE of the system's own")
}
