# SPDX-License-Identifier: GPL-2.0-or-later
"""SIGKILL of either side, in each phase of a migration."""

import os
import signal

import loaded
from cases.broken import MODES, begin_through, go_on, passed_through, reason, who_refused, whole
from failures import TestFailure
from runner import case
from stream import ENTRIES, FIRST, LATER, OPENING, SIZE, STOP
from striking import Strike

# Killed when this piece comes, and once more after both sides are done.
PHASES = ((SIZE, OPENING), (FIRST, ENTRIES), (LATER, ENTRIES), (STOP, ENTRIES))
AFTER = "after the end"


def phases(series):
    # In 7.2 a guest at work leaves no bandwidth to the table before the stop.
    return [place for place in PHASES if series != "7.2" or place[0] in (SIZE, STOP)]


def kill_at(place, victim=None):
    """At the first such piece, as a migration may have one only."""
    return Strike(place, 0, 0.5, "kill", victim=victim)


@case
def destination_killed(fleet, series):
    """The source says why and goes on, and migrates later."""
    machine = fleet.start(series)
    for place in phases(series):
        end, proxy, destination = passed_through(fleet, machine, kill_at(place), MODES[place[0]])
        if not proxy.struck or destination.process.wait() != -signal.SIGKILL:
            raise TestFailure(f"the destination was not killed in {place}")
        if end["status"] != "failed":
            raise TestFailure(f"the destination was killed in {place}, and query-migrate says {end}")
        go_on(machine)
        machine.wait_ticks(2)
        whole(fleet, machine)
        fleet.note(killed="destination", phase=place[0], error=reason(machine, end))
    end, _, destination = passed_through(fleet, machine)
    destination.wait_status("paused")
    fleet.drop(destination)
    go_on(machine)
    machine.wait_ticks(2)
    fleet.note(killed="destination", phase=AFTER, source=end["status"])
    fleet.migrate(machine)


def started_from(fleet, program, guest, path):
    """A guest that was saved to a file goes on in a new process."""
    machine = fleet.machine(program, guest, incoming=f"exec:cat {path}")
    machine.wait_status("paused", 120)
    loaded.mend(program.series, machine.process.pid, guest.smp)
    machine.qmp("cont")
    machine.wait_ticks(1)
    return machine


@case
def source_killed(fleet, series):
    """The destination refuses what came; after the end, it goes on alone."""
    patched = fleet.program(series)
    guest = fleet.guest()
    machine = fleet.boot(patched, guest)
    path = fleet.path("killed")
    # At rest, so that 7.2 loses none of its RAM.
    machine.qmp("stop")
    machine.start_migration(f"exec:cat >{path}")
    machine.wait_migration("completed")
    fleet.drop(machine)
    for place in phases(series):
        source = started_from(fleet, patched, guest, path)
        proxy, destination = begin_through(fleet, source, kill_at(place, source.process), MODES[place[0]])
        proxy.join(120)
        if not proxy.struck or source.process.wait() != -signal.SIGKILL:
            raise TestFailure(f"the source was not killed in {place}")
        who = who_refused(destination)
        if who != "library":
            raise TestFailure(f"the source was killed in {place}, and the destination says: {destination.said()}")
        fleet.note(killed="source", phase=place[0], destination=destination.said().splitlines()[0])
        fleet.drop(source)
        fleet.drop(destination)
    source = started_from(fleet, patched, guest, path)
    _, _, destination = passed_through(fleet, source)
    destination.wait_status("paused")
    found = fleet.check_tables(source, destination)
    destination.go_on(source)
    fleet.drop(source)
    destination.wait_ticks(2)
    fleet.note(killed="source", phase=AFTER, entries=found.valid)
    os.unlink(path)
