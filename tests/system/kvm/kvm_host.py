# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the KVM host, boots it and runs one task of inside/main.py there."""

import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[1:1] = [os.path.join(HERE, "..", "tcg"), os.path.join(HERE, "inside")]

# pylint: disable=wrong-import-position
from fleet import REPO, SYSTEM, output_of, script  # noqa: E402

EMULATOR = "10.0"


def build(series, patched=True):
    """Builds QEMU for the host; returns "NAME=PATH" with its name there."""
    name = series if patched else f"{series},unpatched"
    return f"{name}={script('qemu', series, '--kvm', *([] if patched else ['--unpatched']))}"


def boot(programs, seconds, task, suite=None, **options):
    """Runs a task with these programs ("NAME=PATH") and prints its lines; returns its status and its results.

    The host's kernel is that of scripts/lab, or that of another of Debian's suites.
    """
    environment = os.environ | {"SPAPR_HTAB_EMULATOR": script("qemu", EMULATOR, "--emulator")}
    with tempfile.TemporaryDirectory(prefix="kvm.") as folder:
        root = output_of(os.path.join(SYSTEM, "images"), "host", folder, *programs)[-1]
        command = [os.path.join(REPO, "scripts", "lab"), "boot", "--root", root, "--smp", "2", "--mem", "4G"]
        command += ["--time", str(seconds)] + (["--kernel", script("lab", "kernel-of", suite)] if suite else [])
        command += [os.path.join(HERE, "inside", "start.sh"), task, json.dumps(options)]
        results = []
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace", env=environment
        ) as process:
            for line in process.stdout:
                if line.startswith("@json "):
                    results.append(json.loads(line.removeprefix("@json ")))
                else:
                    print(line, end="", flush=True)
        return process.returncode, results
