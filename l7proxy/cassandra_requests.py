"""CQL, from the client to the server: envelopes, alone or in segments, up to whole messages.

A message goes on as it came, or not at all. Of a segment with some that are refused, the others go on in one of our
own.
"""

from __future__ import annotations

from abc import abstractmethod
from enum import Enum, auto

from l7proxy.cassandra_known import CassandraKnown
from l7proxy.cassandra_parts import Large, envelopes
from l7proxy.cassandra_responses import Responses
from l7proxy.cql_judge import unread
from l7proxy.frames import State
from l7proxy.held import SMALL, Frame, Gather
from l7proxy.http1_exchange import Judge
from l7proxy.ops import CqlCall, CqlStatement, Direction, Inject, Record, Wait
from l7proxy.output import Output
from parsers.cassandra import (
    COMPRESSED,
    HEADER,
    RESPONSE,
    VERSIONS,
    Envelope,
    Opcode,
    Unsupported,
    read_plain_request,
    read_request_envelope,
)
from parsers.cassandra_compression import unpack_body
from parsers.cassandra_requests import Message, read_request
from parsers.cassandra_responses import PROTOCOL, refusal, unsupported
from parsers.cassandra_segments import SegmentHead, head_size, read_head, read_payload, write_segments
from parsers.malformed import Malformed

REQUEST = Direction.REQUEST
_MOST_ANSWERS = 1000
"""Answers of our own that wait for the server to come to an end of its own."""


class Step(Enum):
    """What becomes of a message. WAIT: nothing yet; it will be asked again."""

    PASS = auto()
    DROP = auto()
    WAIT = auto()


class Requests(Responses):
    """The half of a conversation that reads what the client says, up to whole messages."""

    __slots__ = ("_large", "_quiet", "_rest", "_speaks", "_stream", "_waits")

    def __init__(self, judge: Judge, known: CassandraKnown) -> None:
        super().__init__(judge, known)
        self._large: Large | None = None
        self._rest = b""
        """What has to wait of a segment, whose other messages have gone on."""
        self._waits = 0
        """Requests whose answers decide how the next one is read."""
        self._quiet = False
        """The next one waits until nothing is under way that leans on the keyspace; it is not looked at before."""
        self._stream: int | None = None
        """Where the request that is read would be answered, in the version that it `_speaks`."""
        self._speaks = VERSIONS[-1]

    @abstractmethod
    def _judge_message(self, head: Envelope, message: Message, now: float, output: Output) -> Step:
        """Decide on one. Raises Malformed."""

    @abstractmethod
    def _at_once(self, opcode: int, stream: int, data: bytes, start: int, stop: int, now: float) -> bool:
        """Whether the statement in a body passes, and then it has. Raises Malformed."""

    # -- bytes ---------------------------------------------------------------------------------------------------

    def _passing_requests(self, data: bytes, now: float) -> int:
        """The hot path: of how many bytes `data` begins with the whole statements that pass by themselves. What is
        anything else, or wrong, is to be looked at more closely."""
        held = self._gather is not None or self._large is not None or self._rest
        if self._state is not State.FRAMES or not self._ready or held:
            return 0
        place, stop = 0, len(data)
        step, least = self._passing_envelope, HEADER
        if self._framed:
            step, least = self._passing_segment, head_size(self._packed)
        try:
            while stop - place >= least and (size := step(data, place, stop, now)):
                place += size
        except Malformed:
            pass
        return place

    def _passing_envelope(self, data: bytes, place: int, stop: int, now: float) -> int:
        stream, opcode, size = read_plain_request(data, place, self._version)
        if not 0 < size <= stop - place:
            return 0
        return size if self._at_once(opcode, stream, data, place + HEADER, place + size, now) else 0

    def _passing_segment(self, data: bytes, place: int, stop: int, now: float) -> int:
        """With one envelope in it."""
        head = read_head(data, place, self._packed)
        if not head.alone or head.whole > stop - place:
            return 0
        payload = read_payload(data, place, head)
        stream, opcode, size = read_plain_request(payload, 0, self._version) if len(payload) >= HEADER else (0, 0, 0)
        if size != len(payload) or not self._at_once(opcode, stream, payload, HEADER, size, now):
            return 0
        return head.whole

    def _step(self, data: bytes, position: int, now: float, output: Output) -> int:
        self._stream = None
        if self._rest:
            rest, self._rest = self._rest, b""
            return 0 if self._envelopes(rest, None, now, output) else -1
        if self._large is not None and self._large.whole:
            return 0 if self._whole_large(self._large, now, output) else -1
        return self._next(data, position, now, output)

    def _frame(self, data: bytes, position: int, now: float, output: Output) -> int:
        if self._framed:
            return self._request_segment(data, position, now, output)
        return self._request_envelope(data, position, now, output)

    def _whole_frame(self, frame: Frame, now: float, output: Output) -> bool:
        if self._framed:
            head = read_head(frame.data, frame.start, self._packed)
            return self._whole_request_segment(frame, head, now, output)
        return self._whole(frame, self._read_head(frame.data, frame.start), now, output)

    # -- envelopes -----------------------------------------------------------------------------------------------

    def _read_head(self, data: bytes, place: int) -> Envelope:
        """The header of a request. Raises Malformed."""
        self._stream = int.from_bytes(data[place + 2 : place + 4], "big", signed=True)
        self._speaks = data[place] if data[place] in VERSIONS else self._speaks
        version = self._version if self._open else 0
        return read_request_envelope(data, place, version, self.judge.cassandra.max_frame)

    def _request_envelope(self, data: bytes, position: int, now: float, output: Output) -> int:
        available = len(data) - position
        if data[position] not in VERSIONS:
            # Older versions have shorter headers: of those there may never be more.
            raise Unsupported(position, data[position])
        if available < HEADER:
            return -1
        head = self._read_head(data, position)
        size = HEADER + head.size
        if available >= size:
            return size if self._whole(Frame(data, position, position + size, False), head, now, output) else -1
        self._may_hold(size)
        self._gather = Gather(size, self._known, now)
        return 0

    def _whole(self, frame: Frame, head: Envelope, now: float, output: Output) -> bool:
        """Decide on a whole envelope. False: it has to wait."""
        step = self._message(head, frame.data, frame.start + HEADER, frame.stop, now, output)
        if step is Step.WAIT:
            output.add(Wait())
            return False
        if step is Step.PASS:
            frame.goes(output)
        else:
            frame.ends(output)
        return True

    def _message(self, head: Envelope, data: bytes, start: int, stop: int, now: float, output: Output) -> Step:
        """Decide on what an envelope holds. Raises Malformed."""
        self._stream = head.stream
        if len(self._answers) > _MOST_ANSWERS and not self._carried:
            self._release(now, output)
        if self._has_to_wait(head):
            return Step.WAIT
        self._quiet = False
        if head.stream in self._due:
            raise Malformed(start, f"a second request on stream {head.stream}, which waits for its answer")
        if head.flags & COMPRESSED:
            if self._framed or not self._compression:
                raise Malformed(start, "a compressed body, though that was not agreed on")
            data = unpack_body(self._compression, data[start:stop], self.judge.cassandra.max_held)
            start, stop = 0, len(data)
        most = self.judge.cassandra.max_batch
        message = read_request(head.opcode, head.version, head.flags, data, start, stop, most)
        return self._judge_message(head, message, now, output)

    def _has_to_wait(self, head: Envelope) -> bool:
        """Whether a request has to, whatever it says: it may be long, and is asked for at every answer."""
        if self._waits or (self._quiet and self._leaning):
            return True
        if self._due and head.opcode == Opcode.STARTUP and not self._open:
            return True
        return len(self._due) >= self.judge.cassandra.max_in_flight or len(self._answers) > _MOST_ANSWERS

    # -- segments ------------------------------------------------------------------------------------------------

    def _request_segment(self, data: bytes, position: int, now: float, output: Output) -> int:
        available = len(data) - position
        if available < head_size(self._packed):
            return -1
        head = read_head(data, position, self._packed)
        size = head.whole
        if available >= size:
            frame = Frame(data, position, position + size, False)
            return size if self._whole_request_segment(frame, head, now, output) else -1
        self._may_hold(size)
        self._gather = Gather(size, self._known, now)
        return 0

    def _whole_request_segment(self, frame: Frame, head: SegmentHead, now: float, output: Output) -> bool:
        """Decide on a whole segment. False: it has to wait, all of it."""
        payload = read_payload(frame.data, frame.start, head)
        if head.alone and self._large is None:
            return self._envelopes(payload, frame, now, output)
        if head.alone:
            raise Malformed(frame.start, "a segment between those of a large message, which a server would run first")
        if self._large is None:
            if len(payload) < HEADER:
                raise Malformed(0, "a large message whose first segment does not hold its header")
            size = HEADER + self._read_head(payload, 0).size
            self._may_hold(size)
            self._large = Large(size, self._known, now)
        self._may_hold(self._large.size)
        self._large.add(frame, payload)
        frame.ends(output)
        return True

    def _whole_large(self, large: Large, now: float, output: Output) -> bool:
        envelope = large.envelope()
        head = self._read_head(envelope, 0)
        step = self._message(head, envelope, HEADER, len(envelope), now, output)
        if step is Step.WAIT:
            output.add(Wait())
            return False
        segments = large.release()
        self._large = None
        if step is Step.PASS:
            output.add(Inject(REQUEST, segments))
        return True

    def _envelopes(self, payload: bytes, frame: Frame | None, now: float, output: Output) -> bool:
        """Decide on the envelopes of a segment; `frame` None: it is what was left of one. False: nothing was taken."""
        kept: list[bytes] = []
        size = 0
        try:
            for head, start, stop in envelopes(payload, 0, self._read_head):
                step = self._message(head, payload, start, stop, now, output)
                if step is Step.WAIT:
                    return self._split(payload, start - HEADER, kept, frame, output)
                if step is Step.PASS:
                    kept.append(payload[start - HEADER : stop])
                    size += HEADER + head.size
        except Malformed:
            if not self.judge.audit_only:
                self._remake(kept, output)
            elif frame is None:
                self._rest = payload
            raise
        if size == len(payload) and frame is not None:
            frame.goes(output)
            return True
        if frame is not None:
            frame.ends(output)
        self._remake(kept, output)
        return True

    def _split(self, payload: bytes, place: int, kept: list[bytes], frame: Frame | None, output: Output) -> bool:
        """From `place` on, a segment has to wait."""
        taken = place > 0 or frame is None
        if taken:
            if frame is not None:
                frame.ends(output)
            self._remake(kept, output)
            self._rest = payload[place:]
            if self._gather is not None:
                self._gather.release()
                self._gather = None
        output.add(Wait())
        return False

    def _remake(self, kept: list[bytes], output: Output) -> None:
        if kept:
            output.add(Inject(REQUEST, write_segments(b"".join(kept), self._packed)))

    # -- endings -------------------------------------------------------------------------------------------------

    def _little(self) -> bool:
        return super()._little() and (self._large is None or self._large.have < SMALL)

    def _waiting(self) -> bool:
        return bool(self._waits or self._quiet)

    def _overdue(self, before: float) -> bool:
        return any(due.started < before and (due.leans or due.then is not None) for due in self._due.values())

    def _crowds(self, before: float, direction: Direction) -> bool:
        held = (self._held, self._large_response) if direction else (self._gather, self._large)
        return self._known.wants(self.judge.cassandra.max_held_together, before, held)

    def _within(self) -> bool:
        return self._large is not None

    def _forget(self) -> bytes:
        large, rest, self._large, self._rest = self._large, self._rest, None, b""
        held = (large.release() if large is not None else b"") + super()._forget()
        return write_segments(rest, self._packed) if rest else held

    def _malformed(self, error: Malformed, now: float, output: Output) -> None:
        request = unread(self.judge, error.text)
        output.add(self._record(request, now))
        if self.judge.audit_only:
            self._go_on_unread(request.decision.reason, now, output)
            return
        if isinstance(error, Unsupported) and error.version < RESPONSE and not self._open:
            self._answers.append(unsupported(error.version))
        elif self._stream is not None and self._stream >= 0 and self._stream not in self._due:
            self._answers.append(refusal(self._speaks, self._stream, PROTOCOL, request.decision.reason))
        self._close_behind(request.decision.reason)

    def _record(self, request: CqlStatement, now: float, consistency: int = -1, code: int = -1) -> Record:
        """Of a request that did not go on."""
        stream = -1 if self._stream is None else self._stream
        return Record(request, code, now, now, CqlCall(stream, consistency, False))

    def _unfinished(self, now: float) -> Record:
        self._stream = None
        return self._record(unread(self.judge, "the client ended the connection within a request"), now)
