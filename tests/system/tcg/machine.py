# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU process with a pseries guest, as the tests start, watch and migrate it."""

import ctypes
import os
import re
import signal
import socket
import subprocess
import time
from dataclasses import dataclass

import hpt
import loaded
from failures import GuestFailure, QmpError, TestFailure, wait_until
from qmp import Qmp

TICK = re.compile(rb"tick (\d+) forks (\d+) checks (\d+) bad (\d+)")
# What a guest's console must never say.
TROUBLE = re.compile(
    rb"Oops|BUG:|Kernel panic|Call Trace|segfault|unhandled signal|Bad page|BAD |rcu.*stall|Machine check|SError"
)
# What sanitizers report, and a panic of the library's.
REPORT = re.compile(r"Sanitizer|runtime error|panicked|a bug in spapr-htab")
# What QEMU and ASan print that is neither trouble nor a reason.
CHATTER = ("TCG doesn't support requested feature", "WARNING: AddressSanitizer failed to allocate")


def _die_with_parent():
    # Even a run that is killed must not leave emulators behind.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


@dataclass(frozen=True)
class Program:
    """One of the programs that scripts/qemu makes."""

    series: str
    patched: bool
    path: str

    def __str__(self):
        return self.series + ("" if self.patched else ",unpatched")


@dataclass(frozen=True)
class Guest:
    """What the guest is; the same on both sides of a migration."""

    kernel: str
    initrd: str
    machine: str = "pseries"
    accel: str = "tcg,thread=multi"
    cpu: str = "POWER8"
    memory: str = "1G"
    smp: int = 1
    append: str = ""
    extra: tuple = ()


class Machine:
    count = 0

    def __init__(self, program, guest, folder, rust=True, incoming=None, defer=False, extra=()):
        Machine.count += 1
        self.program, self.guest, self.folder = program, guest, folder
        self.rust = rust and program.patched
        self.name = f"m{Machine.count}"
        base = os.path.join(folder, self.name)
        self.console_path, self.console_socket = base + ".console", base + ".hvc"
        self.incoming = f"unix:{base}.migration"
        self.said_path = base + ".said"
        options = guest.machine
        if program.patched and not rust:
            options += ",x-rust-htab=off"
        command = [program.path, "-L", "/usr/share/qemu", "-M", options, "-cpu", guest.cpu]
        command += ["-accel", guest.accel, "-m", guest.memory, "-smp", str(guest.smp)]
        command += ["-nodefaults", "-display", "none", "-vga", "none", "-no-shutdown"]
        command += ["-chardev", f"socket,id=con,path={self.console_socket},server=on,wait=off,logfile={self.console_path}"]
        command += ["-device", "spapr-vty,chardev=con", "-qmp", f"unix:{base}.qmp,server=on,wait=off"]
        command += ["-kernel", guest.kernel, "-initrd", guest.initrd]
        command += ["-append", f"console=hvc0 quiet {guest.append}".strip()]
        command += list(guest.extra) + list(extra)
        if incoming or defer:
            # Held, so that the tables can be compared before the guest goes on.
            command += ["-S", "-incoming", "defer" if defer else (self.incoming if incoming is True else incoming)]
        with open(self.said_path, "wb") as said:
            # pylint: disable=consider-using-with,subprocess-popen-preexec-fn
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, preexec_fn=_die_with_parent
            )
        try:
            self.qmp = Qmp(base + ".qmp")
        except QmpError as error:
            raise TestFailure(f"{program} did not start: {self.said()}") from error

    def said(self):
        """What QEMU itself printed that matters."""
        with open(self.said_path, encoding="utf-8", errors="replace") as file:
            return "".join(line for line in file if not any(each in line for each in CHATTER)).strip()

    def kind(self):
        """The program, and ",off" if it uses QEMU's own code for the table."""
        return str(self.program) + (",off" if self.program.patched and not self.rust else "")

    def console(self):
        try:
            with open(self.console_path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return b""

    def ticks(self):
        """(tick, forks, checks, bad) of the guest's last whole line of the kind."""
        found = TICK.findall(self.console())
        return tuple(int(number) for number in found[-1]) if found else (0, 0, 0, 0)

    def wait_console(self, pattern, seconds=120):
        def seen():
            self.check_alive()
            return re.search(pattern, self.console())

        wait_until(seen, seconds, lambda: f"{self.name}: no {pattern!r}: {self.console()[-300:]!r}", 0.05)

    def check_alive(self):
        if self.process.poll() is not None:
            raise TestFailure(f"{self.program} ended with {self.process.returncode}: {self.said()[-500:]}")

    def check_reports(self):
        report = REPORT.search(self.said())
        if report:
            raise TestFailure(f"{self.program} reports: {self.said()[max(0, report.start() - 300):report.start() + 2000]}")

    def check_guest(self):
        self.check_alive()
        trouble = TROUBLE.search(self.console())
        if trouble:
            at = trouble.start()
            raise GuestFailure(f"the guest's console: {self.console()[max(0, at - 700):at + 300]!r}")
        if self.ticks()[3]:
            raise GuestFailure(f"the guest found {self.ticks()[3]} wrong words in its memory")

    def wait_ticks(self, more=2, seconds=60):
        """Waits until the guest has counted on and forked meanwhile."""
        first = None
        deadline = time.monotonic() + seconds
        while True:
            self.check_guest()
            now = self.ticks()
            if now[0] and first is None:
                first = now
            if first and now[0] >= first[0] + more and now[1] > first[1] and now[2] > first[2]:
                return
            if time.monotonic() > deadline:
                raise GuestFailure(f"the guest stands still: {first} and then {now}")
            time.sleep(0.05)

    def watch(self, seconds):
        """Looks on for a while: some trouble is reported late."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check_guest()
            time.sleep(0.2)
        if seconds:
            self.wait_ticks(1)

    def type(self, line):
        """A command for the guest's shell."""
        with socket.socket(socket.AF_UNIX) as console:
            console.settimeout(10)
            console.connect(self.console_socket)
            console.sendall(line.encode() + b"\n")
            # The guest's driver asks for input as it pleases; a line that is cut off is lost.
            time.sleep(2)

    def hpt(self):
        return hpt.read(self.process.pid)

    def go_on(self, source):
        """Lets a guest go on that was loaded here and is held on both sides; how many pages of RAM had been lost."""
        lost, zeros = loaded.copy_lost_ram(source.process.pid, self.process.pid)
        unexplained = lost - zeros if source.has("multifd") else lost
        if unexplained and source.program.series not in loaded.LOSE_RAM:
            raise TestFailure(f"{unexplained} pages of RAM differ")
        loaded.mend(self.program.series, self.process.pid, self.guest.smp)
        self.qmp("cont")
        return lost

    def processors(self):
        return loaded.look(self.program.series, self.process.pid)

    def query(self):
        """x-query-spapr-htab."""
        return self.qmp("x-query-spapr-htab")

    def set_capability(self, name, state=True):
        self.qmp("migrate-set-capabilities", capabilities=[{"capability": name, "state": state}])

    def start_migration(self, uri, downtime_ms=300, bandwidth=0):
        # The default of 128 MiB/s would make every case's length a matter of the guest's memory.
        self.qmp("migrate-set-parameters", max_bandwidth=bandwidth or 1 << 34, downtime_limit=downtime_ms)
        self.qmp("migrate", uri=uri)

    def has(self, capability):
        """Whether migrations from here are to use it."""
        return {each["capability"]: each["state"] for each in self.qmp("query-migrate-capabilities")}[capability]

    def migration(self):
        return self.qmp("query-migrate")

    def wait_migration(self, *states, seconds=180):
        """Waits for one of the states; returns what query-migrate says then."""

        def info():
            found = self.migration()
            if found.get("status") in states:
                return found
            if found.get("status") in ("completed", "failed", "cancelled"):
                raise TestFailure(f"the migration ended as {found['status']}: {found.get('error-desc')}")
            return None

        return wait_until(info, seconds, lambda: f"the migration is not {states}: {self.migration()}", 0.01)

    def wait_status(self, status, seconds=60):
        def complaint():
            return f"{self.name} is {self.qmp('query-status')}, not {status}"

        wait_until(lambda: self.qmp("query-status")["status"] == status, seconds, complaint)

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.qmp.close()
