"""However requests and answers come together, the same becomes of them: the hot paths are no other rules."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers.cassandra import TRACING
from parsers.options import CassandraOptions
from tests.cassandra import words
from tests.cassandra.rig import Rig, Teller, Told, id_of, stream_of
from tests.conversations import REQUEST, RESPONSE

SELECT = "SELECT name FROM shop.orders WHERE id = ?"
ASKS: dict[str, Callable[[Rig, int], bytes]] = {
    "execute": lambda rig, stream: words.execute(id_of(SELECT), rig.version, stream, [b"\0\0\0\1"]),
    "unprepared": lambda rig, stream: rig.execute(id_of("other"), stream),
    "query": lambda rig, stream: rig.query("SELECT name FROM shop.orders WHERE id = 7", stream),
    "refused": lambda rig, stream: rig.query("SELECT name FROM shop.secrets WHERE id = 7", stream),
    "unread": lambda rig, stream: rig.query("SELECT FROM FROM", stream),
    "traced": lambda rig, stream: flagged(rig.query("SELECT name FROM shop.orders", stream)),
    "batch": lambda rig, stream: rig.batch("DELETE FROM shop.orders WHERE id = 1", stream=stream),
    "options": lambda rig, stream: words.options(rig.version, stream),
}
ANSWERS: dict[str, Callable[[Rig, int], bytes]] = {
    "void": lambda rig, stream: rig.void(stream),
    "rows": lambda rig, stream: rig.rows(stream, 300),
    "error": lambda rig, stream: rig.error(0x1000, stream),
}
Outcome = tuple[list[bytes], list[bytes], list[Told], bool]
Together = Callable[[Rig, list[bytes]], list[bytes]]


def flagged(envelope: bytes) -> bytes:
    return envelope[:1] + bytes([TRACING]) + envelope[2:]


def opened(version: int, judge: Teller | None = None) -> Rig:
    """The statement is prepared."""
    rig = Rig(version, judge)
    rig.ask(rig.prepare(SELECT, 99)).say(rig.prepared(id_of(SELECT), 99))
    rig.served(), rig.heard(), rig.records.clear()
    return rig


def played(version: int, asks: list[str], answers: list[str], together: Together) -> Outcome:
    """`together` makes arrivals of what is sent."""
    rig = opened(version)
    for part in together(rig, [ASKS[name](rig, stream) for stream, name in enumerate(asks)]):
        rig.arrive(REQUEST, part)
    served = rig.served()
    for part in together(rig, [ANSWERS[name](rig, stream_of(one)) for one, name in zip(served, answers, strict=False)]):
        rig.arrive(RESPONSE, part)
    return served, sorted(rig.heard()), sorted(rig.told), rig.closed or rig.aborted


def in_one_segment(rig: Rig, envelopes: list[bytes]) -> list[bytes]:
    return [rig.wire(*envelopes)] if envelopes else []


def in_one_read(rig: Rig, envelopes: list[bytes]) -> list[bytes]:
    return [b"".join(map(rig.wire, envelopes))] if envelopes else []


def one_by_one(rig: Rig, envelopes: list[bytes]) -> list[bytes]:
    return list(map(rig.wire, envelopes))


def in_bytes(rig: Rig, envelopes: list[bytes]) -> list[bytes]:
    return [bytes([one]) for one in b"".join(map(rig.wire, envelopes))]


@settings(max_examples=60)
@given(
    st.sampled_from([4, 5]),
    st.lists(st.sampled_from(sorted(ASKS)), max_size=7),
    st.lists(st.sampled_from(sorted(ANSWERS)), min_size=7, max_size=7),
)
def test_what_comes_together(version: int, asks: list[str], answers: list[str]) -> None:
    alone = played(version, asks, answers, one_by_one)
    for together in (in_one_read, in_one_segment, in_bytes):
        assert played(version, asks, answers, together) == alone


@pytest.mark.parametrize("version", [4, 5])
def test_two_answers_to_one_request(version: int) -> None:
    """The second is none of the server's, in a segment as well as behind it."""
    for join in (in_one_read, in_one_segment):
        rig = opened(version)
        rig.ask(ASKS["execute"](rig, 1))
        for part in join(rig, [rig.void(1), rig.void(1)]):
            rig.arrive(RESPONSE, part)
        assert rig.aborted


@pytest.mark.parametrize("version", [4, 5])
def test_limits_hold_there_too(version: int) -> None:
    rig = opened(version)
    rig.judge.cassandra = CassandraOptions(max_frame=20)
    rig.ask(ASKS["execute"](rig, 1))
    assert not rig.served() and "a body of" in rig.reason
    rig = opened(version)
    rig.judge.cassandra = CassandraOptions(max_in_flight=2)
    for stream in range(3):
        rig.ask(ASKS["execute"](rig, stream))
    assert len(rig.served()) == 2
    rig.say(rig.void(0))
    assert len(rig.served()) == 1


@pytest.mark.parametrize("version", [4, 5])
def test_a_stream_that_waits_may_not_be_used_again(version: int) -> None:
    rig = opened(version)
    for part in in_one_read(rig, [ASKS["execute"](rig, 1)] * 2):
        rig.arrive(REQUEST, part)
    assert len(rig.served()) == 1 and "a second request on stream 1" in rig.reason
