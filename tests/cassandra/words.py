"""The words of cassandra-driver, an implementation of the protocol that is not ours, and responses of a server."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Any

import lz4.block
import snappy
from cassandra.protocol import (
    BatchMessage,
    ExecuteMessage,
    OptionsMessage,
    PrepareMessage,
    ProtocolHandler,
    QueryMessage,
    RegisterMessage,
    StartupMessage,
)
from cassandra.query import BatchType
from cassandra.segment import SegmentCodec

from parsers.cassandra import HEADER, RESPONSE, Opcode, write_envelope


def lz4_compress(data: bytes) -> bytes:
    """As drivers do: the length in network order before the block."""
    return struct.pack(">I", len(data)) + lz4.block.compress(data, store_size=False)


def lz4_decompress(data: bytes) -> bytes:
    return lz4.block.decompress(data[3::-1] + data[4:])


COMPRESS = {"lz4": lz4_compress, "snappy": snappy.compress}
PLAIN, PACKED = SegmentCodec(), SegmentCodec(lz4_compress, lz4_decompress)
"""The driver's own segments, without and with LZ4."""


def encode(message: Any, version: int, stream: int = 0, compression: str = "") -> bytes:
    """A message as the driver sends it."""
    return bytes(
        ProtocolHandler.encode_message(
            message, stream, version, COMPRESS.get(compression), message.__dict__.get("beta")
        )
    )


def with_(message: Any, *, tracing: bool = False, payload: dict[str, bytes] | None = None) -> Any:
    """The same with more in its envelope."""
    message.tracing, message.custom_payload = tracing, payload
    return message


def startup(version: int = 4, compression: str = "", stream: int = 0) -> bytes:
    options = {"COMPRESSION": compression} if compression else {}
    return encode(StartupMessage(cqlversion="3.0.0", options=options), version, stream)


def options(version: int = 4, stream: int = 0) -> bytes:
    return encode(OptionsMessage(), version, stream)


def register(version: int = 4, stream: int = 0) -> bytes:
    return encode(RegisterMessage(event_list=["SCHEMA_CHANGE", "STATUS_CHANGE"]), version, stream)


def query(
    text: str, version: int = 4, stream: int = 0, compression: str = "", values: Any = None, **more: Any
) -> bytes:
    """`more`: as QueryMessage takes it."""
    message = QueryMessage(text, 1, **more)
    message.query_params = values
    return encode(message, version, stream, compression)


def prepare(text: str, version: int = 4, stream: int = 0, keyspace: str | None = None) -> bytes:
    return encode(PrepareMessage(text, keyspace=keyspace), version, stream)


def execute(number: bytes, version: int = 4, stream: int = 0, values: Sequence[Any] = (), **more: Any) -> bytes:
    message = ExecuteMessage(number, list(values), 1, result_metadata_id=bytes(16) if version > 4 else None, **more)
    return encode(message, version, stream)


def batch(*children: str | bytes, version: int = 4, stream: int = 0, keyspace: str | None = None) -> bytes:
    """Texts, and ids of prepared statements."""
    queries = [(isinstance(one, bytes), one, [b"1"] if isinstance(one, bytes) else []) for one in children]
    return encode(BatchMessage(BatchType.LOGGED, queries, 1, keyspace=keyspace), version, stream)


def segments(data: bytes, packed: bool = False) -> bytes:
    """As the driver makes them of what it sends at once."""
    out = io.BytesIO()
    (PACKED if packed else PLAIN).encode(out, data)
    return out.getvalue()


def unsegment(data: bytes, packed: bool = False) -> list[tuple[bytes, bool]]:
    """Payloads, and whether they are self-contained, as the driver reads them."""
    codec, stream, found = PACKED if packed else PLAIN, io.BytesIO(data), []
    while stream.tell() < len(data):
        segment = codec.decode(stream, codec.decode_header(stream))
        found.append((segment.payload, segment.is_self_contained))
    return found


def string(text: str) -> bytes:
    return struct.pack(">H", len(text.encode())) + text.encode()


def say(opcode: int, body: bytes = b"", version: int = 4, stream: int = 0, compression: str = "") -> bytes:
    """A response."""
    flags = 1 if compression else 0
    return write_envelope(
        version | RESPONSE, stream, opcode, COMPRESS[compression](body) if compression else body, flags
    )


def ready(version: int = 4, stream: int = 0) -> bytes:
    return say(Opcode.READY, b"", version, stream)


def void(version: int = 4, stream: int = 0) -> bytes:
    return say(Opcode.RESULT, struct.pack(">i", 1), version, stream)


def rows(version: int = 4, stream: int = 0, size: int = 30) -> bytes:
    """Some bytes that a proxy has no reason to read."""
    return say(Opcode.RESULT, struct.pack(">i", 2) + b"r" * size, version, stream)


def set_keyspace(keyspace: str, version: int = 4, stream: int = 0) -> bytes:
    return say(Opcode.RESULT, struct.pack(">i", 3) + string(keyspace), version, stream)


def prepared(number: bytes, version: int = 4, stream: int = 0) -> bytes:
    body = struct.pack(">ih", 4, len(number)) + number
    body += struct.pack(">h", 16) + bytes(16) if version > 4 else b""
    return say(Opcode.RESULT, body + struct.pack(">iiii", 1, 0, 4, 0), version, stream)


def error(code: int, text: str = "no", version: int = 4, stream: int = 0) -> bytes:
    return say(Opcode.ERROR, struct.pack(">i", code) + string(text), version, stream)


def body_of(envelope: bytes) -> bytes:
    return envelope[HEADER:]
