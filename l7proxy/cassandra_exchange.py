"""What one CQL request does, and what the policy says of it: statement by statement, and as a whole."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from l7proxy.cassandra_known import CassandraKnown, Reading, Views, unknown
from l7proxy.cql_judge import because, judged, unread
from l7proxy.held import Server, remember
from l7proxy.http1_exchange import Judge
from l7proxy.ops import CqlStatement
from parsers.cassandra import utf8
from parsers.cassandra_requests import Batch, Child, Execute, Prepare, Query
from parsers.cql_lexer import MOST_NUMBER
from parsers.cql_shape import shape
from parsers.cql_statement import Unclassifiable, classify
from parsers.options import CassandraOptions
from policies.verdict import Verdict

CACHED_TEXT = 2048
"""Requests whose texts are no longer than that together are remembered."""
_MOST_BRACKETS, _MOST_OPERATORS = 16, 8
"""Of a statement that cannot be read: a server's time may double with each bracket, and more with each operator."""
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (MOST_NUMBER + 1))
_SHOWN = 2048
"""Characters of a statement that is logged."""
_CHILD = 16
"""What one of a batch weighs there, beside its text, or a function that is called."""
_VIEW_CHANGES = frozenset(
    {f"{verb}-{what}" for verb in ("create", "drop") for what in ("materialized-view", "function", "aggregate")}
    | {"drop-keyspace", "unknown"}
)
_ENTRY = 500
"""What is kept of each thing that a prepared statement does or calls, in bytes, about."""


@dataclass(slots=True, eq=False)
class Outcome:
    """A request as its record has it. `leans`: it depends on the session's keyspace. `moves`: it may change that.
    `changes`: it may change which views there are. `refused`: it may not pass. `plain`: it passes, and nothing else."""

    request: CqlStatement
    reading: Reading
    leans: bool
    moves: bool
    changes: bool = field(init=False)
    refused: bool = field(init=False)
    plain: bool = field(init=False)

    def __post_init__(self) -> None:
        self.changes = self.request.kind in _VIEW_CHANGES
        self.refused = self.request.decision.verdict is Verdict.DROPPED
        self.plain = not (self.refused or self.moves or self.changes or self.reading.reason)


class Unprepared(Exception):
    """The statement with this `id` is not known."""

    def __init__(self, number: bytes) -> None:
        super().__init__(f"no prepared statement is known by the id {number.hex()}")
        self.id = number


class Statements:
    """Those of one `server`, as one connection of its clients sees them. `views` are the server's."""

    __slots__ = ("_known", "_server", "views")

    def __init__(self, known: CassandraKnown, server: Server) -> None:
        self._known, self._server = known, server
        self.views = Views()

    def query(self, message: Query | Prepare, session: str | None, judge: Judge) -> Outcome:
        """The verdict on a statement that comes as text; `session`: its keyspace. Raises Malformed."""
        opcode = "QUERY" if isinstance(message, Query) else "PREPARE"
        own = message.keyspace is None
        keyspace = session if own else message.keyspace
        key = (opcode, message.text, keyspace, own, self.views)
        found: Outcome | None = judge.calls.get(key)
        if found is None:
            text = common(message.text, judge.cassandra)
            shared = (opcode, text, keyspace, own, self.views)
            found = judge.calls.get(shared)
        if found is None:
            reading = read_statement(text, keyspace, judge.cassandra)
            if reading.reason:
                reading, text, shared = read_statement(message.text, keyspace, judge.cassandra), message.text, key
            found = self._judged(opcode, reading, judge, own=own)
            self._remember(judge, shared, found, len(text) + len(keyspace or ""))
        return found

    def execute(self, message: Execute, judge: Judge) -> Outcome:
        """The same of a prepared one. Raises Unprepared."""
        key = (self._server, message.id, self.views)
        found: Outcome | None = judge.calls.get(key)
        if found is None:
            found = self._judged("EXECUTE", self._prepared(message.id), judge, own=False, prepared=True)
            self._remember(judge, key, found, 0)
        return found

    def batch(self, message: Batch, session: str | None, judge: Judge) -> Outcome:
        """The same of a batch, all of whose statements have to be allowed. Raises Malformed, Unprepared."""
        own = message.keyspace is None
        keyspace = session if own else message.keyspace
        key = (self._server, message.children, keyspace, own, self.views)
        found: Outcome | None = judge.calls.get(key)
        if found is None:
            children = _common_children(message.children, judge.cassandra)
            shared = (self._server, children, keyspace, own, self.views)
            found = judge.calls.get(shared)
        if found is None:
            reading = self._children(children, keyspace, judge)
            if reading.reason and children is not message.children:
                reading, children, shared = self._children(message.children, keyspace, judge), message.children, key
            some = any(one.text is None for one in children)
            found = self._judged("BATCH", reading, judge, own=own, prepared=some)
            weight = sum(len(one.text or b"") + _CHILD for one in children) + len(keyspace or "")
            self._remember(judge, shared, found, weight)
        return found

    def bind(self, number: bytes, text: bytes, keyspace: str | None, reading: Reading) -> bool:
        """The server has prepared a statement. False: its id is none of those that it can have, and is not believed.

        An id is the MD5 of keyspace and text, or where a statement does not depend on the keyspace, of the text alone.
        A server also keeps what does depend on it under the MD5 of the text alone, for whoever comes first.
        """
        ids = {_id(text)} if not reading.unqualified or reading.reason else set()
        if keyspace is not None:
            ids.add(_id(keyspace.encode() + text))
        if number not in ids:
            return False
        things = len(reading.requests) + len(reading.natives)
        self._known.prepared.put((self._server, number), reading, len(text) + _ENTRY * things)
        return True

    def _prepared(self, number: bytes) -> Reading:
        found = self._known.prepared.get((self._server, number))
        if found is None:
            raise Unprepared(number)
        return found

    def _children(self, children: Sequence[Child], keyspace: str | None, judge: Judge) -> Reading:
        texts = {one.text for one in children if one.text is not None}
        size = sum(map(len, texts))
        if size > judge.cassandra.max_statement:
            why = f"a batch of {size} bytes, more than cassandra.max_statement"
            read = dict.fromkeys(texts, unknown(why, heavy=any(map(_may_stall, texts))))
        else:
            read = {text: read_statement(text, keyspace, judge.cassandra) for text in texts}
        return _together([self._child(one, read) for one in children])

    def _child(self, child: Child, read: Mapping[bytes, Reading]) -> Reading:
        if child.text is None:
            # What was prepared keeps the keyspace that it was prepared in.
            return self._prepared(child.id)._replace(unqualified=False)
        return read[child.text]

    def _judged(self, opcode: str, reading: Reading, judge: Judge, *, own: bool, prepared: bool = False) -> Outcome:
        requests = self.views.behind(reading)
        if reading.heavy and not judge.audit_only:
            request = unread(judge, f"a statement that cannot be read and may stall a server; {reading.reason}", opcode)
        else:
            request = judged(judge, opcode, reading.kind, requests, prepared=prepared, statement=reading.statement)
            request = because(request, reading.reason) if reading.reason else request
        moves = reading.moves and opcode != "PREPARE"
        # The id of a statement may hang on the session's keyspace even where its meaning does not.
        leans = opcode == "PREPARE" or (own and reading.unqualified)
        return Outcome(request, reading, leans, moves)

    @staticmethod
    def _remember(judge: Judge, key: Hashable, found: Outcome, size: int) -> None:
        if size + _CHILD * len(found.reading.natives) <= CACHED_TEXT:
            remember(judge, key, found)


def common(text: bytes, options: CassandraOptions) -> bytes:
    """What a statement is remembered by: its shape, or itself. Raises Malformed if it is not UTF-8."""
    found = shape(utf8(text, 0)) if len(text) <= options.max_statement else None
    return text if found is None else found.encode()


def _common_children(children: tuple[Child, ...], options: CassandraOptions) -> tuple[Child, ...]:
    """The same of a batch; those of one that is too long to be read stay what they are."""
    if sum(len(one.text or b"") for one in children) > options.max_statement:
        return children
    return tuple(one if one.text is None else Child(common(one.text, options), b"") for one in children)


def read_statement(text: bytes, keyspace: str | None, options: CassandraOptions) -> Reading:
    """What a statement does in `keyspace`. Raises Malformed if it is not UTF-8."""
    query = utf8(text, 0)
    heavy = _may_stall(text)
    if len(text) > options.max_statement:
        return unknown(f"a statement of {len(text)} bytes, more than cassandra.max_statement", heavy=heavy)
    try:
        found = classify(query, keyspace)
    except Unclassifiable as error:
        return unknown(str(error), heavy=heavy)
    moves = found.changes_keyspace is not None
    shown = found.redacted(_SHOWN) if options.log_statements else ""
    return Reading(found.kind, found.requests, found.unqualified, moves, statement=shown, natives=found.natives)


def _may_stall(text: bytes) -> bool:
    brackets, operators = (sum(map(text.count, some)) for some in (b"([{", b"+-*/%"))
    return brackets > _MOST_BRACKETS or operators > _MOST_OPERATORS or _LONG_NUMBER.search(text) is not None


def _together(children: list[Reading]) -> Reading:
    requests = tuple(dict.fromkeys(one for child in children for one in child.requests))
    reasons = [child.reason for child in children if child.reason]
    return Reading(
        "batch",
        requests,
        any(child.unqualified for child in children),
        any(child.moves for child in children),
        reasons[0] if reasons else "",
        any(child.heavy for child in children),
        "; ".join(child.statement for child in children[:_SHOWN] if child.statement)[:_SHOWN],
        frozenset().union(*(child.natives for child in children)),
    )


def _id(source: bytes) -> bytes:
    return hashlib.md5(source, usedforsecurity=False).digest()
