# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations that are cancelled or fail: the guest goes on where it was."""

import re
import time

from cases.slowly import BUSY, CALM, CALM_RATE, SLOW, begin_slowly, passes, wait_for
from failures import TestFailure
from runner import case
from stream import Sink


@case
def cancel_and_retry(fleet, series):
    """Cancelled in the first pass and in a later one; then it goes through."""
    machine = fleet.start(series)
    old = series == "7.2"
    for what, bandwidth, enough, calm, busy in (
        # So slow that each round has room for one piece of the table.
        ("the first pass", 1 << 20, lambda: len(passes(machine)) == 1, "killall -STOP work", "killall -CONT work"),
        ("later passes", CALM_RATE if old else SLOW, lambda: len(passes(machine)) >= (2 if old else 3), CALM, BUSY),
    ):
        if old:
            # There the table waits until RAM has nothing left to send; then only this keeps the migration from its end.
            machine.type(calm)
            machine.set_capability("pause-before-switchover", True)
        destination = begin_slowly(fleet, machine, bandwidth=bandwidth)
        wait_for(machine, what, enough)
        machine.qmp("migrate_cancel")
        machine.wait_migration("cancelled")
        if not enough():
            raise TestFailure(f"it was cancelled in pass {len(passes(machine))}, not in {what}")
        fleet.note(cancelled_in=what, passes=len(passes(machine)), pending=machine.query()["save-pending"])
        if machine.query()["save-pending"]:
            raise TestFailure("bytes are pending after the end")
        fleet.drop(destination)
        if old:
            machine.set_capability("pause-before-switchover", False)
            machine.type(busy)
        machine.wait_ticks(2)
    fleet.migrate(machine)


def goes_on(fleet, machine, **what):
    """The migration fails with a reason; the guest goes on and migrates later."""
    info = machine.wait_migration("failed")
    if not info.get("error-desc"):
        raise TestFailure("query-migrate says no reason")
    machine.wait_ticks(2)
    fleet.note(**what, error=info["error-desc"])
    fleet.migrate(machine)


@case
def destination_dies(fleet, series):
    """In mid-stream: the source says why and goes on, and can migrate again."""
    machine = fleet.start(series)
    destination = begin_slowly(fleet, machine)
    wait_for(machine, "RAM", lambda: machine.migration().get("ram", {}).get("transferred", 0) > 1 << 20)
    fleet.drop(destination)
    goes_on(fleet, machine, died="destination")


@case
def full_disk(fleet, series):
    """exec: onto a disk without room."""
    machine = fleet.start(series)
    machine.start_migration("exec:cat >/dev/full")
    goes_on(fleet, machine, full="disk")


def error_in_the_final_pass(fleet, machine):
    sink = Sink(fleet.path(machine.name))
    # Such a limit is met after one round, in which there was no room for much of the table.
    machine.start_migration(sink.uri, downtime_ms=2000000, bandwidth=1 << 20)
    sink.join(60)
    if not sink.reached:
        raise TestFailure("the table's last section never came")


@case
def stream_error_in_the_final_pass(fleet, series):
    """Fails the migration with the library's sentence and leaves the source running; QEMU's own code aborts there."""
    machine = fleet.start(series)
    error_in_the_final_pass(fleet, machine)
    info = machine.wait_migration("failed")
    stats = machine.query()
    # The sink was gone when complete began; what is counted is what had been taken by then.
    if len(stats["save-passes"]) > 1 or stats["save-total"]["valid"] > stats["save-stopped"]["valid"]:
        raise TestFailure(f"the error did not come in the first pass, with the guest stopped: {stats}")
    error = info.get("error-desc", "")
    if not re.match(r"the migration stream failed in pass 1 of the hash table, .*Unable to write to socket", error):
        raise TestFailure(f"the library's sentence with the stream's own is wanted, not {error!r}")
    machine.wait_status("running")
    machine.wait_ticks(2)
    fleet.note(final_pass="error", error=error, sent=stats["save-total"]["valid"])
    fleet.migrate(machine)

    own = fleet.start(series, rust=False)
    error_in_the_final_pass(fleet, own)
    deadline = time.monotonic() + 20
    while own.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    said = re.findall(r"[Aa]ssertion.*", own.said())
    fleet.note(own_code="off", ended=str(own.process.poll()), said=said[-1] if said else "")
