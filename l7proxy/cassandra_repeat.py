"""What CQL lets the fast path have: prepared statements that were allowed, whatever values they are run with."""

from __future__ import annotations

import struct
from abc import ABC
from functools import cache
from typing import Any, NamedTuple

from l7proxy.cassandra_known import CassandraKnown
from l7proxy.cassandra_parts import Due
from l7proxy.cassandra_views import VIEWS_FOR, Watching
from l7proxy.frames import MOST_HEARD
from l7proxy.held import Server
from l7proxy.http1_exchange import Judge
from l7proxy.offers import Group, Offer, group_of, masked
from l7proxy.ops import CqlStatement, Record
from parsers.cassandra import HEADER, RESPONSE, Opcode
from parsers.cassandra_requests import binding
from parsers.malformed import Malformed
from sockmap.splice_lanes import BINDINGS, MOST_VALUES, PREFIX, Form

_ANSWER = struct.Struct(">BxxxB11x")


class Entry(NamedTuple):
    """What is remembered of a statement."""

    request: CqlStatement
    consistency: int


@cache
def _mask(size: int) -> bytes:
    """Of a prefix: all but the stream (which is not negative) and the length."""
    return b"\xff\xff\x80\0\xff\0\0\0\0" + b"\xff" * (size - HEADER)


class Repeating(Watching, ABC):
    """The part of a conversation that answers the fast path."""

    __slots__ = ("_lost",)

    def __init__(self, judge: Judge, known: CassandraKnown, server: Server) -> None:
        super().__init__(judge, known, server)
        self._lost = False
        """Something has passed, where nothing is enforced, that may have changed the keyspace."""

    def _offer(self, data: bytes, start: int, request: CqlStatement, consistency: int) -> None:
        """The body of an EXECUTE that passes by itself; its header stands before it."""
        found = None if self._compression and self._framed else binding(self._version, data, start)
        if found is None:
            return
        size, values, rest = found
        if values > MOST_VALUES or HEADER + size > PREFIX:
            return
        mask = _mask(HEADER + size)
        prefix = masked(data[start - HEADER : start + size], mask)
        self._offers(Offer(self.group(), prefix, mask, BINDINGS, values, rest, Entry(request, consistency)))

    def form(self) -> Form:
        """See `l7proxy.frames.Frames`."""
        version, most = self._version | RESPONSE, HEADER + self.judge.cassandra.max_frame
        mask, answer = _ANSWER.pack(0xFF, 0xFF), _ANSWER.pack(version, Opcode.RESULT)
        return Form(5, HEADER, most, HEADER, 2, 2, 2, self._framed, mask, answer)

    def group(self) -> Group:
        """See `l7proxy.frames.Frames`."""
        views = self._statements.views
        return group_of(self.judge, (self._server, views), views.asked + VIEWS_FOR)

    def repeats(self, now: float) -> bool:
        """See `l7proxy.frames.Frames`."""
        views = self._statements.views
        if now - views.asked > VIEWS_FOR or self._known.views.get(self._server) is not views:
            return False
        if not self._quiet_here() or not self._ready or self._answers or self._lost:
            return False
        return not (self._waits or self._quiet or self._large is not None or self._rest or self._left)

    def room(self) -> int:
        """See `l7proxy.frames.Frames`."""
        return self.judge.cassandra.max_in_flight - len(self._due)

    def hears(self) -> bool:
        """See `l7proxy.frames.Frames`."""
        if len(self._due) > MOST_HEARD or self._large_response is not None:
            return False
        return all(due.then is None and due.request is not None and not due.own for due in self._due.values())

    def went(self, entry: Any, identity: int, now: float) -> None:
        """See `l7proxy.frames.Frames`."""
        found: Entry = entry
        if identity in self._due:
            raise Malformed(2, f"a second request on stream {identity}, which waits for its answer")
        self._due[identity] = Due(found.request, now, found.consistency)

    def heard(self, identity: int, data: bytes, now: float) -> Record:
        """See `l7proxy.frames.Frames`."""
        due = self._due.pop(identity, None)
        if due is None or due.request is None or due.then is not None:
            raise Malformed(2, f"an answer on stream {identity}, where nothing is due that needs no look")
        return self._passed(identity, due, due.request, now)
