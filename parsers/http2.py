"""HTTP/2 frames (RFC 9113, sections 4 and 6): their head, their bounds, and what a SETTINGS frame says."""

from __future__ import annotations

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client begins with (section 3.4)."""
HEAD = 9
"""Bytes of a frame's head: length (24 bits), type, flags, stream (31 bits)."""
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITISED = 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 3, 4, 5
MAX_HEADER_LIST_SIZE, ENABLE_CONNECT_PROTOCOL = 6, 8
DEFAULT_WINDOW, LARGEST_WINDOW = 65_535, (1 << 31) - 1
DEFAULT_FRAME, LARGEST_FRAME = 16_384, (1 << 24) - 1
LARGEST_STREAM = (1 << 31) - 1

_HEAD = struct.Struct(">HBBBL")
FRAME_HEAD = _HEAD.unpack_from
"""A frame's head at a position: length (16 bits, 8 bits), type, flags, stream with its reserved bit."""
_SETTING = struct.Struct(">HL")
_FIXED = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
"""Types whose payload has one length only."""
_OF_STREAM = frozenset((DATA, HEADERS, PRIORITY, RST_STREAM, CONTINUATION, PUSH_PROMISE))
_OF_CONNECTION = frozenset((SETTINGS, PING, GOAWAY))


class Code(IntEnum):
    """Error codes (section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class Broken(ValueError):
    """A connection error (section 5.4.1): nothing behind it can be trusted."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


def frame_head(data: bytes, position: int) -> tuple[int, int, int, int]:
    """(length of the payload, type, flags, stream) of the frame that begins at `position`; 9 bytes must be there."""
    high, low, kind, flags, stream = _HEAD.unpack_from(data, position)
    return high << 8 | low, kind, flags, stream & 0x7FFFFFFF


def head(size: int, kind: int, flags: int, stream: int) -> bytes:
    """The head of a frame whose payload has `size` bytes."""
    return _HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame."""
    return head(len(payload), kind, flags, stream) + payload


def window_update(stream: int, size: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">L", size))


def rst_stream(stream: int, code: Code) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, struct.pack(">L", code))


def goaway(last: int, code: Code, text: str = "") -> bytes:
    """A GOAWAY frame: streams up to `last` were, or may have been, taken."""
    return frame(GOAWAY, 0, 0, struct.pack(">LL", last, code) + text.encode()[:200])


def check_frame(length: int, kind: int, flags: int, stream: int, most: int) -> None:
    """The bounds of section 6 that need no state. `most`: the largest payload allowed. Raises Broken."""
    if length > most:
        raise Broken(Code.FRAME_SIZE_ERROR, f"a frame of {length} bytes, where {most} are allowed")
    if (kind in _OF_STREAM and not stream) or (kind in _OF_CONNECTION and stream):
        raise Broken(Code.PROTOCOL_ERROR, f"a frame of type {kind} on stream {stream}")
    fixed = _FIXED.get(kind)
    if fixed is not None and length != fixed:
        raise Broken(Code.FRAME_SIZE_ERROR, f"a frame of type {kind} with {length} bytes")
    if kind == SETTINGS and (length % 6 or (flags & ACK and length)):
        raise Broken(Code.FRAME_SIZE_ERROR, f"SETTINGS of {length} bytes")
    if kind == GOAWAY and length < 8:
        raise Broken(Code.FRAME_SIZE_ERROR, f"GOAWAY of {length} bytes")
    padded, prioritised = flags & PADDED and kind in (DATA, HEADERS), flags & PRIORITISED and kind == HEADERS
    if length < bool(padded) + 5 * bool(prioritised):
        raise Broken(Code.FRAME_SIZE_ERROR, f"a frame of type {kind} too short for its flags")


def fragment(data: bytes, start: int, length: int, flags: int) -> tuple[int, int]:
    """Where the header block of a HEADERS payload, or the data of a DATA payload, begins and ends. Raises Broken."""
    end = start + length
    if flags & PADDED:
        end -= data[start]
        start += 1
    if flags & PRIORITISED:
        start += 5
    if end < start:
        raise Broken(Code.PROTOCOL_ERROR, "more padding than payload")
    return start, end


def settings(payload: bytes) -> list[tuple[int, int]]:
    """(identifier, value) in order. Raises Broken for values out of bounds (section 6.5.2)."""
    if len(payload) % 6:
        raise Broken(Code.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
    found = list(_SETTING.iter_unpack(payload))
    for name, value in found:
        if name in (ENABLE_PUSH, ENABLE_CONNECT_PROTOCOL) and value > 1:
            raise Broken(Code.PROTOCOL_ERROR, f"setting {name} is {value}")
        if name == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise Broken(Code.FLOW_CONTROL_ERROR, f"an initial window of {value}")
        if name == MAX_FRAME_SIZE and not DEFAULT_FRAME <= value <= LARGEST_FRAME:
            raise Broken(Code.PROTOCOL_ERROR, f"a largest frame of {value}")
    return found


def settings_frame(values: list[tuple[int, int]]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in values))
