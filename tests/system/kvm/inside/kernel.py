# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's table of a QEMU process with KVM, from debugfs: reading that takes no change from anybody."""

import glob

from hpt import R_AND_C, VALID

V_ABSENT = 0x20
V_LOCKED = 0x40
# The kernel's own mark in the guest's second doubleword.
GR_MODIFIED = 1 << 62
# ISA 3.0 hardware has the segment size in the second doubleword, not at the top of the first one.
V_WITHOUT_SIZE = (1 << 52) - 1
SIZE_IN_V, SIZE_IN_R = 62, 58


def _entry(v, hardware, guest):
    """As the guest would read it."""
    # What the hardware has set since the kernel looked last; an absent entry is not the hardware's.
    harvest = hardware & R_AND_C if v & VALID else 0
    v = v & V_WITHOUT_SIZE & ~(V_ABSENT | V_LOCKED) | (hardware >> SIZE_IN_R & 3) << SIZE_IN_V | VALID
    return v << 64 | (guest | harvest) & ~GR_MODIFIED


def read(pid):
    """{slot: entry} of the process's one VM; empty if it has no table."""
    paths = glob.glob(f"/sys/kernel/debug/kvm/{pid}-*/htab")
    if len(paths) != 1:
        raise RuntimeError(f"process {pid} has {len(paths)} VMs")
    table = {}
    with open(paths[0], encoding="ascii") as file:
        for line in file:
            slot, *words = (int(word, 16) for word in line.split())
            table[slot] = _entry(*words)
    return table
