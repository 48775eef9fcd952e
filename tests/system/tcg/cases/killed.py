# SPDX-License-Identifier: GPL-2.0-or-later
"""SIGKILL of either side, in each phase of a migration."""

import os
import signal

import loaded
from cases.broken import MODES, begin_through, go_on, passed_through, reason, who_refused, whole
from cases.registry import case
from machine import TestFailure
from striking import ENTRIES, FIRST, LATER, OPENING, SIZE, STOP, Strike

# Killed when this piece comes, and once more after both sides have told that they are done.
PHASES = ((SIZE, OPENING), (FIRST, ENTRIES), (LATER, ENTRIES), (STOP, ENTRIES))
AFTER = "after the end"


def phases(series):
    # In 7.2 a guest at work leaves no bandwidth to the table before the stop.
    return [place for place in PHASES if series != "7.2" or place[0] in (SIZE, STOP)]


def kill_at(place, victim=None):
    """At the first such piece, as a migration may have one only."""
    return Strike(place, 0, 0.5, "kill", victim=victim)


@case
def destination_killed(lab, series):
    """The source says why and goes on, and migrates later."""
    patched = lab.program(series)
    machine = lab.boot(patched, lab.guest())
    for place in phases(series):
        end, proxy, destination = passed_through(lab, machine, kill_at(place), MODES[place[0]])
        if not proxy.struck or destination.process.wait() != -signal.SIGKILL:
            raise TestFailure(f"the destination was not killed in {place}")
        if end["status"] != "failed":
            raise TestFailure(f"the destination was killed in {place}, and query-migrate says {end}")
        go_on(machine)
        machine.wait_ticks(2)
        whole(lab, machine)
        lab.note(killed="destination", phase=place[0], error=reason(machine, end))
    end, _, destination = passed_through(lab, machine)
    destination.wait_status("paused")
    lab.drop(destination)
    go_on(machine)
    machine.wait_ticks(2)
    lab.note(killed="destination", phase=AFTER, source=end["status"])
    lab.migrate(machine, patched)


def started_from(lab, program, guest, path):
    """A guest that was saved to a file goes on in a new process."""
    machine = lab.machine(program, guest, incoming=f"exec:cat {path}")
    machine.wait_status("paused", 120)
    loaded.mend(program.series, machine.process.pid, guest.smp)
    machine.qmp("cont")
    machine.wait_ticks(1)
    return machine


@case
def source_killed(lab, series):
    """The destination refuses what came; after the end, it goes on alone."""
    patched = lab.program(series)
    guest = lab.guest()
    machine = lab.boot(patched, guest)
    path = os.path.join(lab.folder, "killed")
    # At rest, so that 7.2 loses none of its RAM.
    machine.qmp("stop")
    machine.start_migration(f"exec:cat >{path}")
    machine.wait_migration("completed")
    lab.drop(machine)
    for place in phases(series):
        source = started_from(lab, patched, guest, path)
        proxy, destination = begin_through(lab, source, kill_at(place, source.process), MODES[place[0]])
        proxy.join(120)
        if not proxy.struck or source.process.wait() != -signal.SIGKILL:
            raise TestFailure(f"the source was not killed in {place}")
        who = who_refused(destination)
        if who != "library":
            raise TestFailure(f"the source was killed in {place}, and the destination says: {destination.said()}")
        lab.note(killed="source", phase=place[0], destination=destination.said().splitlines()[0])
        lab.drop(source)
        lab.drop(destination)
    source = started_from(lab, patched, guest, path)
    _, _, destination = passed_through(lab, source)
    destination.wait_status("paused")
    found = lab.check_tables(source, destination)
    destination.go_on(source)
    lab.drop(source)
    destination.wait_ticks(2)
    lab.note(killed="source", phase=AFTER, entries=found.valid)
    os.unlink(path)
