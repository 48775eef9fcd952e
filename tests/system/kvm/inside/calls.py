# SPDX-License-Identifier: GPL-2.0-or-later
"""The system calls on the fds of tables, as the kernel's own tracing sees them.

Not strace: it stops the process at each call, each KVM_RUN among them, which makes a migration here take two minutes
and its reads another size.
"""

import os
import re
from dataclasses import dataclass

from failures import TestFailure

TRACING = "/sys/kernel/tracing"
# The function that opens such an fd, and what it returns.
PROBE = "r:htab/open kvm_hv:kvm_vm_ioctl_get_htab_fd fd=$retval:s64"
CALLS = ("read", "write", "writev")
# The library's thread, which reads the fd that another one of the source has opened.
READER = "spapr-htab-read"
# Thread's name and number, seconds, and what happened.
LINE = re.compile(r"^ *(\S.*)-(\d+) +\[\d+\] \S+ +([\d.]+): (.*)$")
OPENED = re.compile(r"open: \(.*\) fd=(-?\d+)")
ENTERED = re.compile(r"sys_(\w+)\(fd: (\w+)")
LEFT = re.compile(r"sys_(\w+) -> (0x\w+)")


@dataclass(frozen=True)
class Call:
    name: str
    end: float  # as time.monotonic()
    bytes: int


def _write(name, text):
    with open(os.path.join(TRACING, name), "w", encoding="ascii") as file:
        file.write(text)


class Tracing:
    """On while in the `with`, for the processes of some machines."""

    def __init__(self, *machines):
        self.pids = [machine.process.pid for machine in machines]

    def __enter__(self):
        _write("trace_clock", "mono")
        _write("buffer_size_kb", "16384")
        _write("kprobe_events", PROBE)
        # With the threads that are yet to be made.
        _write("options/event-fork", "1")
        _write("set_event_pid", " ".join(thread for pid in self.pids for thread in os.listdir(f"/proc/{pid}/task")))
        _write("trace", "")
        for name in CALLS:
            for end in ("enter", "exit"):
                _write(f"events/syscalls/sys_{end}_{name}/enable", "1")
        _write("events/htab/enable", "1")
        return self

    def __exit__(self, *_):
        _write("events/enable", "0")
        _write("kprobe_events", "")

    def calls(self):
        """Of each thread that opened such an fd, in that order, the calls on it. The source opens first."""
        opened, found, inside = {}, {}, set()
        with open(os.path.join(TRACING, "trace"), encoding="ascii", errors="replace") as file:
            for line in file:
                if "LOST" in line:
                    raise TestFailure("the kernel's trace has no room for all calls")
                line = LINE.match(line)
                if not line:
                    continue
                name, thread, when, what = line.groups()
                if name == READER and opened:
                    opened.setdefault(thread, opened[next(iter(found))])
                    found.setdefault(thread, found[next(iter(found))])
                if match := OPENED.match(what):
                    opened[thread] = int(match.group(1))
                    found.setdefault(thread, [])
                elif match := ENTERED.match(what):
                    if opened.get(thread) == int(match.group(2), 16):
                        inside.add(thread)
                elif (match := LEFT.match(what)) and thread in inside:
                    inside.remove(thread)
                    result = int(match.group(2), 16)
                    if result >> 63:
                        raise TestFailure(f"a call failed: {what}")
                    found[thread].append(Call(match.group(1), float(when), result))
        return list({id(calls): calls for calls in found.values()}.values())
