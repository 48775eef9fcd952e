# SPDX-License-Identifier: GPL-2.0-or-later
"""A proxy between two QEMUs that does harm at a chosen place of the table's bodies, and lets all else through."""

import contextlib
import re
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass

from stream import END, ENTRY, FOOTER, NAME, NO_TABLE, PART, RECORD, START, Between

# The parts of a migration that a place can be in.
SIZE, FIRST, LATER, STOP = "size", "first pass", "later pass", "stop"
# What a body is made of: what it begins with, records' headers and entries, and the record that closes it.
OPENING, HEADER, ENTRIES, CLOSING = "opening", "header", "entries", "closing"
OPENING_BYTES = 4
# What a body is known to begin behind takes fewer bytes.
LONGEST_BEGINNING = 32


@dataclass(frozen=True)
class Piece:
    part: str
    kind: str
    at: int  # in the stream
    length: int
    slot: int = 0  # of the first entry

    @property
    def place(self):
        return self.part, self.kind


class Walker:
    """Follows a stream of QEMU's as it comes and tells of each piece of the table's bodies.

    What is told of has not been passed on yet: `clear` is where the stream is decided up to.
    """

    def __init__(self, tell):
        self.tell = tell
        self.clear = 0
        self.data = bytearray()
        self.begins = 0  # where in the stream `data` begins
        self.steps = self._walk()
        next(self.steps)

    def feed(self, data):
        self.data += data
        next(self.steps)

    def _take(self, at, length):
        """The bytes there, once they have come."""
        self.clear = at
        while (end := at + length - self.begins) > len(self.data):
            yield
        return bytes(self.data[end - length : end])

    def _find(self, pattern, at):
        """The first match at or after `at`; where it ends."""
        while not (match := pattern.search(self.data, max(at - self.begins, 0))):
            # RAM: none of it is needed again but what a match may have begun in.
            done = max(len(self.data) - LONGEST_BEGINNING, 0)
            del self.data[:done]
            self.begins += done
            self.clear = self.begins + len(self.data)
            yield
        return match, self.begins + match.end()

    def _walk(self):
        begin, at = yield from self._find(re.compile(b"\\x%02x(....)%b.{8}" % (START, re.escape(NAME)), re.S), 0)
        order = int.from_bytes((yield from self._take(at, OPENING_BYTES)), "big")
        self.tell(Piece(SIZE, OPENING, at, OPENING_BYTES))
        slots = 0 if order == NO_TABLE else 1 << order >> 4
        section = re.compile(b"\\x%02x....([\\x%02x\\x%02x])%b" % (FOOTER, PART, END, re.escape(begin[1])), re.S)
        part = FIRST
        before = 0
        while True:
            found, at = yield from self._find(section, at)
            last = found[1][0] == END
            if any((yield from self._take(at, OPENING_BYTES))):
                continue  # a size, or RAM that looks like a section
            self.tell(Piece(STOP if last else part, OPENING, at, OPENING_BYTES))
            at += OPENING_BYTES
            while True:
                index, valid, invalid = RECORD.unpack((yield from self._take(at, RECORD.size)))
                if index + valid + invalid > slots:
                    break  # RAM
                if index < before and (valid or invalid):
                    part = LATER
                now = STOP if last else part
                if not valid and not invalid:
                    self.tell(Piece(now, CLOSING, at, RECORD.size))
                    at += RECORD.size
                    break
                before = index
                self.tell(Piece(now, HEADER, at, RECORD.size))
                at += RECORD.size
                if valid:
                    self.tell(Piece(now, ENTRIES, at, valid * ENTRY, index))
                    at += valid * ENTRY


@dataclass
class Strike:
    """Harm at byte `offset` (or near it) of the piece that is number `number` of its place."""

    place: tuple
    number: int
    offset: float  # as part of the piece
    kind: str  # "cut", "flip", "insert", "kill"
    bits: bytes = b""  # flip: what to flip in that byte; insert: what to insert before it
    victim: object = None  # kill: the process; the destination's unless another is named

    def __str__(self):
        detail = f" {self.bits.hex()}" if self.bits else ""
        return f"{self.kind}{detail} at {self.offset:.3f} of {self.place[1]} {self.number}, {self.place[0]}"


class Proxy(Between):
    """Hands on all, both ways, and strikes once.

    `count` has what pieces there were, up to the strike.
    """

    def __init__(self, path, onward, strike=None):
        self.strike = strike
        self.count = Counter()
        self.at = None  # where it is to strike, in the stream
        self.met = self.struck = None  # the piece that it is in; the same once it was done
        self.moved = time.monotonic()
        super().__init__(path, onward)

    def run(self):
        source, _ = self.server.accept()
        self.server.close()
        with source, socket.socket(socket.AF_UNIX) as destination, contextlib.suppress(OSError):
            destination.connect(self.onward)
            back = threading.Thread(target=self._hand_back, args=(destination, source), daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                if not self._hand_on(source, destination):
                    source.shutdown(socket.SHUT_RDWR)
            destination.shutdown(socket.SHUT_WR)
            back.join()

    def _hand_back(self, destination, source):
        with contextlib.suppress(OSError):
            while piece := destination.recv(1 << 16):
                self.moved = time.monotonic()
                source.sendall(piece)
        # A destination that is gone takes the source's connection along.
        with contextlib.suppress(OSError):
            source.shutdown(socket.SHUT_RDWR)

    def _hand_on(self, source, destination):
        """Until the source has no more, or the connection is to be cut: then it returns False."""
        walker = Walker(self._meet)
        # What was not passed on yet, and where in the stream it begins.
        held, at = bytearray(), 0
        while piece := source.recv(1 << 20):
            self.moved = time.monotonic()
            held += piece
            if self.at is None:
                walker.feed(piece)
            if self.at is None:
                # A header that came in part only is held until it is known what it is.
                ready = walker.clear - at
            elif self.struck:
                ready = len(held)
            else:
                ready = self.at - at
            if self.at is not None and not self.struck and ready < len(held):
                destination.sendall(held[:ready])
                self.struck = self.met
                if self.strike.kind in ("cut", "kill"):
                    return self._end()
                held = self._harm(held[ready:])
                ready = len(held)
            passed = held[: max(ready, 0)]
            destination.sendall(passed)
            at += len(passed)
            del held[: len(passed)]
        destination.sendall(held)
        return True

    def _meet(self, piece):
        if self.strike and self.at is None and piece.place == self.strike.place:
            if self.count[piece.place] == self.strike.number:
                self.met = piece
                self.at = piece.at + int(self.strike.offset * piece.length)
        self.count[piece.place] += 1

    def _end(self):
        if self.strike.kind == "kill":
            self.strike.victim.kill()
            self.strike.victim.wait()
        return self.strike.kind == "kill"

    def _harm(self, data):
        if self.strike.kind == "flip":
            data[0] ^= self.strike.bits[0]
            return data
        return bytearray(self.strike.bits) + data

    def idle(self):
        """Seconds since anything went either way."""
        return time.monotonic() - self.moved

    def struck_slot(self):
        """The slot of the entry that the strike hit."""
        return self.struck.slot + (self.at - self.struck.at) // ENTRY
