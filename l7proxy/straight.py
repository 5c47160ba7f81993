"""Straight from peer to peer, past this process: when a relay opens its bridge, and what has gone over it."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from l7proxy.ops import FOREVER, Carried

if TYPE_CHECKING:
    from l7proxy.half import Half
    from l7proxy.relay import Relay
    from sockmap.splice_lanes import Lane

log = logging.getLogger("l7proxy.worker")
_FREE, _SELDOM = 4, 8
"""Bridges opened in vain, one after another, until further ones are opened at every second, fourth ... reading only."""
_SOON, _LATER = 0.001, 0.05
"""Seconds between looks whether the target has read what went straight."""
_TCP_INFO = struct.Struct("=128xQ64xQQ")
"""struct tcp_info: tcpi_bytes_received, tcpi_bytes_sent, tcpi_bytes_retrans. What was spliced is in none of them."""


class Bridge(Protocol):
    """See `sockmap.splice_bridge.Bridge`."""

    def open(self, read: int, limit: int | None = None) -> None:
        """From `read` bytes of the sender on, until `carried` is `limit`."""

    def shut(self) -> None:
        """Nothing more goes straight."""

    def carried(self) -> int:
        """Bytes that have gone straight, in all."""

    def unread(self) -> int:
        """Of these, where they were counted, those that the target has not read yet."""

    def by_lane(self, lane: Lane) -> None:
        """From now on the lane says what goes straight."""

    def deciding(self) -> bool:
        """Whether the sender is in the middle of a send."""


class Straight:
    """One direction of a connection. `opened`: bytes may go straight that `news` has not told yet; `counted`: up to
    where others follow that are judged."""

    __slots__ = ("_bridge", "_by_stack", "_lane", "_skipped", "_vain", "carried", "counted", "opened")

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self.carried = 0
        self.counted = self.opened = False
        self._vain = self._skipped = 0
        self._by_stack = [0, 0]
        self._lane = False

    @property
    def in_vain(self) -> bool:
        """Nothing has gone straight for long: our sockets may be in the map no more."""
        return self._vain > _FREE

    def due(self) -> bool:
        """Whether to open it now. A sender that is always ahead of us gets seldom across, so it is not tried each
        time."""
        if self._skipped < (1 << min(self._vain - _FREE, _SELDOM) if self.in_vain else 0):
            self._skipped += 1
            return False
        self._skipped = 0
        return True

    def open(self, total: int, credit: int) -> None:
        """`total` bytes of the direction have gone, all that were read and known to have gone straight, and `credit`
        more may go by count."""
        self.counted, self._lane = credit <= FOREVER // 2, False
        try:
            self._bridge.open(total - self.carried, self.carried + credit if self.counted else None)
        except OSError as error:
            log.warning("what might go straight is copied: %s", error)
            return
        self.opened = True
        self._vain += 1

    def by_lane(self, lane: Lane) -> bool:
        """From now on the lane says what goes straight, and counts it. False: the table is full."""
        if not self._lane:
            try:
                self._bridge.by_lane(lane)
            except OSError as error:
                log.warning("what might go straight goes by the proxy: %s", error)
                return False
            self.counted = self._lane = True
        return True

    def deciding(self) -> bool:
        """Whether the sender is in the middle of a send of which it is not settled which way it goes."""
        return self._bridge.deciding()

    def news(self) -> int:
        """Bytes that have gone straight since the last call."""
        carried = self._bridge.carried()
        moved, self.carried = carried - self.carried, carried
        if moved:
            self._vain = 0
        return moved

    def unread(self) -> int:
        """Bytes that went straight and have to be read before others may follow."""
        return self._bridge.unread() if self.counted and self.carried else 0

    def over(self, source: asyncio.Transport | None, sink: asyncio.Transport | None, end: bool) -> None:
        """Nothing more goes straight. Those of our sockets that are there are asked what the stack has carried; `end`:
        FIN has come, which counts as a byte there."""
        if self.opened or self._lane:
            self._bridge.shut()
        if source is not None and (info := _tcp_info(source)):
            self._by_stack[0] = info[0] - end
        if sink is not None and (info := _tcp_info(sink)):
            self._by_stack[1] = info[1] - info[2]

    def summary(self, total: int) -> Carried:
        """Once it is over. `total`: all bytes of the direction."""
        relayed = total - self.carried
        return Carried(self.carried, relayed, *(min(one, relayed) for one in self._by_stack))


def _tcp_info(transport: asyncio.Transport) -> tuple[int, int, int] | None:
    """None if the kernel does not say, or the socket is closed."""
    try:
        info = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        received, sent, again = _TCP_INFO.unpack_from(info)
    except (OSError, struct.error):
        return None
    return received, sent, again


def waits(relay: Relay, half: Half, data: bytes, wait: float = _SOON) -> bool:
    """Bytes have come to the relay behind others that went straight: take notice of those. True if they wait, and are
    put to the relay later: another thread of the sender may be on its way there still, with a body's last bytes, and
    what follows would come before them."""
    half.look()
    straight = half.straight
    if straight is None or relay.lingering or not straight.unread():
        if straight is not None:
            straight.opened = False
        return False
    if not half.held:
        half.hold(True)
    relay.owner.loop.call_later(wait, _again, relay, half, data, min(2 * wait, _LATER))
    return True


def _again(relay: Relay, half: Half, data: bytes, wait: float) -> None:
    if relay.lingering or half.source is None:
        return
    try:
        if not waits(relay, half, data, wait):
            half.hold(False)
            relay.more(half, data, monotonic())
    except Exception as error:
        relay.failed(error)


def look(relay: Relay, now: float) -> None:
    """Take notice of what has gone straight: it is progress, and may have been the rest of a body."""
    for half in relay.half:
        if half.look():
            relay.last = now
            if not (half.credit or half.held or relay.lingering):
                relay.put(half, now)
                half.busy = True  # what comes next has to ask `waits`
