# SPDX-License-Identifier: GPL-2.0-or-later
"""The same fleet inside the KVM host."""

import json
import os

import kernel
from fleet import Fleet
from failures import TestFailure
from machine import Guest, Machine, Program

# What a host kernel on emulated hardware does not have.
CAPABILITIES = "cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off"


def print_result(result):
    """Only a console leads out; see kvm_host.py."""
    print("@json " + json.dumps(result), flush=True)


class KvmMachine(Machine):
    def hpt(self):
        return kernel.read(self.process.pid)

    def go_on(self, _source):
        """KVM forgets nothing that tests have to make up for; see tests/system/tcg/loaded.py."""
        self.qmp("cont")
        return 0


class KvmFleet(Fleet):
    machine_class = KvmMachine
    accel = "KVM-HV"
    tables_read = "from the kernel's debugfs"
    # An emulated host may send less than the guest writes.
    hurried_downtime_ms = 10000

    def __init__(self):
        super().__init__()
        self.spare = None

    def program(self, series, patched=True):
        program = Program(series, patched, "")
        path = f"/programs/{program}/qemu-system-ppc64"
        if not os.path.exists(path):
            raise TestFailure(f"{path} was not put into this machine")
        return Program(series, patched, path)

    def guest(self, machine="pseries", append="disable_radix", **options):
        """With a hash table unless `append` says otherwise."""
        options.setdefault("memory", "512M")
        return Guest(
            kernel="/guest/vmlinux",
            initrd="/guest/initramfs.gz",
            machine=f"{machine},x-vof=on,{CAPABILITIES}",
            accel="kvm",
            cpu="host",
            # Lines with times are the host's kernel's: a case may quote this guest's.
            append=f"printk.time=0 {append}".strip(),
            **options,
        )

    @property
    def guest_kernel(self):
        with open("/guest/release", encoding="ascii") as file:
            return file.read().strip()

    def order(self, machine, _table):
        return machine.query()["save-order"]

    def boot(self, program, guest, mmu="Hash", rust=True, **options):
        """Takes a guest that the case before has left, if it is of the same kind: a boot takes long."""
        spare, self.spare = self.spare, None
        if spare:
            wanted = (program, guest, rust and program.patched)
            if (spare.program, spare.guest, spare.rust) == wanted and not options:
                self.machines.append(spare)
                spare.wait_ticks(2)
                return spare
            spare.stop()
        return super().boot(program, guest, mmu=mmu, rust=rust, **options)

    def keep(self):
        super().keep()
        if len(self.machines) == 1 and self.machines[0].qmp("query-status")["status"] == "running":
            self.spare = self.machines.pop()

    def note(self, **row):
        super().note(**row)
        print_result({"kernel": os.uname().release} | self.rows[-1])
