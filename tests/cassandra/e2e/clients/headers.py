"""A mend of cassandra-driver 3.30, with and without a proxy: where a read ends within the header of a segment (version
5), it forgets that part, and ends the connection of a CRC mismatch."""

from __future__ import annotations

from typing import Any

from cassandra.connection import Connection

_read_segment = Connection._process_segment_buffer


def _read_whole_header(connection: Any) -> None:
    buffer = connection._io_buffer
    if buffer.readable_io_bytes() < connection._segment_codec.header_length_with_crc:
        buffer._segment_consumed = False
        buffer.io_buffer.seek(0)
    else:
        _read_segment(connection)


def mend() -> None:
    """Of all connections that the driver makes from now on."""
    Connection._process_segment_buffer = _read_whole_header
