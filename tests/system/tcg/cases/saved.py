# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that are saved to a file or an image and go on from there."""

import os
import subprocess

import hpt
from failures import TestFailure, wait_until
from fleet import LEAST_VALID
from runner import case


def restored(fleet, source, destination, before, info, kind):
    """A guest that was stopped with the table `before` goes on elsewhere."""
    found = hpt.compare(before, destination.hpt())
    if not found.same() or found.valid < LEAST_VALID:
        raise TestFailure(f"the tables differ: {found}")
    fleet.check_sums(source, destination)
    stats = source.query()
    lost = destination.go_on(source)
    fleet.drop(source)
    destination.wait_ticks(2)
    fleet.note(
        kind=kind,
        program=str(destination.program),
        entries=found.valid,
        total_ms=info.get("total-time", 0),
        passes=len(stats["save-passes"]),
        bytes=stats["save-total"]["bytes"],
        ram_pages_lost=lost,
    )
    return destination


def saved_to(fleet, machine, there, back, look=lambda: None):
    """Saves a guest to one address and loads it from another; `look` is called in between."""
    machine.start_migration(there)
    info = machine.wait_migration("completed")
    before = machine.hpt()
    look()
    destination = fleet.machine(machine.program, machine.guest, incoming=back)
    destination.wait_status("paused", 120)
    return restored(fleet, machine, destination, before, info, there.partition(":")[0])


@case
def exec_and_file(fleet, series):
    """To a file through exec: and back; QEMU's own analyze-migration.py reads the file."""
    machine = fleet.start(series)
    path = fleet.path("stream")

    def analyze():
        script = os.path.join(machine.program.path.split("/programs/")[0], "scripts", "analyze-migration.py")
        done = subprocess.run(["python3", script, "-f", path], capture_output=True, text=True, check=False)
        if done.returncode or "spapr/htab" not in done.stdout:
            raise TestFailure(f"analyze-migration.py: {done.returncode} {done.stderr[-300:]} {done.stdout[:200]}")

    machine = saved_to(fleet, machine, f"exec:cat >{path}", f"exec:cat {path}", analyze)
    os.unlink(path)
    # 7.2 has no file:
    if series != "7.2":
        saved_to(fleet, machine, f"file:{path}", f"file:{path}")
        os.unlink(path)


def run_job(machine, command, **arguments):
    """Runs a command of QMP that is a job, to its end."""
    machine.qmp(command, job_id="job", **arguments)

    def job():
        return next(job for job in machine.qmp("query-jobs") if job["id"] == "job")

    wait_until(lambda: job()["status"] == "concluded", 240, lambda: f"{command} does not end: {job()}", 0.05)
    error = job().get("error")
    machine.qmp("job-dismiss", id="job")
    if error:
        raise TestFailure(f"{command}: {error}")


def create_image(machine, path):
    """An empty qcow2 for snapshots."""
    run_job(machine, "blockdev-create", options={"driver": "file", "filename": path, "size": 0})
    machine.qmp("blockdev-add", driver="file", filename=path, node_name="made")
    run_job(machine, "blockdev-create", options={"driver": "qcow2", "file": "made", "size": 1 << 20})
    machine.qmp("blockdev-del", node_name="made")


def add_image(machine, path, name="snap"):
    machine.qmp("blockdev-add", driver="qcow2", file={"driver": "file", "filename": path}, node_name=name)


def snapshot(machine, command, tag, name="snap"):
    """Saves ("snapshot-save") or loads a snapshot in the image of that name."""
    run_job(machine, command, tag=tag, vmstate=name, devices=[name])


@case
def savevm_loadvm(fleet, series):
    """A snapshot in a qcow2, twice, loaded into another process."""
    snapshots(fleet, fleet.start(series))


def snapshots(fleet, machine):
    path = fleet.path("snap.qcow2")
    create_image(machine, path)
    add_image(machine, path)
    # While it runs: iterate is called until it says that a whole sweep found nothing, or this hangs.
    snapshot(machine, "snapshot-save", "first")
    machine.wait_ticks(1)
    machine.qmp("stop")
    before = machine.hpt()
    snapshot(machine, "snapshot-save", "second")
    stats = machine.query()
    machine.qmp("blockdev-del", node_name="snap")

    destination = fleet.machine(machine.program, machine.guest, extra=("-S",))
    add_image(destination, path)
    snapshot(destination, "snapshot-load", "second")
    if len(stats["save-passes"]) < 2:
        raise TestFailure(f"{len(stats['save-passes'])} passes: iterate did not go on until nothing was found")
    return restored(fleet, machine, destination, before, {}, "savevm")
