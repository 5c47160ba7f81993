"""What the fast path takes of Kafka, and that it is told of as if it had come by the proxy."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l7proxy.offers import Offer
from l7proxy.ops import KafkaCall, KafkaRequest, Record
from parsers.malformed import Malformed
from parsers.options import KafkaOptions
from sockmap.splice_lanes import COMPACT, PREFIX, RECORDS
from tests.kafka.rig import IDS, Rig, Teller, ask, fetch, metadata, produce, produced
from tests.matching import mutated, straight

VERSIONS = range(3, 14)


def one(version: int, size: int = 10, number: int = 1, topic: str = "orders", **more: Any) -> bytes:
    named = {"topic_id": IDS[topic]} if version >= 13 else {"name": topic}
    rows = [{"index": more.pop("partition", 0), "records": b"r" * size}]
    tree = {"acks": -1, "timeout": 1000, "topic_data": [named | {"partition_data": rows}]}
    return ask("Produce", version, tree | more, number)


def known(version: int, judge: Teller | None = None, **more: Any) -> Rig:
    """A client that has asked twice for the same, as its offers show."""
    rig = Rig(judge)
    rig.talk.offers = []
    for number in (1, 2):
        rig.ask(one(version, number=number, **more))
        if number == 1 and version >= 13:
            rig.say(metadata(orders=IDS["orders"]))
        rig.say(produced("orders", version=version, number=number))
    rig.records.clear()
    return rig


def offers(rig: Rig) -> list[Offer]:
    return rig.talk.offers or []


def quiet(rig: Rig) -> bool:
    """Requests and answers may go straight."""
    return rig.talk.repeats(1.0) and rig.talk.hears()


def told(record: Record) -> tuple[KafkaRequest, int, int, bool]:
    assert isinstance(record.request, KafkaRequest) and isinstance(record.call, KafkaCall)
    return record.request, record.code, record.call.correlation_id, record.call.answered


@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_asked_for_twice_is_offered_whatever_its_records_and_partition(version: int) -> None:
    rig = known(version)
    (offer,), form = offers(rig), rig.talk.form()
    assert offer.tail == (COMPACT if version >= 9 else RECORDS) and len(offer.prefix) == len(offer.mask) <= PREFIX
    for message in (
        one(version, 1),
        one(version, 200),
        one(version, 70_000, 77),
        one(version, partition=9),
        one(version, number=-1),
    ):
        assert straight(offers(rig), form, message) is offer
    for message in (
        one(version, topic="payments"),
        one(version, acks=0),
        one(version, acks=1),
        one(version, transactional_id="t"),
        one(version, timeout=9),
        one(version - 1 if version > 3 else 4),
        one(version)[:-1],
        one(version) + b"\0",
        ask("Produce", version, {"topic_data": []}, client="other"),
    ):
        assert straight(offers(rig), form, message) is None


def test_nothing_is_offered_unasked_nor_what_has_more_to_it() -> None:
    rig = Rig()
    for number in range(3):
        rig.ask(produce("orders", number=number)).say(produced("orders", number=number))
    assert rig.talk.offers is None
    rig = known(9, acks=0)
    assert not offers(rig)
    for judge in (Teller(refused=["orders"]), Teller(refused=["orders"], audit_only=True)):
        assert not offers(known(9, judge))
    rig = Rig()
    rig.talk.offers = []
    for number in range(3):
        rig.ask(produce("orders", "payments", number=number)).say(produced("orders", "payments", number=number))
    long = ask("Produce", 9, {"acks": -1, "topic_data": [{"name": "o" * 120, "partition_data": [{"index": 0}]}]})
    rig.ask(long).ask(long)
    assert not offers(rig)


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=60)
@given(
    places=st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=3),
    tail=st.binary(max_size=4),
    size=st.integers(0, 300),
    whole=st.booleans(),
)
def test_whatever_goes_straight_would_have_passed(
    version: int, places: list[tuple[int, int]], tail: bytes, size: int, whole: bool
) -> None:
    rig = known(version)
    message = mutated(one(version, size), places, tail)
    if whole:
        message = struct.pack(">i", len(message) - 4) + message[4:]
    if straight(offers(rig), rig.talk.form(), message) is None:
        return
    rig.frames(0)
    before = len(rig.server)
    rig.ask(message)
    assert rig.server[before:] == message and not rig.closed and not rig.aborted
    assert [record.request.decision.verdict.value for record in rig.records] in ([], ["FORWARDED"])


@pytest.mark.parametrize("version", VERSIONS)
def test_notes_make_the_records_that_relaying_makes(version: int) -> None:
    rig = known(version)
    (offer,) = offers(rig)
    rig.ask(one(version, number=-7)).say(produced("orders", version=version, number=-7))
    (relayed,) = rig.records
    rig.talk.went(offer.entry, 0xFFFFFFF9, 5.0)
    made = rig.talk.heard(0xFFFFFFF9, produced("orders", version=version, number=-7)[:32], 5.5)
    assert told(made) == told(relayed) and (made.started, made.ended) == (5.0, 5.5)
    assert rig.talk.idle and rig.talk.group() is rig.talk.group()


def test_what_was_asked_by_the_proxy_and_went_straight_is_answered_in_order() -> None:
    rig = known(9)
    (offer,) = offers(rig)
    rig.ask(produce("orders", number=5))
    rig.talk.went(offer.entry, 6, 1.0)
    assert told(rig.talk.heard(5, produced("orders", number=5)[:32], 2.0))[2] == 5
    rig.say(produced("orders", number=6))
    assert [told(record)[2] for record in rig.records] == [6] and rig.talk.idle


@pytest.mark.parametrize("answer", [produced("orders", number=8), b"\0\0\0\3" + bytes(4)])
def test_an_answer_that_is_not_the_one_that_is_due_ends_the_connection(answer: bytes) -> None:
    rig = known(9)
    (offer,) = offers(rig)
    rig.talk.went(offer.entry, 7, 1.0)
    with pytest.raises(Malformed):
        rig.talk.heard(8, answer[:32], 2.0)


def test_an_answer_that_nobody_asked_for_ends_the_connection() -> None:
    with pytest.raises(Malformed, match="nobody asked for"):
        known(9).talk.heard(8, produced("orders", number=8)[:32], 2.0)


ASKS: dict[str, Callable[[], bytes]] = {
    "rewritten": lambda: ask("Metadata", 12, {"topics": None}),
    "fetched": lambda: fetch(IDS["orders"]),
    "refused": lambda: produce("secret-x"),
    "partly": lambda: produce("orders", "secret-x"),
    "handshake": lambda: ask("SaslHandshake", 1, {"mechanism": "PLAIN"}),
    "half": lambda: produce("orders")[:-3],
}


@pytest.mark.parametrize("name", ASKS)
def test_answers_that_are_looked_at_do_not_go_straight(name: str) -> None:
    rig = known(9)
    assert quiet(rig)
    rig.ask(produce("orders", number=5))
    assert quiet(rig)
    rig.ask(ASKS[name]())
    assert not quiet(rig)
    assert rig.talk.repeats(1.0) is (name not in ("handshake", "half"))


def test_requests_have_their_limit_and_another_policy_another_group() -> None:
    judge = Teller(KafkaOptions(max_request=100))
    rig = known(9, judge)
    form = rig.talk.form()
    assert straight(offers(rig), form, one(9, 20)) and straight(offers(rig), form, one(9, 90)) is None
    group = rig.talk.group()
    rig.talk.judge = Teller()
    assert rig.talk.group() is not group and rig.talk.group().number != group.number
