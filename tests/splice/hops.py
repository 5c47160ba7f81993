"""A small relay between two spliced connections, with raw sockets, that opens bridges past itself."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from sockmap.cgroups import cgroup_id
from sockmap.selfbench import Bench
from sockmap.splice import Scope, Splicer
from sockmap.splice_bridge import Bridge, Bridges
from tests.splice.bench import home


def splice(splicer: Splicer, budget: int = 1 << 20) -> None:
    """All is spliced, as around a relay in this cgroup."""
    splicer.start(Scope(learn=False, budget=budget, around=cgroup_id(home(splicer))))


@dataclass
class Direction:
    """From `source`, the relay's socket that is read, to `sink`."""

    source: socket.socket
    sink: socket.socket
    bridge: Bridge
    read: int = 0
    seen: list[bytes] = field(default_factory=list)
    """What has come to the relay."""
    end: bool = False

    def turn(self, room: int | None = None, *, opens: bool = True, most: int = 65536) -> bytes:
        """Read and write what is there, and open the bridge behind it; what was read."""
        data = b""
        with suppress(BlockingIOError, TimeoutError):
            data = self.source.recv(most, socket.MSG_DONTWAIT)
            if not data:
                self.end = True
                self.bridge.carried()  # the pair, with its count, goes once both its ends are shut
                self.sink.shutdown(socket.SHUT_WR)
        if data:
            self.read += len(data)
            self.seen.append(data)
            self.sink.sendall(data)
            if opens:
                self.open(room)
        return data

    def open(self, room: int | None = None) -> None:
        """Nothing is in the relay's hands."""
        self.bridge.open(self.read, None if room is None else self.bridge.carried() + room)


@dataclass
class Hops:
    """client -> (front | back) -> server, and the relay's two directions."""

    client: socket.socket
    front: socket.socket
    back: socket.socket
    server: socket.socket
    there: Direction
    again: Direction
    bridges: Bridges

    def turn(self) -> None:
        """Once each way, where bytes are there."""
        ready, _, _ = select.select([self.front, self.back], [], [], 0)
        for direction in (self.there, self.again):
            if direction.source in ready and not direction.end:
                direction.turn()


@contextmanager
def hops(bench: Bench, budget: int = 1 << 20) -> Iterator[Hops]:
    """Both connections, none of their bridges open."""
    splice(bench.splicer, budget)
    client, front = bench.connect(bench.listen())
    back, server = bench.connect(bench.listen())
    bridges = Bridges(bench.splicer.bridge_fds())
    there = bridges.between(front.fileno(), back.fileno())
    again = bridges.between(back.fileno(), front.fileno())
    assert there is not None and again is not None
    yield Hops(client, front, back, server, Direction(front, back, there), Direction(back, front, again), bridges)
