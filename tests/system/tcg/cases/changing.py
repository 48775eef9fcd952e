# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables that are replaced while they move, and a stop that waits for them."""

import re

import hpt
from cases.slowly import BUSY, SLOW, begin_slowly, calmed, end_quickly, passes, ready_for, wait_for, wait_for_round
from failures import TestFailure, wait_until
from runner import case

RESIZABLE = "pseries,resize-hpt=enabled"


def reboot(machine):
    """Reboots the guest in the middle of a migration."""
    machine.wait_migration("active")
    ups = machine.console().count(b"MMU")
    machine.type("reboot -f")
    wait_for(machine, "the reboot", lambda: machine.console().count(b"MMU") > ups)


@case
def reboot_during(fleet, series):
    """The guest reboots while it is migrated: the new table, all of it, arrives."""
    machine = fleet.start(series)
    # The firmware changes so little memory that only a very slow stream does not keep up with it.
    destination = begin_slowly(fleet, machine, bandwidth=1 << 20)
    reboot(machine)
    end_quickly(machine)
    fleet.finish(machine, destination)


def reboot_into(fleet, machine, program, mmu, append):
    """Reboots into that MMU in the middle of a migration; returns the destination, held, and query-migrate."""
    destination = begin_slowly(fleet, machine, program, 1 << 20)
    # What the firmware hands to the kernel at its next start.
    machine.qmp("qom-set", path="/machine", property="append", value=f"console=hvc0 quiet {append}".strip())
    reboot(machine)
    machine.wait_console(b"MMU[^M]*" + mmu.encode() + b"[^M]*$", 10)
    if mmu == "Hash":
        # A size that is new at the stop cannot be sent: the migration would fail.
        machine.qmp("migrate-set-parameters", max_bandwidth=1 << 34)
        wait_for(machine, "the new size", lambda: machine.query()["save-order"])
    end_quickly(machine)
    info = fleet.arrival(machine, destination)
    if mmu == "Radix" and (machine.hpt() or destination.hpt()):
        raise TestFailure("a radix guest has a hash table")
    return destination, info


@case
def from_hash_to_radix(fleet, series):
    """The guest reboots into the other kind of MMU while it is migrated, there and back."""
    patched, unpatched = fleet.program(series), fleet.program(series, False)
    machine = fleet.start(series, cpu="POWER9", append="disable_radix")
    for program, mmu, append in ((patched, "Radix", ""), (patched, "Hash", "disable_radix"), (unpatched, "Radix", "")):
        destination, info = reboot_into(fleet, machine, program, mmu, append)
        if mmu == "Hash":
            machine = fleet.finish(machine, destination)
            continue
        destination.go_on(machine)
        destination.wait_ticks(2)
        fleet.note(rebooted_to=mmu, source=machine.kind(), to=destination.kind(), downtime_ms=info["downtime"])
        fleet.drop(machine)
        machine = destination


def resize(machine, order):
    machine.type(f"echo {order} >/sys/kernel/debug/powerpc/hpt_order; cat /sys/kernel/debug/powerpc/hpt_order")


def resize_in_mid_migration(fleet, machine, program, change):
    """Resizes the table by so many orders; returns the destination, running, and the new order."""
    destination = begin_slowly(fleet, machine, program)
    wait_for(machine, "the table's size", lambda: machine.query()["save-order"])
    before = machine.query()["save-order"]
    order = before + change
    resize(machine, order)
    wait_for(machine, "the resize", lambda: machine.query()["save-order"] == order)
    end_quickly(machine)
    machine = fleet.finish(machine, destination)
    fleet.note(resized=f"{before} to {order}")
    return machine, order


def resize_in_migrations(fleet, series):
    """The guest makes its table larger while it is migrated, then smaller; returns the order at both ends."""
    machine = fleet.start(series, machine=RESIZABLE)
    machine, larger = resize_in_mid_migration(fleet, machine, machine.program, 1)
    _, order = resize_in_mid_migration(fleet, machine, fleet.program(series, False), -1)
    if order != larger - 1:
        raise TestFailure(f"the table arrived with order {order + 1}, not {larger}")
    return order


@case
def resize_during(fleet, series):
    """The guest resizes its table while it is migrated. QEMU's own code never sends the new size and fails."""
    order = resize_in_migrations(fleet, series)
    own = fleet.start(series, rust=False, machine=RESIZABLE)
    destination = begin_slowly(fleet, own, rust=False)
    wait_for_round(own, 2)
    resize(own, order + 1)
    end_quickly(own)
    own.wait_migration("failed")
    said = re.findall(r"htab_load\(\).*", destination.said())
    if not said:
        raise TestFailure(f"QEMU's own code failed otherwise than was seen before: {destination.said()}")
    fleet.note(own_code="off", said=said[0])


@case
def pending_holds_the_stop(fleet, series):
    """16 MiB/s and a downtime limit that the first pass does not fit: the stop waits until it is over."""
    machine = fleet.start(series)
    machine.type("killall -STOP work")
    destination = fleet.destination(machine)
    machine.start_migration(destination.incoming, bandwidth=16 << 20, downtime_ms=10)
    fleet.arrival(machine, destination)
    stats = machine.query()
    most = (16 << 20) * 10 // 1000
    if stats["save-passes"][0]["bytes"] <= most:
        raise TestFailure(f"the first pass had {stats['save-passes'][0]} only, which fits the limit")
    if stats["save-stopped"]["bytes"] > most:
        raise TestFailure(f"more than the limit of {most} bytes was left for the stop: {stats['save-stopped']}")
    fleet.finish(machine, destination, wake="killall -CONT work")
    fleet.note(first_pass=stats["save-passes"][0]["bytes"], stopped=stats["save-stopped"]["bytes"])


@case
def many_rounds(fleet, series):
    """So little bandwidth that the first pass takes many rounds, while the guest works."""
    # More entries than in other cases: a round has room for some 64 KiB at least.
    machine = fleet.start(series, memory="4G")
    if series == "7.2":
        # There the table waits until RAM has nothing left to send.
        machine.type("killall -STOP work")
    destination = begin_slowly(fleet, machine, bandwidth=2 << 20)
    wait_for(machine, "the end of the first pass", lambda: len(passes(machine)) >= 2)
    first = destination.query()["load-sections"]
    if first < 8:
        raise TestFailure(f"the first pass took {first} sections only")
    end_quickly(machine)
    fleet.finish(machine, destination, wake="killall -CONT work" if series == "7.2" else "")
    fleet.note(first_pass_sections=first)


@case
def postcopy(fleet, series):
    """The switchover in the first pass, and after it."""
    postcopies(fleet, fleet.start(series))


def postcopies(fleet, machine):
    for what, enough in (("setup", lambda: True), ("a later pass", lambda: len(passes(machine)) >= 2)):
        bandwidth = SLOW if what == "setup" else calmed(machine)
        destination = ready_for(fleet, machine, "postcopy-ram")
        machine.start_migration(destination.incoming, bandwidth=bandwidth, downtime_ms=1)
        machine.wait_migration("active")
        wait_for(machine, what, enough)
        machine.qmp("migrate-start-postcopy")
        fleet.arrival(machine, destination)
        number = len(passes(machine))
        machine = fleet.finish(machine, destination, wake="" if bandwidth == SLOW else BUSY)
        fleet.note(postcopy=what, passes=number)
        machine.set_capability("postcopy-ram", False)
    return machine


# At 0x100, where a pseries machine begins: H_RESIZE_HPT_COMMIT of order 20, which was not prepared, again and again.
# Leaves the last answer at 0x1008 and how many there were at 0x1000.
RESIZES_IN_VAIN = (
    *(0x39C00000, 0x38600370, 0x38800000, 0x38A00014),  # li r14,0; li r3,H_RESIZE_HPT_COMMIT; li r4,0; li r5,20
    *(0x44000022, 0xF8601008, 0x39CE0001, 0xF9C01000),  # sc 1; std r3,0x1008(0); addi r14,r14,1; std r14,0x1000(0)
    0x4BFFFFE4,  # b to the second
)


def answers(machine):
    """How many the firmware has had, and the last one."""
    return [int(word, 16) for word in re.findall(r"0x[0-9a-f]+", machine.qmp.hmp("xp /2xg 0x1000"))]


@case
def resizes_in_vain(fleet, series):
    """A guest that asks for resizes which fail, as fast as it can, does not keep its migration from ending."""
    path = fleet.path("firmware")
    with open(path, "wb") as firmware:
        firmware.write(bytes(0x100) + b"".join(word.to_bytes(4, "big") for word in RESIZES_IN_VAIN))
    # So old a processor begins with a hash table on any host.
    guest = fleet.guest(machine=f"{RESIZABLE},max-cpu-compat=power8", extra=("-bios", path))
    machine = fleet.machine(fleet.program(series), guest)
    wait_until(lambda: answers(machine)[0] > 100, 60, lambda: f"no answers: {answers(machine)}")
    destination = fleet.destination(machine)
    # A first pass that begins again with each of them never fits these limits.
    machine.start_migration(destination.incoming, downtime_ms=30, bandwidth=16 << 20)
    machine.wait_migration("completed", seconds=120)
    destination.wait_status("paused")
    number, last = answers(machine)
    if not last or answers(destination) != [number, last]:
        raise TestFailure(f"{number} answers, the last one {last}, and then {answers(destination)}")
    if not hpt.compare(machine.hpt(), destination.hpt()).same():
        raise TestFailure("the tables differ")
    fleet.check_sums(machine, destination)
    fleet.note(resizes=number, passes=len(passes(machine)))
