"""Segments: how version 5 carries envelopes once STARTUP is answered.

A header with its own CRC24, a payload, the payload's CRC32; numbers are little-endian. With LZ4 the header also has the
payload's plain length, 0 if it is not compressed. A segment that is self-contained holds whole envelopes; one that is
not holds a part of a single larger one, and nothing else may come between its parts: a server would run it first.

See section 2 of native_protocol_v5.spec, and CASSANDRA-15299.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from typing import NamedTuple

from parsers.cassandra_compression import unpack_lz4
from parsers.malformed import Malformed

MOST = (1 << 17) - 1
"""Bytes of a payload."""
TRAILER = 4
"""Bytes of the CRC behind it."""
_CRC24_START, _CRC24_POLYNOMIAL = 0x875060, 0x1974F0B
_CRC32_START = zlib.crc32(b"\xfa\x2d\x55\xca")
_CRC32 = struct.Struct("<I")
_PLAIN_HEAD, _PACKED_HEAD = 6, 8


class SegmentHead(NamedTuple):
    """A header of `head` bytes. `size`: bytes of the payload as it travels. `plain`: of what it yields, 0 if it is not
    compressed. `alone`: it is self-contained."""

    head: int
    size: int
    plain: int
    alone: bool

    @property
    def whole(self) -> int:
        """Bytes of the segment."""
        return self.head + self.size + TRAILER

    @property
    def yields(self) -> int:
        """Bytes of envelopes in it."""
        return self.plain or self.size


def head_size(packed: bool) -> int:
    """Bytes of a header; `packed`: with LZ4."""
    return _PACKED_HEAD if packed else _PLAIN_HEAD


def read_head(data: bytes, place: int, packed: bool) -> SegmentHead:
    """The header at `place`, all of which is there. Raises Malformed."""
    raw = data[place : place + (_PACKED_HEAD if packed else _PLAIN_HEAD)]
    try:
        return _head(raw)
    except Malformed as error:
        raise Malformed(place, error.text) from None


@lru_cache(1024)
def _head(raw: bytes) -> SegmentHead:
    """What a whole header says: segments of the same length have the same one."""
    size = len(raw)
    summed = raw[: size - 3]
    if crc24(summed) != int.from_bytes(raw[size - 3 :], "little"):
        raise Malformed(0, "a segment's header with a wrong CRC")
    bits = int.from_bytes(summed, "little")
    length, bits = bits & MOST, bits >> 17
    plain = 0
    if size == _PACKED_HEAD:
        plain, bits = bits & MOST, bits >> 17
    if bits > 1:
        raise Malformed(0, "a segment's header with unknown bits")
    if not length:
        raise Malformed(0, "an empty segment")
    return SegmentHead(size, length, plain, bits == 1)


def read_payload(data: bytes, place: int, head: SegmentHead, *, trusted: bool = False) -> bytes:
    """What the segment that begins at `place`, all of which is there, yields; `trusted` as in `unpack_lz4`. Raises
    Malformed."""
    start = place + head.head
    stop = start + head.size
    payload = data[start:stop]
    if zlib.crc32(payload, _CRC32_START) != _CRC32.unpack_from(data, stop)[0]:
        raise Malformed(start, "a segment with a wrong CRC")
    return unpack_lz4(payload, head.plain, MOST, trusted=trusted) if head.plain else payload


def write_segments(payload: bytes, packed: bool) -> bytes:
    """Segments that carry `payload`: whole envelopes, or a single one if it does not fit into one segment. Nothing is
    compressed, which `packed` headers say."""
    alone = len(payload) <= MOST
    return b"".join(_segment(payload[start : start + MOST], packed, alone) for start in range(0, len(payload), MOST))


def _segment(payload: bytes, packed: bool, alone: bool) -> bytes:
    bits = len(payload) | alone << (34 if packed else 17)
    head = bits.to_bytes(5 if packed else 3, "little")
    crc = zlib.crc32(payload, _CRC32_START)
    return b"".join((head, crc24(head).to_bytes(3, "little"), payload, _CRC32.pack(crc)))


def _crc24_row(byte: int) -> int:
    crc = byte << 16
    for _ in range(8):
        crc <<= 1
        if crc & 0x1000000:
            crc ^= _CRC24_POLYNOMIAL
    return crc


_CRC24 = tuple(map(_crc24_row, range(256)))


def crc24(data: bytes) -> int:
    """Of a header."""
    crc = _CRC24_START
    for byte in data:
        crc = (crc << 8 & 0xFFFFFF) ^ _CRC24[crc >> 16 ^ byte]
    return crc
