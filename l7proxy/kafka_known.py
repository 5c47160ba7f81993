"""What a worker remembers of Kafka's servers, for all of its connections: topic ids, fetch sessions, and bytes held."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

Server: TypeAlias = tuple[str, int]
"""Address and port. What one server says is believed of that server alone."""
Kept = TypeVar("Kept")
_SESSIONS = 64 << 20
"""Bytes for all fetch sessions of a worker, about."""


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


@dataclass(slots=True, eq=False)
class Session:
    """A fetch session at a server: the number of the identity that opened it, and the topics it may hold. `refused`:
    topics that its client believes to be in it. `allowed`: who was last allowed all of its topics, and the outcome."""

    owner: int
    topics: set[str]
    refused: frozenset[str] = frozenset()
    allowed: tuple[Hashable, Any] | None = field(default=None, repr=False)

    @property
    def weight(self) -> int:
        """Bytes that it needs, about."""
        return 500 + sum(100 + len(name) for name in (*self.topics, *self.refused))


class KafkaKnown:
    """One for each worker. `held`: bytes that its connections hold back."""

    def __init__(self, topics: int, sessions: int) -> None:
        self.topics: Newest[str] = Newest(topics, topics)
        """Names by (server, topic id). An id is never given again, so nothing here is ever wrong."""
        self.sessions: Newest[Session] = Newest(sessions, _SESSIONS)
        """By (server, number), or (server, group, member) of share groups."""
        self.held = 0


class Gather:
    """A frame that comes in pieces and is held until it is whole."""

    __slots__ = ("_known", "_parts", "have", "size")

    def __init__(self, size: int, known: KafkaKnown) -> None:
        self.size, self.have = size, 0
        self._parts: list[bytes] = []
        self._known = known

    @property
    def whole(self) -> bool:
        """Everything is there."""
        return self.have == self.size

    def take(self, data: bytes, position: int) -> int:
        """Keep what belongs to it of `data` from `position` on; how many bytes that is."""
        part = data[position : position + self.size - self.have]
        self._parts.append(part)
        self.have += len(part)
        self._known.held += len(part)
        return len(part)

    def peek(self) -> bytes:
        """What is there."""
        if len(self._parts) > 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0] if self._parts else b""

    def release(self) -> bytes:
        """What is there, for the last time."""
        found = self.peek()
        self._known.held -= self.have
        self._parts, self.have = [], 0
        return found
