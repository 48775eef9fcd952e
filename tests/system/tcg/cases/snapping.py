# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots that fail or are refused, and the guest that was to be saved or replaced."""

import errno
import os
import re
import shutil

import loaded
from cases.bounded import SMALL, check_figures
from cases.saved import add_image, create_image, snapshot
from failures import QmpError, TestFailure
from runner import case
from stream import NAME, OPENING_BYTES, START

# RAM and what comes before it take five, the table a dozen.
WRITES = 6


def in_a_file(path):
    """A guest whose RAM is a file that others share: then it need not be in a snapshot, and the table is nearly all."""
    backend = f"memory-backend-file,id=ram,size=512M,share=on,mem-path={path}"
    return {"machine": "pseries,memory-backend=ram", "memory": "512M", "extra": ("-object", backend)}


def add_failing_image(machine, path, name):
    """An image that has no room left after so many writes, which end in the table."""
    states = [{"event": "write_aio", "state": state, "new_state": state + 1} for state in range(1, WRITES + 1)]
    file = {
        "driver": "blkdebug",
        "image": {"driver": "file", "filename": path},
        "set-state": states,
        "inject-error": [{"event": "write_aio", "state": WRITES + 1, "errno": errno.ENOSPC}],
    }
    machine.qmp("blockdev-add", driver="qcow2", file=file, node_name=name)


def fails(machine, command, tag, name):
    """The job must fail, and its QEMU live on; returns the reason."""
    try:
        snapshot(machine, command, tag, name)
    except QmpError:
        machine.process.wait(60)
        machine.check_alive()
        raise
    except TestFailure as failure:
        machine.qmp("query-status")
        return str(failure)
    raise TestFailure(f"{command} of {tag} in {name} succeeds")


def goes_on(machine):
    """The guest of a snapshot that was loaded, QEMU's own forgetfulness aside."""
    machine.qmp("stop")
    loaded.mend(machine.program.series, machine.process.pid, machine.guest.smp)
    machine.qmp("cont")
    machine.wait_ticks(2)


@case
def failed_savevm(fleet, series):
    """A savevm that fails in the table spoils nothing: the snapshot before it is loaded, and the guest goes on."""
    machine = fleet.start(series, **in_a_file(fleet.path("ram")))
    for name, add in (("snap", add_image), ("full", add_failing_image)):
        path = fleet.path(name)
        create_image(machine, path)
        add(machine, path, name)
    snapshot(machine, "snapshot-save", "first")
    machine.set_capability("x-ignore-shared")
    error = fails(machine, "snapshot-save", "second", "full")
    if machine.rust and not machine.query()["save-total"]["records"]:
        raise TestFailure(f"it did not fail in the table: {error}")
    machine.set_capability("x-ignore-shared", False)
    machine.wait_ticks(1)
    snapshot(machine, "snapshot-load", "first")
    goes_on(machine)
    fleet.note(failed="savevm", error=error)


def set_order(path, order):
    """Has a snapshot say that its table is of another order."""
    with open(path, "r+b") as image:
        found = re.search(b"\\x%02x....%b.{8}" % (START, re.escape(NAME)), image.read(), re.S)
        if not found:
            raise TestFailure("the image has no section spapr/htab in one piece")
        image.seek(found.end())
        image.write(order.to_bytes(OPENING_BYTES, "big"))


@case
def snapshot_of_too_large_a_table(fleet, series):
    """Its size is refused with both figures and no signal when it is loaded; another snapshot is loaded after that."""
    machine = fleet.start(series, memory=SMALL)
    good, bad = fleet.path("good"), fleet.path("bad")
    create_image(machine, good)
    add_image(machine, good, "good")
    snapshot(machine, "snapshot-save", "first", "good")
    machine.qmp("blockdev-del", node_name="good")
    shutil.copy(good, bad)
    set_order(bad, 36)
    for path in (good, bad):
        add_image(machine, path, os.path.basename(path))
    fails(machine, "snapshot-load", "first", "bad")
    said = machine.said()
    check_figures(said, 36)
    snapshot(machine, "snapshot-load", "first", "good")
    goes_on(machine)
    fleet.note(refused="snapshot-load", said=said)


@case
def background_snapshot(fleet, series):
    """Of a guest with a hash table it is refused in words, as it would be corrupt; of a radix guest it is made."""
    path = fleet.path("background")
    for mmu, cpu in (("Hash", "POWER8"), ("Radix", "POWER9")):
        machine = fleet.start(series, mmu=mmu, cpu=cpu)
        machine.set_capability("background-snapshot")
        machine.start_migration(f"exec:cat >{path}")
        if mmu == "Radix":
            machine.wait_migration("completed")
        else:
            error = machine.wait_migration("failed").get("error-desc", "")
            if not re.search("hash(ed page)? table", error):
                raise TestFailure(f"the reason is {error!r}")
            if os.stat(path).st_size > 1 << 16:
                raise TestFailure(f"{os.stat(path).st_size} bytes were written before it was refused")
            fleet.note(refused="background-snapshot", error=error)
        machine.wait_ticks(2)
        fleet.drop(machine)
