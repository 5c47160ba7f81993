"""Requests of every API and version, in which some names are refused: what `tests.kafka.truth` asks a real broker.

Whatever is named ``secret...`` is refused to the user who asks, and what is named ``...nowhere`` is not there. Fields
that are not about names are filled so that a request is valid and changes nothing that another one looks at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from parsers.kafka_schema import APIS, BY_NAME, REQUEST, Field, message

ZERO = bytes(16)


class Topic(NamedTuple):
    """What stands for a topic in a request. `name` None: named by its id alone."""

    name: str | None
    id: bytes = ZERO


def stand_in(name: str) -> bytes:
    """The id that stands in vectors for the one that the broker gave a topic."""
    return f"id:{name}".encode().ljust(16, b".")[:16]


OPEN, OTHER, SECRET, LOG = (Topic(name, stand_in(name)) for name in ("open", "other", "secret", "open-log"))
"""Topics that there are."""
NOWHERE, SECRET_NOWHERE = Topic("nowhere", stand_in("no topic")), Topic("secret-nowhere", stand_in("nobody"))
OPEN_GROUP, SECRET_GROUP, SHARE_GROUP = "open-group", "secret-group", "open-share"
OPEN_TXN, SECRET_TXN = "open-txn", "secret-txn"
READERS = {"ConsumerGroup": ("open-readers", "all-readers"), "ShareGroup": ("open-takers", "all-takers")}
"""Groups with a member each, of which the first reads `OPEN` and the second `SECRET` as well."""
RUNNING = "running-txn"
"""A transaction with `OPEN` and `SECRET` in it."""
FILTERED = frozenset({"empty", "null", "all", "one with both topics", "their readers"})
"""Cases that *everyone* asks as well."""
MEMBER = "AAAAAAAAAAAAAAAAAAAAAQ"
BATCH = bytes.fromhex(
    "0000000000000000 0000003d 00000000 02 40babee8 0000 00000000 0000000000000001 0000000000000001"
    "ffffffffffffffff ffff ffffffff 00000001 16 00 00 00 01 0a 76616c7565 00"
)
"""Of one record, ``value``."""
TRANSACTIONAL = bytes.fromhex(
    "0000000000000000 0000003d 00000000 02 8160b636 0010 00000000 0000000000000001 0000000000000001"
    "0000000000000000 0000 00000000 00000001 16 00 00 00 01 0a 76616c7565 00"
)
"""The same, in a transaction."""


@dataclass(frozen=True)
class Names:
    """What a request names; `topics` None is a null list. `more`: fields by name with other values than usual."""

    topics: Sequence[Topic] | None = (OPEN,)
    groups: Sequence[str] = (OPEN_GROUP,)
    transactions: Sequence[str | None] = (OPEN_TXN,)
    resources: Sequence[tuple[int, str]] = ((4, "1"),)
    more: Mapping[str, Any] = field(default_factory=dict)


class Case(NamedTuple):
    """One request. `user` says what is refused (see `tests.kafka.truth`)."""

    key: int
    version: int
    user: str
    name: str
    tree: dict[str, Any]


# -- a tree from the schema ------------------------------------------------------------------------------------------

_TOPIC_LISTS = {"topics", "topic_data", "topic_names", "v3_and_below_topics", "topic_partitions", "source_topics"}
_TOPIC_LISTS |= {"subscribed_topic_names"}
_GROUP_LISTS, _TXN_LISTS = {"groups", "groups_names", "group_ids"}, {"transactions", "transactional_ids"}
_NAMES = ("topic", "name", "topic_name")
_VALUES: dict[str, Any] = {
    "acks": -1, "timeout": 20000, "replica_id": -1, "max_wait": 1, "max_bytes": 1 << 20, "partition_max_bytes": 1 << 20,
    "session_epoch": -1, "current_leader_epoch": -1, "last_fetched_epoch": -1, "timestamp": -1, "leader_epoch": 0,
    "generation_id_or_member_epoch": -1, "generation_id": -1, "committed_leader_epoch": -1, "retention_time": -1,
    "session_timeout": 10000, "rebalance_timeout": 10000, "protocol_type": "consumer", "transaction_timeout": 10000,
    "num_partitions": 1, "replication_factor": 1, "validate_only": True, "count": 2, "records": BATCH,
    "response_partition_limit": 2000, "principal": "User:nobody", "host": "*", "resource_pattern_type": 3,
    "pattern_type_filter": 3, "member_epoch": -1, "max_records": 10, "batch_size": 10, "path": "/nowhere",
    "partition_indexes": [0], "partitions": [0], "forgotten_topics_data": [], "acknowledgement_batches": [],
    "assignments": [], "state_batches": [], "subscribed_topic_regex": None, "stable": False, "broker_id": 1,
    "repartition_source_topics": [], "state_changelog_topics": [], "repartition_sink_topics": [],
    "source_topic_regex": [], "copartition_groups": [], "client_instance_id": bytes(15) + b"\1", "max_lifetime": -1,
    "key": "retention.ms", "feature_updates": [], "entity_type": "user", "component": [], "listeners": [],
    "share_session_epoch": 0, "member_id_": MEMBER, "features": [], "leader_endpoints": [], "replicas": [1],
    "transactional_id_pattern": None, "duration_filter": -1,
}  # fmt: skip
_BY_API: dict[int, dict[str, Any]] = {
    10: {"key": None},
    14: {"protocol_name": "range"},
    19: {"configs": []},
    37: {"assignments": None},
    29: {"resource_type_filter": 2, "operation": 1, "permission_type": 1, "pattern_type_filter": 1},
    30: {"resource_type": 2, "resource_name": "open", "operation": 3, "permission_type": 3},
    31: {"resource_type_filter": 2, "operation": 3, "permission_type": 3},
    33: {"name": "retention.ms", "value": "86400000"},
    44: {"name": "retention.ms", "value": "86400000"},
    48: {"entity_type": "user", "match_type": 2},
    49: {"entity_name": "nobody", "key": "producer_byte_rate", "value": 1e6},
    50: {"name": "nobody"},
    51: {"mechanism": 1, "name": "nobody", "iterations": 4096, "salt": b"salt", "salted_password": bytes(32)},
    57: {"feature": "group.version", "max_version_level": 1, "upgrade_type": 1},
    58: {"client_host_address": bytes(4)},
    68: {"member_id": MEMBER, "member_epoch": 0, "topic_partitions": []},
    76: {"member_id": MEMBER, "member_epoch": 0},
    78: {"member_id": MEMBER},
    79: {"member_id": MEMBER, "share_session_epoch": -1},
    88: {"member_id": MEMBER, "member_epoch": 0, "active_tasks": [], "standby_tasks": [], "warmup_tasks": [],
         "process_id": "process", "subtopology_id": "0"},
}  # fmt: skip


def build(key: int, version: int, names: Names) -> dict[str, Any]:
    """The tree of a request."""
    return _filled(message(key, version, REQUEST).fields, key, names)


def _filled(fields: Sequence[Field], key: int, names: Names) -> dict[str, Any]:
    return {one.name: _value(one, key, names) for one in fields if one.tag is None}


def _value(one: Field, key: int, names: Names) -> Any:
    values = _VALUES | _BY_API.get(key, {}) | dict(names.more)
    transactional = names.more.get("key_type") == 1
    if one.name in _GROUP_LISTS or (one.name == "coordinator_keys" and not transactional):
        return [_entry(one, key, names, "group_id", group) for group in names.groups]
    if one.name in _TXN_LISTS or one.name == "coordinator_keys":
        return [_entry(one, key, names, "transactional_id", transaction) for transaction in names.transactions]
    if one.name == "key" and key == 10:
        return (names.transactions if transactional else names.groups)[0]
    if one.name == "resources":
        rows = [{"resource_type": kind, "resource_name": name} for kind, name in names.resources]
        return [_filled(one.fields, key, names) | row for row in rows]
    if one.name == "group_id":
        return names.groups[0]
    if one.name in ("transactional_id", "v3_and_below_transactional_id"):
        return names.transactions[0] if key or values["records"] is TRANSACTIONAL else None
    if one.name in _TOPIC_LISTS and not (one.name == "topic_partitions" and key != 43):
        if names.topics is None:
            return None
        return [_topic(one, key, names, topic) for topic in names.topics]
    if one.name in values and not (one.name == "partitions" and one.fields):
        return values[one.name]
    return _usual(one, key, names)


def _usual(one: Field, key: int, names: Names) -> Any:
    if one.kind == "[]":
        return [_filled(one.fields, key, names)]
    if one.kind == "{}":
        return None if one.null and key != 88 else _filled(one.fields, key, names)
    if one.null or one.kind.startswith("[]"):
        return None if one.null else []
    return {"string": "", "bytes": b"", "records": b"", "uuid": ZERO, "bool": False}.get(one.kind, 0)


def _entry(one: Field, key: int, names: Names, name: str, value: str | None) -> Any:
    """An element of a list of groups or transactions: a name, or a structure that has it."""
    return {**_filled(one.fields, key, names), name: value} if one.kind == "[]" else value


def _topic(one: Field, key: int, names: Names, topic: Topic) -> Any:
    if one.kind != "[]":
        return topic.name
    entry = _filled(one.fields, key, names)
    for name in _NAMES:
        if name in entry:
            entry[name] = topic.name
    if "topic_id" in entry:
        entry["topic_id"] = topic.id
    return entry


# -- cases -----------------------------------------------------------------------------------------------------------


def keys(*names: str) -> frozenset[int]:
    """Of APIs by name."""
    return frozenset(BY_NAME[name.lower()].key for name in names)


_OPEN_TO_ALL = keys("SaslHandshake", "ApiVersions", "SaslAuthenticate", "DescribeCluster", "GetTelemetrySubscriptions")
_OPEN_TO_ALL |= keys("PushTelemetry", "CreateDelegationToken", "RenewDelegationToken", "ExpireDelegationToken")
_OPEN_TO_ALL |= keys("DescribeDelegationToken")
_JOINS = keys("ConsumerGroupHeartbeat", "ShareGroupHeartbeat", "StreamsGroupHeartbeat", "JoinGroup")
BY_TOPIC = keys(
    "Produce", "Fetch", "ListOffsets", "Metadata", "OffsetCommit", "OffsetFetch", "CreateTopics", "DeleteTopics",
    "DeleteRecords", "OffsetForLeaderEpoch", "AddPartitionsToTxn", "WriteTxnMarkers", "TxnOffsetCommit",
    "AlterReplicaLogDirs", "DescribeLogDirs", "CreatePartitions", "ElectLeaders", "AlterPartitionReassignments",
    "ListPartitionReassignments", "OffsetDelete", "DescribeQuorum", "DescribeProducers", "ConsumerGroupHeartbeat",
    "DescribeTopicPartitions", "ShareGroupHeartbeat", "ShareFetch", "ShareAcknowledge", "InitializeShareGroupState",
    "ReadShareGroupState", "WriteShareGroupState", "DeleteShareGroupState", "ReadShareGroupStateSummary",
    "StreamsGroupHeartbeat", "DescribeShareGroupOffsets", "AlterShareGroupOffsets", "DeleteShareGroupOffsets",
)  # fmt: skip
BY_GROUP = keys(
    "OffsetCommit", "OffsetFetch", "FindCoordinator", "JoinGroup", "Heartbeat", "LeaveGroup", "SyncGroup",
    "DescribeGroups", "AddOffsetsToTxn", "TxnOffsetCommit", "DeleteGroups", "OffsetDelete", "ConsumerGroupHeartbeat",
    "ConsumerGroupDescribe", "ShareGroupHeartbeat", "ShareGroupDescribe", "ShareFetch", "ShareAcknowledge",
    "StreamsGroupHeartbeat", "StreamsGroupDescribe", "DescribeShareGroupOffsets", "AlterShareGroupOffsets",
    "DeleteShareGroupOffsets", "ListGroups",
)  # fmt: skip
BY_TRANSACTION = keys(
    "Produce", "FindCoordinator", "InitProducerId", "AddPartitionsToTxn", "AddOffsetsToTxn", "EndTxn",
    "TxnOffsetCommit", "DescribeTransactions", "ListTransactions",
)  # fmt: skip
_CONFIGS = keys("DescribeConfigs", "AlterConfigs", "IncrementalAlterConfigs")
_REFUSED_GROUP, _REFUSED_TXN = Names(groups=[SECRET_GROUP]), Names(transactions=[SECRET_TXN])


def cases(served: Mapping[int, tuple[int, int]]) -> Iterator[Case]:
    """All requests, in the order in which they are asked. `served`: first and last version by API, as the broker lists
    them; of what it does not list one request each."""
    for key, api in APIS.items():
        low, high = served.get(key, (api.low, api.low))
        if key in _OPEN_TO_ALL:
            continue
        for version in range(max(low, api.low), min(high, api.high) + 1):
            for user, name, names in _of(key, version, key in served):
                yield Case(key, version, user, name, build(key, version, names))
                if name in FILTERED:
                    yield Case(key, version, "everyone", f"{user}: {name}", build(key, version, names))


def _of(key: int, version: int, served: bool) -> Iterator[tuple[str, str, Names]]:
    by_name = OPEN.name in leaves(build(key, version, Names()))
    some = [Topic(one.name) if by_name else one for one in (OPEN, SECRET)]
    yield "nobody", "nothing allowed", Names(topics=some)
    if not served:
        return
    if APIS[key].name == "Metadata":
        yield "nobody", "no topic", Names(topics=[])
    if key in BY_TOPIC:
        for name, names in _topics(key, version):
            yield "topics", name, names
    if key in BY_GROUP:
        for name, names in _groups(key, version):
            yield "groups", name, names
    if key in BY_TRANSACTION:
        for name, names in _transactions(key, version):
            yield "transactions", name, names
    if APIS[key].name == "FindCoordinator" and version >= 6:
        yield "nobody", "share", Names(groups=[f"{SHARE_GROUP}:AAAAAAAAAAAAAAAAAAAAAQ:0"], more={"key_type": 2})
    if APIS[key].name == "InitProducerId":
        yield "nobody", "no transaction", Names(transactions=[None])
    if APIS[key].name == "DescribeTransactions":
        yield "topics", "one with both topics", Names(transactions=[RUNNING])
    for kind, groups in READERS.items():
        if APIS[key].name == f"{kind}Describe":
            yield "topics", "their readers", Names(groups=groups)
    if key in _CONFIGS:
        for user, kind, words in (("topics", 2, ("open", "secret", "nowhere")), ("groups", 32, ("open", "secret"))):
            for name, some in {
                "mixed": words,
                "kept": [w for w in words if w != "secret"],
                "refused": ["secret"],
            }.items():
                yield user, name, Names(resources=[(kind, word) for word in some])
        yield "nobody", "topic and group", Names(resources=[(2, "open"), (32, "open")])


def _topics(key: int, version: int) -> Iterator[tuple[str, Names]]:
    shape = build(key, version, Names(topics=[OPEN]))
    by_id, by_name = OPEN.id in leaves(shape), OPEN.name in leaves(shape)
    if by_name:
        yield from _named(key, "name", [Topic(one.name) for one in (OPEN, SECRET, NOWHERE, SECRET_NOWHERE)])
    if by_id and not (APIS[key].name == "Metadata" and version < 12):
        yield from _named(key, "id", [Topic(None, one.id) for one in (OPEN, SECRET, NOWHERE)])
        if by_name:
            other = Topic("secret", OTHER.id)
            yield "name of one, id of another", Names(topics=[Topic("open", SECRET.id), other])
            yield "name of one that is refused, id of one that is open", Names(topics=[other])
    if key not in _JOINS:
        yield "empty", Names(topics=[])
        if None in leaves(build(key, version, Names(topics=None))) and _may_be_null(key, version):
            yield "null", Names(topics=None)
    if APIS[key].name == "DescribeTopicPartitions":
        for name, some in (("all", []), ("two", [OPEN, SECRET])):
            yield f"from a refused one on: {name}", Names(topics=some, more={"cursor": {"topic_name": "secret"}})
    if APIS[key].name == "StreamsGroupHeartbeat":
        yield "a refused sink", Names(more={"repartition_sink_topics": ["secret"]})
        for name in ("state_changelog_topics", "repartition_source_topics"):
            yield f"refused {name}", Names(more={name: [{"name": "secret"}]})
    if APIS[key].name == "Produce":
        for name, some in (("refused", [SECRET]), ("mixed", [LOG, SECRET])):
            yield f"{name} without acks", Names(topics=some, more={"acks": 0})
    if APIS[key].name == "Fetch" and version >= 7:
        yield "a session, mixed", Names(topics=[OPEN, SECRET], more={"session_epoch": 0})
        yield "a session, kept", Names(topics=[OPEN], more={"session_epoch": 0})


def _named(key: int, how: str, some: Sequence[Topic]) -> Iterator[tuple[str, Names]]:
    """`some`: one that is open, one that is refused, one that is nowhere, and perhaps one that is both."""
    open_, secret, nowhere, *both = some
    if APIS[key].name == "Produce":
        open_ = LOG if how == "id" else Topic(LOG.name)
    groups = [SHARE_GROUP if APIS[key].name.endswith("ShareGroupOffsets") else OPEN_GROUP]
    there = [] if APIS[key].name in ("DeleteTopics", "DeleteShareGroupOffsets") else [open_]
    lists = {"refused": [secret], "refused and nowhere": [secret, *both], "mixed": [secret, *there, nowhere, *both]}
    if key not in _JOINS:
        lists |= {"kept": [*there, nowhere], "nowhere": [nowhere], "twice": [secret, nowhere, secret]}
    if key not in _JOINS and there and APIS[key].name != "ShareFetch":  # whose sessions go on
        lists |= {"two": [open_, secret], "open": there}
    if not both:
        del lists["refused and nowhere"]
    if APIS[key].name == "WriteTxnMarkers":
        del lists["twice"]
    for name, topics in lists.items():
        yield f"{name} by {how}", Names(topics=topics, groups=groups)


def _groups(key: int, version: int) -> Iterator[tuple[str, Names]]:
    if APIS[key].name == "ListGroups":
        yield "all", Names(more={"states_filter": [], "types_filter": []})
        return
    open_ = "nowhere-group" if APIS[key].name == "DeleteGroups" else OPEN_GROUP
    one, several = Names(groups=[open_]), Names(groups=[open_, SECRET_GROUP])
    yield "refused", replace(_REFUSED_GROUP, topics=[OPEN, NOWHERE])
    if build(key, version, several) != build(key, version, one):
        yield "mixed", several
        yield "kept", one
    if APIS[key].name in ("OffsetFetch", "DescribeShareGroupOffsets") and _may_be_null(key, version):
        yield "refused, null", replace(_REFUSED_GROUP, topics=None)


def _transactions(key: int, version: int) -> Iterator[tuple[str, Names]]:
    more: dict[str, Any] = {"key_type": 1} if APIS[key].name == "FindCoordinator" else {}
    if APIS[key].name == "FindCoordinator" and version == 0:
        return
    if APIS[key].name == "ListTransactions":
        yield "all", Names(more={"producer_id_filters": []})
        return
    if APIS[key].name == "Produce":
        more = {"records": TRANSACTIONAL}
    yield "refused", replace(_REFUSED_TXN, topics=[OPEN, NOWHERE], more=more)
    several = Names(transactions=[OPEN_TXN, SECRET_TXN], more=more)
    if build(key, version, several) != build(key, version, Names(more=more)):
        yield "mixed", several
        yield "kept", Names(more=more)


def _may_be_null(key: int, version: int) -> bool:
    """Whether the list of topics may be null."""

    def some(fields: Sequence[Field]) -> bool:
        return any((one.name in _TOPIC_LISTS and one.null) or some(one.fields) for one in fields)

    return some(message(key, version, REQUEST).fields)


def leaves(tree: Any) -> list[Any]:
    """All values of a tree."""
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in leaves(value)]
    if isinstance(tree, list):
        return [leaf for value in tree for leaf in leaves(value)]
    return [tree]
