"""What a server says, as far as it has to be understood (section 4.2), and how a refusal is worded."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from parsers.cassandra import PAYLOAD, RESPONSE, TRACING, VERSIONS, WARNING, Opcode, Reader, write_envelope
from parsers.malformed import Malformed

SERVER_ERROR, PROTOCOL, UNAUTHORIZED, UNPREPARED = 0x0000, 0x000A, 0x2100, 0x2500
"""Codes of ERROR (section 9)."""
_INT, _SHORT = struct.Struct(">i"), struct.Struct(">H")
_LONGEST = 1000
"""Bytes of a message of our own."""
_ONE_TABLE, _NO_METADATA = 1, 4


class Question(NamedTuple):
    """A SELECT whose answer has so many texts in a row."""

    text: bytes
    columns: int


VIEWS = Question(b"SELECT keyspace_name, view_name, base_table_name FROM system_schema.views", 3)
"""All materialized views, each with its keyspace and its table."""
FUNCTIONS = Question(b"SELECT keyspace_name, function_name FROM system_schema.functions", 2)
AGGREGATES = Question(b"SELECT keyspace_name, aggregate_name FROM system_schema.aggregates", 2)
"""All functions and aggregates that users have made, each with its keyspace."""


SCHEMA_CHANGE = b"SCHEMA_CHANGE"
"""What an EVENT begins with that tells of one (section 4.2.6)."""


class Kind(IntEnum):
    """What a RESULT is (section 4.2.5)."""

    VOID = 1
    ROWS = 2
    SET_KEYSPACE = 3
    PREPARED = 4
    SCHEMA_CHANGE = 5


def message(flags: int, data: bytes, start: int, stop: int) -> Reader:
    """A reader that stands at the message of a response's body, behind tracing id, warnings and payload. Raises
    Malformed."""
    reader = Reader(data, start, stop)
    if flags & TRACING:
        reader.take(16)
    if flags & WARNING:
        for _ in range(reader.short()):
            reader.take(reader.short())
    if flags & PAYLOAD:
        reader.skip_payload()
    return reader


def read_texts(reader: Reader, columns: int, most: int) -> list[tuple[str, ...]]:
    """Text `columns` of rows that were asked for without metadata: `reader` stands behind the RESULT's kind. At most
    `most` rows. Raises Malformed."""
    flags, count = reader.int(), reader.int()
    if flags | _ONE_TABLE != _NO_METADATA | _ONE_TABLE or count != columns:
        raise Malformed(reader.place, f"rows with flags {flags:#x} and {count} columns")
    rows = reader.int()
    if not 0 <= rows <= most:
        raise Malformed(reader.place, f"{rows} rows")
    return [tuple(_text(reader) for _ in range(columns)) for _ in range(rows)]


def _text(reader: Reader) -> str:
    size = reader.int()
    start = reader.take(size)
    return reader.data[start : start + size].decode(errors="replace")


def query(question: Question, version: int, stream: int) -> bytes:
    """The envelope of a QUERY, with consistency ONE, which is answered without metadata."""
    flags = b"\2" if version < 5 else b"\0\0\0\2"
    body = _INT.pack(len(question.text)) + question.text + b"\0\1" + flags
    return write_envelope(version, stream, Opcode.QUERY, body)


def register(version: int, stream: int) -> bytes:
    """The envelope of a REGISTER for changes of the schema (section 4.1.8)."""
    return write_envelope(version, stream, Opcode.REGISTER, b"\0\1" + _SHORT.pack(len(SCHEMA_CHANGE)) + SCHEMA_CHANGE)


def refusal(version: int, stream: int, code: int, text: str, extra: bytes = b"") -> bytes:
    """The envelope of an ERROR; `extra`: what this code has behind its text."""
    raw = text.encode(errors="replace")[:_LONGEST].decode(errors="ignore").encode()
    body = _INT.pack(code) + _SHORT.pack(len(raw)) + raw + extra
    return write_envelope(version | RESPONSE, stream, Opcode.ERROR, body)


def unprepared(version: int, stream: int, number: bytes) -> bytes:
    """The ERROR that makes a driver prepare the statement of this id again."""
    text = f"Prepared query with ID {number.hex()} not found (either the query was not prepared on this host)"
    return refusal(version, stream, UNPREPARED, text, _SHORT.pack(len(number)) + number)


def unsupported(version: int) -> bytes:
    """The answer to a `version` that is not spoken here: drivers then try a lower one. Versions 1 and 2 have a header
    of eight bytes, in which it is told to their clients, and newer ones are answered in the newest that is known."""
    shown = ", ".join(f"{one}/v{one}" for one in VERSIONS)
    text = f"Invalid or unsupported protocol version ({version}); supported versions are ({shown})"
    if version in (1, 2):
        raw = text.encode()
        body = _INT.pack(PROTOCOL) + _SHORT.pack(len(raw)) + raw
        return bytes((version | RESPONSE, 0, 0, Opcode.ERROR)) + _INT.pack(len(body)) + body
    return refusal(VERSIONS[-1], 0, PROTOCOL, text)
