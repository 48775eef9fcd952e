# SPDX-License-Identifier: GPL-2.0-or-later
"""What was wanted of the library's speed, and what was measured."""


def wanted(result):
    return []
