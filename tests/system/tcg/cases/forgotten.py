# SPDX-License-Identifier: GPL-2.0-or-later
"""What loaded.py makes up for: that it is QEMU's own, and still there."""

from failures import GuestFailure, TestFailure
from runner import case

TIMER, STARTED = "the decrementer's timer", "that a processor was started"
FORGOTTEN = {"7.2": {TIMER}, "10.0": {STARTED}, "10.2": set()}


def stop_at_work(machine):
    """Stops a guest whose decrementers all run: with an interrupt under way it may find its way back by itself."""
    for _ in range(30):
        machine.qmp("stop")
        processors = machine.processors()
        if all(each.armed and not each.ended for each in processors):
            return processors
        machine.qmp("cont")
        machine.wait_ticks(1)
    raise TestFailure(f"one of the decrementers had ended each time: {processors}")


@case
def what_qemu_forgets(fleet, series):
    """Of a guest's processors, between two unpatched QEMUs: a guest that is left so stands still, its table equal."""
    unpatched = fleet.program(series, False)
    machine = fleet.boot(unpatched, fleet.guest(smp=2))
    before = stop_at_work(machine)
    if any(each.stopped or each.owed for each in before):
        raise TestFailure(f"a guest that was not migrated has {before}")
    destination = fleet.destination(machine)
    machine.start_migration(destination.incoming)
    fleet.arrival(machine, destination)
    after = destination.processors()
    forgotten = {TIMER for each in after if not (each.armed or each.ended)}
    forgotten |= {STARTED for each in after if each.stopped}
    fleet.note(
        unpatched=series,
        forgotten=" and ".join(sorted(forgotten)) or "nothing",
        interrupts_owed=sum(each.owed for each in after),
        tables=str(fleet.check_tables(machine, destination, allow_r_and_c=True)),
    )
    if forgotten != FORGOTTEN[series]:
        raise TestFailure(f"QEMU {series} forgets {forgotten}, not {FORGOTTEN[series]}: see loaded.py")
    if not forgotten:
        return
    destination.qmp("cont")
    try:
        destination.wait_ticks(2, 20)
        destination.watch(40)
    except GuestFailure as failure:
        fleet.note(left_so=str(failure)[:160])
    else:
        raise TestFailure("the guest goes on all the same: loaded.py makes up for nothing")
