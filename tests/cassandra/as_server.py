"""Statements in what a client sends, as a real server finds them: it believes no length but a segment's, looks at no
flag that it does not know, and goes on behind every error. Written after what was seen of Cassandra 5.0, and nothing
else."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress

import lz4.block
import snappy

_CRC32 = zlib.crc32(b"\xfa\x2d\x55\xca")
_BAD = (struct.error, UnicodeDecodeError, ValueError, IndexError, RuntimeError, lz4.block.LZ4BlockError)


def statements(data: bytes, version: int, compression: str) -> list[str]:
    """All that would be executed, or prepared, of `data` behind STARTUP."""
    found: list[str] = []
    bodies = _segmented(data, compression == "lz4") if version > 4 else _plain(data, compression)
    for version_said, opcode, flags, body in bodies:
        if version_said == version:
            with suppress(*_BAD):
                found += _texts(opcode, flags, body)
    return found


def _plain(data: bytes, compression: str) -> Iterator[tuple[int, int, int, bytes]]:
    place = 0
    while len(data) - place >= 9:
        version, flags, _, opcode, size = struct.unpack_from(">BBhBI", data, place)
        body = data[place + 9 : place + 9 + size]
        if len(body) < size:
            return
        place += 9 + size
        with suppress(*_BAD):
            if flags & 1 and compression == "lz4":
                body = lz4.block.decompress(body[4:], uncompressed_size=int.from_bytes(body[:4], "big"))
            elif flags & 1 and compression:
                body = snappy.uncompress(body)
            yield version, opcode, flags, body


def _segmented(data: bytes, packed: bool) -> Iterator[tuple[int, int, int, bytes]]:
    place, large = 0, b""
    head = 8 if packed else 6
    while len(data) - place >= head:
        bits = int.from_bytes(data[place : place + head - 3], "little")
        size, plain = bits & 0x1FFFF, bits >> 17 & 0x1FFFF if packed else 0
        alone = bits >> (34 if packed else 17) & 1
        payload = data[place + head : place + head + size]
        (crc,) = struct.unpack_from("<I", data, place + head + size)
        place += head + size + 4
        if zlib.crc32(payload, _CRC32) != crc:
            continue
        if plain:
            payload = lz4.block.decompress(payload, uncompressed_size=plain)
        if alone:
            yield from _envelopes(payload)
        else:
            large += payload
            if len(large) >= 9 and len(large) >= 9 + struct.unpack_from(">I", large, 5)[0]:
                yield from _envelopes(large)
                large = b""


def _envelopes(payload: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    place = 0
    while len(payload) - place >= 9:
        version, flags, _, opcode, size = struct.unpack_from(">BBhBI", payload, place)
        # Its length is no bound: what stands behind it is there to be read.
        yield version, opcode, flags & ~1, payload[place + 9 :]
        place += 9 + size


def _texts(opcode: int, flags: int, body: bytes) -> list[str]:
    place = 0
    if flags & 4:
        place = _behind_payload(body)
    if opcode in (7, 9):
        return [_long_string(body, place)[0]]
    found: list[str] = []
    if opcode == 13:
        (count,) = struct.unpack_from(">H", body, place + 1)
        place += 3
        for _ in range(count):
            kind, place = body[place], place + 1
            if kind:
                place += 2 + struct.unpack_from(">H", body, place)[0]
            else:
                text, place = _long_string(body, place)
                found.append(text)
            place = _behind_values(body, place)
    return found


def _behind_payload(body: bytes) -> int:
    place = 2
    for _ in range(struct.unpack_from(">H", body)[0]):
        place += 2 + struct.unpack_from(">H", body, place)[0]
        place += 4 + max(0, struct.unpack_from(">i", body, place)[0])
    return place


def _behind_values(body: bytes, place: int) -> int:
    (count,) = struct.unpack_from(">H", body, place)
    place += 2
    for _ in range(count):
        place += 4 + max(0, struct.unpack_from(">i", body, place)[0])
    return place


def _long_string(body: bytes, place: int) -> tuple[str, int]:
    (size,) = struct.unpack_from(">i", body, place)
    if size < 0 or len(body) - place - 4 < size:
        raise ValueError(size)
    return body[place + 4 : place + 4 + size].decode(), place + 4 + size
