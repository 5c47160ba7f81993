"""Cassandra's native protocol, versions 3 to 5: the envelope around every message, and what is common to both ways.

An envelope is a header of nine bytes, then a body. In version 5, once STARTUP is answered, envelopes travel in segments
(`parsers.cassandra_segments`). See sections 2 and 3 of native_protocol_v3.spec to native_protocol_v5.spec of Apache
Cassandra.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from parsers.malformed import Malformed

VERSIONS = (3, 4, 5)
"""Versions of the protocol that are spoken here."""
HEADER = 9
"""Bytes of an envelope's header."""
RESPONSE = 0x80
"""The bit of the version byte that responses have."""
COMPRESSED, TRACING, PAYLOAD, WARNING, BETA = 1, 2, 4, 8, 16
_HEADER = struct.Struct(">BBhBi")
_SHORT, _INT = struct.Struct(">H"), struct.Struct(">i")


class Opcode(IntEnum):
    """What a message is (section 2.4)."""

    ERROR = 0
    STARTUP = 1
    READY = 2
    AUTHENTICATE = 3
    OPTIONS = 5
    SUPPORTED = 6
    QUERY = 7
    RESULT = 8
    PREPARE = 9
    EXECUTE = 10
    REGISTER = 11
    EVENT = 12
    BATCH = 13
    AUTH_CHALLENGE = 14
    AUTH_RESPONSE = 15
    AUTH_SUCCESS = 16


REQUESTS = frozenset(
    {
        Opcode.STARTUP,
        Opcode.OPTIONS,
        Opcode.QUERY,
        Opcode.PREPARE,
        Opcode.EXECUTE,
        Opcode.REGISTER,
        Opcode.BATCH,
        Opcode.AUTH_RESPONSE,
    }
)
RESPONSES = frozenset(Opcode) - REQUESTS


class Unsupported(Malformed):
    """The first byte of a message is a `version` that is not spoken here, or not on this connection."""

    def __init__(self, offset: int, version: int) -> None:
        super().__init__(offset, f"version {version & ~RESPONSE} of the protocol")
        self.version = version


class Envelope(NamedTuple):
    """A header. `version`: without the bit for responses. `size`: bytes of the body."""

    version: int
    flags: int
    stream: int
    opcode: int
    size: int


def read_request_envelope(data: bytes, place: int, version: int, most: int) -> Envelope:
    """The header of a request of this `version` (0: of any that is spoken here) that begins at `place`, where nine
    bytes are. Raises Malformed.

    Unknown bits of the flags, the bit of responses, negative streams and bodies of more than `most` bytes are refused:
    servers do various things with them.
    """
    own, flags, stream, opcode, size = _HEADER.unpack_from(data, place)
    if own not in VERSIONS or (version and own != version):
        raise Unsupported(place, own)
    if opcode not in REQUESTS:
        raise Malformed(place + 4, f"opcode {opcode}, which no client may send")
    if flags & ~(COMPRESSED | TRACING | PAYLOAD | BETA):
        raise Malformed(place + 1, f"flags {flags:#x}")
    if stream < 0:
        raise Malformed(place + 2, f"stream {stream}")
    if not 0 <= size <= most:
        raise Malformed(place + 5, f"a body of {size} bytes")
    return Envelope(own, flags, stream, opcode, size)


def read_response_envelope(data: bytes, place: int) -> Envelope:
    """The header of a response of any version that begins at `place`, where nine bytes are. Raises Malformed."""
    own, flags, stream, opcode, size = _HEADER.unpack_from(data, place)
    if not own & RESPONSE:
        raise Malformed(place, f"a response of version {own}")
    if opcode not in RESPONSES:
        raise Malformed(place + 4, f"opcode {opcode}, which no server may send")
    if size < 0:
        raise Malformed(place + 5, f"a body of {size} bytes")
    return Envelope(own & ~RESPONSE, flags, stream, opcode, size)


def read_plain_request(data: bytes, place: int, version: int) -> tuple[int, int, int]:
    """Stream, opcode and size of the envelope of a request of this version without any flag, whose header begins at
    `place`, where nine bytes are; 0 if it is anything else."""
    own, flags, stream, opcode, size = _HEADER.unpack_from(data, place)
    if own != version or flags or stream < 0 or size < 0:
        return 0, 0, 0
    return stream, opcode, HEADER + size


def read_result(data: bytes, place: int, version: int) -> tuple[int, int]:
    """The stream of a RESULT of this version, whose header begins at `place`, where nine bytes are, and the size of the
    whole envelope; 0 if it is anything else."""
    own, _, stream, opcode, size = _HEADER.unpack_from(data, place)
    if own != version | RESPONSE or opcode != Opcode.RESULT or size < 0:
        return 0, 0
    return stream, HEADER + size


def write_envelope(version: int, stream: int, opcode: int, body: bytes, flags: int = 0) -> bytes:
    """An envelope; of a response, `version` has the bit `RESPONSE`."""
    return _HEADER.pack(version, flags, stream, opcode, len(body)) + body


class Reader:
    """Goes through `data` from `place` to `stop`. Each method raises Malformed where what it reads would not fit:
    servers read on behind a message's end, or make room for whatever a length says."""

    __slots__ = ("data", "place", "stop")

    def __init__(self, data: bytes, place: int, stop: int) -> None:
        self.data, self.place, self.stop = data, place, stop

    def take(self, size: int) -> int:
        """Go on by `size` bytes; where they begin."""
        start = self.place
        if size < 0 or size > self.stop - start:
            raise Malformed(start, f"{size} bytes where {self.stop - start} are left")
        self.place = start + size
        return start

    def byte(self) -> int:
        """[byte]"""
        return self.data[self.take(1)]

    def short(self) -> int:
        """[short]"""
        start = self.place
        if self.stop - start < 2:
            self.take(2)
        self.place = start + 2
        found: int = _SHORT.unpack_from(self.data, start)[0]
        return found

    def int(self) -> int:
        """[int]"""
        return int(_INT.unpack_from(self.data, self.take(4))[0])

    def short_bytes(self) -> bytes:
        """[short bytes], and the bytes of a [string]"""
        start = self.place + 2
        stop = start + self.short()
        if stop > self.stop:
            self.take(stop - start)
        self.place = stop
        return self.data[start:stop]

    def long_string(self) -> bytes:
        """The bytes of a [long string]"""
        size = self.int()
        start = self.take(size)
        return self.data[start : start + size]

    def string(self) -> str:
        """[string]"""
        start = self.place
        return utf8(self.short_bytes(), start)

    def skip_bytes(self) -> None:
        """[bytes], which may be null"""
        size = self.int()
        if size > 0:
            self.take(size)

    def skip_payload(self) -> None:
        """[bytes map]"""
        for _ in range(self.short()):
            self.take(self.short())
            self.skip_bytes()


def utf8(raw: bytes, place: int) -> str:
    """Text, as strictly as a server reads it. Raises Malformed."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise Malformed(place, "text that is not UTF-8") from error
