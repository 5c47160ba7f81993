"""The pieces that both directions of a CQL connection are read with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from l7proxy.held import Frame, Pool
from l7proxy.ops import CqlCall, CqlStatement, Record
from parsers.cassandra import HEADER, Envelope, Reader
from parsers.cassandra_segments import MOST
from parsers.malformed import Malformed

Then: TypeAlias = Callable[[int, int, Reader], None]
"""Told of an answer: its opcode, its error code (-1: it is no error), and a reader that stands at its message, or
behind the code. Raises Malformed."""


class Due:
    """An answer that is awaited. `request` None: no record is written. `leans`: its request depends on the session's
    keyspace. `then`: has to be told of the answer. `own`: the proxy has asked, and the client hears nothing of it."""

    __slots__ = ("consistency", "leans", "own", "request", "started", "then")

    def __init__(
        self,
        request: CqlStatement | None,
        started: float,
        consistency: int = -1,
        leans: bool = False,
        then: Then | None = None,
        own: bool = False,
    ) -> None:
        self.request, self.started, self.consistency = request, started, consistency
        self.leans, self.then, self.own = leans, then, own

    def record(self, stream: int, now: float, code: int, answered: bool) -> Record | None:
        """Its flow record."""
        if self.request is None:
            return None
        return Record(self.request, code, self.started, now, CqlCall(stream, self.consistency, answered))


class Large:
    """An envelope of `size` bytes that comes in several segments, and is held, from `since` on, until it is whole."""

    __slots__ = ("_payload", "_pool", "_segments", "have", "since", "size")

    def __init__(self, size: int, pool: Pool, since: float) -> None:
        self.size, self.have, self.since = size, 0, since
        self._pool = pool
        self._segments = bytearray()
        self._payload: bytearray | bytes = bytearray()

    @property
    def whole(self) -> bool:
        """Everything is there."""
        return self.have == self.size

    def add(self, frame: Frame, payload: bytes) -> None:
        """The next segment. Raises Malformed if it has more than what is missing: a server would never run it; or if
        the segments are much longer than what is in them."""
        if len(payload) > self.size - self.have:
            raise Malformed(0, "a segment that goes on behind its message")
        size = frame.stop - frame.start
        if len(self._segments) + size > 2 * self.size + MOST:
            raise Malformed(0, "a message in too many segments")
        self._segments += frame.data[frame.start : frame.stop]
        self._payload += payload
        self.have += len(payload)
        self._pool.held += size + len(payload)

    def envelope(self) -> bytes:
        """What is there."""
        self._payload = bytes(self._payload)
        return self._payload

    def release(self) -> bytes:
        """The segments, as they came, for the last time."""
        segments = bytes(self._segments)
        self._pool.held -= len(segments) + self.have
        self._segments, self._payload, self.have = bytearray(), b"", 0
        return segments


def envelopes(
    payload: bytes, place: int, read: Callable[[bytes, int], Envelope]
) -> Iterator[tuple[Envelope, int, int]]:
    """Those of a segment that is self-contained, from `place` on: each with its body's beginning and end. A server
    reads a message on behind its envelope, up to the segment's end. Raises Malformed."""
    while place < len(payload):
        if len(payload) - place < HEADER:
            raise Malformed(place, f"{len(payload) - place} bytes behind the envelopes of a segment")
        head = read(payload, place)
        start = place + HEADER
        place = start + head.size
        if place > len(payload):
            raise Malformed(start, f"a body of {head.size} bytes in a segment that has {len(payload) - start}")
        yield head, start, place
