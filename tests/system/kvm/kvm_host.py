# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the KVM host with what belongs into it, boots it and runs one program of tests/system/kvm/inside there."""

import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPTS = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(HERE))), "scripts")
EMULATOR = "10.0"


def output_of(*command):
    """Its last line; ends as the command does if that fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout.splitlines()[-1]


def build(*options):
    return output_of(os.path.join(SCRIPTS, "qemu"), *options)


def boot(programs, seconds, command, suite=None):
    """Runs a command with these programs ("NAME=PATH") in the host: a line for each it prints, and last its status.

    The host's kernel is that of scripts/lab, or that of another of Debian's suites.
    """
    emulator = build(EMULATOR, "--emulator")
    folder = tempfile.mkdtemp(prefix="kvm.")
    try:
        root = output_of(os.path.join(HERE, "build-host"), folder, *programs)
        kernel = ["--kernel", output_of(os.path.join(SCRIPTS, "lab"), "kernel-of", suite)] if suite else []
        machine = [*kernel, "--root", root, "--smp", "2", "--mem", "4G", "--time", str(seconds)]
        with subprocess.Popen(
            [os.path.join(SCRIPTS, "lab"), "boot", *machine, os.path.join(HERE, "inside", "start.sh"), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            env=os.environ | {"SPAPR_HTAB_EMULATOR": emulator},
        ) as process:
            for line in process.stdout:
                yield line.rstrip("\n")
        yield process.returncode
    finally:
        shutil.rmtree(folder)
