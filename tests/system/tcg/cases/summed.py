# SPDX-License-Identifier: GPL-2.0-or-later
"""x-htab-crc: the source's count and CRC of the table's records go along, and the destination compares."""

import re
from dataclasses import replace

from cases.broken import SOON, WITH_CRC, arrived, go_on, passed_through, who_refused
from cases.changing import postcopies, resize_in_mid_migration
from cases.moving import move_radix
from cases.saved import snapshots
from cases.slowly import SLOW, ready_for
from failures import TestFailure
from runner import case
from stream import ENTRIES, FIRST, OPENING, SIZE, STOP, Tap
from striking import Proxy, Strike

# Its type, the length of its name, its name.
SUBSECTION = b"\x05\x0espapr_htab_crc"
# A bit of an entry's address.
FLIP = Strike((STOP, ENTRIES), 0, 0.9, "flip", b"\x10")


def accepted(fleet, machine, guest, sent):
    """A migration with the property as it is on either side, and whether the subsection was sent."""
    destination = fleet.machine(machine.program, guest, incoming=True)
    wire = Tap(destination.incoming)
    machine.start_migration(wire.uri)
    fleet.arrival(machine, destination)
    found = arrived(machine, destination)
    if not found.same():
        raise TestFailure(f"the tables differ: {found}")
    if (SUBSECTION in wire.end()) != sent:
        raise TestFailure(f"the subsection was {'not ' if sent else ''}sent")
    fleet.drop(destination)
    go_on(machine)


def refused(fleet, machine, sentence, **options):
    end, _, destination = passed_through(fleet, machine, **options)
    # It says more between its refusal and its end.
    ended = destination.process.wait(60)
    said = destination.said()
    if end["status"] != "failed" or ended != 1 or not re.search(sentence, said):
        raise TestFailure(f"{end}; {said}")
    fleet.drop(destination)
    go_on(machine)
    machine.wait_ticks(1)
    return re.search(sentence, said)[0]


@case
def crc_with_whom(fleet, series):
    """With the property on either side or both; who cannot check refuses, and the guest goes on."""
    patched = fleet.program(series)
    plain = fleet.guest()
    summed = replace(plain, machine=WITH_CRC)
    machine = fleet.boot(patched, plain)
    accepted(fleet, machine, summed, sent=False)
    fleet.drop(machine)

    machine = fleet.boot(patched, summed)
    accepted(fleet, machine, summed, sent=True)
    accepted(fleet, machine, plain, sent=True)
    off = refused(fleet, machine, r"x-rust-htab=off the checksum .* cannot be checked", rust=False, guest=plain)
    other = fleet.program(series, False)
    unpatched = refused(fleet, machine, r"load of migration failed.*", program=other, guest=plain)
    fleet.note(off=off, unpatched=unpatched)
    fleet.migrate(machine)


@case
def crc_and_the_return_path(fleet, series):
    """What the source makes of a refusal: with the return path its guest goes on; without, it takes all as done.

    Unless it is still sending when the destination ends (seen with 7.2): then it notices by itself.
    """
    machine = fleet.start(series, machine=WITH_CRC)
    for return_path, wanted in ((True, ["failed"]), (False, ["completed", "failed"])):
        end, _, destination = passed_through(fleet, machine, FLIP, SOON, return_path=return_path)
        if who_refused(destination) != "crc" or end["status"] not in wanted:
            raise TestFailure(f"{end}; {destination.said()}")
        status = machine.qmp("query-status")["status"]
        if end["status"] == "completed" and status != "postmigrate":
            raise TestFailure(f"the source is {status}")
        fleet.note(return_path=return_path, source=end["status"], error=end.get("error-desc"))
        fleet.drop(destination)
        # Without the return path this is for the user to say.
        go_on(machine)
        machine.wait_ticks(2)
    fleet.migrate(machine)


@case
def crc_goes_with_the_size(fleet, series):
    """A flip makes the table an order larger: all records fit, and are as they were sent."""
    machine = fleet.start(series, machine=WITH_CRC, memory="512M")
    order = fleet.order(machine, machine.hpt())
    sentence = rf"hash table did not arrive as it was sent: .*order {order + 1}\b.*order {order}\b.*"
    said = refused(fleet, machine, sentence, strike=Strike((SIZE, OPENING), 0, 0.75, "flip", b"\x01"))
    fleet.note(said=said)


FIGURES = ("order", "records", "bytes", "CRC-32")


@case
def crc_says_what_differs(fleet, series):
    """And nothing else: the size alone, or the CRC alone."""
    machine = fleet.start(series, machine=WITH_CRC, memory="512M")
    for strike, wanted in ((Strike((SIZE, OPENING), 0, 0.75, "flip", b"\x01"), "order"), (FLIP, "CRC-32")):
        said = refused(fleet, machine, "hash table did not arrive as it was sent.*", strike=strike, options=SOON)
        named = [figure for figure in FIGURES if figure in said]
        if named != [wanted]:
            raise TestFailure(f"the {wanted} differs, and what is said names {named}: {said}")
        fleet.note(said=said)


@case
def crc_in_other_migrations(fleet, series):
    """A table that is resized meanwhile, postcopy, a snapshot, no table at all."""
    machine = fleet.start(series, machine=f"{WITH_CRC},resize-hpt=enabled")
    machine, _ = resize_in_mid_migration(fleet, machine, machine.program, 1)
    machine = postcopies(fleet, machine)
    snapshots(fleet, machine)
    fleet.drop_each()
    machine = fleet.start(series, mmu="Radix", cpu="POWER9", machine=WITH_CRC)
    move_radix(fleet, machine, machine.program)


@case
def crc_in_postcopy(fleet, series):
    """A flip is found before the guest runs on the destination. Only 10.2 lets the source go on after that."""
    machine = fleet.start(series, machine=WITH_CRC)
    destination = ready_for(fleet, machine, "postcopy-ram")
    # In 7.2 a guest at work leaves no bandwidth to the table before the stop.
    strike = replace(FLIP, place=(STOP if series == "7.2" else FIRST, ENTRIES))
    proxy = Proxy(destination.incoming, strike)
    machine.set_capability("return-path")
    machine.start_migration(proxy.uri, bandwidth=SLOW, downtime_ms=1)
    machine.wait_migration("active")
    machine.qmp("migrate-start-postcopy")
    end = machine.wait_migration("failed", "postcopy-paused")
    if who_refused(destination) != "crc":
        raise TestFailure(destination.said())
    fleet.note(postcopy="flip", source=end["status"], error=end.get("error-desc"))
    if series == "10.2":
        go_on(machine)
        machine.wait_ticks(2)
    elif end["status"] != "postcopy-paused":
        raise TestFailure(f"the source is {end['status']} now: does its guest go on?")
