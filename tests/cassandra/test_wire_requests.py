"""Requests as a driver writes them, and as nobody should."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from cassandra.protocol import QueryMessage
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers.cassandra import (
    HEADER,
    PAYLOAD,
    Opcode,
    Unsupported,
    read_request_envelope,
    read_response_envelope,
    write_envelope,
)
from parsers.cassandra_compression import unpack_body, unpack_lz4
from parsers.cassandra_requests import (
    Batch,
    Child,
    Execute,
    Message,
    Other,
    Prepare,
    Query,
    Startup,
    read_request,
)
from parsers.malformed import Malformed
from tests.cassandra import words

VERSIONS = (3, 4, 5)
ID = bytes(range(16))
TEXT = "SELECT * FROM ks.t WHERE k = 'é'"
LONG = struct.pack(">i", len(TEXT.encode())) + TEXT.encode()
MOST = 1 << 24

REQUESTS: dict[str, tuple[Callable[[int], bytes], Callable[[int], Message]]] = {
    "startup": (lambda v: words.startup(v), lambda v: Startup("")),
    "startup lz4": (lambda v: words.startup(v, "lz4"), lambda v: Startup("lz4")),
    "options": (lambda v: words.options(v), lambda v: Other()),
    "register": (lambda v: words.register(v), lambda v: Other((b"SCHEMA_CHANGE", b"STATUS_CHANGE"))),
    "query": (lambda v: words.query(TEXT, v), lambda v: Query(TEXT.encode(), None, 1)),
    "query of everything": (
        lambda v: words.query(
            TEXT,
            v,
            values=[b"abc", None, b""],
            fetch_size=5000,
            paging_state=b"page",
            serial_consistency_level=8,
            timestamp=12345,
            keyspace="other" if v > 4 else None,
        ),
        lambda v: Query(TEXT.encode(), "other" if v > 4 else None, 1),
    ),
    "prepare": (lambda v: words.prepare(TEXT, v), lambda v: Prepare(TEXT.encode(), None)),
    "prepare in": (
        lambda v: words.prepare(TEXT, v, keyspace="other" if v > 4 else None),
        lambda v: Prepare(TEXT.encode(), "other" if v > 4 else None),
    ),
    "execute": (lambda v: words.execute(ID, v, values=[b"1", None]), lambda v: Execute(ID, 1)),
    "batch": (
        lambda v: words.batch(TEXT, ID, TEXT, version=v),
        lambda v: Batch((Child(TEXT.encode(), b""), Child(None, ID), Child(TEXT.encode(), b"")), None, 1),
    ),
    "batch in": (
        lambda v: words.batch(ID, version=v, keyspace="other" if v > 4 else None),
        lambda v: Batch((Child(None, ID),), "other" if v > 4 else None, 1),
    ),
}
ALL = [pytest.param(version, name, id=f"v{version} {name}") for version in VERSIONS for name in REQUESTS]


def read(data: bytes, version: int = 0, most: int = 100) -> Message:
    """One envelope, all of it."""
    head = read_request_envelope(data, 0, version, MOST)
    if head.size != len(data) - HEADER:
        raise Malformed(5, "not as long as it says")
    return read_request(head.opcode, head.version, head.flags, data, HEADER, len(data), most)


def bodied(opcode: int, body: bytes, version: int = 4, flags: int = 0, stream: int = 0) -> bytes:
    return write_envelope(version, stream, opcode, body, flags)


@pytest.mark.parametrize(("version", "name"), ALL)
def test_what_the_driver_writes(version: int, name: str) -> None:
    make, wanted = REQUESTS[name]
    assert read(make(version)) == wanted(version)


@pytest.mark.parametrize(("version", "name"), ALL)
def test_what_is_cut_off_or_followed_is_refused(version: int, name: str) -> None:
    """Nothing is read beyond an envelope, whatever stands there; facts 12, 18 and 20."""
    data = REQUESTS[name][0](version)
    body, head = data[HEADER:], read_request_envelope(data, 0, version, MOST)
    for place in range(len(body)):
        with pytest.raises(Malformed):
            read_request(head.opcode, version, head.flags, data, HEADER, HEADER + place, 100)
    for behind in (b"\0", b"\0\0\0\1\0\2ks", data):
        with pytest.raises(Malformed):
            read_request(head.opcode, version, head.flags, data + behind, HEADER, len(data + behind), 100)


@settings(max_examples=500)
@given(st.data())
def test_mutations_are_read_or_refused(data: st.DataObject) -> None:
    version = data.draw(st.sampled_from(VERSIONS))
    raw = bytearray(REQUESTS[data.draw(st.sampled_from(sorted(REQUESTS)))][0](version))
    chance = random.Random(data.draw(st.integers(0, 1 << 32)))
    for _ in range(chance.randrange(1, 5)):
        raw[chance.randrange(len(raw))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    try:
        found = read(bytes(raw))
    except Malformed as error:
        assert 0 <= error.offset <= len(raw)
    else:
        assert isinstance(found, Startup | Query | Prepare | Execute | Batch | Other)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_keyspace_is_read_in_every_version(version: int) -> None:
    """Fact 10: the driver does not send it in 3 and 4, and the server takes it."""
    flags = b"\x80" if version < 5 else b"\0\0\0\x80"
    asked = bodied(Opcode.QUERY, LONG + b"\0\1" + flags + words.string("Other"), version)
    assert read(asked) == Query(TEXT.encode(), "Other", 1)
    asked = bodied(Opcode.BATCH, b"\0\0\1\0" + LONG + b"\0\0" + b"\0\1" + flags + words.string("Other"), version)
    assert read(asked) == Batch((Child(TEXT.encode(), b""),), "Other", 1)
    metadata = b"\0\0" if version > 4 else b""
    asked = bodied(Opcode.EXECUTE, b"\0\x10" + ID + metadata + b"\0\1" + flags + words.string("Other"), version)
    assert read(asked) == Execute(ID, 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_batch_has_all_that_a_query_has(version: int) -> None:
    """Fact 11: values, names, page size and paging state stand before its keyspace; names alone are none."""
    wide = (lambda bits: bytes([bits])) if version < 5 else (lambda bits: struct.pack(">I", bits))
    start = b"\0\0\1\0" + LONG + b"\0\0" + b"\0\1"
    values = b"\0\1" + words.string("name") + b"\0\0\0\1v"
    rest = b"\0\0\0\5" + b"\0\0\0\2pg" + words.string("ks")
    assert read(bodied(Opcode.BATCH, start + wide(0x80 | 0x4D) + values + rest, version)).keyspace == "ks"  # type: ignore[union-attr]
    assert read(bodied(Opcode.BATCH, start + wide(0x80 | 0x4C) + rest, version)).keyspace == "ks"  # type: ignore[union-attr]
    if version > 4:
        with pytest.raises(Malformed, match="flags 0x200"):
            read(bodied(Opcode.BATCH, start + wide(0x200), version))


@pytest.mark.parametrize("of_body", [3, 4, 5])
@pytest.mark.parametrize("version", VERSIONS)
def test_one_version_is_not_taken_for_another(version: int, of_body: int) -> None:
    """Fact 12."""
    body = words.prepare(TEXT, of_body, keyspace="other" if of_body > 4 else None)[HEADER:]
    if (version > 4) == (of_body > 4):
        assert isinstance(read(bodied(Opcode.PREPARE, body, version)), Prepare)
    else:
        with pytest.raises(Malformed):
            read(bodied(Opcode.PREPARE, body, version))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_value_is_no_longer_than_its_envelope(version: int) -> None:
    """Fact 27: a server makes room for whatever length is said."""
    flags = b"\1" if version < 5 else b"\0\0\0\1"
    for size in (1 << 30, (1 << 31) - 1, 5, -3, -(1 << 31)):
        with pytest.raises(Malformed):
            read(bodied(Opcode.QUERY, LONG + b"\0\1" + flags + b"\0\1" + struct.pack(">i", size) + b"abcd", version))
    unset = bodied(Opcode.QUERY, LONG + b"\0\1" + flags + b"\0\1" + struct.pack(">i", -2), version)
    if version > 3:
        assert isinstance(read(unset), Query)
    else:
        with pytest.raises(Malformed):
            read(unset)


@pytest.mark.parametrize("name", ["query", "prepare", "execute", "batch"])
def test_a_custom_payload_stands_before_the_message(name: str) -> None:
    """Fact 18: who does not know it reads another statement."""
    payload = b"\0\2" + words.string("a") + b"\0\0\0\3" + LONG[:3] + words.string("b") + b"\xff\xff\xff\xff"
    for version in (4, 5):
        make, wanted = REQUESTS[name]
        body = make(version)[HEADER:]
        opcode = make(version)[4]
        assert read(bodied(opcode, payload + body, version, PAYLOAD)) == wanted(version)
        with pytest.raises(Malformed):
            read(bodied(opcode, payload + body, version))
    with pytest.raises(Malformed, match="payload in version 3"):
        read(bodied(Opcode.QUERY, payload + words.query(TEXT, 3)[HEADER:], 3, PAYLOAD))
    asked: Any = words.with_(QueryMessage(TEXT, 1), tracing=True, payload={"k": b"v"})
    assert read(words.encode(asked, 4)) == Query(TEXT.encode(), None, 1)


@pytest.mark.parametrize(
    "names",
    [
        ["compre\u00dfion"],
        ["COMPRESS\u0131ON"],
        ["COMPRESSION", "compression"],
        ["compression", "Compression"],
        ["CQL_VERSION", "CQL_VERSION"],
        ["\u212aEY"],
    ],
)
def test_options_that_java_takes_for_others(names: list[str]) -> None:
    """Fact 16."""
    body = struct.pack(">H", len(names)) + b"".join(words.string(name) + words.string("lz4") for name in names)
    with pytest.raises(Malformed, match="of STARTUP"):
        read(bodied(Opcode.STARTUP, body))


def test_the_name_of_an_option_has_any_case() -> None:
    """Fact 16."""
    for name, value in (("compression", "LZ4"), ("Compression", "lz4"), ("COMPRESSION", "Lz4")):
        assert read(bodied(Opcode.STARTUP, b"\0\1" + words.string(name) + words.string(value))) == Startup("lz4")
    for value in ("deflate", "", "l\u017a4", "ſnappy"):
        with pytest.raises(Malformed, match="compression"):
            read(bodied(Opcode.STARTUP, b"\0\1" + words.string("COMPRESSION") + words.string(value)))


@pytest.mark.parametrize("first", [1, 2, 6, 7, 0x41, 0x83, 0x84, 0x85, 0, 0x47])
def test_versions_that_are_not_spoken(first: int) -> None:
    """Fact 24, and 25: a response is no request."""
    with pytest.raises(Malformed) as error:
        read_request_envelope(bytes([first]) + words.query(TEXT)[1:], 0, 0, MOST)
    assert isinstance(error.value, Unsupported) and error.value.version == first


@pytest.mark.parametrize("version", VERSIONS)
def test_the_version_is_that_of_the_connection(version: int) -> None:
    """Fact 24."""
    for other in VERSIONS:
        data = words.query(TEXT, other)
        if other == version:
            assert read(data, version)
        else:
            with pytest.raises(Malformed, match=f"version {other}"):
                read(data, version)


@pytest.mark.parametrize("opcode", [*sorted({*range(256)} - {1, 5, 7, 9, 10, 11, 13, 15})])
def test_opcodes_that_no_client_may_send(opcode: int) -> None:
    """Fact 25: some are swallowed without an answer."""
    with pytest.raises(Malformed, match="no client"):
        read_request_envelope(bodied(opcode, b""), 0, 4, MOST)


def test_headers_that_are_none() -> None:
    """Facts 18 and 25: unknown flags, streams of the server, and sizes."""
    for flags in (8, 0x20, 0x40, 0x80):
        with pytest.raises(Malformed, match="flags"):
            read_request_envelope(bodied(Opcode.QUERY, b"", flags=flags), 0, 4, MOST)
    for flags in (0x10, 2, 0x17):
        assert read_request_envelope(bodied(Opcode.QUERY, b"", flags=flags), 0, 4, MOST).flags == flags
    for stream in (-1, -32768):
        with pytest.raises(Malformed, match=f"stream {stream}"):
            read_request_envelope(bodied(Opcode.QUERY, b"", stream=stream), 0, 4, MOST)
    for size in (-1, MOST + 1, 1 << 30):
        with pytest.raises(Malformed, match=f"a body of {size} bytes"):
            read_request_envelope(struct.pack(">BBhBi", 4, 0, 0, 7, size), 0, 4, MOST)


def test_responses_are_responses() -> None:
    head = read_response_envelope(words.void(5, 77), 0)
    assert (head.version, head.stream, head.opcode, head.size) == (5, 77, Opcode.RESULT, 4)
    for data in (words.query(TEXT), words.say(Opcode.QUERY), struct.pack(">BBhBi", 0x84, 0, 0, 8, -1)):
        with pytest.raises(Malformed):
            read_response_envelope(data, 0)


@pytest.mark.parametrize("kind", ["lz4", "snappy"])
def test_a_compressed_body(kind: str) -> None:
    for text in ("", TEXT, TEXT * 500):
        data = words.query(text, 4, compression=kind)
        plain = words.query(text, 4)[HEADER:]
        assert unpack_body(kind, data[HEADER:], MOST) == plain
        with pytest.raises(Malformed):
            unpack_body(kind, data[HEADER:], len(plain) - 1)
        for place in range(len(data[HEADER:]) if len(text) < 100 else 20):
            with pytest.raises(Malformed):
                unpack_body(kind, data[HEADER : HEADER + place], MOST)
        with pytest.raises(Malformed):
            unpack_body(kind, data[HEADER:] + b"\0", MOST)


def test_a_length_that_is_not_true() -> None:
    """Facts 23 and 27: a server crashes, or runs what an earlier message left in its buffer."""
    body = words.query(TEXT * 9, 4, compression="lz4")[HEADER:]
    (size,) = struct.unpack_from(">I", body)
    for wrong in (size + 1, size - 1, 0, size * 100, 1 << 31, (1 << 32) - 1):
        with pytest.raises(Malformed):
            unpack_body("lz4", struct.pack(">I", wrong) + body[4:], 1 << 33)
    for block in (b"\0\0", b"", b"\1", b"\xf0"):
        with pytest.raises(Malformed):
            unpack_lz4(block, 0, MOST)
    assert unpack_lz4(b"\0", 0, MOST) == b""
    with pytest.raises(Malformed):
        unpack_body("snappy", b"\xff\xff\xff\xff\x0f" + b"\0" * 50, MOST)


def block_of(before: bytes, match: int, offset: int, after: bytes) -> bytes:
    """An LZ4 block with one match between literals."""

    def length(size: int) -> tuple[int, bytes]:
        return (size, b"") if size < 15 else (15, b"\xff" * ((size - 15) // 255) + bytes([(size - 15) % 255]))

    (first, more), (second, rest), (third, end) = length(len(before)), length(match - 4), length(len(after))
    made = bytes([first << 4 | second]) + more + before + struct.pack("<H", offset) + rest
    return made + bytes([third << 4]) + end + after


@pytest.mark.parametrize("match", [4, 18, 19, 40, 600])
@pytest.mark.parametrize("before", [4, 14, 15, 300])
def test_a_match_with_offset_0(match: int, before: int) -> None:
    """Some servers leave there what an earlier message had in their buffer."""
    start, end = bytes(range(1, 255)) * 2, b"/* twelve and more */"
    good, bad = (block_of(start[:before], match, offset, end) for offset in (before, 0))
    size = before + match + len(end)
    assert unpack_lz4(good, size, MOST) == (start[:before] * match)[: before + match] + end
    with pytest.raises(Malformed, match="offset 0"):
        unpack_lz4(bad, size, MOST)
    with pytest.raises(Malformed, match="offset 0"):
        unpack_body("lz4", struct.pack(">I", size) + bad, MOST)
    assert unpack_lz4(bad, size, MOST, trusted=True) == start[:before] + bytes(match) + end
    with pytest.raises(Malformed):
        unpack_lz4(block_of(start[:before], match, before + 1, end), size, MOST)


@settings(max_examples=200)
@given(st.lists(st.sampled_from([b"\0\0\0\0\0", b"SELECT", b"\0\1\2", bytes(300)])))
def test_zeros_are_no_match_with_offset_0(parts: list[bytes]) -> None:
    plain = b"".join(parts)
    assert unpack_body("lz4", words.lz4_compress(plain), 1 << 20) == plain


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 1 << 16), st.sampled_from(["lz4", "snappy"]))
def test_no_block_yields_more_than_it_may(block: bytes, most: int, kind: str) -> None:
    with suppress(Malformed):
        assert len(unpack_body(kind, block, most)) <= most
