"""Reading and writing Kafka's messages by their tables (`parsers.kafka_schema`).

A structure is a dict by field names; strings are `str` (not UTF-8: see `text`), UUIDs and bytes `bytes`, arrays lists;
tagged fields are there if they were sent. What no table knows among the tagged is kept under `TAGS` and written again.
Reading is strict: lengths within what is there, no longer varints than needed, nothing behind the end.

See https://kafka.apache.org/protocol.html#protocol_types and KIP-482.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

from parsers.kafka_schema import REQUEST, Field, Message, message
from parsers.malformed import Malformed

TAGS = "_tags"
"""The key of unknown tagged fields: a list of (tag, bytes)."""
MOST_ENTRIES = 100_000
"""Of a request's arrays and tagged fields together: some tenths of a second's work, for which others have to wait."""
_left = [0]  # how many of them the reader that is at work may still see
Tree: TypeAlias = dict[str, Any]
Reader: TypeAlias = Callable[[bytes, int, int], tuple[Any, int]]
Writer: TypeAlias = Callable[[Any, bytearray], None]

_FIXED = {"int8": ">b", "int16": ">h", "uint16": ">H", "int32": ">i", "int64": ">q", "float64": ">d"}
_FIXED |= {"bool": ">?", "uuid": ">16s"}


def decode(key: int, version: int, kind: str, data: bytes, start: int, end: int) -> Tree:
    """All of `data` from `start` to `end` as one message. Raises Malformed; KeyError for an unknown version."""
    return wanted(key, version, kind, None)(data, start, end)


def encode(key: int, version: int, kind: str, tree: Mapping[str, Any]) -> bytes:
    """The bytes of a message. Fields that are left out are written as zero, empty, or null where that may be, and those
    of other versions alone not at all. Raises KeyError for what no version has."""
    out = bytearray()
    _writer(message(key, version, kind))(tree, out)
    return bytes(out)


@cache
def wanted(key: int, version: int, kind: str, paths: frozenset[str] | None) -> Callable[[bytes, int, int], Tree]:
    """A reader that keeps these fields alone (``topics.name``; None: all) and checks and passes over the others. Of a
    request it reads `MOST_ENTRIES` at most, unless it keeps all."""
    table = message(key, version, kind)
    read = _structure(table.fields, table.flexible, paths, "")
    most = MOST_ENTRIES if kind == REQUEST and paths is not None else 1 << 62

    def whole(data: bytes, start: int, end: int) -> Tree:
        tree: Tree
        _left[0] = most
        tree, place = read(data, start, end)
        if place != end:
            raise Malformed(place, f"{end - place} bytes behind the end of the message")
        return tree

    return whole


# -- varints -------------------------------------------------------------------------------------------------------


def varint(data: bytes, place: int, end: int) -> tuple[int, int]:
    """An unsigned varint of up to 32 bits and where it ends. Raises Malformed."""
    value = shift = 0
    start = place
    while place < end:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if (not byte and shift) or value >> 32:
                raise Malformed(start, "a varint is longer than needed")
            return value, place
        shift += 7
        if shift > 28:
            break
    raise Malformed(start, "a varint does not end")


def tagged_field(data: bytes, place: int, end: int, last: int) -> tuple[int, int, int]:
    """The next of a structure's tagged fields, which stand in ascending order: its tag, and where its value begins and
    ends. `last`: the tag before it, or -1. Raises Malformed."""
    start = place
    tag, place = varint(data, place, end)
    size, place = varint(data, place, end)
    if size > end - place:
        raise Malformed(start, f"a tagged field of {size} bytes where {end - place} are left")
    if tag <= last:
        raise Malformed(start, f"tagged field {tag} stands behind {last}")
    return tag, place, place + size


def put_varint(value: int, out: bytearray) -> None:
    """Append an unsigned varint."""
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def text(raw: bytes) -> str:
    """A string as a broker reads it: what is not UTF-8 is replaced."""
    return raw.decode("utf-8", "replace")


# -- reading -------------------------------------------------------------------------------------------------------


def _structure(fields: Sequence[Field], flexible: bool, paths: Collection[str] | None, prefix: str) -> Reader:
    steps: list[tuple[str | None, Reader]] = []
    tagged: dict[int, tuple[str | None, Reader]] = {}
    gap = 0  # bytes of fields of fixed size that nobody wants
    for field in fields:
        path = prefix + field.name
        keep = paths is None or path in paths or any(one.startswith(path + ".") for one in paths)
        step = (field.name if keep else None), _reader(field, flexible, paths, path + ".", keep)
        if field.tag is not None:
            tagged[field.tag] = step
        elif not keep and field.kind in _FIXED:
            gap += struct.calcsize(_FIXED[field.kind])
        else:
            if gap:
                steps.append((None, _skip(gap)))
            steps.append(step)
            gap = 0
    if gap:
        steps.append((None, _skip(gap)))

    def read(data: bytes, place: int, end: int) -> tuple[Tree, int]:
        tree: Tree = {}
        for name, one in steps:
            value, place = one(data, place, end)
            if name is not None:
                tree[name] = value
        return (tree, place) if not flexible else _read_tags(data, place, end, tree, tagged)

    return read


def _skip(size: int) -> Reader:
    def read(data: bytes, place: int, end: int) -> tuple[None, int]:
        if end - place < size:
            raise Malformed(place, f"{size} bytes are due where {end - place} are left")
        return None, place + size

    return read


def _read_tags(
    data: bytes, place: int, end: int, tree: Tree, known: Mapping[int, tuple[str | None, Reader]]
) -> tuple[Tree, int]:
    if place < end and not data[place]:
        return tree, place + 1
    count, place = varint(data, place, end)
    if count > end - place:
        raise Malformed(place, f"{count} tagged fields in {end - place} bytes")
    _count(count, place)
    tag = -1
    for _ in range(count):
        tag, place, stop = tagged_field(data, place, end, tag)
        if tag in known:
            name, read = known[tag]
            value, reached = read(data, place, stop)
            if reached != stop:
                raise Malformed(reached, f"tagged field {tag} is shorter than its {stop - place} bytes")
            if name is not None:
                tree[name] = value
        else:
            tree.setdefault(TAGS, []).append((tag, data[place:stop]))
        place = stop
    return tree, place


def _reader(field: Field, flexible: bool, paths: Collection[str] | None, prefix: str, keep: bool) -> Reader:
    kind = field.kind
    if kind == "{}":
        inner = _structure(field.fields, flexible, paths, prefix)
        return _nullable(inner) if field.null else inner
    if kind == "[]":
        return _array(_structure(field.fields, flexible, paths, prefix), flexible, field.null)
    if kind.startswith("[]"):
        return _array(_scalar(kind[2:], flexible, False, keep), flexible, field.null)
    return _scalar(kind, flexible, field.null, keep)


def _scalar(kind: str, flexible: bool, null: bool, keep: bool) -> Reader:
    if kind in ("string", "bytes", "records"):
        blob = _blob(flexible, kind != "string", null, keep)
        return _decoded(blob) if kind == "string" and keep else blob
    fixed = struct.Struct(_FIXED[kind])
    if not keep:
        return _skip(fixed.size)
    unpack, size = fixed.unpack_from, fixed.size

    def read(data: bytes, place: int, end: int) -> tuple[Any, int]:
        if end - place < size:
            raise Malformed(place, f"{size} bytes are due where {end - place} are left")
        return unpack(data, place)[0], place + size

    return read


def _length(flexible: bool, wide: bool, null: bool) -> Callable[[bytes, int, int], tuple[int, int]]:
    """Of a string, bytes or array; -1 is null."""
    fixed = struct.Struct(">i" if wide else ">h")
    unpack, width = fixed.unpack_from, fixed.size

    def compact(data: bytes, place: int, end: int) -> tuple[int, int]:
        size, behind = varint(data, place, end)
        return _checked(size - 1, place, behind)

    def classic(data: bytes, place: int, end: int) -> tuple[int, int]:
        if end - place < width:
            raise Malformed(place, "a length is cut off")
        return _checked(unpack(data, place)[0], place, place + width)

    def _checked(size: int, place: int, behind: int) -> tuple[int, int]:
        if size < -1 or (size == -1 and not null):
            raise Malformed(place, "a negative length" if size < -1 else "null where a value must be")
        return size, behind

    return compact if flexible else classic


def _blob(flexible: bool, wide: bool, null: bool, keep: bool) -> Reader:
    length = _length(flexible, wide, null)

    def read(data: bytes, place: int, end: int) -> tuple[bytes | None, int]:
        size, place = length(data, place, end)
        if size < 0:
            return None, place
        if size > end - place:
            raise Malformed(place, f"{size} bytes are announced where {end - place} are left")
        return (data[place : place + size] if keep else None), place + size

    return read


def _decoded(blob: Reader) -> Reader:
    def read(data: bytes, place: int, end: int) -> tuple[str | None, int]:
        raw, place = blob(data, place, end)
        return (None if raw is None else text(raw)), place

    return read


def _count(entries: int, place: int) -> None:
    _left[0] -= entries
    if _left[0] < 0:
        raise Malformed(place, f"more than {MOST_ENTRIES} entries")


def _array(item: Reader, flexible: bool, null: bool) -> Reader:
    length = _length(flexible, True, null)

    def read(data: bytes, place: int, end: int) -> tuple[list[Any] | None, int]:
        count, place = length(data, place, end)
        if count < 0:
            return None, place
        if count > end - place:
            raise Malformed(place, f"an array of {count} where {end - place} bytes are left")
        _count(count, place)
        found = []
        for _ in range(count):
            value, place = item(data, place, end)
            found.append(value)
        return found, place

    return read


def _nullable(inner: Reader) -> Reader:
    def read(data: bytes, place: int, end: int) -> tuple[Tree | None, int]:
        if place >= end:
            raise Malformed(place, "a structure is cut off")
        mark = data[place]
        if mark == 0xFF:
            return None, place + 1
        if mark != 1:
            raise Malformed(place, f"{mark} where a structure or null must begin")
        value: tuple[Tree, int] = inner(data, place + 1, end)
        return value

    return read


# -- writing -------------------------------------------------------------------------------------------------------


@cache
def _writer(table: Message) -> Writer:
    return _put_structure(table.fields, table.names, table.flexible)


def _put_structure(fields: Sequence[Field], names: frozenset[str], flexible: bool) -> Writer:
    plain = [(field.name, _put(field, flexible)) for field in fields if field.tag is None]
    tagged = sorted((field.tag, field.name, _put(field, flexible)) for field in fields if field.tag is not None)

    known = names | {TAGS}

    def write(tree: Mapping[str, Any], out: bytearray) -> None:
        if not tree.keys() <= known:
            raise KeyError(f"no fields are called {sorted(tree.keys() - known)}")
        for name, one in plain:
            one(tree.get(name), out)
        if flexible:
            _put_tags(tree, tagged, out)

    return write


def _put_tags(tree: Mapping[str, Any], known: Iterable[tuple[int, str, Writer]], out: bytearray) -> None:
    found: list[tuple[int, bytes]] = list(tree.get(TAGS, ()))
    for tag, name, write in known:
        if name in tree:
            value = bytearray()
            write(tree[name], value)
            found.append((tag, bytes(value)))
    put_varint(len(found), out)
    for tag, raw in sorted(found):
        put_varint(tag, out)
        put_varint(len(raw), out)
        out += raw


def _put(field: Field, flexible: bool) -> Writer:
    kind = field.kind
    if kind == "{}":
        inner = _put_structure(field.fields, field.names, flexible)
        return _put_nullable(inner) if field.null else lambda tree, out: inner(tree or {}, out)
    if kind == "[]":
        return _put_array(_put_structure(field.fields, field.names, flexible), flexible, field.null)
    if kind.startswith("[]"):
        return _put_array(_put_scalar(kind[2:], flexible, False), flexible, field.null)
    return _put_scalar(kind, flexible, field.null)


def _put_scalar(kind: str, flexible: bool, null: bool) -> Writer:
    if kind in ("string", "bytes", "records"):
        put_length = _put_length(flexible, ">h" if kind == "string" else ">i")

        def put_blob(value: Any, out: bytearray) -> None:
            raw = value.encode() if isinstance(value, str) else value
            if raw is None and not null:
                raw = b""
            put_length(-1 if raw is None else len(raw), out)
            out += raw or b""

        return put_blob
    pack, zero = struct.Struct(_FIXED[kind]).pack, bytes(16) if kind == "uuid" else 0

    def put_fixed(value: Any, out: bytearray) -> None:
        out += pack(zero if value is None else value)

    return put_fixed


def _put_length(flexible: bool, form: str) -> Writer:
    pack = struct.Struct(form).pack

    def write(size: int, out: bytearray) -> None:
        if flexible:
            put_varint(size + 1, out)
        else:
            out += pack(size)

    return write


def _put_array(item: Writer, flexible: bool, null: bool) -> Writer:
    put_length = _put_length(flexible, ">i")

    def write(some: Sequence[Any] | None, out: bytearray) -> None:
        if some is None and null:
            put_length(-1, out)
            return
        put_length(len(some or ()), out)
        for one in some or ():
            item(one, out)

    return write


def _put_nullable(inner: Writer) -> Writer:
    def write(tree: Mapping[str, Any] | None, out: bytearray) -> None:
        out.append(0xFF if tree is None else 1)
        if tree is not None:
            inner(tree, out)

    return write
