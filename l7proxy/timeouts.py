"""Time and change, as connections meet them: time-outs, looked at once a second, and new policies."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from l7proxy.half import Half
from l7proxy.ops import FOREVER, Inject
from l7proxy.origin import Origin
from l7proxy.straight import look

if TYPE_CHECKING:
    from l7proxy.relay import Relay

_LINGER = 2.0
"""Seconds in which a client may still read our last words while what it sends is thrown away."""


def enforce(relay: Relay, now: float) -> None:
    """The time-outs of one connection."""
    limits, conversation, requests = relay.owner.limits, relay.conversation, relay.requests
    look(relay, now)
    if relay.progress.look(relay.half, now):
        relay.last = now
    idle = now - relay.last > limits.idle_timeout
    if relay.progress.stuck(now) > limits.idle_timeout:
        relay.abort()
    elif relay.lingering:
        if now - relay.lingering > _LINGER:
            relay.close_now()
    elif relay.head_since and now - relay.head_since > limits.head_timeout:
        relay.apply(conversation.head_timeout(now))
    elif late := conversation.late(now, limits):
        relay.apply(late)
    elif idle and conversation.idle:
        stop(relay)
    elif idle and requests.credit > FOREVER // 2:
        relay.close_now()
    elif idle and (requests.credit or requests.dropping or conversation.receiving or relay.responses.eof):
        relay.abort()  # The client owes the rest of a body, or room for the rest of an answer whose server has gone.


def stop(relay: Relay) -> None:
    """Graceful end: at once between messages if there is nothing to be said, else behind our last words, or behind the
    last response in flight."""
    if relay.lingering:
        return
    if relay.fast is not None:
        relay.fast.over()
    look(relay, monotonic())
    at_once = relay.conversation.idle
    ops = relay.conversation.draining(monotonic())
    if at_once and not any(isinstance(op, Inject) for op in ops):
        relay.close_now()
    else:
        relay.apply(ops)


def rejudge(relay: Relay, locate: Callable[[Origin], Origin | None]) -> None:
    """A new policy: other rules from the next message on; the end, if none, or another protocol's, hold for it."""
    if relay.fast is not None:
        relay.fast.shut()
    origin = locate(relay.origin)
    if origin is None or origin.judge is None or origin.judge.protocol not in (None, relay.conversation.protocol):
        relay.abort()
        return
    if relay.frames is not None and relay.frames.offers:
        relay.frames.offers = []
    relay.origin = origin
    relay.conversation.judge = origin.judge
    relay.records = relay.owner.records(origin)


class Progress:
    """How much the pumps have moved, and since when a peer has taken nothing of what waits for it."""

    __slots__ = ("_backlog", "_pumped", "_since")

    def __init__(self) -> None:
        self._pumped = 0
        self._backlog = (0, 0)
        self._since = 0.0

    def look(self, halves: tuple[Half, Half], now: float) -> bool:
        """Take notice of the present state. True if pumps have moved bytes, of which nobody else hears."""
        backlog = (halves[0].backlog(), halves[1].backlog())
        if backlog != self._backlog:
            self._backlog, self._since = backlog, now
        pumped = halves[0].pumped() + halves[1].pumped()
        changed, self._pumped = pumped != self._pumped, pumped
        return changed

    def stuck(self, now: float) -> float:
        """Seconds for which bytes have waited and no peer has taken any; 0 if none wait."""
        return now - self._since if any(self._backlog) else 0.0
