"""What a client says: the messages of section 4.1, read as a server reads them, up to their very end.

A server looks at nothing behind a message and, in version 5, beyond its envelope. So every length is held against the
envelope, and what stands behind a message within it is refused: no client puts anything there.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, TypeAlias

from parsers.cassandra import PAYLOAD, Opcode, Reader, utf8
from parsers.cassandra_compression import ALGORITHMS
from parsers.malformed import Malformed

ID = 16
"""Bytes of a prepared statement's id: an MD5."""
_VALUES, _SKIP_METADATA, _PAGE_SIZE, _PAGING_STATE, _SERIAL, _TIMESTAMP, _NAMES, _KEYSPACE, _NOW = (
    1 << bit for bit in range(9)
)
_FLAGS = {3: 0xFF, 4: 0xFF, 5: 0x1FF}
"""Flags of a query that servers of a version know. They take the keyspace in 3 and 4 as well."""
_CONSISTENCIES = 11
MOST_VALUES = 1 << 18
"""Values of a request: one statement may have a quarter of them, and they are passed by in a tenth of a second."""
_LONGEST_KEYSPACE = 1024
"""Characters of a keyspace's name, which has 222 at most."""
_EXECUTE = int(Opcode.EXECUTE)
_UNSIGNED = struct.Struct(">I")
_SIZE = struct.Struct(">i")


class Startup(NamedTuple):
    """`compression`: the algorithm it asks for, or ""."""

    compression: str


class Query(NamedTuple):
    """`text`: UTF-8, perhaps. `keyspace`: of this request alone."""

    text: bytes
    keyspace: str | None
    consistency: int


class Prepare(NamedTuple):
    """See `Query`."""

    text: bytes
    keyspace: str | None


class Execute(NamedTuple):
    """`id`: of a prepared statement."""

    id: bytes
    consistency: int


class Child(NamedTuple):
    """One of a batch: a statement's `text`, or if that is None, the `id` of a prepared one."""

    text: bytes | None
    id: bytes


class Batch(NamedTuple):
    """See `Query`."""

    children: tuple[Child, ...]
    keyspace: str | None
    consistency: int


class Other(NamedTuple):
    """OPTIONS, REGISTER, AUTH_RESPONSE: nothing in them is judged. `events` that are registered for."""

    events: tuple[bytes, ...] = ()


Message: TypeAlias = Startup | Query | Prepare | Execute | Batch | Other


def read_request(opcode: int, version: int, flags: int, data: bytes, start: int, stop: int, most: int) -> Message:
    """The body `data` from `start` to `stop`, which is not compressed (any more). `most`: children of a batch. Raises
    Malformed."""
    reader = Reader(data, start, stop)
    if flags & PAYLOAD:
        if version < 4:
            raise Malformed(start, "a custom payload in version 3")
        reader.skip_payload()
    message: Message
    if opcode == _EXECUTE:
        number = _id(reader)
        if version > 4:
            reader.short_bytes()
        message = Execute(number, _options(reader, version)[1])
    elif opcode == Opcode.QUERY:
        message = Query(reader.long_string(), *_options(reader, version))
    elif opcode == Opcode.BATCH:
        message = _batch(reader, version, most)
    elif opcode == Opcode.PREPARE:
        message = Prepare(reader.long_string(), _keyspace(reader) if version > 4 else None)
    else:
        message = _other(reader, opcode)
    if reader.place != stop:
        raise Malformed(reader.place, f"{stop - reader.place} bytes behind a message")
    return message


def binding(version: int, data: bytes, start: int) -> tuple[int, int, int] | None:
    """Of the body of an EXECUTE that `read_request` takes: how many of its first bytes are all of it but its values
    and what follows them, the number of values, and the size of what follows. None: that has no fixed size, or values
    have names."""
    place = start + 2 + ID
    if version > 4:
        place += 2 + (data[place] << 8 | data[place + 1])
    place += 2  # the consistency
    wide = 4 if version > 4 else 1
    flags = int.from_bytes(data[place : place + wide], "big")
    if flags & ~(_VALUES | _SKIP_METADATA | _PAGE_SIZE | _SERIAL | _TIMESTAMP):
        return None
    place += wide
    values = 0
    if flags & _VALUES:
        values = data[place] << 8 | data[place + 1]
        place += 2
    rest = 4 * bool(flags & _PAGE_SIZE) + 2 * bool(flags & _SERIAL) + 8 * bool(flags & _TIMESTAMP)
    return place - start, values, rest


def _keyspace(reader: Reader) -> str | None:
    """Behind the text of version 5's PREPARE."""
    flags = reader.int()
    if flags & ~1:
        raise Malformed(reader.place - 4, f"flags {flags:#x} of PREPARE")
    return _keyspace_name(reader) if flags else None


def _keyspace_name(reader: Reader) -> str:
    found = reader.string()
    if len(found) > _LONGEST_KEYSPACE:
        raise Malformed(reader.place, f"a keyspace whose name has {len(found)} characters")
    return found


def _id(reader: Reader) -> bytes:
    found = reader.short_bytes()
    if len(found) != ID:
        raise Malformed(reader.place, f"a prepared statement's id of {len(found)} bytes")
    return found


def _batch(reader: Reader, version: int, most: int) -> Batch:
    kind, count = reader.byte(), reader.short()
    if kind > 2:
        raise Malformed(reader.place, f"a batch of kind {kind}")
    if count > most:
        raise Malformed(reader.place, f"a batch of {count} statements")
    children, values = [], 0
    for _ in range(count):
        children.append(_child(reader))
        values += _values(reader, version, named=False)
        if values > MOST_VALUES:
            raise Malformed(reader.place, f"a batch of more than {MOST_VALUES} values")
    return Batch(tuple(children), *_options(reader, version))


def _child(reader: Reader) -> Child:
    kind = reader.byte()
    if kind > 1:
        raise Malformed(reader.place - 1, f"a statement of kind {kind} in a batch")
    return Child(None, _id(reader)) if kind else Child(reader.long_string(), b"")


def _options(reader: Reader, version: int) -> tuple[str | None, int]:
    """<query_parameters> (section 4.1.4): the keyspace, and the consistency."""
    consistency = _consistency(reader)
    flags: int = reader.data[reader.take(1)] if version < 5 else _UNSIGNED.unpack_from(reader.data, reader.take(4))[0]
    if flags & ~_FLAGS[version]:
        raise Malformed(reader.place, f"flags {flags:#x} of a query")
    if flags & _VALUES:
        _values(reader, version, named=bool(flags & _NAMES))
    if flags & _PAGE_SIZE:
        reader.take(4)
    if flags & _PAGING_STATE:
        reader.skip_bytes()
    if flags & _SERIAL:
        _consistency(reader)
    if flags & _TIMESTAMP:
        reader.take(8)
    keyspace = _keyspace_name(reader) if flags & _KEYSPACE else None
    if flags & _NOW:
        reader.take(4)
    return keyspace, consistency


def _consistency(reader: Reader) -> int:
    found = reader.short()
    if found >= _CONSISTENCIES:
        raise Malformed(reader.place - 2, f"consistency {found}")
    return found


def _values(reader: Reader, version: int, *, named: bool) -> int:
    """Go past them: [short], then as many [value], each behind its name if they are `named`. How many they are."""
    least = -2 if version > 3 else -1
    unpack, take, data = _SIZE.unpack_from, reader.take, reader.data
    count = reader.short()
    for _ in range(count):
        if named:
            take(reader.short())
        size = unpack(data, take(4))[0]
        if size >= 0:
            take(size)
        elif size < least:
            raise Malformed(reader.place - 4, f"a value of {size} bytes")
    return count


def _other(reader: Reader, opcode: int) -> Startup | Other:
    if opcode == Opcode.STARTUP:
        return _startup(reader)
    if opcode == Opcode.REGISTER:
        return Other(tuple(reader.short_bytes() for _ in range(reader.short())))
    if opcode == Opcode.AUTH_RESPONSE:
        reader.skip_bytes()
    return Other()


def _startup(reader: Reader) -> Startup:
    """Servers change names to upper case as Java does, so that some letters beyond ASCII become others within it; and
    of two that are then the same they take either."""
    found: dict[str, str] = {}
    for _ in range(reader.short()):
        start = reader.place
        name = reader.short_bytes()
        value = reader.short_bytes()
        key = utf8(name, start).upper()
        if not name.isascii() or key in found:
            raise Malformed(start, f"option {name[:40]!r} of STARTUP")
        found[key] = utf8(value, start)
    compression = found.get("COMPRESSION")
    if compression is None:
        return Startup("")
    if not compression.isascii() or compression.lower() not in ALGORITHMS:
        raise Malformed(reader.place, f"compression {compression[:40]!r}")
    return Startup(compression.lower())
