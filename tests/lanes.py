"""A relay with lanes between a client and a server of the test's own, and the programs' part played in Python: what
sockmap/bpf/splice_lanes.h and splice_bridge.h do with a send, and what the kernel knows of each direction.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

from l7proxy.conversation import Conversation
from l7proxy.fastpath import FastPath, begin
from l7proxy.limits import Limits
from l7proxy.offers import Offer
from l7proxy.ops import Carried, CqlCall, KafkaCall, Record
from l7proxy.origin import Origin
from l7proxy.relay import Relay
from l7proxy.timeouts import rejudge
from policies.identity import reserved
from sockmap.flows import Flow
from sockmap.splice_lanes import Lane
from tests.matching import REQUEST, RESPONSE, Programs

_AT_ONCE = 262_144
"""Bytes that the loop reads, at most."""


class Way:
    """One direction, as the kernel knows it: to the relay it is the bridge."""

    def __init__(self) -> None:
        self.given = self.straight = self.sends = 0
        """Bytes that the relay was given of the sender; bytes and sends that went straight."""
        self.stack = b""
        """What the relay has not read of those."""
        self.unheard = bytearray()
        """What the target has not read."""
        self.middle: bytes | None = None
        """A send that has found the lane open, and of which no more is settled yet."""
        self._came = self._expected = 0
        self.lane: Lane | None = None

    def brought(self, data: bytes, straight: bool) -> None:
        """To the target, of which the relay has to know that it has read what went straight before."""
        assert straight or not self.unread()
        self.unheard += data
        self._came += len(data)
        if straight:
            self.straight += len(data)
            self.sends += 1
            self._expected = self._came

    def read(self, size: int) -> bytes:
        """By the target."""
        data = bytes(self.unheard[:size])
        del self.unheard[:size]
        return data

    def counted(self) -> bool:
        """The target has read all that the relay has written to it."""
        return not self.unheard or (self.straight > 0 and self._expected == self._came)

    def open(self, read: int, limit: int | None = None) -> None:
        """See `l7proxy.straight.Bridge`."""
        self.lane = None

    def by_lane(self, lane: Lane) -> None:
        """See `l7proxy.straight.Bridge`."""
        self.lane = lane

    def shut(self) -> None:
        """See `l7proxy.straight.Bridge`."""
        self.lane = None

    def carried(self) -> int:
        """See `l7proxy.straight.Bridge`."""
        return self.straight

    def unread(self) -> int:
        """See `l7proxy.straight.Bridge`."""
        return max(0, self._expected - (self._came - len(self.unheard)))

    def deciding(self) -> bool:
        """See `l7proxy.straight.Bridge`."""
        return self.middle is not None


class _Socket:
    def __init__(self, number: int) -> None:
        self.fileno = lambda: number

    def getsockopt(self, *_: int) -> bytes:
        raise OSError("there is none")

    def setsockopt(self, *_: object) -> None:
        """It has no options."""


class End:
    """A transport of the relay's; what it writes goes to `way`'s target at once, or by `flush` if it is `slow`."""

    def __init__(self, number: int, way: Way, slow: bool) -> None:
        self._socket, self._way, self.slow = _Socket(number), way, slow
        self._queue = b""
        self.paused = self.closed = self.aborted = False

    def write(self, data: bytes) -> None:
        self._queue += data
        if not self.slow:
            self.flush()

    def flush(self) -> None:
        if self._queue:
            self._way.brought(self._queue, False)
            self._queue = b""

    def get_write_buffer_size(self) -> int:
        return len(self._queue)

    def get_extra_info(self, _: str) -> _Socket:
        return self._socket

    def set_write_buffer_limits(self, _: int) -> None:
        """None."""

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True


class Records(list[Record]):
    """Of a connection."""

    def add(self, record: Record) -> None:
        self.append(record)

    def over(self, *_: Carried | float) -> None:
        """It is over."""

    def told(self) -> list[tuple[int, str]]:
        """Of each: its number, or stream, and what was decided."""
        found = []
        for one in self:
            call: Any = one.call
            assert isinstance(call, KafkaCall | CqlCall)
            number = call.correlation_id if isinstance(call, KafkaCall) else call.stream
            found.append((number, one.request.decision.verdict.value))
        return found


class Scene:
    """A connection, and its owner (`l7proxy.owner.Owner`). `slow`: of its ends; `beside`: another one of the same
    worker. What each target has read is in `got`."""

    def __init__(
        self, talk: Conversation, server: tuple[str, int], *, slow: bool = False, beside: Scene | None = None
    ) -> None:
        self.loop, self.limits, self.mark, self.refuse_with_503 = asyncio.get_running_loop(), Limits(), 0, False
        self.failures: list[BaseException] = []
        self.loop.set_exception_handler(lambda _, context: self.failures.append(context["exception"]))
        self.programs: Programs = Programs(beside.programs.known if beside else None)
        self.told, self.got = Records(), (bytearray(), bytearray())
        self.ways = Way(), Way()
        self.ends = End(10, self.ways[RESPONSE], slow), End(11, self.ways[REQUEST], slow)
        """The relay's, by the direction in which it reads them."""
        host, owner, judge, ends = reserved("host"), cast(Any, self), cast(Any, talk.judge), cast(Any, self.ends)
        self.relay = Relay(owner, Origin(("1.1.1.1", 5), server, Flow(1, 1, 0, 0, 1, 0), host, host, "x", judge), talk)
        assert self.relay.frames is not None
        self.relay.frames.offers = []
        self.relay.dialled = True
        self.relay.attach_client(ends[REQUEST])
        self.relay.connected(ends[RESPONSE])

    def records(self, _: Origin) -> Records:
        return self.told

    def spliced(self, _: int) -> bool:
        return True

    def bridge(self, source: int, _: int) -> Way:
        return self.ways[REQUEST if source == 10 else RESPONSE]

    def hasten(self, relay: Relay) -> None:
        begin(relay, self.programs)

    def know(self, group: int, offer: Offer, number: int) -> None:
        self.programs.known[group, offer.mask, offer.tail, offer.prefix] = offer, number

    def closed(self, _: Relay) -> None:
        """It is not forgotten."""

    @property
    def fast(self) -> FastPath:
        assert self.relay.fast is not None
        return self.relay.fast

    @property
    def opened(self) -> tuple[bool, bool]:
        """Whether requests, and answers, may go straight, as far as the relay says."""
        there = self.relay.fast is not None
        return there and self.programs.is_open(REQUEST), there and self.programs.is_open(RESPONSE)

    def judged_by(self, judge: Any) -> None:
        """Another policy is in force."""
        rejudge(self.relay, lambda origin: replace(origin, judge=judge))

    def send(self, way: int, data: bytes) -> bool:
        """A peer sends, and all that waits is read. True: it went straight."""
        went = self.begins(way, data) and self.settles(way)
        self.turn()
        return went

    def begins(self, way: int, data: bytes) -> bool:
        """A send begins. False: it has gone to the relay; else that is still to be settled."""
        kernel = self.ways[way]
        if kernel.lane is not None and self.programs.opens(way, kernel.given):
            kernel.middle = data
            return True
        self._to_relay(kernel, data)
        return False

    def settles(self, way: int, room: bool = True) -> bool:
        """Whether the send that has begun goes straight; it goes, in either case. `room`: the target has some."""
        kernel = self.ways[way]
        assert kernel.middle is not None
        data, kernel.middle = kernel.middle, None
        if room and kernel.counted() and self.programs.passes(way, data):
            kernel.brought(data, True)
            return True
        self._to_relay(kernel, data)
        return False

    @staticmethod
    def _to_relay(kernel: Way, data: bytes) -> None:
        kernel.given += len(data)
        kernel.stack += data

    def turn(self) -> None:
        """What the relay has written goes, and all that waits is read."""
        while True:
            for way in (REQUEST, RESPONSE):
                self.ends[way].flush()
            for way in (REQUEST, RESPONSE):
                self.hears(way)
            if not (self.arrives(REQUEST) or self.arrives(RESPONSE)):
                return

    def arrives(self, way: int, size: int = _AT_ONCE) -> bool:
        """The relay reads, if it does."""
        kernel, end = self.ways[way], self.ends[way]
        if not kernel.stack or end.paused or end.closed:
            return False
        data, kernel.stack = kernel.stack[:size], kernel.stack[size:]
        self.relay.arrived(self.relay.half[way], data)
        return True

    def hears(self, way: int, size: int = 1 << 30) -> bytes:
        """The target reads."""
        data = self.ways[way].read(size)
        self.got[way].extend(data)
        return data
