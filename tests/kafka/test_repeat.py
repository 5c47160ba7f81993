"""Produce requests that differ only in their records are decided on once; whoever asks for something else is judged."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.kafka import read_head
from parsers.kafka_names import Asked, asked
from parsers.kafka_repeat import repeated
from parsers.malformed import Malformed
from parsers.options import KafkaOptions
from policies.verdict import Verdict
from tests.kafka.requests import trees
from tests.kafka.rig import IDS, Rig, Teller, ask, fetch, framed, metadata, produce, produced, say

VERSIONS = range(3, 14)


def rows(*sizes: int) -> list[dict[str, Any]]:
    return [{"index": number, "records": b"r" * size} for number, size in enumerate(sizes)]


def one(version: int, *sizes: int, number: int = 1, **more: Any) -> bytes:
    topic = {"topic_id": IDS["orders"]} if version >= 13 else {"name": "orders"}
    tree = {"acks": -1, "timeout": 1000, "topic_data": [topic | {"partition_data": rows(*sizes)}]}
    return ask("Produce", version, tree | more, number)


def shape(frame: bytes) -> tuple[Any, ...] | None:
    """What a request means for a policy; None if it is malformed."""
    try:
        head = read_head(frame, 4, len(frame))
        wants: Asked = asked(head, frame)
    except Malformed:
        return None
    return head.api_key, head.version, head.client_id, wants


@pytest.mark.parametrize("version", VERSIONS)
def test_what_comes_again_is_known_by_all_but_records_and_correlation_id(version: int) -> None:
    first = repeated(data := one(version, 10), 0, len(data))
    assert first is not None
    for other in (one(version, 10, number=77), one(version, 0), one(version, 127), one(version, 20_000)):
        assert repeated(b"before" + other + b"behind", 6, 6 + len(other)) == first
        assert repeated(other + b"\0", 0, len(other) + 1) is None
    for other in (one(version, 10, 10), one(version, 10, acks=0), one(version, 10, transactional_id="t")):
        assert repeated(other, 0, len(other)) not in (None, first)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_not_plain_is_looked_at(version: int) -> None:
    topics = [{"name": name, "topic_id": IDS["orders"], "partition_data": rows(3)} for name in ("orders", "secret-x")]
    empty = one(version, 0)
    null = empty[:-4] + (bytes(4) if version >= 9 else b"\xff\xff\xff\xff")
    for frame in (one(version, 3, topic_data=topics), one(version, topic_data=[]), null):
        assert repeated(frame, 0, len(frame)) is None
    whole = one(version, 3)
    for size in range(len(whole)):
        assert repeated(whole[:size] + bytes(40), 0, size) is None
    assert repeated(fetch("orders"), 0, len(fetch("orders"))) is None


@given(st.data())
def test_what_is_in_common_is_all_that_a_policy_asks_about(data: st.DataObject) -> None:
    version = data.draw(st.sampled_from(VERSIONS))
    tree = data.draw(trees(0, version))
    tree["topic_data"] = tree["topic_data"][: data.draw(st.sampled_from([1, 1, 1, 3]))]
    frame = bytearray(ask("Produce", version, tree, client=data.draw(st.sampled_from(["a", "", None]))))
    for _ in range(data.draw(st.integers(0, 2))):
        frame[data.draw(st.integers(4, len(frame) - 1))] = data.draw(st.integers(0, 255))
    raw = bytes(frame)
    found = repeated(raw, 0, len(raw))
    if found is not None:
        other = plain(found)
        assert repeated(other, 0, len(other)) == found
        assert shape(raw) == shape(other)  # None: a beginning that is never allowed, and so is never remembered


def plain(common: bytes) -> bytes:
    """The request of this beginning without records."""
    flexible = common[3] >= 9
    count = common[-1] - 1 if flexible else int.from_bytes(common[-4:], "big")
    partitions = (bytes(4) + (b"\1\0" if flexible else bytes(4))) * count
    return framed(common[:4] + bytes(4) + common[4:] + partitions + (b"\0\0" if flexible else b""))


def test_a_request_that_comes_again_is_judged_once() -> None:
    rig = Rig()
    for number in range(1, 4):
        rig.ask(produce("orders", number=number)).say(produced("orders", number=number))
    assert len(rig.judge.judged) == 1
    assert [(code, number) for _, _, number, code, _ in rig.told] == [(0, 1), (0, 2), (0, 3)]
    assert len(rig.served()) == 3
    assert rig.topics() == {"orders": "FORWARDED"}


def test_what_was_allowed_says_nothing_of_others() -> None:
    rig = Rig()
    rig.ask(produce("orders")).say(produced("orders"))
    rig.ask(produce("secret-x", number=2)).ask(produce("secret-x", number=3)).ask(
        produce("orders", "secret-x", number=4)
    )
    assert [verdict for verdict, *_ in rig.told] == ["FORWARDED", "DROPPED", "DROPPED"]
    assert [head.correlation_id for head, _ in rig.served()] == [1, 4]


def test_a_new_policy_judges_anew() -> None:
    rig = Rig()
    rig.ask(produce("orders")).say(produced("orders"))
    rig.talk.judge = Teller(refused=["orders"])
    rig.ask(produce("orders", number=2))
    assert [verdict for verdict, *_ in rig.told] == ["FORWARDED", "DROPPED"]
    assert len(rig.served()) == 1


def test_what_would_be_refused_is_recorded_each_time() -> None:
    rig = Rig(Teller(audit_only=True))
    for number in (1, 2):
        rig.ask(produce("secret-x", number=number)).say(produced("secret-x", number=number))
    assert [verdict for verdict, *_ in rig.told] == [Verdict.AUDIT.value] * 2


def test_an_id_is_that_of_one_server() -> None:
    judge = Teller()
    first = Rig(judge)
    first.ask(produce("orders", version=13)).say(metadata(orders=IDS["orders"]))
    assert [head.api_key for head, _ in first.served()] == [3, 0]
    other = Rig(judge, server=("10.0.0.8", 9092))
    other.ask(produce("orders", version=13))
    assert [head.api_key for head, _ in other.served()] == [3]
    other.say(metadata(secret_x=IDS["orders"]))
    assert other.served() == []
    assert [verdict for verdict, *_ in other.told] == ["DROPPED"]


def test_no_answer_is_due_for_acks_0_the_second_time_either() -> None:
    rig = Rig()
    rig.ask(produce("orders", acks=0)).ask(produce("orders", acks=0, number=2)).ask(produce("orders", number=3))
    rig.say(produced("orders", number=3))
    assert [number for _, _, number, _, _ in rig.told] == [1, 2, 3]
    assert not rig.closed and not rig.aborted


def test_tokens_are_no_requests() -> None:
    rig = Rig()
    rig.ask(produce("orders")).say(produced("orders"))
    rig.ask(ask("SaslHandshake", 0, {"mechanism": "PLAIN"})).say(say("SaslHandshake", 0, {"error_code": 0}))
    rig.ask(produce("orders")).say(struct.pack(">i", 0))
    assert [api for _, api, *_ in rig.told] == ["Produce", "SaslHandshake"]


def test_pipelines_have_their_limit() -> None:
    rig = Rig(Teller(KafkaOptions(max_pipeline=3)))
    rig.ask(b"".join(produce("orders", number=number) for number in range(6)))
    assert len(rig.served()) == 3
    for number in range(6):
        rig.say(produced("orders", number=number))
    assert len(rig.told) == 6
