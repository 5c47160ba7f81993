"""The channel between the supervisor and a worker: frames of a length, a kind and a body on a socket pair.

Both ends belong to one program and one user: the bodies the supervisor sends are pickled, those it receives never are.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum

_HEAD = struct.Struct("<IB")
MAX_FRAME = 256 << 20
"""Bytes one frame may hold: a snapshot of very many policies fits."""


class Kind(IntEnum):
    """What a frame carries."""

    SNAPSHOT = 1  # to the worker: a pickled Snapshot
    STOP = 2  # to the worker: finish what is in flight, then end (empty)
    READY = 3  # to the supervisor: the generation now in force, 8 bytes little endian
    FLOWS = 4  # to the supervisor: the number of records, 4 bytes little endian, then JSON lines
    METRICS = 5  # to the supervisor: a JSON object


def frame(kind: Kind, body: bytes) -> bytes:
    """A frame as it travels."""
    return _HEAD.pack(len(body), kind) + body


class FrameReader:
    """Cuts a byte stream into frames and hands each to `deliver(kind, body)`."""

    def __init__(self, deliver: Callable[[Kind, bytes], None]) -> None:
        self._deliver = deliver
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Take bytes as they come. Raises ValueError for a frame that is too long or of no known kind."""
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            length, kind = _HEAD.unpack_from(self._buffer)
            if length > MAX_FRAME:
                raise ValueError(f"a control frame of {length} bytes")
            if len(self._buffer) < _HEAD.size + length:
                return
            body = bytes(memoryview(self._buffer)[_HEAD.size : _HEAD.size + length])
            del self._buffer[: _HEAD.size + length]
            self._deliver(Kind(kind), body)
