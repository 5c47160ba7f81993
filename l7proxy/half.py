"""One direction of a relayed connection, and the callbacks of the socket it is read from."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from l7proxy.ops import Direction
from l7proxy.pump import Pump

log = logging.getLogger("l7proxy.worker")
PUMP_FROM = 512 << 10
"""Bytes still to go by count from which on `splice` moves them: below, its own system calls cost more."""


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
        "pump",
        "sink",
        "source",
        "total",
        "waiting",
    )

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None
        self.pump: Pump | None = None
        self.pending: bytes = b""
        self.credit = self.dropping = self.need = self.total = 0
        self.waiting = self.eof = self.finished = self.paused = self.choked = False

    def start_pump(self, buffer: int, done: Callable[[Half, OSError | None], None]) -> None:
        """Move what may go by count without reading it here, if both sockets are there and nothing is queued between
        them. `done` is called when that is over."""
        source, sink = self.source, self.sink
        if self.pump or self.paused or self.eof or self.credit < PUMP_FROM or source is None or sink is None:
            return
        if source.is_closing() or sink.is_closing() or sink.get_write_buffer_size():
            return

        def over(moved: int, error: OSError | None) -> None:
            self.pump = None
            self.credit -= moved
            self.total += moved
            if error is None and self.source is not None and not self.source.is_closing():
                self.source.resume_reading()
            done(self, error)

        descriptors = [t.get_extra_info("socket").fileno() for t in (source, sink)]
        try:
            self.pump = Pump(descriptors[0], descriptors[1], self.credit, buffer, over)
        except OSError as error:
            log.warning("no pipe for a large body, it is copied: %s", error)
            return
        source.pause_reading()

    def by_count(self, data: bytes) -> tuple[bytes, bytes]:
        """Use up what earlier operations passed or dropped by count; at most one of the two is open. What was passed,
        and what has no verdict yet."""
        size = min(self.credit, len(data))
        self.credit -= size
        dropped = min(self.dropping, len(data) - size)
        self.dropping -= dropped
        return data[:size], data[size + dropped :]

    def pumped(self) -> int:
        """Bytes that a pump at work has moved; `total` does not have them yet."""
        return self.pump.moved if self.pump is not None else 0

    def backlog(self) -> int:
        """Not 0 while the sink does not take what waits for it, and another number whenever it took some."""
        if self.pump is not None:
            return self.pump.backlog()
        return self.sink.get_write_buffer_size() if self.sink is not None else 0

    def pause(self, wanted: bool) -> None:
        """Read no more of the source, or read on."""
        if wanted != self.paused and self.pump is None and self.source is not None and not self.eof:
            self.paused = wanted
            if wanted:
                self.source.pause_reading()
            else:
                self.source.resume_reading()

    def drop_pump(self) -> None:
        """End it, and read on: what comes now is thrown away."""
        if self.pump is not None:
            self.stop_pump()
            if self.source is not None:
                self.source.resume_reading()

    def stop_pump(self) -> None:
        """End it without a word: the connection is going to be reset, or is over."""
        if self.pump is not None:
            self.pump.stop()
            self.pump = None


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
