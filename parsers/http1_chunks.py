"""The chunked coding (RFC 9112, section 7.1), read no further than to know where it ends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from parsers.http1_fields import BARE_LF, EACH_FIELD, FIELDS, FOLD
from parsers.options import HttpOptions

_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*+)?\r\n")
"""A size and perhaps extensions: no control character, and no bare CR or LF, hides in them."""
_TOO_LARGE = 1 << 31
"""Some servers keep a chunk's size in 32 bits, and read 2^32 + 3 as 3."""


class BadChunks(ValueError):
    """Chunks that readers could take in two ways; the text says what is wrong."""


class Read(NamedTuple):
    """How far the body may go: to `position`, perhaps beyond what is there; `done`: it ends there."""

    position: int
    done: bool


class Chunks:
    """Reads one chunked body."""

    __slots__ = ("_line", "_most", "_names", "_trailers", "_within")

    def __init__(self, options: HttpOptions, names: Mapping[bytes, bytes], *, trailers: bool = True) -> None:
        """`names` (see `watched_names`) may not stand in trailers: some servers take them for header fields.
        `trailers`: whether there may be any."""
        self._line, self._most, self._trailers = options.max_chunk_line, options.max_trailers, trailers
        self._names = names
        self._within = False

    def read(self, data: bytes, position: int) -> Read:
        """Go on at `position`, which is where the last call ended. Raises BadChunks.

        A chunk's line and data are one step; the CR LF behind the data is looked at together with the next line, so a
        size is never passed on before it is complete, and data goes by count. What is good before something bad is
        read first; then the next call raises.
        """
        first = position
        while position < len(data):
            try:
                step = self._step(data, position)
            except BadChunks:
                if position == first:
                    raise
                break
            if step.position == position or step.done:
                return step
            position = step.position
        return Read(position, False)

    def _step(self, data: bytes, position: int) -> Read:
        """Read one chunk, or what ends the body; the same position if more has to come."""
        start = position
        if self._within:
            if not data.startswith(b"\r\n"[: len(data) - position], position):
                raise BadChunks("no CR LF behind a chunk's data")
            position += 2
        line = self._read_line(data, position)
        if line is None:
            return Read(start, False)
        end, size = line
        if size == 0:
            end = self._end(data, end)
            return Read(end or start, bool(end))
        self._within = True
        return Read(end + size, False)

    def _read_line(self, data: bytes, position: int) -> tuple[int, int] | None:
        """(position behind a chunk line, the chunk's size); None if more has to come."""
        stop = data.find(b"\n", position, position + self._line)
        if stop < 0:
            if len(data) - position >= self._line:
                raise BadChunks(f"a chunk line of more than {self._line} bytes")
            return None
        line = _LINE.fullmatch(data, position, stop + 1)
        if line is None:
            raise BadChunks("a malformed chunk line")
        size = int(line[1], 16)
        if size >= _TOO_LARGE:
            raise BadChunks("a chunk of 2 GiB or more")
        return stop + 1, size

    def _end(self, data: bytes, position: int) -> int:
        """The position behind the trailers that begin at `position`; 0 if more has to come."""
        if data.startswith(b"\r\n", position):
            return position + 2
        if not self._trailers and len(data) >= position + 2:
            raise BadChunks("fields behind the last chunk (refuse_trailers)")
        limit = position + self._most
        stop = data.find(b"\r\n\r\n", position, limit) + 4
        if BARE_LF.search(data, position, stop if stop > 3 else limit) is not None:
            raise BadChunks("a bare LF in the trailers")
        if stop <= 3:
            if len(data) >= limit:
                raise BadChunks(f"trailers of more than {self._most} bytes")
            return 0
        self._check(data, position, stop)
        return stop

    def _check(self, data: bytes, position: int, stop: int) -> None:
        match = FIELDS.match(data, position)
        if match is None or match.end() != stop - 2:
            raise BadChunks("malformed trailers")
        for name, _ in EACH_FIELD.findall(data, position, stop - 2):
            if name.translate(FOLD) in self._names:
                raise BadChunks(f"the trailer {name.decode()!r} would be a header")
