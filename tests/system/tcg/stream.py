# SPDX-License-Identifier: GPL-2.0-or-later
"""What went over the wire: a tap between two QEMUs, and the spapr/htab sections found in what it heard.

This shares no code with the library and asks neither side's statistics, so it also measures QEMU's own code.
"""

import contextlib
import re
import socket
import struct
import threading
from dataclasses import dataclass, field

from machine import TestFailure

# migration/savevm.h: how a section begins and how it ends.
START, PART, END, FOOTER = 0x01, 0x02, 0x03, 0x7E
NAME = b"\x0aspapr/htab"
RECORD = struct.Struct(">IHH")
NO_TABLE = 0xFFFFFFFF
ENTRY = 16


@dataclass
class Section:
    """One body of records."""

    last: bool  # QEMU sends it with the guest stopped
    bytes: int
    records: list = field(default_factory=list)  # (index, valid, invalid)

    def slots(self):
        return sum(valid + invalid for _, valid, invalid in self.records)


def body(data, at):
    """The records of the body at `at`, and where it ends; None if there is no such body."""
    if struct.unpack_from(">I", data, at)[0] != 0:
        return None
    at += 4
    records = []
    while at + RECORD.size <= len(data):
        index, valid, invalid = RECORD.unpack_from(data, at)
        at += RECORD.size
        if not valid and not invalid:
            return records, at
        records.append((index, valid, invalid))
        at += valid * ENTRY
    return None


def bodies(data):
    """The bodies of records in a stream of QEMU's, in order: whether it is the last, where it begins and ends, its records.

    RAM is not parsed, so what looks like the table's section could be a page's contents: it must stand behind another
    section's footer, be made of whole records and end in a footer of its own.
    """
    begin = re.search(b"\\x01(....)" + re.escape(NAME), data, re.S)
    if not begin:
        raise TestFailure("the stream has no section spapr/htab")
    footer = bytes([FOOTER]) + begin.group(1)
    for match in re.finditer(b"(?<=\\x7e....)([\\x02\\x03])" + re.escape(begin.group(1)), data, re.S):
        parsed = body(data, match.end())
        if parsed and data[parsed[1] : parsed[1] + len(footer)] == footer:
            records, end = parsed
            yield match.group(1)[0] == END, match.end(), end, records


def sections(data):
    """What the bodies are."""
    return [Section(last, end - at, records) for last, at, end, records in bodies(data)]


def passes(found):
    """Slots told in each sweep over the table: it is another one where the slots go back."""
    told, before = [], 0
    for section in found:
        for index, valid, invalid in section.records:
            if index < before or not told:
                told.append(0)
            told[-1] += valid + invalid
            before = index + valid + invalid
    return told


class Between(threading.Thread):
    """Stands between two QEMUs: takes a migration at a socket of its own, to hand it on to another."""

    def __init__(self, path, onward):
        super().__init__(daemon=True)
        self.onward = onward.removeprefix("unix:")
        self.uri = f"unix:{path}"
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(path)
        self.server.listen(1)
        self.start()


class Tap(Between):
    """Hands on all, and keeps it."""

    def __init__(self, path, onward):
        self.data = bytearray()
        super().__init__(path, onward)

    def run(self):
        source, _ = self.server.accept()
        # An end that goes takes the other along.
        with source, socket.socket(socket.AF_UNIX) as destination, contextlib.suppress(OSError):
            destination.connect(self.onward)
            while piece := source.recv(1 << 20):
                self.data += piece
                destination.sendall(piece)

    def end(self):
        """Waits for the migration's end."""
        self.join(30)
        self.server.close()

    def sections(self):
        """The table's bodies, after the migration's end."""
        self.end()
        return sections(bytes(self.data))

    def save(self, path):
        """All that was heard, after the migration's end, as a file of that name."""
        self.end()
        with open(path, "wb") as file:
            file.write(self.data)
