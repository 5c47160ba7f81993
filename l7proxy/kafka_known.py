"""What a worker remembers of Kafka's servers, for all of its connections: topic ids, fetch sessions, and bytes held."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from l7proxy.held import Newest, Pool

_SESSIONS = 64 << 20
"""Bytes for all fetch sessions of a worker, about."""


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


class KafkaKnown(Pool):
    """One for each worker."""

    def __init__(self, topics: int, sessions: int) -> None:
        super().__init__()
        self.topics: Newest[str] = Newest(topics, topics)
        """Names by (server, topic id). An id is never given again, so nothing here is ever wrong."""
        self.sessions: Newest[Session] = Newest(sessions, _SESSIONS)
        """By (server, number), or (server, group, member) of share groups."""
