"""What a conversation tells the relay to do: operations with byte counts, consumed in order.

`receive(direction, data, end, now)` is given *all* bytes of that direction that no operation has consumed yet, and
answers with a list of operations. Each `Pass` or `Drop` consumes its size from the front of that direction's
bytes. A size may exceed what has arrived: the rest goes by count when it comes, without asking again.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, TypeAlias

from policies.verdict import L7Decision


class Direction(IntEnum):
    """The way bytes travel: from the client to the server, or back."""

    REQUEST = 0
    RESPONSE = 1


FOREVER = 1 << 62
"""A byte count that no connection reaches: everything from here on (a tunnel)."""


class Pass(NamedTuple):
    """Send the next `size` bytes of the direction on, unchanged."""

    size: int


class Drop(NamedTuple):
    """Swallow the next `size` bytes of the direction."""

    size: int


class Inject(NamedTuple):
    """Send bytes of our own in a direction (RESPONSE: to the client)."""

    direction: Direction
    data: bytes


class Need(NamedTuple):
    """Nothing to do before at least `size` more bytes of this direction came."""

    size: int


class Wait(NamedTuple):
    """Nothing more of this direction until the other direction has moved on (ask again after it did)."""


class Close(NamedTuple):
    """Nothing more will be read from the client; flush what was injected, then close both sides (FIN)."""

    reason: str


class Abort(NamedTuple):
    """The connection cannot go on: reset both sides at once. `reason` goes to the log."""

    reason: str


class Record(NamedTuple):
    """A request has ended, or was refused: write its flow record.

    `started` and `ended` are in seconds of the clock that `receive` was given; `code` is the response's status
    (0: the connection ended before one came).
    """

    decision: L7Decision
    method: str
    url: str
    protocol: str
    host: str
    headers: tuple[tuple[str, str], ...]
    code: int
    started: float
    ended: float


Op: TypeAlias = Pass | Drop | Inject | Need | Wait | Close | Abort | Record
