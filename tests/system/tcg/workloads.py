# SPDX-License-Identifier: GPL-2.0-or-later
"""What guests' tables do while they work: one guest, several workloads, each migrated to a file and inspected."""

import os
import sys
import time

import hpt
import inspector
from cases.slowly import end_quickly, wait_for
from failures import TestFailure

SERIES = "10.0"
MEMORY = "1G"
# As docs/measurements.md names them: how the guest is set to it. A guest that did nothing at all would have no later
# passes: where its RAM is all sent with the first pass, the migration ends.
WORKLOADS = {
    "idle": "/load still &",
    "fork and exec": "/load spawn &",
    "compile-like": "/load compile &",
    "memory hog": "/load hog 600 &",
}
DRAWN = "compile-like"
QUIET = "killall load; killall -STOP work"
SETTLE = 4
# RAM that does not change takes some ten seconds at this rate: so long there are later passes to look at.
LIVE_BANDWIDTH = 8 << 20
FIRST_PASS_SECONDS = 180
# A guest that writes more than is sent leaves room for the table every few seconds only.
LEAST_SWEEPS, SWEEPS_SECONDS = 4, 60
MOST_INVALID = 65535
# The library adds what comes after to the last of them.
MOST_PASSES = 256
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


def slots_sent(machine):
    """In each pass."""
    return [each["valid"] + each["invalid"] for each in machine.query()["save-passes"]]


def snapshot(machine):
    sent = slots_sent(machine)
    return {"time": time.monotonic(), "cpu": processor_seconds(machine), "sent": sum(sent[1:]), "passes": len(sent)}


def wait_for_first_pass(machine):
    """Until another one has begun."""
    machine.wait_migration("active")
    wait_for(machine, "second pass", lambda: len(slots_sent(machine)) > 1, FIRST_PASS_SECONDS)


def watch(machine, seconds):
    """Slots sent in later passes while the guest runs: for so long, and until there have been some sweeps."""
    wait_for_first_pass(machine)
    before = snapshot(machine)
    while True:
        time.sleep(0.5)
        after = snapshot(machine)
        found = {name: after[name] - before[name] for name in after}
        enough = found["time"] >= seconds and found["passes"] >= LEAST_SWEEPS
        if enough or found["time"] >= SWEEPS_SECONDS or machine.migration()["status"] != "active":
            return found


def as_the_kernel_reports(table):
    """Records and bytes of a first pass under KVM-HV: every slot is reported, as valid or in a run of invalid ones."""
    slots = sorted(hpt.entries(table))
    begins = [slot for at, slot in enumerate(slots) if at == 0 or slots[at - 1] != slot - 1]
    ends = [slot + 1 for at, slot in enumerate(slots) if at + 1 == len(slots) or slots[at + 1] != slot + 1]
    gaps = [after - end for end, after in zip([0] + ends, begins + [len(table) // hpt.ENTRY])]
    # A run of invalid slots shares the record of the valid ones before it; what is too long for it needs others.
    records = len(begins) + -(-gaps[0] // MOST_INVALID) + sum(max(0, -(-gap // MOST_INVALID) - 1) for gap in gaps[1:])
    of_a_group = sum(end - begin + gap == GROUP for begin, end, gap in zip(begins, ends, gaps[1:]))
    return {"records": records, "bytes": 8 * records + hpt.ENTRY * len(slots), "of_a_group": of_a_group}


def migrate(fleet, machine, path, seconds):
    machine.start_migration(f"exec:cat >{path}", downtime_ms=1, bandwidth=LIVE_BANDWIDTH)
    watched = watch(machine, seconds)
    end_quickly(machine, fleet.hurried_downtime_ms)
    info = machine.wait_migration("completed")
    table = machine.hpt()
    if not isinstance(table, bytes):
        table = hpt.packed(table, fleet.order(machine, table))
    found = inspector.inspect(path, "--against-table", inspector.save_table(path + ".table", table))["table"]
    stats = machine.query()
    if len(stats["save-passes"]) == MOST_PASSES:
        raise TestFailure("there have been more passes than the library counts one by one: measure for fewer --seconds")
    if found["crc32"] != f"{stats['save-crc32']:08x}":
        raise TestFailure(f"the file has CRC-32 {found['crc32']}, the library {stats['save-crc32']:08x}")
    for part in ("map", "passes"):
        del found[part]
    return {
        "watched": watched,
        "passes": len(stats["save-passes"]),
        "downtime_ms": info["downtime"],
        "table": found,
        "as_the_kernel_reports": as_the_kernel_reports(table),
    }


def run(fleet, seconds, rounds, picture=None):
    """The figures of each workload; the first round of the one that compiles is drawn."""
    machine = fleet.start(SERIES, memory=MEMORY)
    path = fleet.path("stream")
    results = {}
    for name, command in WORKLOADS.items():
        machine.type(QUIET)
        machine.type(command)
        time.sleep(SETTLE)
        results[name] = []
        for number in range(rounds):
            print(f"{name}, round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            results[name].append(migrate(fleet, machine, path, seconds))
            if picture and name == DRAWN and number == 0:
                inspector.draw(path, picture)
            os.unlink(path)
            machine.check_guest()
            machine.qmp("cont")
    return {"guest_kernel": fleet.guest_kernel, "qemu": SERIES, "seconds": seconds, "workloads": results}
