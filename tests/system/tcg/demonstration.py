# SPDX-License-Identifier: GPL-2.0-or-later
"""What the demos with a whole guest do and tell, whatever the accelerator."""

import re

import hpt
import stream
from fleet import LEAST_VALID
from machine import GuestFailure, TestFailure


# Lines for later passes.
MOST_LINES = 12


def step(text):
    print(f"- {text}", flush=True)


def pass_of(told):
    return {
        "valid": told["valid"],
        "invalid": told["invalid"],
        "records": told["records"],
        "bytes": told["bytes"],
        "seconds": told["time-ns"] / 1e9,
    }


def print_pass(name, told):
    # A character for each doubling: the first pass has thousands of times what later ones have.
    bar = "#" * told["bytes"].bit_length()
    print(
        f"  {name:16} {told['valid']:10,} {told['invalid']:12,} {told['records']:10,} {told['bytes']:12,}"
        f" {told['seconds'] * 1000:9.1f} ms  {bar}".rstrip()
    )


def lines_of(passes):
    """A name and figures for each line: where there are many later passes, those of several."""
    yield "first pass", passes[0]
    later = passes[1:]
    at_once = -(-len(later) // MOST_LINES) or 1
    for at in range(0, len(later), at_once):
        some = later[at : at + at_once]
        name = f"later pass {at + 1}" if len(some) == 1 else f"later {at + 1} to {at + len(some)}"
        yield name, {figure: sum(each[figure] for each in some) for figure in some[0]}


def migrate(fleet, guest, source_program, destination_program, keep=None):
    """A guest boots, works and migrates; what came out. The stream is kept in a file of that name."""
    step(f"booting Linux {fleet.guest_kernel} in a pseries machine with a hash table ({fleet.accel})")
    source = fleet.boot(source_program, guest)
    step(f"migrating it live, {source_program} to {destination_program}, while it forks, maps and writes files")
    destination = fleet.machine(destination_program, guest, incoming=True)
    wire = stream.Tap(f"{keep}.tap", destination.incoming) if keep else None
    source.start_migration(wire.uri if wire else destination.incoming)
    info = source.wait_migration("completed")
    destination.wait_status("paused")
    if wire:
        wire.save(keep)
    step(f"comparing the two tables, read {fleet.tables_read}")
    before = source.hpt()
    found = hpt.compare(before, destination.hpt())
    result = {
        "kernel": fleet.guest_kernel,
        "accel": fleet.accel,
        "mmu": re.search(rb"MMU\s*:\s*(\w+)", source.console()).group(1).decode(),
        "order": fleet.order(source, before),
        "passes": [],
        "lost": len(found.lost),
        "extra": len(found.extra),
        "different": len(found.other) + len(found.r_and_c),
        "entries": found.valid,
        "crc32": {},
        "downtime_ms": info["downtime"],
        "total_ms": info["total-time"],
    }
    if source.rust:
        stats = source.query()
        result["passes"] = [pass_of(told) for told in stats["save-passes"]]
        result["stopped"] = pass_of(stats["save-stopped"])
        result["crc32"]["saved"] = f"{stats['save-crc32']:08x}"
    if destination.rust:
        stats = destination.query()
        result["sections"] = stats["load-sections"]
        result["crc32"]["loaded"] = f"{stats['load-crc32']:08x}"
    step("letting the guest go on")
    result["guest_ok"] = True
    try:
        destination.go_on(source)
        destination.wait_ticks(3)
    except GuestFailure as failure:
        print(f"  {failure}")
        result["guest_ok"] = False
    result["guest_checks"] = destination.ticks()[2]
    if found.sizes:
        raise TestFailure(f"the tables differ: {found}")
    return result


def is_good(result):
    same_sums = len(result["crc32"]) < 2 or len(set(result["crc32"].values())) == 1
    whole = result["entries"] >= LEAST_VALID and not (result["lost"] or result["extra"] or result["different"])
    return result["guest_ok"] and same_sums and whole


def report(result):
    print(f"\nThe guest (Linux {result['kernel']}, {result['accel']})")
    size = (1 << result["order"]) // 1024
    print(f"  table      order {result['order']}: {size:,} KiB, {result['entries']:,} entries")
    print(f"  migrated   in {result['total_ms']} ms, stopped for {result['downtime_ms']} ms")
    goes_on = "yes" if result["guest_ok"] else "NO"
    print(f"  goes on    {goes_on}, {result['guest_checks']:,} checks of its memory so far\n")
    if result["passes"]:
        print("Sent by the library")
        print(f"  {'':16} {'entries':>10} {'invalid':>12} {'records':>10} {'bytes':>12} {'time':>12}  twice the bytes, one # more")
        for name, told in lines_of(result["passes"]):
            print_pass(name, told)
        print_pass("while stopped", result["stopped"])
        print()
    if len(result["crc32"]) == 2:
        same = len(set(result["crc32"].values())) == 1
        print(f"CRC-32 {result['crc32']['saved']}, {'the same on both sides' if same else 'NOT WHAT ARRIVED'}")
    differences = ", ".join(f"{result[kind]} {kind}" for kind in ("lost", "extra", "different"))
    print(f"Second table against first: {differences}")
    print("\nThe guest's table arrived whole." if is_good(result) else "\nWRONG: see above.")
