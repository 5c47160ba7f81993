"""Which tables have materialized views, and which keyspaces functions by the names of Cassandra's own: asked of the
server on the client's own connection, as the same client, which is then told of changes of the schema, too."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass, replace
from functools import partial

from l7proxy.cassandra_exchange import Statements
from l7proxy.cassandra_known import NEVER, CassandraKnown, Views
from l7proxy.cassandra_parts import Due, Then
from l7proxy.cassandra_requests import Requests
from l7proxy.held import Server
from l7proxy.http1_exchange import Judge
from l7proxy.ops import Direction, Inject
from l7proxy.output import Output
from parsers.cassandra import Opcode, Reader
from parsers.cassandra_requests import Other
from parsers.cassandra_responses import (
    AGGREGATES,
    FUNCTIONS,
    SCHEMA_CHANGE,
    VIEWS,
    Kind,
    Question,
    query,
    read_texts,
    register,
)
from parsers.cassandra_segments import write_segments
from parsers.cql_reader import NATIVE
from parsers.malformed import Malformed

VIEWS_FOR = 30.0
"""Seconds after which a server is asked again for its views, though it has told of no change."""
_INVALID = 0x2200
"""The error of a server without the table of views, and so without views."""
_STREAMS = 32_768
_QUESTIONS = (VIEWS, FUNCTIONS, AGGREGATES)


@dataclass(slots=True, eq=False)
class Told:
    """What a server is telling of its `views`, so far, and the questions that are `left`; `changes` had been heard of
    when it was asked."""

    views: Views
    changes: int
    left: list[Question]


class Watching(Requests, ABC):
    """The part of a conversation that knows the views of its server."""

    __slots__ = ("_registered", "_server", "_statements", "_told", "_watches")

    def __init__(self, judge: Judge, known: CassandraKnown, server: Server) -> None:
        super().__init__(judge, known)
        self._server = server
        self._statements = Statements(known, server)
        self._told: Told | None = None
        """What the server is telling."""
        self._registered = False
        """The client itself wants to be told of changes of the schema."""
        self._watches: bool | None = None
        """Whether the proxy is told of them here; None: the server was not asked for it."""

    def _known_views(self, now: float) -> bool:
        """Whether another connection has asked not long ago."""
        found = self._known.views.get(self._server)
        if found is None or now - found.asked > VIEWS_FOR:
            return False
        self._statements.views = found
        return True

    def _ask_for_views(self, version: int, now: float, output: Output) -> None:
        """One thing after the other, once changes are told of, so that none is missed."""
        stream = next(one for one in range(_STREAMS - 1, -1, -1) if one not in self._due)
        then: Then
        if self._watches is None:
            asks, then = register(version, stream), self._watched
        else:
            if self._told is None:
                self._told = Told(Views(now), self._known.changes, list(_QUESTIONS))
            asks, then = query(self._told.left[0], version, stream), partial(self._hears, self._told)
        output.add(Inject(Direction.REQUEST, write_segments(asks, self._packed) if self._framed else asks))
        self._due[stream] = Due(None, now, then=then, own=True)
        self._waits += 1

    def _watched(self, opcode: int, _code: int, _reader: Reader) -> None:
        self._waits -= 1
        self._watches = opcode == Opcode.READY
        if self._watches:
            self._known.watchers[self._server] += 1

    def _hears(self, told: Told, opcode: int, code: int, reader: Reader) -> None:
        self._waits -= 1
        question, known = told.left.pop(0), self._known.views.get(self._server)
        if opcode == Opcode.RESULT and reader.int() == Kind.ROWS:
            rows = read_texts(reader, question.columns, self.judge.cassandra.max_views)
            for keyspace, name, *table in rows:
                if table:
                    told.views.add(keyspace, name, *table)
                elif name in NATIVE:
                    told.views.functions.add((keyspace, name))
        elif code != _INVALID:
            if known is None or known.asked == NEVER:
                raise Malformed(0, f"the server does not tell its views: opcode {opcode}, error {code:#x}")
            told = Told(replace(known, asked=told.views.asked), told.changes, [])
        if told.left:
            return
        self._told, views = None, told.views
        if told.changes != self._known.changes:
            views.asked = NEVER  # It may have been answered before that.
        if known is not None and (known.tables, known.functions) == (views.tables, views.functions):
            # What was judged by it holds on.
            known.asked, views = views.asked, known
        self._known.views.put(self._server, views, 1 + len(views.tables) + len(views.functions))
        self._statements.views = views

    def _registers(self, message: Other) -> None:
        self._registered = self._registered or SCHEMA_CHANGE in message.events

    def _event(self, reader: Reader) -> bool:
        if reader.short_bytes() != SCHEMA_CHANGE:
            return True
        self._known.outdated(self._server)
        return self._registered

    def _watch_no_more(self) -> None:
        """The connection is over."""
        if self._watches:
            self._watches = False
            self._known.watchers[self._server] -= 1
            if not self._known.watchers[self._server]:
                del self._known.watchers[self._server]
                self._known.outdated(self._server)  # Nobody hears what changes from now on.
