"""The conversation of one HTTP/1.1 connection: what passes, what is refused, and in which order it is answered.

A refused request is answered, in its turn behind the responses still due, with exactly ::

    HTTP/1.1 403 Forbidden
    Content-Length: 15
    Content-Type: text/plain

    Access denied

(every line ends in CR LF; a policy's own message stands in place of the last). Answers to HEAD have no body. Where the
connection ends behind the answer, ``Connection: close`` is the last header: the client asked for it, speaks HTTP/1.0,
or waits for ``100 Continue``; the body is longer than `drain_body`; or the bytes are malformed (400 and others).

A request that the client says is its last is the last: nothing behind it is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from l7proxy.http1_exchange import Exchange, Judge, examine, malformed
from l7proxy.http1_responses import CHUNKS, COUNT, DISCARD, HEAD, STALL, TUNNEL, UNREAD, Responses
from l7proxy.limits import Limits
from l7proxy.ops import FOREVER, Abort, Close, Direction, Drop, Inject, Op, Pass, Wait
from l7proxy.output import Output
from parsers.http1 import CHUNKED, Refused, find_head
from parsers.http1_chunks import BadChunks, Chunks
from parsers.http1_fields import watched_names
from policies.model import L7Protocol


class Http1Conversation(Responses):
    """See `l7proxy.conversation.Conversation`. `judge` may be replaced at any time; heads read later are judged by it.

    Whatever is malformed is passed unread, with an AUDIT record, as long as `judge.audit_only` holds; a judge that
    enforces ends such a connection.
    """

    __slots__ = (
        "_blank",
        "_body",
        "_carried",
        "_drained",
        "_last",
        "_now",
        "_owed",
        "_searched",
        "_way",
        "head_pending",
    )
    protocol: ClassVar[L7Protocol] = L7Protocol.HTTP

    def __init__(self, judge: Judge) -> None:
        super().__init__(judge)
        self.head_pending = False
        self._blank = False
        """An empty line before a request was dropped."""
        self._searched = 0
        """Bytes of the pending head in which its end was not found."""
        self._body: Chunks | None = None
        self._way: type[Pass] | type[Drop] = Pass
        """What is done with the body that is coming."""
        self._owed = 0
        """Bytes of a body, or of a chunk of it, that the relay was not told of."""
        self._carried = False
        """The relay has been given a count that it has not yet met."""
        self._now = 0.0
        self._drained = 0
        self._last = False

    @property
    def idle(self) -> bool:
        """Between messages; or nothing is read any more."""
        if self._request is UNREAD:
            return True
        between = self._request in (HEAD, DISCARD) and not self.head_pending
        return between and self._response is HEAD and not self._flight

    @property
    def receiving(self) -> bool:
        """Within the body of a request."""
        return self._request in (COUNT, CHUNKS)

    def receive(self, direction: Direction, data: bytes, end: bool, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation.receive`."""
        if direction:
            return self._responses(data, end, now)
        if self._request is HEAD and not self._flight and not self._ending:
            # The cache knows whole heads only, so bytes that it knows are one head and nothing behind it.
            exchange = self.judge.cache.get(data)
            if exchange is not None and exchange.simple is not None:
                self._flight.append((exchange, now))
                self._searched = 0
                self.head_pending = self._blank = False
                return exchange.simple
        output = Output()
        self._now = now
        self._requests(data, end, now, output)
        if self._response is HEAD:
            self._release(now, output)
        return output.done()

    def _requests(self, data: bytes, end: bool, now: float, output: Output) -> None:
        position = 0
        while True:
            if self._request is HEAD:
                step = self._head_of_request(data, position, end, now, output)
            elif self._request in (COUNT, CHUNKS):
                step = self._body_of_request(data, position, end, output)
            else:
                self._after_requests(len(data) - position, output)
                return
            if step < 0:
                return
            position += step

    # -- heads ---------------------------------------------------------------------------------------------------

    def _head_of_request(self, data: bytes, position: int, end: bool, now: float, output: Output) -> int:
        """Take one head; how many bytes that was, or -1 if nothing more can be done now."""
        self.head_pending = False
        if self._ending:
            self._request = DISCARD
            return 0
        if position >= len(data):
            return -1
        if len(self._flight) >= self.judge.options.max_pipeline and not self._make_room(now, output):
            output.add(Wait())
            return -1
        if data[position] == 13 and not self._blank:
            return self._empty_line(data, position, end, now, output)
        try:
            stop = find_head(data, position, position + self._searched, self.judge.options)
            if not stop and end:
                raise Refused(400, "the client ended the connection within a request's head")
        except Refused as error:
            return self._start(malformed(error.status, error.reason, self.judge), 0, now, output)
        if not stop:
            self._searched = len(data) - position
            self.head_pending = True
            return -1
        self._searched, self._blank = 0, False
        head = data[position:stop]
        return self._start(self.judge.cache.get(head) or examine(head, self.judge), len(head), now, output)

    def _make_room(self, now: float, output: Output) -> bool:
        """Where our own answers fill the queue, nobody else would move it on."""
        if self._response is HEAD:
            self._release(now, output)
        return len(self._flight) < self.judge.options.max_pipeline

    def _empty_line(self, data: bytes, position: int, end: bool, now: float, output: Output) -> int:
        """One empty line before a request (RFC 9112, section 2.2) is swallowed."""
        if data.startswith(b"\r\n", position):
            output.take(Drop, 2)
            self._blank = True
            return 2
        if len(data) > position + 1 or end:
            return self._start(malformed(400, "a bare CR before a request", self.judge), 0, now, output)
        self.head_pending = True
        return -1

    def _start(self, exchange: Exchange, size: int, now: float, output: Output) -> int:
        """Begin an exchange whose head is `size` bytes long (of what is malformed, 0); how many of them were taken."""
        if exchange.broken and exchange.answer is None:
            output.add(exchange.record(0, now, now))
            self._request = UNREAD
            return 0
        self._flight.append((exchange, now))
        refused = exchange.answer is not None
        if refused and exchange.last:
            return self._end(exchange.request.decision.reason)
        self._way = Drop if refused else Pass
        if exchange.instead is None or refused:
            output.take(self._way, size)
        else:
            output.take(Drop, size)
            output.add(Inject(Direction.REQUEST, exchange.instead))
        self._last, self._drained = exchange.last, 0
        if exchange.length == CHUNKED:
            options = self.judge.options
            names = watched_names(self.judge.header_names)
            self._body = Chunks(options, names, trailers=refused or not options.refuse_trailers)
            self._request = CHUNKS
        elif exchange.length:
            self._owed, self._request = exchange.length, COUNT
        else:
            switches = exchange.websocket or (exchange.h2c is not None and not refused)
            self._request = STALL if switches else DISCARD if exchange.last else HEAD
        return size

    def _end(self, reason: str) -> int:
        """Take nothing more, and close once all is answered."""
        self._ending = self._ending or reason
        self._request = DISCARD
        return 0

    # -- bodies --------------------------------------------------------------------------------------------------

    def _body_of_request(self, data: bytes, position: int, end: bool, output: Output) -> int:
        """Take what is there of a body; how many bytes that was, or -1 if nothing more can be done now."""
        if self._carried:
            if end:
                return self._cut_short()
            self._carried = False
        available = len(data) - position
        if self._owed:
            metered = self.judge.options.refuse_early_answer and self._way is Pass
            size = min(self._owed, available) if metered else self._owed
            output.take(self._way, size)
            self._owed -= size
            self._carried = size > available
            if self._owed or self._carried:
                return self._cut_short() if end else -1
        elif self._request is CHUNKS:
            return self._chunks(data, position, end, output)
        else:
            size = 0
        if self._request is COUNT:
            self._body_done()
        return size

    def _chunks(self, data: bytes, position: int, end: bool, output: Output) -> int:
        assert self._body is not None  # noqa: S101 -- made when this state was entered
        try:
            read = self._body.read(data, position)
        except BadChunks as error:
            return self._bad_body(str(error), output)
        size = min(read.position, len(data)) - position
        if self._way is Drop:
            self._drained += read.position - position
            if self._drained > self.judge.options.drain_body:
                return self._end("the body of a refused request is too long to be read")
        output.take(self._way, size)
        self._owed = read.position - position - size
        if read.done:
            self._body_done()
        elif not size and not self._owed:
            return self._cut_short() if end else -1
        return size

    def _body_done(self) -> None:
        self._body = None
        self._request = DISCARD if self._last or self._ending else HEAD

    def _cut_short(self) -> int:
        """FIN within a body. The server hears of it unless we answer in its place."""
        self._owed, self._carried = 0, False
        if self._way is Pass and self._flight and not self.judge.audit_only:
            return self._replace(400, "the client ended the connection within a request's body")
        self._request = DISCARD
        return 0

    def _bad_body(self, reason: str, output: Output) -> int:
        """Chunks that cannot be trusted: the request's head is with the server already, the rest will not be."""
        if self._way is Drop:
            return self._end(reason)
        if self.judge.audit_only:
            output.add(malformed(400, reason, self.judge).record(0, self._now, self._now))
            self._request = UNREAD
            return 0
        if self._flight:
            return self._replace(400, reason)
        output.add(Abort(reason))
        return -1

    def _replace(self, status: int, reason: str) -> int:
        """Answer the newest request ourselves instead of the server. Its head is there: its verdict remains."""
        exchange, started = self._flight.pop()
        self._flight.append((exchange.because(reason).answered(status, reason, last=True), started))
        return self._end(reason)

    def _after_requests(self, size: int, output: Output) -> None:
        """What comes where no request is awaited."""
        if self._request is UNREAD:
            if not self.judge.audit_only:
                output.add(Abort("a policy enforces now what this connection was not read for"))
            else:
                output.take(Pass, size)
        elif size and self._request is STALL:
            output.add(Wait())
        elif size:
            output.take(Pass if self._request is TUNNEL else Drop, FOREVER)

    # -- endings -------------------------------------------------------------------------------------------------

    def upstream_failed(self, reason: str, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`. Each request that waits gets a 503 in its turn."""
        text = f"upstream: {reason}"
        waiting = list(self._flight)
        self._flight.clear()
        for number, (exchange, started) in enumerate(waiting, 1):
            if exchange.answer is None:
                exchange = exchange.answered(503, text, last=number == len(waiting))
            self._flight.append((exchange, started))
        self._end(text)
        return self._released(now)

    def head_timeout(self, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`. 408, recorded as DROPPED; later calls say nothing more."""
        if not self.head_pending:
            return ()
        self.head_pending = False
        output = Output()
        exchange = malformed(408, "the request's head did not come in time", self.judge)
        if exchange.answer is None:
            output.add(exchange.record(0, now, now))
            return [*output.done(), Close(exchange.request.decision.reason)]
        self._flight.append((exchange, now))
        self._end(exchange.request.decision.reason)
        return self._released(now)

    def late(self, now: float, limits: Limits) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`. Nothing is held here, and who waits for what is up to the peers."""
        return ()

    def draining(self, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`. A tunnel has no last response: it lives until it is reset."""
        if self._request in (TUNNEL, UNREAD):
            return ()
        self._ending = self._ending or "the proxy is stopping"
        if self._request is HEAD:
            self._request, self.head_pending = DISCARD, False
        return self._released(now)

    def _released(self, now: float) -> Sequence[Op]:
        output = Output()
        if self._response is HEAD:
            self._release(now, output)
        return output.done()

    def finish(self, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`. Code 0: no answer came, or none was sent."""
        records = [exchange.record(0, started, now) for exchange, started in self._flight]
        self._flight.clear()
        return records
