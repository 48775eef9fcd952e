# SPDX-License-Identifier: GPL-2.0-or-later
"""How the figures of docs/results are stored: one measurement a line, so that a difference shows which ones changed."""

import json


def lines(value, depth):
    """Whole where it fits in a line or is a row of a table."""
    whole = json.dumps(value)
    if len(whole) + depth <= 120 or not isinstance(value, (dict, list)):
        return whole
    indent = " " * (depth + 1)
    if isinstance(value, list):
        return "[\n" + ",\n".join(indent + json.dumps(row) for row in value) + "\n" + " " * depth + "]"
    members = (f"{indent}{json.dumps(key)}: {lines(value[key], depth + 1)}" for key in value)
    return "{\n" + ",\n".join(members) + "\n" + " " * depth + "}"


def store(path, results):
    with open(path, "w", encoding="utf-8") as file:
        file.write(lines(results, 0) + "\n")
