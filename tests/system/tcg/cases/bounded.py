# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables that are larger than the machine or its host has room for. No guest runs: its table is empty."""

import re
import resource

from cases.broken import passed_through, who_refused
from failures import TestFailure
from runner import case
from stream import OPENING, SIZE
from striking import Strike

# A machine whose table is made for the most memory that it may ever have: order 27.
WIDE = {"machine": "pseries,resize-hpt=disabled", "memory": "1G,slots=1,maxmem=16G"}
SMALL, SMALL_BYTES, SMALL_ORDER = "256M", 256 << 20, 21
# What a destination needs beside its table to take a stream.
SPARE = 96 << 20


def check_figures(said, order):
    """The sentence must have the table's size and the machine's."""
    memory = rf"{SMALL_BYTES >> 20} MiB|{SMALL_BYTES}|{SMALL_BYTES:,}"
    if not re.search(rf"order {order}\b", said) or not re.search(memory, said):
        raise TestFailure(f"what is said has not both figures: {said}")


def other_order(order):
    """Has the source say that its table is of that order."""
    return Strike((SIZE, OPENING), 0, 0.75, "flip", bytes([order ^ SMALL_ORDER]))


@case
def too_large_a_table(fleet, series):
    """A table larger than the machine's memory can ever be is refused with both figures, by status 1 and no signal."""
    machine = fleet.held(series, memory=SMALL)
    for order in (29, 36):
        end, _, destination = passed_through(fleet, machine, other_order(order))
        if end["status"] != "failed":
            raise TestFailure(f"order {order}: {end}")
        who = who_refused(destination)
        if who != "library":
            raise TestFailure(f"order {order}: refused by {who}: {destination.said()}")
        check_figures(destination.said(), order)
        fleet.note(order=order, said=destination.said())
        fleet.drop(destination)


@case
def large_tables_arrive(fleet, series):
    """One as large as the machine's memory, and one made for memory that the destination is not to get."""
    small = fleet.held(series, memory=SMALL)
    wide = fleet.held(series, **WIDE)
    for machine, order, options in (
        (small, 28, {"strike": other_order(28)}),
        (wide, 27, {"guest": fleet.guest(memory="1G")}),
    ):
        end, _, destination = passed_through(fleet, machine, **options)
        if end["status"] != "completed":
            raise TestFailure(f"order {order}: {end}; {destination.said()}")
        found = fleet.order(destination, destination.hpt())
        if found != order:
            raise TestFailure(f"the table has order {found}, not {order}")
        fleet.drop(destination)


@case
def no_memory_for_the_table(fleet, series):
    """No memory for a table of a size that may be: the destination says so, with status 1 and no signal."""
    machine = fleet.held(series, **WIDE)
    # Its own table, which goes by the memory that it has, is smaller.
    destination = fleet.machine(machine.program, fleet.guest(memory=WIDE["memory"]), incoming=True)
    with open(f"/proc/{destination.process.pid}/status", encoding="ascii") as file:
        limit = (int(re.search(r"VmSize:\s*(\d+) kB", file.read())[1]) << 10) + SPARE
    resource.prlimit(destination.process.pid, resource.RLIMIT_AS, (limit, limit))
    machine.set_capability("return-path")
    machine.start_migration(destination.incoming)
    who = who_refused(destination)
    said = destination.said()
    if who != "library" or "27" not in said:
        raise TestFailure(f"refused by {who}: {said}")
    fleet.note(refused="no memory", error=machine.wait_migration("failed").get("error-desc"), said=said)


@case
def large_table_of_a_busy_guest(fleet, series):
    """Order 29 for a guest of 1 GiB at work, at QEMU's usual rate: it arrives, as it does with QEMU's own code."""
    machine = fleet.start(series, machine="pseries,resize-hpt=disabled", memory="1G,slots=1,maxmem=64G")
    destination = fleet.destination(machine)
    machine.start_migration(destination.incoming, bandwidth=128 << 20)
    info = machine.wait_migration("completed", seconds=60)
    fleet.finish(machine, destination)
    fleet.note(order=29, ram_rounds=info["ram"]["dirty-sync-count"])
