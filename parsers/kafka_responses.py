"""Responses of Kafka brokers: completed with what was refused, freed from what may not be seen, and learnt from.

Pure functions on trees (`parsers.kafka_codec`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from parsers.kafka import Head
from parsers.kafka_codec import Tree
from parsers.kafka_denials import CLOSED, TOPIC, denial
from parsers.kafka_names import Item, entry_items, names, reach
from parsers.kafka_refusals import Split
from parsers.kafka_schema import APIS

Refuses: TypeAlias = Callable[[Item], bool]
"""Whether an item that a response names is refused. Its group or transactional id is there if the response has it."""


def complete(head: Head, response: Tree, split: Split) -> Tree:
    """The server's response to `split.kept` with the answer to what was refused. One that is an error stays as it is,
    as brokers do."""
    table, answer = denial(head.api_key, head.version), split.answer
    if answer is None or not table.array or response.get("error_code"):
        return response
    if not table.scope:
        mine = [] if split.alone else response[table.array]
        return {**response, table.array: [*mine, *answer[table.array]]}
    field = names(head.api_key, head.version).group
    left: dict[str, list[Tree]] = {}
    for one in answer[table.scope]:
        left.setdefault(one[field], []).append(one)
    found = []
    for scope in response[table.scope]:
        more = [entry for one in left.pop(scope[field], ()) for entry in one[table.array]]
        found.append({**scope, table.array: [*scope[table.array], *more]} if not scope["error_code"] else scope)
    return {**response, table.scope: [*found, *(one for some in left.values() for one in some)]}


# -- what may not be seen ------------------------------------------------------------------------------------------

_DROPPED: Mapping[int, tuple[str, str]] = {
    3: ("topics", "name"),
    16: ("groups", "group_id"),
    35: ("results.topics", "name"),
    43: ("replica_election_results", "topic"),
    46: ("topics", "name"),
    65: ("transaction_states.topics", "topic"),
    66: ("transaction_states", "transactional_id"),
    74: ("config_resources", "resource_name"),
    75: ("topics", "name"),
    90: ("groups.topics", "topic_name"),
}
"""Arrays whose refused entries are left out, and the fields of their names."""
_ASSIGNED = (
    "members.subscribed_topic_names",
    "members.assignment.topic_partitions.topic_name",
    "members.target_assignment.topic_partitions.topic_name",
)
_TOPOLOGY = "topology.subtopologies."
_READ: Mapping[int, tuple[str, ...]] = {
    69: _ASSIGNED,
    77: _ASSIGNED,
    89: (
        _TOPOLOGY + "source_topics",
        _TOPOLOGY + "repartition_sink_topics",
        _TOPOLOGY + "state_changelog_topics.name",
        _TOPOLOGY + "repartition_source_topics.name",
    ),
}
"""Of groups that are described: the topics of their members."""
_READS_REFUSED = "The group has described topic(s) that the client is not authorized to describe."


def trim(head: Head, response: Tree, refuses: Refuses) -> Tree:
    """A response that names what the request did not (`kafka_names.Asked.trims`), or that brings records, without what
    is refused."""
    key = head.api_key
    if key == 9:
        return _offsets(head, response, refuses)
    if key in (1, 78):
        return {**response, "responses": [_withheld(head, one, refuses) for one in response["responses"]]}
    if key in _READ:
        return {**response, "groups": [_described(one, _READ[key], refuses) for one in response["groups"]]}
    if key not in _DROPPED:
        return response
    path, field = _DROPPED[key]
    return _without(response, path.split("."), lambda entry, scope: refuses(_item(key, entry, field, scope)))


def _item(key: int, entry: Tree, field: str, scope: Tree) -> Item:
    if key == 16:
        return Item(group=entry[field])
    if key == 66:
        return Item(transactional_id=entry[field])
    if key == 74:
        kind = entry.get("resource_type")
        return Item(entry[field]) if kind == 2 else Item(group=entry[field]) if kind == 32 else Item()
    if key in (65, 90):
        return Item(entry[field], None, scope.get("group_id"), scope.get("transactional_id"))
    return Item(entry[field]) if entry[field] is not None else Item(topic_id=entry["topic_id"])


def _without(tree: Tree, path: Sequence[str], drops: Callable[[Tree, Tree], bool]) -> Tree:
    """`drops`: asked of an entry and of what it stands in."""
    some = tree[path[0]]
    if len(path) == 1:
        left = [entry for entry in some if not drops(entry, tree)]
    else:
        left = [_without(one, path[1:], drops) for one in some]
    return {**tree, path[0]: left}


def _offsets(head: Head, response: Tree, refuses: Refuses) -> Tree:
    row = names(head.api_key, head.version)

    def left(scope: Tree, group: str | None) -> Tree:
        some = [one for one in scope["topics"] if not any(map(refuses, entry_items(row, one, group)))]
        return {**scope, "topics": some}

    if not row.scope:
        return left(response, None)
    return {**response, "groups": [left(scope, scope["group_id"]) for scope in response["groups"]]}


def _described(group: Tree, paths: Sequence[str], refuses: Refuses) -> Tree:
    topics = {name for path in paths for name in reach(group, path.split("."))}
    if group["error_code"] or not any(refuses(Item(name, None, group["group_id"])) for name in topics):
        return group
    named = {"group_id": group["group_id"], "authorized_operations": -(1 << 31)}
    return {**named, "error_code": TOPIC, "error_message": _READS_REFUSED}


def _withheld(head: Head, entry: Tree, refuses: Refuses) -> Tree:
    """A topic's records, or the refusal of each of its partitions."""
    if not refuses(entry_items(names(head.api_key, head.version), entry)[0]):
        return entry
    refusal = {**denial(head.api_key, head.version).body, "error_code": TOPIC}
    return {
        **entry,
        "partitions": [{"partition_index": one["partition_index"], **refusal} for one in entry["partitions"]],
    }


def found(response: Tree) -> Tree:
    """A page of topics without what is gone since it was known that they are there."""
    return {**response, "topics": [one for one in response["topics"] if not one["error_code"]]}


def onward(response: Tree, start: str, refuses: Refuses) -> Tree:
    """A page of topics, which were asked for from `start` on, whose cursor names none that is refused: the next page
    begins behind the last topic of this one. (A server takes a cursor of all topics for a place between names, of which
    ``-`` is the lowest character.)"""
    cursor = response["next_cursor"]
    if cursor is None or not refuses(Item(cursor["topic_name"])):
        return response
    last = max((one["name"] for one in response["topics"] if one["name"] is not None), default=start)
    return {**response, "next_cursor": {"topic_name": f"{last}-", "partition_index": 0}}


# -- which APIs there are ------------------------------------------------------------------------------------------


def narrow(response: Tree) -> Tree:
    """An ApiVersions response with what can be judged alone. The lowest version of Produce stays as the broker has it:
    librdkafka wants to see version 0, which brokers list and do not serve (KAFKA-18659)."""
    return {**response, "api_keys": list(_narrowed(response["api_keys"]))}


def _narrowed(rows: Iterable[Tree]) -> Iterator[Tree]:
    for row in rows:
        api = APIS.get(row["api_key"])
        if api is None or api.key in CLOSED:
            continue
        low = row["min_version"] if api.key == 0 else max(row["min_version"], api.low)
        high = min(row["max_version"], api.high)
        if low <= high:
            yield {**row, "min_version": low, "max_version": high}
