# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables that are replaced while they move, and a stop that waits for them."""

import re

from cases.registry import case
from cases.slowly import BUSY, CALM, CALM_RATE, SLOW, begin_slowly, end_quickly, passes, wait_for
from machine import TestFailure


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


def reboot_into(lab, machine, program, mmu, append):
    """The guest reboots into that MMU in the middle of a migration; the destination, held, and what came of it."""
    destination = begin_slowly(lab, machine, program, 1 << 20)
    wait_for(machine, "the migration", lambda: machine.migration()["status"] == "active")
    # What the firmware tells the kernel at its next start.
    machine.qmp("qom-set", path="/machine", property="append", value=f"console=hvc0 quiet {append}".strip())
    ups = machine.console().count(b"MMU")
    machine.type("reboot -f")
    wait_for(machine, "the reboot", lambda: machine.console().count(b"MMU") > ups)
    machine.wait_console(b"MMU[^M]*" + mmu.encode() + b"[^M]*$", 10)
    if mmu == "Hash":
        # The size of a table that the destination has not heard of at the stop cannot be sent: the migration would fail.
        machine.qmp("migrate-set-parameters", max_bandwidth=1 << 34)
        wait_for(machine, "the new size", lambda: machine.query()["save-order"])
    end_quickly(machine)
    info = machine.wait_migration("completed")
    destination.wait_status("paused")
    if mmu == "Radix" and (machine.hpt() or destination.hpt()):
        raise TestFailure("a radix guest has a hash table")
    return destination, info


@case
def from_hash_to_radix(lab, series):
    """The guest reboots into the other kind of MMU while it is migrated, there and back."""
    patched, unpatched = lab.program(series), lab.program(series, False)
    machine = lab.boot(patched, lab.guest(cpu="POWER9", append="disable_radix"))
    for program, mmu, append in ((patched, "Radix", ""), (patched, "Hash", "disable_radix"), (unpatched, "Radix", "")):
        destination, info = reboot_into(lab, machine, program, mmu, append)
        if mmu == "Hash":
            machine = lab.finish(machine, destination, info)
            continue
        destination.go_on(machine)
        destination.wait_ticks(2)
        lab.note(rebooted_to=mmu, source=machine.kind(), to=destination.kind(), downtime_ms=info["downtime"])
        lab.drop(machine)
        machine = destination


def resize(machine, order):
    machine.type(f"echo {order} >/sys/kernel/debug/powerpc/hpt_order; cat /sys/kernel/debug/powerpc/hpt_order")


def resize_in_mid_migration(lab, machine, program, change):
    """To a table so many orders larger; the destination, running, and the new order."""
    destination = begin_slowly(lab, machine, program)
    wait_for(machine, "the table's size", lambda: machine.query()["save-order"])
    before = machine.query()["save-order"]
    order = before + change
    resize(machine, order)
    wait_for(machine, "the resize", lambda: machine.query()["save-order"] == order)
    end_quickly(machine)
    info = machine.wait_migration("completed")
    machine = lab.finish(machine, destination, info)
    lab.note(resized=f"{before} to {order}")
    return machine, order


def resize_in_migrations(lab, guest, patched, unpatched):
    """The guest makes its table larger while it is migrated, and smaller again; the order it began and ends with."""
    machine, larger = resize_in_mid_migration(lab, lab.boot(patched, guest), patched, 1)
    _, order = resize_in_mid_migration(lab, machine, unpatched, -1)
    if order != larger - 1:
        raise TestFailure(f"the table arrived with order {order + 1}, not {larger}")
    return order


@case
def resize_during(lab, series):
    """The guest resizes its table while it is migrated. QEMU's own code never sends the new size and fails."""
    patched, unpatched = lab.program(series), lab.program(series, False)
    guest = lab.guest(machine="pseries,resize-hpt=enabled")
    order = resize_in_migrations(lab, guest, patched, unpatched)
    own = lab.boot(patched, guest, rust=False)
    destination = begin_slowly(lab, own, patched, rust=False)
    wait_for(own, "a second round", lambda: own.migration().get("ram", {}).get("dirty-sync-count", 0) >= 2)
    resize(own, order + 1)
    end_quickly(own)
    own.wait_migration("failed")
    said = re.findall(r"htab_load\(\).*", destination.said())
    if not said:
        raise TestFailure(f"QEMU's own code failed otherwise than was seen before: {destination.said()}")
    lab.note(own_code="off", said=said[0])


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
    destination.go_on(machine)
    destination.type("killall -CONT work")
    destination.wait_ticks(2)
    lab.note(first_pass=stats["save-passes"][0]["bytes"], stopped=stats["save-stopped"]["bytes"], downtime_ms=info["downtime"])


@case
def many_rounds(lab, series):
    """So little bandwidth that the first pass takes many rounds, while the guest works."""
    patched = lab.program(series)
    # More entries than in other cases: a round has room for some 64 KiB at least.
    machine = lab.boot(patched, lab.guest(memory="4G"))
    if series == "7.2":
        # There the table waits until RAM has nothing left to send.
        machine.type("killall -STOP work")
    destination = begin_slowly(lab, machine, patched, 2 << 20)
    wait_for(machine, "the end of the first pass", lambda: len(passes(machine)) >= 2)
    first = destination.query()["load-sections"]
    if first < 8:
        raise TestFailure(f"the first pass took {first} sections only")
    end_quickly(machine)
    info = machine.wait_migration("completed")
    lab.finish(machine, destination, info, wake="killall -CONT work" if series == "7.2" else "")
    lab.note(first_pass_sections=first)


def ready_for_postcopy(lab, machine):
    """A new process that waits for a migration's address, with the capability on both sides."""
    destination = lab.machine(machine.program, machine.guest, defer=True)
    for each in (machine, destination):
        each.qmp("migrate-set-capabilities", capabilities=[{"capability": "postcopy-ram", "state": True}])
    destination.qmp("migrate-incoming", uri=destination.incoming)
    return destination


@case
def postcopy(lab, series):
    """The switchover in the first pass, and after it."""
    postcopies(lab, lab.boot(lab.program(series), lab.guest()), series)


def postcopies(lab, machine, series):
    for what, enough in (("setup", lambda: True), ("a later pass", lambda: len(passes(machine)) >= 2)):
        calm = series == "7.2" and what != "setup"
        if calm:
            machine.type(CALM)
        destination = ready_for_postcopy(lab, machine)
        machine.start_migration(destination.incoming, bandwidth=CALM_RATE if calm else SLOW, downtime_ms=1)
        wait_for(machine, "the migration", lambda: machine.migration()["status"] == "active")
        wait_for(machine, what, enough)
        machine.qmp("migrate-start-postcopy")
        info = machine.wait_migration("completed")
        told = len(passes(machine))
        machine = lab.finish(machine, destination, info, wake=BUSY if calm else "")
        lab.note(postcopy=what, passes=told)
        machine.qmp("migrate-set-capabilities", capabilities=[{"capability": "postcopy-ram", "state": False}])
    return machine
