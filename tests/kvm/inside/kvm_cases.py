# SPDX-License-Identifier: GPL-2.0-or-later
"""The cases, in the order in which they run."""

CASES = []


def case(function):
    CASES.append(function)
    return function


@case
def patched(lab, series):
    """There and back."""
    program = lab.program(series)
    machine = lab.boot(program, lab.guest())
    lab.migrate(machine, program)
