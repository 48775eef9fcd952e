# SPDX-License-Identifier: GPL-2.0-or-later
"""htab-inspect, as this tree has it: built once a run, and asked about files."""

import functools
import json
import os
import subprocess

from failures import TestFailure
from fleet import REPO, output_of

GOOD, DIFFERS, BROKEN = 0, 1, 65
# In the KVM host, where nothing can be built.
INSIDE = "/programs/inspect/htab-inspect"


def build(cargo, profile):
    """Its path."""
    command = [*cargo, "build", "--locked", "--profile", profile]
    command += ["--manifest-path", "tools/htab-inspect/Cargo.toml", "--message-format", "json-render-diagnostics"]
    messages = [json.loads(line) for line in output_of(*command, cwd=REPO)]
    return [each["executable"] for each in messages if each.get("executable")][-1]


def build_for_kvm_host():
    return build([os.path.join(REPO, "scripts", "lab"), "cargo"], "release")


@functools.cache
def program():
    # Its own tests have compiled what it needs with this profile.
    return INSIDE if os.path.exists(INSIDE) else build(["cargo"], "test")


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
