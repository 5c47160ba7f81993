"""Plays bytes to a conversation as the relay does, and keeps account of every byte."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from l7proxy.http1 import Http1Conversation
from l7proxy.ops import Abort, Close, Direction, Drop, Inject, Need, Op, Pass, Record, Wait
from parsers.facts import HttpRequest
from parsers.options import HttpOptions
from policies.verdict import L7Decision, RuleRef, Verdict

REQUEST, RESPONSE = Direction.REQUEST, Direction.RESPONSE
RULE = RuleRef("default/p", "ingress[0].toPorts[0].rules.http[0]", "p.yaml", 9)
DENIED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 15\r\nContent-Type: text/plain\r\n\r\nAccess denied\r\n"
DENIED_LAST = DENIED.replace(b"plain\r\n", b"plain\r\nConnection: close\r\n")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class PublicOnly:
    """Allows /public and what is below it, audits /audit, and denies the rest, /worded with a message."""

    log_headers = False

    def __init__(
        self, options: HttpOptions | None = None, *, audit_only: bool = False, watched: Iterable[str] = ("x-token",)
    ) -> None:
        self.options = options or HttpOptions()
        self.cache: dict[bytes, Any] = {}
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


@dataclass
class Half:
    """One direction: what waits for a verdict, what goes by count, and where all bytes went."""

    pending: bytes = b""
    end: bool = False
    ended: bool = False
    credit: int = 0
    dropping: int = 0
    waiting: bool = False
    out: bytearray = field(default_factory=bytearray)
    passed: int = 0
    dropped: int = 0


class Rig:
    """A relay without sockets. `server` and `client` are the bytes each of them got."""

    def __init__(self, judge: PublicOnly | None = None) -> None:
        self.judge = judge or PublicOnly()
        self.talk = Http1Conversation(self.judge)
        self.halves = (Half(), Half())
        self.records: list[Record] = []
        self.ops: list[Op] = []
        self.ending: Close | Abort | None = None
        self.now = 0.0

    @property
    def server(self) -> bytes:
        return bytes(self.halves[REQUEST].out)

    @property
    def client(self) -> bytes:
        return bytes(self.halves[RESPONSE].out)

    @property
    def log(self) -> list[tuple[str, str, str, int]]:
        """(verdict, method, url, code) of every record."""
        return [(r.decision.verdict.value, r.method, r.url, r.code) for r in self.records]

    def ask(self, data: bytes, *, end: bool = False) -> Rig:
        """The client sends."""
        return self.arrive(REQUEST, data, end)

    def say(self, data: bytes, *, end: bool = False) -> Rig:
        """The server sends."""
        return self.arrive(RESPONSE, data, end)

    def arrive(self, direction: Direction, data: bytes, end: bool = False) -> Rig:
        if data:
            self._bytes(direction, data)
        if end:
            self._end(direction)
        return self

    def _bytes(self, direction: Direction, data: bytes) -> None:
        half = self.halves[direction]
        half.pending += data
        self._by_count(half)
        if self.ending or half.credit or half.dropping or half.waiting:
            return
        self._judge(direction)
        self._wake(Direction(1 - direction))

    def _end(self, direction: Direction) -> None:
        half = self.halves[direction]
        half.end = True
        if not self.ending:
            self._judge(direction)
            self._wake(Direction(1 - direction))
        half.ended = not half.pending and not self.ending

    def _wake(self, direction: Direction) -> None:
        half = self.halves[direction]
        if half.waiting and not self.ending:
            self._judge(direction)
            half.ended = half.end and not half.pending

    def _by_count(self, half: Half) -> None:
        size = min(half.credit, len(half.pending))
        half.out += half.pending[:size]
        half.passed += size
        half.credit -= size
        lost = min(half.dropping, len(half.pending) - size)
        half.dropped += lost
        half.dropping -= lost
        half.pending = half.pending[size + lost :]

    def _judge(self, direction: Direction) -> None:
        half = self.halves[direction]
        half.waiting = False
        ops = self.talk.receive(direction, half.pending, half.end, self.now)
        self.apply(ops, half)

    def apply(self, ops: Sequence[Op], half: Half | None = None) -> Rig:
        """Carry out operations; bytes are those of `half`."""
        for op in ops:
            assert self.ending is None or isinstance(op, Record), f"{op} behind the end"
            self.ops.append(op)
            if isinstance(op, Pass | Drop):
                assert half is not None and op.size > 0
                assert half.end or not (half.credit or half.dropping), f"{op} behind one that takes all there is"
                half.credit, half.dropping = (op.size, 0) if isinstance(op, Pass) else (0, op.size)
                self._by_count(half)
            elif isinstance(op, Inject):
                assert op.direction is RESPONSE and not self.halves[RESPONSE].credit, "words within a response"
                self.halves[RESPONSE].out += op.data
            elif isinstance(op, Record):
                self.records.append(op)
            elif isinstance(op, Wait):
                assert half is not None
                half.waiting = True
            else:
                assert not isinstance(op, Need)
                self.ending = op
        return self

    def finish(self) -> Rig:
        """The connection is over."""
        return self.apply(self.talk.finish(self.now))


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
