"""What a conversation tells the relay to do: operations with byte counts, consumed in order.

`receive(direction, data, end, now)` is given *all* bytes of that direction that no operation has consumed yet, and
answers with a list of operations. Each `Pass` or `Drop` consumes its size from the front of that direction's
bytes. A size may exceed what has arrived: the rest goes by count when it comes, without asking again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from parsers.facts import CqlRequest
from policies.verdict import L7Decision, Verdict


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


@dataclass(slots=True, eq=False)
class Request:
    """What a flow record says of a request of HTTP, whatever its answer. Requests of the same bytes may share one."""

    decision: L7Decision
    method: str = ""
    url: str = ""
    protocol: str = "HTTP/1.1"
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()


class Grpc(NamedTuple):
    """What a flow record says of a gRPC call: its full service name and its method, the `status` that ended it (-1:
    none came), and how many messages went each way."""

    service: str
    method: str
    status: int
    requests: int
    responses: int


@dataclass(slots=True, eq=False)
class KafkaRequest:
    """What a flow record says of a request of Kafka. Requests that ask for the same may share one.

    `decision` is the one that counts for the whole: a refusal, if anything was refused. `topics` are names and what
    became of each; `more_topics`: how many more there were. `topics` may hold an id's hexadecimal digits where no name
    is known.
    """

    decision: L7Decision
    api: str = ""
    version: int = 0
    client_id: str = ""
    topics: tuple[tuple[str, Verdict], ...] = ()
    more_topics: int = 0
    groups: tuple[str, ...] = ()
    transactional_ids: tuple[str, ...] = ()
    protocol: str = "Kafka"


class KafkaCall:
    """What tells one request of Kafka from another that asks for the same. `answered`: by the server."""

    __slots__ = ("answered", "correlation_id")

    def __init__(self, correlation_id: int, answered: bool) -> None:
        self.correlation_id, self.answered = correlation_id, answered


@dataclass(slots=True, eq=False)
class CqlStatement:
    """What a flow record says of a request of CQL. Requests that ask for the same may share one.

    `decision` is the one that counts for the whole. `opcode` is the protocol's name of the request (QUERY, PREPARE,
    EXECUTE, BATCH, ...; "": it could not be read), `kind` what the statement is: one of `parsers.facts.ACTIONS`, or
    ``batch``. `actions` are what it does, and what becomes of each; `more_actions`: how many more there were.
    `prepared`: it was, or parts of it were. `statement` is its text without any literal, if it is to be logged.
    """

    decision: L7Decision
    opcode: str = ""
    kind: str = ""
    actions: tuple[tuple[CqlRequest, Verdict], ...] = ()
    more_actions: int = 0
    prepared: bool = False
    statement: str = ""
    protocol: str = "Cassandra"


class CqlCall:
    """What tells one request of CQL from another that asks for the same. `consistency` is its number (-1: it has none);
    `answered`: by the server."""

    __slots__ = ("answered", "consistency", "stream")

    def __init__(self, stream: int, consistency: int, answered: bool) -> None:
        self.stream, self.consistency, self.answered = stream, consistency, answered


class Record:
    """A request has ended, or was refused: write its flow record.

    `started` and `ended` are in seconds of the clock that `receive` was given; `code` is the response's status
    (HTTP, 0: the connection ended before one came) or error code (Kafka, 0: none, or it was not read; CQL, likewise
    -1). `call` is what this protocol adds for a single exchange.
    """

    __slots__ = ("call", "code", "ended", "request", "started")

    def __init__(
        self,
        request: Request | KafkaRequest | CqlStatement,
        code: int,
        started: float,
        ended: float,
        call: Grpc | KafkaCall | CqlCall | None = None,
    ) -> None:
        self.request, self.code, self.started, self.ended, self.call = request, code, started, ended, call


class Carried(NamedTuple):
    """How the bytes of one direction of a connection went: past the proxy, `straight`, or `relayed` by it; and of
    those, how many the TCP stack brought to it, and took on. The rest of the relayed ones was spliced on that hop."""

    straight: int
    relayed: int
    by_stack_in: int
    by_stack_out: int


Op: TypeAlias = Pass | Drop | Inject | Need | Wait | Close | Abort | Record
