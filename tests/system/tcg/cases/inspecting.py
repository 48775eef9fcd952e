# SPDX-License-Identifier: GPL-2.0-or-later
"""htab-inspect on what real QEMUs save, held against others that count the same."""

import os

import hpt
import inspector
import stream
from failures import TestFailure
from fleet import LEAST_VALID
from runner import case

COUNTED = ("valid", "invalid", "records", "bytes")


def expect(what, found, wanted):
    if found != wanted:
        raise TestFailure(f"{what}: htab-inspect has {found}, not {wanted}")


def check(path, table_path, table):
    """Compares a file with the table that the source had at the end; returns htab-inspect's report."""
    report = inspector.inspect(path, "--against-table", inspector.save_table(table_path, table))
    entries = hpt.entries(table)
    if len(entries) < LEAST_VALID:
        raise TestFailure(f"the source's table has {len(entries)} valid entries only")
    found = report["table"]
    expect("slots", found["slots"], len(table) // hpt.ENTRY)
    expect("entries", found["contents"]["valid"], len(entries))
    bolted = sum(entry >> 64 & 0x10 != 0 for entry in entries.values())
    expect("bolted entries", found["contents"]["bolted"], bolted)
    expect("bytes behind the end", report["stream"]["trailing"], 0)
    return report


def check_statistics(report, stats):
    """Against what the library that sent it says."""
    found = report["table"]
    for name, sent in (("total", stats["save-total"]), ("stopped", stats["save-stopped"])):
        for figure in COUNTED:
            expect(f"{name} {figure}", found[name][figure], sent[figure])
    expect("the CRC-32", found["crc32"], f"{stats['save-crc32']:08x}")


def check_wire(report, path):
    """Against another parser's eyes."""
    with open(path, "rb") as file:
        heard = stream.sections(file.read())
    found = [each for each in report["sections"] if each["what"] == "records"]
    expect("sections", [each["records"] for each in found], [len(section.records) for section in heard])
    expect("last section", [each["part"] == "last" for each in found], [section.last for section in heard])
    sent = [each["valid"] + each["invalid"] for each in report["table"]["passes"]]
    expect("passes", sent, stream.passes(heard))
    runs = {}
    for section in heard:
        for _, valid, _, _ in section.records:
            runs[str(valid)] = runs.get(str(valid), 0) + 1
    expect("runs of valid entries", report["table"]["total"]["valid_runs"], runs)


def check_failing(report, path, table_path, table):
    """A table with one entry less is not the same, and a file that is cut off is broken at that section."""
    slot = min(hpt.entries(table))
    changed = bytearray(table)
    changed[slot * hpt.ENTRY + 7] &= ~hpt.VALID
    inspector.save_table(table_path, changed)
    found = inspector.inspect(path, "--against-table", table_path, status=inspector.DIFFERS)["comparison"]
    expect("the slot that differs", found["here_only"], {"count": 1, "first": [slot]})

    with_records = [each for each in report["sections"] if each["records"]]
    end = with_records[0]["offset"] + with_records[0]["bytes"] // 2
    os.truncate(path, end)
    fault = inspector.inspect(path, status=inspector.BROKEN)["fault"]
    if not with_records[0]["offset"] <= fault["offset"] <= end or "cut off" not in fault["reason"]:
        raise TestFailure(f"cut off at byte {end}, but: {fault}")


@case
def inspected(fleet, series):
    """Saved by the library, by QEMU's own code and with mapped RAM: counts, passes and tables agree with others'."""
    path, table_path = (fleet.path(name) for name in ("stream", "table"))
    machine = fleet.start(series)
    machine.start_migration(f"exec:cat >{path}")
    machine.wait_migration("completed")
    table = machine.hpt()
    report = check(path, table_path, table)
    check_statistics(report, machine.query())
    check_wire(report, path)

    # The same guest, sent by QEMU's own code.
    other = fleet.machine(machine.program, machine.guest, rust=False, incoming=f"exec:cat {path}")
    other.wait_status("paused", 120)
    other.go_on(machine)
    fleet.drop(machine)
    other.start_migration(f"exec:cat >{path}")
    other.wait_migration("completed")
    table = other.hpt()
    report = check(path, table_path, table)
    check_wire(report, path)
    if series != "7.2":
        mapped = path + ".mapped"
        other.qmp("cont")
        other.set_capability("mapped-ram")
        other.start_migration(f"file:{mapped}")
        other.wait_migration("completed")
        of_mapped = check(mapped, table_path, other.hpt())
        expect("mapped", of_mapped["stream"]["ram"]["mapped"], True)
        os.unlink(mapped)
    check_failing(report, path, table_path, table)
    fleet.note(kind="inspected", program=str(other.program), entries=report["table"]["contents"]["valid"])
    os.unlink(path)
