"""Kafka, from the client to the server: frames, whole ones or such as are read while they pass."""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from l7proxy.frames import MOST_HEARD, State
from l7proxy.held import Frame, Gather, remember
from l7proxy.http1_exchange import Judge
from l7proxy.kafka_exchange import Names, because, examine, unread
from l7proxy.kafka_known import KafkaKnown
from l7proxy.kafka_large import LARGE_FROM, Large, begin
from l7proxy.kafka_responses import Due, Responses
from l7proxy.kafka_sasl import Sasl
from l7proxy.offers import Group, Offer, group_of, masked
from l7proxy.ops import Direction, Drop, KafkaCall, KafkaRequest, Op, Pass, Record, Wait
from l7proxy.output import Output
from parsers.kafka import Head
from parsers.kafka_names import Item
from parsers.kafka_repeat import PRODUCE, begins, prefix, repeated
from parsers.malformed import Malformed
from policies.verdict import Verdict
from sockmap.splice_lanes import COMPACT, PREFIX, RECORDS, Form

_LENGTH = struct.Struct(">i")


class Allowed(NamedTuple):
    """What is remembered of a Produce request that passed, and its header; `body`: bytes before its message."""

    request: KafkaRequest
    version: int
    client_id: str | None
    body: int


@cache
def _mask(size: int, compact: bool) -> bytes:
    """Of a prefix: all but the length, the correlation id, the partition, and the records' length that may end it."""
    end = 4 if compact else 8
    return bytes(4) + b"\xff" * 4 + bytes(4) + b"\xff" * (size - 12 - end) + bytes(end)


class Requests(Responses):
    """The half of a conversation that reads what the client says, up to whole requests."""

    __slots__ = ("_large", "_names", "_sasl", "_waits")

    def __init__(self, judge: Judge, known: KafkaKnown, names: Names) -> None:
        super().__init__(judge, known)
        self._names = names
        self._sasl = Sasl()
        self._waits = False
        """The server's next words decide how the next request is read."""
        self._large: Large | None = None

    @abstractmethod
    def _request(self, frame: Frame, now: float, output: Output) -> bool:
        """Decide on one. False: it has to wait for what the server says. Raises Malformed."""

    @abstractmethod
    def _ask(self, head: Head, items: Sequence[Item], now: float, output: Output) -> bool:
        """Whether the server has to be asked for the names of topics first; it is."""

    # -- frames --------------------------------------------------------------------------------------------------

    def _step(self, data: bytes, position: int, now: float, output: Output) -> int:
        if self._state is State.FRAMES:
            if self._ending:
                self._close_behind(self._ending)
            elif self._waits:
                if position < len(data) or self._gather is not None:
                    output.add(Wait())
                return -1
        elif self._state is State.LARGE:
            return self._go_on(data, position, now, output) if position < len(data) else -1
        return self._next(data, position, now, output)

    def _frame(self, data: bytes, position: int, now: float, output: Output) -> int:
        options, available = self.judge.kafka, len(data) - position
        if len(self._due) >= options.max_pipeline and not self._room(now, output):
            output.add(Wait())
            return -1
        if available < 4:
            return -1
        size: int = _LENGTH.unpack_from(data, position)[0]
        if not (0 < size <= options.max_request or (size == 0 and self._sasl.raw)):
            raise Malformed(0, f"a request of {size} bytes")
        if available >= 4 + size:
            frame = Frame(data, position, position + 4 + size, False)
            return 4 + size if self._whole_frame(frame, now, output) else -1
        if size > LARGE_FROM and not self._sasl.raw:
            return self._begin(data, position, 4 + size, now, output)
        self._gather = Gather(4 + size, self._known, now)
        return 0

    def _room(self, now: float, output: Output) -> bool:
        """Where our own answers fill the queue, nobody else would move it on."""
        if not self._carried:
            self._release(now, output)
        return len(self._due) < self.judge.kafka.max_pipeline

    def _whole_frame(self, frame: Frame, now: float, output: Output) -> bool:
        if self._sasl.takes(frame.data, frame.start + 4, frame.stop):
            self._due.append(Due(None, None, now))
            frame.goes(output)
            return True
        if self._repeats(repeated, frame, now):
            frame.goes(output)
            return True
        if not self._request(frame, now, output):
            output.add(Wait())
            return False
        self._names.forget()
        return True

    def _again(self, data: bytes, now: float) -> Sequence[Op] | None:
        """The hot path: one whole request that asks for the same as one that was allowed, and nothing that it has to
        wait for."""
        size, options = len(data), self.judge.kafka
        if self._state is not State.FRAMES or self._gather is not None or self._waits or self._ending or self._ended:
            return None
        if size < 8 or _LENGTH.unpack_from(data, 0)[0] != size - 4 or size - 4 > options.max_request:
            return None
        if self._sasl.raw or len(self._due) >= options.max_pipeline:
            return None
        if not self._repeats(repeated, Frame(data, 0, size, False), now):
            return None
        self.head_pending = False
        return (Pass(size),)

    def _repeats(self, find: Callable[[bytes, int, int], bytes | None], frame: Frame, now: float) -> bool:
        """Whether the request asks for the same as one that was allowed; what it is due is noted then."""
        data, start = frame.data, frame.start
        common = find(data, start, frame.stop)
        found: Allowed | None = None if common is None else self.judge.calls.get((self._names.server, common))
        if found is None:
            return False
        if self.offers is not None:
            self._offer(frame, found)
        request, version, client_id, body = found
        (number,) = _LENGTH.unpack_from(data, start + 8)
        self._due.append(Due(request, Head(PRODUCE, version, number, client_id, start + body, frame.stop), now))
        return True

    def _offer(self, frame: Frame, found: Allowed) -> None:
        """Others that ask for the same, of whatever partition, may take the fast path."""
        size, compact = prefix(frame.data, frame.start)
        if not 0 < size <= PREFIX or frame.start + size > len(frame.data):
            return
        mask = _mask(size, compact)
        known = masked(frame.data[frame.start : frame.start + size], mask)
        self._offers(Offer(self.group(), known, mask, COMPACT if compact else RECORDS, 0, 0, found))

    def form(self) -> Form:
        """See `l7proxy.frames.Frames`."""
        return Form(0, 4, self.judge.kafka.max_request + 4, 8, 4, 8, 4, False, bytes(16), bytes(16))

    def group(self) -> Group:
        """See `l7proxy.frames.Frames`."""
        return group_of(self.judge, self._names.server)

    def repeats(self, now: float) -> bool:
        """See `l7proxy.frames.Frames`."""
        return self._quiet_here() and not (self._waits or self._sasl.raw or self._large is not None)

    def room(self) -> int:
        """See `l7proxy.frames.Frames`."""
        return self.judge.kafka.max_pipeline - len(self._due)

    def hears(self) -> bool:
        """See `l7proxy.frames.Frames`."""
        if len(self._due) > MOST_HEARD:
            return False
        for due in self._due:
            if due.answer is not None or due.then is not None or due.fetched is not None or due.request is None:
                return False
        return True

    def went(self, entry: Any, identity: int, now: float) -> None:
        """See `l7proxy.frames.Frames`."""
        found: Allowed = entry
        number = identity - (1 << 32) if identity >> 31 else identity
        self._due.append(Due(found.request, Head(PRODUCE, found.version, number, found.client_id, 0, 0), now))

    def heard(self, identity: int, data: bytes, now: float) -> Record:
        """See `l7proxy.frames.Frames`."""
        if not self._due:
            raise Malformed(0, "the server says what nobody asked for")
        due = self._due.popleft()
        self._whole(due, data, 0)
        record = due.record(now, self._code(due, data, 0), True)
        if record is None or due.then is not None:
            raise Malformed(0, "an answer that was to be read has gone straight")
        return record

    def _remember(
        self, find: Callable[[bytes, int, int], bytes | None], frame: Frame, head: Head, request: KafkaRequest
    ) -> None:
        """This one was allowed, and so are others that ask for the same."""
        common = find(frame.data, frame.start, frame.stop)
        if common is not None and request.decision.verdict is Verdict.FORWARDED:
            allowed = Allowed(request, head.version, head.client_id, head.body - frame.start)
            remember(self.judge, (self._names.server, common), allowed)

    # -- large ones ----------------------------------------------------------------------------------------------

    def _begin(self, data: bytes, position: int, size: int, now: float, output: Output) -> int:
        """A large frame of which a part is there."""
        most = self.judge.kafka.max_held
        frame = Frame(data, position, position + size, False)
        if self._repeats(begins, frame, now):
            frame.goes(output)
            return size
        found = begin(data, position, size, most)
        if found is None:
            if len(data) - position < LARGE_FROM // 2:
                return -1
            if size > most:
                raise Malformed(0, f"a request of {size} bytes, more than kafka.max_held")
            self._gather = Gather(size, self._known, now)
            return 0
        large, place = found
        if large.scan.count > self.judge.kafka.max_names:
            raise Malformed(0, f"a request names {large.scan.count} things, more than kafka.max_names,")
        if self._ask(large.head, large.items, now, output):
            output.add(Wait())
            return -1
        self._large, self._state = large, State.LARGE
        outcome = examine(large.head, large.items, False, self._names, self.judge)
        if outcome.refused:
            self._turn(large, outcome.refused)
        else:
            large.passed = True
            if large.scan.acks:
                large.due = Due(outcome.request, large.head, now)
                self._due.append(large.due)
                self._remember(begins, frame, large.head, outcome.request)
        output.take(large.way, place - position)
        return self._piece(large, place - position, now, output)

    def _go_on(self, data: bytes, position: int, now: float, output: Output) -> int:
        large = self._large
        assert large is not None  # noqa: S101 -- made when this state was entered
        count = len(large.scan.topics)
        size = large.step(data, position)
        if not size:
            return -1
        if len(large.scan.topics) > count and large.way is Pass:
            item = large.scan.item
            refused = examine(large.head, (item,), False, self._names, self.judge).refused
            if refused:
                self._turn(large, refused)
        output.take(large.way, size)
        return self._piece(large, size, now, output)

    def _turn(self, large: Large, refused: Mapping[Item, int]) -> None:
        """From here on nothing of it goes to the server, which will not answer it either."""
        large.way, large.scan.keep = Drop, True
        if self._due and self._due[-1] is large.due:
            self._due.pop()
        large.due = None
        large.refused.update(refused)

    def _piece(self, large: Large, size: int, now: float, output: Output) -> int:
        """A piece was taken; it may have been the last."""
        if large.scan.done:
            self._large, self._state = None, State.FRAMES
            self._read(large, now, output)
            self._names.forget()
        return size

    def _read(self, large: Large, now: float, output: Output) -> None:
        outcome = examine(large.head, large.items, False, self._names, self.judge)
        if large.way is Pass:
            if large.due is not None:
                large.due.request = outcome.request
            else:
                output.add(Record(outcome.request, 0, now, now, KafkaCall(large.head.correlation_id, False)))
            return
        request = outcome.request
        if large.passed:
            request = because(request, "its connection ends, for part of the request has gone on")
        refused = {**large.refused, **outcome.refused}
        large.refused.update(outcome.refused)
        answer = large.answer()
        self._due.append(Due(request, large.head, now, answer or b"", min(refused.values())))
        if large.passed or answer is None:
            self._close_behind(request.decision.reason)

    # -- endings -------------------------------------------------------------------------------------------------

    def _waiting(self) -> bool:
        return self._waits

    def _overdue(self, before: float) -> bool:
        return bool(self._due) and self._due[0].started < before

    def _crowds(self, before: float, direction: Direction) -> bool:
        held = self._held if direction else self._gather
        return self._known.wants(self.judge.kafka.max_held_together, before, (held,))

    def _within(self) -> bool:
        return self._large is not None

    def _halfway(self) -> bool:
        return self._held is not None or self._waits or any(one.answer is not None for one in self._due)

    def _forget(self) -> bytes:
        if self._large is not None and self._due and self._due[-1] is self._large.due:
            self._due.pop()
        self._large = None
        return super()._forget()

    def _malformed(self, error: Malformed, now: float, output: Output) -> None:
        self._broken(unread(str(error), self.judge), None, now, output)

    def _broken(self, request: KafkaRequest, head: Head | None, now: float, output: Output) -> None:
        """A request that ends its connection. Where nothing is enforced, all goes on unread."""
        if self.judge.audit_only:
            number = head.correlation_id if head is not None else 0
            output.add(Record(request, 0, now, now, KafkaCall(number, False)))
            self._go_on_unread(request.decision.reason, now, output)
            return
        self._close_behind(request.decision.reason)
        self._due.append(Due(request, head, now, b""))

    def _unfinished(self, now: float) -> Record:
        request = unread("the client ended the connection within a request", self.judge)
        if self._large is not None and self._large.due is not None:
            request = because(self._large.due.request or request, "the client ended the connection within it")
        return Record(request, 0, now, now, KafkaCall(0, False))
