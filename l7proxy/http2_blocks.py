"""HPACK (RFC 7541) of one connection: header blocks decoded to be judged, and remembered by their exact bytes.

A refused block never reaches the server. If it changed the client's table, the server's is out of step with it from
then on, until the client's is empty for good: the server's SETTINGS_HEADER_TABLE_SIZE, as the client is told it, is 0.
Blocks that pass meanwhile are made anew for the server, without its table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from hpack import Decoder, HPACKError, OversizedHeaderListError
from hpack.hpack import encode_integer
from hpack.struct import NeverIndexedHeaderTuple

from parsers.http2 import (
    CONTINUATION,
    DEFAULT_FRAME,
    END_HEADERS,
    HEAD,
    HEADERS,
    PRIORITISED,
    Broken,
    Code,
    check_frame,
    fragment,
    frame,
    frame_head,
)

Fields: TypeAlias = list[tuple[bytes, bytes]]
EMPTY_TABLE = b"\x20"
"""The update of the table's size to 0 (RFC 7541, section 6.3)."""
DEFAULT_TABLE = 4096
"""Bytes of a table if nothing is said of it."""
_CONTINUATIONS = 64


def too_large(size: int, most: int) -> Broken:
    """What is looked at whole has to fit into what is held of a connection."""
    return Broken(Code.ENHANCE_YOUR_CALM, f"{size} bytes to be read at once, where {most} are held")


def gathered(
    data: bytes, position: int, length: int, flags: int, number: int, largest: int, most: int
) -> tuple[int, bytes, bytes] | None:
    """Where the header block ends that begins with the HEADERS frame at `position`, the block, and the priority before
    it; None if more has to come. Its frames are of `largest` bytes at most, and of `most` together. Raises Broken."""
    end = position + HEAD + length
    if end > len(data):
        return None
    start, stop = fragment(data, position + HEAD, length, flags)
    priority = data[start - 5 : start] if flags & PRIORITISED else b""
    if flags & END_HEADERS:
        return end, data[start:stop], priority
    pieces = [data[start:stop]]
    while True:
        if end + HEAD - position > most:
            raise too_large(end + HEAD - position, most)
        if len(pieces) > _CONTINUATIONS:
            raise Broken(Code.ENHANCE_YOUR_CALM, f"a header block in more than {len(pieces)} frames")
        if end + HEAD > len(data):
            return None
        length, kind, flags, stream = frame_head(data, end)
        check_frame(length, kind, flags, stream, largest)
        if kind != CONTINUATION or stream != number:
            raise Broken(Code.PROTOCOL_ERROR, f"a frame of type {kind} within a header block")
        if end + HEAD + length - position > most:
            raise too_large(end + HEAD + length - position, most)
        if end + HEAD + length > len(data):
            return None
        pieces.append(data[end + HEAD : end + HEAD + length])
        end += HEAD + length
        if flags & END_HEADERS:
            return end, b"".join(pieces), priority


class Blocks:
    """One direction's blocks, in the order in which they come.

    `largest`: bytes of a decoded list. `epoch` rises whenever the table changes: what was decoded before holds no more.
    """

    def __init__(self, largest: int) -> None:
        self._decoder = Decoder(max_header_list_size=largest)
        self.epoch = 0
        self.in_step = True
        self.wanted = DEFAULT_TABLE
        """The least size of a table that the reader of these blocks has asked for."""
        self.told_none = False
        """The writer of these blocks knows that it may have no table. (One that has had one may still use it.)"""

    def allow_table(self, size: int) -> None:
        """The reader of these blocks has said how large the table may get."""
        self._decoder.max_allowed_table_size = max(self._decoder.max_allowed_table_size, size)

    @property
    def size(self) -> int:
        """Bytes that the table may have now."""
        return int(self._decoder.header_table.maxsize)

    @property
    def plain(self) -> bool:
        """The table is empty, and stays so: what a block means hangs on its bytes alone."""
        return self.size == 0

    def decode(self, block: bytes) -> Fields:
        """The fields of a block. Raises Broken."""
        before = self._mark()
        try:
            fields: Fields = list(self._decoder.decode(block, raw=True))
        except OversizedHeaderListError as error:
            raise Broken(Code.ENHANCE_YOUR_CALM, str(error)) from None
        except (HPACKError, IndexError, ValueError):
            # Without its text, which may hold an address of this process: clients get ours to read.
            raise Broken(Code.COMPRESSION_ERROR, "a header block that HPACK does not allow") from None
        after = self._mark()
        if self.told_none and after[0] > 0 and after[0] != before[0]:
            raise Broken(Code.COMPRESSION_ERROR, f"a table of {after[0]} bytes, where none is allowed")
        # By identity: what was first before is still alive here, so no new entry can be taken for it.
        if after[:2] != before[:2] or after[2] is not before[2]:
            self.epoch += 1
        return fields

    def _mark(self) -> tuple[int, int, object]:
        table = self._decoder.header_table
        entries: Sequence[object] = table.dynamic_entries  # as they are: a pair of compiled code has no identity
        return table.maxsize, len(entries), entries[0] if entries else None

    def anew(self, block: bytes, fields: Fields) -> bytes | None:
        """What the server gets in place of a block that passes; None: the block as it is."""
        if self.told_none and self.size > self.wanted:
            # The client keeps more of a table than the server, whose word it was not given, waits for.
            self.in_step = False
        if self.in_step:
            return None
        if self.plain:
            self.in_step = True
            return None if block.startswith(EMPTY_TABLE) else EMPTY_TABLE + block
        return EMPTY_TABLE + literal(fields)


def table_size(size: int) -> bytes:
    """An update of the table's size (RFC 7541, section 6.3)."""
    made = encode_integer(size, 5)
    made[0] |= 0x20
    return bytes(made)


def block_frames(flags: int, stream: int, block: bytes) -> bytes:
    """HEADERS with these further flags, and CONTINUATION as far as it takes any. A priority stands in `block`."""
    first, rest = block[:DEFAULT_FRAME], block[DEFAULT_FRAME:]
    made = frame(HEADERS, flags | (0 if rest else END_HEADERS), stream, first)
    while rest:
        first, rest = rest[:DEFAULT_FRAME], rest[DEFAULT_FRAME:]
        made += frame(CONTINUATION, 0 if rest else END_HEADERS, stream, first)
    return made


def literal(fields: Sequence[Any]) -> bytes:
    """A block that neither uses nor changes a table.

    `fields` are Any because compiled code makes pairs of its own of a `tuple[bytes, bytes]`, without hpack's class.
    """
    made = bytearray()
    for field in fields:
        made += b"\x10" if isinstance(field, NeverIndexedHeaderTuple) else b"\x00"
        for text in field:
            made += encode_integer(len(text), 7)
            made += text
    return bytes(made)
