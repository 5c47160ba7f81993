"""Requests at random that name several things, of which some are refused (see `tests.kafka.cases`)."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from parsers.kafka_schema import APIS
from tests.kafka.cases import (
    BY_GROUP,
    BY_TOPIC,
    BY_TRANSACTION,
    LOG,
    NOWHERE,
    OPEN,
    OPEN_GROUP,
    OPEN_TXN,
    OTHER,
    RUNNING,
    SECRET,
    SECRET_GROUP,
    SECRET_NOWHERE,
    SECRET_TXN,
    Case,
    Names,
    Topic,
    build,
    keys,
    leaves,
)
from tests.kafka.truth import SEVERAL

_REPEATABLE = keys(
    "Produce", "Fetch", "ListOffsets", "Metadata", "OffsetCommit", "OffsetFetch", "CreateTopics", "DeleteRecords",
    "OffsetForLeaderEpoch", "TxnOffsetCommit", "CreatePartitions", "OffsetDelete", "DescribeProducers",
    "DescribeGroups", "DescribeTopicPartitions", "DescribeTransactions", "ConsumerGroupDescribe",
)  # fmt: skip
"""APIs that answer the same to the same request, and to the parts of it."""
_PARTS = ("partitions", "partition_indexes", "partition_data")
_USERS = {
    "topics": BY_TOPIC,
    "groups": BY_GROUP,
    "transactions": BY_TRANSACTION - keys("Produce"),
    SEVERAL: BY_TOPIC | BY_GROUP,
}


def mixtures(rng: random.Random, served: Mapping[int, tuple[int, int]], count: int) -> Iterator[Case]:
    """`count` requests. `served`: the broker's versions by API."""
    for number in range(count):
        key = rng.choice(sorted(_REPEATABLE))
        version = rng.randint(max(served[key][0], 3 if key == 0 else 0), served[key][1])
        user = rng.choice([name for name, some in _USERS.items() if key in some])
        by_name = OPEN.name in leaves(build(key, version, Names()))
        topics = [OPEN, SECRET, NOWHERE, OTHER, LOG] + ([SECRET_NOWHERE] if by_name else [])
        some = [Topic(one.name) if by_name else Topic(None, one.id) for one in _some(rng, topics)]
        # OffsetDelete says of a group whether it is there, before it looks at topics.
        nowhere = [] if APIS[key].name == "OffsetDelete" else ["nowhere-group", "secret-nowhere"]
        groups = _some(rng, [OPEN_GROUP, SECRET_GROUP, *nowhere])
        names = Names(some, groups, _some(rng, [OPEN_TXN, SECRET_TXN, RUNNING, "secret-nowhere"]))
        yield Case(key, version, user, f"mixture {number}", _parted(rng, build(key, version, names)))


def _some(rng: random.Random, names: Sequence[Any]) -> list[Any]:
    return rng.sample(names, rng.randint(1, len(names)))


def _parted(rng: random.Random, tree: Any, name: str = "") -> Any:
    """With one to three partitions in place of each."""
    if isinstance(tree, dict):
        return {key: _parted(rng, value, key) for key, value in tree.items()}
    if isinstance(tree, list) and name in _PARTS and tree:
        return [_numbered(tree[0], number) for number in rng.sample([0, 1, 2], rng.randint(1, 3))]
    return [_parted(rng, one) for one in tree] if isinstance(tree, list) else tree


def _numbered(part: Any, number: int) -> Any:
    if not isinstance(part, dict):
        return number
    field = next(key for key in part if key in ("partition_index", "partition", "index"))
    return {**part, field: number}
