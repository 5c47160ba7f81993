"""Refusals of Kafka requests: a request is split into what may be asked and the answer to the rest.

Pure functions on trees (`parsers.kafka_codec`), by the tables `kafka_names` and `kafka_denials`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from parsers.kafka import Head
from parsers.kafka_codec import Tree
from parsers.kafka_denials import CLOSED, CLUSTER, GROUP, INVALID, OWN, TEXTS, TOPIC, TRANSACTION, Denial, denial
from parsers.kafka_names import NO_ID, Item, Names, entries, entry_items, names, scopes
from parsers.kafka_schema import RESPONSE, Field, Message, message

Code: TypeAlias = int
_NAMING = ("name", "topic", "topic_name", "topic_id", "resource_type", "resource_name", "entity", "user")
_FIRST = {TRANSACTION: 0, GROUP: 1, CLUSTER: 2, TOPIC: 3}
"""Brokers look at what is named in this order."""


@dataclass(frozen=True, slots=True)
class Split:
    """A refusal. `kept`: the request without what is refused; None: nothing of it is for the server. `answer`: the
    response to what is refused, to be sent (`kept` is None) or to complete the server's; None: no answer is due, the
    connection closes behind what else is. `alone`: of the topics in the server's response none was asked for (Metadata
    v0 cannot ask for no topic)."""

    kept: Tree | None
    answer: Tree | None
    alone: bool = False


CLOSES = Split(None, None)


def code(head: Head, item: Item) -> Code:
    """What a refused item is refused with, unless the caller knows better."""
    if head.api_key == 10 and item.group is not None:
        return GROUP
    if item.topic is not None or item.topic_id is not None:
        return TOPIC
    if item.transactional_id is not None:
        return TRANSACTION
    return CLUSTER if item.group is None else GROUP


def refuse(head: Head, tree: Tree, refused: Mapping[Item, Code]) -> Split:
    """Split a request by the items of it that are refused (`kafka_names.asked`), each with an error code."""
    key, version = head.api_key, head.version
    if key in CLOSED:
        return CLOSES
    row, table = names(key, version), denial(key, version)
    if key == 75:
        tree = _from_cursor(tree, refused)
    if key == 10 and tree.get("key_type") == 2:
        refused = dict.fromkeys(refused, CLUSTER)  # brokers ask for share groups
    split = _Splitter(head, row, table, tree, refused).split()
    return Split(split.kept, None) if key == 0 and tree["acks"] == 0 else split


def _from_cursor(tree: Tree, refused: Mapping[Item, Code]) -> Tree:
    """DescribeTopicPartitions asks for its topics from the cursor's on, which must be among them: if that one is
    refused, for the others behind it."""
    cursor = tree["cursor"]
    if cursor is None or Item(cursor["topic_name"]) not in refused:
        return tree
    behind = [entry for entry in tree["topics"] if entry["name"] >= cursor["topic_name"]]
    return {**tree, "topics": behind, "cursor": None}


def page(tree: Tree, names: Iterable[str], refuses: Callable[[str], bool], most: int) -> Tree | None:
    """A DescribeTopicPartitions of all topics there are, by name, without those that are refused: a server would end
    its page at one of these, and tell its name. The request asks for topics by name, for `most` at once; if there are
    none left, for none. None: nothing is refused of this page."""
    cursor, allowed, gone = tree["cursor"], [], False
    limit = min(max(tree["response_partition_limit"], 1), most)
    start = "" if cursor is None else cursor["topic_name"]
    for name in sorted(one for one in names if one >= start):
        if refuses(name):
            gone = True
        else:
            allowed.append(name)
        if len(allowed) > limit:
            break  # a partition each: the page ends before this one, and tells its name
    if not gone:
        return None
    cursor = cursor if start in allowed else None
    topics = [{"name": name} for name in allowed]
    return {**tree, "topics": topics, "cursor": cursor, "response_partition_limit": limit}


@cache
def _known(key: int, version: int) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """What fields are called (in any version) at the top of a response, in a refused entry and beside its code."""
    table, response = denial(key, version), message(key, version, RESPONSE)
    entry = _within(_within(response, table.scope), table.array)
    return response.names, entry.names, _within(entry, table.answers.partition(".")[0]).names


def _within(structure: Message | Field, name: str) -> Message | Field:
    return next(field for field in structure.fields if field.name == name) if name else structure


class _Splitter:
    """One request that is refused in part or as a whole."""

    def __init__(self, head: Head, row: Names, table: Denial, tree: Tree, refused: Mapping[Item, Code]) -> None:
        self.head = head
        self.row = row
        self.table = table
        self.tree = tree
        self.refused = refused
        self.top, self.entry, self.part = _known(head.api_key, head.version)

    def split(self) -> Split:
        table = self.table
        if not self.refused:
            return Split(self.tree, self._answer([]))
        worst = min(self.refused.values(), key=lambda code: _FIRST.get(code, 9))
        if table.code is not None:
            worst = table.code
        if not table.array or (table.group == "top" and worst in (GROUP, TRANSACTION)):
            return Split(None, self._top(worst))
        if table.whole:
            return Split(None, self._whole(worst))
        return self._parted()

    # -- all of it ---------------------------------------------------------------------------------------------

    def _top(self, code: Code) -> Tree:
        return {**self.table.head, **self._error(code, self.top)}

    def _whole(self, code: Code) -> Tree:
        """Every entry gets the code; or, by `others`, each its own."""
        answers = []
        for scope in self._scopes():
            found = []
            for entry in self._entries(scope):
                own = code if self.table.others is None else self._code(scope, entry, self.table.others)
                found.append(self._entry(entry, own or 0))
            answers.append((scope, found))
        tree = self._answer(answers)
        return {**tree, **self._error(code, self.top)} if self.table.top else tree

    def _scopes(self) -> Sequence[Tree]:
        return (self.tree,) if self.table.each else scopes(self.row, self.tree)

    def _entries(self, scope: Tree) -> Sequence[Any]:
        if self.table.each == "users":
            some = dict.fromkeys(one["name"] for one in [*scope["deletions"], *scope["upsertions"]])
            return [{"user": name} for name in some]
        return scope[self.table.each] if self.table.each else entries(self.row, scope)

    # -- a part of it ------------------------------------------------------------------------------------------

    def _parted(self) -> Split:
        kept: list[Tree] = []
        answers: list[tuple[Tree, list[Tree]]] = []
        groups = self._groups()
        for scope in scopes(self.row, self.tree):
            group = scope.get(self.row.group)
            if group in groups:
                answers.append(({**scope, "error_code": groups[group]}, []))
                continue
            keep, found = [], []
            for entry in entries(self.row, scope):
                code = self._code(scope, entry)
                if code is None:
                    keep.append(entry)
                else:
                    found.append(self._entry(entry, code))
            if found:
                answers.append((scope, found))
            if keep or not found:
                kept.append({**scope, self.row.entries: keep if found else scope[self.row.entries]})
        return self._kept(kept, answers)

    def _kept(self, kept: list[Tree], answers: list[tuple[Tree, list[Tree]]]) -> Split:
        answer = self._answer(answers)
        if self.row.scope:
            return Split({**self.tree, self.row.scope: kept} if kept else None, answer)
        bare = Item(None, None, self.tree.get(self.row.group), self.tree.get(self.row.txn)) in self.refused
        if bare and not answers:
            kept = []  # a request that names nothing is refused as such
        if not kept and self.head.api_key == 3:
            kept = [{**self.tree, self.row.entries: []}]  # it has the brokers, whatever topics are asked for
        alone = self.head.api_key == 3 and self.head.version == 0 and bool(kept) and not kept[0]["topics"]
        return Split(kept[0] if kept else None, answer, alone)

    def _groups(self) -> Mapping[str | None, Code]:
        """Groups that are refused as such, named with or without a topic."""
        if self.table.group != "scope":
            return {}
        found = {item.group: code for item, code in self.refused.items() if item == Item(group=item.group)}
        found |= {item.group: code for item, code in self.refused.items() if code == GROUP}
        return {group: code for group, code in found.items() if group is not None}

    def _code(self, scope: Tree, entry: Any, default: Code | None = None) -> Code | None:
        group, txn = scope.get(self.row.group), scope.get(self.row.txn)
        for item in entry_items(self.row, entry, group, txn, self.tree.get("key_type", 0)):
            if item in self.refused:
                return self.refused[item]
        return default

    # -- answers -----------------------------------------------------------------------------------------------

    def _answer(self, found: Iterable[tuple[Tree, list[Tree]]]) -> Tree:
        table = self.table
        if table.scope:
            field = self.row.group if table.scope == "groups" else "producer_id"
            own = (field, "error_code")
            inner = [
                {**{name: scope[name] for name in own if name in scope}, table.array: some} for scope, some in found
            ]
            return {**table.head, table.scope: inner}
        some = [entry for _, one in found for entry in one]
        return {**table.head, table.array: self._merged(some) if table.twice else some}

    def _entry(self, entry: Any, code: Code) -> Tree:
        table = self.table
        named = {table.name or self.row.field or "name": entry} if isinstance(entry, str) else self._naming(entry)
        error = {**table.body, **self._error(code, self.part)}
        if table.twice == "refused" and named.get("name") is not None and named.get("topic_id", NO_ID) != NO_ID:
            error |= {"error_code": INVALID, "error_message": "You may not specify both topic name and topic id."}
        if not table.parts:
            return {**named, **error}
        array, field = table.parts.split(".")
        answers, index = table.answers.split(".")
        return {**named, answers: [{index: part[field] if field else part, **error} for part in entry[array]]}

    def _naming(self, entry: Tree) -> Tree:
        if self.table.name:
            return {self.table.name: entry["name"]}
        named = {key: value for key, value in entry.items() if key in _NAMING and key in self.entry}
        if not self.row.both and named.get("topic_id", NO_ID) != NO_ID:
            named.pop("name", None)  # the id decides, and the name that it has is not told
        return named

    def _error(self, code: Code, known: frozenset[str]) -> Tree:
        error = {self.table.error: code, "error_code": code, "error_message": self._text(code)}
        return {field: value for field, value in error.items() if field in known}

    def _text(self, code: Code) -> str | None:
        own = self.table.text == OWN or (self.table.text == "" and code == CLUSTER)
        return TEXTS.get(code) if own else self.table.text

    def _merged(self, some: Sequence[Tree]) -> list[Tree]:
        """Entries of the same name are one (`Denial.twice`)."""
        alike: dict[tuple[Any, ...], list[Tree]] = {}
        for entry in some:
            alike.setdefault(tuple(entry.get(key) for key in _NAMING[:4]), []).append(entry)
        return [self._one_of(entries) if len(entries) > 1 else entries[0] for entries in alike.values()]

    def _one_of(self, entries: Sequence[Tree]) -> Tree:
        twice, (array, _, index) = self.table.twice, self.table.answers.partition(".")
        if twice == "refused":
            by_id = entries[0].get("topic_id", NO_ID) != NO_ID
            text = f"Duplicate topic {'id' if by_id else 'name'}."
            return {**entries[0], "error_code": INVALID, "error_message": text}
        if not array:
            return entries[0]
        parts = [part for entry in entries for part in entry[array]]
        return {**entries[0], array: list({part[index]: part for part in parts}.values()) if twice == "once" else parts}
