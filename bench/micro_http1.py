"""What a request and its response cost in the conversation alone: ``python -m bench.micro_http1``.

Prints microseconds of CPU for each pair, without sockets: a head that the cache knows, one that it does not, and
responses whose heads differ each time.
"""

from __future__ import annotations

from collections.abc import Callable
from time import process_time

from l7proxy.http1 import Http1Conversation
from l7proxy.http1_exchange import Exchange
from l7proxy.ops import Direction
from parsers.facts import HttpRequest
from parsers.options import HttpOptions
from policies.verdict import L7Decision, Verdict

_PAIRS = 100_000
_FIELDS = b"Host: api.example:8080\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n"
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: x\r\nDate: %s\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nhello world\n"
)
_DATE = b"Tue, 24 Nov 2026 10:00:00 GMT"


class AllowAll:
    """A judge without rules."""

    audit_only = log_headers = cut_streams = False
    header_names: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.options = HttpOptions()
        self.cache: dict[bytes, Exchange] = {}
        self.calls: dict[bytes, object] = {}
        self._allowed = L7Decision(Verdict.FORWARDED, None, "allowed")

    def judge(self, request: HttpRequest) -> L7Decision:
        """Yes."""
        return self._allowed


def measure(request: Callable[[int], bytes], response: Callable[[int], bytes]) -> float:
    """Microseconds of CPU for one request and its response."""
    talk = Http1Conversation(AllowAll())
    pairs = [(request(n), response(n)) for n in range(_PAIRS)]
    start = process_time()
    for asked, answered in pairs:
        talk.receive(Direction.REQUEST, asked, False, 1.0)
        talk.receive(Direction.RESPONSE, answered, False, 1.0)
    return (process_time() - start) / _PAIRS * 1e6


def get(path: bytes) -> bytes:
    """A small request."""
    return b"GET " + path + b" HTTP/1.1\r\n" + _FIELDS + b"\r\n"


def main() -> None:
    """Measure and print."""
    same = b"".join([_ANSWER % _DATE])
    cases: list[tuple[str, Callable[[int], bytes], Callable[[int], bytes]]] = [
        ("head and answer known", lambda n: bytes(bytearray(get(b"/public/x"))), lambda n: bytes(bytearray(same))),
        ("head new each time", lambda n: get(b"/public/%d" % n), lambda n: bytes(bytearray(same))),
        ("answer new each time", lambda n: get(b"/public/x"), lambda n: _ANSWER % (b"%d" % n)),
    ]
    for name, request, response in cases:
        print(f"{name:24} {measure(request, response):6.2f} us")


if __name__ == "__main__":
    main()
