"""What conversations hold back or remember, always with a bound."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from l7proxy.http1_exchange import Judge
from l7proxy.ops import Direction, Drop, Inject, Pass
from l7proxy.output import Output

Server: TypeAlias = tuple[str, int]
"""Address and port. What one server says is believed of that server alone."""
Kept = TypeVar("Kept")
SMALL = 65_536
"""Bytes of a message that may be held in any case."""
HELD_LONG = "it was held for long, and the worker's connections hold more than half of max_held_together"
"""Why a connection ends whose messages others have no room for."""
_CACHED = 4096
"""Things that one judge remembers."""


class Newest(Generic[Kept]):
    """A table of at most `size` entries, which together weigh at most `weight`. The longest unused is forgotten
    first."""

    def __init__(self, size: int, weight: int) -> None:
        self._size, self._weight = size, weight
        self._entries: OrderedDict[Hashable, tuple[Kept, int]] = OrderedDict()
        self.weight = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> Kept | None:
        """An entry, which is now the last to be forgotten."""
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: Hashable, value: Kept, weight: int) -> None:
        """Add or replace one."""
        self.drop(key)
        self._entries[key] = value, weight
        self.weight += weight
        while len(self._entries) > self._size or self.weight > self._weight:
            _, (_, lost) = self._entries.popitem(last=False)
            self.weight -= lost

    def drop(self, key: Hashable) -> None:
        """Forget one, if it is there."""
        found = self._entries.pop(key, None)
        if found is not None:
            self.weight -= found[1]


class Pool:
    """`held`: bytes that the connections of a worker hold back, of one protocol."""

    def __init__(self) -> None:
        self.held = 0

    def wants(self, most: int, before: float, held: Iterable[Holds | None]) -> bool:
        """Whether something of `held` has to go: it is not small, began to be held before that time, and all
        connections hold more than half of `most`."""
        return 2 * self.held > most and any(one and one.have > SMALL and one.since < before for one in held)


class Holds(Protocol):
    """Something of which `have` bytes are held `since` then, in seconds of the connections' clock."""

    have: int
    since: float


class Gather:
    """A frame that comes in pieces and is held, from `since` on, until it is whole."""

    __slots__ = ("_data", "_pool", "have", "since", "size")

    def __init__(self, size: int, pool: Pool, since: float) -> None:
        self.size, self.have, self.since = size, 0, since
        self._data: bytearray | bytes = bytearray()
        self._pool = pool

    @property
    def whole(self) -> bool:
        """Everything is there."""
        return self.have == self.size

    def exceeds(self, available: int, most: int) -> bool:
        """Whether with what belongs to it of so many bytes more than `most` would be held of all connections. (To be
        asked before they are taken: where nothing is enforced, all goes on as it came.)"""
        return self._pool.held + min(available, self.size - self.have) > most

    def take(self, data: bytes, position: int) -> int:
        """Keep what belongs to it of `data` from `position` on; how many bytes that is."""
        part = data[position : position + self.size - self.have]
        self._data += part
        self.have += len(part)
        self._pool.held += len(part)
        return len(part)

    def peek(self) -> bytes:
        """What is there."""
        self._data = bytes(self._data)
        return self._data

    def release(self) -> bytes:
        """What is there, for the last time."""
        found = self.peek()
        self._pool.held -= self.have
        self._data, self.have = b"", 0
        return found


class Frame:
    """One whole frame: `data` from `start` (its length) to `stop`. `taken`: its bytes are ours already."""

    __slots__ = ("data", "start", "stop", "taken")

    def __init__(self, data: bytes, start: int, stop: int, taken: bool) -> None:
        self.data, self.start, self.stop, self.taken = data, start, stop, taken

    def goes(self, output: Output, direction: Direction = Direction.REQUEST) -> None:
        """On, as it is."""
        if self.taken:
            output.add(Inject(direction, self.data))
        else:
            output.take(Pass, self.stop - self.start)

    def ends(self, output: Output) -> None:
        """Here."""
        if not self.taken:
            output.take(Drop, self.stop - self.start)


def remember(judge: Judge, key: Hashable, found: Any) -> None:
    """Keep it until there are many."""
    if len(judge.calls) >= _CACHED:
        judge.calls.clear()
    judge.calls[key] = found
