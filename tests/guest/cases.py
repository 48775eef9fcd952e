# SPDX-License-Identifier: GPL-2.0-or-later
"""The cases: each a function that gets the lab and the series under test, and raises if something is wrong."""

import hpt
from machine import TestFailure

CASES = []


def case(function):
    CASES.append(function)
    return function


@case
def comparer_sees_differences(_lab, _series):
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
def patched_and_unpatched(lab, series):
    """patched to patched, patched to unpatched, unpatched to patched, in one life of a guest."""
    patched, unpatched = lab.program(series), lab.program(series, False)
    machine = lab.boot(patched, lab.guest())
    machine = lab.migrate(machine, patched)
    machine = lab.migrate(machine, unpatched)
    lab.migrate(machine, patched)
