# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations that are cancelled or fail: the guest goes on where it was."""

import os
import re
import socket
import struct
import threading
import time

from cases.registry import case
from cases.slowly import BUSY, CALM, CALM_RATE, SLOW, begin_slowly, hold_the_switchover, passes, wait_for
from machine import TestFailure


@case
def cancel_and_retry(fleet, series):
    """Cancelled in the first pass and in a later one; then it goes through."""
    patched = fleet.program(series)
    machine = fleet.boot(patched, fleet.guest())
    old = series == "7.2"
    for what, bandwidth, enough, calm, busy in (
        # So slow that each round has room for one piece of the table.
        ("the first pass", 1 << 20, lambda: len(passes(machine)) == 1, "killall -STOP work", "killall -CONT work"),
        ("later passes", CALM_RATE if old else SLOW, lambda: len(passes(machine)) >= (2 if old else 3), CALM, BUSY),
    ):
        if old:
            # There the table waits until RAM has nothing left to send; then only this keeps the migration from its end.
            machine.type(calm)
            hold_the_switchover(machine, True)
        destination = begin_slowly(fleet, machine, patched, bandwidth)
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
            hold_the_switchover(machine, False)
            machine.type(busy)
        machine.wait_ticks(2)
    fleet.migrate(machine, patched)


@case
def destination_dies(fleet, series):
    """In mid-stream: the source says why and goes on, and can migrate again."""
    patched = fleet.program(series)
    machine = fleet.boot(patched, fleet.guest())
    destination = begin_slowly(fleet, machine, patched)
    wait_for(machine, "RAM", lambda: machine.migration().get("ram", {}).get("transferred", 0) > 1 << 20)
    fleet.drop(destination)
    info = machine.wait_migration("failed")
    if not info.get("error-desc"):
        raise TestFailure("query-migrate says no reason")
    machine.wait_ticks(2)
    fleet.note(died="destination", error=info["error-desc"])
    fleet.migrate(machine, patched)


@case
def full_disk(fleet, series):
    """exec: onto a disk without room."""
    patched = fleet.program(series)
    machine = fleet.boot(patched, fleet.guest())
    machine.start_migration("exec:cat >/dev/full")
    info = machine.wait_migration("failed")
    if not info.get("error-desc"):
        raise TestFailure("query-migrate says no reason")
    machine.wait_ticks(2)
    fleet.note(full="disk", error=info["error-desc"])
    fleet.migrate(machine, patched)


class Sink(threading.Thread):
    """A destination that takes all until the table's last section begins, and then is gone."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(path)
        self.server.listen(1)
        self.reached = False

    def run(self):
        connection, _ = self.server.accept()
        tail, end = b"", None
        while True:
            data = connection.recv(65536)
            if not data:
                break
            tail = tail[-64:] + data
            if end is None:
                begin = re.search(b"\\x01(....)\\x0aspapr/htab", tail, re.S)
                if begin:
                    # The footer of RAM's last section, the table's last one, and a body of records.
                    end = re.compile(b"\\x7e....\\x03" + re.escape(begin.group(1)) + struct.pack(">I", 0), re.S)
            elif end.search(tail):
                self.reached = True
                break
        connection.close()
        self.server.close()


def error_in_the_final_pass(fleet, machine):
    path = os.path.join(fleet.folder, f"{machine.name}.sink")
    sink = Sink(path)
    sink.start()
    # Such a limit is met after one round, in which there was no room for much of the table.
    machine.start_migration(f"unix:{path}", downtime_ms=2000000, bandwidth=1 << 20)
    sink.join(60)
    if not sink.reached:
        raise TestFailure("the table's last section never came")


@case
def stream_error_in_the_final_pass(fleet, series):
    """Fails the migration with the library's sentence and leaves the source running; QEMU's own code aborts there."""
    patched = fleet.program(series)
    machine = fleet.boot(patched, fleet.guest())
    error_in_the_final_pass(fleet, machine)
    info = machine.wait_migration("failed")
    told = machine.query()
    # The sink was gone when complete began; what is counted is what had been taken by then.
    if len(told["save-passes"]) > 1 or told["save-total"]["valid"] > told["save-stopped"]["valid"]:
        raise TestFailure(f"the error did not come in the first pass, with the guest stopped: {told}")
    error = info.get("error-desc", "")
    if not re.match(r"the migration stream failed in pass 1 of the hash table, .*Unable to write to socket", error):
        raise TestFailure(f"the library's sentence with the stream's own is wanted, not {error!r}")
    machine.wait_status("running")
    machine.wait_ticks(2)
    fleet.note(final_pass="error", error=error, told=told["save-total"]["valid"])
    machine = fleet.migrate(machine, patched)

    own = fleet.boot(patched, fleet.guest(), rust=False)
    error_in_the_final_pass(fleet, own)
    deadline = time.monotonic() + 20
    while own.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    said = re.findall(r"[Aa]ssertion.*", own.said())
    fleet.note(own_code="off", ended=str(own.process.poll()), said=said[-1] if said else "")
