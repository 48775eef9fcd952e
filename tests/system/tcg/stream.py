# SPDX-License-Identifier: GPL-2.0-or-later
"""The spapr/htab sections of a stream of QEMU's, and what stands between two QEMUs to look at one.

This shares no code with the library and asks neither side's statistics, so it also measures QEMU's own code.
"""

import contextlib
import re
import socket
import struct
import threading
from dataclasses import dataclass
from typing import NamedTuple

from failures import TestFailure

# migration/savevm.h: how a section begins and how it ends.
START, PART, END, FOOTER = 0x01, 0x02, 0x03, 0x7E
NAME = b"\x0aspapr/htab"
RECORD = struct.Struct(">IHH")
NO_TABLE = 0xFFFFFFFF
LARGEST_ORDER = 46
ENTRY = 16

# The parts of a migration that a piece can be in.
SIZE, FIRST, LATER, STOP = "size", "first pass", "later pass", "stop"
# What a body is made of: what it begins with, records' headers and entries, and the record that closes it.
OPENING, HEADER, ENTRIES, CLOSING = "opening", "header", "entries", "closing"
OPENING_BYTES = 4
# What a body is known to begin behind takes fewer bytes.
LONGEST_BEGINNING = 32


class Record(NamedTuple):
    index: int
    valid: int
    invalid: int
    at: int  # in the stream, of its entries


@dataclass(frozen=True)
class Section:
    """One body of records."""

    last: bool  # QEMU sends it with the guest stopped
    bytes: int
    records: list

    def slots(self):
        return sum(record.valid + record.invalid for record in self.records)


@dataclass(frozen=True)
class Piece:
    """A part of a body that is all of one kind."""

    part: str
    kind: str
    at: int  # in the stream
    length: int
    slot: int = 0  # of the first entry

    @property
    def place(self):
        return self.part, self.kind


class Walker:
    """Follows a stream as it comes: hands each piece of the table's bodies to `meet`, keeps each section that is whole.

    A piece is met before the bytes after it are decided on: `clear` is where the stream is decided up to. RAM is not
    parsed, so what looks like the table's section could be a page's contents: it must stand behind another section's
    footer, be made of whole records of the table's slots and end in a footer of its own.
    """

    def __init__(self, meet=lambda piece: None):
        self.meet = meet
        self.clear = 0
        self.begun = False
        self.sections = []
        self.data = bytearray()
        self.begins = 0  # where in the stream `data` begins
        self.steps = self._walk()
        next(self.steps)

    def feed(self, data):
        self.data += data
        next(self.steps)

    def _take(self, at, length):
        """Waits for the bytes there, and returns them."""
        self.clear = at
        while (end := at + length - self.begins) > len(self.data):
            yield
        return bytes(self.data[end - length : end])

    def _find(self, pattern, at):
        """Waits for the first match at or after `at`; returns its group and where it ends."""
        while not (match := pattern.search(self.data, max(at - self.begins, 0))):
            # RAM: none of it is needed again but what a match may have begun in.
            done = max(len(self.data) - LONGEST_BEGINNING, 0)
            del self.data[:done]
            self.begins += done
            self.clear = self.begins + len(self.data)
            yield
        return match[1], self.begins + match.end()

    def _word(self, at):
        return int.from_bytes((yield from self._take(at, OPENING_BYTES)), "big")

    def _walk(self):
        ident, at = yield from self._find(re.compile(b"\\x%02x(....)%b.{8}" % (START, re.escape(NAME)), re.S), 0)
        order = yield from self._word(at)
        self.begun = True
        self.meet(Piece(SIZE, OPENING, at, OPENING_BYTES))
        section = re.compile(b"\\x%02x....([\\x%02x\\x%02x])%b" % (FOOTER, PART, END, re.escape(ident)), re.S)
        footer = bytes([FOOTER]) + ident
        part, before = FIRST, 0
        while True:
            kind, at = yield from self._find(section, at)
            word = yield from self._word(at)
            if word:
                # Another size; or no table; or RAM.
                if word <= LARGEST_ORDER and (yield from self._take(at + OPENING_BYTES, len(footer))) == footer:
                    order = word
                continue
            slots = 0 if order == NO_TABLE else 1 << order >> 4
            last = kind[0] == END
            begin, records = at, []
            self.meet(Piece(STOP if last else part, OPENING, at, OPENING_BYTES))
            at += OPENING_BYTES
            while True:
                index, valid, invalid = RECORD.unpack((yield from self._take(at, RECORD.size)))
                if index + valid + invalid > slots:
                    break  # RAM
                closing = not valid and not invalid
                if index < before and not closing:
                    part = LATER
                now = STOP if last else part
                self.meet(Piece(now, CLOSING if closing else HEADER, at, RECORD.size))
                at += RECORD.size
                if closing:
                    if (yield from self._take(at, len(footer))) == footer:
                        self.sections.append(Section(last, at - begin, records))
                    break
                before = index
                records.append(Record(index, valid, invalid, at))
                if valid:
                    self.meet(Piece(now, ENTRIES, at, valid * ENTRY, index))
                    at += valid * ENTRY


def sections(data):
    """The bodies of records in a whole stream, in order."""
    walker = Walker()
    walker.feed(data)
    if not walker.begun:
        raise TestFailure("the stream has no section spapr/htab")
    return walker.sections


def passes(found):
    """Slots sent in each sweep over the table. A sweep begins where the slots go back."""
    sent, before = [], 0
    for section in found:
        for index, valid, invalid, _ in section.records:
            if index < before or not sent:
                sent.append(0)
            sent[-1] += valid + invalid
            before = index + valid + invalid
    return sent


class Between(threading.Thread):
    """Stands before a QEMU that waits for a migration: takes it at a socket of its own."""

    def __init__(self, onward):
        super().__init__(daemon=True)
        self.onward = onward.removeprefix("unix:")
        self.uri = f"unix:{self.onward}.between"
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(self.uri.removeprefix("unix:"))
        self.server.listen(1)
        self.start()


class Tap(Between):
    """Sends all on, and keeps it."""

    def __init__(self, onward):
        self.data = bytearray()
        super().__init__(onward)

    def run(self):
        source, _ = self.server.accept()
        # An end that goes takes the other along.
        with source, socket.socket(socket.AF_UNIX) as destination, contextlib.suppress(OSError):
            destination.connect(self.onward)
            while piece := source.recv(1 << 20):
                self.data += piece
                destination.sendall(piece)

    def end(self):
        """Waits for the migration's end; returns all that was heard."""
        self.join(30)
        self.server.close()
        return self.data

    def sections(self):
        """Waits for the migration's end; returns the table's bodies."""
        return sections(self.end())


class Sink(Between):
    """A destination that takes all until the table's last section begins, and then is gone."""

    reached = False

    def run(self):
        connection, _ = self.server.accept()
        walker = Walker(self._meet)
        with self.server, connection:
            while not self.reached and (data := connection.recv(1 << 16)):
                walker.feed(data)

    def _meet(self, piece):
        self.reached |= piece.place == (STOP, OPENING)
