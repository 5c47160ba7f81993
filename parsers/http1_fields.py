"""HTTP/1.1 field lines (RFC 9112, section 5): what is well-formed, and which names are looked out for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
FIELDS = re.compile(rb"(?:" + _NAME + rb":[^\x00-\x08\x0a-\x1f\x7f]*+\r\n)*")
"""As many well-formed field lines as there are; a line that is not ends the match.

The group is not repeated possessively: until 3.11.5 `re` then ends a match within the line that failed.
"""
EACH_FIELD = re.compile(rb"(" + _NAME + rb"):[ \t]*+([^\x00-\x08\x0a-\x1f\x7f]*+)\r\n")
"""(name, value with white space behind it) of one line of what FIELDS has matched."""
BARE_LF = re.compile(rb"(?<!\r)\n")
FOLD = bytes(
    byte + 32 if 65 <= byte <= 90 else byte if byte < 128 and chr(byte).isalnum() else 0x2D for byte in range(256)
)
"""For `bytes.translate`: names as servers see them that hand them on as CGI variables, in one case, and with all
but letters and digits alike."""
FRAMING = frozenset(
    (b"content-length", b"transfer-encoding", b"host", b"connection", b"upgrade", b"expect", b"http2-settings")
)
"""The names that decide where a message ends, or whose it is."""


@lru_cache(maxsize=256)
def watched_names(watched: frozenset[str]) -> Mapping[bytes, bytes]:
    """Framing names and the lower-case names `watched`: each as FOLD makes it, and as it has to be written."""
    found = {name: name for name in FRAMING}
    for name in watched:
        plain = name.encode("latin-1", "replace")
        found.setdefault(plain.translate(FOLD), plain)
    return found
