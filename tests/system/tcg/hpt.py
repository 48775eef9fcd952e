# SPDX-License-Identifier: GPL-2.0-or-later
"""The hash table in a QEMU process's memory: read through gdb, compared entry by entry."""

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass, field

VALID = 0x01
DIRTY = 0x40  # QEMU's own mark, not the guest's
R, C = 0x100, 0x80
R_AND_C = R | C
ENTRY = 16

CACHES = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
INDEX = os.path.join(os.environ.get("SPAPR_HTAB_CACHE") or os.path.join(CACHES, "spapr-htab"), "gdb-index")
MACHINE = "((struct SpaprMachineState *)current_machine)"


def gdb(pid, script):
    """Runs a script of gdb's on a process; what it prints."""
    with tempfile.NamedTemporaryFile("w", suffix=".gdb") as commands:
        commands.write("\n".join(script) + "\n")
        commands.flush()
        command = ["gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off", "-iex", "set auto-load no"]
        # QEMU's symbols take ten times as long to read as the table; gdb keeps an index of them.
        command += ["-iex", f"set index-cache directory {INDEX}", "-iex", "set index-cache enabled on"]
        command += ["-p", str(pid), "-x", commands.name]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180, check=False
        )
    return done.stdout + done.stderr


def read(pid):
    """The table of a QEMU process, which gdb stops for the time; b"" if it has none."""
    with tempfile.NamedTemporaryFile() as file:
        said = gdb(
            pid,
            [
                f"set $m = {MACHINE}",
                'printf "order %u\\n", $m->htab_shift',
                "if $m->htab != 0",
                f"dump binary memory {file.name} $m->htab ((char *)$m->htab + (1ULL << $m->htab_shift))",
                "end",
            ],
        )
        orders = [line for line in said.splitlines() if line.startswith("order ")]
        if not orders:
            raise RuntimeError(f"gdb could not read the table: {said[-800:]}")
        order = int(orders[0].split()[1])
        size = os.stat(file.name).st_size
        if size != (1 << order if order else 0):
            raise RuntimeError(f"gdb read {size} bytes of a table of order {order}")
        with open(file.name, "rb") as table:
            return table.read()


def set_change_bit(pid):
    """Has QEMU set the change bit of a valid entry that has none, as TCG does for the guest's first store; the slot."""
    table = read(pid)
    for at in range(0, len(table), ENTRY):
        low = int.from_bytes(table[at + 8 : at + ENTRY], "big")
        if table[at + 7] & VALID and not low & C:
            slot = at // ENTRY
            break
    else:
        raise RuntimeError("all entries have their change bit set")
    said = gdb(
        pid,
        [
            f"set $m = {MACHINE}",
            f"call (void)spapr_hpte_set_c((PPCVirtualHypervisor *)$m, {slot}, {low})",
            f'printf "now %llx\\n", *(unsigned long long *)((char *)$m->htab + {at + 8})',
        ],
    )
    now = re.search(r"^now ([0-9a-f]+)$", said, re.M)
    if not now or not int.from_bytes(int(now.group(1), 16).to_bytes(8, "little"), "big") & C:
        raise RuntimeError(f"gdb did not set the change bit: {said[-800:]}")
    return slot


@dataclass
class Difference:
    """What a destination's table has otherwise than the source's."""

    valid: int = 0
    lost: list = field(default_factory=list)
    extra: list = field(default_factory=list)
    other: list = field(default_factory=list)
    r_and_c: list = field(default_factory=list)  # differ in the reference and change bits only
    sizes: tuple = ()

    def same(self):
        return not (self.lost or self.extra or self.other or self.r_and_c or self.sizes)

    def __str__(self):
        if self.sizes:
            return f"{self.sizes[0]} and {self.sizes[1]} bytes"
        return (
            f"{self.valid} valid; {len(self.lost)} lost, {len(self.extra)} extra, {len(self.other)} different,"
            f" {len(self.r_and_c)} in R and C only"
        )


def entries(table):
    """{slot: entry} of a table's valid entries, without QEMU's mark."""
    # Doublewords are big-endian: the flags are in the eighth byte.
    return {
        at // ENTRY: int.from_bytes(table[at : at + ENTRY], "big") & ~(DIRTY << 64)
        for at in range(0, len(table), ENTRY)
        if table[at + 7] & VALID
    }


def packed(table, order):
    """As it would be in memory, of {slot: entry}."""
    found = bytearray(1 << order)
    for slot, entry in table.items():
        found[slot * ENTRY : (slot + 1) * ENTRY] = entry.to_bytes(ENTRY, "big")
    return bytes(found)


def compare(source, destination):
    """Two tables, as they are in memory or as {slot: entry}. An entry without its valid bit is no entry."""
    found = Difference()
    if isinstance(source, bytes):
        if len(source) != len(destination):
            found.sizes = (len(source), len(destination))
            return found
        source, destination = entries(source), entries(destination)
    found.valid = len(source)
    for slot in sorted(source.keys() | destination.keys()):
        ours, theirs = source.get(slot), destination.get(slot)
        if theirs is None:
            found.lost.append(slot)
        elif ours is None:
            found.extra.append(slot)
        elif (ours ^ theirs) & ~R_AND_C:
            found.other.append(slot)
        elif ours != theirs:
            found.r_and_c.append(slot)
    return found
