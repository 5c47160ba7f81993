"""What a worker remembers of Cassandra's servers, for all of its connections: prepared statements, materialized views,
and bytes held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from l7proxy.held import Newest, Pool, Server
from parsers.facts import UNKNOWN, CqlRequest

Name: TypeAlias = tuple[str | None, str | None]
"""Keyspace and table."""
_WRITES = frozenset({"insert", "update", "delete"})
_SERVERS = 1000
NEVER = -1e9
"""Long before any second of the connections' clock."""


class Reading(NamedTuple):
    """What a statement does. `kind`: see `l7proxy.ops.CqlStatement`. `unqualified`: it depends on the session's
    keyspace. `moves`: it may change that. `reason`: why it could not be read, or "". `heavy`: it has not to reach a
    server, whatever is allowed. `statement` is its text without literals, if it is to be
    logged: the text itself is not kept. `natives`: see `parsers.cql_statement.Statement`."""

    kind: str
    requests: tuple[CqlRequest, ...]
    unqualified: bool = False
    moves: bool = False
    reason: str = ""
    heavy: bool = False
    statement: str = ""
    natives: frozenset[Name] = frozenset()


def unknown(reason: str, *, heavy: bool) -> Reading:
    """One that could not be read: it may do anything."""
    return Reading(UNKNOWN, (CqlRequest(UNKNOWN),), True, True, reason, heavy)


@dataclass(slots=True, eq=False)
class Views:
    """The materialized views of a server, as it told at `asked` (seconds of the connections' clock), and the functions
    in its keyspaces that hide one of Cassandra's own."""

    asked: float = NEVER
    tables: dict[Name, CqlRequest] = field(default_factory=dict)
    """By view: SELECT of its table."""
    views: dict[Name, list[Name]] = field(default_factory=dict)
    """By table."""
    functions: set[Name] = field(default_factory=set)

    def add(self, keyspace: str, view: str, table: str) -> None:
        """One of them."""
        self.tables[keyspace, view] = CqlRequest("select", keyspace, table)
        self.views.setdefault((keyspace, table), []).append((keyspace, view))

    def behind(self, reading: Reading) -> tuple[CqlRequest, ...]:
        """What a statement does because of them, too: who reads a view reads its table, who writes to a table with
        views reads it and writes to them, and who calls a function by the name of one of Cassandra's own may call
        another. Cassandra asks for these permissions as well."""
        requests = reading.requests
        if hidden := self.functions & reading.natives:
            requests += tuple(CqlRequest("execute", keyspace) for keyspace, _ in hidden)
        if not self.tables:
            return tuple(dict.fromkeys(requests))
        return tuple(dict.fromkeys(one for request in requests for one in (request, *self._more(request))))

    def _more(self, request: CqlRequest) -> Iterable[CqlRequest]:
        name = request.keyspace, request.table
        if request.action == "select" and name in self.tables:
            yield self.tables[name]
        elif request.action in _WRITES and name in self.views:
            yield CqlRequest("select", *name)
            for keyspace, view in self.views[name]:
                yield CqlRequest(request.action, keyspace, view)


def _nobody(server: Server) -> None:
    """Has asked."""


class CassandraKnown(Pool):
    """One for each worker. `prepared` statements, whose texts come to `text` bytes at most; `views`: how many."""

    def __init__(self, prepared: int, text: int, views: int) -> None:
        super().__init__()
        self.prepared: Newest[Reading] = Newest(prepared, text)
        """By (server, id). An id is the hash of what it was made from, so nothing here is ever wrong."""
        self.views: Newest[Views] = Newest(_SERVERS, views + _SERVERS)
        """By server."""
        self.watchers: Counter[Server] = Counter()
        """Connections that are told of changes of the schema."""
        self.changes = 0
        """How often a server's views may have changed."""
        self.changed: Callable[[Server], None] = _nobody
        """Told of it then."""

    def outdated(self, server: Server) -> None:
        """What is known of its views may be wrong: each connection has to ask before its next statement."""
        self.changes += 1
        self.changed(server)
        if (found := self.views.get(server)) is not None:
            found.asked = NEVER
