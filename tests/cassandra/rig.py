"""A conversation of CQL to play with, a judge for it, and a server that answers where it is asked for its views."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from hashlib import md5
from typing import Any

from l7proxy.cassandra import CassandraConversation
from l7proxy.cassandra_known import CassandraKnown
from l7proxy.held import Server
from l7proxy.ops import CqlCall, CqlStatement, Direction
from parsers import facts
from parsers.cassandra import HEADER, RESPONSE, Opcode
from parsers.options import CassandraOptions
from policies.model import L7Protocol
from policies.verdict import L7Decision, RuleRef, Verdict
from tests.cassandra import words
from tests.conversations import REQUEST, Conversing, Half
from tests.conversations import RESPONSE as ANSWERS

RULE = RuleRef("default/p", "ingress[0].toPorts[0].rules.cql[0]", "p.yaml", 9)
SERVER = ("10.0.0.9", 9042)
Told = tuple[str, str, str, int, int, bool]
ASKS_VIEWS, ASKS_FUNCTIONS = b"FROM system_schema.views", b"FROM system_schema.functions"
ASKS = (ASKS_VIEWS, ASKS_FUNCTIONS, b"FROM system_schema.aggregates")
WIRES = [(3, ""), (4, ""), (4, "lz4"), (4, "snappy"), (5, ""), (5, "lz4")]
OWN_STREAMS = 30_000
"""Streams beyond are those of the proxy's own questions."""


class Teller:
    """Refuses tables whose names begin with ``secret``, and those in `refused`; and what cannot be read, unless
    `unknown`."""

    protocol = L7Protocol.CASSANDRA

    def __init__(
        self,
        options: CassandraOptions | None = None,
        *,
        audit_only: bool = False,
        refused: Iterable[str] = (),
        unknown: bool = False,
    ) -> None:
        self.cassandra = options or CassandraOptions()
        self.calls: dict[object, Any] = {}
        self.audit_only, self.unknown = audit_only, unknown
        self.refused = set(refused)
        self.judged: list[facts.CqlRequest] = []

    def judge(self, request: facts.CqlRequest) -> L7Decision:
        self.judged.append(request)
        bad = request.action == facts.UNKNOWN and not self.unknown
        names = (request.keyspace or "", request.table or "")
        if bad or any(name.startswith("secret") or name in self.refused for name in names):
            if self.audit_only:
                return L7Decision(Verdict.AUDIT, None, "would be refused")
            return L7Decision(Verdict.DROPPED, None, f"no rule allows {request}", "not yours")
        return L7Decision(Verdict.FORWARDED, RULE, "allowed")


class Rig(Conversing[CassandraConversation]):
    """Of one client, which speaks `version`. `views` are the server's: (keyspace, view, table)."""

    def __init__(
        self,
        version: int = 4,
        judge: Teller | None = None,
        *,
        compression: str = "",
        known: CassandraKnown | None = None,
        views: Iterable[tuple[str, str, str]] = (),
        server: Server = SERVER,
        begun: bool = True,
    ) -> None:
        self.version, self.compression = version, compression
        self.judge = judge or Teller()
        self.known = known or CassandraKnown(100, 100_000, 100)
        super().__init__(CassandraConversation(self.judge, self.known, server))  # type: ignore[arg-type]
        self.views: tuple[tuple[str, str, str], ...] | None = tuple(views)
        """None: the server does not answer by itself."""
        self.functions: tuple[tuple[str, str], ...] = ()
        self.read, self.framed, self._answered = [0, 0], False, 0
        if begun:
            self.begin()

    def begin(self) -> Rig:
        """STARTUP and READY."""
        self.ask(words.startup(self.version, self.compression))
        self.say(words.ready(self.version))
        self.framed = self.version > 4
        self.read = [len(half.out) for half in self.halves]
        return self

    @property
    def packed(self) -> bool:
        return self.framed and self.compression == "lz4"

    def ask(self, *envelopes: bytes, end: bool = False) -> Rig:
        """The client sends, with all in one segment where there are any."""
        return self.arrive(REQUEST, self.wire(*envelopes), end)

    def say(self, *envelopes: bytes, end: bool = False) -> Rig:
        """The server sends."""
        return self.arrive(ANSWERS, self.wire(*envelopes), end)

    def wire(self, *envelopes: bytes) -> bytes:
        """As they travel now."""
        data = b"".join(envelopes)
        return words.segments(data, self.packed) if self.framed and data else data

    def arrive(self, direction: Direction, data: bytes, end: bool = False) -> Rig:
        super().arrive(direction, data, end)
        while self.views is not None and (question := self._question()) is not None:
            self._answered += 1
            super().arrive(ANSWERS, self.wire(tells(question, self.views, self.functions)))
        return self

    def tell(self, views: Iterable[tuple[str, str, str]] = (), *, error: int | None = None, times: int = 1) -> Rig:
        """The server answers so many of the proxy's own questions."""
        for _ in range(times):
            question = self._question()
            assert question is not None
            self._answered += 1
            if error is not None:
                self.say(words.error(error, "no", self.version, stream_of(question)))
            else:
                self.say(tells(question, views, self.functions))
        return self

    def _question(self) -> bytes | None:
        """What the proxy itself asks and has no answer to."""
        asked = [one for one in self.envelopes(REQUEST, 0) if own(one)]
        return asked[self._answered] if len(asked) > self._answered else None

    def query(self, text: str, stream: int = 0, **more: Any) -> bytes:
        return words.query(text, self.version, stream, "" if self.framed else self.compression, **more)

    def prepare(self, text: str, stream: int = 0, **more: Any) -> bytes:
        return words.prepare(text, self.version, stream, **more)

    def execute(self, number: bytes, stream: int = 0) -> bytes:
        return words.execute(number, self.version, stream)

    def batch(self, *children: str | bytes, stream: int = 0, **more: Any) -> bytes:
        return words.batch(*children, version=self.version, stream=stream, **more)

    def void(self, stream: int = 0) -> bytes:
        return words.void(self.version, stream)

    def rows(self, stream: int = 0, size: int = 30) -> bytes:
        return words.rows(self.version, stream, size)

    def set_keyspace(self, keyspace: str, stream: int = 0) -> bytes:
        return words.set_keyspace(keyspace, self.version, stream)

    def prepared(self, number: bytes, stream: int = 0) -> bytes:
        return words.prepared(number, self.version, stream)

    def error(self, code: int, stream: int = 0) -> bytes:
        return words.error(code, "no", self.version, stream)

    def inject(self, half: Half, data: bytes) -> None:
        super().inject(half, data)

    def envelopes(self, direction: Direction, start: int | None = None) -> list[bytes]:
        """Whole ones that an end got, since it was last looked (or from `start` on)."""
        out = bytes(self.halves[direction].out)
        place = self.read[direction] if start is None else start
        found: list[bytes] = []
        large = b""
        while self.framed and start is None and place < len(out):
            size = size_of(out, place, self.packed)
            if size > len(out) - place:
                break
            ((payload, alone),) = words.unsegment(out[place : place + size], self.packed)
            place += size
            large = large + payload if not alone else large
            payload = payload if alone else large
            if alone or len(large) == HEADER + struct.unpack_from(">i", large, 5)[0]:
                found += split(payload)
                large = b"" if not alone else large
        if self.framed and start == 0:
            return self._from_the_start(direction)
        if not self.framed:
            found = split(out[place:])
            place += sum(map(len, found))
        if start is None:
            self.read[direction] = place
        return found

    def _from_the_start(self, direction: Direction) -> list[bytes]:
        kept = list(self.read)
        self.read[direction] = len(words.startup(self.version, self.compression)) if direction is REQUEST else HEADER
        found = self.envelopes(direction)
        self.read = kept
        return found

    def served(self) -> list[bytes]:
        """Envelopes that the server got since it was last looked, without the proxy's own questions."""
        return [one for one in self.envelopes(REQUEST) if not own(one)]

    def heard(self) -> list[bytes]:
        """Envelopes that the client got since it was last looked."""
        return self.envelopes(ANSWERS)

    def errors(self) -> list[tuple[int, int]]:
        """(stream, code) of what the client got since it was last looked, 0 for what is no error."""
        return [(stream_of(one), code_of(one)) for one in self.heard()]

    @property
    def told(self) -> list[Told]:  # type: ignore[override]
        """Of every record: verdict, opcode, kind, stream, code, and whether the server answered."""
        found = []
        for record in self.records:
            asks, call = record.request, record.call
            assert isinstance(asks, CqlStatement) and isinstance(call, CqlCall)
            verdict = asks.decision.verdict.value
            found.append((verdict, asks.opcode, asks.kind, call.stream, record.code, call.answered))
        return found


def fresh(rig: Rig, judge: Teller | None = None, **more: Any) -> Rig:
    """Another connection of the same kind."""
    return Rig(rig.version, judge, compression=rig.compression, **more)


def own(envelope: bytes) -> bool:
    """Whether the proxy asks for views, or to be told of changes."""
    watches = envelope[4] == Opcode.REGISTER and stream_of(envelope) > OWN_STREAMS
    return watches or (envelope[4] == Opcode.QUERY and any(one in envelope for one in ASKS))


def tells(question: bytes, views: Iterable[tuple[str, ...]] = (), functions: Iterable[tuple[str, ...]] = ()) -> bytes:
    """A server's answer to one of the proxy's own questions, in the version that it comes in."""
    version, stream = question[0], stream_of(question)
    if question[4] == Opcode.REGISTER:
        return words.ready(version, stream)
    if ASKS_VIEWS in question:
        return texts(list(views), 3, version, stream)
    return texts(list(functions) if ASKS_FUNCTIONS in question else [], 2, version, stream)


def texts(rows: Sequence[tuple[str, ...]], columns: int, version: int, stream: int) -> bytes:
    """Rows of so many texts."""
    body = struct.pack(">iiii", 2, 5, columns, len(rows))
    body += b"".join(struct.pack(">i", len(one)) + one.encode() for row in rows for one in row)
    return words.say(Opcode.RESULT, body, version, stream)


def size_of(data: bytes, place: int, packed: bool) -> int:
    """Of the segment that begins here."""
    head = 8 if packed else 6
    if len(data) - place < head:
        return len(data) + 1
    return head + (int.from_bytes(data[place : place + 3], "little") & 0x1FFFF) + 4


def split(data: bytes) -> list[bytes]:
    """Whole envelopes."""
    found, place = [], 0
    while len(data) - place >= HEADER:
        size = HEADER + struct.unpack_from(">i", data, place + 5)[0]
        if len(data) - place < size:
            break
        found.append(data[place : place + size])
        place += size
    return found


def stream_of(envelope: bytes) -> int:
    return int(struct.unpack_from(">h", envelope, 2)[0])


def code_of(envelope: bytes) -> int:
    assert envelope[0] & RESPONSE
    return int(struct.unpack_from(">i", envelope, HEADER)[0]) if envelope[4] == Opcode.ERROR else 0


def id_of(text: str, keyspace: str = "") -> bytes:
    """What a server calls a prepared statement."""
    return md5((keyspace + text).encode(), usedforsecurity=False).digest()
