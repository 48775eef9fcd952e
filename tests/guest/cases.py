# SPDX-License-Identifier: GPL-2.0-or-later
"""The cases: each a function that gets the lab and the series under test, and raises if something is wrong."""

import os
import re
import socket
import struct
import subprocess
import threading
import time

import hpt
from lab import LEAST_VALID
from machine import GuestFailure, TestFailure
from qmp import QmpError

CASES = []


def case(function):
    CASES.append(function)
    return function


@case
def comparer_sees_differences(_lab, _series):
    """The tests' own judge: each kind of difference is found, and the dirty mark is none."""

    def entry(flags, low=0):
        return bytes([1, 2, 3, 4, 5, 6, 7, flags]) + low.to_bytes(8, "big")

    table = entry(1) + entry(0, 7) + entry(0x41) + entry(1, 0x190)
    wanted = {
        "same": (table, (0, 0, 0, 0)),
        "dirty": (entry(0x41) + entry(0) + entry(1) + entry(1, 0x190), (0, 0, 0, 0)),
        "lost": (entry(0) + table[16:], (1, 0, 0, 0)),
        "extra": (table[:16] + entry(1) + table[32:], (0, 1, 0, 0)),
        "other": (table[:48] + entry(1, 0x1190), (0, 0, 1, 0)),
        "R and C": (table[:48] + entry(1, 0x010), (0, 0, 0, 1)),
    }
    for name, (other, counts) in wanted.items():
        found = hpt.compare(table, other)
        got = tuple(len(kind) for kind in (found.lost, found.extra, found.other, found.r_and_c))
        if got != counts or found.same() != (not any(counts)):
            raise TestFailure(f"{name}: {got}, not {counts}")
    if hpt.compare(table, table[16:]).same():
        raise TestFailure("tables of two sizes count as equal")


@case
def patched_and_unpatched(lab, series):
    """patched to patched, patched to unpatched, unpatched to patched, in one life of a guest."""
    patched, unpatched = lab.program(series), lab.program(series, False)
    machine = lab.boot(patched, lab.guest())
    machine = lab.migrate(machine, patched)
    machine = lab.migrate(machine, unpatched)
    lab.migrate(machine, patched)


@case
def four_processors(lab, series):
    """-smp 4 with a thread for each, all of which fork.

    Under TCG a guest of several processors may stand still after a migration, with QEMU's own code as with ours: the
    others' timer heartbeats stop, which the kernel's watchdog tells some 20 s later. The tables are judged in
    any case; for the rest, an unpatched QEMU must fail in the same way.
    """
    guest = lab.guest(smp=4)
    try:
        lab.migrate(lab.boot(lab.program(series), guest), lab.program(series), watch=30)
    except GuestFailure as failure:
        lab.drop_all()
        unpatched = lab.program(series, False)
        try:
            lab.migrate(lab.boot(unpatched, guest), unpatched, watch=30)
        except GuestFailure:
            lab.note(four_processors=series, guest="stands still after the migration, as with the unpatched QEMU")
            return
        raise TestFailure(f"only with our series: {failure}") from None


@case
def twenty_in_one_life(lab, series):
    """There and back, twenty times, without a pause of the guest's work."""
    patched = lab.program(series)
    machine = lab.boot(patched, lab.guest())
    for _ in range(20):
        machine = lab.migrate(machine, patched)


@case
def power9(lab, series):
    """A POWER9 guest that was told not to use radix."""
    patched = lab.program(series)
    machine = lab.boot(patched, lab.guest(cpu="POWER9", append="disable_radix"))
    lab.migrate(machine, patched)


@case
def radix(lab, series):
    """A guest without a hash table, there and to QEMU's own code and back."""
    patched, unpatched = lab.program(series), lab.program(series, False)
    machine = lab.boot(patched, lab.guest(cpu="POWER9"), mmu="Radix")
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


@case
def own_code_compared(lab, series):
    """x-rust-htab=off is QEMU's own code: the same program, compared with itself. Lost R and C are told, not judged."""
    patched = lab.program(series)
    machine = lab.boot(patched, lab.guest(), rust=False)
    for rust in (False, False, True, True):
        destination = lab.machine(patched, machine.guest, rust=rust, incoming=True)
        machine.start_migration(destination.incoming)
        info = machine.wait_migration("completed")
        destination.wait_status("paused")
        found = hpt.compare(machine.hpt(), destination.hpt())
        lab.note(own_code=not machine.rust, r_and_c_not_sent=len(found.r_and_c), tables=str(found))
        if machine.rust and not found.same():
            raise TestFailure(f"the tables differ: {found}")
        machine = lab.finish(machine, destination, info)
@case
def r_and_c(lab, series):
    """A change bit that TCG sets after its entry was sent arrives; with QEMU's own code it does not.

    Linux enters its entries with R set, and with C where it will write, so the guest alone hardly ever makes TCG set one.
    """
    patched = lab.program(series)
    for rust in (True, False):
        machine = lab.boot(patched, lab.guest(), rust=rust)
        destination = begin_slowly(lab, machine, patched, rust=rust)
        if rust:
            wait_for(machine, "a later pass", lambda: len(passes(machine)) >= 2)
        else:
            # Several rounds of RAM, and with each a piece of the table.
            wait_for(machine, "several rounds", lambda: machine.migration().get("ram", {}).get("dirty-sync-count", 0) >= 3)
        machine.qmp("stop")
        slot = hpt.set_change_bit(machine.process.pid)
        machine.qmp("cont")
        end_quickly(machine)
        machine.wait_migration("completed")
        destination.wait_status("paused")
        found = hpt.compare(machine.hpt(), destination.hpt())
        lab.note(set_c_in=slot, rust=rust, tables=str(found))
        if rust and not found.same():
            raise TestFailure(f"the tables differ: {found}")
        if not rust and slot not in found.r_and_c:
            # Then this proves nothing about ours either.
            raise TestFailure(f"QEMU's own code sent the change bit of slot {slot}, too: {found}")
        lab.drop_all()


@case
def across_versions(lab, series):
    """7.2 to 10.0 to 10.2 and back to 10.0, under the oldest machine type.

    Not back to 7.2: QEMU 10.0 sends "cpu/slb" in a version that 7.2 does not know, whatever the machine type and with its
    own code for the table, too.
    """
    if series != "7.2":
        lab.skip("runs once, with 7.2")
    machine = lab.boot(lab.program("7.2"), lab.guest(machine="pseries-7.2"))
    for there in ("10.0", "10.2", "10.0"):
        machine = lab.migrate(machine, lab.program(there))
    for rust in (True, False):
        try:
            lab.migrate(machine, lab.program("7.2"), rust=rust)
        except TestFailure as refused:
            if "cpu/slb: incoming version_id" not in str(refused):
                raise
            machine.wait_ticks(2)
        else:
            raise TestFailure("10.0 to 7.2 works now: this case can go all the way back")


def restored(lab, source, destination, before, info, kind):
    """A guest that was stopped at `before`, its table then, goes on elsewhere."""
    found = hpt.compare(before, destination.hpt())
    if not found.same() or found.valid < LEAST_VALID:
        raise TestFailure(f"the tables differ: {found}")
    lab.check_sums(source, destination)
    stats = source.query()
    lab.drop(source)
    destination.qmp("cont")
    destination.wait_ticks(2)
    lab.note(
        kind=kind,
        program=str(destination.program),
        entries=found.valid,
        total_ms=info.get("total-time", 0),
        passes=len(stats["save-passes"]),
        bytes=stats["save-total"]["bytes"],
    )
    return destination


@case
def exec_and_file(lab, series):
    """To a file through exec: and back; QEMU's own analyze-migration.py reads the file."""
    patched = lab.program(series)
    machine = lab.boot(patched, lab.guest())
    path = os.path.join(lab.folder, "stream")
    machine.start_migration(f"exec:cat >{path}")
    info = machine.wait_migration("completed")
    before = machine.hpt()

    tree = patched.path.split("/programs/")[0]
    script = os.path.join(tree, "scripts", "analyze-migration.py")
    done = subprocess.run(["python3", script, "-f", path], capture_output=True, text=True, check=False)
    if done.returncode or "spapr/htab" not in done.stdout:
        raise TestFailure(f"analyze-migration.py: {done.returncode} {done.stderr[-300:]} {done.stdout[:200]}")

    destination = lab.machine(patched, machine.guest, incoming=f"exec:cat {path}")
    destination.wait_status("paused", 120)
    machine = restored(lab, machine, destination, before, info, "exec")
    os.unlink(path)
    if series == "7.2":
        return  # has no file:
    machine.start_migration(f"file:{path}")
    info = machine.wait_migration("completed")
    before = machine.hpt()
    destination = lab.machine(patched, machine.guest, incoming=f"file:{path}")
    destination.wait_status("paused", 120)
    restored(lab, machine, destination, before, info, "file")
    os.unlink(path)


def run_job(machine, command, **arguments):
    """A command of QMP that is a job, to its end."""
    machine.qmp(command, job_id="job", **arguments)
    deadline = time.monotonic() + 240
    while True:
        jobs = [job for job in machine.qmp("query-jobs") if job["id"] == "job"]
        if jobs[0]["status"] == "concluded":
            machine.qmp("job-dismiss", id="job")
            if "error" in jobs[0]:
                raise TestFailure(f"{command}: {jobs[0]['error']}")
            return
        if time.monotonic() > deadline:
            raise TestFailure(f"{command} does not end: {jobs}")
        time.sleep(0.05)


def add_image(machine, path):
    machine.qmp("blockdev-add", driver="file", filename=path, node_name="file")
    machine.qmp("blockdev-add", driver="qcow2", file="file", node_name="snap")


@case
def savevm_loadvm(lab, series):
    """A snapshot in a qcow2, twice, loaded into another process."""
    patched = lab.program(series)
    machine = lab.boot(patched, lab.guest())
    path = os.path.join(lab.folder, "snap.qcow2")
    run_job(machine, "blockdev-create", options={"driver": "file", "filename": path, "size": 0})
    machine.qmp("blockdev-add", driver="file", filename=path, node_name="made")
    run_job(machine, "blockdev-create", options={"driver": "qcow2", "file": "made", "size": 1 << 20})
    machine.qmp("blockdev-del", node_name="made")
    add_image(machine, path)
    # While it runs: iterate is called until it says that a whole sweep found nothing, or this hangs.
    run_job(machine, "snapshot-save", tag="first", vmstate="snap", devices=["snap"])
    machine.wait_ticks(1)
    machine.qmp("stop")
    before = machine.hpt()
    run_job(machine, "snapshot-save", tag="second", vmstate="snap", devices=["snap"])
    stats = machine.query()
    machine.qmp("blockdev-del", node_name="snap")

    destination = lab.machine(patched, machine.guest, extra=("-S",))
    add_image(destination, path)
    run_job(destination, "snapshot-load", tag="second", vmstate="snap", devices=["snap"])
    if len(stats["save-passes"]) < 2:
        raise TestFailure(f"{len(stats['save-passes'])} passes: iterate did not go on until nothing was found")
    restored(lab, machine, destination, before, {}, "savevm")


def wait_for(machine, what, condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        status = machine.migration().get("status")
        if status not in ("setup", "active", "device"):
            raise TestFailure(f"the migration is {status} before {what}")
        if time.monotonic() > deadline:
            raise TestFailure(f"no {what} within {seconds} s: {machine.query()}")
        time.sleep(0.005)


# Slow enough to be caught in the middle, fast enough for a test. RAM takes most of it.
SLOW = 24 << 20


def begin_slowly(lab, machine, program, bandwidth=SLOW, rust=True):
    """A migration that cannot end by itself: what fits the downtime limit never comes."""
    destination = lab.machine(program, machine.guest, incoming=True, rust=rust)
    machine.start_migration(destination.incoming, bandwidth=bandwidth, downtime_ms=1)
    return destination


def passes(machine):
    return machine.query()["save-passes"]


def end_quickly(machine):
    machine.qmp("migrate-set-parameters", max_bandwidth=1 << 34, downtime_limit=500)


@case
def cancel_and_retry(lab, series):
    """Cancelled in the first pass and in a later one; then it goes through."""
    patched = lab.program(series)
    machine = lab.boot(patched, lab.guest())
    for what, bandwidth, enough in (
        # So slow that each round has room for one piece of the table.
        ("the first pass", 1 << 20, lambda: len(passes(machine)) == 1),
        ("a later pass", SLOW, lambda: len(passes(machine)) >= 3),
    ):
        if series == "7.2":
            # There the table waits until RAM has nothing left to send.
            machine.type("killall -STOP work")
        destination = begin_slowly(lab, machine, patched, bandwidth)
        wait_for(machine, what, enough)
        machine.qmp("migrate_cancel")
        machine.wait_migration("cancelled")
        if not enough():
            raise TestFailure(f"it was cancelled in pass {len(passes(machine))}, not in {what}")
        lab.note(cancelled_in=what, passes=len(passes(machine)), pending=machine.query()["save-pending"])
        if machine.query()["save-pending"]:
            raise TestFailure("bytes are pending after the end")
        lab.drop(destination)
        if series == "7.2":
            machine.type("killall -CONT work")
        machine.wait_ticks(2)
    lab.migrate(machine, patched)


@case
def destination_dies(lab, series):
    """In mid-stream: the source says why and goes on, and can migrate again."""
    patched = lab.program(series)
    machine = lab.boot(patched, lab.guest())
    destination = begin_slowly(lab, machine, patched)
    wait_for(machine, "RAM", lambda: machine.migration().get("ram", {}).get("transferred", 0) > 1 << 20)
    lab.drop(destination)
    info = machine.wait_migration("failed")
    if not info.get("error-desc"):
        raise TestFailure("query-migrate says no reason")
    machine.wait_ticks(2)
    lab.note(died="destination", error=info["error-desc"])
    lab.migrate(machine, patched)


@case
def full_disk(lab, series):
    """exec: onto a disk without room."""
    patched = lab.program(series)
    machine = lab.boot(patched, lab.guest())
    machine.start_migration("exec:cat >/dev/full")
    info = machine.wait_migration("failed")
    if not info.get("error-desc"):
        raise TestFailure("query-migrate says no reason")
    machine.wait_ticks(2)
    lab.note(full="disk", error=info["error-desc"])
    lab.migrate(machine, patched)


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


def error_in_the_final_pass(lab, machine, name):
    path = os.path.join(lab.folder, name)
    sink = Sink(path)
    sink.start()
    # Such a limit is met after one round, in which there was no room for much of the table.
    machine.start_migration(f"unix:{path}", downtime_ms=2000000, bandwidth=1 << 20)
    sink.join(60)
    if not sink.reached:
        raise TestFailure("the table's last section never came")


@case
def stream_error_in_the_final_pass(lab, series):
    """Fails the migration and leaves the source running; QEMU's own code aborts there."""
    patched = lab.program(series)
    machine = lab.boot(patched, lab.guest())
    error_in_the_final_pass(lab, machine, "sink")
    info = machine.wait_migration("failed")
    told = machine.query()
    # The sink was gone when complete began; what is counted is what had been taken by then.
    if len(told["save-passes"]) > 1 or told["save-total"]["valid"] > told["save-stopped"]["valid"]:
        raise TestFailure(f"the error did not come in the first pass, with the guest stopped: {told}")
    machine.wait_status("running")
    machine.wait_ticks(2)
    lab.note(final_pass="error", error=info.get("error-desc"), told=told["save-total"]["valid"])
    machine = lab.migrate(machine, patched)

    own = lab.boot(patched, lab.guest(), rust=False)
    error_in_the_final_pass(lab, own, "sink.own")
    deadline = time.monotonic() + 20
    while own.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    said = re.findall(r"[Aa]ssertion.*", own.said())
    lab.note(own_code="off", ended=str(own.process.poll()), said=said[-1] if said else "")


@case
def reboot_during(lab, series):
    """The guest reboots while it is migrated: the new table, all of it, arrives."""
    patched = lab.program(series)
    machine = lab.boot(patched, lab.guest())
    ups = machine.console().count(b"MMU")
    # The firmware changes so little memory that only a very slow stream does not keep up with it.
    destination = begin_slowly(lab, machine, patched, 1 << 20)
    wait_for(machine, "the migration", lambda: machine.migration()["status"] == "active")
    machine.type("reboot -f")
    wait_for(machine, "the reboot", lambda: machine.console().count(b"MMU") > ups)
    end_quickly(machine)
    info = machine.wait_migration("completed")
    lab.finish(machine, destination, info)


@case
def resize_during(lab, series):
    """The guest resizes its table while it is migrated."""
    patched, unpatched = lab.program(series), lab.program(series, False)
    machine = lab.boot(patched, lab.guest(machine="pseries,resize-hpt=enabled"))
    order = 23
    for program, wanted in ((patched, 24), (unpatched, 23)):
        destination = lab.machine(program, machine.guest, incoming=True)
        machine.start_migration(destination.incoming, bandwidth=SLOW, downtime_ms=1)
        wait_for(machine, "the migration", lambda: machine.migration()["status"] == "active")
        machine.type(f"echo {wanted} >/sys/kernel/debug/powerpc/hpt_order; cat /sys/kernel/debug/powerpc/hpt_order")
        wait_for(machine, "the resize", lambda: machine.query()["save-order"] == wanted)
        end_quickly(machine)
        info = machine.wait_migration("completed")
        if len(destination.hpt()) != 1 << wanted:
            raise TestFailure(f"the destination's table has {len(destination.hpt())} bytes, not 2^{wanted}")
        machine = lab.finish(machine, destination, info)
        lab.note(resized=f"{order} to {wanted}")
        order = wanted


@case
def pending_holds_the_stop(lab, series):
    """16 MiB/s and a downtime limit that the first pass does not fit: the stop waits until it is over."""
    patched = lab.program(series)
    machine = lab.boot(patched, lab.guest())
    machine.type("killall -STOP work")
    destination = lab.machine(patched, machine.guest, incoming=True)
    machine.start_migration(destination.incoming, bandwidth=16 << 20, downtime_ms=10)
    info = machine.wait_migration("completed")
    stats = machine.query()
    most = (16 << 20) * 10 // 1000
    if stats["save-passes"][0]["bytes"] <= most:
        raise TestFailure(f"the first pass had {stats['save-passes'][0]} only, which fits the limit")
    if stats["save-stopped"]["bytes"] > most:
        raise TestFailure(f"more than the limit of {most} bytes was left for the stop: {stats['save-stopped']}")
    destination.wait_status("paused")
    lab.check_tables(machine, destination)
    lab.check_sums(machine, destination)
    destination.qmp("cont")
    destination.type("killall -CONT work")
    destination.wait_ticks(2)
    lab.note(first_pass=stats["save-passes"][0]["bytes"], stopped=stats["save-stopped"]["bytes"], downtime_ms=info["downtime"])


@case
def postcopy(lab, series):
    """The switchover in the first pass, and after it."""
    patched = lab.program(series)
    machine = lab.boot(patched, lab.guest())
    for what, enough in (("setup", lambda: True), ("a later pass", lambda: len(passes(machine)) >= 2)):
        if series == "7.2" and what != "setup":
            machine.type("killall -STOP work")
        destination = lab.machine(patched, machine.guest, defer=True)
        states = [{"capability": "postcopy-ram", "state": True}]
        for each in (machine, destination):
            each.qmp("migrate-set-capabilities", capabilities=states)
        destination.qmp("migrate-incoming", uri=destination.incoming)
        machine.start_migration(destination.incoming, bandwidth=SLOW, downtime_ms=1)
        wait_for(machine, "the migration", lambda: machine.migration()["status"] == "active")
        wait_for(machine, what, enough)
        machine.qmp("migrate-start-postcopy")
        info = machine.wait_migration("completed")
        told = len(passes(machine))
        if series == "7.2" and what != "setup":
            destination.wait_status("paused")
            destination.qmp("cont")
            destination.type("killall -CONT work")
            destination.qmp("stop")
        machine = lab.finish(machine, destination, info)
        lab.note(postcopy=what, passes=told)
        machine.qmp("migrate-set-capabilities", capabilities=[{"capability": "postcopy-ram", "state": False}])
