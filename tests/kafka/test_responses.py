"""Responses that are completed, trimmed and narrowed; and refusals of one kind of request at a time."""

from __future__ import annotations

import pytest

from parsers.kafka import Head
from parsers.kafka_codec import Tree, encode
from parsers.kafka_denials import CLOSED
from parsers.kafka_names import Item
from parsers.kafka_refusals import CLOSES, Split, code, page, refuse
from parsers.kafka_responses import complete, narrow, trim
from parsers.kafka_schema import APIS, BY_NAME, RESPONSE

ID, OTHER = bytes(15) + b"\1", bytes(15) + b"\2"


def head(api: str, version: int) -> Head:
    return Head(BY_NAME[api.lower()].key, version, 7, "me", 0, 0)


def produce(*names: str, acks: int = 1) -> Tree:
    parts = [{"index": 0, "records": b"r"}]
    return {"acks": acks, "topic_data": [{"name": name, "partition_data": parts} for name in names]}


def secret(item: Item) -> bool:
    return "secret" in (item.topic, item.group, item.transactional_id) or item.topic_id == ID


# -- one kind of request at a time -----------------------------------------------------------------------------------


def test_a_request_is_split_by_its_topics() -> None:
    split = refuse(head("Produce", 9), produce("a", "secret", "b"), {Item("secret"): 29})
    assert split.kept == produce("a", "b")
    own = {"index": 0, "error_code": 29, "base_offset": -1, "log_append_time": -1, "log_start_offset": -1}
    assert split.answer == {"responses": [{"name": "secret", "partition_responses": [own | {"error_message": None}]}]}
    server = {"responses": [{"name": "a"}, {"name": "b"}], "throttle_time": 5}
    whole = complete(head("Produce", 9), server, split)
    assert [one["name"] for one in whole["responses"]] == ["a", "b", "secret"] and whole["throttle_time"] == 5
    assert refuse(head("Produce", 9), produce("secret"), {Item("secret"): 29}).kept is None


def test_without_acks_nothing_is_answered() -> None:
    refused = {Item("secret"): 29}
    assert refuse(head("Produce", 9), produce("secret", acks=0), refused) == CLOSES
    some = refuse(head("Produce", 9), produce("a", "secret", acks=0), refused)
    assert some == Split(produce("a", acks=0), None)


def test_metadata_of_nothing_has_the_brokers() -> None:
    """Clients need them; version 0 cannot ask for no topic, and its response is emptied."""
    tree = {"topics": [{"name": "secret"}]}
    for version in range(14):
        split = refuse(head("Metadata", version), tree, {Item("secret"): 29})
        assert split.kept == {"topics": []} and split.alone == (version == 0)
        server = {"brokers": [1], "topics": [{"name": "a"}] if version == 0 else []}
        whole = complete(head("Metadata", version), server, split)
        assert whole["brokers"] == [1] and [one["name"] for one in whole["topics"]] == ["secret"]
    refused = refuse(head("Metadata", 9), {"topics": None}, {Item(): 31})
    assert refused.kept == {"topics": []} and refused.answer == {"topics": []}


def test_metadata_by_id_does_not_tell_the_name() -> None:
    split = refuse(head("Metadata", 12), {"topics": [{"name": "x", "topic_id": ID}]}, {Item(topic_id=ID): 29})
    assert split.answer is not None
    (entry,) = split.answer["topics"]
    assert "name" not in entry and entry["topic_id"] == ID and entry["topic_authorized_operations"] == -(1 << 31)


def test_a_refused_group_stands_where_each_version_has_it() -> None:
    topics = [{"name": "a", "partition_indexes": [0]}]
    item = Item("a", group="secret")
    one = refuse(head("OffsetFetch", 1), {"group_id": "secret", "topics": topics}, {item: 30})
    assert one.answer is not None and one.answer["topics"][0]["partitions"][0]["error_code"] == 30
    for version in range(2, 8):
        top = refuse(head("OffsetFetch", version), {"group_id": "secret", "topics": topics}, {item: 30})
        assert top.kept is None and top.answer == {"error_code": 30}
        every = refuse(head("OffsetFetch", version), {"group_id": "secret", "topics": None}, {Item(group="secret"): 30})
        assert every == top
    tree = {"groups": [{"group_id": "g", "topics": topics}, {"group_id": "secret", "topics": topics}]}
    some = refuse(head("OffsetFetch", 8), tree, {item: 30})
    assert some.kept == {"groups": tree["groups"][:1]}
    assert some.answer == {"groups": [{"group_id": "secret", "topics": [], "error_code": 30}]}
    whole = complete(head("OffsetFetch", 8), {"groups": [{"group_id": "g", "topics": [], "error_code": 0}]}, some)
    assert [one["group_id"] for one in whole["groups"]] == ["g", "secret"]


def test_a_group_with_a_refused_topic_is_completed() -> None:
    names = [{"name": name, "partition_indexes": [0]} for name in ("a", "secret")]
    split = refuse(
        head("OffsetFetch", 8), {"groups": [{"group_id": "g", "topics": names}]}, {Item("secret", group="g"): 29}
    )
    assert split.kept == {"groups": [{"group_id": "g", "topics": names[:1]}]}
    server: Tree = {"groups": [{"group_id": "g", "topics": [{"name": "a"}], "error_code": 0}]}
    (group,) = complete(head("OffsetFetch", 8), server, split)["groups"]
    assert [one["name"] for one in group["topics"]] == ["a", "secret"]
    server["groups"][0]["error_code"] = 14  # a broker adds nothing to an error
    assert complete(head("OffsetFetch", 8), server, split) == server


def test_add_partitions_to_a_transaction_is_all_or_nothing() -> None:
    tree = {
        "v3_and_below_transactional_id": "t",
        "v3_and_below_topics": [{"name": name, "partitions": [0]} for name in ("a", "secret")],
    }
    for version in range(4):
        split = refuse(head("AddPartitionsToTxn", version), tree, {Item("secret", transactional_id="t"): 29})
        assert split.kept is None and split.answer is not None
        codes = {
            one["name"]: one["results_by_partition"][0]["partition_error_code"]
            for one in split.answer["results_by_topic_v3_and_below"]
        }
        assert codes == {"a": 55, "secret": 29}


def test_a_heartbeat_is_refused_as_a_whole() -> None:
    """The group counts more than a topic, as brokers look at it first."""
    names: Tree = {"group_id": "g", "subscribed_topic_names": ["a", "secret"]}
    for api in ("ConsumerGroupHeartbeat", "ShareGroupHeartbeat"):
        split = refuse(head(api, 1), names, {Item("secret", group="g"): 29})
        assert split == Split(None, {"error_code": 29, "error_message": None})
        codes = {Item("secret", group="g"): 29, Item("a", group="g"): 30}
        assert refuse(head(api, 1), names, codes) == Split(None, {"error_code": 30, "error_message": None})


def test_the_cursor_of_a_refused_topic() -> None:
    """The topics before it were not asked for, and without it among the topics a broker would call it invalid."""
    tree = {"topics": [{"name": name} for name in "abc"], "cursor": {"topic_name": "b", "partition_index": 0}}
    split = refuse(head("DescribeTopicPartitions", 0), tree, {Item("b"): 29, Item("a"): 29})
    assert split.kept == {"topics": [{"name": "c"}], "cursor": None}
    assert split.answer is not None and [one["name"] for one in split.answer["topics"]] == ["b"]


def test_what_stands_twice() -> None:
    made = refuse(head("CreateTopics", 7), {"topics": [{"name": "secret"}] * 2}, {Item("secret"): 29}).answer
    assert made is not None and [(one["error_code"], one["error_message"]) for one in made["topics"]] == [
        (42, "Duplicate topic name.")
    ]
    parts = [{"partition_index": 0}]
    twice = {"group_id": "g", "topics": [{"name": "secret", "partitions": parts}] * 2}
    made = refuse(head("OffsetCommit", 2), twice, {Item("secret", group="g"): 29}).answer
    assert made is not None and len(made["topics"][0]["partitions"]) == 2
    made = refuse(head("Produce", 9), produce("secret", "secret"), {Item("secret"): 29}).answer
    assert made is not None and len(made["responses"][0]["partition_responses"]) == 1


@pytest.mark.parametrize("api", ["ListGroups", "ListTransactions"])
def test_lists_are_refused_by_being_empty(api: str) -> None:
    assert refuse(head(api, 0), {}, {Item(): 31}) == Split(None, {"error_code": 0})


def test_log_dirs_are_refused_without_an_error_before_it_had_one() -> None:
    split = refuse(head("DescribeLogDirs", 1), {"topics": None}, {Item(): 31})
    assert split.kept is None and split.answer is not None
    assert encode(35, 1, RESPONSE, split.answer) == bytes(8)


def test_controllers_apis_close() -> None:
    assert {APIS[key].name for key in CLOSED} >= {"Envelope", "Vote", "AlterPartition", "UpdateRaftVoter"}
    for key in CLOSED:
        assert refuse(Head(key, APIS[key].low, 7, None, 0, 0), {}, {Item(): 31}) == CLOSES


def test_usual_codes() -> None:
    assert code(head("Produce", 9), Item("a", None, None, "t")) == code(head("Fetch", 13), Item(topic_id=ID)) == 29
    assert code(head("OffsetCommit", 9), Item("a", None, "g")) == 29
    assert code(head("JoinGroup", 9), Item(group="g")) == code(head("FindCoordinator", 0), Item(group="g")) == 30
    assert code(head("AddOffsetsToTxn", 0), Item(group="g", transactional_id="t")) == 53
    assert code(head("InitProducerId", 0), Item()) == 31


# -- what may not be seen --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("api", "version", "response", "left"),
    [
        ("Metadata", 1, {"topics": [{"name": "a"}, {"name": "secret"}]}, {"topics": [{"name": "a"}]}),
        (
            "Metadata",
            12,
            {"topics": [{"name": None, "topic_id": ID}, {"name": None, "topic_id": OTHER}]},
            {"topics": [{"name": None, "topic_id": OTHER}]},
        ),
        ("ListGroups", 4, {"groups": [{"group_id": "g"}, {"group_id": "secret"}]}, {"groups": [{"group_id": "g"}]}),
        (
            "ListTransactions",
            0,
            {"transaction_states": [{"transactional_id": "secret"}, {"transactional_id": "t"}]},
            {"transaction_states": [{"transactional_id": "t"}]},
        ),
        (
            "DescribeTransactions",
            0,
            {"transaction_states": [{"topics": [{"topic": "a"}, {"topic": "secret"}]}]},
            {"transaction_states": [{"topics": [{"topic": "a"}]}]},
        ),
        (
            "OffsetFetch",
            5,
            {"topics": [{"name": "secret"}, {"name": "a"}]},
            {"topics": [{"name": "a"}]},
        ),
        (
            "OffsetFetch",
            10,
            {"groups": [{"group_id": "g", "topics": [{"topic_id": ID}, {"topic_id": OTHER}]}]},
            {"groups": [{"group_id": "g", "topics": [{"topic_id": OTHER}]}]},
        ),
        (
            "DescribeLogDirs",
            4,
            {"results": [{"topics": [{"name": "a"}, {"name": "secret"}]}]},
            {"results": [{"topics": [{"name": "a"}]}]},
        ),
        (
            "ListConfigResources",
            1,
            {
                "config_resources": [
                    {"resource_type": kind, "resource_name": name}
                    for kind, name in ((2, "secret"), (32, "secret"), (4, "secret"), (2, "a"))
                ]
            },
            {
                "config_resources": [
                    {"resource_type": 4, "resource_name": "secret"},
                    {"resource_type": 2, "resource_name": "a"},
                ]
            },
        ),
        ("DescribeCluster", 0, {"cluster_id": "secret"}, {"cluster_id": "secret"}),
    ],
)
def test_what_is_refused_is_left_out(api: str, version: int, response: Tree, left: Tree) -> None:
    assert trim(head(api, version), response, secret) == left


def test_a_group_that_reads_what_is_refused() -> None:
    empty: Tree = {"topic_partitions": []}
    reads = {"topic_partitions": [{"topic_name": "secret"}]}
    for member in (
        {"subscribed_topic_names": ["secret"], "assignment": empty, "target_assignment": empty},
        {"subscribed_topic_names": [], "assignment": reads, "target_assignment": empty},
        {"subscribed_topic_names": [], "assignment": empty, "target_assignment": reads},
    ):
        groups = {"groups": [{"group_id": "g", "error_code": 0, "group_state": "Stable", "members": [member]}]}
        (group,) = trim(head("ConsumerGroupDescribe", 0), groups, secret)["groups"]
        assert (group["group_id"], group["error_code"]) == ("g", 29) and "members" not in group
        assert trim(head("ConsumerGroupDescribe", 0), groups, lambda item: False) == groups
    topology = {"subtopologies": [{"source_topics": ["secret"]}]}
    streams: Tree = {"groups": [{"group_id": "g", "error_code": 0, "topology": topology}]}
    assert trim(head("StreamsGroupDescribe", 0), streams, secret)["groups"][0]["error_code"] == 29


@pytest.mark.parametrize(
    ("api", "response", "asked"),
    [
        (
            "DescribeTransactions",
            {"transaction_states": [{"transactional_id": "t", "topics": [{"topic": "a"}]}]},
            Item("a", transactional_id="t"),
        ),
        (
            "DescribeShareGroupOffsets",
            {"groups": [{"group_id": "g", "topics": [{"topic_name": "a"}]}]},
            Item("a", group="g"),
        ),
        (
            "ConsumerGroupDescribe",
            {"groups": [{"group_id": "g", "error_code": 0, "members": [{"subscribed_topic_names": ["a"]}]}]},
            Item("a", group="g"),
        ),
    ],
)
def test_topics_are_asked_about_with_what_they_belong_to(api: str, response: Tree, asked: Item) -> None:
    """Or nothing would be left for those whose rules are about groups or transactional ids."""
    for group in response.get("groups", ()):
        for member in group.get("members", ()):
            member |= {"assignment": {"topic_partitions": []}, "target_assignment": {"topic_partitions": []}}
    seen: list[Item] = []
    trim(head(api, 0), response, lambda item: seen.append(item) is not None)
    assert seen == [asked]


def test_records_of_a_share_session_with_a_refused_topic() -> None:
    parts = [{"partition_index": 3, "error_code": 0, "records": b"r", "acquired_records": [1]}]
    tree = {"responses": [{"topic_id": one, "partitions": parts} for one in (ID, OTHER)]}
    gone, stays = trim(head("ShareFetch", 1), tree, secret)["responses"]
    assert stays["partitions"] == parts and gone["partitions"] == [{"partition_index": 3, "error_code": 29}]


@pytest.mark.parametrize(
    ("cursor", "limit", "asked", "then", "most"),
    [
        (None, 10, ["a", "b", "c"], None, 10),
        (None, 1, None, None, 0),
        (None, 0, None, None, 0),
        (None, 2, ["a", "b", "c"], None, 2),
        (None, 2000, ["a", "b", "c"], None, 11),
        ("a", 10, ["a", "b", "c"], "a", 10),
        ("b", 10, ["b", "c"], "b", 10),
        ("bb", 10, ["c"], None, 10),
        ("c", 10, ["c"], "c", 10),
        ("d", 10, [], None, 10),
        ("secret-0", 1, [], None, 1),
        ("t", 10, None, None, 0),
    ],
)
def test_pages_are_asked_for_without_what_is_refused(
    cursor: str | None, limit: int, asked: list[str] | None, then: str | None, most: int
) -> None:
    """So a cursor is never the name of a refused topic."""
    at = None if cursor is None else {"topic_name": cursor, "partition_index": 1}
    tree = {"topics": [], "response_partition_limit": limit, "cursor": at}
    names = ["c", "secret-1", "a", "b", "bsecret", "secret-2"]
    made = page(tree, names, lambda name: "secret" in name, 11)
    if asked is None:
        assert made is None
        return
    assert made is not None and [one["name"] for one in made["topics"]] == asked
    assert made["response_partition_limit"] == most and made["cursor"] == (at if then else None)


# -- which APIs there are --------------------------------------------------------------------------------------------


def test_api_versions_are_narrowed_to_what_can_be_judged() -> None:
    def row(key: int, low: int, high: int) -> dict[str, int]:
        return {"api_key": key, "min_version": low, "max_version": high}

    tree = {"api_keys": [row(0, 0, 99), row(1, 0, 12), row(2, 99, 100), row(7, 0, 3), row(58, 0, 0), row(999, 0, 0)]}
    assert narrow(tree) == {"api_keys": [row(0, 0, APIS[0].high), row(1, APIS[1].low, 12)]}
