"""A conversation of HTTP/1.1 to play with, a judge for it, and words for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from l7proxy.http1 import Http1Conversation
from l7proxy.http1_exchange import Exchange
from l7proxy.ops import Direction, Need, Op
from parsers.facts import HttpRequest
from parsers.options import HttpOptions
from policies.verdict import L7Decision, RuleRef, Verdict
from tests.conversations import REQUEST, RESPONSE, Conversing, Half

RULE = RuleRef("default/p", "ingress[0].toPorts[0].rules.http[0]", "p.yaml", 9)
DENIED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 15\r\nContent-Type: text/plain\r\n\r\nAccess denied\r\n"
DENIED_LAST = DENIED.replace(b"plain\r\n", b"plain\r\nConnection: close\r\n")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class PublicOnly:
    """Allows /public and what is below it, audits /audit, and denies the rest, /worded with a message."""

    log_headers = False
    cut_streams = True

    def __init__(
        self, options: HttpOptions | None = None, *, audit_only: bool = False, watched: Iterable[str] = ("x-token",)
    ) -> None:
        self.options = options or HttpOptions()
        self.cache: dict[bytes, Exchange] = {}
        self.calls: dict[bytes, object] = {}
        self.audit_only = audit_only
        self.header_names = frozenset(watched)
        self.judged: list[tuple[str, str]] = []

    def judge(self, request: HttpRequest) -> L7Decision:
        self.judged.append((request.method, request.path))
        if request.path.startswith("/public"):
            return L7Decision(Verdict.FORWARDED, RULE, "allowed")
        if request.path.startswith("/audit") or self.audit_only:
            return L7Decision(Verdict.AUDIT, None, "would be refused")
        message = "Ask the owner" if request.path.startswith("/worded") else None
        return L7Decision(Verdict.DROPPED, None, "no rule allows it", message)


class Rig(Conversing[Http1Conversation]):
    """Of HTTP/1.1."""

    def __init__(self, judge: PublicOnly | None = None) -> None:
        self.judge = judge or PublicOnly()
        super().__init__(Http1Conversation(self.judge))

    def ask(self, data: bytes, *, end: bool = False) -> Rig:
        """The client sends."""
        return self.arrive(REQUEST, data, end)

    def say(self, data: bytes, *, end: bool = False) -> Rig:
        """The server sends."""
        return self.arrive(RESPONSE, data, end)

    def apply(self, ops: Sequence[Op], half: Half | None = None) -> Rig:
        """Carry out operations; bytes are those of `half`."""
        assert not any(isinstance(op, Need) for op in ops)
        return super().apply(ops, half)

    def inject(self, half: Half, data: bytes) -> None:
        """Words of our own."""
        upgrade = b"\r\nHTTP2-Settings: " in data and data.endswith(b"\r\n\r\n")
        assert half.direction is RESPONSE or upgrade, "words within a request"
        super().inject(half, data)


def get(path: str = "/public/x", *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    """A request with a Host and further header lines."""
    head = "\r\n".join((f"{method} {path} HTTP/{version}", "Host: a", *lines, "", ""))
    return head.encode("latin-1")


def chunked(*pieces: bytes, trailers: bytes = b"") -> bytes:
    """A chunked body."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n" + trailers + b"\r\n"


def play(parts: Iterable[tuple[Direction, bytes]], judge: PublicOnly | None = None) -> Rig:
    """Both sides' bytes in the given order, then the end."""
    rig = Rig(judge)
    for direction, data in parts:
        rig.arrive(direction, data)
    return rig
