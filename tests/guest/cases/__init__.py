# SPDX-License-Identifier: GPL-2.0-or-later
"""All cases, in the order in which they run."""

from cases import moving, forgotten, telling, saved, inspecting, failing, changing  # noqa: F401 pylint: disable=unused-import
from cases.registry import CASES

__all__ = ["CASES"]
