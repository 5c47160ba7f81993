"""Limits on what a peer can grow, and how long it may take: the `limits:` section of node.yaml."""

from __future__ import annotations

from dataclasses import dataclass, field

from l7proxy.schema import bounds


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes are bytes, times are seconds. Each worker applies them to its own connections.

    `connections_per_endpoint`: open connections counted for one endpoint, further ones are reset.
    `buffered_bytes`: what one connection may hold in each direction; beyond it nothing more is read from that side.
    `head_timeout`: from a request head's first byte to its last; for a large message that is held back, where others
    need the room. `idle_timeout`: between two requests, in a tunnel without traffic, and for an answer on which the
    next requests wait. `connect_timeout`: until the server has accepted. `grace`: what is in flight at a stop may take
    this long to finish.
    """

    connections_per_endpoint: int = field(default=10_000, metadata=bounds(1))
    buffered_bytes: int = field(default=262_144, metadata=bounds(4096, 1 << 30))
    head_timeout: float = field(default=10.0, metadata=bounds(0.1))
    idle_timeout: float = field(default=300.0, metadata=bounds(0.1))
    connect_timeout: float = field(default=5.0, metadata=bounds(0.1))
    grace: float = field(default=10.0, metadata=bounds(0))
