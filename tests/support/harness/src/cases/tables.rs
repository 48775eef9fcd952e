// SPDX-License-Identifier: GPL-2.0-or-later
//! Tables at rest: every size and filling arrives as it is.

use super::{Case, ORDER, check};
use crate::guest::{Fill, Numbers, Outcome};
use crate::host::{Output, VmHost};
use crate::migration::{Migration, Setting};
use crate::records;
use crate::sweeper::Sweeper;
use htab_model::record::parse_stream;
use spapr_htab::inside::format::hpte::{Order, V_DIRTY};
use spapr_htab::inside::save::Progress;
use spapr_htab::inside::save::source::KernelSource;
use std::sync::Arc;

pub const CASES: &[Case] = &[
    ("an_empty_table_arrives_empty", empty),
    ("a_sparse_table_arrives", sparse),
    ("a_table_filled_as_linux_does_arrives", linux),
    ("a_random_table_arrives", random),
    ("a_dense_table_arrives", dense),
    ("tables_of_order_18_to_26_arrive", orders),
    ("a_stream_may_come_in_pieces_of_any_size", pieces),
    ("a_guest_without_a_table_says_so", no_table),
    ("a_radix_guest_with_an_order_is_clean_at_once", radix),
    ("several_saves_one_after_another_each_arrive", several_saves),
    ("complete_twice_sends_nothing_twice", complete_twice),
    ("complete_alone_sends_everything", complete_alone),
    ("buffers_of_any_size_read_the_same_table", buffers),
    ("the_private_bit_never_goes_on_the_wire", private_bit),
    ("the_stream_gets_few_large_writes", few_puts),
];

fn at_rest(setting: &Setting<'_>, order: u32, fill: Fill) -> Outcome {
    let mut migration = Migration::new(setting, order)?;
    migration.guest(order)?.fill(fill, &mut Numbers(u64::from(order)))?;
    migration.setup()?;
    check!(migration.pass()? == Progress::More, "the first pass cannot be the last");
    check!(migration.pass()? == Progress::Clean, "a table at rest has one pass");
    migration.complete()?;
    check!(migration.pending()? == 0, "{} bytes are left", migration.pending()?);
    migration.arrive(usize::MAX)
}

fn empty(setting: &Setting<'_>) -> Outcome {
    at_rest(setting, ORDER, Fill::Empty)
}

fn sparse(setting: &Setting<'_>) -> Outcome {
    at_rest(setting, 24, Fill::Sparse)
}

fn linux(setting: &Setting<'_>) -> Outcome {
    at_rest(setting, 20, Fill::Linux)
}

fn random(setting: &Setting<'_>) -> Outcome {
    at_rest(setting, ORDER, Fill::Random)
}

fn dense(setting: &Setting<'_>) -> Outcome {
    at_rest(setting, 20, Fill::Dense)
}

fn orders(setting: &Setting<'_>) -> Outcome {
    for order in 18..=26 {
        at_rest(setting, order, if order <= 20 { Fill::Linux } else { Fill::Sparse })
            .map_err(|why| format!("order {order}: {why}"))?;
    }
    Ok(())
}

fn pieces(setting: &Setting<'_>) -> Outcome {
    for most in [1, 7, 8, 9, 4096] {
        let mut migration = Migration::new(setting, ORDER)?;
        migration.guest(ORDER)?.fill(Fill::Sparse, &mut Numbers(1))?;
        migration.setup()?;
        migration.complete()?;
        migration.arrive(most).map_err(|why| format!("pieces of {most}: {why}"))?;
    }
    Ok(())
}

fn no_table(setting: &Setting<'_>) -> Outcome {
    let mut migration = Migration::new(setting, ORDER)?;
    migration.source.forget();
    migration.setup()?;
    check!(migration.pending()? == 0, "pending without a table");
    check!(migration.pass()? == Progress::Clean, "iterate without a table is done");
    migration.complete()?;
    check!(migration.bodies == vec![vec![0xff; 4]; 3], "each body says that there is no table");
    migration.cleanup()?;
    Ok(())
}

fn radix(setting: &Setting<'_>) -> Outcome {
    let Some(vm) = setting.factory.radix()? else { return Ok(()) };
    let mut migration = Migration::new(setting, ORDER)?;
    // A guest that rebooted from hash to radix keeps its order as far as QEMU knows.
    migration.source = VmHost::new(Arc::from(vm), Some(ORDER));
    migration.setup()?;
    migration.pass()?;
    check!(migration.pass()? == Progress::Clean, "a radix guest's fd reads nothing");
    migration.finish()
}

fn several_saves(setting: &Setting<'_>) -> Outcome {
    let mut migration = Migration::new(setting, ORDER)?;
    let mut guest = migration.guest(ORDER)?;
    let mut numbers = Numbers(4);
    for _ in 0..3 {
        guest.fill(Fill::Sparse, &mut numbers)?;
        // Cancelled in the middle, with an fd open; the next setup begins anew.
        migration.setup()?;
        migration.iterate(Some(0))?;
        migration.cleanup()?;
        guest.fill(Fill::Sparse, &mut numbers)?;
        migration.setup()?;
        migration.pass()?;
        migration.finish()?;
    }
    Ok(())
}

fn complete_twice(setting: &Setting<'_>) -> Outcome {
    let (mut migration, _) = Migration::begin(setting, ORDER, Fill::Random, 5)?;
    migration.complete()?;
    migration.complete()?;
    check!(migration.bodies[2] == [0; 12], "the second body is empty: {:?}", migration.bodies[2]);
    migration.arrive(usize::MAX)
}

fn complete_alone(setting: &Setting<'_>) -> Outcome {
    let (mut migration, _) = Migration::begin(setting, 20, Fill::Linux, 6)?;
    check!(migration.pending()? > 0, "nothing was sent yet");
    migration.complete()?;
    let stats = migration.saver.stats();
    check!(stats.stopped.tally == stats.total(), "all was sent while stopped");
    migration.arrive(usize::MAX)
}

/// A sweep over the VM's table by a source of its own, with a buffer of this size.
fn sweep(vm: &VmHost, buffer: usize) -> Result<Vec<u8>, String> {
    let order = Order::new(ORDER).ok_or("no such order")?;
    let source = KernelSource::open(vm, order).map_err(|error| error.to_string())?;
    Sweeper::new(source).sweep(&mut vec![0; buffer], vm).map_err(|error| error.to_string())
}

fn buffers(setting: &Setting<'_>) -> Outcome {
    let migration = Migration::new(setting, ORDER)?;
    migration.guest(ORDER)?.fill(Fill::Sparse, &mut Numbers(9))?;
    migration.guest(ORDER)?.put(500, &[htab_model::record::hpte(3); 40], 0)?;
    let whole = migration.source.vm.dump();
    for buffer in [25, 26, 31, 32, 33, 40, 41, 47, 49, 100, 1023, 65_544, 1 << 20] {
        let stream = sweep(&migration.source, buffer)?;
        let sent = records::replay(&parse_stream(&stream)?);
        check!(sent == whole, "a buffer of {buffer}: {} of {} entries", sent.len(), whole.len());
    }
    for buffer in [0, 1, 8, 24] {
        let why = sweep(&migration.source, buffer).err().unwrap_or_default();
        check!(why.contains("holds no record"), "a buffer of {buffer}: {why:?}");
    }
    Ok(())
}

fn private_bit(setting: &Setting<'_>) -> Outcome {
    let migration = Migration::new(setting, ORDER)?;
    migration.guest(ORDER)?.fill(Fill::Random, &mut Numbers(10))?;
    let stream = sweep(&migration.source, 4096)?;
    let sent: Vec<_> = parse_stream(&stream)?.into_iter().flat_map(|record| record.valid).collect();
    let with = sent.iter().filter(|(v, _)| v & V_DIRTY != 0).count();
    check!(!sent.is_empty() && with == 0, "{with} of {} entries carry bit 0x40", sent.len());
    Ok(())
}

fn few_puts(setting: &Setting<'_>) -> Outcome {
    let (mut migration, _) = Migration::begin(setting, 20, Fill::Dense, 11)?;
    let mut out = Output::default();
    migration.iterate_into(&mut out, None)?;
    // 1 MiB of entries in chunks of 128 KiB, a body header and an end.
    check!(out.puts <= 12, "{} puts", out.puts);
    let records = records::of_body(&migration.bodies[1])?;
    let longest = records.iter().map(|record| record.valid.len()).max();
    check!(longest <= Some(8192), "a record of {longest:?} valid entries");
    migration.finish()
}
