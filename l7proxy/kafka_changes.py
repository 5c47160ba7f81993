"""What is done with responses that do not simply pass: functions that make a `Then`."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache

from l7proxy.kafka_responses import ALL, Then
from l7proxy.kafka_sessions import FETCH, Seen
from parsers.kafka import Head, answered, flexible, read_response, response
from parsers.kafka_codec import Tree, decode, encode, put_varint, varint, wanted
from parsers.kafka_refusals import Split
from parsers.kafka_responses import complete
from parsers.kafka_schema import REQUEST, RESPONSE
from parsers.malformed import Malformed

Change = Callable[[Tree], Tree]
METADATA, METADATA_VERSION = 3, 12
"""The first version in which a topic can be asked for by its id alone."""
_LENGTH = struct.Struct(">i")
_FETCHED = struct.Struct(">ihi")
_REQUEST_HEAD = struct.Struct(">hhih")


def read(head: Head, data: bytes, start: int, stop: int) -> tuple[Head, Tree]:
    """The response whose frame is `data` from `start` to `stop`, and the header that it is a response to. Raises
    Malformed."""
    _, body = read_response(head, data, start + 4, stop)
    head = answered(head, data, body)
    return head, decode(head.api_key, head.version, RESPONSE, data, body, stop)


def rewrites(head: Head, change: Change) -> Then:
    """The response is read, and written as `change` makes it; verbatim if that is the same tree."""

    def make(data: bytes, start: int, stop: int) -> tuple[int, bytes] | None:
        spoken, tree = read(head, data, start, stop)
        changed = change(tree)
        return None if changed == tree else (stop - start, response(spoken, changed))

    return Then(ALL, make)


def both(first: Then, then: Then | None) -> Then:
    """`then` is given the response as `first` makes it."""
    if then is None:
        return first

    def make(data: bytes, start: int, stop: int) -> tuple[int, bytes]:
        _, frame = first.make(data, start, stop) or (0, data[start:stop])
        consumed, ours = then.make(frame, 0, len(frame)) or (0, b"")
        return stop - start, ours + frame[consumed:]

    return Then(ALL, make)


def completes(head: Head, split: Split, change: Change | None, seen: Seen | None) -> Then:
    """The server's response to what was kept of a request, as `change` makes it, gets the answer to the rest."""
    if head.api_key == FETCH:
        return _completes_fetch(head, split)

    def make(tree: Tree) -> Tree:
        if seen is not None:
            seen(tree.get("error_code", 0), 0)
        return complete(head, tree if change is None else change(tree), split)

    return rewrites(head, make)


def watches(head: Head, seen: Seen) -> Then:
    """`seen` is told of a fetch's error code and session, and the response passes by count."""
    place = 9 if flexible(head.api_key, head.version) else 8

    def make(data: bytes, start: int, stop: int) -> None:
        if start + place + _FETCHED.size > min(stop, len(data)) or (place == 9 and data[start + 8]):
            raise Malformed(place, "the response to a fetch begins as none does")
        _, error, number = _FETCHED.unpack_from(data, start + place)
        seen(error, number if head.api_key == FETCH else 0)

    return Then(place + _FETCHED.size, make)


def learns(head: Head, ids: list[bytes], told: Callable[[list[tuple[str, bytes]], dict[bytes, int]], None]) -> Then:
    """The response to our own question is for nobody else. `told` gets names with their ids, and error codes of ids
    that have no name."""

    def make(data: bytes, start: int, stop: int) -> tuple[int, bytes]:
        _, tree = read(head, data, start, stop)
        errors = {one["topic_id"]: one["error_code"] for one in tree["topics"] if one["error_code"]}
        told(_named(tree), {one: errors.get(one, 100) for one in ids})
        return stop - start, b""

    return Then(ALL, make)


def _named(tree: Tree) -> list[tuple[str, bytes]]:
    return [(one["name"], one["topic_id"]) for one in tree["topics"] if one["name"] is not None]


def lists(head: Head, told: Callable[[list[tuple[str, bytes]]], None]) -> Then:
    """The response to our own question for all topics is for nobody else. `told` gets their names with their ids."""
    reader = wanted(METADATA, METADATA_VERSION, RESPONSE, frozenset({"topics.name", "topics.topic_id"}))

    def make(data: bytes, start: int, stop: int) -> tuple[int, bytes]:
        _, body = read_response(head, data, start + 4, stop)
        told(_named(reader(data, body, stop)))
        return stop - start, b""

    return Then(ALL, make)


def question(head: Head, ids: list[bytes] | None) -> tuple[Head, bytes]:
    """A request for the names of topics (None: of all), as the client that sent `head` would make it: its header and
    its frame."""
    topics = None if ids is None else [{"topic_id": one, "name": None} for one in ids]
    client = None if head.client_id is None else head.client_id.encode()
    size = -1 if client is None else len(client)
    own = _REQUEST_HEAD.pack(METADATA, METADATA_VERSION, head.correlation_id, size) + (client or b"") + b"\0"
    body = encode(METADATA, METADATA_VERSION, REQUEST, {"topics": topics})
    made = Head(METADATA, METADATA_VERSION, head.correlation_id, head.client_id, 0, 0)
    return made, _LENGTH.pack(len(own) + len(body)) + own + body


# -- Fetch: only its beginning is written anew, its records go by count --------------------------------------------


def _completes_fetch(head: Head, split: Split) -> Then:
    own = len(split.answer["responses"]) if split.answer is not None else 0
    ours = _entries(head, split)
    before = _before(head.version)

    def make(data: bytes, start: int, stop: int) -> tuple[int, bytes] | None:
        _, body = read_response(head, data, start + 4, min(stop, len(data)))
        place = body + before
        if before > 4 and place <= len(data) and _FETCHED.unpack_from(data, body)[1]:
            return None  # a response that is an error as a whole stays one
        count, behind = _count(head, data, place, min(stop, len(data)))
        out = bytearray(data[start + 4 : place])
        _put_count(head, count + own, out)
        out += ours
        return behind - start, _LENGTH.pack(stop - behind + len(out)) + bytes(out)

    return Then(9 + before + 5, make)


@cache
def _before(version: int) -> int:
    """Bytes of a response before its topics: a time, and from version 7 on an error code and a session."""
    return _FETCHED.size if version >= 7 else 4


def _entries(head: Head, split: Split) -> bytes:
    """The topics of an answer, as they stand in it."""
    raw = encode(FETCH, head.version, RESPONSE, split.answer or {})
    _, place = _count(head, raw, _before(head.version), len(raw))
    return raw[place:-1] if flexible(FETCH, head.version) else raw[place:]


def _count(head: Head, data: bytes, place: int, end: int) -> tuple[int, int]:
    if flexible(FETCH, head.version):
        count, behind = varint(data, place, end)
        count -= 1
    else:
        if end - place < 4:
            raise Malformed(place, "a count of topics is cut off")
        (count,), behind = _LENGTH.unpack_from(data, place), place + 4
    if count < 0:
        raise Malformed(place, "null where topics must be")
    return count, behind


def _put_count(head: Head, count: int, out: bytearray) -> None:
    if flexible(FETCH, head.version):
        put_varint(count + 1, out)
    else:
        out += _LENGTH.pack(count)
