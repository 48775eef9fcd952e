# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that move from one QEMU to another, and what judges their tables."""

import hpt
from cases.slowly import begin_slowly, calmed, end_quickly, passes, ready_for, wait_for, wait_for_round
from failures import Skipped, TestFailure
from runner import case


@case
def comparer_sees_differences(_fleet, _series):
    """The tests' own judge: each kind of difference is found, and the dirty mark is none."""

    def entry(flags, low=0):
        return bytes([1, 2, 3, 4, 5, 6, 7, flags]) + low.to_bytes(8, "big")

    table = entry(1) + entry(0, 7) + entry(0x41) + entry(1, 0x190)
    wanted = {
        "same": (table, (0, 0, 0, 0)),
        "dirty": (entry(0x41) + entry(0) + entry(1) + entry(1, 0x190), (0, 0, 0, 0)),
        "lost": (entry(0) + table[16:], (1, 0, 0, 0)),
        "extra": (table[:16] + entry(1) + table[32:], (0, 1, 0, 0)),
        "other": (table[:48] + entry(1, 0x1190), (0, 0, 1, 0)),
        "R and C": (table[:48] + entry(1, 0x010), (0, 0, 0, 1)),
    }
    for name, (other, counts) in wanted.items():
        found = hpt.compare(table, other)
        got = tuple(len(kind) for kind in (found.lost, found.extra, found.other, found.r_and_c))
        if got != counts or found.same() != (not any(counts)):
            raise TestFailure(f"{name}: {got}, not {counts}")
    if hpt.compare(table, table[16:]).same():
        raise TestFailure("tables of two sizes count as equal")


@case
def patched_and_unpatched(fleet, series):
    """patched to patched, patched to unpatched, unpatched to patched, in one life of a guest."""
    patched, unpatched = fleet.program(series), fleet.program(series, False)
    machine = fleet.migrate(fleet.start(series), tap=True)
    machine = fleet.migrate(machine, unpatched, tap=True)
    fleet.migrate(machine, patched, tap=True)


@case
def four_processors(fleet, series):
    """-smp 4 with a thread for each, all of which fork. The guest's watchdog reports one that stands, but late."""
    fleet.migrate(fleet.start(series, smp=4), watch=30)


@case
def twenty_in_one_life(fleet, series):
    """There and back, twenty times, without a pause of the guest's work."""
    machine = fleet.start(series)
    for _ in range(20):
        machine = fleet.migrate(machine)


@case
def multifd(fleet, series):
    """RAM through channels of its own; the table stays in the main one."""
    machine = fleet.start(series)
    destination = ready_for(fleet, machine, "multifd")
    machine.start_migration(destination.incoming)
    fleet.finish(machine, destination)


@case
def power9(fleet, series):
    """A POWER9 guest that is not to use radix."""
    fleet.migrate(fleet.start(series, cpu="POWER9", append="disable_radix"))


def move_radix(fleet, machine, program):
    """A guest without a hash table migrates to a new process; returns the destination, running."""
    destination = fleet.destination(machine, program)
    machine.start_migration(destination.incoming)
    info = fleet.arrival(machine, destination)
    if machine.hpt() or destination.hpt():
        raise TestFailure("a radix guest has a hash table")
    if machine.rust and machine.query()["save-total"]["records"]:
        raise TestFailure("records of a table that is not there")
    destination.go_on(machine)
    destination.wait_ticks(2)
    fleet.note(source=str(machine.program), to=str(program), radix="yes", downtime_ms=info["downtime"])
    fleet.drop(machine)
    return destination


@case
def radix(fleet, series):
    """A guest without a hash table, there and to QEMU's own code and back."""
    patched, unpatched = fleet.program(series), fleet.program(series, False)
    machine = fleet.start(series, mmu="Radix", cpu="POWER9")
    for program in (patched, unpatched, patched):
        machine = move_radix(fleet, machine, program)


@case
def own_code_compared(fleet, series):
    """x-rust-htab=off is QEMU's own code: the same program, compared with itself. Lost R and C are noted, not judged."""
    machine = fleet.start(series, rust=False)
    for rust in (False, False, True, True):
        machine = fleet.migrate(machine, rust=rust, tap=True)


@case
def r_and_c(fleet, series):
    """A change bit that TCG sets after its entry was sent arrives; with QEMU's own code it does not.

    Linux enters its entries with R set, and with C where it will write, so the guest alone hardly ever makes TCG set one.
    """
    for rust in (True, False):
        machine = fleet.start(series, rust=rust)
        machine.set_capability("pause-before-switchover")
        destination = begin_slowly(fleet, machine, bandwidth=calmed(machine), rust=rust)
        if rust:
            wait_for(machine, "a later pass", lambda: len(passes(machine)) >= 2)
        else:
            # With each round of RAM goes a piece of the table.
            wait_for_round(machine, 3)
        end_quickly(machine)
        machine.wait_migration("pre-switchover")
        slot = hpt.set_change_bit(machine.process.pid)
        machine.qmp("migrate-continue", state="pre-switchover")
        fleet.arrival(machine, destination)
        found = hpt.compare(machine.hpt(), destination.hpt())
        fleet.note(set_c_in=slot, rust=rust, tables=str(found))
        if rust and not found.same():
            raise TestFailure(f"the tables differ: {found}")
        if not rust and slot not in found.r_and_c:
            # Then this proves nothing about ours either.
            raise TestFailure(f"QEMU's own code sent the change bit of slot {slot}, too: {found}")
        fleet.drop_each()


@case
def across_versions(fleet, series):
    """7.2 to 10.0 to 10.2 and back to 10.0, under the oldest machine type.

    Not back to 7.2: QEMU 10.0 sends "cpu/slb" in a version that 7.2 does not know, whatever the machine type and with its
    own code for the table, too.
    """
    if series != "7.2":
        raise Skipped("runs once, with 7.2")
    machine = fleet.start("7.2", machine="pseries-7.2")
    for there in ("10.0", "10.2", "10.0"):
        machine = fleet.migrate(machine, fleet.program(there), tap=True)
    for rust in (True, False):
        try:
            fleet.migrate(machine, fleet.program("7.2"), rust=rust)
        except TestFailure as refused:
            if "cpu/slb: incoming version_id" not in str(refused):
                raise
            machine.wait_ticks(2)
        else:
            raise TestFailure("10.0 to 7.2 works now: this case can go all the way back")
