# SPDX-License-Identifier: GPL-2.0-or-later
"""The cases, in the order in which they run: those of tests/guest that need nothing of TCG, and some of KVM's own."""

import os
import socket
import threading

from calls import Tracing
from cases import changing, failing, moving, saved
from cases.slowly import begin_slowly, end_quickly, passes, wait_for
from machine import TestFailure


def ten_in_one_life(lab, series):
    """There and back, ten times, without a pause of the guest's work."""
    program = lab.program(series)
    machine = lab.boot(program, lab.guest())
    for _ in range(10):
        machine = lab.migrate(machine, program)


def own_code_compared(lab, series):
    """x-rust-htab=off is QEMU's own code: the same program, to it, between two of it, and back."""
    program = lab.program(series)
    machine = lab.boot(program, lab.guest())
    for rust in (False, False, True):
        machine = lab.migrate(machine, program, rust=rust)


def two_processors(lab, series):
    """-smp 2 with a thread for each, both of which fork."""
    program = lab.program(series)
    machine = lab.boot(program, lab.guest(smp=2))
    machine.wait_console(rb"cpus 2", 5)
    machine = lab.migrate(machine, program, watch=25)
    lab.migrate(machine, program)


def to_a_file(lab, series):
    """To a file and back."""
    program = lab.program(series)
    machine = lab.boot(program, lab.guest())
    path = os.path.join(lab.folder, "stream")
    machine.start_migration(f"exec:cat >{path}")
    info = machine.wait_migration("completed")
    before = machine.hpt()
    destination = lab.machine(program, machine.guest, incoming=f"exec:cat {path}")
    destination.wait_status("paused", 120)
    saved.restored(lab, machine, destination, before, info, "exec")
    os.unlink(path)


def large_table_that_never_rests(lab, series):
    """64 MiB of table, and a guest that maps and unmaps all the time: no pass finds nothing."""
    program = lab.program(series)
    # The table's size goes by the most memory that the guest may get, unless it may change with the memory.
    guest = lab.guest(machine="pseries,resize-hpt=disabled", memory="512M,slots=1,maxmem=8G")
    machine = lab.boot(program, guest)
    machine.type("/work churn &")
    for _ in range(2):
        destination = begin_slowly(lab, machine, program, 64 << 20)
        wait_for(machine, "later passes", lambda: len(passes(machine)) >= 5)
        end_quickly(machine)
        info = machine.wait_migration("completed")
        told = machine.query()
        if told["save-order"] != 26:
            raise TestFailure(f"the table is of order {told['save-order']}, not 26")
        clean = [at for at, each in enumerate(told["save-passes"][1:-1], 1) if not each["records"]]
        if clean or not told["save-stopped"]["records"]:
            raise TestFailure(f"the table was at rest in pass {clean}: {told}")
        machine = lab.finish(machine, destination, info)


def radix(lab, series):
    """A guest without a hash table, there and to QEMU's own code and back."""
    patched, unpatched = lab.program(series), lab.program(series, False)
    machine = lab.boot(patched, lab.guest(append=""), mmu="Radix")
    for program in (patched, unpatched, patched):
        destination = lab.machine(program, machine.guest, incoming=True)
        machine.start_migration(destination.incoming)
        info = machine.wait_migration("completed")
        destination.wait_status("paused")
        if machine.hpt() or destination.hpt():
            raise TestFailure("a radix guest has a hash table")
        if machine.rust and machine.query()["save-total"]["records"]:
            raise TestFailure("records of a table that is not there")
        destination.qmp("cont")
        destination.wait_ticks(2)
        lab.note(source=str(machine.program), to=str(program), radix="yes", downtime_ms=info["downtime"])
        lab.drop(machine)
        machine = destination


class Debugger(threading.Thread):
    """Reads the guest's memory through the gdbstub, for as long as it can; a table lookup for each page."""

    def __init__(self, path, addresses):
        super().__init__(daemon=True)
        self.addresses = addresses
        self.reads = 0
        self.over = threading.Event()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(path)

    def packet(self, text):
        self.socket.sendall(f"${text}#{sum(text.encode()) & 255:02x}".encode())
        answer = b""
        while answer[-3:-2] != b"#":
            answer += self.socket.recv(4096)
        self.socket.sendall(b"+")
        return answer

    def run(self):
        while not self.over.is_set():
            for address in self.addresses:
                self.packet(f"m{address:x},8")
                self.reads += 1


def debugger_looks_on(lab, series):
    """HMP's x and a gdbstub read the guest's memory all through a migration, whose changes they must not take."""
    program = lab.program(series)
    machine = lab.boot(program, lab.guest())
    machine.type("/work churn &")
    destination = begin_slowly(lab, machine, program)
    looks = 0
    while len(passes(machine)) < 5 or looks < 50:
        # Kernel text, data and the linear map.
        for page in range(8):
            machine.qmp.hmp(f"x /2xg {0xC000000000000000 + ((looks * 8 + page) % 256 << 20):#x}")
        looks += 1
    end_quickly(machine)
    info = machine.wait_migration("completed")
    told = machine.query()["save-looked-up"]
    lab.note(looked_up=told, hmp=looks * 8)
    machine = lab.finish(machine, destination, info)
    machine.type("killall work; /work &")


def calls_counted(lab, series):
    """The calls on the tables' fds, for the component and for QEMU's own code."""
    program = lab.program(series)
    machine = lab.boot(program, lab.guest())
    for rust in (True, False, False, True):
        destination = lab.machine(program, machine.guest, rust=rust, incoming=True)
        with Tracing(machine, destination) as tracing:
            machine.start_migration(destination.incoming)
            info = machine.wait_migration("completed")
            destination.wait_status("paused")
        reads, writes = tracing.calls()
        stopped = [call for call in reads if call.end > machine.qmp.event_time("STOP")]
        row = {
            "source": "component" if machine.rust else "own code",
            "destination": "component" if rust else "own code",
            "reads": len(reads),
            "bytes_read": sum(call.bytes for call in reads),
            "reads_stopped": len(stopped),
            "bytes_read_stopped": sum(call.bytes for call in stopped),
            "writes": len(writes),
            "bytes_written": sum(call.bytes for call in writes),
        }
        lab.note(**row)
        if row["bytes_read"] != row["bytes_written"] or {call.name for call in reads} != {"read"}:
            raise TestFailure("not what was read was written: calls have been missed")
        if rust:
            told = destination.query()
            # A call takes 1024 records, and each section ends with one.
            most = told["load-sections"] + told["load-total"]["records"] // 1024
            if len(writes) > most:
                raise TestFailure(f"{len(writes)} writes for {told['load-sections']} sections, not {most} at most")
        machine = lab.finish(machine, destination, info)


CASES = [
    moving.patched_and_unpatched,
    own_code_compared,
    calls_counted,
    failing.cancel_and_retry,
    debugger_looks_on,
    to_a_file,
    ten_in_one_life,
    failing.destination_dies,
    saved.savevm_loadvm,
    changing.reboot_during,
    failing.stream_error_in_the_final_pass,
    two_processors,
    large_table_that_never_rests,
    radix,
]
