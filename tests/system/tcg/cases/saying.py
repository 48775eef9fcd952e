# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said of failures and of what cannot be, where a user looks for it; and what is not said."""

import re
import subprocess
import time

from cases.broken import REFUSED, SOON, WITH_CRC, go_on
from cases.slowly import begin_slowly, calmed
from failures import QmpError, Skipped, TestFailure
from runner import case
from stream import ENTRIES, HEADER, STOP
from striking import Proxy, Strike

# Each comes a little later; some of them do while the table is written.
CANCELS = 10
OFF = "x-rust-htab=off"


@case
def reason_on_the_destination(fleet, series):
    """With exit-on-error=false its query-migrate has the library's sentence, which names the section; it lives on."""
    if series == "7.2":
        raise Skipped("7.2 has no exit-on-error")
    machine = fleet.start(series)
    machine.set_capability("return-path")
    cut, no_such_slot = Strike((STOP, ENTRIES), 0, 0.5, "cut"), Strike((STOP, HEADER), 0, 0, "flip", b"\x80")
    for strike in (cut, no_such_slot):
        destination = fleet.machine(machine.program, machine.guest, defer=True)
        destination.qmp("migrate-incoming", uri=destination.incoming, exit_on_error=False)
        proxy = Proxy(destination.incoming, strike)
        machine.start_migration(proxy.uri, **SOON)
        error = destination.wait_migration("failed").get("error-desc", "")
        if "spapr/htab" not in error or not re.search(REFUSED["library"], error):
            raise TestFailure(f"query-migrate says {error!r}, and standard error {destination.said()!r}")
        fleet.note(struck=str(strike), error=error)
        fleet.drop(destination)
        machine.wait_migration("failed")
        go_on(machine)


@case
def cancelled_quietly(fleet, series):
    """A user's cancel is no failure of the table's, whenever it comes. QEMU itself says some of the stream's."""
    machine = fleet.start(series)
    bandwidth = calmed(machine)
    for number in range(CANCELS):
        destination = begin_slowly(fleet, machine, bandwidth=bandwidth)
        machine.wait_migration("active")
        time.sleep(number / 50)
        machine.qmp("migrate_cancel")
        machine.wait_migration("cancelled")
        fleet.drop(destination)
    if "hash table" in machine.said():
        raise TestFailure(f"after {CANCELS} cancels: {machine.said()}")


@case
def checksum_without_the_library(fleet, series):
    """x-htab-crc=on would check nothing with x-rust-htab=off: refused at the start."""
    command = [fleet.program(series).path, "-L", "/usr/share/qemu", "-M", f"{WITH_CRC},{OFF}", "-nodefaults"]
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 20, "check": False}
    try:
        done = subprocess.run([*command, "-display", "none", "-S"], **options)
    except subprocess.TimeoutExpired:
        raise TestFailure("it starts all the same") from None
    if done.returncode != 1 or not all(name in done.stderr for name in ("x-htab-crc", "x-rust-htab")):
        raise TestFailure(f"it ends with {done.returncode}: {done.stderr}")
    fleet.note(refused="start", said=done.stderr.strip())


@case
def library_is_chosen_at_the_start(fleet, series):
    """x-rust-htab cannot be set later, when it would change only what qom-get says."""
    machine = fleet.held(series)
    try:
        machine.qmp("qom-set", path="/machine", property="x-rust-htab", value=False)
    except QmpError as refused:
        fleet.note(refused="qom-set", error=str(refused))
    else:
        raise TestFailure("qom-set has set it")
    if not machine.qmp("qom-get", path="/machine", property="x-rust-htab"):
        raise TestFailure("qom-get says that it is off")


@case
def why_there_is_nothing_to_show(fleet, series):
    """With x-rust-htab=off, HMP's info spapr-htab says so, as QMP's x-query-spapr-htab does."""
    machine = fleet.machine(fleet.program(series), fleet.guest(), rust=False, extra=("-S",))
    shown = machine.qmp.hmp("info spapr-htab")
    if OFF not in shown:
        raise TestFailure(f"info spapr-htab says {shown!r}")
