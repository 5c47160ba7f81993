"""The facts of a request: what a policy may ask about, frozen, and free of any socket or buffer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


class HttpRequest:
    """One HTTP request as a policy sees it.

    ``path`` is the target in its RFC 3986 normal form *with* the query string (Cilium's ``:path``), ``host`` the
    authority as sent, port included (``:authority``); both may be empty. ``headers`` are (lower-case name, value)
    pairs in the order they came, decoded as latin-1, made only when somebody asks: most rules never do.
    """

    __slots__ = ("_headers", "_source", "host", "method", "path", "protocol", "target")

    def __init__(
        self,
        method: str,
        path: str,
        host: str,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        header_source: Callable[[], tuple[tuple[str, str], ...]] | None = None,
        target: str | None = None,
        protocol: str = "HTTP/1.1",
    ) -> None:
        self.method = method
        self.path = path
        self.host = host
        self.target = path if target is None else target
        self.protocol = protocol
        self._headers = headers
        self._source = header_source

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """All header fields, (lower-case name, value), in order."""
        if self._source is not None:
            self._headers, self._source = self._source(), None
        return self._headers

    def __repr__(self) -> str:
        return f"HttpRequest({self.method!r}, {self.path!r}, {self.host!r})"


@dataclass(frozen=True, slots=True)
class KafkaRequest:
    """One thing that a Kafka request asks for: a request that names three topics is three of these.

    `api` is the API's key, `version` its version, `client_id` as sent ("" if null). Of `topic`, `group` and
    `transactional_id` those are set that the request names together; None: it names none. `every_topic`: it asks for
    all topics there are (Metadata without a list); each one is judged in the answer.
    """

    api: int
    version: int
    client_id: str = ""
    topic: str | None = None
    group: str | None = None
    transactional_id: str | None = None
    every_topic: bool = False


_ACTIONS = {
    "": "select insert update delete truncate use describe execute",
    "create-": "keyspace table index materialized-view type function aggregate trigger role user",
    "alter-": "keyspace table materialized-view type role user",
    "drop-": "keyspace table index materialized-view type function aggregate trigger role user identity",
    "list-": "roles users permissions",
    "grant-": "permission role",
    "revoke-": "permission role",
    "add-": "identity",
}
UNKNOWN = "unknown"
ACTIONS = (*(verb + word for verb, words in _ACTIONS.items() for word in words.split()), UNKNOWN)
"""What a CQL statement may do, after the statements of Cassandra 5.0. ``execute``: a function that a statement calls,
where Cassandra asks for EXECUTE. `UNKNOWN`: a statement that could not be read."""


@dataclass(frozen=True, slots=True)
class CqlRequest:
    """One thing that a CQL statement does: a statement that reads one table and writes another is two of these.

    `action` is one of `ACTIONS`. `keyspace` and `table` are as Cassandra has them, folded to lower case unless they
    were quoted; None: it names none. A function, type, aggregate or index that is named by itself is no table.
    """

    action: str
    keyspace: str | None = None
    table: str | None = None


Request: TypeAlias = HttpRequest | KafkaRequest | CqlRequest
"""What rules are asked about."""
