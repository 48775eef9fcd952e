// SPDX-License-Identifier: GPL-2.0-or-later
//! Tables too large for this machine, in virtual time: how long an iterate takes, and how long a guest stands still for
//! its table. Prints one line of JSON.
//!
//! `bench-simulated [CLEAN INVALID ENTRY]`: instructions of the kernel for a clean slot skipped, an invalid slot
//! reported and an entry reported, as `bench-kernel` counts them. The code that runs is the library's and the rival's;
//! the kernel, the guest's changes and the time are made up.

use htab_bench::vast::Costs;
use htab_bench::{downtime, iterates};
use serde_json::json;

/// A POWER9 at some 3 GHz and an instruction a cycle: kernels seldom do better.
const INSTRUCTIONS_PER_NS: u64 = 3;
/// What a system call takes beside its work.
const CALL: u64 = 1500;
/// 10 Gbit/s.
const NETWORK_PS_PER_BYTE: u64 = 800;

fn main() {
    let mut instructions =
        std::env::args().skip(1).map(|number| number.parse::<u64>().expect("a number of instructions"));
    let mut next = |default: u64| instructions.next().unwrap_or(default) * 1000 / INSTRUCTIONS_PER_NS;
    let [clean, invalid, entry] = [11, 46, 833].map(&mut next);
    let costs =
        Costs { call: CALL * 1000 / INSTRUCTIONS_PER_NS, clean, invalid, entry, byte: NETWORK_PS_PER_BYTE };
    let result = json!({
        "costs_ps": { "call": costs.call, "clean": clean, "invalid": invalid, "entry": entry },
        "iterates": iterates::rows(costs),
        "downtime": downtime::rows(costs),
    });
    println!("{result}");
}
