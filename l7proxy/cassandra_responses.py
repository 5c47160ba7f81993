"""CQL, from the server to the client: answers find their requests by the stream id, in any order.

What has not to be understood passes by count behind its header: no rows are read, copied or decompressed, but that
segments (version 5) are opened to see where envelopes begin.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from l7proxy.cassandra_parts import Due, Large, envelopes
from l7proxy.cassandra_shared import Shared
from l7proxy.cql_judge import because, unread
from l7proxy.frames import State
from l7proxy.held import SMALL, Frame, Gather
from l7proxy.ops import Abort, Close, CqlCall, Direction, Inject, Need, Op, Pass, Record
from l7proxy.output import Output
from parsers.cassandra import COMPRESSED, HEADER, Envelope, Opcode, Reader, read_response_envelope
from parsers.cassandra_compression import unpack_body
from parsers.cassandra_responses import message
from parsers.cassandra_segments import SegmentHead, head_size, read_head, read_payload, write_segments
from parsers.malformed import Malformed

RESPONSE = Direction.RESPONSE
_SHORT = 65_536
"""Bytes of an error or an event that is read; a longer one passes."""


class Responses(Shared, ABC):
    """The half of a conversation that reads what the server says."""

    __slots__ = ()

    @abstractmethod
    def _event(self, reader: Reader) -> bool:
        """Hear of an event. False: the client does not."""

    def _responses(self, data: bytes, end: bool, now: float) -> Sequence[Op]:
        records: list[Op] = []
        position = 0
        if not (self._carried or self._answers or self._ending or self._ended or end):
            records, position = self._passing_answers(data, now)
            if position and position == len(data):
                records.append(Pass(position))
                return records
        output = Output()
        output.ops = records
        output.take(Pass, position)
        return self._responses_from(data, end, now, output)

    def _release(self, now: float, output: Output) -> None:
        if self._left:
            return
        if self._answers:
            made = b"".join(write_segments(one, self._packed) if self._framed else one for one in self._answers)
            self._answers.clear()
            output.add(Inject(RESPONSE, made))
        if self._ending and not self._due and self._state is State.DISCARD and not self._ended:
            self._end(output, Close(self._ending))

    def _response(self, data: bytes, position: int, now: float, output: Output) -> int:
        if self._held is not None:
            return self._gathered_response(self._held, data, position, now, output)
        if self._framed:
            return self._segment(data, position, now, output)
        return self._envelope(data, position, now, output)

    def _hold(self, size: int, data: bytes, position: int, now: float, output: Output) -> int:
        """Hold back what begins here until `size` bytes are there."""
        self._may_hold(size)
        self._held = Gather(size, self._known, now)
        return self._gathered_response(self._held, data, position, now, output)

    def _may_hold(self, size: int) -> None:
        """Raise Malformed if a message or segment of `size` bytes is not to be held (any longer). Small ones are,
        however much others hold: those of clients for a short time only."""
        if size > self.judge.cassandra.max_held:
            raise Malformed(0, f"{size} bytes to be read as a whole, more than cassandra.max_held")
        if size > SMALL and self._known.held > self.judge.cassandra.max_held_together:
            raise Malformed(0, "the worker's connections hold more than cassandra.max_held_together")

    def _may_take(self, gather: Gather, available: int) -> None:
        self._may_hold(gather.size)

    def _gathered_response(self, held: Gather, data: bytes, position: int, now: float, output: Output) -> int:
        size = self._take(held, data, position, output)
        if held.whole:
            whole = held.peek()
            frame = Frame(whole, 0, len(whole), True)
            if self._framed:
                self._whole_segment(frame, read_head(whole, 0, self._packed), now, output)
            else:
                self._whole_envelope(read_response_envelope(whole, 0), frame, now, output)
            self._let_go()
        return size

    # -- envelopes -----------------------------------------------------------------------------------------------

    def _envelope(self, data: bytes, position: int, now: float, output: Output) -> int:
        available = len(data) - position
        if available < HEADER:
            output.add(Need(HEADER))
            return 0
        head = read_response_envelope(data, position)
        size = HEADER + head.size
        if available >= size:
            self._whole_envelope(head, Frame(data, position, position + size, False), now, output)
            return size
        due = self._due_for(head)
        if self._wants(head, due):
            return self._hold(size, data, position, now, output)
        self._answered(head, due, -1, now, output)
        output.take(Pass, size)
        return size

    def _whole_envelope(self, head: Envelope, frame: Frame, now: float, output: Output) -> None:
        if self._heard(head, frame.data, frame.start + HEADER, frame.stop, now, output):
            frame.goes(output, RESPONSE)
        else:
            frame.ends(output)

    def _due_for(self, head: Envelope) -> Due | None:
        """What the server answers here; None: it is an event. Raises Malformed."""
        if head.size > self.judge.cassandra.max_frame:
            raise Malformed(5, f"a body of {head.size} bytes")
        refused = head.opcode == Opcode.ERROR and not self._open
        if self._version and head.version != self._version and not refused:
            raise Malformed(0, f"an answer of version {head.version} to one of {self._version}")
        if head.opcode == Opcode.EVENT:
            if head.stream != -1 or not self._open:
                raise Malformed(2, f"an event on stream {head.stream}")
            return None
        due = self._due.get(head.stream)
        if due is None and refused:
            # A server that does not speak the version may answer on any stream.
            due = next(iter(self._due.values()), None)
        if due is None:
            raise Malformed(2, f"an answer on stream {head.stream}, where nothing is due")
        return due

    @staticmethod
    def _wants(head: Envelope, due: Due | None) -> bool:
        """Whether the body has to be read."""
        if due is None:
            return head.size <= _SHORT
        return due.then is not None or (head.opcode == Opcode.ERROR and head.size <= _SHORT)

    def _heard(self, head: Envelope, data: bytes, start: int, stop: int, now: float, output: Output) -> bool:
        """A whole answer. False: the client does not hear of it."""
        due, code = self._due_for(head), -1
        if due is None:
            return not self._wants(head, None) or self._event(self._reader(head, data, start, stop))
        if self._wants(head, due):
            reader = self._reader(head, data, start, stop)
            if head.opcode == Opcode.ERROR:
                code = reader.int()
            if due.then is not None:
                due.then(head.opcode, code, reader)
        self._answered(head, due, code, now, output)
        return not due.own

    def _reader(self, head: Envelope, data: bytes, start: int, stop: int) -> Reader:
        if head.flags & COMPRESSED:
            if self._framed or not self._compression:
                raise Malformed(1, "a compressed answer, though nobody asked for that")
            data = unpack_body(self._compression, data[start:stop], self.judge.cassandra.max_held)
            start, stop = 0, len(data)
        return message(head.flags, data, start, stop)

    def _answered(self, head: Envelope, due: Due | None, code: int, now: float, output: Output) -> None:
        """An answer begins; nothing is due for its request any more."""
        if due is None:
            return
        if not self._open and head.opcode == Opcode.ERROR:
            # It is up to the client to try with another version; what a server would read next is not certain.
            self._due.clear()
            self._ending, self._state = self._ending or "the server refused to begin", State.DISCARD
        elif self._due.get(head.stream) is due:
            del self._due[head.stream]
        self._leaning -= due.leans
        record = due.record(head.stream, now, code, True)
        if record is not None:
            output.add(record)

    # -- segments ------------------------------------------------------------------------------------------------

    def _segment(self, data: bytes, position: int, now: float, output: Output) -> int:
        available, least = len(data) - position, head_size(self._packed)
        if available < least:
            output.add(Need(least))
            return 0
        head = read_head(data, position, self._packed)
        if self._left:
            if head.alone or head.yields > self._left:
                raise Malformed(0, "a segment that is not the next of its message")
            self._left -= head.yields
            output.take(Pass, head.whole)
        elif available < head.whole:
            return self._hold(head.whole, data, position, now, output)
        else:
            self._whole_segment(Frame(data, position, position + head.whole, False), head, now, output)
        return head.whole

    def _whole_segment(self, frame: Frame, head: SegmentHead, now: float, output: Output) -> None:
        payload = read_payload(frame.data, frame.start, head, trusted=True)
        if self._large_response is not None:
            if head.alone:
                raise Malformed(0, "a segment that is not the next of its message")
            self._next_part(self._large_response, frame, payload, now, output)
        elif head.alone:
            self._contained(frame, payload, now, output)
        else:
            self._first_part(frame, payload, now, output)

    def _contained(self, frame: Frame, payload: bytes, now: float, output: Output) -> None:
        kept, size = [], 0
        for head, start, stop in envelopes(payload, 0, read_response_envelope):
            if self._heard(head, payload, start, stop, now, output):
                kept.append(payload[start - HEADER : stop])
                size += HEADER + head.size
        if size == len(payload):
            frame.goes(output, RESPONSE)
            return
        frame.ends(output)
        if kept:
            output.add(Inject(RESPONSE, write_segments(b"".join(kept), self._packed)))

    def _first_part(self, frame: Frame, payload: bytes, now: float, output: Output) -> None:
        if len(payload) < HEADER:
            raise Malformed(0, "a large message whose first segment does not hold its header")
        head = read_response_envelope(payload, 0)
        size = HEADER + head.size
        due = self._due_for(head)
        if self._wants(head, due):
            self._may_hold(size)
            self._large_response = Large(size, self._known, now)
            self._next_part(self._large_response, frame, payload, now, output)
            return
        if len(payload) > size:
            raise Malformed(0, "a segment that goes on behind its message")
        self._left = size - len(payload)
        self._answered(head, due, -1, now, output)
        frame.goes(output, RESPONSE)

    def _next_part(self, large: Large, frame: Frame, payload: bytes, now: float, output: Output) -> None:
        self._may_hold(large.size)
        large.add(frame, payload)
        self._let_go()
        frame.ends(output)
        if not large.whole:
            return
        envelope = large.envelope()
        kept = self._heard(read_response_envelope(envelope, 0), envelope, HEADER, len(envelope), now, output)
        segments = large.release()
        self._large_response = None
        if kept:
            output.add(Inject(RESPONSE, segments))

    # -- endings -------------------------------------------------------------------------------------------------

    def _bad_response(self, error: Malformed, size: int, now: float, output: Output) -> None:
        reason = error.text
        told = [due for due in self._due.values() if due.request is not None]
        for due in told:
            assert due.request is not None  # noqa: S101 -- seen just now
            due.request = because(due.request, reason)
        if not told:
            output.add(Record(unread(self.judge, reason), -1, now, now, CqlCall(-1, -1, False)))
        if not self.judge.audit_only or self._halfway():
            self._end(output, Abort(reason))
            return
        self._state = State.UNREAD
        for record in self._records(now):
            output.add(record)
        if held := self._forget_response():
            output.add(Inject(RESPONSE, held))
        if size > 0:
            output.take(Pass, size)

    def _halfway(self) -> bool:
        return bool(self._answers or any(due.own for due in self._due.values()))

    def _forget_response(self) -> bytes:
        """Let go of what is held; what was held."""
        large, self._large_response = self._large_response, None
        return (large.release() if large is not None else b"") + self._let_go()

    def _records(self, now: float) -> list[Record]:
        made = [due.record(stream, now, -1, False) for stream, due in self._due.items()]
        self._due.clear()
        self._leaning = 0
        return [record for record in made if record is not None]
