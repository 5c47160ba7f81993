"""However the bytes are split, the same goes on and the same is said; and what is cut off goes nowhere unjudged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l7proxy.ops import Direction
from parsers.options import KafkaOptions
from tests.conversations import REQUEST, RESPONSE
from tests.kafka.rig import (
    IDS,
    Rig,
    Teller,
    ask,
    fetch,
    fetched,
    framed,
    metadata,
    parse,
    produce,
    produced,
    say,
)

Lines = Sequence[tuple[Direction, bytes]]
SHAKE = ask("SaslHandshake", 0, {"mechanism": "PLAIN"})
SHAKEN = say("SaslHandshake", 0, {"error_code": 0})
TOPICS = [{"name": name} for name in ("orders", "secret-x")]
DIALOGUES: dict[str, Lines] = {
    "allowed": [(REQUEST, produce("orders")), (RESPONSE, produced("orders"))],
    "refused": [
        (REQUEST, produce("orders") + produce("secret-x", number=2) + produce("payments", number=3)),
        (RESPONSE, produced("orders") + produced("payments", number=3)),
    ],
    "in part": [
        (REQUEST, fetch("orders", "secret-x") + produce("orders", "secret-x", number=2)),
        (RESPONSE, fetched("orders") + produced("orders", number=2)),
    ],
    "no answer": [
        (REQUEST, produce("orders", acks=0) + produce("orders") + produce("secret-x", acks=0) + produce("orders")),
        (RESPONSE, produced("orders")),
    ],
    "all topics": [
        (REQUEST, ask("ApiVersions", 3, {}) + ask("Metadata", 9, {"topics": None}, 2)),
        (RESPONSE, say("ApiVersions", 3, {"api_keys": [{"api_key": 3, "max_version": 99}]})),
        (RESPONSE, say("Metadata", 9, {"topics": TOPICS}, 2)),
    ],
    "an error": [
        (REQUEST, ask("LeaveGroup", 0, {"group_id": "g"}) + ask("EndTxn", 3, {"transactional_id": "t"}, 2)),
        (RESPONSE, say("LeaveGroup", 0, {"error_code": 30}) + say("EndTxn", 3, {"error_code": 53}, 2)),
    ],
    "pages": [
        (REQUEST, ask("DescribeTopicPartitions", 0, {"response_partition_limit": 1}) + produce("orders", number=2)),
        (RESPONSE, say("Metadata", 12, {"topics": TOPICS})),
        (RESPONSE, say("DescribeTopicPartitions", 0, {"topics": TOPICS[:1]}) + produced("orders", number=2)),
    ],
    "session": [
        (REQUEST, fetch("orders")),
        (RESPONSE, fetched("orders", session=5)),
        (REQUEST, fetch(session=5, epoch=1, number=2) + fetch(session=6, epoch=1, number=3)),
        (RESPONSE, fetched(session=5, number=2)),
    ],
    "ids": [
        (REQUEST, fetch("orders", "secret-x", version=13) + produce("orders", number=2)),
        (RESPONSE, metadata(orders=IDS["orders"], secret_x=IDS["secret-x"])),
        (RESPONSE, fetched("orders", version=13) + produced("orders", number=2)),
    ],
    "tokens": [
        (REQUEST, SHAKE + framed(b"\0user\0word") + produce("secret-x")),
        (RESPONSE, SHAKEN),
        (RESPONSE, framed(b"")),
    ],
    "malformed": [
        (REQUEST, produce("orders") + framed(produce("orders")[4:-2]) + produce("orders")),
        (RESPONSE, produced("orders")),
    ],
    "unknown": [(REQUEST, framed(b"\0\x12\0\x09" + bytes(40)) + framed(b"\0\x99" + bytes(12)))],
    "no response": [(REQUEST, produce("orders")), (RESPONSE, produced("orders", number=2))],
}


def play(lines: Lines, cut: Callable[[bytes], list[bytes]], **how: Any) -> Rig:
    rig = Rig(Teller(**how))
    for direction, data in lines:
        for part in cut(data):
            rig.arrive(direction, part)
    return rig.finish()


def result(rig: Rig) -> tuple[object, ...]:
    """What must not depend on how the bytes came."""
    return rig.server, rig.client, rig.told, type(rig.ending), rig.known.held


@pytest.mark.parametrize("audit", [False, True])
@pytest.mark.parametrize("name", DIALOGUES)
def test_splits(name: str, audit: bool) -> None:
    lines = DIALOGUES[name]
    whole = result(play(lines, lambda data: [data], audit_only=audit))
    assert result(play(lines, lambda data: [data[i : i + 1] for i in range(len(data))], audit_only=audit)) == whole
    for index, (_, line) in enumerate(lines):
        for place in range(1, len(line)):
            cut = [(d, part) for n, (d, one) in enumerate(lines) for part in parts(one, place if n == index else 0)]
            assert result(play(cut, lambda data: [data], audit_only=audit)) == whole, (index, place)


def parts(line: bytes, place: int) -> list[bytes]:
    return [line[:place], line[place:]] if place else [line]


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("name", DIALOGUES)
def test_what_is_cut_off(name: str, end: bool) -> None:
    """The server and the client get the beginning of what they would get, and bytes of whole requests alone."""
    lines = DIALOGUES[name]
    full = play(lines, lambda data: [data])
    for index, (direction, line) in enumerate(lines):
        for place in range(len(line)):
            rig = Rig()
            for before, data in lines[:index]:
                rig.arrive(before, data)
            if rig.ending:
                continue
            rig.arrive(direction, line[:place], end)
            rig.finish()
            assert full.server.startswith(rig.server) and full.client.startswith(rig.client)
            served = b"".join(frame for frame in rig.frames(REQUEST))
            assert rig.server == served and rig.known.held == 0


@pytest.mark.parametrize("name", DIALOGUES)
def test_what_stands_behind(name: str) -> None:
    """Garbage behind a dialogue closes it, and never reaches the server."""
    for garbage in (b"\0\0\0\0", b"\xff" * 9, framed(b"GET / HTTP/1.1"), produce("secret-x")):
        rig = play(DIALOGUES[name], lambda data: [data])
        before = rig.server
        if not rig.ending:
            rig.ask(garbage)
        assert rig.server == before


ALLOWED = {b"orders", b"payments"}


@settings(max_examples=400)
@given(st.data())
def test_mutated_bytes_reach_the_server_judged_or_not_at_all(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(DIALOGUES)))
    chance = Random(data.draw(st.integers(0, 1 << 32)))
    rig = Rig(Teller(KafkaOptions(max_pipeline=3)))
    rig.garbled(DIALOGUES[name], chance, 4)
    assert rig.known.held == 0
    for frame in rig.frames(REQUEST):
        if name == "tokens" and frame == framed(b"\0user\0word"):
            continue
        if name != "tokens":
            head, _ = parse(frame)
            assert head.known
            assert b"secret" not in frame
