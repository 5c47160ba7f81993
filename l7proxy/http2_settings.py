"""What a server is told of its client's SETTINGS, in a frame of HTTP/2 or in the head that asks for it."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode

from parsers.http2 import ENABLE_PUSH, HEAD, HEADER_TABLE_SIZE, settings, settings_frame

BINARY_METADATA = 0xFE03
"""gRPC's own setting: metadata may hold any byte. No header field may (RFC 9113, section 8.2.1), so nobody is told."""
LARGEST_TABLE = 65_536
"""Bytes of a table that a server may have."""
_FIELD = re.compile(rb"(\r\nhttp2-settings:[ \t]*)[^\r\n]*", re.IGNORECASE)


def for_server(values: list[tuple[int, int]], *, first: bool) -> list[tuple[int, int]]:
    """Without push, for what a server sends unasked was never judged; and with a table that we can follow.

    `first`: nothing was said before, so push is on.
    """
    told = []
    for name, value in values:
        if name in (ENABLE_PUSH, BINARY_METADATA):
            value = 0
        elif name == HEADER_TABLE_SIZE:
            value = min(value, LARGEST_TABLE)
        told.append((name, value))
    if first and (ENABLE_PUSH, 0) not in told:
        told.append((ENABLE_PUSH, 0))
    return told


def upgrading(head: bytes, payload: bytes) -> bytes | None:
    """What a server gets in place of a head whose HTTP2-Settings (RFC 7540, section 3.2.1), one field, have this
    payload; None: the head as it is."""
    found = settings(payload)
    told = for_server(found, first=True)
    if told == found:
        return None
    return _FIELD.sub(rb"\1" + urlsafe_b64encode(settings_frame(told)[HEAD:]).rstrip(b"="), head)
