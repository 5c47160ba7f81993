"""Splits of random requests of every API: what is kept and what is answered is what was asked, and no more."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from parsers.kafka import Head
from parsers.kafka_codec import Tree, decode, encode
from parsers.kafka_denials import CLOSED, denial
from parsers.kafka_names import NO_ID, Asked, Item, asked, names
from parsers.kafka_refusals import CLOSES, Split, code, refuse
from parsers.kafka_responses import complete, trim
from parsers.kafka_schema import REQUEST, RESPONSE
from parsers.malformed import Malformed
from tests.kafka.requests import EVERY, raw, trees

NAMING = ("name", "topic", "topic_name", "group_id", "key", "transactional_id", "resource_name")


def read(key: int, version: int, tree: Tree) -> tuple[Head, Asked]:
    head, data = raw(key, version, tree)
    return head, asked(head, data)


def told(head: Head, tree: Tree) -> set[tuple[Any, ...]]:
    """What a response has an entry for, each with its scope."""
    table = denial(head.api_key, head.version)
    scopes = tree[table.scope] if table.scope else [tree]
    return {(scope.get("group_id"), *name(entry)) for scope in scopes for entry in scope[table.array]}


def name(entry: Any) -> tuple[Any, ...]:
    if isinstance(entry, str):
        return (entry,)
    if entry.get("topic_id", NO_ID) != NO_ID:
        return (entry["topic_id"],)
    found = next((entry[key] for key in NAMING if entry.get(key) is not None), NO_ID)
    return (entry.get("resource_type"), found) if "resource_type" in entry else (found,)


def there(head: Head, tree: Tree) -> set[tuple[Any, ...]]:
    """What a request has an entry for, likewise."""
    row = names(head.api_key, head.version)
    scopes = tree[row.scope] if row.scope else [tree]
    group = row.group if denial(head.api_key, head.version).scope else ""
    return {(scope.get(group), *name(entry)) for scope in scopes for entry in scope[row.entries] or ()}


def again(head: Head, tree: Tree) -> Tree:
    data = encode(head.api_key, head.version, RESPONSE, tree)
    return decode(head.api_key, head.version, RESPONSE, data, 0, len(data))


@st.composite
def splits(draw: st.DrawFn) -> tuple[Head, Tree, Asked, dict[Item, int], Split]:
    key, version = draw(st.sampled_from(EVERY))
    tree = draw(trees(key, version))
    try:
        head, found = read(key, version, tree)
    except Malformed:
        assume(False)
    refused = draw(st.lists(st.sampled_from(found.items), min_size=1, unique=True))
    codes = {item: code(head, item) for item in refused}
    return head, tree, found, codes, refuse(head, tree, codes)


@settings(max_examples=1500, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(splits())
def test_what_is_kept_asks_for_nothing_refused(case: tuple[Head, Tree, Asked, dict[Item, int], Split]) -> None:
    head, _, found, refused, split = case
    if head.api_key in CLOSED:
        assert split == CLOSES
        return
    assert (split.answer is None) == found.acks0
    if split.answer is not None:
        again(head, split.answer)
    if split.kept is None:
        return
    data = encode(head.api_key, head.version, REQUEST, split.kept)
    assert decode(head.api_key, head.version, REQUEST, data, 0, len(data)) == split.kept
    _, left = read(head.api_key, head.version, split.kept)
    none = {item for item in left.items if item.topic is item.topic_id is None}
    assert set(left.items) - none <= set(found.items) - set(refused)
    assert none <= set(found.items) - set(refused) or head.api_key == 3


@settings(max_examples=1500, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(splits())
def test_a_completed_response_has_an_entry_for_all_that_was_asked(
    case: tuple[Head, Tree, Asked, dict[Item, int], Split],
) -> None:
    head, tree, found, refused, split = case
    table = denial(head.api_key, head.version)
    if not table.array or table.each or split.answer is None:
        return
    if table.array not in split.answer and not table.scope:
        return
    if head.api_key in (20, 3) and names(head.api_key, head.version).both:
        return  # an entry that names two things is answered by one of them
    if head.api_key == 75 and tree["cursor"] is not None:
        return
    refused_only = told(head, again(head, split.answer))
    if split.kept is None:
        assert refused_only == there(head, tree) or table.scope or found.items == (Item(),) or not there(head, tree)
        return
    served = again(head, served_to(head, split.kept))
    assert not told(head, served) & refused_only
    whole = complete(head, served, split)
    gone = {item.group for item in refused if item.topic is item.topic_id is None} if table.group == "scope" else set()
    assert told(head, whole) == {one for one in there(head, tree) if one[0] not in gone or one[0] is None}
    again(head, whole)


def served_to(head: Head, tree: Tree) -> Tree:
    """What a server answers that allows all."""
    _, found = read(head.api_key, head.version, tree)
    named = [item for item in found.items if item.topic is not None or item.topic_id is not None]
    items = named if denial(head.api_key, head.version).scope else found.items
    answer = refuse(head, {**tree, "acks": 1}, dict.fromkeys(items, 0)).answer
    assert answer is not None
    return answer


@settings(max_examples=1000, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_what_is_trimmed_names_nothing_refused(data: st.DataObject) -> None:
    key, version = data.draw(st.sampled_from(EVERY))
    head = Head(key, version, 7, None, 0, 0)
    tree = data.draw(trees(key, version, RESPONSE))
    assert trim(head, tree, lambda item: False) == tree
    left = again(head, trim(head, tree, lambda item: item != Item()))
    after: list[Item] = []

    def refuses(item: Item) -> bool:
        after.append(item)
        return False

    trim(head, left, refuses)
    assert not [item for item in after if item != Item() and key not in (1, 78)]


@settings(max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.binary(max_size=60))
def test_any_bytes_are_split_or_malformed(data: st.DataObject, body: bytes) -> None:
    """Messages with some bytes replaced, and bytes of no meaning."""
    key, version = data.draw(st.sampled_from(EVERY))
    head, frame = raw(key, version, data.draw(trees(key, version)))
    place = data.draw(st.integers(head.body, head.end))
    frame = frame[:place] + body + (frame[place + len(body) :] if data.draw(st.booleans()) else b"")
    head = head._replace(end=len(frame))
    try:
        found = asked(head, frame)
    except Malformed:
        return
    tree = decode(key, version, REQUEST, frame, head.body, head.end)
    split = refuse(head, tree, {item: code(head, item) for item in found.items})
    if split.answer is not None:
        again(head, split.answer)


@pytest.mark.parametrize(("key", "version"), EVERY)
def test_every_api_has_a_refusal(key: int, version: int) -> None:
    """A request without any name, refused as a whole."""
    head, data = raw(key, version, {})
    split = refuse(head, decode(key, version, REQUEST, data, head.body, head.end), {Item(): 31})
    if key in CLOSED or key == 0:
        assert split == CLOSES
    else:
        assert split.answer is not None
        again(head, split.answer)
