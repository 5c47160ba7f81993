"""Plays bytes to a conversation as the relay does, and keeps account of every byte."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field
from random import Random
from typing import Any, Generic, Self, TypeVar

from l7proxy.conversation import Conversation
from l7proxy.ops import (
    Abort,
    Close,
    CqlCall,
    Direction,
    Drop,
    Grpc,
    Inject,
    KafkaCall,
    Need,
    Op,
    Pass,
    Record,
    Wait,
)

REQUEST, RESPONSE = Direction.REQUEST, Direction.RESPONSE
Talk = TypeVar("Talk", bound=Conversation)


def changed(record: Record, **changes: Any) -> Record:
    """The same record but for these fields."""
    names = ("request", "code", "started", "ended", "call")
    return Record(**{name: getattr(record, name) for name in names} | changes)


def _told(call: Grpc | KafkaCall | CqlCall | None) -> tuple[int | str | bool, ...] | None:
    """As what is equal if it says the same."""
    if isinstance(call, KafkaCall):
        return call.correlation_id, call.answered
    if isinstance(call, CqlCall):
        return call.stream, call.consistency, call.answered
    return call


@dataclass
class Half:
    """One direction: what waits for a verdict, what goes by count, and where all bytes went."""

    direction: Direction
    pending: bytes = b""
    arrived: int = 0
    passed: int = 0
    dropped: int = 0
    injected: int = 0
    credit: int = 0
    dropping: int = 0
    need: int = 0
    waiting: bool = False
    end: bool = False
    ended: bool = False
    out: bytearray = field(default_factory=bytearray)


class Conversing(Generic[Talk]):
    """A relay without sockets. `server` and `client` are the bytes each of them got."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.halves = (Half(REQUEST), Half(RESPONSE))
        self.records: list[Record] = []
        self.ops: list[Op] = []
        self.ending: Close | Abort | None = None
        self.now = 0.0

    @property
    def server(self) -> bytes:
        """Everything the server was sent."""
        return bytes(self.halves[REQUEST].out)

    @property
    def client(self) -> bytes:
        """Everything the client was sent."""
        return bytes(self.halves[RESPONSE].out)

    @property
    def log(self) -> list[tuple[str, str, str, int]]:
        """(verdict, method, url, code) of every record."""
        return [(r.request.decision.verdict.value, r.request.method, r.request.url, r.code) for r in self.records]

    @property
    def told(self) -> Sequence[object]:
        """Everything that the records say."""
        return [(astuple(r.request), r.code, r.started, r.ended, _told(r.call)) for r in self.records]

    @property
    def reason(self) -> str:
        """Of the last record."""
        return self.records[-1].request.decision.reason

    @property
    def closed(self) -> bool:
        """The connection has ended behind all that was said."""
        return isinstance(self.ending, Close)

    @property
    def aborted(self) -> bool:
        """The connection was reset."""
        return isinstance(self.ending, Abort)

    def arrive(self, direction: Direction, data: bytes, end: bool = False) -> Self:
        """Bytes of one end, or its FIN."""
        half = self.halves[direction]
        if data:
            half.arrived += len(data)
            half.pending += data
            self._by_count(half)
            blocked = half.credit or half.dropping or half.waiting or len(half.pending) < half.need
            if not self.ending and not blocked:
                self._judge(half)
                self._wake(Direction(1 - direction))
        if end:
            half.end = True
            if not self.ending:
                self._judge(half)
                self._wake(Direction(1 - direction))
            half.ended = not half.pending and not self.ending
        self.check()
        return self

    def garbled(self, lines: Iterable[tuple[Direction, bytes]], chance: Random, places: int) -> Self:
        """A dialogue in pieces, less than so many places of each line changed, and its end."""
        for direction, line in lines:
            raw = bytearray(line)
            for _ in range(chance.randrange(places)):
                place, size = chance.randrange(len(raw) + 1), chance.randrange(3)
                raw[place : place + size] = chance.randbytes(chance.randrange(3))
            step = chance.randrange(1, len(raw) + 2)
            for start in range(0, len(raw), step):
                self.arrive(direction, bytes(raw[start : start + step]))
        return self.arrive(REQUEST, b"", True).finish()

    def _wake(self, direction: Direction) -> None:
        half = self.halves[direction]
        if half.waiting and not self.ending:
            self._judge(half)
            half.ended = half.end and not half.pending

    def _by_count(self, half: Half) -> None:
        size = min(half.credit, len(half.pending))
        self.send(half, half.pending[:size])
        half.passed += size
        half.credit -= size
        lost = min(half.dropping, len(half.pending) - size)
        half.dropped += lost
        half.dropping -= lost
        half.pending = half.pending[size + lost :]

    def _judge(self, half: Half) -> None:
        half.waiting, half.need = False, 0
        self.apply(self.talk.receive(half.direction, half.pending, half.end, self.now), half)

    def apply(self, ops: Sequence[Op], half: Half | None = None) -> Self:
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
                self.inject(self.halves[op.direction], op.data)
            elif isinstance(op, Record):
                self.records.append(op)
            elif isinstance(op, Wait):
                assert half is not None
                half.waiting = True
            elif isinstance(op, Need):
                assert half is not None and op.size > len(half.pending), "asks for what is there"
                half.need = op.size
            else:
                self.ending = op
        return self

    def send(self, half: Half, data: bytes) -> None:
        """Bytes go to the end that this direction leads to."""
        half.out += data

    def inject(self, half: Half, data: bytes) -> None:
        """Words of our own."""
        assert data and not half.credit, "words of our own while bytes go by count"
        half.injected += len(data)
        self.send(half, data)

    def check(self) -> None:
        """No byte is lost, none is there twice."""
        for half in self.halves:
            assert half.arrived == half.passed + half.dropped + len(half.pending)
            assert len(half.out) == half.passed + half.injected

    def finish(self) -> Self:
        """The connection is over."""
        return self.apply(self.talk.finish(self.now))
