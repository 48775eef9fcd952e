# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab of tests/guest, inside the KVM host."""

import json
import os

import kernel
from lab import Lab
from machine import Guest, Machine, Program, TestFailure

# What a host kernel on emulated hardware does not have.
CAPABILITIES = "cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off"


class KvmMachine(Machine):
    def hpt(self):
        return kernel.read(self.process.pid)


class KvmLab(Lab):
    machine_class = KvmMachine

    def program(self, series, patched=True):
        program = Program(series, patched, "")
        path = f"/qemu/{program}/qemu-system-ppc64"
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
            append=append,
            **options,
        )

    def note(self, **row):
        super().note(**row)
        print("@row " + json.dumps(row), flush=True)
