# SPDX-License-Identifier: GPL-2.0-or-later
"""One migration of a whole guest, and what came of it, whatever the accelerator; for tests/system/migrate."""

import re

import hpt
from failures import GuestFailure, TestFailure
from stream import Tap

COUNTED = ("valid", "invalid", "records", "bytes")


def step(text):
    print(f"- {text}", flush=True)


def figures(counts):
    return {name: counts[name] for name in COUNTED} | {"seconds": counts["time-ns"] / 1e9}


def migrate(fleet, guest, source_program, destination_program, keep=None):
    """A guest boots, works and migrates; returns the figures. The stream is kept in a file of that name."""
    step(f"booting Linux {fleet.guest_kernel} in a pseries machine with a hash table ({fleet.accel})")
    source = fleet.boot(source_program, guest)
    step(f"migrating it live, {source_program} to {destination_program}, while it forks, maps and writes files")
    destination = fleet.destination(source, destination_program)
    wire = Tap(destination.incoming) if keep else None
    source.start_migration(wire.uri if wire else destination.incoming)
    info = fleet.arrival(source, destination)
    if wire:
        with open(keep, "wb") as file:
            file.write(wire.end())
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
        result["passes"] = [figures(each) for each in stats["save-passes"]]
        result["stopped"] = figures(stats["save-stopped"])
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
