# SPDX-License-Identifier: GPL-2.0-or-later
"""What users see of a migration: trace events, the monitor."""

import re

from cases.slowly import calmed, end_quickly, wait_for
from failures import QmpError, TestFailure
from runner import case

# Of the source, in the order in which they must come first.
EVENTS = ("save_setup", "state_pending", "save_iterate", "save_complete", "save_cleanup")


def first_events(said):
    """Our trace events in the order of their first occurrence."""
    return list(dict.fromkeys(re.findall(r"spapr_htab_(\w+)", said)))


@case
def shown_to_the_user(fleet, series):
    """Trace events, the library's log among them; HMP's info spapr-htab says what QMP's x-query-spapr-htab does."""
    patched = fleet.program(series)
    tracing = ("-trace", "enable=spapr_htab_*")
    machine = fleet.boot(patched, fleet.guest(), extra=tracing)
    bandwidth = calmed(machine)
    destination = fleet.destination(machine, extra=tracing)
    machine.start_migration(destination.incoming, bandwidth=bandwidth, downtime_ms=1)
    wait_for(machine, "iterate", lambda: "save_iterate" in first_events(machine.said()))
    end_quickly(machine)
    fleet.arrival(machine, destination)

    stats = machine.query()
    shown = machine.qmp.hmp("info spapr-htab").replace("\r", "")
    for name, part in (("all", stats["save-total"]), ("stopped", stats["save-stopped"])):
        line = f"  {name}: {part['valid']} valid, {part['invalid']} invalid, {part['records']} records, {part['bytes']} bytes"
        if line not in shown:
            raise TestFailure(f"no {line!r} in {shown!r}")
    if shown.count("  pass ") != len(stats["save-passes"]):
        raise TestFailure(f"{len(stats['save-passes'])} passes, but {shown!r}")
    for text in (shown, destination.qmp.hmp("info spapr-htab")):
        if f"CRC-32 {stats['save-crc32']:08x}" not in text:
            raise TestFailure(f"no CRC-32 {stats['save-crc32']:08x} in {text!r}")

    pending = "save_pending" if series == "7.2" else "state_pending"
    wanted = [pending if event == "state_pending" else event for event in EVENTS]
    events = first_events(machine.said())
    if [event for event in events if event in wanted] != wanted:
        raise TestFailure(f"the source's events are {events}")
    # The library's own line at the end of a save, which goes through its log callback.
    if not re.search(rf"spapr_htab_log .*saved {stats['save-total']['valid']} valid", machine.said()):
        raise TestFailure(f"the library's log is not among the trace events: {machine.said()[-600:]}")
    if "load" not in first_events(destination.said()):
        raise TestFailure(f"the destination's events are {first_events(destination.said())}")

    off = fleet.machine(patched, machine.guest, rust=False, extra=("-S",))
    try:
        off.query()
    except QmpError as error:
        if "x-rust-htab=off" not in str(error):
            raise
    else:
        raise TestFailure("x-query-spapr-htab answers although x-rust-htab=off")
