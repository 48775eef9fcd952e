# SPDX-License-Identifier: GPL-2.0-or-later
"""The cases: each a function that gets the fleet and the series under test, and raises if something is wrong."""

CASES = []


def case(function):
    CASES.append(function)
    return function
