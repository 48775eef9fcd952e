# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU processes of a run, and what its cases share: programs, the guest's files, migrations with their checks."""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import tempfile
from dataclasses import replace

import hpt
import stream
from failures import SKIP_STATUS, Skipped, TestFailure
from machine import Guest, Machine, Program

SYSTEM = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REPO = os.path.dirname(os.path.dirname(SYSTEM))
# No Linux guest of this size has fewer: a table that is not there must not pass for one that is equal.
LEAST_VALID = 2000


def output_of(*command, **options):
    """The lines that a command prints."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, **options)
    if done.returncode == SKIP_STATUS:
        raise Skipped(f"{' '.join(command)} (see above)")
    if done.returncode:
        raise TestFailure(f"{' '.join(command)} ended with {done.returncode}")
    return done.stdout.splitlines()


def script(name, *arguments):
    """The last line that one of the scripts prints."""
    return output_of(os.path.join(REPO, "scripts", name), *arguments)[-1]


class Fleet:
    """Ends its processes and removes its folder at the end of a `with`."""

    machine_class = Machine
    accel = "TCG"
    tables_read = "from both processes with gdb"
    # What a migration that is to end now may take with the guest stopped.
    hurried_downtime_ms = 500

    def __init__(self, sanitizers=False):
        # A case has QEMU abort on purpose; its core would hold the guest's memory.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # A table larger than the machine's memory is refused, as it is without the sanitizer.
        os.environ["ASAN_OPTIONS"] = "allocator_may_return_null=1:max_allocation_size_mb=4096"
        self.folder = tempfile.mkdtemp(prefix="fleet.")
        self.keeps_folder = False
        self.sanitizers = sanitizers
        self.programs = {}
        self.files = None
        self.machines = []
        self.case = ""
        self.rows = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.drop_all()
        if self.keeps_folder:
            print(f"the consoles are in {self.folder}", flush=True)
        else:
            shutil.rmtree(self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def program(self, series, patched=True):
        if (series, patched) not in self.programs:
            options = [] if patched else ["--unpatched"]
            options += ["--sanitizers"] if patched and self.sanitizers else []
            self.programs[series, patched] = Program(series, patched, script("qemu", series, *options))
        return self.programs[series, patched]

    def guest(self, **options):
        if not self.files:
            self.files = output_of(os.path.join(SYSTEM, "images"), "guest", self.folder)[-2:]
        return Guest(kernel=self.files[0], initrd=self.files[1], **options)

    @property
    def guest_kernel(self):
        """Its release, once there is a guest."""
        return os.path.basename(self.files[0]).removeprefix("vmlinux-")

    def order(self, _machine, table):
        return len(table).bit_length() - 1 if table else 0

    def machine(self, *args, **options):
        machine = self.machine_class(*args, self.folder, **options)
        self.machines.append(machine)
        return machine

    def keep(self):
        """The case has passed, and what it leaves may serve others."""
        for machine in self.machines:
            machine.check_reports()

    def drop(self, machine):
        machine.stop()
        self.machines.remove(machine)
        machine.check_reports()

    def drop_each(self):
        """In a case that goes on with others."""
        for machine in list(self.machines):
            self.drop(machine)

    def drop_all(self):
        """At the end, whatever they report."""
        for machine in self.machines:
            with contextlib.suppress(OSError):
                machine.stop()
        self.machines.clear()

    def boot(self, program, guest, mmu="Hash", **options):
        """A guest that is up and at work."""
        machine = self.machine(program, guest, **options)
        machine.wait_console(rb"MMU\s*:\s*\w+", 240)
        machine.wait_console(b"MMU\\s*:\\s*" + mmu.encode(), 5)
        machine.wait_ticks(3)
        return machine

    def start(self, series, mmu="Hash", rust=True, **guest):
        """A guest in the patched program of a series, up and at work."""
        return self.boot(self.program(series), self.guest(**guest), mmu=mmu, rust=rust)

    def held(self, series, **guest):
        """The patched program of a series with a table, before its guest begins."""
        return self.machine(self.program(series), self.guest(**guest), extra=("-S",))

    def destination(self, source, program=None, **options):
        """A process that waits for the source's guest, with another program or the same one."""
        return self.machine(program or source.program, source.guest, incoming=True, **options)

    def arrival(self, source, destination):
        """Waits for a migration's end on both sides; returns what query-migrate says then."""
        try:
            info = source.wait_migration("completed")
        except TestFailure as failure:
            # Only the destination can say what it refused.
            raise TestFailure(f"{failure}; the destination: {destination.said()}") from None
        destination.wait_status("paused")
        return info

    def note(self, **row):
        """Figures of the case, for tests/system/results."""
        self.rows.append({"case": self.case} | row)
        print("  " + ", ".join(f"{key} {value}" for key, value in row.items()), flush=True)

    def check_tables(self, source, destination, allow_r_and_c=False):
        """The two processes' tables, both held, entry by entry."""
        found = hpt.compare(source.hpt(), destination.hpt())
        if found.valid < LEAST_VALID:
            raise TestFailure(f"the source's table has {found.valid} valid entries only")
        if not (replace(found, r_and_c=[]) if allow_r_and_c else found).same():
            raise TestFailure(f"the tables differ: {found}")
        return found

    def check_sums(self, source, destination):
        """What both sides' libraries say of the records."""
        if not (source.rust and destination.rust):
            return
        sent, got = source.query(), destination.query()
        # The source counts from setup on, the destination from the last size that came.
        fewer = sent["save-total"]["records"] < got["load-total"]["records"]
        if fewer or sent["save-crc32"] != got["load-crc32"]:
            raise TestFailure(f"sent and received are not the same: {json.dumps(sent)} {json.dumps(got)}")
        if sent["save-pending"]:
            raise TestFailure(f"{sent['save-pending']} bytes are pending after the end")

    def check_heard(self, source, heard):
        """What the library says it sent, against what went over the wire."""
        stats = source.query()
        slots = sum(section.slots() for section in heard)
        records = sum(len(section.records) for section in heard)
        total, stopped = stats["save-total"], stats["save-stopped"]
        last = sum(section.slots() for section in heard if section.last)
        if (records, slots, last) != (
            total["records"],
            total["valid"] + total["invalid"],
            stopped["valid"] + stopped["invalid"],
        ):
            raise TestFailure(f"on the wire {records} records, {slots} slots, {last} at the stop; the library: {stats}")

    def finish(self, source, destination, watch=0, wire=None, wake=""):
        """A migration's end: compares, lets the guest go on, and notes the figures. The source goes.

        A guest whose work was held is woken by a command.
        """
        info = self.arrival(source, destination)
        # QEMU's own code never sends R and C again under TCG.
        own_code = not source.rust
        found = self.check_tables(source, destination, allow_r_and_c=own_code)
        self.check_sums(source, destination)
        row = {
            "from": source.kind(),
            "to": destination.kind(),
            "total_ms": info["total-time"],
            "downtime_ms": info["downtime"],
            "ram_rounds": info["ram"]["dirty-sync-count"],
            "entries": found.valid,
        }
        if own_code:
            row["r_and_c_not_sent"] = len(found.r_and_c)
        if source.rust:
            stats = source.query()
            if not stats["save-passes"]:
                raise TestFailure("the library saved nothing")
            row["stopped"] = stats["save-stopped"]["valid"] + stats["save-stopped"]["invalid"]
            row["stopped_us"] = stats["save-stopped"]["time-ns"] // 1000
        if wire:
            heard = wire.sections()
            if source.rust:
                self.check_heard(source, heard)
            row["passes"] = stream.passes(heard)
            row["bytes"] = sum(section.bytes for section in heard)
            row["stopped"] = sum(section.slots() for section in heard if section.last)
            row["stopped_bytes"] = sum(section.bytes for section in heard if section.last)
        lost = destination.go_on(source)
        if lost:
            row["ram_pages_lost"] = lost
        self.note(**row)
        if wake:
            destination.type(wake)
        destination.wait_ticks(2)
        destination.watch(watch)
        self.drop(source)
        return destination

    def migrate(self, source, program=None, rust=True, watch=0, tap=False):
        """A live migration to a new process, with every check; returns the destination, running.

        With a tap, what the table's sections hold is counted on the wire.
        """
        destination = self.destination(source, program, rust=rust)
        wire = stream.Tap(destination.incoming) if tap else None
        source.start_migration(wire.uri if wire else destination.incoming)
        return self.finish(source, destination, watch, wire)
