"""Dialogues of Kafka: what passes, what is refused, and in which order it is answered."""

from __future__ import annotations

import pytest

from l7proxy.ops import Pass, Record
from parsers.facts import KafkaRequest
from parsers.options import KafkaOptions
from tests.conversations import REQUEST
from tests.kafka.rig import IDS, Rig, Teller, answer, ask, fetch, fetched, framed, parse, produce, produced, say

ONE = "FORWARDED", "Produce", 1, 0, True


def test_what_is_allowed_passes_verbatim() -> None:
    rig, data, reply = Rig(), produce("orders"), produced("orders")
    rig.ask(data).say(reply).finish()
    assert (rig.server, rig.client, rig.ending) == (data, reply, None)
    assert rig.told == [ONE] and rig.topics() == {"orders": "FORWARDED"}
    # What the relay does without ado: one operation, or a record before it.
    assert rig.ops[0] == Pass(len(data)) and isinstance(rig.ops[1], Record) and rig.ops[2] == Pass(len(reply))
    assert rig.talk.idle


def test_a_refused_request_is_answered_as_a_broker_does() -> None:
    rig = Rig().ask(produce("secret-x", number=5))
    (frame,) = rig.heard()
    (topic,) = answer(frame, "Produce", 9, 5)["responses"]
    assert topic["name"] == "secret-x" and topic["partition_responses"][0]["error_code"] == 29
    assert (rig.server, rig.ending) == (b"", None)
    assert rig.told == [("DROPPED", "Produce", 5, 29, False)] and rig.topics() == {"secret-x": "DROPPED"}
    rig.ask(produce("orders")).say(produced("orders")).finish()
    assert rig.told[1:] == [ONE]


def test_a_part_of_a_request_is_asked_for_and_the_answer_completed() -> None:
    rig = Rig().ask(produce("orders", "secret-x", "payments"))
    ((head, tree),) = rig.served()
    assert [one["name"] for one in tree["topic_data"]] == ["orders", "payments"]
    assert (head.client_id, head.correlation_id) == ("shop", 1)
    rig.say(produced("orders", "payments"))
    (frame,) = rig.heard()
    codes = {
        one["name"]: one["partition_responses"][0]["error_code"] for one in answer(frame, "Produce", 9)["responses"]
    }
    assert codes == {"orders": 0, "payments": 0, "secret-x": 29}
    assert rig.told == [("DROPPED", "Produce", 1, 29, True)]
    assert rig.topics() == {"secret-x": "DROPPED", "orders": "FORWARDED", "payments": "FORWARDED"}


def test_refusals_wait_behind_what_is_due() -> None:
    rig = Rig()
    rig.ask(produce("orders", number=1) + produce("secret-x", number=1) + produce("payments", number=1))
    rig.ask(produce("secret-y", number=2))
    assert (rig.heard(), len(rig.served())) == ([], 2)
    rig.say(produced("orders"))
    assert len(rig.heard()) == 2
    rig.say(produced("payments")[:20])
    assert not rig.heard()
    rig.say(produced("payments")[20:])
    first, second = rig.heard()
    assert first == produced("payments") and answer(second, "Produce", 9, 2)["responses"][0]["name"] == "secret-y"
    assert [one[:3] for one in rig.told] == [
        ("FORWARDED", "Produce", 1),
        ("DROPPED", "Produce", 1),
        ("FORWARDED", "Produce", 1),
        ("DROPPED", "Produce", 2),
    ]


@pytest.mark.parametrize("version", [3, 8, 9, 12])
def test_acks_0_has_no_answer(version: int) -> None:
    rig = Rig()
    rig.ask(produce("orders", acks=0, version=version, number=3) + produce("orders", version=version, number=4))
    rig.say(produced("orders", version=version, number=4))
    assert rig.told == [("FORWARDED", "Produce", 3, 0, False), ("FORWARDED", "Produce", 4, 0, True)]


def test_a_refused_request_without_an_answer_closes_behind_what_is_due() -> None:
    rig = Rig().ask(produce("orders", number=1) + produce("secret-x", acks=0, number=2) + produce("orders", number=3))
    assert len(rig.served()) == 1 and rig.ending is None
    rig.ask(produce("orders", number=4))
    rig.say(produced("orders"))
    assert rig.closed and len(rig.heard()) == 1 and not rig.served()
    assert rig.told == [ONE, ("DROPPED", "Produce", 2, 0, False)]
    rig.finish()
    assert len(rig.records) == 2


def test_of_a_mixed_request_without_an_answer_the_allowed_part_is_stored() -> None:
    rig = Rig().ask(produce("orders", "secret-x", acks=0))
    ((_, tree),) = rig.served()
    assert [one["name"] for one in tree["topic_data"]] == ["orders"] and tree["acks"] == 0
    assert rig.closed and rig.client == b"" and rig.told == [("DROPPED", "Produce", 1, 29, False)]


def test_correlation_ids_may_repeat_but_not_differ() -> None:
    rig = Rig().ask(produce("orders", number=7) + produce("payments", number=7))
    rig.say(produced("orders", number=7) + produced("payments", number=8))
    assert rig.aborted and rig.client == produced("orders", number=7)
    rig.finish()
    asks = rig.records[1].request
    assert rig.told[1] == ("FORWARDED", "Produce", 7, 0, False) and "where 7 is due" in asks.decision.reason


def test_a_response_that_nobody_asked_for_does_not_pass() -> None:
    assert Rig().say(produced("orders")).aborted
    rig = Rig().ask(produce("secret-x")).say(produced("secret-x"))
    assert rig.aborted and len(rig.heard()) == 1


@pytest.mark.parametrize("size", [0, -1, -(1 << 31), 104_857_601])
def test_lengths_that_are_none(size: int) -> None:
    rig = Rig().ask(produce("orders") + size.to_bytes(4, "big", signed=True) + b"x" * 100)
    assert rig.server == produce("orders") and rig.ending is None
    rig.say(produced("orders"))
    assert rig.closed and rig.told[1] == ("DROPPED", "", 0, 0, False)
    assert f"a request of {size} bytes" in rig.records[1].request.decision.reason


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (framed(b"\0"), "a request of 1 bytes"),
        (produce("orders")[:-1] + b"\1", ""),
        (ask("Envelope", 0, {}), "no client may use this API"),
        (ask("Vote", 1, {}), "no client may use this API"),
        (framed(b"\x03\xe7" + bytes(12)), "this API or version is not known"),
        (framed(b"\0\0\0\x63" + bytes(12)), "this API or version is not known"),
    ],
)
def test_what_a_broker_closes_on(frame: bytes, why: str) -> None:
    rig = Rig().ask(frame + produce("orders"))
    assert (rig.server, rig.client, rig.closed) == (b"", b"", True)
    (record,) = rig.records
    assert record.request.decision.verdict == "DROPPED" and why in record.request.decision.reason


@pytest.mark.parametrize(
    "data",
    [
        produce("orders"),
        produce("secret-x", "orders"),
        fetch("orders"),
        fetch("secret-x"),
        ask("ApiVersions", 3, {}),
        ask("SaslHandshake", 1, {"mechanism": "PLAIN"}),
    ],
)
def test_nothing_may_stand_behind_a_request(data: bytes) -> None:
    for more in (b"\0", b"more", bytes(100), produce("orders")):
        rig = Rig().ask(framed(data[4:] + more))
        assert (rig.server, rig.client, rig.closed) == (b"", b"", True)
        assert "behind the end of the message" in rig.records[0].request.decision.reason
    # Nor behind one like those that were allowed.
    rig = Rig().ask(data)
    before = rig.server
    assert rig.ask(framed(data[4:] + b"\0")).server == before


def test_but_what_librdkafka_puts_behind_a_request_for_all_topics() -> None:
    odd = framed(ask("Metadata", 13, {"topics": None})[4:-3] + b"\0\0\0\1\0\0")
    rig = Rig().ask(odd).say(say("Metadata", 13, {"topics": [{"name": "orders"}, {"name": "secret-x"}]}))
    assert rig.server == odd
    assert [one["name"] for one in answer(rig.heard()[0], "Metadata", 13)["topics"]] == ["orders"]
    # One that is refused in part, as the rules may do to a client id, is asked for without these bytes.
    rig = Rig(Teller(apis=[3])).ask(odd)
    assert rig.server == ask("Metadata", 13, {"topics": []})
    for wrong in (b"\0\0\0\2\0\0", b"\0\0\0\1\0\1", b"\0\0\0\1\0\0\0", b"\0\0\0\1\0", b"\1\0\0\1\0\0"):
        rig = Rig().ask(framed(odd[4:-6] + wrong))
        assert rig.server == b"" and rig.closed, wrong


def test_an_unknown_version_of_api_versions_has_an_answer() -> None:
    rig = Rig().ask(framed(b"\0\x12\0\x09\0\0\0\x05\xff\xff" + b"\0whatever"))
    (frame,) = rig.heard()
    said = answer(frame, "ApiVersions", 0, 5)
    assert said["error_code"] == 35 and [one["api_key"] for one in said["api_keys"]] == [18]
    assert rig.server == b"" and rig.ending is None and rig.told == [("DROPPED", "ApiVersions", 5, 35, False)]


def test_api_versions_are_narrowed() -> None:
    rows = [{"api_key": 0, "min_version": 0, "max_version": 99}, {"api_key": 58, "min_version": 0, "max_version": 0}]
    rig = Rig().ask(ask("ApiVersions", 3, {})).say(say("ApiVersions", 3, {"api_keys": rows}))
    said = answer(rig.heard()[0], "ApiVersions", 3)
    assert said["api_keys"] == [{"api_key": 0, "min_version": 0, "max_version": 13}]
    audit = Rig(Teller(audit_only=True)).ask(ask("ApiVersions", 3, {})).say(say("ApiVersions", 3, {"api_keys": rows}))
    assert audit.client == say("ApiVersions", 3, {"api_keys": rows})


def test_an_old_broker_answers_in_version_0() -> None:
    rows = [{"api_key": 18, "min_version": 0, "max_version": 99}]
    reply = say("ApiVersions", 0, {"error_code": 35, "api_keys": rows})
    rig = Rig().ask(ask("ApiVersions", 3, {})).say(reply)
    said = answer(rig.heard()[0], "ApiVersions", 0)
    assert said["error_code"] == 35 and said["api_keys"][0]["max_version"] == 4
    assert rig.told == [("FORWARDED", "ApiVersions", 1, 35, True)]


def test_all_topics_are_those_that_are_allowed() -> None:
    topics = [{"name": name} for name in ("orders", "secret-x", "payments")]
    reply = say("Metadata", 9, {"topics": topics, "cluster_id": "c"})
    rig = Rig().ask(ask("Metadata", 9, {"topics": None})).say(reply)
    assert [one["name"] for one in answer(rig.heard()[0], "Metadata", 9)["topics"]] == ["orders", "payments"]
    assert rig.told == [("FORWARDED", "Metadata", 1, 0, True)]
    # The rules that hold when the answer comes decide.
    rig.ask(ask("Metadata", 9, {"topics": None}, 2))
    rig.talk.judge = Teller(refused=["orders"])
    rig.say(say("Metadata", 9, {"topics": topics}, 2))
    assert [one["name"] for one in answer(rig.heard()[0], "Metadata", 9, 2)["topics"]] == ["payments"]


def test_pages_of_all_topics_name_none_that_is_refused() -> None:
    rig = Rig().ask(ask("DescribeTopicPartitions", 0, {"response_partition_limit": 2}) + produce("orders", number=2))
    ((head, tree),) = rig.served()
    assert (head.api_key, head.version, tree["topics"]) == (3, 12, None) and rig.halves[REQUEST].waiting
    rig.say(say("Metadata", 12, {"topics": [{"name": name} for name in ("secret-x", "b", "a", "secret-y")]}))
    (_, tree), (second, _) = rig.served()
    assert [one["name"] for one in tree["topics"]] == ["a", "b"] and second.correlation_id == 2
    cursor = {"topic_name": "b", "partition_index": 0}
    gone = {"name": "b", "error_code": 3}
    rig.say(say("DescribeTopicPartitions", 0, {"topics": [{"name": "a"}, gone], "next_cursor": cursor}))
    said = answer(rig.heard()[0], "DescribeTopicPartitions", 0)
    assert [one["name"] for one in said["topics"]] == ["a"] and said["next_cursor"] == cursor
    rig.say(produced("orders", number=2))
    assert [one[:2] for one in rig.told] == [("FORWARDED", "DescribeTopicPartitions"), ("FORWARDED", "Produce")]
    # Where nothing is left, nothing is asked; and nothing is changed where nothing is refused.
    rig = Rig().ask(ask("DescribeTopicPartitions", 0, {}))
    rig.served(), rig.say(say("Metadata", 12, {"topics": [{"name": "secret-x"}]}))
    assert not rig.served() and answer(rig.heard()[0], "DescribeTopicPartitions", 0)["topics"] == []
    rig.ask(ask("DescribeTopicPartitions", 0, {})).say(say("Metadata", 12, {"topics": [{"name": "a"}]}))
    assert rig.server.endswith(ask("DescribeTopicPartitions", 0, {}))
    assert not Rig(Teller(apis=[75])).ask(ask("DescribeTopicPartitions", 0, {})).server
    audit = Rig(Teller(audit_only=True)).ask(ask("DescribeTopicPartitions", 0, {}))
    assert audit.server == ask("DescribeTopicPartitions", 0, {})


def test_offsets_of_all_topics_by_id_are_those_of_topics_that_are_allowed() -> None:
    """Their names are asked for first: an id that nobody has named would be left out, whosever it is."""
    groups = [{"group_id": name, "member_epoch": -1, "topics": None} for name in ("g", "secret-g")]
    rig = Rig().ask(ask("OffsetFetch", 10, {"groups": groups}))
    ((head, tree),) = rig.served()
    assert (head.api_key, tree["topics"]) == (3, None)
    known = [{"name": name, "topic_id": one} for name, one in IDS.items()]
    rig.say(say("Metadata", 12, {"topics": known}))
    ((_, tree),) = rig.served()
    assert [one["group_id"] for one in tree["groups"]] == ["g"]
    rig.say(
        say("OffsetFetch", 10, {"groups": [{"group_id": "g", "topics": [{"topic_id": one} for one in IDS.values()]}]})
    )
    mine, other = answer(rig.heard()[0], "OffsetFetch", 10)["groups"]
    assert [one["topic_id"] for one in mine["topics"]] == [IDS["orders"], IDS["payments"]] and other["error_code"] == 30


def test_a_request_about_every_topic_is_judged_as_one() -> None:
    """ElectLeaders acts on all of them, so no rule about some may allow it."""
    rig = Rig().ask(ask("ElectLeaders", 2, {"topic_partitions": None}))
    assert rig.judge.judged == [KafkaRequest(43, 2, "shop", every_topic=True)]


def test_what_is_refused_in_part_and_trimmed_besides() -> None:
    rig = Rig().ask(ask("DescribeTransactions", 0, {"transactional_ids": ["secret-t", "t"]}))
    states = [{"transactional_id": "t", "topics": [{"topic": "orders"}, {"topic": "secret-x"}]}]
    rig.say(say("DescribeTransactions", 0, {"transaction_states": states}))
    first, second = answer(rig.heard()[0], "DescribeTransactions", 0)["transaction_states"]
    assert [one["topic"] for one in first["topics"]] == ["orders"]
    assert (second["transactional_id"], second["error_code"]) == ("secret-t", 53)


def test_a_new_policy_holds_from_the_next_request_on() -> None:
    rig = Rig().ask(produce("orders", number=1))
    rig.talk.judge = Teller(refused=["orders"])
    rig.ask(produce("orders", number=2)).say(produced("orders"))
    assert [one[0] for one in rig.told] == ["FORWARDED", "DROPPED"] and len(rig.served()) == 1


def test_too_many_requests_wait() -> None:
    rig = Rig(Teller(KafkaOptions(max_pipeline=2)))
    rig.ask(b"".join(produce("orders", number=number) for number in range(5)))
    assert len(rig.served()) == 2 and rig.halves[REQUEST].waiting
    for number in range(5):
        rig.say(produced("orders", number=number))
    assert len(rig.served()) == 3 and len(rig.heard()) == 5
    # Our own answers do not fill it.
    rig.ask(b"".join(produce("secret-x", number=number) for number in range(50)))
    assert len(rig.heard()) == 50 and not rig.halves[REQUEST].pending


def test_too_many_names() -> None:
    rig = Rig(Teller(KafkaOptions(max_names=2))).ask(produce("orders", "payments", "more"))
    assert rig.closed and rig.server == b"" and "names 3 things" in rig.records[0].request.decision.reason


def test_requests_in_pieces_are_whole_when_they_go_on() -> None:
    rig, data = Rig(), produce("orders", size=3000)
    for byte in range(0, len(data), 100):
        assert rig.server == b""
        rig.ask(data[byte : byte + 100])
    assert rig.server == data and rig.known.held == 0
    half = Rig().ask(data[:50])
    assert half.talk.head_pending and not half.talk.idle and half.known.held == 50
    half.finish()
    assert half.known.held == 0


def test_held_bytes_are_bounded() -> None:
    options = KafkaOptions(max_held=65_536, max_held_together=65_536)
    # A request that is no Produce, and one that names two topics, are not read beyond the limit.
    for frame in (ask("JoinGroup", 5, {"group_id": "g", "protocols": [{"name": "n", "metadata": b"m" * 70_000}]}),):
        rig = Rig(Teller(options))
        rig.ask(frame[:40_000]).ask(frame[40_000:60_000])
        assert rig.closed and "kafka.max_held" in rig.records[0].request.decision.reason and rig.known.held == 0
    first = Rig(Teller(options)).ask(produce("orders", size=50_000)[:-1])
    second = Rig(Teller(options), first.known).ask(produce("orders", size=50_000)[:-1])
    assert second.closed and first.ending is None and "max_held_together" in second.records[0].request.decision.reason
    assert first.known.held == first.halves[REQUEST].arrived
    # Where nothing is enforced, all goes on as it came, and once.
    sent, more = produce("orders", size=50_000)[:-1], b"and more"
    third = Rig(Teller(options, audit_only=True), first.known)
    for part in (sent[:10_000], sent[10_000:], more):
        third.ask(part)
    assert third.server == sent + more and third.ending is None


def test_a_held_response_is_bounded() -> None:
    rig = Rig(Teller(KafkaOptions(max_held=65_536))).ask(ask("Metadata", 9, {"topics": None}))
    reply = say("Metadata", 9, {"topics": [{"name": "n" * 200} for _ in range(500)]})
    rig.say(reply[:1000])
    assert rig.aborted and rig.client == b""


def test_the_server_ends() -> None:
    rig = Rig().ask(produce("orders", number=1) + produce("payments", number=2)).say(produced("orders"), end=True)
    assert rig.closed and rig.client == produced("orders")
    rig.finish()
    assert rig.told[1] == ("FORWARDED", "Produce", 2, 0, False)


def test_the_client_ends() -> None:
    rig = Rig().ask(produce("orders"), end=True).say(produced("orders"))
    assert rig.halves[REQUEST].ended and rig.ending is None and rig.client == produced("orders")
    for size in (2, 10, 30):
        rig = Rig().ask(produce("orders") + produce("payments")[:size], end=True).say(produced("orders"))
        assert rig.server == produce("orders") and rig.client == produced("orders") and rig.halves[REQUEST].ended
        assert rig.told[0] == ("DROPPED", "", 0, 0, False) and rig.known.held == 0


def test_time_and_stopping() -> None:
    rig = Rig().ask(produce("orders")[:20])
    rig.apply(rig.talk.head_timeout(1.0))
    assert rig.closed and "did not come in time" in rig.records[0].request.decision.reason
    rig = Rig().ask(produce("orders") + produce("payments")[:20])
    rig.apply(rig.talk.draining(1.0))
    assert rig.ending is None
    rig.ask(produce("payments")[20:]).say(produced("orders"))
    assert rig.closed and rig.server == produce("orders") and len(rig.heard()) == 1
    rig = Rig().ask(produce("orders"))
    rig.apply(rig.talk.upstream_failed("it is gone", 1.0))
    assert rig.closed and "upstream: it is gone" in rig.records[0].request.decision.reason


def test_fetches_that_are_refused_in_part_pass_their_records_by_count() -> None:
    for version in (4, 6, 7, 11, 12):
        rig = Rig().ask(fetch("orders", "secret-x", version=version))
        ((_, tree),) = rig.served()
        assert [one["topic"] for one in tree["topics"]] == ["orders"]
        reply = fetched("orders", version=version, size=1_000_000)
        rig.say(reply[:60])
        assert rig.halves[1].credit > 999_000 and rig.known.held == 0
        rig.say(reply[60:])
        said = answer(rig.heard()[0], "Fetch", version)["responses"]
        codes = {one["topic"]: one["partitions"][0]["error_code"] for one in said}
        assert codes == {"secret-x": 29, "orders": 0} and len(said[1]["partitions"][0]["records"]) == 1_000_000
        assert rig.told == [("DROPPED", "Fetch", 1, 29, True)]


def test_followers_are_no_clients() -> None:
    _, tree = parse(fetch("orders"))
    tree["replica_id"] = 3
    rig = Rig().ask(ask("Fetch", 12, tree))
    assert rig.server == b"" and rig.told == [("DROPPED", "Fetch", 1, 29, False)]
