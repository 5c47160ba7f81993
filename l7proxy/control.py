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


def frame(kind: Kind, *body: bytes) -> bytes:
    """A frame as it travels; its body in pieces."""
    return b"".join((_HEAD.pack(sum(map(len, body)), kind), *body))


class FrameReader:
    """Cuts a byte stream into frames and hands each to `deliver(kind, body)`. Bodies are views of what was fed."""

    def __init__(self, deliver: Callable[[Kind, memoryview], None]) -> None:
        self._deliver = deliver
        self._pieces: list[bytes] = []
        self._size, self._wanted = 0, _HEAD.size

    def feed(self, data: bytes) -> None:
        """Take bytes as they come. Raises ValueError for a frame that is too long or of no known kind."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size < self._wanted:
            return
        whole = memoryview(b"".join(self._pieces) if len(self._pieces) > 1 else data)
        position = 0
        while (wanted := self._frame(whole, position)) <= len(whole) - position:
            (_, kind), body = _HEAD.unpack_from(whole, position), whole[position + _HEAD.size : position + wanted]
            position += wanted
            self._deliver(Kind(kind), body)
        self._pieces = [bytes(whole[position:])] if position < len(whole) else []
        self._size, self._wanted = len(whole) - position, wanted

    def _frame(self, whole: memoryview, position: int) -> int:
        """The size of the frame that begins at `position`; that of its head, as long as that is not there."""
        if len(whole) - position < _HEAD.size:
            return _HEAD.size
        length: int = _HEAD.unpack_from(whole, position)[0]
        if length > MAX_FRAME:
            raise ValueError(f"a control frame of {length} bytes")
        return _HEAD.size + length
