# SPDX-License-Identifier: GPL-2.0-or-later
"""The ways in which a run, a case or a command does not succeed."""

import sys
import time

# The status that scripts/test takes as "this could not be tried here".
SKIP_STATUS = 77
CANNOT = 70


class Skipped(Exception):
    """This machine has no way to something."""


class TestFailure(Exception):
    """A case found something to be wrong."""


class GuestFailure(TestFailure):
    """The guest does not go on as it should."""


class QmpError(TestFailure):
    """QEMU answered with an error, or is gone."""


def wait_until(condition, seconds, complaint, pause=0.02):
    """Waits for something to be true and returns it, or fails with what `complaint` says then."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TestFailure(f"{complaint()} within {seconds} s")
        time.sleep(pause)
    return found


def status_of(main):
    """Runs a program's main; returns the status that the program ends with."""
    try:
        return main()
    except Skipped:
        # The command that could not be run has printed why.
        return SKIP_STATUS
    except TestFailure as failure:
        print(failure, file=sys.stderr)
        return CANNOT
