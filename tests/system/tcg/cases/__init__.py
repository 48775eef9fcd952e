# SPDX-License-Identifier: GPL-2.0-or-later
"""All cases, in the order in which they run."""

# pylint: disable=unused-import
from cases import moving, reporting, forgotten, showing, saved, inspecting  # noqa: F401
from cases import failing, changing, switching, summed, broken, killed, bounded, snapping, saying  # noqa: F401
from runner import CASES

__all__ = ["CASES"]
