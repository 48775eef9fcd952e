# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations that are held back, so that something can be done in the middle of them."""

from failures import TestFailure, wait_until


def wait_for(machine, what, condition, seconds=120):
    def met():
        if condition():
            return True
        status = machine.migration().get("status")
        if status not in ("setup", "active", "pre-switchover", "device"):
            raise TestFailure(f"the migration is {status} before {what}")
        return False

    wait_until(met, seconds, lambda: f"no {what}: {machine.query()}", 0.005)


def wait_for_round(machine, number):
    """Waits until RAM is sent for the time of that number."""
    what = f"round {number} of RAM"
    wait_for(machine, what, lambda: machine.migration().get("ram", {}).get("dirty-sync-count", 0) >= number)


# Slow enough to be caught in the middle, fast enough for a test. RAM takes most of it.
SLOW = 24 << 20


def begin_slowly(fleet, machine, program=None, bandwidth=SLOW, rust=True):
    """A migration that cannot end by itself: what fits the downtime limit never comes."""
    destination = fleet.destination(machine, program, rust=rust)
    machine.start_migration(destination.incoming, bandwidth=bandwidth, downtime_ms=1)
    return destination


def ready_for(fleet, machine, capability):
    """A new process that waits for a migration, with the capability on both sides."""
    destination = fleet.machine(machine.program, machine.guest, defer=True)
    machine.set_capability(capability)
    destination.set_capability(capability)
    destination.qmp("migrate-incoming", uri=destination.incoming)
    return destination


# In 7.2 the table waits until RAM has nothing left to send. With nothing to send at all the migration would end: this
# guest goes on changing a few pages, which do not fit 1 ms at CALM_RATE.
CALM_RATE = 4 << 20
CALM = "killall -STOP work; i=0; while :; do i=$((i + 1)); done &"
BUSY = "kill $!; killall -CONT work"


def calmed(machine):
    """Lets the guest rest where it must; returns a rate at which there is room for the table."""
    if machine.program.series != "7.2":
        return SLOW
    machine.type(CALM)
    return CALM_RATE


def passes(machine):
    return machine.query()["save-passes"]


def end_quickly(machine, downtime_ms=500):
    machine.qmp("migrate-set-parameters", max_bandwidth=1 << 34, downtime_limit=downtime_ms)
