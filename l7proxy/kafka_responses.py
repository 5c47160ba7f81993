"""Kafka, from the server to the client: what is due, in the order in which it was asked for.

A broker answers the requests of a connection one after the other, so responses are paired by position; the correlation
id, which clients choose and repeat, must be the same. Most responses pass by count behind their first bytes.
"""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

from l7proxy.frames import Frames, State
from l7proxy.held import Gather
from l7proxy.http1_exchange import Judge
from l7proxy.kafka_exchange import because
from l7proxy.kafka_known import KafkaKnown
from l7proxy.ops import FOREVER, Abort, Close, Direction, Drop, Inject, KafkaCall, KafkaRequest, Need, Op, Pass, Record
from l7proxy.output import Output
from parsers.kafka import Head, flexible
from parsers.kafka_schema import RESPONSE, message
from parsers.malformed import Malformed

ALL = FOREVER
"""A response is wanted as a whole."""
_LENGTH = struct.Struct(">i")
_START = struct.Struct(">ii")
_ERROR = struct.Struct(">h")
_SIZES = {"int8": 1, "bool": 1, "int16": 2, "uint16": 2, "int32": 4, "int64": 8, "float64": 8, "uuid": 16}


class Then(NamedTuple):
    """What is done with a response: `make(data, start, stop)` is called once `need` bytes of its frame are there (or
    all of it), which stands in `data` from `start` on and ends at `stop`, perhaps beyond what is there. It gives the
    bytes of our own that stand in place of how many of the frame's first bytes; None: all passes as it is. Raises
    Malformed."""

    need: int
    make: Callable[[bytes, int, int], tuple[int, bytes] | None]


class Fetched(NamedTuple):
    """What a response may bring that another policy refuses: `topics` (None: it is not known which), for a share
    group's member those of its `group`, in pages of all topics from `start` on; `judge` has let it be asked for."""

    judge: Judge
    topics: frozenset[str] | None
    group: str | None
    start: str = ""


class Due:
    """A response that the client waits for. `answer`: our own, sent in its turn (empty: none is
    due, but the record has its turn); None: the server's is awaited, which
    answers `head` (None: it is a token of SASL, without a header). `request` None: it is the proxy's own, and no record
    is written. `code`: of our answer, or of our part of one. `fetched`: the response is judged again if another policy
    holds when it begins."""

    __slots__ = ("answer", "code", "fetched", "head", "request", "started", "then")

    def __init__(
        self,
        request: KafkaRequest | None,
        head: Head | None,
        started: float,
        answer: bytes | None = None,
        code: int = 0,
        then: Then | None = None,
        fetched: Fetched | None = None,
    ) -> None:
        self.request, self.head, self.started, self.answer = request, head, started, answer
        self.code, self.then, self.fetched = code, then, fetched

    def record(self, now: float, code: int, answered: bool) -> Record | None:
        """Its flow record."""
        if self.request is None:
            return None
        number = self.head.correlation_id if self.head is not None else 0
        return Record(self.request, code, self.started, now, KafkaCall(number, answered))


@cache
def _error_place(key: int, version: int) -> int:
    """Where a response's error code stands in its frame, if it has one of its own behind nothing but numbers; or 0."""
    place = 9 if key != 18 and flexible(key, version) else 8
    for field in message(key, version, RESPONSE).fields:
        if field.tag is not None:
            continue
        if field.name == "error_code":
            return place
        if field.kind not in _SIZES:
            return 0
        place += _SIZES[field.kind]
    return 0


class Responses(Frames):
    """The half of a conversation that reads what the server says; it holds what both halves share."""

    __slots__ = ("_due", "_known")

    def __init__(self, judge: Judge, known: KafkaKnown) -> None:
        super().__init__(judge)
        self._known = known
        self._due: deque[Due] = deque()
        """Requests without an answer, oldest first."""

    @abstractmethod
    def _judge_again(self, due: Due, fetched: Fetched) -> None:
        """A response begins under another policy than the one that let it be asked for."""

    def _responses(self, data: bytes, end: bool, now: float) -> Sequence[Op]:
        if len(self._due) == 1 and not (self._ending or self._ended or self._carried or self._held or end):
            done = self._only(self._due[0], data, now)
            if done is not None:
                return done
        return self._responses_from(data, end, now, Output())

    def _only(self, due: Due, data: bytes, now: float) -> Sequence[Op] | None:
        """The hot path: the one response that is due, whole and to be passed on."""
        head = due.head
        if due.answer is not None or due.then is not None or due.request is None or head is None or len(data) < 8:
            return None
        if _START.unpack_from(data, 0) != (len(data) - 4, head.correlation_id):
            return None
        if due.fetched is not None and due.fetched.judge is not self.judge:
            return None
        self._due.clear()
        call = KafkaCall(head.correlation_id, True)
        return (Record(due.request, self._code(due, data, 0), due.started, now, call), Pass(len(data)))

    def _response(self, data: bytes, position: int, now: float, output: Output) -> int:
        if self._held is not None:
            return self._gathered_response(self._held, data, position, now, output)
        if not self._due:
            raise Malformed(0, "the server says what nobody asked for")
        due, available = self._due[0], len(data) - position
        least = 4 if due.head is None else 8
        if available < least:
            output.add(Need(least))
            return 0
        size = self._whole(due, data, position)
        if due.fetched is not None and due.fetched.judge is not self.judge:
            self._judge_again(due, due.fetched)
        wanted = max(self._code_end(due), due.then.need if due.then is not None else 0)
        if available < min(size, wanted):
            if wanted < ALL:
                output.add(Need(min(size, wanted)))
                return 0
            if size > self.judge.kafka.max_held:
                raise Malformed(0, f"a response of {size} bytes, more than kafka.max_held, has to be read")
            self._held = Gather(size, self._known, now)
            return self._gathered_response(self._held, data, position, now, output)
        self._answered(due, data, position, position + size, now, output, taken=False)
        return size

    def _whole(self, due: Due, data: bytes, position: int) -> int:
        """The size of the frame that begins here, if it is the one that is due."""
        if due.head is None:
            (size,) = _LENGTH.unpack_from(data, position)
            if size < 0:
                raise Malformed(0, f"a response of {size} bytes")
            return 4 + int(size)
        size, correlation = _START.unpack_from(data, position)
        if size < 4:
            raise Malformed(0, f"a response of {size} bytes")
        if correlation != due.head.correlation_id:
            raise Malformed(0, f"a response to {correlation} where {due.head.correlation_id} is due")
        return 4 + int(size)

    def _gathered_response(self, held: Gather, data: bytes, position: int, now: float, output: Output) -> int:
        size = self._take(held, data, position, output)
        if held.whole:
            frame = held.release()
            self._answered(self._due[0], frame, 0, len(frame), now, output, taken=True)
            self._held = None
        return size

    def _may_take(self, gather: Gather, available: int) -> None:
        if gather.exceeds(available, self.judge.kafka.max_held_together):
            raise Malformed(0, "the worker's connections hold more than kafka.max_held_together")

    def _answered(
        self, due: Due, data: bytes, start: int, stop: int, now: float, output: Output, *, taken: bool
    ) -> None:
        """The response that is due begins here. `taken`: its bytes are ours already."""
        made = due.then.make(data, start, stop) if due.then is not None else None
        self._due.popleft()
        record = due.record(now, self._code(due, data, start), True)
        if record is not None:
            output.add(record)
        if made is None:
            if taken:
                output.add(Inject(Direction.RESPONSE, data[start:stop]))
            else:
                output.take(Pass, stop - start)
            return
        consumed, ours = made
        if not taken:
            output.take(Drop, consumed)
        elif start + consumed < stop:
            ours += data[start + consumed : stop]
        if ours:
            output.add(Inject(Direction.RESPONSE, ours))
        if not taken and start + consumed < stop:
            output.take(Pass, stop - start - consumed)

    @staticmethod
    def _code_end(due: Due) -> int:
        """Bytes of a response up to its error code, with it; 0 if it has none."""
        place = _error_place(due.head.api_key, due.head.version) if due.head is not None and due.head.known else 0
        return place and place + _ERROR.size

    def _code(self, due: Due, data: bytes, start: int) -> int:
        place = self._code_end(due) - _ERROR.size
        if place < 0 or start + place + 2 > len(data) or (place & 1 and data[start + 8]):
            return due.code
        return int(_ERROR.unpack_from(data, start + place)[0]) or due.code

    def _bad_response(self, error: Malformed, size: int, now: float, output: Output) -> None:
        due, reason = self._due[0] if self._due else None, str(error)
        if due is not None and due.request is not None:
            due.request = because(due.request, reason)
        ours = any(one.answer is not None or one.request is None for one in self._due)
        if not self.judge.audit_only or self._held is not None or ours:
            self._end(output, Abort(reason))
            return
        self._state = State.UNREAD
        for record in self._records(now):
            output.add(record)
        output.take(Pass, size)

    def _release(self, now: float, output: Output) -> None:
        while self._due and self._due[0].answer is not None:
            due = self._due.popleft()
            assert due.answer is not None  # noqa: S101 -- seen just now
            if due.answer:
                output.add(Inject(Direction.RESPONSE, due.answer))
            record = due.record(now, due.code, False)
            if record is not None:
                output.add(record)
        if self._ending and not self._due and self._state is State.DISCARD and not self._ended:
            self._end(output, Close(self._ending))

    def _records(self, now: float) -> list[Record]:
        made = [due.record(now, due.code, False) for due in self._due]
        self._due.clear()
        return [record for record in made if record is not None]
