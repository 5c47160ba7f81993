"""What a relay needs of the worker that owns it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from l7proxy.limits import Limits
from l7proxy.offers import Offer
from l7proxy.origin import Origin
from l7proxy.recorder import ConnectionRecords
from l7proxy.straight import Bridge

if TYPE_CHECKING:
    from l7proxy.relay import Relay


class Owner(Protocol):
    """The worker, as its relays see it. `mark` is that of the proxy's own packets."""

    limits: Limits
    mark: int
    refuse_with_503: bool
    loop: asyncio.AbstractEventLoop

    def records(self, origin: Origin) -> ConnectionRecords:
        """What logs and counts the requests of a connection."""

    def upstream_failed(self, relay: Relay, reason: str) -> None:
        """The server could not be reached: count it."""

    def spliced(self, descriptor: int) -> bool:
        """Whether a socket's bytes may come past the stack, where `splice` does not see them."""

    def bridge(self, source: int, sink: int) -> Bridge | None:
        """For what is read of one socket and written to another; None if the kernel cannot."""

    def hasten(self, relay: Relay) -> None:
        """Its conversation has made offers: give it a fast path, if there is one."""

    def know(self, group: int, offer: Offer, number: int) -> None:
        """Give an offer to the programs, as the entry of this number in its group."""

    def closed(self, relay: Relay) -> None:
        """Both sockets are gone."""
