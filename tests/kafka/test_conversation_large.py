"""Requests to Produce that are too large to be held: topics are judged as they come, records go by count."""

from __future__ import annotations

from typing import Any

import pytest

from l7proxy.ops import Pass
from parsers.kafka import Head, read_head
from parsers.kafka_produce import ProduceScan
from parsers.malformed import Malformed
from parsers.options import KafkaOptions
from tests.conversations import REQUEST
from tests.kafka.rig import IDS, Rig, Teller, answer, ask, framed, metadata, produce, produced

SMALL = KafkaOptions(max_held=65_536)
BIG = 200_000


def codes(frame: bytes, version: int = 9, number: int = 1) -> dict[Any, int]:
    field = "topic_id" if version >= 13 else "name"
    said = answer(frame, "Produce", version, number)["responses"]
    return {one[field]: one["partition_responses"][0]["error_code"] for one in said}


@pytest.mark.parametrize("version", [3, 8, 9, 12])
@pytest.mark.parametrize("step", [70_000, 100_000, 1 << 20])
def test_one_topic_goes_on_as_it_comes(version: int, step: int) -> None:
    rig, data = Rig(Teller(SMALL)), produce("orders", version=version, size=1_000_000)
    for start in range(0, len(data), step):
        rig.ask(data[start : start + step])
        assert rig.known.held == 0 and len(rig.server) == min(start + step, len(data))
    rig.ask(produce("orders", version=version, number=2)).say(produced("orders", version=version))
    assert rig.server == data + produce("orders", version=version, number=2) and rig.ending is None
    assert rig.told == [("FORWARDED", "Produce", 1, 0, True)] and rig.topics() == {"orders": "FORWARDED"}


def test_the_records_are_one_operation() -> None:
    rig, data = Rig(), produce("orders", size=20_000_000)
    rig.ask(data[:65_536])
    assert isinstance(rig.ops[0], Pass) and rig.halves[REQUEST].credit > 19_000_000
    rig.ask(data[65_536:]).say(produced("orders")).finish()
    assert rig.server == data and len(rig.told) == 1


@pytest.mark.parametrize("acks", [-1, 0])
def test_one_that_is_refused_is_read_to_its_end(acks: int) -> None:
    rig = Rig(Teller(SMALL))
    data = produce("secret-x", size=BIG, acks=acks) + produce("orders", number=2)
    for start in range(0, len(data), 70_000):
        rig.ask(data[start : start + 70_000])
    if acks:
        assert codes(rig.heard()[0]) == {"secret-x": 29} and rig.server == produce("orders", number=2)
    else:
        assert rig.closed and rig.client == rig.server == b""
    assert rig.told == [("DROPPED", "Produce", 1, 29, False)]


def test_several_topics_are_held_if_they_can_be() -> None:
    rig, data = Rig(), produce("orders", "secret-x", size=BIG)
    rig.ask(data[:100_000])
    assert rig.server == b"" and rig.known.held == 100_000
    rig.ask(data[100_000:]).say(produced("orders"))
    assert codes(rig.heard()[0]) == {"orders": 0, "secret-x": 29} and len(rig.server) < BIG + 200


@pytest.mark.parametrize("step", [70_000, 1 << 20])
def test_several_topics_that_are_allowed_need_not_be_held(step: int) -> None:
    rig, data = Rig(Teller(SMALL)), produce("orders", "payments", size=BIG)
    rig.ask(data[:-1]) if step > len(data) else None
    for start in range(0 if step < len(data) else len(data) - 1, len(data), step):
        rig.ask(data[start : start + step])
    rig.say(produced("orders", "payments"))
    assert rig.server == data and rig.heard() == [produced("orders", "payments")]
    assert rig.topics() == {"orders": "FORWARDED", "payments": "FORWARDED"}


@pytest.mark.parametrize("acks", [-1, 0])
def test_a_refused_topic_behind_one_that_has_gone_on(acks: int) -> None:
    rig = Rig(Teller(SMALL)).ask(produce("orders", number=5))
    data = produce("orders", "secret-x", "payments", size=BIG, acks=acks)
    for start in range(0, len(data), 70_000):
        rig.ask(data[start : start + 70_000])
    rig.ask(produce("orders", number=6))
    # The server has less than a request, and what is behind the first topic's records is not there.
    assert len(rig.served()) == 1 and b"secret" not in rig.server and len(rig.server) < BIG + 300
    assert rig.ending is None and rig.client == b""
    rig.say(produced("orders", number=5))
    assert rig.closed
    first, *others = rig.heard()
    assert first == produced("orders", number=5)
    if acks:
        assert codes(others[0]) == {"orders": 13, "secret-x": 29, "payments": 13}
    assert rig.told[1][:3] == ("DROPPED", "Produce", 1)
    assert len(rig.finish().records) == 2


def test_a_refused_topic_before_others() -> None:
    rig = Rig(Teller(SMALL))
    data = produce("secret-x", "orders", size=BIG) + produce("orders", number=2)
    for start in range(0, len(data), 70_000):
        rig.ask(data[start : start + 70_000])
    assert codes(rig.heard()[0]) == {"secret-x": 29, "orders": 13}
    assert rig.server == produce("orders", number=2) and rig.ending is None


def test_ids_of_large_ones() -> None:
    rig, data = Rig(Teller(SMALL)), produce("orders", version=13, size=BIG)
    rig.ask(data[:70_000])
    assert len(rig.served()) == 1 and not rig.server.endswith(data[:70_000])
    rig.say(metadata(orders=IDS["orders"]))
    rig.ask(data[70_000:]).say(produced("orders", version=13))
    assert rig.server.endswith(data) and rig.heard() == [produced("orders", version=13)]


def test_the_client_ends_within_one() -> None:
    data = produce("orders", size=BIG)
    rig = Rig().ask(produce("payments", number=3) + data[:100_000], end=True).say(produced("payments", number=3))
    assert rig.halves[REQUEST].ended and len(rig.records) == 2 and rig.talk.idle
    assert "within it" in rig.records[0].request.decision.reason
    assert len(rig.say(b"", end=True).finish().records) == 2


def test_stopping_within_one() -> None:
    rig, data = Rig(), produce("orders", size=BIG)
    rig.ask(data[:100_000])
    rig.apply(rig.talk.draining(1.0))
    assert rig.ending is None and rig.talk.receiving
    rig.ask(data[100_000:] + produce("orders")).say(produced("orders"))
    assert rig.closed and rig.server == data and rig.heard() == [produced("orders")]


def broken(index: int, raw: bytes, size: int = BIG) -> bytes:
    data = bytearray(produce("orders", size=size, version=8))
    data[index : index + len(raw)] = raw
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        # Where the records' length stands, in version 8: null, too long.
        (broken(46, b"\xff\xff\xff\xff"), "null where records must be"),
        (broken(46, b"\x00\xff\xff\xff"), "behind its end"),
        (broken(30, b"\xff\xff"), "null where a topic must be"),
        (broken(30, b"\x7f\xff"), "a name of 32767 bytes"),
    ],
)
def test_large_ones_that_are_none(data: bytes, why: str) -> None:
    rig = Rig().ask(produce("orders", number=9) + data[:100_000])
    rig.ask(data[100_000:]).say(produced("orders", number=9))
    assert rig.closed and len(rig.heard()) == 1 and len(rig.served()) == 1
    assert len(rig.records) == 2 and why in rig.records[1].request.decision.reason


def test_nothing_may_stand_behind_a_large_one() -> None:
    data = broken(46, b"\x00\x00\x00\x01")
    rig = Rig().ask(data[:100_000]).ask(data[100_000:] + produce("payments", number=2))
    assert rig.closed and len(rig.server) < 60 and "behind the end" in rig.records[0].request.decision.reason
    # The last partition's records may be read before it is known that they are the last.
    whole = produce("orders", size=BIG, version=8)
    longer = framed(whole[4:] + b"more")
    rig = Rig().ask(longer[:100_000]).ask(longer[100_000:])
    assert rig.closed and len(rig.server) < len(longer)


def test_a_head_that_never_ends_is_bounded() -> None:
    head = framed(b"\0\0\0\x09" + bytes(4) + b"\xff\xff" + b"\x01\x05\xff\xff\xff\x01" + bytes(1 << 20))
    rig = Rig(Teller(SMALL))
    for start in range(0, len(head), 10_000):
        rig.ask(head[start : start + 10_000])
        assert rig.known.held == 0 and len(rig.halves[REQUEST].pending) < 65_536
    assert rig.closed and rig.server == b""


def test_large_ones_that_name_too_much() -> None:
    many = [{"name": "t", "partition_data": [{"records": b"r" * 200}]}] * 1000
    rig = Rig(Teller(KafkaOptions(max_held=65_536, max_names=999)))
    rig.ask(ask("Produce", 9, {"acks": 1, "topic_data": many})[:100_000])
    assert rig.closed and rig.server == b"" and "names 1000 things" in rig.records[0].request.decision.reason
    tiny = [{"name": "orders", "partition_data": [{"records": b""}] * 100_001}]
    data = ask("Produce", 8, {"acks": 1, "topic_data": tiny})
    rig = Rig(Teller(SMALL)).ask(data[:100_000]).ask(data[100_000:])
    assert rig.closed and "more than 100000 partitions" in rig.records[0].request.decision.reason
    assert len(rig.server) < len(data)
    scan = ProduceScan(Head(0, 9, 1, None, 0, 0))
    raw = b"\0" + bytes(6) + b"\2" + b"\2t\2" + bytes(4) + b"\1" + b"\xe9\x07"
    place = 0
    with pytest.raises(Malformed, match="1001 tagged fields"):
        while size := scan.step(raw, place):
            place += size


def test_the_scan_reads_what_the_codec_reads() -> None:
    for version in range(3, 14):
        data = [
            {
                "topic_id" if version >= 13 else "name": IDS["orders"] if version >= 13 else name,
                "partition_data": [{"index": index, "records": b"r" * 50} for index in range(3)],
            }
            for name in ("a", "b" * 200)
        ]
        tree = {"transactional_id": "t", "acks": 1, "timeout": 5, "topic_data": data}
        raw = ask("Produce", version, tree)
        scan = ProduceScan(read_head(raw, 4, len(raw)))
        place = scan.head.body
        for stop in range(place, len(raw) + 1):
            while not scan.done and (size := scan.step(raw[:stop], place)):
                place += size
        assert scan.done and place == len(raw) and (scan.acks, scan.timeout, scan.transactional_id) == (1, 5, "t")
        for one in data:
            for part in one["partition_data"]:
                part["records"] = None
        assert scan.topics == data
    with pytest.raises(Malformed):
        scan = ProduceScan(read_head(raw, 4, len(raw)))
        scan.step(b"\xff" * 10, 0)


def test_a_large_request_that_comes_again_goes_as_a_whole() -> None:
    rig = Rig()
    for number in (1, 2):
        frame = produce("orders", size=300_000, number=number)
        before = len(rig.ops)
        for place in range(0, len(frame), 100_000):
            rig.ask(frame[place : place + 100_000])
        rig.say(produced("orders", number=number))
    assert len(rig.judge.judged) == 1
    assert rig.ops[before:] == [Pass(len(frame)), rig.records[-1], Pass(len(produced("orders")))]
    assert [(number, answered) for _, _, number, _, answered in rig.told] == [(1, True), (2, True)]
    assert len(rig.served()) == 2


@pytest.mark.parametrize("other", [produce("secret-x", size=300_000), produce("orders", "secret-x", size=300_000)])
def test_another_large_request_is_judged(other: bytes) -> None:
    rig = Rig()
    rig.ask(produce("orders", size=300_000)[:100_000])
    rig.ask(produce("orders", size=300_000)[100_000:]).say(produced("orders"))
    assert len(rig.served()) == 1
    rig.ask(other[:100_000])
    for place in range(100_000, len(other), 100_000):
        rig.ask(other[place : place + 100_000])
    assert [one.topic for one in rig.judge.judged[1:]][-1] == "secret-x"
    assert b"secret-x" not in rig.server


def test_a_large_request_that_comes_again_and_is_cut_off_has_one_record() -> None:
    rig = Rig()
    frame = produce("orders", size=300_000)
    rig.ask(frame[:100_000]).ask(frame[100_000:]).say(produced("orders"))
    rig.ask(frame[:100_000]).ask(b"", end=True)
    rig.say(b"", end=True)
    rig.apply(rig.talk.finish(9.0))
    assert [(api, answered) for _, api, _, _, answered in rig.told] == [("Produce", True), ("Produce", False)]
