"""SASL: behind a SaslHandshake of version 0 that the server has accepted, tokens are frames without a header.

How many there are only the mechanism knows, and no token may be taken for one that the server takes for a request.
Of PLAIN there is one. Tokens of all other mechanisms begin with another byte than 0, which every request of an API that
exists begins with. From version 1 on tokens are requests, SaslAuthenticate.
"""

from __future__ import annotations

from collections.abc import Callable

from l7proxy.kafka_changes import read
from l7proxy.kafka_responses import ALL, Then
from parsers.kafka import Head
from parsers.kafka_codec import decode
from parsers.kafka_schema import REQUEST

HANDSHAKE = 17


class Sasl:
    """What the client's next frame may be. `raw`: a token."""

    __slots__ = ("_one", "raw")

    def __init__(self) -> None:
        self.raw = self._one = False

    def takes(self, data: bytes, start: int, stop: int) -> bool:
        """Whether the frame that stands here, without its length, is a token."""
        if not self.raw:
            return False
        if self._one:
            self.raw = False
            return True
        self.raw = start == stop or data[start] != 0
        return self.raw

    def shakes(self, head: Head, data: bytes, told: Callable[[], None]) -> Then:
        """What to do with the response to this SaslHandshake. `told` is called when it has come."""
        mechanism = decode(HANDSHAKE, head.version, REQUEST, data, head.body, head.end)["mechanism"]

        def make(data: bytes, start: int, stop: int) -> None:
            told()
            _, tree = read(head, data, start, stop)
            if not tree["error_code"] and head.version == 0:
                self.raw, self._one = True, mechanism == "PLAIN"

        return Then(ALL, make)
