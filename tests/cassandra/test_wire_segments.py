"""Segments, set against the driver's own."""

from __future__ import annotations

import os
import struct
import zlib

import pytest
from cassandra.segment import compute_crc24
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers.cassandra_segments import MOST, SegmentHead, crc24, head_size, read_head, read_payload, write_segments
from parsers.malformed import Malformed
from tests.cassandra import words


def read(data: bytes, packed: bool) -> list[tuple[SegmentHead, bytes]]:
    found, place = [], 0
    while place < len(data):
        head = read_head(data, place, packed)
        assert place + head.whole <= len(data)
        found.append((head, read_payload(data, place, head)))
        place += head.whole
    return found


@given(st.binary(min_size=3, max_size=5))
def test_crc24(data: bytes) -> None:
    assert crc24(data) == compute_crc24(int.from_bytes(data, "little"), len(data))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("size", [1, 9, 100, 5000, MOST - 1, MOST, MOST + 1, 300_000])
@pytest.mark.parametrize("random", [False, True])
def test_what_the_driver_writes(size: int, packed: bool, random: bool) -> None:
    payload = os.urandom(size) if random else b"SELECT * FROM ks.t;"[: size % 19 or 1] * (size // 19 + 1)
    data = words.segments(payload, packed)
    found = read(data, packed)
    assert b"".join(one for _, one in found) == payload
    assert [head.alone for head, _ in found] == [len(payload) <= MOST] * len(found)
    assert [head.yields for head, _ in found] == [len(one) for _, one in found]
    assert all(bool(head.plain) == (packed and not random and size > 100) for head, _ in found) or size <= 100


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("size", [1, 100, MOST, MOST + 1, 300_000])
def test_what_the_driver_reads(size: int, packed: bool) -> None:
    payload = os.urandom(size)
    found = words.unsegment(write_segments(payload, packed), packed)
    assert b"".join(one for one, _ in found) == payload
    assert {alone for _, alone in found} == {size <= MOST}
    assert write_segments(payload, packed) == words.segments(payload, packed)


@pytest.mark.parametrize("packed", [False, True])
def test_every_bit_counts(packed: bool) -> None:
    data = words.segments(b"SELECT * FROM ks.t " * 20, packed)
    head = read_head(data, 0, packed)
    for bit in range(8 * len(data)):
        wrong = bytearray(data)
        wrong[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(Malformed, match="wrong CRC"):
            assert read_head(bytes(wrong), 0, packed) == head
            read_payload(bytes(wrong), 0, head)


def made(payload: bytes, size: int, plain: int, *, alone: bool = True, more: int = 0) -> bytes:
    """A segment with LZ4 and true CRCs that says what it likes."""
    head = (size | plain << 17 | alone << 34 | more << 35).to_bytes(5, "little")
    crc = zlib.crc32(payload, zlib.crc32(b"\xfa\x2d\x55\xca"))
    return head + crc24(head).to_bytes(3, "little") + payload + struct.pack("<I", crc)


def test_a_block_that_yields_another_length_than_it_says() -> None:
    """Fact 23: a server runs what an earlier message has left in the rest of its buffer."""
    plain = words.query("SELECT * FROM ks.t " * 20, 5)
    block = words.lz4_compress(plain)[4:]
    (found,) = read(made(block, len(block), len(plain)), True)
    assert found[1] == plain
    for size in (len(plain) + 1, len(plain) - 1, 1, MOST):
        with pytest.raises(Malformed):
            read(made(block, len(block), size), True)


def test_headers_that_are_none() -> None:
    for data in (made(b"", 0, 0), made(b"", 0, 5), made(b"ab", 2, 0, more=1)):
        with pytest.raises(Malformed):
            read(data, True)
    head = (1 | 1 << 17 | 1 << 18).to_bytes(3, "little")
    with pytest.raises(Malformed, match="unknown bits"):
        read_head(head + crc24(head).to_bytes(3, "little"), 0, False)
    assert (head_size(False), head_size(True)) == (6, 8)


@settings(max_examples=300)
@given(st.binary(min_size=12, max_size=80), st.booleans())
def test_whatever_comes_is_read_or_refused(data: bytes, packed: bool) -> None:
    try:
        head = read_head(data, 0, packed)
    except Malformed:
        return
    assert 0 < head.size <= MOST and head.plain <= MOST
