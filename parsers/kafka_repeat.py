"""What the Produce requests of one client have in common: everything up to the records, but for the correlation id.

Reading it anew for each request would cost more than all else that is done with one. Whatever is not plain is left to
`parsers.kafka_names`, so nothing here is wrong because it is not understood here.
"""

from __future__ import annotations

import struct

from parsers.kafka_codec import varint
from parsers.malformed import Malformed

PRODUCE = 0
_FLEXIBLE, _BY_ID = 9, 13
_VERSIONS = range(3, 14)
_LONG, _SHORT = struct.Struct(">i").unpack_from, struct.Struct(">h").unpack_from
_ONE = b"\0\0\0\1"
_CLOSER = 0, 0
"""A closer look is needed."""
_LONGEST = 1024
"""Bytes that are worth remembering."""
_MOST_PARTITIONS = 126


def repeated(data: bytes, start: int, stop: int) -> bytes | None:
    """The API, version, client id, transactional id, acks, time-out and topic of the Produce request whose frame, all
    of which is there, is `data` from `start` (its length) to `stop`: two of the same bytes ask for the same. None: it
    is no Produce request of version 3 or later, or has not one topic, or needs a closer look."""
    try:
        head, count = _head(data, start)
        if not count:
            return None
        behind = (_compact if data[start + 7] >= _FLEXIBLE else _classic)(data, head, count, stop)
    except (IndexError, struct.error, Malformed):
        return None
    return _common(data, start, head) if behind == stop else None


def begins(data: bytes, start: int, stop: int) -> bytes | None:
    """The same of a request that has one partition and is not all there: by its lengths nothing but tagged fields
    stands behind the records."""
    try:
        head, count = _head(data, start)
        if count != 1:
            return None
        if data[start + 7] >= _FLEXIBLE:
            size, place = varint(data, head + 4, len(data))
            behind = place + size + 2 if size else 0
        else:
            size = _LONG(data, head + 4)[0]
            behind = head + 8 + size if size >= 0 else 0
    except (IndexError, struct.error, Malformed):
        return None
    return _common(data, start, head) if behind == stop else None


def prefix(data: bytes, start: int) -> tuple[int, bool]:
    """How many of the first bytes of a Produce request, with its length, say what it asks for, where it has one topic
    with one partition; and whether a varint follows, that of its records' length. If not, these bytes end with that.
    0: it is anything else."""
    try:
        head, count = _head(data, start)
    except (IndexError, struct.error):
        return 0, False
    flexible = data[start + 7] >= _FLEXIBLE
    return (head - start + (4 if flexible else 8) if count == 1 else 0), flexible


def _common(data: bytes, start: int, head: int) -> bytes | None:
    return data[start + 4 : start + 8] + data[start + 12 : head] if head - start <= _LONGEST else None


def _head(data: bytes, start: int) -> tuple[int, int]:
    """Where the first partition begins, and how many there are."""
    if data[start + 4] or data[start + 5] or data[start + 6]:
        return _CLOSER
    version = data[start + 7]
    if version not in _VERSIONS:
        return _CLOSER
    size = data[start + 12] << 8 | data[start + 13]
    place = start + 14 + (size if size < 0x8000 else 0)
    return _compact_head(data, place, version) if version >= _FLEXIBLE else _classic_head(data, place)


def _compact_head(data: bytes, place: int, version: int) -> tuple[int, int]:
    """Behind the client's id. Lengths of two bytes are more than names need."""
    size = data[place + 1]
    if data[place] or size > 0x7F:
        return _CLOSER
    place += 7 + (size or 1)  # behind acks and time-out
    if data[place] != 2:
        return _CLOSER
    size = 16 if version == _BY_ID else data[place + 1]
    place += 1 + size
    count = data[place]
    if not 0 < size < 0x80 or not 1 < count < 0x80:
        return _CLOSER
    return place + 1, count - 1


def _compact(data: bytes, place: int, count: int, stop: int) -> int:
    """Where all ends; 0: a closer look is needed."""
    while count and place < stop:
        place += 4
        size = data[place]
        if size < 0x80:
            place += 1
        else:
            size, place = varint(data, place, stop)
        place += size
        if not size or data[place - 1]:
            return 0
        count -= 1
    return 0 if count or data[place] or data[place + 1] else place + 2


def _classic_head(data: bytes, place: int) -> tuple[int, int]:
    size = _SHORT(data, place)[0]
    place += 8 + (size if size > 0 else 0)
    size = _SHORT(data, place + 4)[0]
    if data[place : place + 4] != _ONE or size < 0:
        return _CLOSER
    place += 6 + size
    count = _LONG(data, place)[0]
    return (place + 4, count) if 0 < count <= _MOST_PARTITIONS else _CLOSER


def _classic(data: bytes, place: int, count: int, stop: int) -> int:
    while count and place < stop:
        size = _LONG(data, place + 4)[0]
        if size < 0:
            return 0
        place += 8 + size
        count -= 1
    return 0 if count else place
