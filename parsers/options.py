"""What is refused of a protocol, and how much is read: the sections `http:`, `kafka:`, `cassandra:` of node.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


def _bounds(low: int, high: int) -> Mapping[str, int]:
    return {"low": low, "high": high}


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """One switch for each relaxation, off by default; one for each legal thing that some servers misread; limits.

    Relaxations, each for targets that servers resolve in different ways (see `parsers.uri`):
    `allow_dot_segments`: ``/a/../b``, judged as ``/b``. `merge_slashes`: ``/a//b``, judged as ``/a/b``.
    `allow_encoded_slash`: ``%2F``, judged as it stands. `allow_backslash`: ``\\`` and ``%5C``, judged as they stand.
    `allow_encoded_controls`: ``%00`` to ``%1F`` and ``%7F``. `allow_double_encoding`: ``%25`` before two hex digits.
    `allow_bad_escapes`: ``%`` without two hex digits. `allow_non_ascii_path`: bytes from 0x80 up, as they are, in path
    or query. `allow_non_utf8_path`: escapes that are not UTF-8.

    Refusals of what is legal: `refuse_get_body`: a body on GET or HEAD. `refuse_trailers`: fields behind a chunked
    request body. `refuse_early_answer`: once the server has answered finally, the rest of the request's body is not
    passed on, and the connection ends behind that answer.

    Limits, in bytes if nothing else is said: `max_head` of a request or response, `max_headers` fields in it,
    `max_chunk_line` with its extensions, `max_trailers` together, `max_pipeline` requests that wait for answers, and
    `drain_body`: how long the body of a refused request may be for the connection to go on behind it (in HTTP/2: for
    its stream not to be reset). Of HTTP/2:
    `max_streams` open on one connection; `max_control_frames` (SETTINGS, PING, PRIORITY, empty DATA) and `max_resets`
    (streams reset, or opened beyond the limit) in one second.
    """

    allow_dot_segments: bool = False
    merge_slashes: bool = False
    allow_encoded_slash: bool = False
    allow_backslash: bool = False
    allow_encoded_controls: bool = False
    allow_double_encoding: bool = False
    allow_bad_escapes: bool = False
    allow_non_ascii_path: bool = False
    allow_non_utf8_path: bool = False
    refuse_get_body: bool = False
    refuse_trailers: bool = False
    refuse_early_answer: bool = False
    max_head: int = field(default=65_536, metadata=_bounds(256, 262_143))
    max_headers: int = field(default=100, metadata=_bounds(1, 10_000))
    max_chunk_line: int = field(default=1024, metadata=_bounds(16, 65_536))
    max_trailers: int = field(default=8192, metadata=_bounds(16, 65_536))
    max_pipeline: int = field(default=64, metadata=_bounds(1, 10_000))
    drain_body: int = field(default=65_536, metadata=_bounds(0, 1 << 30))
    max_streams: int = field(default=1000, metadata=_bounds(1, 100_000))
    max_control_frames: int = field(default=4000, metadata=_bounds(10, 1_000_000))
    max_resets: int = field(default=2000, metadata=_bounds(1, 1_000_000))


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """Limits, in bytes if nothing else is said. Requests beyond them end their connection, with the reason in the log.

    `max_request`: a request's length (a broker's ``socket.request.max.bytes``). `max_held`: what one connection may
    have held back in each direction, to be read as a whole: requests of every kind but large ones to Produce, and
    responses in which something is left out or put in. `max_held_together`: the same of all connections of a worker.
    `max_pipeline`: requests that wait for answers. `max_names`: topics, groups and the like that a request names.
    `known_topics`: topic ids whose names a worker remembers, and `sessions`: fetch sessions; the longest unused are
    forgotten first, and asked for again.
    """

    max_request: int = field(default=104_857_600, metadata=_bounds(1024, (1 << 31) - 1))
    max_held: int = field(default=16 << 20, metadata=_bounds(65_536, 1 << 30))
    max_held_together: int = field(default=256 << 20, metadata=_bounds(65_536, 1 << 40))
    max_pipeline: int = field(default=1000, metadata=_bounds(1, 100_000))
    max_names: int = field(default=10_000, metadata=_bounds(1, 100_000))
    known_topics: int = field(default=100_000, metadata=_bounds(1, 10_000_000))
    sessions: int = field(default=10_000, metadata=_bounds(1, 1_000_000))


@dataclass(frozen=True, slots=True)
class CassandraOptions:
    """Limits, in bytes if nothing else is said. Requests beyond them are refused, with the reason in the log.

    `system_tables`: whoever has Cassandra rules may also SELECT from the tables that drivers read when they connect
    (see `policies.cql_actions`). `log_statements`: records hold the statement, with ``?`` for each literal.

    `max_frame`: the body of a request or of an answer, as it is sent (the protocol itself allows 256 MiB).
    `max_statement`: a statement's text, and the different ones of a batch together. `max_batch`: statements in a batch.
    `max_held`: what one connection may have held back in each direction, to be read as a whole, and
    `max_held_together`: all connections of a worker. `max_in_flight`: requests of a connection that wait for answers.
    `max_prepared`: prepared statements that a worker remembers, and `max_prepared_text`: what their texts may come to;
    `max_views`: materialized views (the longest unused of all these are forgotten first), and functions or aggregates
    that a server may have.
    """

    system_tables: bool = True
    log_statements: bool = False
    max_frame: int = field(default=256 << 20, metadata=_bounds(1024, 1 << 30))
    max_statement: int = field(default=1 << 20, metadata=_bounds(256, 64 << 20))
    max_batch: int = field(default=10_000, metadata=_bounds(1, 65_535))
    max_held: int = field(default=32 << 20, metadata=_bounds(262_144, 1 << 30))
    max_held_together: int = field(default=256 << 20, metadata=_bounds(262_144, 1 << 40))
    max_in_flight: int = field(default=32_768, metadata=_bounds(1, 32_768))
    max_prepared: int = field(default=100_000, metadata=_bounds(1, 10_000_000))
    max_prepared_text: int = field(default=64 << 20, metadata=_bounds(65_536, 1 << 40))
    max_views: int = field(default=10_000, metadata=_bounds(1, 1_000_000))
