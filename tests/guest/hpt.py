# SPDX-License-Identifier: GPL-2.0-or-later
"""The hash table in a QEMU process's memory: read through gdb, compared entry by entry."""

import os
import subprocess
import tempfile
from dataclasses import dataclass, field

VALID = 0x01
DIRTY = 0x40  # QEMU's own mark, not the guest's
R_AND_C = 0x180
ENTRY = 16

TABLE = "((struct SpaprMachineState *)current_machine)"


def read(pid, program):
    """The table of a QEMU process, which gdb stops for the time; b"" if it has none."""
    with tempfile.NamedTemporaryFile() as file:
        script = [
            f"set $m = {TABLE}",
            'printf "order %u\\n", $m->htab_shift',
            "if $m->htab != 0",
            f"dump binary memory {file.name} $m->htab ((char *)$m->htab + (1ULL << $m->htab_shift))",
            "end",
        ]
        command = ["gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off", "-iex", "set auto-load no"]
        command += ["-p", str(pid)]
        for line in script:
            command += ["-ex", line]
        # An "if" needs its lines as a script.
        with tempfile.NamedTemporaryFile("w", suffix=".gdb") as commands:
            commands.write("\n".join(script) + "\n")
            commands.flush()
            command = command[: command.index("-p") + 2] + ["-x", commands.name]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180, check=False
            )
        orders = [line for line in done.stdout.splitlines() if line.startswith("order ")]
        if not orders:
            raise RuntimeError(f"gdb could not read the table of {program}: {done.stdout[-500:]}{done.stderr[-500:]}")
        order = int(orders[0].split()[1])
        size = os.stat(file.name).st_size
        if size not in (0, 1 << order if order else 0):
            raise RuntimeError(f"gdb read {size} bytes of a table of order {order}")
        with open(file.name, "rb") as table:
            return table.read()


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


def compare(source, destination):
    """Two tables. An entry without its valid bit is no entry, whatever else is in it."""
    found = Difference()
    if len(source) != len(destination):
        found.sizes = (len(source), len(destination))
        return found
    for at in range(0, len(source), ENTRY):
        # Doublewords are big-endian: the flags are in the eighth byte.
        here, there = source[at + 7] & VALID, destination[at + 7] & VALID
        found.valid += here
        if not here and not there:
            continue
        slot = at // ENTRY
        if not there:
            found.lost.append(slot)
        elif not here:
            found.extra.append(slot)
        elif source[at : at + ENTRY] != destination[at : at + ENTRY]:
            ours = int.from_bytes(source[at : at + ENTRY], "big") & ~(DIRTY << 64)
            theirs = int.from_bytes(destination[at : at + ENTRY], "big") & ~(DIRTY << 64)
            if ours == theirs:
                continue
            if (ours ^ theirs) & ~R_AND_C:
                found.other.append(slot)
            else:
                found.r_and_c.append(slot)
    return found
