"""What requests name, field by field, and where the table of names ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from parsers.kafka import Head
from parsers.kafka_denials import CLOSED
from parsers.kafka_names import NO_ID, Asked, Item, asked
from parsers.kafka_schema import APIS, BY_NAME, REQUEST, Field, message
from parsers.malformed import Malformed
from tests.kafka.requests import EVERY, raw

ID = bytes(15) + b"\1"
NAMES = {
    "name": "topic",
    "topic": "topic",
    "topic_name": "topic",
    "topic_names": "topic",
    "subscribed_topic_names": "topic",
    "source_topics": "topic",
    "repartition_sink_topics": "topic",
    "topic_id": "topic",
    "key": "key",
    "coordinator_keys": "key",
    "resource_name": "resource",
    "group_id": "group",
    "group_ids": "group",
    "groups": "group",
    "groups_names": "group",
    "transactional_id": "txn",
    "transactional_ids": "txn",
    "v3_and_below_transactional_id": "txn",
}
"""Fields whose name tells that they hold a name."""
NOT = {
    # Of other things.
    "protocols.name",
    "configs.name",
    "features.name",
    "listeners.name",
    "users.name",
    "deletions.name",
    "upsertions.name",
    "ops.key",
    "client_tags.key",
    "topic_configs.key",
    # What a topic of the list names again, what was assigned, or what leaves a session.
    "cursor.topic_name",
    "topic_partitions.topic_id",
    "forgotten_topics_data.topic",
    "forgotten_topics_data.topic_id",
    # Rights on resources, which may be patterns.
    "creations.resource_name",
}


def fields(some: tuple[Field, ...], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for one in some:
        if one.fields:
            yield from fields(one.fields, (*path, one.name))
        elif one.name in NAMES and one.kind in ("string", "[]string", "uuid", "[]uuid"):
            yield (*path, one.name)


def test_every_field_that_names_something_is_read() -> None:
    """In each API and version: another name there than its like elsewhere in the message is found."""
    for key, version in EVERY:
        if key in CLOSED:
            continue
        for path in fields(message(key, version, REQUEST).fields):
            if ".".join(path[-2:]) in NOT:
                continue
            value: Any = ID if path[-1] == "topic_id" else "here"
            head, data = raw(key, version, planted(message(key, version, REQUEST).fields, path, value))
            found = asked(head, data).items
            assert any(value in item for item in found), (APIS[key].name, version, path, found)


def planted(some: tuple[Field, ...], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A message with this value at that path, and little else."""
    tree: dict[str, Any] = {}
    for one in some:
        if one.name == path[0]:
            inner = planted(one.fields, path[1:], value) if one.fields else value
            tree[one.name] = [inner] if one.kind.startswith("[]") else inner
        elif one.name == "resource_type":
            tree[one.name] = 2
        elif one.kind == "string" and one.name in ("name", "topic") and one.null:
            tree[one.name] = None
    return tree


def read(api: str, version: int, tree: dict[str, Any]) -> Asked:
    head, data = raw(BY_NAME[api.lower()].key, version, tree)
    return asked(head, data)


def test_topics_of_a_request_are_each_an_item() -> None:
    tree = {"transactional_id": "t", "acks": 1, "topic_data": [{"name": name} for name in "aba"]}
    assert read("Produce", 9, tree) == Asked((Item("a", None, None, "t"), Item("b", None, None, "t")))
    assert read("Produce", 9, tree | {"acks": 0}).acks0 and not read("Produce", 9, tree | {"acks": -1}).acks0
    assert read("Produce", 13, {"acks": 1, "topic_data": [{"topic_id": ID}]}).items == (Item(topic_id=ID),)
    assert read("Produce", 13, {"acks": 1, "topic_data": [{}]}).items == (Item(topic_id=NO_ID),)
    assert read("TxnOffsetCommit", 3, {"transactional_id": "t", "group_id": "g", "topics": [{"name": "a"}]}).items == (
        Item("a", None, "g", "t"),
    )
    assert read("CreateTopics", 7, {}).items == (Item(),)
    assert read("OffsetCommit", 9, {"group_id": "g"}).items == (Item(group="g"),)
    assert read("DeleteTopics", 5, {"topic_names": ["a", "b"]}).items == (Item("a"), Item("b"))


def test_the_id_decides() -> None:
    """In Metadata v12 the name beside an id is not looked at; before, and in DeleteTopics, the two are judged both:
    the broker refuses them, others took the name."""
    both = {"topics": [{"name": "a", "topic_id": ID}]}
    assert read("Metadata", 12, both).items == (Item(topic_id=ID),)
    assert read("Metadata", 10, both).items == read("DeleteTopics", 6, both).items == (Item("a"), Item(topic_id=ID))
    assert read("Metadata", 12, {"topics": [{"name": "a", "topic_id": NO_ID}]}).items == (Item("a"),)
    assert read("Metadata", 12, {"topics": [{"name": None, "topic_id": NO_ID}]}).items == (Item(topic_id=NO_ID),)


@pytest.mark.parametrize(
    ("api", "version", "tree", "every"),
    [
        ("Metadata", 0, {"topics": []}, True),
        ("Metadata", 0, {"topics": [{"name": "a"}]}, False),
        ("Metadata", 1, {"topics": []}, False),
        ("Metadata", 1, {"topics": None}, True),
        ("Metadata", 12, {"topics": None}, True),
        ("DescribeTopicPartitions", 0, {"topics": []}, True),
        ("DescribeTopicPartitions", 0, {"topics": [{"name": "a"}]}, False),
        ("OffsetFetch", 1, {"topics": []}, False),
        ("OffsetFetch", 2, {"topics": None}, True),
        ("OffsetFetch", 8, {"groups": [{"group_id": "g", "topics": [{"name": "a"}]}]}, False),
        ("OffsetFetch", 8, {"groups": [{"group_id": "g", "topics": []}, {"group_id": "h", "topics": None}]}, True),
        ("DescribeShareGroupOffsets", 0, {"groups": [{"group_id": "g", "topics": None}]}, True),
        ("ElectLeaders", 2, {"topic_partitions": None}, True),
        ("DescribeLogDirs", 2, {"topics": None}, True),
        ("ListPartitionReassignments", 0, {"topics": None}, True),
        ("ConsumerGroupHeartbeat", 0, {"subscribed_topic_names": None}, False),
        ("CreateTopics", 7, {"topics": []}, False),
    ],
)
def test_requests_for_all_topics(api: str, version: int, tree: dict[str, Any], every: bool) -> None:
    found = read(api, version, tree)
    assert (found.every_topic, found.trims) == (every, every)


@pytest.mark.parametrize("api", ["ListGroups", "ListTransactions", "DescribeTransactions", "ConsumerGroupDescribe"])
def test_responses_that_name_what_the_request_did_not(api: str) -> None:
    found = read(api, 0, {})
    assert found.trims and not found.every_topic


def test_groups_of_an_offset_fetch_each_have_their_topics() -> None:
    tree = {"groups": [{"group_id": "g", "topics": [{"name": "a"}, {"name": "b"}]}, {"group_id": "h", "topics": None}]}
    assert read("OffsetFetch", 8, tree).items == (Item("a", group="g"), Item("b", group="g"), Item(group="h"))


def test_resources_by_their_type() -> None:
    tree = {"resources": [{"resource_type": kind, "resource_name": "1"} for kind in (2, 4, 8, 16, 32)]}
    for api in ("DescribeConfigs", "AlterConfigs", "IncrementalAlterConfigs"):
        assert read(api, 1, tree).items == (Item("1"), Item(), Item(group="1"))


def test_keys_of_coordinators_by_their_type() -> None:
    assert read("FindCoordinator", 0, {"key": "g"}).items == (Item(group="g"),)
    assert read("FindCoordinator", 3, {"key": "t", "key_type": 1}).items == (Item(transactional_id="t"),)
    two = read("FindCoordinator", 4, {"coordinator_keys": ["g", "h"], "key_type": 0})
    assert two.items == (Item(group="g"), Item(group="h"))
    share = read("FindCoordinator", 6, {"coordinator_keys": ["g:x:AAAA:0"], "key_type": 2})
    assert share.items == (Item(group="g:x"),)
    assert read("FindCoordinator", 6, {"coordinator_keys": ["x"], "key_type": 9}).items == (Item(),)


def test_expressions_are_no_topics_and_neither_is_what_a_member_has() -> None:
    tree = {
        "group_id": "g",
        "subscribed_topic_names": ["a"],
        "subscribed_topic_regex": "s.*",
        "topic_partitions": [{"topic_id": ID}],
    }
    assert read("ConsumerGroupHeartbeat", 1, tree).items == (Item("a", group="g"),)
    assert read("ConsumerGroupHeartbeat", 1, {"group_id": "g", "subscribed_topic_regex": ".*"}).items == (
        Item(group="g"),
    )


def test_a_fetch_session() -> None:
    tree = {"replica_id": -1, "session_id": 5, "session_epoch": 2, "forgotten_topics_data": [{"topic": "a"}]}
    assert read("Fetch", 7, tree) == Asked((Item(),), session=(5, 2))
    assert read("Fetch", 6, {"replica_id": -1, "topics": [{"topic": "a"}]}) == Asked((Item("a"),))
    tree = {"session_epoch": -1, "topics": [{"topic_id": ID}], "forgotten_topics_data": [{"topic_id": ID}]}
    assert read("Fetch", 15, tree) == Asked((Item(topic_id=ID),), session=(0, -1))


def test_a_fetch_of_a_follower() -> None:
    assert read("Fetch", 4, {"replica_id": 1}).replica and not read("Fetch", 4, {"replica_id": -2}).replica
    assert read("Fetch", 15, {"replica_state": {"replica_id": 1}}).replica
    assert not read("Fetch", 15, {"replica_state": {"replica_id": -1}}).replica


def test_requests_that_brokers_never_answer_are_malformed() -> None:
    twice = [{"resource_type": 2, "resource_name": "a"}] * 2
    with pytest.raises(Malformed, match="something stands twice"):
        read("AlterConfigs", 1, {"resources": twice})
    read("IncrementalAlterConfigs", 1, {"resources": twice})
    marker = {"producer_id": 1, "topics": [{"name": "a"}]}
    with pytest.raises(Malformed, match="something stands twice"):
        read("WriteTxnMarkers", 1, {"markers": [marker, marker]})


def test_the_whole_request_is_checked() -> None:
    head, data = raw(0, 9, {"acks": 1, "topic_data": [{"name": "a", "partition_data": [{"records": b"12345"}]}]})
    for end in range(head.body, len(data)):
        with pytest.raises(Malformed):
            asked(Head(0, 9, 7, "me", head.body, end), data)
    with pytest.raises(Malformed, match="1 bytes behind the end of the message"):
        asked(head._replace(end=head.end + 1), data + b"\0")


def test_versions_that_nobody_knows() -> None:
    with pytest.raises(KeyError):
        asked(Head(0, 99, 7, "me", 0, 0), b"")


def test_null_where_brokers_never_answer_it() -> None:
    tree = {"acks": 1, "topic_data": [{"name": "a", "partition_data": [{"records": b""}]}]}
    head, data = raw(0, 8, tree)
    assert data.count(b"\0\0\0\0") and asked(head, data)
    null = data[:-4] + b"\xff\xff\xff\xff"
    with pytest.raises(Malformed, match="null where a value must be"):
        asked(head, null)
    head, data = raw(50, 0, {})
    with pytest.raises(Malformed, match="null where a value must be"):
        asked(head, data[:-2] + b"\0\0")
