"""What a Kafka request names: topics, topic ids, groups and transactional ids, read in place by a table of the APIs.

Not looked at is what brokers let through as well: topic names inside the metadata that members of classic groups give
each other, and expressions for topics (KIP-848), of which a broker assigns what exists and each Fetch is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from parsers.kafka import Head
from parsers.kafka_codec import Tree, wanted
from parsers.kafka_schema import REQUEST
from parsers.malformed import Malformed

NO_ID = bytes(16)


class Item(NamedTuple):
    """What a request names together: a topic by name or by id, with the group and the transaction it is for. None: it
    names none."""

    topic: str | None = None
    topic_id: bytes | None = None
    group: str | None = None
    transactional_id: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for.

    `items`: each once; a request that names nothing has one empty Item. `every_topic`: it asks for all topics there
    are (in OffsetFetch: for at least one group). `trims`: the response may name what the request does not, and is for
    `kafka_responses.trim`. `acks0`: a Produce that gets no response. `replica`: a Fetch as brokers send them to each
    other. `session`: the number and epoch of a Fetch session (KIP-227)."""

    items: tuple[Item, ...]
    every_topic: bool = False
    trims: bool = False
    acks0: bool = False
    replica: bool = False
    session: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Names:
    """Where one API names things.

    `entries`: the array whose entries name one thing each, of the `kind` topic, group, txn, resource (by its type) or
    key (by the request's key type). `field`: of an entry, with its name ("": the entry is the name). `scope`: the array
    whose structures have the entries ("": the request has). `group`, `txn`: fields of the scope with the group's and
    the transaction's id. `paths`: of topics that stand elsewhere. `every`: an array of entries that asks for all."""

    entries: str = ""
    field: str = ""
    scope: str = ""
    group: str = ""
    txn: str = ""
    kind: str = "topic"
    every: str = ""
    both: bool = False
    """An entry with a name and an id names two things: which one decides depends on the broker's release."""
    paths: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    """Further fields that `asked` looks at."""


_RESOURCES = Names("resources", "resource_name", kind="resource", more=("resources.resource_type",))
_GROUP = Names(group="group_id")
_SHARED = Names("topics", group="group_id")
_STREAMS = ("source_topics", "repartition_sink_topics", "state_changelog_topics.name", "repartition_source_topics.name")
_TABLE: Mapping[int, Names | Mapping[int, Names]] = {
    0: Names("topic_data", "name", txn="transactional_id", more=("acks",)),
    1: Names(
        "topics",
        "topic",
        more=(
            "replica_id",
            "replica_state.replica_id",
            "session_id",
            "session_epoch",
        ),
    ),
    2: Names("topics", "name"),
    3: {
        0: Names("topics", "name", every="empty"),
        1: Names("topics", "name", every="null"),
        10: Names("topics", "name", every="null", both=True),
        12: Names("topics", "name", every="null"),
    },
    8: Names("topics", "name", group="group_id"),
    9: {
        1: Names("topics", "name", group="group_id", every="null"),
        8: Names("topics", "name", "groups", group="group_id", every="null"),
    },
    10: {
        0: Names("key", kind="key"),
        1: Names("key", kind="key", more=("key_type",)),
        4: Names("coordinator_keys", kind="key", more=("key_type",)),
    },
    11: _GROUP,
    12: _GROUP,
    13: _GROUP,
    14: _GROUP,
    15: Names("groups", kind="group"),
    19: Names("topics", "name"),
    20: {1: Names("topic_names"), 6: Names("topics", "name", both=True)},
    21: Names("topics", "name"),
    22: Names(txn="transactional_id"),
    23: Names("topics", "topic"),
    24: {
        0: Names("v3_and_below_topics", "name", txn="v3_and_below_transactional_id"),
        4: Names("topics", "name", "transactions", txn="transactional_id"),
    },
    25: Names(group="group_id", txn="transactional_id"),
    26: Names(txn="transactional_id"),
    27: Names("topics", "name", "markers", more=("markers.producer_id",)),
    28: Names("topics", "name", group="group_id", txn="transactional_id"),
    32: _RESOURCES,
    33: _RESOURCES,
    34: Names("topics", "name", "dirs"),
    35: Names("topics", "topic", every="null"),
    37: Names("topics", "name"),
    42: Names("groups_names", kind="group"),
    43: Names("topic_partitions", "topic", every="null"),
    44: _RESOURCES,
    45: Names("topics", "name"),
    46: Names("topics", "name", every="null"),
    47: Names("topics", "name", group="group_id"),
    55: Names("topics", "topic_name"),
    61: Names("topics", "name"),
    65: Names("transactional_ids", kind="txn"),
    68: Names("subscribed_topic_names", group="group_id"),
    69: Names("group_ids", kind="group"),
    75: Names("topics", "name", every="empty"),
    76: Names("subscribed_topic_names", group="group_id"),
    77: Names("group_ids", kind="group"),
    78: _SHARED,
    79: _SHARED,
    83: _SHARED,
    84: _SHARED,
    85: _SHARED,
    86: _SHARED,
    87: _SHARED,
    88: Names(group="group_id", paths=tuple(f"topology.subtopologies.{path}" for path in _STREAMS)),
    89: Names("group_ids", kind="group"),
    90: Names("topics", "topic_name", "groups", group="group_id", every="null"),
    91: Names("topics", "topic_name", group="group_id"),
    92: Names("topics", "topic_name", group="group_id"),
}
"""By API key; where versions differ, by the first version. APIs that are not here name nothing."""

_TRIMMED = frozenset({16, 65, 66, 69, 74, 77, 89})
"""APIs whose responses name what the request did not, whatever it asked."""


@cache
def names(key: int, version: int) -> Names:
    """The row of an API's version; an empty one if it names nothing."""
    row = _TABLE.get(key, Names())
    return row if isinstance(row, Names) else row[max(low for low in row if low <= version)]


def asked(head: Head, data: bytes) -> Asked:
    """What the request behind `head` asks for; all of it is checked. Raises Malformed, for requests that real brokers
    never answer as well; KeyError if the version is not known."""
    key = head.api_key
    row, read = _row(key, head.version)
    tree = read(data, head.body, head.end)
    found = dict.fromkeys(item for scope in scopes(row, tree) for item in _named(row, tree, scope))
    items = tuple(found) or (Item(),)
    every = bool(row.every) and any(_every(row, scope) for scope in scopes(row, tree))
    trims = every or key in _TRIMMED
    if key == 0:
        return Asked(items, acks0=tree["acks"] == 0)
    if key == 1:
        session = (tree["session_id"], tree["session_epoch"]) if "session_id" in tree else None
        state: Tree = tree.get("replica_state", {})
        replica = tree.get("replica_id", -1) >= 0 or state.get("replica_id", -1) >= 0
        return Asked(items, replica=replica, session=session)
    if key in (27, 33):
        _refuse_duplicates(head, row, tree)
    return Asked(items, every, trims)


@cache
def _row(key: int, version: int) -> tuple[Names, Callable[[bytes, int, int], Tree]]:
    row = names(key, version)
    prefix = row.scope + "." if row.scope else ""
    entry = f"{prefix}{row.entries}."
    paths = {prefix + row.group, prefix + row.txn, f"{entry}{row.field}", f"{entry}topic_id", *row.paths, *row.more}
    if not row.field:
        paths.add(entry[:-1])
    return row, wanted(key, version, REQUEST, frozenset(paths - {"", prefix, "."}))


def scopes(row: Names, tree: Tree) -> Sequence[Tree]:
    """The structures of a request that have entries."""
    return (tree,) if not row.scope else tree[row.scope]


def entries(row: Names, scope: Tree) -> Sequence[Any]:
    """The entries of a scope, structures or names; a single name in place of an array is one."""
    found = scope.get(row.entries) if row.entries else None
    return [found] if isinstance(found, str) else found or ()


def _every(row: Names, scope: Tree) -> bool:
    found = scope[row.entries]
    return found is None if row.every == "null" else not found


def _named(row: Names, tree: Tree, scope: Tree) -> Iterator[Item]:
    group, txn = scope.get(row.group), scope.get(row.txn)
    none = True
    for entry in entries(row, scope):
        for item in entry_items(row, entry, group, txn, tree.get("key_type", 0)):
            none = False
            yield item
    for path in row.paths:
        for name in reach(tree, path.split(".")):
            none = False
            yield Item(name, None, group, txn)
    if none:
        yield Item(None, None, group, txn)


def entry_items(
    row: Names, entry: Any, group: str | None = None, txn: str | None = None, key_type: int = 0
) -> tuple[Item, ...]:
    """What one entry names, with its scope's group and transaction: one thing, or two (`Names.both`)."""
    if row.kind == "topic":
        if isinstance(entry, str):
            return (Item(entry, None, group, txn),)
        name, topic_id = entry.get(row.field), entry.get("topic_id")
        if topic_id is None or (topic_id == NO_ID and name is not None):
            return (Item(name, None, group, txn),)
        by_id = Item(None, topic_id, group, txn)
        return (Item(name, None, group, txn), by_id) if row.both and name is not None else (by_id,)
    if row.kind == "resource":
        return (_resource(entry["resource_type"], entry["resource_name"]),)
    if row.kind == "key":
        return (_key(entry, key_type),)
    return (Item(group=entry) if row.kind == "group" else Item(transactional_id=entry),)


def _resource(kind: int, name: str) -> Item:
    """Of the config APIs (ConfigResource.Type)."""
    return Item(name) if kind == 2 else Item(group=name) if kind == 32 else Item()


def _key(key: str, kind: int) -> Item:
    """Of FindCoordinator (CoordinatorType); a share coordinator's key is ``group:topicId:partition``."""
    if kind in (0, 2):
        return Item(group=key if kind == 0 else key.rsplit(":", 2)[0])
    return Item(transactional_id=key) if kind == 1 else Item()


def reach(tree: Any, path: Sequence[str]) -> Iterator[Any]:
    """What stands at a path of fields, through arrays; nothing behind null."""
    if isinstance(tree, list):
        for one in tree:
            yield from reach(one, path)
    elif tree is not None:
        if path:
            yield from reach(tree.get(path[0]), path[1:])
        else:
            yield tree


def _refuse_duplicates(head: Head, row: Names, tree: Tree) -> None:
    if row.scope:
        seen = [(scope["producer_id"], entry["name"]) for scope in scopes(row, tree) for entry in entries(row, scope)]
    else:
        seen = [(entry["resource_type"], entry["resource_name"]) for entry in entries(row, tree)]
    if len(set(seen)) < len(seen):
        raise Malformed(head.body, "something stands twice in a request that brokers do not answer then")
