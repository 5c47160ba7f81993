"""What CQL's requests and their answers cost in the conversation alone: ``python -m bench.micro_cassandra``.

Prints microseconds of CPU for each pair, without sockets, under ten rules and under ten thousand. Each request comes
alone, on a stream of its own. A prepared statement has other values each time; a simple one is the same again
(cached), or has other literals each time (new).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from hashlib import md5
from typing import NamedTuple

from bench.micro import Pair, Rules, carry, cost, table
from l7proxy.cassandra import CassandraConversation
from l7proxy.cassandra_known import CassandraKnown
from l7proxy.ops import Direction
from parsers.cassandra import RESPONSE, Opcode, write_envelope
from policies.model import CqlRule, L7Protocol
from policies.verdict import RuleRef
from tests.cassandra import words
from tests.cassandra.rig import views_answer

_PAIRS = 4000
_ROUNDS = 5
_REF = RuleRef("default/bench", "ingress[0].toPorts[0].rules.cql[0]", "bench.yaml", 1)
_SELECT = "SELECT value FROM tenant7.events WHERE id = ?"
_ROWS = struct.pack(">i", 2) + b"r" * 140
"""The body of an answer with a row."""
_SERVER = ("10.0.0.9", 9042)


class Case(NamedTuple):
    """Requests of a version. `asks` gives one by its number, on a stream."""

    title: str
    version: int
    asks: Callable[[int, int, int], bytes]


def _execute(version: int, stream: int, number: int) -> bytes:
    return words.execute(_id(_SELECT), version, stream, [struct.pack(">i", number)])


def _same(version: int, stream: int, _: int) -> bytes:
    return words.query("SELECT value FROM tenant7.events WHERE id = 7", version, stream)


def _new(version: int, stream: int, number: int) -> bytes:
    return words.query(f"SELECT value FROM tenant7.events WHERE id = {number}", version, stream)


def _insert(version: int, stream: int, number: int) -> bytes:
    text = f"INSERT INTO tenant7.events (id, value) VALUES ({number}, '{'v' * 100}')"
    return words.query(text, version, stream)


def _batch(version: int, stream: int, number: int) -> bytes:
    children = [_id(_SELECT), f"DELETE FROM tenant7.events WHERE id = {number}"]
    return words.batch(*children, version=version, stream=stream)


def _id(text: str) -> bytes:
    return md5(text.encode(), usedforsecurity=False).digest()


_CASES = (
    Case("EXECUTE, v4", 4, _execute),
    Case("EXECUTE, v5", 5, _execute),
    Case("QUERY, v4, cached", 4, _same),
    Case("QUERY, v5, cached", 5, _same),
    Case("QUERY, v4, new SELECT", 4, _new),
    Case("QUERY, v4, new INSERT", 4, _insert),
    Case("BATCH of two, v4, new", 4, _batch),
)


def rules(count: int) -> Rules:
    """On so many keyspaces."""
    found = [CqlRule(None, (f"tenant{n}",), ("events",), None, _REF) for n in range(count)]
    return Rules(L7Protocol.CASSANDRA, found)


def framed(version: int, envelope: bytes) -> bytes:
    """As it travels."""
    return words.segments(envelope) if version > 4 else envelope


def answer(version: int, stream: int, body: bytes) -> bytes:
    """A RESULT."""
    return framed(version, write_envelope(version | RESPONSE, stream, Opcode.RESULT, body))


def opened(version: int, rules: Rules) -> CassandraConversation:
    """A conversation that knows the statement, and the server's views."""
    talk = CassandraConversation(rules, CassandraKnown(1000, 1 << 20, 1000), _SERVER)
    carry(talk, [(words.startup(version), words.ready(version))])
    talk.receive(Direction.REQUEST, framed(version, words.prepare(_SELECT, version)), False, 1.0)
    views = views_answer([], version, 32_767)
    talk.receive(Direction.RESPONSE, framed(version, views), False, 1.0)
    talk.receive(Direction.REQUEST, framed(version, words.prepare(_SELECT, version)), False, 1.0)
    prepared = framed(version, words.prepared(_id(_SELECT), version))
    talk.receive(Direction.RESPONSE, prepared, False, 1.0)
    return talk


def measure(case: Case, rules: Rules) -> float:
    """Microseconds of CPU for one request and its answer; the best of several rounds."""
    talk, costs = opened(case.version, rules), []
    for turn in range(_ROUNDS):
        numbers = range(turn * _PAIRS, (turn + 1) * _PAIRS)
        costs.append(cost(talk, [pair(case, number % 64, number) for number in numbers]))
    return min(costs)


def pair(case: Case, stream: int, number: int) -> Pair:
    """A request and its answer."""
    asked = framed(case.version, case.asks(case.version, stream, number))
    return asked, answer(case.version, stream, _ROWS)


if __name__ == "__main__":
    table(_CASES, rules, measure)
