# SPDX-License-Identifier: GPL-2.0-or-later
"""What sanitizers print fails a case: shown with real reports of real faults."""

import contextlib
import io
import os
import subprocess

import hpt
from failures import TestFailure
from machine import Machine
from runner import case, run_cases

# A program in QEMU's place, the fault named by its argument. Whether that ends it is left to the sanitizers.
FAULTY = r"""
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    volatile char fault = argc > 1 ? argv[1][0] : 0;
    char *volatile memory = malloc(8);
    volatile int number = 0x7fffffff;

    switch (fault) {
    case 'a': /* AddressSanitizer */
        free(memory);
        return memory[0];
    case 'u': /* UndefinedBehaviorSanitizer */
        number++;
        break;
    case 'p': /* as Rust does */
        fputs("thread '<unnamed>' panicked at src/save.rs:1:1:\n", stderr);
        break;
    }
    free(memory);
    return 0;
}
"""
FAULTS = {
    "address": "AddressSanitizer: heap-use-after-free",
    "undefined": "runtime error: signed integer overflow",
    "panic": "panicked at",
}


class Reporter(Machine):
    """A machine as far as the end of a case needs it."""

    def __init__(self, program, fault, folder):  # pylint: disable=super-init-not-called
        self.program, self.said_path = f"{program} {fault}", os.path.join(folder, "reporter.said")
        with open(self.said_path, "wb") as said:
            subprocess.run([program, fault], stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False)

    def stop(self):
        """It has ended."""


def outcome(fleet, function):
    """Returns what the runner makes of a case: how many have passed and failed, and what it prints."""
    # A list of machines of its own: those of the calling case are not judged here.
    machines, fleet.machines = fleet.machines, []
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            passed, failed, _ = run_cases(fleet, ["none"], [function])
    finally:
        fleet.machines = machines
    return passed, failed, printed.getvalue()


def expect_failure(fleet, function, wanted):
    passed, failed, printed = outcome(fleet, function)
    if (passed, failed) != (0, 1) or wanted not in printed:
        raise TestFailure(f"{wanted!r} was printed, and the case counts as {(passed, failed)}: {printed}")


@case
def a_report_fails_the_case(fleet, series):
    """A case that nothing else is wrong with, its QEMU there until the end or not; of a QEMU under ASan, too."""
    program = fleet.path("faulty")
    flags = ["-x", "c", "-g", "-fsanitize=address,undefined", "-o", program, "-"]
    subprocess.run(["gcc", *flags], input=FAULTY, text=True, check=True)

    def reporting(fault, dropped):
        def run(fleet, _series):
            fleet.machines.append(Reporter(program, fault, fleet.folder))
            if dropped:
                fleet.drop_each()

        return run

    for dropped in (False, True):
        for fault, said in FAULTS.items():
            expect_failure(fleet, reporting(fault, dropped), said)
        passed, failed, printed = outcome(fleet, reporting("none", dropped))
        if (passed, failed) != (1, 0):
            raise TestFailure(f"a case without a report does not pass: {printed}")

    def double_free(fleet, _series):
        machine = fleet.machine(fleet.program(series), fleet.guest(), extra=("-S",))
        # By GLib, which calls the sanitizer's malloc; gdb alone might take libc's.
        script = ["set $memory = (void *)g_malloc(8)", "call (void)g_free($memory)", "call (void)g_free($memory)"]
        hpt.gdb(machine.process.pid, script)

    if fleet.sanitizers:
        expect_failure(fleet, double_free, "AddressSanitizer: attempting double-free")
