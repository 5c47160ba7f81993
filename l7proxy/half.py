"""One direction of a relayed connection, and the callbacks of the socket it is read from."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol, cast

from l7proxy.ops import Carried, Direction
from l7proxy.owner import Owner
from l7proxy.pump import Pump
from l7proxy.straight import Straight

log = logging.getLogger("l7proxy.worker")
PUMP_FROM = 512 << 10
"""Bytes still to go by count from which on `splice` moves them: below, its own system calls cost more."""


class Carrier(Protocol):
    """What the callbacks tell: see `Relay`."""

    def connected(self, transport: asyncio.Transport) -> None:
        """The server's socket is ready."""

    def arrived(self, half: Half, data: bytes) -> None:
        """Bytes were read."""

    def ended(self, half: Half) -> None:
        """FIN was read."""

    def choke(self, half: Half, choked: bool) -> None:
        """The sink of a direction is full, or has room again."""

    def lost(self, half: Half, error: Exception | None) -> None:
        """The socket is closed; with an error if it was reset."""


class Half:
    """One direction: bytes waiting for a verdict, and how many more may go (or must be dropped) by count."""

    __slots__ = (
        "busy",
        "choked",
        "credit",
        "direction",
        "dropping",
        "eof",
        "finished",
        "held",
        "need",
        "other",
        "paused",
        "pending",
        "pump",
        "sink",
        "source",
        "spliceable",
        "straight",
        "total",
        "waiting",
    )

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self.other: Half = self
        """The direction that comes back; set by whoever has both."""
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None
        self.pump: Pump | None = None
        self.straight: Straight | None = None
        self.held = False
        """Bytes that were read wait until the sink's peer has read what went straight."""
        self.pending: bytes = b""
        self.credit = self.dropping = self.need = self.total = 0
        self.waiting = self.eof = self.finished = self.paused = self.choked = False
        self.spliceable = True
        """False: a pump has found out that it moves nothing here."""
        self.busy = False
        """Bytes wait, or go by count: what comes now is not the first that the conversation hears of."""

    def start_pump(self, owner: Owner, done: Callable[[Half, OSError | None], None]) -> None:
        """Let the kernel move what may go by count, if both sockets are there and nothing is queued between them:
        straight from peer to peer where their sockets are in its map, else by `splice`; then `done` is called when that
        is over."""
        source, sink = self.source, self.sink
        if self.pump or self.paused or self.eof or self.credit < PUMP_FROM or source is None or sink is None:
            return
        if self.held or source.is_closing() or sink.is_closing() or sink.get_write_buffer_size():
            return
        straight = self.straight
        if straight is not None and (straight.opened or not straight.due()):
            return
        if straight is None or straight.in_vain:
            descriptors = [t.get_extra_info("socket").fileno() for t in (source, sink)]
            if not owner.spliced(descriptors[0]):
                if self.spliceable:
                    self._pump(source, descriptors, owner.limits.buffered_bytes, done)
                return
            bridge = owner.bridge(*descriptors) if straight is None else None
            straight = self.straight = Straight(bridge) if bridge is not None else straight
        if straight is not None:
            straight.open(self.total, self.credit)

    def _pump(
        self,
        source: asyncio.Transport,
        descriptors: list[int],
        buffer: int,
        done: Callable[[Half, OSError | None], None],
    ) -> None:
        def over(moved: int, error: OSError | None) -> None:
            self.spliceable = self.pump is None or not self.pump.useless
            self.pump = None
            self.credit -= moved
            self.total += moved
            if error is None and self.source is not None and not self.source.is_closing():
                self.source.resume_reading()
            done(self, error)

        try:
            self.pump = Pump(descriptors[0], descriptors[1], self.credit, buffer, over)
        except OSError as error:
            log.warning("no pipe for a large body, it is copied: %s", error)
            return
        source.pause_reading()

    def look(self) -> int:
        """Take notice of what has gone straight meanwhile; how many bytes that was."""
        moved = self.straight.news() if self.straight is not None and self.straight.opened else 0
        self.credit -= min(moved, self.credit)
        self.total += moved
        return moved

    def hold(self, held: bool) -> None:
        """Read no more while bytes that were read wait; then read on."""
        self.held = held
        if not self.paused and self.source is not None:
            if held:
                self.source.pause_reading()
            elif not self.source.is_closing():
                self.source.resume_reading()

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

    def carried(self) -> Carried:
        """How all bytes of this direction went, once it is over."""
        return self.straight.summary(self.total) if self.straight is not None else Carried(0, self.total, 0, 0)

    def backlog(self) -> int:
        """Not 0 while the sink does not take what waits for it, and another number whenever it took some."""
        if self.pump is not None:
            return self.pump.backlog()
        if self.held and self.straight is not None:
            back = self.other.straight  # what the fast path waits for, too
            return self.straight.unread() + (back.unread() if back is not None else 0)
        return self.sink.get_write_buffer_size() if self.sink is not None else 0

    def pause(self, wanted: bool) -> None:
        """Read no more of the source, or read on."""
        if wanted != self.paused and self.pump is None and not self.held and self.source is not None and not self.eof:
            self.paused = wanted
            if wanted:
                self.source.pause_reading()
            else:
                self.source.resume_reading()

    def drop_pump(self) -> None:
        """End it, and read on: what comes now is thrown away."""
        pumping = self.pump is not None
        self.stop_pump()
        if pumping and self.source is not None:
            self.source.resume_reading()
        if self.held:
            self.hold(False)

    def stop_pump(self) -> None:
        """End it without a word: the connection is going to be reset, or is over."""
        if self.straight is not None:
            self.straight.over(self.source, self.sink, self.eof)
            self.look()
        if self.pump is not None:
            self.pump.stop()
            self.pump = None


class Side(asyncio.Protocol):
    """The callbacks of one socket; `half` is the direction of the bytes read from it."""

    __slots__ = ("half", "relay")

    def __init__(self, relay: Carrier, half: Half) -> None:
        self.relay, self.half = relay, half

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.relay.connected(cast(asyncio.Transport, transport))

    def data_received(self, data: bytes) -> None:
        self.relay.arrived(self.half, data)

    def eof_received(self) -> bool:
        self.relay.ended(self.half)
        return True

    def pause_writing(self) -> None:
        self.relay.choke(self.half.other, True)

    def resume_writing(self) -> None:
        self.relay.choke(self.half.other, False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.relay.lost(self.half, exc)
