"""Requests that were asked for under one policy and are answered under another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from parsers.options import KafkaOptions
from tests.kafka.rig import IDS, Rig, Teller, answer, ask, fetch, fetched, metadata, say

VERSIONS = (4, 6, 7, 11, 12, 13, 18)


def flip(rig: Rig, *refused: str, **how: Any) -> Rig:
    """Another policy, which refuses these."""
    rig.talk.judge = Teller(refused=refused, **how)
    return rig


def asking(*topics: str, version: int = 12, judge: Teller | None = None) -> Rig:
    """A connection with a fetch that waits at the server."""
    rig = Rig(judge)
    for name, topic_id in IDS.items():
        rig.known.topics.put((("10.0.0.9", 9092), topic_id), name, 1)
    rig.ask(fetch(*topics, version=version))
    assert len(rig.served()) == 1
    return rig


def brought(rig: Rig, version: int = 12, number: int = 1) -> dict[str, tuple[int, bytes | None]]:
    """Of each topic in the response: the error and the records."""
    (frame,) = rig.heard()
    names = {one: name for name, one in IDS.items()}
    rows = answer(frame, "Fetch", version, number)["responses"]
    found = {}
    for row in rows:
        (part,) = row["partitions"]
        assert not part["error_code"] or (part["high_watermark"], part["aborted_transactions"]) == (-1, [])
        found[row["topic"] if version < 13 else names[row["topic_id"]]] = part["error_code"], part["records"]
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_records_of_a_topic_that_is_refused_by_now_do_not_pass(version: int) -> None:
    rig = flip(asking("orders", "payments", version=version), "payments")
    rig.say(fetched("orders", "payments", version=version))
    assert brought(rig, version) == {"orders": (0, b"r" * 20), "payments": (29, b"")}
    assert rig.told == [("DROPPED", "Fetch", 1, 29, True)] and rig.ending is None and rig.known.held == 0
    assert rig.topics() == {"payments": "DROPPED", "orders": "FORWARDED"}


def test_however_the_response_comes() -> None:
    reply = fetched("orders", "payments", size=300)
    whole = flip(asking("orders", "payments"), "payments").say(reply)
    for step in (1, 7, 100):
        rig = flip(asking("orders", "payments"), "payments")
        for place in range(0, len(reply), step):
            rig.say(reply[place : place + step])
        assert (rig.client, rig.told) == (whole.client, whole.told) and rig.known.held == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_where_nothing_is_refused_all_passes_by_count(version: int) -> None:
    rig = flip(asking("orders", version=version), "payments")
    reply = fetched("orders", version=version, size=1_000_000)
    rig.say(reply[:100])
    assert rig.halves[1].credit > 999_000 and rig.known.held == 0
    assert rig.say(reply[100:]).client == reply and rig.told == [("FORWARDED", "Fetch", 1, 0, True)]


def test_a_response_that_has_begun_goes_on() -> None:
    rig, reply = asking("orders"), fetched("orders", size=1000)
    flip(rig.say(reply[:100]), "orders").say(reply[100:])
    assert rig.client == reply


def test_a_policy_that_changes_twice() -> None:
    reply = fetched("orders", size=1000)
    rig = flip(flip(asking("orders"), "orders")).say(reply)
    assert rig.client == reply and rig.told == [("FORWARDED", "Fetch", 1, 0, True)]
    # What is held is judged by the rules that hold when it is whole.
    rig = flip(flip(asking("orders"), "orders").say(reply[:100])).say(reply[100:])
    assert rig.client == reply and rig.known.held == 0
    rig = flip(flip(asking("orders"), "orders").say(reply[:7]), "payments").say(reply[7:])
    assert rig.client == reply


def test_what_was_refused_before_stays_in_the_answer() -> None:
    rig = flip(asking("orders", "payments", "secret-x"), "payments").say(fetched("orders", "payments"))
    assert brought(rig) == {"orders": (0, b"r" * 20), "payments": (29, b""), "secret-x": (29, b"")}
    assert rig.topics() == {"payments": "DROPPED", "secret-x": "DROPPED", "orders": "FORWARDED"}


def test_a_session_that_is_opened_meanwhile_is_judged_at_the_next_fetch() -> None:
    rig = flip(asking("orders", "payments"), "payments").say(fetched("orders", "payments", session=77))
    assert brought(rig) == {"orders": (0, b"r" * 20), "payments": (29, b"")}
    rig.ask(fetch(session=77, epoch=1))
    assert answer(rig.heard()[0], "Fetch", 12)["error_code"] == 70 and not rig.served()


def test_what_a_session_brings_of_topics_that_the_fetch_did_not_name() -> None:
    rig = asking("orders", "payments").say(fetched("orders", "payments", session=77))
    rig.heard()
    flip(rig.ask(fetch(session=77, epoch=1)), "payments").say(fetched("payments", session=77))
    assert brought(rig) == {"payments": (29, b"")}


def test_several_that_wait() -> None:
    rig = Rig().ask(b"".join(fetch(topic, number=n) for n, topic in enumerate(("orders", "payments", "orders"))))
    flip(rig, "payments").ask(fetch("payments", number=3))
    rig.say(b"".join(fetched(topic, number=n) for n, topic in enumerate(("orders", "payments", "orders"))))
    codes = [part["error_code"] for part in _parts(rig.heard())]
    assert codes == [0, 29, 0, 29] and [one[3] for one in rig.told] == codes


def _parts(frames: Iterable[bytes]) -> Iterable[dict[str, Any]]:
    for number, frame in enumerate(frames):
        for row in answer(frame, "Fetch", 12, number)["responses"]:
            yield from row["partitions"]


def test_one_that_is_too_large_to_be_held_ends_the_connection() -> None:
    rig = flip(asking("orders"), "orders", options=KafkaOptions(max_held=65_536))
    rig.say(fetched("orders", size=70_000)[:1000])
    assert rig.aborted and rig.client == b"" and rig.known.held == 0
    rig.finish()
    (record,) = rig.records
    assert record.request.decision.verdict == "DROPPED" and "kafka.max_held" in record.request.decision.reason


def test_a_fetch_that_audit_let_pass() -> None:
    rig = Rig(Teller(audit_only=True)).ask(fetch("secret-x"))
    assert brought(flip(rig, "secret-x").say(fetched("secret-x"))) == {"secret-x": (29, b"")}
    # Of a session that is not known everything is looked at.
    rig = Rig(Teller(audit_only=True)).ask(fetch(session=5, epoch=1))
    assert brought(flip(rig).say(fetched("orders", "secret-x"))) == {"orders": (0, b"r" * 20), "secret-x": (29, b"")}
    rig = flip(asking("orders"), "orders", audit_only=True).say(fetched("orders"))
    assert rig.client == fetched("orders")


def test_an_id_that_has_no_name_any_more_brings_nothing() -> None:
    rig = flip(asking("orders", "payments", version=13), "orders")
    rig.known.topics.drop((("10.0.0.9", 9092), IDS["payments"]))
    rig.say(fetched("orders", "payments", version=13))
    assert brought(rig, 13) == {"orders": (29, b""), "payments": (29, b"")}


def test_the_names_of_ids_may_be_asked_for_meanwhile() -> None:
    rig = Rig().ask(fetch("orders", "payments", version=13))
    flip(rig, "payments").say(metadata(orders=IDS["orders"], payments=IDS["payments"]))
    rig.served()
    flip(rig, "orders").say(fetched("orders", version=13))
    assert brought(rig, 13)["orders"] == (29, b"")


def share(*topics: str, epoch: int) -> bytes:
    named = [{"topic_id": IDS[one], "partitions": [{"partition_index": 0}]} for one in topics]
    tree = {"group_id": "g", "member_id": "m", "share_session_epoch": epoch, "topics": named}
    return ask("ShareFetch", 1, tree)


def test_records_of_share_groups() -> None:
    rig = Rig()
    for name, topic_id in IDS.items():
        rig.known.topics.put((("10.0.0.9", 9092), topic_id), name, 1)
    rig.ask(share("orders", "payments", epoch=0)).say(say("ShareFetch", 1, {})).ask(share(epoch=1))
    assert len(rig.heard()) == 1
    parts = [{"partition_index": 0, "records": b"r", "acquired_records": [{"last_offset": 1}]}]
    rows = [{"topic_id": IDS[one], "partitions": parts} for one in ("orders", "payments")]
    flip(rig, "payments").say(say("ShareFetch", 1, {"responses": rows}))
    (frame,) = rig.heard()
    found = {one["topic_id"]: one["partitions"][0] for one in answer(frame, "ShareFetch", 1)["responses"]}
    assert found[IDS["orders"]]["records"] == b"r"
    gone = found[IDS["payments"]]
    assert (gone["error_code"], gone["records"], gone["acquired_records"]) == (29, b"", [])
    assert rig.topics() == {"payments": "DROPPED", "orders": "FORWARDED"}
    # The rules may be about the group.
    judge = rig.talk.judge
    assert isinstance(judge, Teller) and {one.group for one in judge.judged} == {"g"}


# -- lists -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("judge", "topics", "start", "cursor", "then"),
    [
        (Teller(), ["a"], None, "payments", "a-"),
        (Teller(), ["a", "payments"], None, "payments", "a-"),
        (Teller(), ["payments"], None, "payments", "-"),
        (Teller(), ["payments"], "b", "payments", "b-"),
        (Teller(), ["a"], None, "b", "b"),
        (Teller(refused=["c"]), ["a", "b"], None, "payments", "b-"),
        (Teller(refused=["c"]), ["payments"], "a", "payments", "a-"),
        (Teller(audit_only=True), ["a", "payments"], None, "payments", "a-"),
        (Teller(audit_only=True), ["payments"], "b", "payments", "b-"),
        (Teller(audit_only=True), ["a", "payments"], None, None, None),
    ],
)
def test_a_page_whose_cursor_is_refused_by_now(
    judge: Teller, topics: list[str], start: str | None, cursor: str | None, then: str | None
) -> None:
    """The next one begins behind the last topic that this one shows."""
    asked = None if start is None else {"topic_name": start, "partition_index": 3}
    rig = Rig(judge).ask(ask("DescribeTopicPartitions", 0, {"response_partition_limit": 2, "cursor": asked}))
    if not judge.audit_only:
        rig.say(say("Metadata", 12, {"topics": [{"name": name} for name in ("payments", "a", "c", "b")]}))
    at = None if cursor is None else {"topic_name": cursor, "partition_index": 7}
    rows = [{"name": name} for name in topics]
    flip(rig, "payments").say(say("DescribeTopicPartitions", 0, {"topics": rows, "next_cursor": at}))
    (frame,) = rig.heard()
    page = answer(frame, "DescribeTopicPartitions", 0)
    assert [one["name"] for one in page["topics"]] == [name for name in topics if name != "payments"]
    assert page["next_cursor"] == (then and {"topic_name": then, "partition_index": 7 if then == cursor else 0})
    assert b"payments" not in frame


def test_lists_that_were_asked_for_in_audit_mode() -> None:
    topics = say("Metadata", 9, {"topics": [{"name": "orders"}, {"name": "secret-x"}]})
    groups = say("ListGroups", 4, {"groups": [{"group_id": "g"}, {"group_id": "secret"}]}, 2)
    asks = ask("Metadata", 9, {"topics": None}) + ask("ListGroups", 4, {}, 2)
    audit = Rig(Teller(audit_only=True)).ask(asks).say(topics + groups)
    assert audit.client == topics + groups
    rig = flip(Rig(Teller(audit_only=True)).ask(asks)).say(topics + groups)
    first, second = rig.heard()
    assert [one["name"] for one in answer(first, "Metadata", 9)["topics"]] == ["orders"]
    assert [one["group_id"] for one in answer(second, "ListGroups", 4, 2)["groups"]] == ["g"]


def test_lists_of_any_size_pass_from_one_audit_to_the_next() -> None:
    small = KafkaOptions(max_held=65_536)
    topics = say("Metadata", 9, {"topics": [{"name": f"secret-{n:05}"} for n in range(5000)]})
    rig = Rig(Teller(small, audit_only=True)).ask(ask("Metadata", 9, {"topics": None}))
    flip(rig, audit_only=True, options=small).say(topics[:1000])
    assert rig.client == topics[:1000] and rig.known.held == 0
    assert rig.say(topics[1000:]).client == topics and rig.told == [("FORWARDED", "Metadata", 1, 0, True)]
    # What enforces ends the connection where it cannot read all.
    rig = Rig(Teller(small, audit_only=True)).ask(ask("Metadata", 9, {"topics": None}))
    assert flip(rig, options=small).say(topics[:1000]).aborted and rig.client == b""
