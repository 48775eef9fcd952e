# SPDX-License-Identifier: GPL-2.0-or-later
"""What guests' tables do while they work: one guest, several workloads, each migrated to a file and inspected."""

import os
import time

import hpt
import inspector
from cases.slowly import end_quickly
from machine import TestFailure

SERIES = "10.0"
# As docs/measurements.md names them: how the guest is set to it.
WORKLOADS = {
    "idle": "",
    "fork and exec": "/load spawn &",
    "compile-like": "/load compile &",
    "memory hog": "/load hog &",
}
QUIET = "killall load; killall -STOP work"
SETTLE = 4
# RAM that does not change takes some ten seconds at this rate: so long there are later passes to look at.
LIVE_BANDWIDTH = 8 << 20
QUIET_SECONDS = 0.5
MOST_INVALID = 65535
GROUP = 8
TICKS = os.sysconf("SC_CLK_TCK")


def processor_seconds(machine):
    """What the guest's processor has had of the host's."""
    seconds = 0
    for cpu in machine.qmp("query-cpus-fast"):
        with open(f"/proc/{machine.process.pid}/task/{cpu['thread-id']}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        # utime and stime; the first field behind the name is the third.
        seconds += (int(fields[11]) + int(fields[12])) / TICKS
    return seconds


def slots_told(machine):
    """In each pass."""
    return [each["valid"] + each["invalid"] for each in machine.query()["save-passes"]]


def snapshot(machine):
    told = slots_told(machine)
    return {"time": time.monotonic(), "cpu": processor_seconds(machine), "told": sum(told[1:]), "passes": len(told)}


def wait_for_first_pass(machine):
    """Until it is over: another one has told something, or none does."""
    machine.wait_migration("active")
    passes, since = [], time.monotonic()
    while len(passes) < 2 and (not passes or time.monotonic() - since < QUIET_SECONDS):
        if machine.migration()["status"] != "active":
            raise TestFailure("the migration has ended with its first pass")
        now = slots_told(machine)
        if now != passes:
            passes, since = now, time.monotonic()
        time.sleep(0.02)


def watch(machine, seconds):
    """Slots told in later passes while the guest runs."""
    wait_for_first_pass(machine)
    before = snapshot(machine)
    deadline = before["time"] + seconds
    while time.monotonic() < deadline and machine.migration()["status"] == "active":
        time.sleep(0.1)
    after = snapshot(machine)
    return {name: after[name] - before[name] for name in after}


def as_the_kernel_tells(table):
    """Records and bytes of a first pass under KVM-HV: every slot is told, as valid or in a run of invalid ones."""
    slots = sorted(hpt.entries(table))
    begins = [slot for at, slot in enumerate(slots) if at == 0 or slots[at - 1] != slot - 1]
    ends = [slot + 1 for at, slot in enumerate(slots) if at + 1 == len(slots) or slots[at + 1] != slot + 1]
    gaps = [after - end for end, after in zip([0] + ends, begins + [len(table) // hpt.ENTRY])]
    # A run of invalid slots shares the record of the valid ones before it; what is too long for it needs others.
    records = len(begins) + -(-gaps[0] // MOST_INVALID) + sum(max(0, -(-gap // MOST_INVALID) - 1) for gap in gaps[1:])
    of_a_group = sum(end - begin + gap == GROUP for begin, end, gap in zip(begins, ends, gaps[1:]))
    return {"records": records, "bytes": 8 * records + hpt.ENTRY * len(slots), "of_a_group": of_a_group}


def migrate(machine, path, seconds):
    machine.start_migration(f"exec:cat >{path}", downtime_ms=1, bandwidth=LIVE_BANDWIDTH)
    watched = watch(machine, seconds)
    end_quickly(machine)
    info = machine.wait_migration("completed")
    table = machine.hpt()
    found = inspector.inspect(path, "--against-table", inspector.save_table(path + ".table", table))["table"]
    stats = machine.query()
    if found["crc32"] != f"{stats['save-crc32']:08x}":
        raise TestFailure(f"the file has CRC-32 {found['crc32']}, the library {stats['save-crc32']:08x}")
    for part in ("map", "passes"):
        del found[part]
    return {
        "watched": watched,
        "passes": len(stats["save-passes"]),
        "downtime_ms": info["downtime"],
        "table": found,
        "as_the_kernel_tells": as_the_kernel_tells(table),
    }


def run(lab, seconds, rounds, picture):
    """The figures of each workload; the first round of the one that compiles is drawn."""
    machine = lab.boot(lab.program(SERIES), lab.guest())
    path = os.path.join(lab.folder, "stream")
    results = {}
    for name, command in WORKLOADS.items():
        machine.type(QUIET)
        if command:
            machine.type(command)
        time.sleep(SETTLE)
        results[name] = []
        for number in range(rounds):
            lab.say(f"{name}, round {number + 1} of {rounds}")
            results[name].append(migrate(machine, path, seconds))
            if name == "compile-like" and number == 0:
                inspector.draw(path, picture)
            os.unlink(path)
            machine.check_guest()
            machine.qmp("cont")
    return {"guest_kernel": lab.guest_kernel, "qemu": SERIES, "seconds": seconds, "workloads": results}
