"""A client, a relay without sockets around a conversation, and a real server's socket behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from l7proxy.ops import Abort, Close, Direction, Drop, Inject, Need, Op, Pass, Record, Wait
from policies.verdict import Verdict

QUIET = 0.1
"""Seconds without a byte from the server after which the client goes on, if nothing else is asked for."""
PATIENCE = 2.0
"""Seconds after which the client goes on although bytes still come."""
_LIMIT = 256 * 1024
"""Bytes that a relay buffers."""


class Talk:
    """What the rig needs of a conversation (l7proxy.conversation.Conversation, less its timers)."""

    def receive(self, direction: Direction, data: bytes, end: bool, now: float) -> Sequence[Op]:
        raise NotImplementedError

    def finish(self, now: float) -> Sequence[Op]:
        return ()


class Wire(Talk):
    """No proxy at all: everything passes."""

    def receive(self, direction: Direction, data: bytes, end: bool, now: float) -> Sequence[Op]:
        return (Pass(len(data)),)


@dataclass
class Half:
    """One direction: bytes without a verdict, and what has one by count."""

    pending: bytes = b""
    end: bool = False
    credit: int = 0
    dropping: int = 0
    need: int = 0
    waiting: bool = False
    out: bytearray = field(default_factory=bytearray)


class Pump:
    """Carries out operations as the relay does: bytes in, bytes out, and what was recorded."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.halves = (Half(), Half())
        self.records: list[Record] = []
        self.ending = ""
        self.consumed = self.passed = self.dropped = 0

    def arrive(self, direction: Direction, data: bytes, end: bool = False) -> None:
        """Bytes of one direction came; with `end` they are the last."""
        half = self.halves[direction]
        half.pending += data
        half.end = half.end or end
        if not self.ending:
            self._take(direction, half)
        assert len(half.pending) <= _LIMIT or self.ending, "more is held back than a relay buffers"

    def _take(self, direction: Direction, half: Half) -> None:
        self._by_count(half)
        if (half.credit or half.dropping) and not half.end:
            return
        if (half.waiting or len(half.pending) < half.need) and not half.end:
            return
        self._judge(direction, half)
        other = self.halves[1 - direction]
        if other.waiting and not self.ending:
            self._judge(Direction(1 - direction), other)

    def _by_count(self, half: Half) -> None:
        passing, half.pending = half.pending[: half.credit], half.pending[half.credit :]
        half.credit -= len(passing)
        half.out += passing
        dropped = min(half.dropping, len(half.pending))
        half.dropping -= dropped
        half.pending = half.pending[dropped:]

    def _judge(self, direction: Direction, half: Half) -> None:
        half.need, half.waiting = 0, False
        for op in self.talk.receive(direction, half.pending, half.end, 0.0):
            if not self.ending:
                self._apply(half, op)

    def _apply(self, half: Half, op: Op) -> None:
        if isinstance(op, Pass | Drop):
            assert half.end or not (half.credit or half.dropping), "an operation behind one that takes all there is"
            if isinstance(op, Pass):
                half.credit = op.size
            else:
                half.dropping = op.size
            self._by_count(half)
        elif isinstance(op, Inject):
            self.halves[op.direction].out += op.data
        elif isinstance(op, Need):
            half.need = op.size
        elif isinstance(op, Wait):
            half.waiting = True
        elif isinstance(op, Record):
            self.records.append(op)
        elif isinstance(op, Close | Abort):
            self.ending = type(op).__name__

    def output(self, direction: Direction) -> bytes:
        """What has to be sent on in a direction since the last call."""
        half = self.halves[direction]
        data = bytes(half.out)
        half.out.clear()
        return data

    def finish(self) -> None:
        """The connection is over."""
        self.records += [op for op in self.talk.finish(0.0) if isinstance(op, Record)]


@dataclass
class Played:
    """What became of one stream at one server."""

    to_server: bytes
    to_client: bytes
    records: list[Record]

    def allowed(self) -> list[tuple[str, str]]:
        """(method, target) of every request that was judged and allowed, in order."""
        requests = [one.request for one in self.records]
        return [(one.method, one.url) for one in requests if one.decision.verdict is not Verdict.DROPPED]


async def play(
    address: tuple[str, int], parts: Iterable[bytes], talk: Talk, *, cut: int = 0, quiet: float = QUIET
) -> Played:
    """Send each part as a client would, go on when the server is quiet, and at last end with FIN.

    With `cut` each part arrives in pieces of that many bytes.
    """
    session = _Session(address, Pump(talk))
    try:
        for part in parts:
            size = cut or max(1, len(part))
            for start in range(0, max(1, len(part)), size):
                await session.arrive(part[start : start + size])
            await session.settle(quiet)
        await session.arrive(b"", end=True)
        await session.settle(quiet)
    finally:
        session.close()
    return Played(bytes(session.to_server), bytes(session.to_client), session.pump.records)


class _Session:
    """The sockets' side of one stream."""

    def __init__(self, address: tuple[str, int], pump: Pump) -> None:
        self.address, self.pump = address, pump
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None
        self.to_server, self.to_client = bytearray(), bytearray()
        self.server_ended = False

    async def arrive(self, data: bytes, end: bool = False) -> None:
        self.pump.arrive(Direction.REQUEST, data, end)
        await self._flush()

    async def _flush(self) -> None:
        self.to_client += self.pump.output(Direction.RESPONSE)
        data = self.pump.output(Direction.REQUEST)
        self.to_server += data
        if data and self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(*self.address)
        if data and self.writer is not None and not self.server_ended:
            self.writer.write(data)

    async def settle(self, quiet: float) -> None:
        """Carry the server's bytes until it is quiet or gone."""
        end = asyncio.get_running_loop().time() + PATIENCE
        while self.reader is not None and not self.server_ended and not self.pump.ending:
            if asyncio.get_running_loop().time() > end:
                return
            try:
                data = await asyncio.wait_for(self.reader.read(65536), quiet)
            except TimeoutError:
                return
            except OSError:
                data = b""
            self.server_ended = not data
            self.pump.arrive(Direction.RESPONSE, data, end=not data)
            await self._flush()

    def close(self) -> None:
        self.pump.finish()
        if self.writer is not None:
            self.writer.close()
