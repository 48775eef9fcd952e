# SPDX-License-Identifier: GPL-2.0-or-later
"""htab-inspect, as this tree has it: built once a run, and asked about files."""

import functools
import json
import os
import subprocess

from lab import REPO
from machine import TestFailure

GOOD, DIFFERS, BROKEN = 0, 1, 65


@functools.cache
def program():
    # Its own tests have compiled what it needs with this profile.
    command = ["cargo", "build", "--profile", "test", "--features", "inspect", "--bin", "htab-inspect"]
    command += ["--no-default-features", "--message-format", "json-render-diagnostics"]
    done = subprocess.run(command, cwd=REPO, stdout=subprocess.PIPE, text=True, check=True)
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    return [each["executable"] for each in messages if each.get("executable")][-1]


def run(path, *options, status=GOOD):
    """What it says of a file; its status must be this one."""
    done = subprocess.run([program(), "--quiet", *options, path], capture_output=True, text=True, check=False)
    if done.returncode != status:
        raise TestFailure(f"htab-inspect ended with {done.returncode}, not {status}: {done.stderr} {done.stdout[:300]}")
    return done.stdout


def inspect(path, *options, status=GOOD):
    return json.loads(run(path, "--json", *options, status=status))


def save_table(path, table):
    """For --against-table."""
    with open(path, "wb") as file:
        file.write(table)
    return path


def draw(path, picture):
    run(path, "--report", os.path.abspath(picture))
