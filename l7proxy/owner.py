"""What a relay needs of the worker that owns it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from l7proxy.limits import Limits
from l7proxy.ops import Record

if TYPE_CHECKING:
    from l7proxy.relay import Relay


class Owner(Protocol):
    """The worker, as its relays see it. `mark` is that of the proxy's own packets."""

    limits: Limits
    mark: int
    refuse_with_503: bool
    loop: asyncio.AbstractEventLoop

    def record(self, relay: Relay, record: Record) -> None:
        """A request has ended: log and count it."""

    def upstream_failed(self, relay: Relay, reason: str) -> None:
        """The server could not be reached: count it."""

    def closed(self, relay: Relay) -> None:
        """Both sockets are gone."""
