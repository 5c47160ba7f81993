"""Bodies and segments that are compressed. A length is bounded before anything is unpacked, and has to be true: servers
take it for granted, read beyond the block or run what an earlier message has left in the buffer.
"""

from __future__ import annotations

import cramjam

from parsers.malformed import Malformed

LZ4, SNAPPY = "lz4", "snappy"
ALGORITHMS = (LZ4, SNAPPY)
_PREFIX = 4
_MOST_GAIN = 255
"""How many bytes one byte of LZ4 may stand for, at most."""


def unpack_body(algorithm: str, data: bytes, most: int) -> bytes:
    """A body of version 3 or 4 (section 5): with LZ4 its plain length stands before the block. At most `most` bytes.
    Raises Malformed."""
    if algorithm == LZ4:
        if len(data) < _PREFIX:
            raise Malformed(0, "a compressed body without its length")
        return unpack_lz4(data[_PREFIX:], int.from_bytes(data[:_PREFIX], "big"), most)
    try:
        size = cramjam.snappy.decompress_raw_len(data)
        if size > most:
            raise Malformed(0, f"a compressed body of {size} bytes")
        plain = bytes(cramjam.snappy.decompress_raw(data))
    except cramjam.DecompressionError as error:
        raise Malformed(0, f"a body that is no snappy: {error}") from error
    return plain


def unpack_lz4(block: bytes, size: int, most: int, *, trusted: bool = False) -> bytes:
    """A block that yields `size` bytes, neither more nor less. Raises Malformed.

    A match with offset 0, which the format does not know, is refused unless the block is `trusted`: of libraries, some
    yield zeros, others (lz4-java without native code, CVE-2025-66566) what their buffer held before.
    """
    if size > most or size > len(block) * _MOST_GAIN:
        raise Malformed(0, f"a block of {len(block)} bytes that yields {size}")
    if not size:
        if block != b"\0":
            raise Malformed(0, "a block that yields nothing")
        return b""
    plain = bytearray(size)
    try:
        have = cramjam.lz4.decompress_block_into(block, plain)
    except cramjam.DecompressionError as error:
        raise Malformed(0, f"a block that is no LZ4 of {size} bytes: {error}") from error
    if have != size:
        raise Malformed(0, f"a block that yields {have} bytes, not {size}")
    # Here such a match yields zeros, four of them at least.
    if not trusted and b"\0\0" in block and b"\0\0\0\0" in plain and _matches_nothing(block):
        raise Malformed(0, "a block with a match at offset 0")
    return bytes(plain)


def _matches_nothing(block: bytes) -> bool:
    """Whether there is a match with offset 0 in a block that was unpacked."""
    place, stop = 0, len(block)
    while place < stop:
        token = block[place]
        place, size = _length(block, place + 1, token >> 4)
        place += size
        if place >= stop:
            break
        if not (block[place] or block[place + 1]):
            return True
        place, _ = _length(block, place + 2, token & 15)
    return False


def _length(block: bytes, place: int, size: int) -> tuple[int, int]:
    """Where a length ends that begins with `size`, and the length."""
    if size < 15:
        return place, size
    while (more := block[place]) == 255:
        size += 255
        place += 1
    return place + 1, size + more
