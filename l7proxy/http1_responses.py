"""HTTP/1.1, from the server to the client: responses paired with requests, our own answers in their turn."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from enum import IntEnum, auto
from functools import lru_cache

from l7proxy.http1_exchange import CACHED_HEAD, Exchange, Judge, malformed
from l7proxy.ops import FOREVER, Abort, Close, Direction, Inject, Op, Pass, Record, Wait
from l7proxy.output import Output
from parsers.http1 import CHUNKED, END, UNTIL_END, Refused, ResponseHead, answer, cached_response, parse_response
from parsers.http1_chunks import BadChunks, Chunks
from parsers.http1_fields import BARE_LF


class State(IntEnum):
    """Where one direction stands.

    HEAD: between messages or in a head. COUNT: in a body of known length. CHUNKS: in a chunked one. REST: in one that
    ends with the connection. STALL: behind a request to upgrade. TUNNEL: in another protocol, by count. UNREAD:
    nothing is understood any more, and nothing enforced. DISCARD: nothing more is taken.
    """

    HEAD = auto()
    COUNT = auto()
    CHUNKS = auto()
    REST = auto()
    STALL = auto()
    TUNNEL = auto()
    UNREAD = auto()
    DISCARD = auto()


HEAD, COUNT, CHUNKS, REST, STALL, TUNNEL, UNREAD, DISCARD = State
_PREFIX = b"HTTP/1."
_GIVEN_UP = re.compile(rb"HTTP/1\.[01] 408 ")


@lru_cache(maxsize=1024)
def _whole_answer(head: bytes, most: int) -> tuple[int, Pass]:
    """A final answer's code, and its length with its body; a length of 0 if that cannot be told by its head."""
    try:
        parsed = parse_response(head, most)
    except Refused:
        return 0, Pass(0)
    known = parsed.code >= 200 and parsed.body(to_head=False) >= 0
    return parsed.code, Pass(len(head) + parsed.body(to_head=False) if known else 0)


class Responses:
    """The half of a conversation that reads what the server says; it holds what both halves share."""

    __slots__ = ("_answers", "_due", "_ending", "_flight", "_request", "_response", "judge", "on_h2c")

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.on_h2c: Callable[[Exchange, float, str], None] | None = None
        """Told of the request with which the server goes on in HTTP/2, when it came, and why it is the last, if so."""
        self._flight: deque[tuple[Exchange, float]] = deque()
        """Requests without a final answer, oldest first, and when they came."""
        self._request = self._response = HEAD
        self._answers: Chunks | None = None
        self._due = False
        """The relay has been given a count that it has not yet met."""
        self._ending = ""
        """Why the connection closes once nothing is in flight."""

    def _responses(self, data: bytes, end: bool, now: float) -> Sequence[Op]:
        if self._response is HEAD and self._flight and self._flight[0][0].answer is None:
            done = self._whole(data, now)
            if done is not None:
                return done
        output = Output()
        try:
            position = self._read_responses(data, end, now, output)
        except (Refused, BadChunks) as error:
            if self.judge.audit_only:
                self._audit_response(str(error), now, output)
                output.take(Pass, len(data) - output.taken)
            else:
                self._bad_response(str(error), now, output)
            return output.done()
        if end:
            self._server_ended(output, position < len(data))
        return output.done()

    def _whole(self, data: bytes, now: float) -> Sequence[Op] | None:
        """The hot path: one whole response of known length, and nothing special about it."""
        stop = data.find(END) + 4
        if not 3 < stop <= CACHED_HEAD:
            return None
        flight = self._flight
        exchange, started = flight[0]
        code, whole = _whole_answer(data[:stop], self.judge.options.max_headers)
        if whole.size != len(data) or exchange.to_head or self._request is not HEAD or len(flight) > 1 or self._ending:
            return None
        flight.popleft()
        return (Record(exchange.request, code, started, now), whole)

    def _read_responses(self, data: bytes, end: bool, now: float, output: Output) -> int:
        """Up to where the server's bytes were read; perhaps beyond what is there."""
        position = 0
        if self._due and not end:
            self._due = False
            if self._response is COUNT:
                self._response = HEAD
        while not self._due:
            if self._response is HEAD:
                if self._release(now, output):
                    break
                before = position
                position = self._head(data, position, end, now, output)
                if position == before and self._response is not UNREAD:
                    break
            elif self._response is CHUNKS:
                before = position
                position = self._chunk(data, position, output)
                if position == before:
                    break
            else:
                position += self._through(len(data) - position, output)
                break
            self._due = position > len(data)
        return position

    def _chunk(self, data: bytes, position: int, output: Output) -> int:
        assert self._answers is not None  # noqa: S101 -- made when this state was entered
        read = self._answers.read(data, position)
        output.take(Pass, read.position - position)
        if read.done:
            self._response = HEAD
        return read.position

    def _through(self, size: int, output: Output) -> int:
        """What is not read any more. Without a policy that enforces, by pieces, so that a new one can end it."""
        if self._response is UNREAD and not self.judge.audit_only:
            output.add(Abort("a policy enforces now what this connection was not read for"))
        elif size and self._response is STALL:
            output.add(Wait())  # What comes behind a switch to HTTP/2 is for its own conversation.
            return 0
        elif size and self._response is UNREAD:
            output.take(Pass, size)
        elif size:
            self._due = True
            output.take(Pass, FOREVER)
            return FOREVER
        return size

    def _release(self, now: float, output: Output) -> bool:
        """Our own answers whose turn has come. True if the connection closes behind them."""
        flight = self._flight
        while flight and flight[0][0].answer is not None:
            exchange, started = flight.popleft()
            assert exchange.answer is not None  # noqa: S101 -- the line above
            output.add(Inject(Direction.RESPONSE, exchange.answer))
            output.add(exchange.record(exchange.code, started, now))
        if self._ending and not flight:
            output.add(Close(self._ending))
            return True
        return False

    def _head(self, data: bytes, position: int, end: bool, now: float, output: Output) -> int:
        """Read one head, if it is all there, and its body, if its length is known; the position behind."""
        if not self._flight and self._request is UNREAD:
            self._response = UNREAD
            return position
        if position >= len(data):
            return position
        if not self._flight and _GIVEN_UP.match(data, position):
            output.add(Close("the server gave up the idle connection"))
            return position
        if not self._flight:
            raise Refused(0, "the server sent what no request asked for")
        stop = self._end_of_head(data, position, end)
        if not stop:
            return position
        head = self._parse(data[position:stop])
        if head.code < 200:
            self._interim(head, now, output)
            output.take(Pass, stop - position)
            return stop
        after = stop + self._final(head, now, output)
        output.take(Pass, after - position)
        if after > len(data):
            self._response = REST if self._response is REST else COUNT
        return after

    def _end_of_head(self, data: bytes, position: int, end: bool) -> int:
        """Where the head ends; 0 if more has to come."""
        if not data.startswith(_PREFIX[: len(data) - position], position):
            raise Refused(502, "the server's answer does not begin with HTTP/1")
        limit = self.judge.options.max_head
        stop = data.find(END, position) + 4
        if BARE_LF.search(data, position, stop if stop > 3 else len(data)) is not None:
            raise Refused(502, "malformed response: a bare LF in its head")
        if (stop if stop > 3 else len(data)) - position > limit:
            raise Refused(502, f"malformed response: a head of more than {limit} bytes")
        if stop <= 3 and end:
            raise Refused(502, "the server ended the connection within a response's head")
        return stop if stop > 3 else 0

    def _parse(self, head: bytes) -> ResponseHead:
        parse = cached_response if len(head) <= CACHED_HEAD else parse_response
        return parse(head, self.judge.options.max_headers)

    def _interim(self, head: ResponseHead, now: float, output: Output) -> None:
        """A 1xx. 101 opens a tunnel, if the request asked for it and the server names the same protocol."""
        if head.code != 101:
            return
        exchange, started = self._flight[0]
        if exchange.h2c is not None and head.h2c and self._request is STALL and self.on_h2c is not None:
            self._flight.popleft()
            self._response = STALL
            self.on_h2c(exchange, started, self._ending)
            return
        if not (exchange.websocket and head.websocket and self._request is STALL):
            raise Refused(502, "the server switched protocols though nobody asked for it")
        self._flight.popleft()
        output.add(exchange.record(101, started, now))
        self._request = self._response = TUNNEL

    def _final(self, head: ResponseHead, now: float, output: Output) -> int:
        """A final answer: its record; the length of its body as far as it goes by count."""
        exchange, started = self._flight.popleft()
        output.ops.append(exchange.record(head.code, started, now))
        if exchange.websocket or exchange.h2c is not None:
            self._request = HEAD
        elif self._request in (COUNT, CHUNKS) and not self._flight and self.judge.options.refuse_early_answer:
            self._request = DISCARD
            self._ending = "the server answered before the request was complete"
        length = head.body(exchange.to_head)
        if length == CHUNKED:
            self._response = CHUNKS
            self._answers = Chunks(self.judge.options, {})
        elif length == UNTIL_END:
            self._response = REST
            return FOREVER
        return max(0, length)

    def _bad_response(self, reason: str, now: float, output: Output) -> None:
        """A malformed response. If nothing of it was sent, the client gets a 502 in its place."""
        if not self._flight or self._response is not HEAD:
            output.add(Abort(reason))
            return
        exchange, started = self._flight.popleft()
        output.add(Inject(Direction.RESPONSE, answer(502, reason, last=True, to_head=exchange.to_head)))
        output.add(exchange.because(reason).record(502, started, now))
        output.add(Close(reason))

    def _audit_response(self, reason: str, now: float, output: Output) -> None:
        """A malformed response where nothing is enforced: all goes on, unread."""
        exchange = malformed(502, reason, self.judge)
        started = now
        if self._flight and self._response is HEAD:
            request, started = self._flight.popleft()
            exchange = request.judged(exchange.request.decision)
        output.add(exchange.record(0, started, now))
        self._request = self._response = UNREAD

    def _server_ended(self, output: Output, unread: bool) -> None:
        """FIN from the server: the end of all, if it comes between answers or ends one; else they are cut short."""
        if self._response in (TUNNEL, UNREAD) or any(isinstance(op, Close | Abort) for op in output.ops):
            return
        if self._response in (COUNT, CHUNKS) or unread:
            output.add(Abort("the server ended the connection within a response"))
        else:
            output.add(Close("the server ended the connection"))
