"""One direction of a relayed connection, and the callbacks of the socket it is read from."""

from __future__ import annotations

import asyncio
from typing import Protocol

from l7proxy.ops import Direction


class Carrier(Protocol):
    """What the callbacks tell: see `Relay`."""

    def arrived(self, direction: Direction, data: bytes) -> None:
        """Bytes were read."""

    def ended(self, direction: Direction) -> None:
        """FIN was read."""

    def choke(self, direction: int, choked: bool) -> None:
        """The sink of a direction is full, or has room again."""

    def lost(self, direction: Direction, error: Exception | None) -> None:
        """The socket is closed; with an error if it was reset."""


class Half:
    """One direction: bytes waiting for a verdict, and how many more may go (or must be dropped) by count."""

    __slots__ = (
        "choked",
        "credit",
        "direction",
        "dropping",
        "eof",
        "finished",
        "need",
        "paused",
        "pending",
        "sink",
        "source",
        "total",
        "waiting",
    )

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None
        self.pending: bytes = b""
        self.credit = self.dropping = self.need = self.total = 0
        self.waiting = self.eof = self.finished = self.paused = self.choked = False


class Side(asyncio.Protocol):
    """The callbacks of one socket; `direction` is that of the bytes read from it."""

    __slots__ = ("direction", "relay")

    def __init__(self, relay: Carrier, direction: Direction) -> None:
        self.relay, self.direction = relay, direction

    def data_received(self, data: bytes) -> None:
        self.relay.arrived(self.direction, data)

    def eof_received(self) -> bool:
        self.relay.ended(self.direction)
        return True

    def pause_writing(self) -> None:
        self.relay.choke(1 - self.direction, True)

    def resume_writing(self) -> None:
        self.relay.choke(1 - self.direction, False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.relay.lost(self.direction, exc)
