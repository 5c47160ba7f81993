"""Frames as bytes: those that h2 would not send, and blocks in every way HPACK allows to write them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hpack import Encoder
from hpack.hpack import encode_integer
from hyperframe import frame as hyper

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = 9
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITISED = 0x4, 0x8, 0x20
TABLE, PUSH, CONCURRENT, WINDOW, FRAME, LIST, CONNECT = 1, 2, 3, 4, 5, 6, 8
Fields = Sequence[tuple[bytes, bytes]]


class Frame(NamedTuple):
    """A frame as it was read."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def content(self) -> bytes:
        """The payload without padding and priority."""
        payload = self.payload
        if self.flags & PADDED and self.kind in (DATA, HEADERS):
            payload = payload[1 : len(payload) - payload[0]]
        return payload[5:] if self.flags & PRIORITISED and self.kind == HEADERS else payload

    @property
    def number(self) -> int:
        """The last four bytes of the payload's first eight, as RST_STREAM, GOAWAY and WINDOW_UPDATE have them."""
        return int.from_bytes(self.payload[:8][-4:], "big")


def split(data: bytes) -> Iterator[Frame]:
    """The whole frames at the beginning of `data`."""
    position = 0
    while len(data) - position >= HEAD:
        size = int.from_bytes(data[position : position + 3], "big")
        kind, flags, stream = struct.unpack_from(">BBL", data, position + 3)
        start, position = position + HEAD, position + HEAD + size
        if position > len(data):
            return
        yield Frame(kind, flags, stream & 0x7FFFFFFF, data[start:position])


def raw(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", size: int | None = None) -> bytes:
    """Any frame at all; `size` may lie about the payload."""
    size = len(payload) if size is None else size
    return size.to_bytes(3, "big") + struct.pack(">BBL", kind, flags, stream) + payload


def headers(
    stream: int,
    block: bytes,
    *,
    end: bool = True,
    pieces: int = 1,
    pad: int | None = None,
    priority: tuple[int, int, bool] | None = None,
) -> bytes:
    """HEADERS, and CONTINUATION for what is behind the first of the `pieces` of the block. `priority`: the stream it
    depends on, its weight less one, and whether exclusively."""
    cut = -(-len(block) // pieces) or 1
    parts = [block[start : start + cut] for start in range(0, len(block), cut)] or [b""]
    first = hyper.HeadersFrame(stream, parts[0])
    if end:
        first.flags.add("END_STREAM")
    if pad is not None:
        first.flags.add("PADDED")
        first.pad_length = pad
    if priority is not None:
        first.flags.add("PRIORITY")
        first.depends_on, first.stream_weight, first.exclusive = priority
    made: list[hyper.Frame] = [first, *(hyper.ContinuationFrame(stream, part) for part in parts[1:])]
    made[-1].flags.add("END_HEADERS")
    return b"".join(one.serialize() for one in made)


def data(stream: int, content: bytes = b"", *, end: bool = False, pad: int | None = None) -> bytes:
    """DATA."""
    made = hyper.DataFrame(stream, content)
    if end:
        made.flags.add("END_STREAM")
    if pad is not None:
        made.flags.add("PADDED")
        made.pad_length = pad
    return made.serialize()


def settings(*values: tuple[int, int]) -> bytes:
    """SETTINGS, in the order given and with repetitions."""
    return raw(SETTINGS, 0, 0, b"".join(struct.pack(">HL", name, value) for name, value in values))


SETTINGS_ACK = raw(SETTINGS, ACK)


def settings_of(one: Frame) -> list[tuple[int, int]]:
    """What a SETTINGS frame says."""
    return list(struct.iter_unpack(">HL", one.payload))


def rst(stream: int, code: int = 0) -> bytes:
    """RST_STREAM."""
    return raw(RST_STREAM, 0, stream, struct.pack(">L", code))


def update(stream: int, size: int) -> bytes:
    """WINDOW_UPDATE."""
    return raw(WINDOW_UPDATE, 0, stream, struct.pack(">L", size))


def goaway(last: int, code: int = 0, text: bytes = b"") -> bytes:
    """GOAWAY."""
    return raw(GOAWAY, 0, 0, struct.pack(">LL", last, code) + text)


def ping(data: bytes = b"8 bytes.", *, ack: bool = False) -> bytes:
    """PING."""
    return raw(PING, ACK if ack else 0, 0, data)


def priority(stream: int, on: int = 0, weight: int = 15) -> bytes:
    """PRIORITY."""
    return raw(PRIORITY, 0, stream, struct.pack(">LB", on, weight))


def push(stream: int, promised: int, block: bytes) -> bytes:
    """PUSH_PROMISE."""
    return raw(PUSH_PROMISE, END_HEADERS, stream, struct.pack(">L", promised) + block)


# -- header blocks ---------------------------------------------------------------------------------------------------


def request(
    path: str = "/public/x",
    *more: tuple[str | bytes, str | bytes],
    method: str = "GET",
    authority: str = "a",
    scheme: str = "http",
) -> list[tuple[bytes, bytes]]:
    """The fields of a request."""
    pseudo = ((":method", method), (":scheme", scheme), (":path", path), (":authority", authority))
    return [(_bytes(name), _bytes(value)) for name, value in (*pseudo, *more)]


def grpc(path: str = "/public.Service/Method", *more: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    """The fields of a gRPC request."""
    return request(path, ("content-type", "application/grpc"), ("te", "trailers"), *more, method="POST")


def message(content: bytes = b"hello", compressed: int = 0) -> bytes:
    """A gRPC message with its five bytes of prefix."""
    return struct.pack(">BL", compressed, len(content)) + content


def plain(fields: Fields, *, never: bool = False) -> bytes:
    """A block of literals alone, whose meaning and effect depend on no table and no encoder."""
    kind = b"\x10" if never else b"\x00"
    return b"".join(kind + _string(name) + _string(value) for name, value in fields)


def inserting(fields: Fields) -> bytes:
    """A block of literals that all go into the dynamic table."""
    return b"".join(b"\x40" + _string(name) + _string(value) for name, value in fields)


def indexed(*numbers: int) -> bytes:
    """Fields of either table by their index; 62 is the newest of the dynamic one."""
    return b"".join(_prefixed(0x80, 7, number) for number in numbers)


def table_size(*sizes: int) -> bytes:
    """Dynamic table size updates, which stand at the beginning of a block."""
    return b"".join(_prefixed(0x20, 5, size) for size in sizes)


def encoder(size: int = 4096) -> Encoder:
    """A client's or server's encoder that has told of its table's size already."""
    made = Encoder()
    made.header_table_size = size
    made.header_table.resized = False
    made.table_size_changes = []
    return made


def _prefixed(kind: int, bits: int, number: int) -> bytes:
    made = encode_integer(number, bits)
    made[0] |= kind
    return bytes(made)


def _string(value: bytes) -> bytes:
    return _prefixed(0, 7, len(value)) + value


def _bytes(value: str | bytes) -> bytes:
    return value.encode("latin-1") if isinstance(value, str) else value
