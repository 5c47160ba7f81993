"""Kafka's framing and headers: a length, then the header, then the message (`parsers.kafka_codec`).

Request headers are v1, or v2 (with tagged fields) where the API's version is flexible; the client id is a classic
string in both. Response headers have tagged fields where the API's version is flexible, but for ApiVersions, which a
client must read before it knows what the broker speaks. See https://kafka.apache.org/protocol.html#protocol_messages.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from parsers.kafka_codec import encode, tagged_field, text, varint
from parsers.kafka_schema import APIS, REQUEST, RESPONSE
from parsers.malformed import Malformed

API_VERSIONS = 18
_MOST_TAGS = 1000
"""Tagged fields of a header, of which Kafka defines one or two."""
_METADATA = 3
_OLD = {b"\0\0\0\0\0\0\0\0": 3, b"\0\0\0\0\1\0\0\0": 1}
_NEW = {b"\0\0\0\0\0\0\0": 3, b"\0\0\0\0\1\0\0": 3}
_ALL_TOPICS: Mapping[int, Mapping[bytes, int]] = {9: _OLD, 10: _OLD, 11: _NEW, 12: _NEW, 13: _NEW}
"""By version of Metadata, the only messages of which a part may stand behind what a broker reads, and how many bytes
that is: librdkafka (2.16 too) asks so for all topics. It writes "no array" in four bytes, as in earlier versions, where
one is due. Both ways to read it ask for the same (https://github.com/confluentinc/librdkafka/issues/5049)."""
_HEAD = struct.Struct(">hhih")
_LENGTH = struct.Struct(">i")
_UNSUPPORTED = (35).to_bytes(2, "big")


class Head(NamedTuple):
    """A request's header. `client_id`: as sent, or None. `body`, `end`: where the message begins and ends in what was
    read; of an API or version that is not `known`, `body` is where its header's tagged fields would begin."""

    api_key: int
    version: int
    correlation_id: int
    client_id: str | None
    body: int
    end: int

    @property
    def known(self) -> bool:
        """Whether there are tables for this API and version."""
        api = APIS.get(self.api_key)
        return api is not None and api.knows(self.version)


def read_head(data: bytes, start: int, end: int) -> Head:
    """The header of the request whose frame (behind its length) is `data` from `start` to `end`. Raises Malformed."""
    place = start + _HEAD.size
    if place > end:
        raise Malformed(start, f"a request of {end - start} bytes")
    key, version, correlation, size = _HEAD.unpack_from(data, start)
    client = None
    if size >= 0:
        if size > end - place:
            raise Malformed(place, f"a client id of {size} bytes where {end - place} are left")
        client = text(data[place : place + size])
        place += size
    elif size < -1:
        raise Malformed(place - 2, "a negative length")
    if flexible(key, version):
        place = _skip_tags(data, place, end)
        if key == _METADATA and end - place <= 8:
            end -= _ALL_TOPICS.get(version, {}).get(data[place:end], 0)
    return Head(key, version, correlation, client, place, end)


def flexible(key: int, version: int) -> bool:
    """Whether this version has tagged fields; False for those that are not known."""
    api = APIS.get(key)
    return api is not None and api.flexible is not None and api.flexible <= version <= api.high


def read_response(head: Head, data: bytes, start: int, end: int) -> tuple[int, int]:
    """The correlation id of the response to `head`, and where its message begins. Raises Malformed."""
    place = start + _LENGTH.size
    if place > end:
        raise Malformed(start, f"a response of {end - start} bytes")
    (correlation,) = _LENGTH.unpack_from(data, start)
    if _tagged_response(head):
        place = _skip_tags(data, place, end)
    return correlation, place


def answered(head: Head, data: bytes, place: int) -> Head:
    """`head` with the version of the response whose message begins at `place`: a broker that does not know a version of
    ApiVersions says so (error 35) in version 0."""
    unknown = head.api_key == API_VERSIONS and data[place : place + 2] == _UNSUPPORTED
    return head._replace(version=0) if unknown else head


def response_head(head: Head) -> bytes:
    """The header of a response to `head`."""
    return _LENGTH.pack(head.correlation_id) + (b"\0" if _tagged_response(head) else b"")


def frame(payload: bytes) -> bytes:
    """`payload` behind its length."""
    return _LENGTH.pack(len(payload)) + payload


def response(head: Head, tree: Mapping[str, Any]) -> bytes:
    """The frame of a response to `head`."""
    return frame(response_head(head) + encode(head.api_key, head.version, RESPONSE, tree))


def request(head: Head, data: bytes, start: int, tree: Mapping[str, Any]) -> bytes:
    """The frame of the request whose header stands in `data` from `start` on, with another message."""
    return frame(data[start : head.body] + encode(head.api_key, head.version, REQUEST, tree))


def unsupported_version(head: Head) -> bytes:
    """The frame that tells of an ApiVersions request of an unknown version: version 0, error 35, its own row."""
    own = APIS[API_VERSIONS]
    row = {"api_key": own.key, "min_version": own.low, "max_version": own.high}
    tree = {"error_code": int.from_bytes(_UNSUPPORTED, "big"), "api_keys": [row]}
    return frame(_LENGTH.pack(head.correlation_id) + encode(API_VERSIONS, 0, RESPONSE, tree))


def _tagged_response(head: Head) -> bool:
    return head.api_key != API_VERSIONS and flexible(head.api_key, head.version)


def _skip_tags(data: bytes, place: int, end: int) -> int:
    if place < end and not data[place]:
        return place + 1
    count, place = varint(data, place, end)
    if count > min(end - place, _MOST_TAGS):
        raise Malformed(place, f"{count} tagged fields in {end - place} bytes")
    tag = -1
    for _ in range(count):
        tag, _, place = tagged_field(data, place, end, tag)
    return place
