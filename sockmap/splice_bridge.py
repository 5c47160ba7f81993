"""Bridges: straight from a sender to the far end of a relayed connection (sockmap/bpf/splice_bridge.h), as the relay
between them opens and shuts them.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from typing import TypeAlias

from sockmap.bpfmap import BpfMap
from sockmap.splice_lanes import Lane
from sockmap.splice_tables import MAPS, deciding, straight_of

_SO_COOKIE = 57
_BRIDGE = struct.Struct("=QI4xQIIQI4x")
PLACE = struct.Struct("=QI4x")
Place: TypeAlias = tuple[int, int]
"""A socket in the map of sockets: its pair and its side."""
_MEMBER = struct.Struct("=QII")
BRIDGES = {"enrolled": (8, _MEMBER.size), "bridges": (PLACE.size, _BRIDGE.size)}
"""The sizes of their keys and values."""
BRIDGE_MAPS = (*BRIDGES, "pairs")
"""The maps that `Bridges` is made of."""


class Bridges:
    """The sockets of a relay in the map of sockets, by descriptors of maps (BRIDGE_MAPS) that stay the caller's."""

    def __init__(self, fds: Mapping[str, int]) -> None:
        self.maps = {name: BpfMap(fds[name], *(BRIDGES | MAPS)[name]) for name in BRIDGE_MAPS}

    def holds(self, descriptor: int) -> bool:
        """Whether this TCP socket is in the map of sockets: that is settled when it is established."""
        return self._place(descriptor) is not None

    def between(self, source: int, sink: int) -> Bridge | None:
        """For what is read of one TCP socket and written to another: from the first one's peer to the other's. None if
        one of the two is not in the map of sockets."""
        near, far = self._place(source), self._place(sink)
        return Bridge(self.maps, _peer(near), _peer(far)) if near and far else None

    def _place(self, descriptor: int) -> Place | None:
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            cookie = sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8)
        value = self.maps["enrolled"].lookup(cookie)
        if value is None:
            return None
        pair, _, side = _MEMBER.unpack(value)
        return int(pair), int(side)


def _peer(place: Place) -> Place:
    return place[0], 1 - place[1]


class Bridge:
    """One direction of a relayed connection. The relay opens it when it has written all that it has read, and has
    nothing to write before it reads again; what comes to it all the same shuts it."""

    def __init__(self, maps: Mapping[str, BpfMap], sender: Place, target: Place) -> None:
        self._maps, self._sender, self._target = maps, PLACE.pack(*sender), target
        self._pair = struct.pack("=Q", target[0])
        self._side = sender[1]
        self._carried = 0

    def open(self, read: int, limit: int | None = None) -> None:
        """`read`: bytes of the sender that have come to the relay, in all. `limit`: what `carried` may come to, None
        for any number. Raises OSError if the table is full."""
        self._maps["bridges"].update(self._sender, _BRIDGE.pack(*self._target, limit or 0, read & 0xFFFFFFFF, 0, 0, 0))

    def by_lane(self, lane: Lane) -> None:
        """From now on the lane says what goes straight, until `open` or `shut`. Raises OSError."""
        self._maps["bridges"].update(self._sender, _BRIDGE.pack(*self._target, 0, 0, lane.index + 1, lane.nonce, 0))

    def deciding(self) -> bool:
        """Whether the sender is in the middle of a send of which it is not settled yet which way it goes."""
        value = self._maps["pairs"].lookup(self._sender[:8])
        return value is not None and deciding(value, self._side)

    def shut(self) -> None:
        """From the sender's next send on nothing goes straight."""
        self._maps["bridges"].delete(self._sender)

    def carried(self) -> int:
        """Bytes that have gone straight in this direction, in all; what was last heard if the target's pair is gone.
        With bytes of the sender at hand that have come to the relay, or its end, these are all that go before them."""
        if (value := self._maps["pairs"].lookup(self._pair)) is not None:
            self._carried = straight_of(value, self._target[1])[0]
        return self._carried

    def unread(self) -> int:
        """Of what went straight and was counted (`limit`), how much the target has not read yet; 0 if it is gone."""
        value = self._maps["pairs"].lookup(self._pair)
        if value is None:
            return 0
        bytes_, expected, taken = straight_of(value, self._target[1])
        left = (expected - taken) & 0xFFFFFFFF if bytes_ else 0
        return left if left < 1 << 31 else 0
