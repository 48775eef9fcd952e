# SPDX-License-Identifier: GPL-2.0-or-later
"""The cases, in the order in which they run: those of tests/system/tcg that need nothing of TCG, and some of KVM's own."""

import contextlib
import glob
import os
import re
import socket

import hpt
from calls import READER, Tracing
from cases import changing, failing, moving, saved, switching
from cases.slowly import begin_slowly, end_quickly, passes, ready_for, wait_for
from failures import GuestFailure, TestFailure
from stream import Tap


def comparing_sees_changes(fleet, series):
    """The tests' own judge: a table that is read twice while the guest works is not the same, at rest it is."""
    machine = fleet.start(series)
    before = machine.hpt()
    machine.wait_ticks(1)
    machine.qmp("stop")
    after = machine.hpt()
    if hpt.compare(before, after).same():
        raise TestFailure("two tables of a guest at work count as the same")
    if not hpt.compare(after, machine.hpt()).same():
        raise TestFailure("a table at rest is not the same when read again")
    machine.qmp("cont")


def ten_in_one_life(fleet, series):
    """There and back, ten times, without a pause of the guest's work."""
    machine = fleet.start(series)
    for _ in range(10):
        machine = fleet.migrate(machine)


def own_code_compared(fleet, series):
    """x-rust-htab=off is QEMU's own code: the same program, to it, between two of it, and back."""
    machine = fleet.start(series)
    for rust in (False, False, True):
        machine = fleet.migrate(machine, rust=rust, tap=True)


def two_processors(fleet, series):
    """-smp 2 with a thread for each, both of which fork."""
    machine = fleet.start(series, smp=2)
    machine.wait_console(rb"cpus 2", 5)
    machine = fleet.migrate(machine, watch=25)
    fleet.migrate(machine)


def to_a_file(fleet, series):
    """To a file and back."""
    path = fleet.path("stream")
    saved.saved_to(fleet, fleet.start(series), f"exec:cat >{path}", f"exec:cat {path}")
    os.unlink(path)


def large_table_that_never_rests(fleet, series):
    """64 MiB of table, and a guest that maps and unmaps all the time: no pass before the stop finds nothing."""
    # The table's size goes by the most memory that the guest may get, unless it may change with the memory.
    machine = fleet.start(series, machine="pseries,resize-hpt=disabled", memory="512M,slots=1,maxmem=8G")
    machine.type("/work churn &")
    for _ in range(2):
        destination = begin_slowly(fleet, machine, bandwidth=64 << 20)
        wait_for(machine, "later passes", lambda: len(passes(machine)) >= 5)
        end_quickly(machine)
        fleet.arrival(machine, destination)
        stats = machine.query()
        if stats["save-order"] != 26:
            raise TestFailure(f"the table is of order {stats['save-order']}, not 26")
        clean = [number for number, each in enumerate(stats["save-passes"][1:-1], 2) if not each["records"]]
        if clean:
            raise TestFailure(f"the table was at rest in pass {clean}: {stats}")
        machine = fleet.finish(machine, destination)


def radix(fleet, series):
    """A guest without a hash table, there and to QEMU's own code and back.

    Here a radix guest may find its memory in disorder after a migration, with QEMU's own code as with ours. What
    concerns the table is judged in any case; for the rest, an unpatched QEMU must fail in the same way.
    """
    patched, unpatched = fleet.program(series), fleet.program(series, False)
    guest = fleet.guest(append="")
    try:
        machine = fleet.boot(patched, guest, mmu="Radix")
        for program in (patched, unpatched, patched):
            machine = moving.move_radix(fleet, machine, program)
    except GuestFailure as failure:
        fleet.drop_each()
        machine = fleet.boot(unpatched, guest, mmu="Radix")
        try:
            for _ in range(6):
                machine = moving.move_radix(fleet, machine, unpatched)
        except GuestFailure:
            fleet.note(radix="yes", guest="falls over after a migration, as with the unpatched QEMU")
            return
        raise TestFailure(f"only with our series: {failure}") from None


class Debugger:
    """A debugger at QEMU's gdbstub."""

    def __init__(self, machine):
        self.machine = machine
        path = os.path.join(machine.folder, machine.name + ".gdb")
        machine.qmp.hmp(f"gdbserver unix:{path},server=on,wait=off")
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(path)

    def read(self, address):
        """Eight bytes of the guest's memory, in hexadecimal; the stub answers only while the guest is stopped."""
        self.machine.qmp("stop")
        packet = f"m{address:x},8"
        self.socket.sendall(f"${packet}#{sum(packet.encode()) & 255:02x}".encode())
        answer = b""
        while answer[-3:-2] != b"#":
            answer += self.socket.recv(4096)
        self.socket.sendall(b"+")
        self.machine.qmp("cont")
        return answer.lstrip(b"+")[1:-3].decode()


def debugger_looks_on(fleet, series):
    """HMP's x and a gdbstub read the guest's memory all through a migration, and take no change from it.

    QEMU looks only into the table of a guest that has been migrated before: with KVM it takes any other for one in
    real mode (10.0).
    """
    machine = fleet.migrate(fleet.start(series))
    debugger = Debugger(machine)
    machine.qmp("cont")
    destination = begin_slowly(fleet, machine)
    looks, said = 0, []
    while len(passes(machine)) < 5 or looks < 400:
        # All of the linear map: each page's entry is in another group.
        address = 0xC000000000000000 + (looks << 16) % (512 << 20)
        said.append(machine.qmp.hmp(f"x /2xg {address:#x}"))
        if looks % 20 == 0:
            said.append(debugger.read(address))
        looks += 1
    end_quickly(machine)
    fleet.arrival(machine, destination)
    again = machine.query()["save-looked-up"]
    failed = [each for each in said if "annot access" in each or each.startswith("E") or not each]
    fleet.note(looks=len(said), failed=len(failed), slots_sent_again=again["valid"] + again["invalid"])
    if failed or not again["records"]:
        raise TestFailure(f"{len(failed)} of {len(said)} looks failed: {failed[:2]} {said[-2:]}; {again}")
    fleet.finish(machine, destination)


def postcopy_of_a_source_that_is_looked_into(fleet, series):
    """HMP's x on the source after the switchover: both sides end. The guest has been migrated before, see above."""
    machine = fleet.migrate(fleet.start(series))
    destination = ready_for(fleet, machine, "postcopy-ram")
    switching.disturbed(machine, destination, switching.look)
    fleet.finish(machine, destination).set_capability("postcopy-ram", False)


def warnings_are_seen(fleet, series):
    """What the library warns of is a warning of QEMU's: a source that dies while records wait for a call."""
    machine = fleet.start(series)
    destination = begin_slowly(fleet, machine)
    wait_for(machine, "later passes", lambda: len(passes(machine)) >= 2)
    machine.process.kill()
    destination.process.wait(60)
    said = destination.said()
    if not re.search(r"warning: .*records were loaded", said):
        raise TestFailure(said)
    fleet.note(warned=said)
    fleet.drop_each()


def calls_counted(fleet, series):
    """The calls on the tables' fds, for the component and for QEMU's own code."""
    most_records = os.sysconf("SC_IOV_MAX")
    machine = fleet.start(series)
    for rust in (True, False, False, True):
        destination = fleet.destination(machine, rust=rust)
        wire = Tap(destination.incoming)
        with Tracing(machine, destination) as tracing:
            machine.start_migration(wire.uri)
            fleet.arrival(machine, destination)
            reads, writes = tracing.calls()
        stopped = [call for call in reads if call.end > machine.qmp.event_time("STOP")]
        records = [len(section.records) for section in wire.sections() if section.records]
        row = {
            "source": machine.kind(),
            "destination": destination.kind(),
            "reads": len(reads),
            "bytes_read": sum(call.bytes for call in reads),
            "reads_stopped": len(stopped),
            "bytes_read_stopped": sum(call.bytes for call in stopped),
            "sections": len(records),
            "records": sum(records),
            "writes": len(writes),
            "bytes_written": sum(call.bytes for call in writes),
        }
        fleet.note(**row)
        # A record that a read has cut in two is one again on the other side, without its second header.
        if not 0.9 * row["bytes_read"] < row["bytes_written"] <= row["bytes_read"]:
            raise TestFailure("less was written than read: calls have been missed")
        # A record to a segment, and as many as a call takes.
        most = -(-row["records"] // most_records)
        if rust and len(writes) > most:
            raise TestFailure(f"{len(writes)} writes for sections of {records} records, not {most} at most")
        machine = fleet.finish(machine, destination)


def resize_during(fleet, series):
    """The guest resizes its table while it is migrated. Not with QEMU's own code: it goes on reading while the kernel
    replaces the table, and the host's kernel may fall over (docs/guests-kvm.md).
    """
    changing.resize_in_migrations(fleet, series)


def from_hash_to_radix(fleet, series):
    """The guest reboots into the other kind of MMU while it is migrated.

    What runs on with radix is not judged (see the case there), so another guest reboots from radix to hash.
    """
    patched = fleet.program(series)
    plain = "printk.time=0"
    for program in (patched, fleet.program(series, False)):
        machine = fleet.start(series)
        destination, info = changing.reboot_into(fleet, machine, program, "Radix", plain)
        fleet.note(rebooted_to="Radix", source=machine.kind(), to=destination.kind(), downtime_ms=info["downtime"])
        fleet.drop_each()
    machine = fleet.start(series, mmu="Radix", append="")
    destination, _ = changing.reboot_into(fleet, machine, patched, "Hash", f"{plain} disable_radix")
    fleet.finish(machine, destination)
    # Not for a case that wants a guest of the same options: this one has rebooted into another MMU.
    fleet.drop_each()


SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
FILTERED = re.compile(r"^Seccomp:\s+2$", re.M)


def threads(machine):
    """(name, whether it is in the sandbox) of each of a process's threads."""
    found = []
    for status in glob.glob(f"/proc/{machine.process.pid}/task/*/status"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(status, encoding="ascii") as file:
            text = file.read()
            found.append((re.search(r"^Name:\s+(.*)$", text, re.M).group(1), bool(FILTERED.search(text))))
    return found


def sandboxed(fleet, series):
    """With all of QEMU's seccomp filters on both sides: the thread that reads ahead is there, and nothing is killed."""
    machine = fleet.start(series, extra=("-sandbox", SANDBOX))
    for _ in range(2):
        destination = begin_slowly(fleet, machine)
        wait_for(machine, "the reading thread", lambda: READER in dict(threads(machine)))
        wait_for(machine, "later passes", lambda: len(passes(machine)) >= 3)
        outside = [name for each in (machine, destination) for name, filtered in threads(each) if not filtered]
        if outside:
            raise TestFailure(f"not in the sandbox: {outside}")
        end_quickly(machine)
        machine = fleet.finish(machine, destination)


CASES = [
    comparing_sees_changes,
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
    resize_during,
    changing.postcopy,
    switching.postcopy_of_a_source_that_is_disturbed,
    postcopy_of_a_source_that_is_looked_into,
    switching.postcopy_from_unpatched,
    changing.resizes_in_vain,
    warnings_are_seen,
    from_hash_to_radix,
    sandboxed,
    failing.stream_error_in_the_final_pass,
    two_processors,
    large_table_that_never_rests,
    radix,
]
