"""What is refused of HTTP/1.1, and how much of it is read: the `http:` section of node.yaml."""

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
    `drain_body`: how long the body of a refused request may be for the connection to go on behind it.
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
