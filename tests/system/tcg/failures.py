# SPDX-License-Identifier: GPL-2.0-or-later
"""The ways in which a run, a case or a command does not succeed."""

import sys

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
