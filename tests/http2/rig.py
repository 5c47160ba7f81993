"""Two ends and the conversation between them: carried as the relay does, with account of every byte."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from l7proxy.http2 import Http2Conversation
from l7proxy.ops import Abort, Close, Direction, Op
from tests.conversations import REQUEST, RESPONSE, Conversing, Half
from tests.http1.rig import PublicOnly
from tests.http2 import frames
from tests.http2.frames import Fields
from tests.http2.peers import Peer, Wire

End = Peer | Wire
whole_and_cut = pytest.mark.parametrize("cut", [0, 1, 5])
"""For a `Stage`: bytes arrive whole, one by one, in fives."""


class Track:
    """Where in a frame, or in a header block, the bytes that an end was sent have come to."""

    def __init__(self, preface: bytes) -> None:
        self.rest, self.block, self.begun = len(preface), False, False
        self.head = b""
        self.data = False

    def take(self, data: bytes) -> None:
        while data:
            if self.rest:
                taken = min(self.rest, len(data))
                self.rest -= taken
            else:
                taken = frames.HEAD - len(self.head)
                self.head += data[:taken]
                if len(self.head) == frames.HEAD:
                    self._begin(self.head)
                    self.head = b""
            data = data[taken:]

    def _begin(self, head: bytes) -> None:
        self.rest, self.data = int.from_bytes(head[:3], "big"), head[3] == frames.DATA
        kind, last = head[3], bool(head[4] & frames.END_HEADERS)
        assert self.begun or (kind == frames.SETTINGS and not head[4] & frames.ACK), "what comes first is not SETTINGS"
        self.begun = True
        assert self.block == (kind == frames.CONTINUATION), "another frame within a header block"
        if kind in (frames.HEADERS, frames.PUSH_PROMISE, frames.CONTINUATION):
            self.block = not last

    @property
    def boundary(self) -> bool:
        """Whether a frame of another's may follow here."""
        return not (self.rest or self.head or self.block)

    def filled_by(self, data: bytes) -> bool:
        """Whether this is the rest of a DATA frame that is under way, and whole frames behind it."""
        behind = data[self.rest :]
        whole = sum(frames.HEAD + len(one.payload) for one in frames.split(behind))
        return self.data and 0 < self.rest <= len(data) and not self.head and whole == len(behind)


class Rig(Conversing[Any]):
    """Of HTTP/2. `framed`: both directions are that from the first byte. `filled`: how often words of our own to the
    server may begin with the rest of a DATA frame."""

    def __init__(self, judge: PublicOnly | None = None, make: Callable[[Any], Any] = Http2Conversation) -> None:
        self.judge = judge or PublicOnly()
        super().__init__(make(self.judge))
        self.tracks = (Track(frames.PREFACE), Track(b""))
        self.framed = True
        self.filled = 0

    def send(self, half: Half, data: bytes) -> None:
        """Bytes go to the end that this direction leads to."""
        super().send(half, data)
        if self.framed:
            self.tracks[half.direction].take(data)

    def inject(self, half: Half, data: bytes) -> None:
        """Words of our own."""
        boundary = not self.framed or self.tracks[half.direction].boundary
        if not boundary and half.direction is REQUEST and self.filled and self.tracks[REQUEST].filled_by(data):
            self.filled, boundary = self.filled - 1, True
        assert boundary, "words of our own within a frame or a header block"
        super().inject(half, data)


class Stage:
    """A client, a server, and the rig between them. `cut`: the most bytes that arrive at once (0: any number)."""

    def __init__(
        self,
        cut: int = 0,
        *,
        judge: PublicOnly | None = None,
        client: End | None = None,
        server: End | None = None,
        make: Callable[[Any], Any] = Http2Conversation,
        begin: bool = True,
    ) -> None:
        self.rig = Rig(judge, make)
        self.cut = cut
        self.client: Any = client or Peer(client=True)
        self.server: Any = server or Peer(client=False)
        self.ends: tuple[Any, Any] = (self.client, self.server)
        self.handed = [0, 0]
        self.lines: list[tuple[Direction, bytes]] = []
        """What arrived at the proxy, in order."""
        if begin:
            self.settle()

    @property
    def log(self) -> list[tuple[str, str, str, int]]:
        return self.rig.log

    @property
    def ending(self) -> Close | Abort | None:
        return self.rig.ending

    @property
    def codes(self) -> tuple[int | None, int | None]:
        """The error codes of the GOAWAY frames that client and server saw."""
        return tuple(end.goaway and end.goaway[1] for end in self.ends)

    def arrive(self, direction: Direction, size: int | None = None) -> bool:
        """Up to `size` bytes that an end has sent come to the proxy."""
        data = self.ends[direction].take(size)
        if data:
            self.lines.append((direction, data))
        step = self.cut or len(data) or 1
        for start in range(0, len(data), step):
            self.rig.arrive(direction, data[start : start + step])
        return bool(data)

    def hand(self, direction: Direction) -> bool:
        """Give the end of a direction what the proxy has sent it."""
        out, start = self.rig.halves[direction].out, self.handed[direction]
        data = bytes(out[start:])
        self.handed[direction] += len(data)
        if data:
            self.ends[1 - direction].receive(data)
        return bool(data)

    def settle(self) -> Stage:
        """Until nothing moves any more."""
        for _ in range(10_000):
            moved = [self.arrive(REQUEST), self.hand(REQUEST), self.arrive(RESPONSE), self.hand(RESPONSE)]
            if not any(moved):
                return self
        raise AssertionError("they never come to rest")

    def apply(self, ops: Sequence[Op]) -> Stage:
        """Carry out what the conversation says at an occasion that no bytes brought about."""
        self.rig.apply(ops)
        return self.settle()

    def finish(self) -> Stage:
        self.rig.finish()
        return self

    def windows(self) -> tuple[int, int]:
        """Of two h2 ends at rest: bytes that the server allows beyond what the client thinks, and the other way."""
        client, server = self.client.h2, self.server.h2
        up = server.inbound_flow_control_window - client.outbound_flow_control_window
        return up, client.inbound_flow_control_window - server.outbound_flow_control_window

    def get(self, path: str = "/public/x", fields: Fields = ()) -> int:
        """A request without a body that the client makes, all the way; its stream."""
        stream: int = self.client.ask([*frames.request(path), *fields])
        self.settle()
        return stream

    def works(self) -> None:
        """The connection is as good as ever: another request goes through it, and its answer back."""
        stream = self.get("/public/still", [(b"x-again", b"yes")])
        assert dict(self.server.seen[stream].fields)[b":path"] == b"/public/still"
        self.server.reply(stream, body=b"fine")
        self.settle()
        seen = self.client.seen[stream]
        assert (seen.code, seen.data, seen.ended, seen.reset) == (200, b"fine", True, None)


def replay(lines: Sequence[tuple[Direction, bytes]], judge: PublicOnly | None = None) -> Rig:
    """Bytes of both ends that were once said, in the given order, then the end."""
    rig = Rig(judge)
    for direction, data in lines:
        rig.arrive(direction, data)
    return rig.finish()
