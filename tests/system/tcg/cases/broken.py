# SPDX-License-Identifier: GPL-2.0-or-later
"""Streams that are cut or changed on their way, at places spread over all of the table's bodies.

One guest lives through all of it: only destinations are started anew. The source uses the capability return-path, and
so hears of a refusal even when it has sent everything.
"""

import itertools
import random
import re
import subprocess
from collections import Counter

import hpt
from failures import TestFailure
from runner import case
from stream import CLOSING, ENTRIES, FIRST, HEADER, LATER, OPENING, SIZE, STOP  # kinds and parts
from stream import END, ENTRY, FOOTER, NAME, OPENING_BYTES, PART, RECORD, START, Walker, sections
from striking import Proxy, Strike

SEED = 6
WITH_CRC = "pseries,x-htab-crc=on"
# What is sent after the stop is most of the table if the stop comes after one round; see error_in_the_final_pass.
SOON = {"bandwidth": 1 << 20, "downtime_ms": 2000000}
MODES = {SIZE: {}, FIRST: {}, LATER: {}, STOP: SOON}
PLACES = [(SIZE, OPENING), *itertools.product((FIRST, LATER, STOP), (OPENING, HEADER, ENTRIES, CLOSING))]
# Later passes differ from run to run: so many of their pieces are nearly always there.
SURE = 40
# A flip in a length can have the destination wait for bytes that the source does not have, and the source waits for its
# answer. A user cancels then.
PATIENCE = 10
BREATHE = 10  # strikes until the guest has to count on, and a migration to go through

# Who refused: this order, since QEMU's own sentences follow the others.
REFUSED = {
    "crc": r"the hash table did not arrive as it was sent",
    "library": r"refused .*record|the migration stream (ended|failed) at|(hash table|HPT) of order \d+",
    "core": r"[Mm]issing section footer|Unknown (savevm )?section|[Ff]ailed to load|error while loading state",
}


def who_refused(machine):
    """Waits for a destination that refuses a stream to end by itself; returns whose sentence says why."""
    try:
        status = machine.process.wait(60)
    except subprocess.TimeoutExpired:
        raise TestFailure(f"the destination does not end: {machine.said()[-500:]!r}") from None
    said = machine.said()
    if status != 1:
        raise TestFailure(f"the destination ended with {status}: {said[-2000:]}")
    for who, sentence in REFUSED.items():
        if re.search(sentence, said):
            return who
    raise TestFailure(f"the destination ended without a reason: {said[-500:]!r}")


def begin_through(fleet, machine, strike=None, options=None, guest=None, rust=True, program=None, return_path=True):
    """Begins a migration through a proxy to a new process; returns the proxy and the destination."""
    destination = fleet.machine(program or machine.program, guest or machine.guest, incoming=True, rust=rust)
    if strike and strike.kind == "kill" and not strike.victim:
        strike.victim = destination.process
    proxy = Proxy(destination.incoming, strike)
    machine.set_capability("return-path", return_path)
    machine.start_migration(proxy.uri, **(options or {}))
    return proxy, destination


def passed_through(fleet, machine, strike=None, options=None, **others):
    """Migrates through a proxy, to whatever end; returns query-migrate, the proxy and the destination."""
    proxy, destination = begin_through(fleet, machine, strike, options, **others)
    while (end := machine.migration())["status"] not in ("completed", "failed", "cancelled"):
        if proxy.idle() > PATIENCE and end["status"] == "device":
            machine.qmp("migrate_cancel")
            end = machine.wait_migration("cancelled", "failed")
            break
        proxy.join(0.01)
    return end, proxy, destination


def go_on(machine):
    """Lets the source's guest go on after a refusal, or when the destination is given up."""
    if machine.migration()["status"] == "completed":
        machine.qmp("cont")
    machine.wait_status("running")


def reason(machine, end):
    """Returns why a migration failed. In 7.2 the core keeps no reason that came by the return path."""
    if not end.get("error-desc") and machine.program.series != "7.2":
        raise TestFailure("query-migrate says no reason")
    return end.get("error-desc")


def arrived(machine, destination):
    """Returns how the tables differ once the destination has all. Both guests are held."""
    destination.wait_status("paused")
    return hpt.compare(machine.hpt(), destination.hpt())


def whole(fleet, machine, **options):
    """Migrates unharmed, compares, gives the destination up; returns what pieces there were."""
    end, proxy, destination = passed_through(fleet, machine, **options)
    if end["status"] != "completed":
        raise TestFailure(f"an unharmed migration {end['status']}: {end.get('error-desc')}; {destination.said()}")
    destination.wait_status("paused")
    fleet.check_tables(machine, destination)
    fleet.check_sums(machine, destination)
    fleet.drop(destination)
    go_on(machine)
    return proxy.count


def counted(counter):
    return ", ".join(f"{number} {' '.join(key)}" for key, number in counter.most_common())


class Striker:
    """Strikes again and again at one guest's migrations, and judges each."""

    def __init__(self, fleet, series, seed, machine="pseries"):
        self.fleet = fleet
        self.random = random.Random(seed)
        self.machine = fleet.start(series, machine=machine)
        self.ends = Counter()
        self.where = Counter()
        self.missed = 0
        plain, soon = whole(fleet, self.machine), whole(fleet, self.machine, options=SOON)
        self.pieces = {place: (soon if place[0] == STOP else plain)[place] for place in PLACES}
        # In 7.2 a guest at work leaves no bandwidth to the table before the stop.
        self.places = [place for place in PLACES if self.pieces[place]]

    def choose(self, kind, place):
        pieces = self.pieces[place]
        number = self.random.randrange(min(pieces, SURE) if place[0] == LATER else pieces)
        bits = b""
        if kind == "flip":
            bits = bytes([1 << self.random.randrange(8)])
        elif kind == "insert":
            bits = self.random.randbytes(self.random.randint(1, 24))
        return Strike(place, number, self.random.random(), kind, bits)

    def strike(self, kind, place):
        """Strikes once, at another piece of that place if the migration ends before it; returns what came of it."""
        for _ in range(20):
            strike = self.choose(kind, place)
            end, proxy, destination = passed_through(self.fleet, self.machine, strike, MODES[place[0]])
            if proxy.struck:
                break
            self.missed += 1
            self.fleet.drop(destination)
            go_on(self.machine)
        else:
            raise TestFailure(f"no migration got to {place}")
        try:
            outcome = self.judge(end, destination, proxy)
        except TestFailure as failure:
            raise TestFailure(f"{strike}: {failure}") from None
        self.fleet.drop(destination)
        go_on(self.machine)
        self.ends[kind, outcome] += 1
        self.where[place] += 1
        if sum(self.ends.values()) % BREATHE == 0:
            self.breathe()
        return outcome

    def judge(self, end, destination, proxy):
        """Returns who refused, or how the tables of a completed migration differ."""
        if end["status"] == "completed":
            found = arrived(self.machine, destination)
            if found.same():
                return "equal"
            differ = {*found.lost, *found.extra, *found.other, *found.r_and_c}
            if proxy.struck.kind == ENTRIES and differ == {proxy.struck_slot()}:
                return "that entry differs"
            raise TestFailure(f"the migration was completed, and the tables differ: {found}")
        outcome = who_refused(destination)
        if end["status"] == "failed":
            reason(self.machine, end)
        return outcome + (", after a cancel" if end["status"] == "cancelled" else "")

    def breathe(self):
        self.machine.wait_ticks(1)
        whole(self.fleet, self.machine)

    def finish(self):
        """The guest has lived through it, and moves."""
        self.machine.wait_ticks(2)
        self.fleet.note(outcomes=counted(self.ends), places=counted(self.where), ended_before=self.missed, seed=SEED)
        self.fleet.migrate(self.machine)


@case
def walker_finds_every_piece(_fleet, _series):
    """The eyes of proxies and taps: a stream gives the same pieces and sections however it is cut into reads."""
    ident = b"\0\0\0\3"

    def section(kind, body):
        return bytes([kind]) + ident + body + bytes([FOOTER]) + ident

    def records(*runs):
        return bytes(OPENING_BYTES) + b"".join(
            RECORD.pack(*run) + b"\x7e" * run[1] * ENTRY for run in (*runs, (0, 0, 0))
        )

    bodies = [[(0, 3, 4), (100, 200, 7)], [(200, 2, 0), (5, 2, 0)], [], [(300, 1, 1), (2, 0, 2)]]
    # RAM, with what looks like the table's but has a slot that the table has not.
    ram = section(PART, b"\2" * 5000) + section(PART, records((1 << 14, 1, 0)))
    last = section(END, records(*bodies[3]))
    stream = ram + section(START, NAME + bytes(8) + (18).to_bytes(4, "big"))
    stream += ram + section(PART, records(*bodies[0])) + ram + section(PART, records(*bodies[1]))
    stream += section(PART, records(*bodies[2])) + last + b"devices"
    runs = [run for body in bodies for run in body]
    for step in (1, 3, 7, 100, len(stream)):
        pieces = []
        walker = Walker(pieces.append)
        for at in range(0, len(stream), step):
            clear, known = min(walker.clear, at), len(pieces)
            walker.feed(stream[at : at + step])
            if any(piece.at < clear for piece in pieces[known:]):
                raise TestFailure(f"in pieces of {step}: {pieces[known:]} were met late, {clear} bytes were clear")
        headers = [piece for piece in pieces if piece.kind == HEADER]
        slots = [piece.slot for piece in pieces if piece.kind == ENTRIES]
        if len(headers) != len(runs) or slots != [index for index, valid, _ in runs if valid]:
            raise TestFailure(f"in pieces of {step}: {pieces}")
        parts = Counter(piece.part for piece in pieces if piece.kind == CLOSING)
        if parts != {FIRST: 1, LATER: 2, STOP: 1}:
            raise TestFailure(f"in pieces of {step} the bodies end in {parts}")
        found = [[record[:3] for record in section.records] for section in walker.sections]
        if found != bodies or [section.last for section in walker.sections] != [False, False, False, True]:
            raise TestFailure(f"in pieces of {step} the sections are {walker.sections}")
    if len(sections(stream.replace(last, last[:-1] + b"?"))) != len(bodies) - 1:
        raise TestFailure("a body without its footer counts")


def strikes(fleet, series, number):
    """Half of them cuts, the others flips and insertions in turn, spread over the kinds of places."""
    striker = Striker(fleet, series, SEED, WITH_CRC)
    striker.random.shuffle(striker.places)
    for at in range(number):
        again, change = divmod(at, 2)
        place = striker.places[again % len(striker.places)]
        kind = ("flip", "insert")[again % 2] if change else "cut"
        outcome = striker.strike(kind, place)
        refused = outcome.split(",")[0] in REFUSED if change else outcome == "library"
        if not refused:
            raise TestFailure(f"a {kind} in {place}: {outcome}")
    striker.finish()


@case
def twenty_strikes(fleet, series):
    """The stream is cut at ten places and changed at ten: each time the destination refuses, and the guest goes on."""
    strikes(fleet, series, 20)


@case
def four_hundred_strikes(fleet, series):
    """As twenty_strikes, at many more places."""
    strikes(fleet, series, 400)


def flips_in_entries(fleet, series, number, machine):
    striker = Striker(fleet, series, SEED + 2, machine)
    places = [place for place in striker.places if place[1] == ENTRIES]
    for at in range(number):
        striker.strike("flip", places[at % len(places)])
    striker.finish()
    return striker.ends


@case
def flips_that_no_parser_sees(fleet, series):
    """A bit of an entry: without the CRC the migration is completed with that entry wrong, with it never."""
    number = 30
    without = flips_in_entries(fleet, series, number, "pseries")
    # An entry that is sent again later arrives all the same.
    wrong, mended = without["flip", "that entry differs"], without["flip", "equal"]
    if wrong + mended < number or wrong < number // 2:
        raise TestFailure(f"flips in entries are seen without the CRC: then this shows nothing: {counted(without)}")
    fleet.drop_each()
    with_crc = flips_in_entries(fleet, series, number, WITH_CRC)
    if with_crc != {("flip", "crc"): number}:
        raise TestFailure(f"with the CRC: {counted(with_crc)}")
