# SPDX-License-Identifier: GPL-2.0-or-later
"""QMP over a unix socket: as much of it as the tests need."""

import json
import socket
import time

from failures import QmpError


class Qmp:
    def __init__(self, path, timeout=30):
        deadline = time.monotonic() + timeout
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        while True:
            try:
                self.socket.connect(path)
                break
            except OSError:
                # QEMU makes the socket a moment after it started.
                if time.monotonic() > deadline:
                    raise QmpError(f"no QMP on {path}") from None
                time.sleep(0.02)
        self.events = []
        self.lines = self.socket.makefile("r", encoding="utf-8")
        self._read()
        self("qmp_capabilities")

    def _read(self):
        try:
            line = self.lines.readline()
        except OSError as error:
            raise QmpError(f"QMP: {error}") from None
        if not line:
            raise QmpError("QEMU has closed its monitor")
        return json.loads(line)

    def __call__(self, command, **arguments):
        """Runs a command; underscores in its arguments' names stand for dashes."""
        message = {"execute": command}
        if arguments:
            message["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            self.socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise QmpError(f"{command}: {error}") from None
        while True:
            answer = self._read()
            if "error" in answer:
                raise QmpError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
            self.events.append(answer)

    def event_time(self, name):
        """When the last event of that name was, as time.monotonic(), among those that answers brought along."""
        stamp = [event["timestamp"] for event in self.events if event["event"] == name][-1]
        return stamp["seconds"] + stamp["microseconds"] / 1e6 - time.time() + time.monotonic()

    def hmp(self, line):
        return self("human-monitor-command", command_line=line)

    def close(self):
        self.lines.close()
        self.socket.close()
