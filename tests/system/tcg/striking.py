# SPDX-License-Identifier: GPL-2.0-or-later
"""A proxy between two QEMUs that does harm at a chosen place of the table's bodies and sends all else on."""

import contextlib
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass

from stream import ENTRY, Between, Walker


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
    """Sends all on, both ways, and strikes once.

    `count` has what pieces there were, up to the strike.
    """

    def __init__(self, onward, strike=None):
        self.strike = strike
        self.count = Counter()
        self.at = None  # where it is to strike, in the stream
        self.met = self.struck = None  # the piece that it is in; the same once it was done
        self.moved = time.monotonic()
        super().__init__(onward)

    def run(self):
        source, _ = self.server.accept()
        self.server.close()
        with source, socket.socket(socket.AF_UNIX) as destination, contextlib.suppress(OSError):
            destination.connect(self.onward)
            back = threading.Thread(target=self._send_back, args=(destination, source), daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                if not self._send_on(source, destination):
                    source.shutdown(socket.SHUT_RDWR)
            destination.shutdown(socket.SHUT_WR)
            back.join()

    def _send_back(self, destination, source):
        with contextlib.suppress(OSError):
            while piece := destination.recv(1 << 16):
                self.moved = time.monotonic()
                source.sendall(piece)
        # A destination that is gone takes the source's connection along.
        with contextlib.suppress(OSError):
            source.shutdown(socket.SHUT_RDWR)

    def _send_on(self, source, destination):
        """Until the source has no more, or the connection is to be cut: then it returns False."""
        walker = Walker(self._meet)
        # What was not sent on yet, and where in the stream it begins.
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
            sent = held[: max(ready, 0)]
            destination.sendall(sent)
            at += len(sent)
            del held[: len(sent)]
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
