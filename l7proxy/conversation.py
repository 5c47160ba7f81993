"""What the relay asks of a protocol: one object per connection that turns bytes into operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from l7proxy.http1_exchange import Judge
from l7proxy.limits import Limits
from l7proxy.ops import Direction, Op
from policies.model import L7Protocol


class Conversation(Protocol):
    """One connection's two directions: what was asked, what is still due, and in which order. It does no I/O."""

    judge: Judge
    """The rules in force; replaced when the policy changes, and used from the next message on."""

    @property
    def protocol(self) -> L7Protocol:
        """What it takes the bytes for. Rules for another protocol cannot replace its judge."""

    @property
    def idle(self) -> bool:
        """True between messages: nothing in flight, nothing half read."""

    @property
    def head_pending(self) -> bool:
        """True while bytes wait here of a request whose head is not complete."""

    @property
    def receiving(self) -> bool:
        """True while the client owes the rest of a request whose head was passed or refused."""

    def receive(self, direction: Direction, data: bytes, end: bool, now: float) -> Sequence[Op]:
        """All bytes of `direction` that no operation has consumed yet; `end`: FIN stands behind them.

        Called again with what is left, perhaps nothing, when bytes passed or dropped by count have all come.
        """

    def upstream_failed(self, reason: str, now: float) -> Sequence[Op]:
        """The server cannot be reached: word that for every request that was passed, and close."""

    def head_timeout(self, now: float) -> Sequence[Op]:
        """The head that has begun did not come in time: answer so, and close."""

    def late(self, now: float, limits: Limits) -> Sequence[Op]:
        """Asked once a second: end what has been held back, or waited for, too long."""

    def draining(self, now: float) -> Sequence[Op]:
        """The program is asked to end, or nothing has moved for long: close behind the last response in flight."""

    def finish(self, now: float) -> Sequence[Op]:
        """The connection is over: records for what is unanswered."""
