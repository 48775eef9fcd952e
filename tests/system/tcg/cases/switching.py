# SPDX-License-Identifier: GPL-2.0-or-later
"""Postcopy: when it begins, that it ends, and what may come to the table of a guest that runs already."""

import re
import threading
import time

import hpt
from cases.slowly import SLOW, ready_for
from failures import TestFailure, wait_until
from runner import case
from stream import ENTRY, FOOTER, NAME, OPENING_BYTES, PART, RECORD, START
from striking import Proxy

# What postcopy sends at this rate takes some minutes.
HELD_RATE = 1 << 20
SOON_SECONDS = 5
END_SECONDS = 60
LOOKS = 200


def switch(machine, destination, uri=None, bandwidth=SLOW):
    """Switches over at once, with RAM left to send; returns how many seconds that took."""
    machine.qmp("migrate-set-parameters", max_postcopy_bandwidth=HELD_RATE)
    machine.start_migration(uri or destination.incoming, bandwidth=bandwidth, downtime_ms=1)
    machine.wait_migration("active")
    begin = time.monotonic()
    machine.qmp("migrate-start-postcopy")
    machine.wait_migration("postcopy-active", seconds=END_SECONDS)
    seconds = time.monotonic() - begin
    # 7.2 says so before the guest is stopped, and sets the rate after that.
    machine.wait_status("finish-migrate")
    return seconds


def release(machine):
    """Lets the rest of RAM go as fast as it can."""
    machine.qmp("migrate-set-parameters", max_postcopy_bandwidth=0)


@case
def postcopy_begins_soon(fleet, series):
    """At 1 MiB/s the switchover comes within seconds, although RAM leaves the table no turn; all of the table arrives."""
    machine = fleet.start(series)
    destination = ready_for(fleet, machine, "postcopy-ram")
    seconds = switch(machine, destination, bandwidth=1 << 20)
    release(machine)
    fleet.finish(machine, destination)
    fleet.note(switched_after_s=round(seconds, 1))
    if seconds > SOON_SECONDS:
        raise TestFailure(f"it took {seconds:.1f} s to switch over")


def disturbed(machine, destination, disturb):
    """Switches over, disturbs the source then; both sides must end, the table as it was sent."""
    switch(machine, destination)
    before = machine.hpt()
    disturb(machine)
    release(machine)
    machine.wait_migration("completed", seconds=END_SECONDS)
    destination.wait_migration("completed", seconds=END_SECONDS)
    destination.wait_status("paused")
    found = hpt.compare(before, destination.hpt())
    if not found.same():
        raise TestFailure(f"the tables differ: {found}")
    if machine.rust and machine.query()["save-pending"]:
        raise TestFailure(f"after the end: {machine.query()}")


def look(machine):
    """All over the linear map: each page's entry is in another group."""
    for page in range(LOOKS):
        said = machine.qmp.hmp(f"x /1xg {0xC000000000000000 + (page << 16):#x}")
        if "annot access" in said:
            raise TestFailure(f"the table was not looked into: {said}")


def reset(machine):
    before = len(machine.qmp.events)
    machine.qmp("system_reset")

    def done():
        machine.qmp("query-status")
        return any(event["event"] == "RESET" for event in machine.qmp.events[before:])

    wait_until(done, END_SECONDS, lambda: "no reset", 0.1)


@case
def postcopy_of_a_source_that_is_disturbed(fleet, series):
    """After the switchover somebody looks into the source's memory and resets it: both sides end.

    The guest cannot go on: the rest of its RAM is that of the reset.
    """
    # After the reset, too, so old a processor has a hash table on any host.
    machine = fleet.start(series, machine="pseries,max-cpu-compat=power8")
    destination = ready_for(fleet, machine, "postcopy-ram")
    disturbed(machine, destination, lambda source: (look(source), reset(source)))


@case
def postcopy_from_unpatched(fleet, series):
    """QEMU's own code sends (in 10.2 it completes twice): the patched destination takes it, and the guest goes on."""
    machine = fleet.boot(fleet.program(series, False), fleet.guest())
    destination = fleet.machine(fleet.program(series), machine.guest, defer=True)
    for each in (machine, destination):
        each.set_capability("postcopy-ram")
    destination.qmp("migrate-incoming", uri=destination.incoming)
    switch(machine, destination)
    release(machine)
    fleet.finish(machine, destination).set_capability("postcopy-ram", False)


class Intruder(Proxy):
    """Once it is let loose, it puts a section of the table's between two of RAM's."""

    def __init__(self, onward, body):
        self.body = body
        self.loose = threading.Event()
        super().__init__(onward)

    def _send_on(self, source, destination):
        stream, ram, table = b"", None, None
        while piece := source.recv(1 << 20):
            if not table:
                stream += piece
                ram, table = (self._section(name, stream) for name in (b"\x03ram", NAME))
            elif self.loose.is_set() and not self.struck:
                between = re.escape(ram) + b"()" + re.escape(bytes([PART]) + ram)
                if found := re.search(b"\\x%02x" % FOOTER + between, piece):
                    self.struck = True
                    at = found.end(1)
                    piece = piece[:at] + bytes([PART]) + table + self.body + bytes([FOOTER]) + table + piece[at:]
            destination.sendall(piece)
        return True

    @staticmethod
    def _section(name, stream):
        found = re.search(b"\\x%02x(....)%b" % (START, re.escape(name)), stream, re.S)
        return found and found[1]


def intrude(fleet, machine, body):
    """Switches over, and has the destination meet such a body then; returns it."""
    destination = ready_for(fleet, machine, "postcopy-ram")
    intruder = Intruder(destination.incoming, body)
    switch(machine, destination, intruder.uri)
    destination.wait_migration("postcopy-active")
    intruder.loose.set()
    wait_until(lambda: intruder.struck, END_SECONDS, lambda: "no place between two sections of RAM", 0.1)
    release(machine)
    return destination


@case
def size_after_the_switchover(fleet, series):
    """A hostile source's: it is refused, and the table of the guest that may run stays."""
    machine = fleet.start(series)
    destination = intrude(fleet, machine, (18).to_bytes(OPENING_BYTES, "big"))
    end = destination.wait_migration("postcopy-paused", "failed", "completed", seconds=END_SECONDS)
    found = hpt.compare(machine.hpt(), destination.hpt())
    if not found.same():
        raise TestFailure(f"the tables differ: {found}")
    # 7.2's query-migrate has no place for it.
    said = destination.said() if series == "7.2" else end.get("error-desc", "")
    if end["status"] == "completed" or "hash table" not in said:
        raise TestFailure(f"{end}; {destination.said()}")
    fleet.note(refused="size in postcopy", status=end["status"], said=said)


@case
def records_after_the_switchover(fleet, series):
    """They are discarded: the table of the guest that may run stays as it was, and the migration ends."""
    machine = fleet.start(series)
    entry = bytes([1, 2, 3, 4, 5, 6, 7, hpt.VALID]) + bytes(ENTRY - 8)
    body = bytes(OPENING_BYTES) + RECORD.pack(1, 2, 0) + 2 * entry + RECORD.pack(0, 0, 0)
    destination = intrude(fleet, machine, body)
    machine.wait_migration("completed", seconds=END_SECONDS)
    fleet.finish(machine, destination)
