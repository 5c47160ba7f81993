"""DATA frames of HTTP/2 on their way: whole, and cut into pieces where the client has no room for all of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from l7proxy.http2_streams import Messages, Stream
from l7proxy.ops import Direction, Drop, Pass
from parsers.http2 import DATA, END_STREAM, PADDED, frame, head

Way: TypeAlias = type[Pass] | type[Drop]


@dataclass(slots=True)
class Part:
    """A DATA frame under way: bytes of data and of padding still to come, and what ends with it."""

    data: int
    padding: int
    way: Way
    messages: Messages | None
    stream: Stream | None
    last: bool


class Cut:
    """A DATA frame of the server's, its head taken, that goes on in pieces: first its data, then its padding.

    Together the pieces take as much of the windows as the frame did. Padding is ours, for what is in it is 0.
    """

    __slots__ = ("_data", "_last", "_number", "_padding", "_rest", "stream")

    def __init__(self, number: int, data: int, padding: int, stream: Stream | None, last: bool) -> None:
        """`padding`: bytes, the one with the length included; 0 if there is none."""
        self._number, self._data, self._padding, self.stream, self._last = number, data, padding, stream, last
        self._rest = max(0, padding - 1)

    @property
    def left(self) -> int:
        """Bytes that the next piece may be long."""
        return self._data or self._padding

    def piece(self, size: int) -> tuple[bytes, Part]:
        """The words with which a piece of `size` bytes begins, and what of the server's goes on behind them."""
        if self._data:
            self._data -= size
            messages = self.stream.messages[Direction.RESPONSE] if self.stream and self.stream.messages else None
            return head(size, DATA, self._flags(), self._number), Part(size, 0, Pass, messages, None, False)
        self._padding -= size
        padding = bytes((size - 1, *bytes(size - 1)))
        return frame(DATA, PADDED | self._flags(), self._number, padding), Part(0, 0, Pass, None, None, False)

    @property
    def ended(self) -> bool:
        """The last piece has begun, and ends the stream."""
        return self._last and not self.left

    def _flags(self) -> int:
        return END_STREAM if self.ended else 0

    def stop(self) -> int:
        """No further piece goes on; the room in the windows that those left would have taken."""
        room = self._data + self._padding
        self._rest += self._data
        self._data = self._padding = 0
        self._last, self.stream = False, None
        return room

    def end(self) -> Part:
        """What is left when all pieces have gone: the server's own padding, and what ends with it."""
        return Part(0, self._rest, Drop, None, self.stream, self._last)
