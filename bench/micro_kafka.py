"""What Kafka's requests and their responses cost in the conversation alone: ``python -m bench.micro_kafka``.

Prints microseconds of CPU for each pair, without sockets, under ten rules and under ten thousand. Each request has
another correlation id and other records than the one before, as those of a client have.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from bench.micro import Pair, Rules, carry, cost, table
from l7proxy.kafka import KafkaConversation
from l7proxy.kafka_known import KafkaKnown
from parsers.kafka import Head, flexible, frame, response
from parsers.kafka_codec import encode
from parsers.kafka_schema import BY_NAME, REQUEST
from policies.model import KafkaRule, L7Protocol
from policies.verdict import RuleRef

_PAIRS = 20_000
_ROUNDS = 5
_REF = RuleRef("default/bench", "ingress[0].toPorts[0].rules.kafka[0]", "bench.yaml", 1)
_CLIENT = b"bench-client"
_ID = bytes(15) + b"\7"
Tree = Mapping[str, Any]


class Case(NamedTuple):
    """A request of an API's version and its response. `partitions` of a topic, each with `size` bytes of records."""

    title: str
    api: str
    version: int
    asks: Callable[[bytes], Tree]
    answer: Tree
    size: int = 100


def _produce(name: str, records: bytes, *, by_id: bool = False, count: int = 1) -> Tree:
    rows = [{"index": n, "records": records} for n in range(count)]
    topic = {"topic_id": _ID} if by_id else {"name": name}
    return {"transactional_id": None, "acks": -1, "timeout": 30_000, "topic_data": [topic | {"partition_data": rows}]}


def _produced(*, by_id: bool = False, count: int = 1) -> Tree:
    rows = [{"index": n, "error_code": 0, "base_offset": 7, "log_append_time": -1} for n in range(count)]
    topic = {"topic_id": _ID} if by_id else {"name": "topic-7"}
    return {"responses": [topic | {"partition_responses": rows}]}


def _fetch(topics: Sequence[Tree], session: int, epoch: int) -> Tree:
    sizes = {"max_wait": 500, "min_bytes": 1, "max_bytes": 50 << 20, "replica_id": -1}
    return sizes | {"session_id": session, "session_epoch": epoch, "topics": topics}


_PARTITION = {"partition": 0, "fetch_offset": 7, "partition_max_bytes": 1 << 20, "log_start_offset": -1}
_FETCHED: Tree = {"session_id": 77, "responses": []}
_CASES = (
    Case("Produce 7", "Produce", 7, lambda some: _produce("topic-7", some), _produced()),
    Case("Produce 9", "Produce", 9, lambda some: _produce("topic-7", some), _produced()),
    Case("Produce 9, 16 partitions", "Produce", 9, lambda s: _produce("topic-7", s, count=16), _produced(count=16)),
    Case("Produce 13", "Produce", 13, lambda s: _produce("", s, by_id=True), _produced(by_id=True)),
    Case("Fetch 11, no session", "Fetch", 11, lambda _: _fetch([_named()], 0, -1), {"responses": []}),
    Case("Fetch 12, in a session", "Fetch", 12, lambda _: _fetch([], 77, 1), _FETCHED),
    Case("Fetch 13, by id", "Fetch", 13, lambda _: _fetch([_by_id()], 77, 1), _FETCHED),
)


def _named() -> Tree:
    return {"topic": "topic-7", "partitions": [_PARTITION]}


def _by_id() -> Tree:
    return {"topic_id": _ID, "partitions": [_PARTITION]}


def rules(count: int) -> Rules:
    """On so many topics."""
    found = [KafkaRule(None, None, None, None, (f"topic-{n}",), None, None, _REF) for n in range(count)]
    return Rules(L7Protocol.KAFKA, found)


def header(api: int, version: int, correlation_id: int) -> bytes:
    """Of a request."""
    tags = b"\0" if flexible(api, version) else b""
    return struct.pack(">hhih", api, version, correlation_id, len(_CLIENT)) + _CLIENT + tags


def pairs(case: Case, count: int) -> list[Pair]:
    """Requests and their responses."""
    api, made = BY_NAME[case.api.lower()].key, []
    for number in range(count):
        body = encode(api, case.version, REQUEST, case.asks(struct.pack(">q", number) * (case.size // 8)))
        head = Head(api, case.version, number, None, 0, 0)
        made.append((frame(header(api, case.version, number) + body), response(head, case.answer)))
    return made


def measure(case: Case, rules: Rules) -> float:
    """Microseconds of CPU for one request and its response; the best of several rounds."""
    known = KafkaKnown(1000, 1000)
    known.topics.put((("10.0.0.9", 9092), _ID), "topic-7", 1)
    talk = KafkaConversation(rules, known, ("10.0.0.9", 9092), 300)
    opening = Case("", "Fetch", 12, lambda _: _fetch([_named()], 0, 0), _FETCHED)
    carry(talk, pairs(opening, 1))
    made = pairs(case, _PAIRS // _ROUNDS)
    return min(cost(talk, made) for _ in range(_ROUNDS))


if __name__ == "__main__":
    table(_CASES, rules, measure)
