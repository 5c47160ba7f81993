"""What a server says, and our own refusals as the driver reads them."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from cassandra.protocol import ErrorMessage, PreparedQueryNotFound, ProtocolHandler, UnauthorizedErrorMessage

from parsers.cassandra import HEADER, PAYLOAD, TRACING, WARNING, read_response_envelope
from parsers.cassandra_responses import PROTOCOL, UNAUTHORIZED, message, read_texts, refusal, unprepared, unsupported
from parsers.malformed import Malformed
from tests.cassandra import words


def understood(data: bytes) -> Any:
    """A response as the driver takes it."""
    head = read_response_envelope(data, 0)
    assert head.size == len(data) - HEADER
    return ProtocolHandler.decode_message(
        head.version, {}, head.stream, head.flags, head.opcode, data[HEADER:], None, None
    )


@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_refusal(version: int) -> None:
    found = understood(refusal(version, 32_767, UNAUTHORIZED, "no: é"))
    assert isinstance(found, UnauthorizedErrorMessage)
    assert (found.stream_id, found.message) == (32_767, "no: é")
    found = understood(unprepared(version, 5, bytes(range(16))))
    assert isinstance(found, PreparedQueryNotFound) and found.info == bytes(range(16))


def test_a_long_refusal_is_cut_at_a_letter() -> None:
    assert understood(refusal(4, 0, UNAUTHORIZED, "é" * 5000)).message == "é" * 500
    assert understood(refusal(4, 0, UNAUTHORIZED, "\ud800")).message == "?"


@pytest.mark.parametrize("version", [6, 7, 100])
def test_a_version_that_is_too_new(version: int) -> None:
    found = understood(unsupported(version))
    assert isinstance(found, ErrorMessage) and found.code == PROTOCOL and found.stream_id == 0
    assert read_response_envelope(unsupported(version), 0).version == 5
    assert "supported versions are (3/v3, 4/v4, 5/v5)" in found.message


@pytest.mark.parametrize("version", [1, 2])
def test_a_version_that_is_too_old(version: int) -> None:
    data = unsupported(version)
    first, flags, stream, opcode, size = struct.unpack_from(">BBbBi", data)
    assert (first, flags, stream, opcode, size) == (0x80 | version, 0, 0, 0, len(data) - 8)


def test_what_stands_before_a_message() -> None:
    body = (
        bytes(16) + b"\0\2" + words.string("w") + words.string("") + b"\0\1" + words.string("k") + b"\xff\xff\xff\xff"
    )
    body += b"\0\0\0\1"
    reader = message(TRACING | WARNING | PAYLOAD, body, 0, len(body))
    assert (reader.int(), reader.place) == (1, len(body))
    for place in range(len(body) - 4):
        with pytest.raises(Malformed):
            message(TRACING | WARNING | PAYLOAD, body, 0, place)


def test_rows_of_two_texts() -> None:
    body = struct.pack(">iii", 4, 2, 2) + b"".join(
        struct.pack(">i", len(one)) + one for one in (b"ks", b"v", b"ks", b"V2")
    )
    assert read_texts(message(0, body, 0, len(body)), 2, 9) == [("ks", "v"), ("ks", "V2")]
    with pytest.raises(Malformed):
        read_texts(message(0, body, 0, len(body)), 2, 1)
    for place in range(len(body)):
        with pytest.raises(Malformed):
            read_texts(message(0, body[:place], 0, place), 2, 9)
