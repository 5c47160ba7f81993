"""One proxied connection: two sockets, and the operations of its conversation carried out on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic

from l7proxy.conversation import Conversation
from l7proxy.half import PUMP_FROM, Half, Side
from l7proxy.listener import reset
from l7proxy.ops import FOREVER, Abort, Close, Direction, Drop, Inject, Need, Op, Pass, Record, Wait
from l7proxy.origin import Origin
from l7proxy.owner import Owner
from l7proxy.progress import Progress
from l7proxy.upstream import dial

REQUEST, RESPONSE = Direction.REQUEST, Direction.RESPONSE
_LINGER = 2.0
"""Seconds in which a client may still read our last words while what it sends is thrown away."""


class Relay:
    """Carries one connection. Fails closed: an error inside it resets both sides."""

    __slots__ = (
        "client",
        "connecting",
        "conversation",
        "early",
        "early_size",
        "encoder",
        "flooded",
        "half",
        "head_since",
        "last",
        "lingering",
        "open",
        "origin",
        "owner",
        "progress",
        "requests",
        "responses",
        "server",
    )

    def __init__(self, owner: Owner, origin: Origin, conversation: Conversation) -> None:
        self.owner, self.origin = owner, origin
        self.conversation = conversation
        self.requests, self.responses = Half(REQUEST), Half(RESPONSE)
        self.half = (self.requests, self.responses)
        self.client: asyncio.Transport | None = None
        self.server: asyncio.Transport | None = None
        self.connecting: asyncio.Task[None] | None = None
        self.early: list[bytes] = []
        self.early_size = 0
        self.encoder: object | None = None
        self.last = monotonic()
        self.head_since = self.lingering = 0.0
        self.open = 0
        self.flooded = False
        self.progress = Progress()

    # -- the sockets ---------------------------------------------------------------------------------------------

    def attach_client(self, transport: asyncio.Transport) -> None:
        """The accepted socket is ready."""
        self.client = self.requests.source = self.responses.sink = transport
        self.open += 1
        transport.set_write_buffer_limits(self.owner.limits.buffered_bytes)

    def side(self, direction: Direction) -> asyncio.Protocol:
        """The callbacks for the socket that is read in `direction`."""
        return Side(self, direction)

    def _attach_server(self, transport: asyncio.Transport) -> None:
        self.server = self.responses.source = self.requests.sink = transport
        self.open += 1
        transport.set_write_buffer_limits(self.owner.limits.buffered_bytes)
        if self.early:
            transport.write(b"".join(self.early))
        self.early, self.early_size = [], 0
        self._finish_half(self.requests)
        self._adjust(self.requests)

    def arrived(self, direction: Direction, data: bytes) -> None:
        """Bytes were read. What was allowed by count goes on at once; the rest is put to the conversation."""
        half = self.half[direction]
        half.total += len(data)
        self.last = now = monotonic()
        if half.credit >= len(data):
            half.credit -= len(data)
            self._send(half, data)
            if half.credit >= PUMP_FROM:
                # Once what was just written has left: the loop writes at the end of its turn.
                self.owner.loop.call_soon(half.start_pump, self.owner.limits.buffered_bytes, self._pumped)
            if half.credit or half.eof:
                self._adjust(half)
                return
            data = b""
        self._put(half, data, now)

    def _put(self, half: Half, data: bytes, now: float) -> None:
        """`_take`, failing closed whatever the failure is."""
        try:
            self._take(half, data, now)
        except Exception as error:
            context = {"message": "a conversation failed; its connection is reset", "exception": error}
            self.owner.loop.call_exception_handler(context)
            self.abort()

    def _pumped(self, half: Half, error: OSError | None) -> None:
        self.last = now = monotonic()
        if error is not None:
            self.abort()
        elif not half.credit:
            self._put(half, b"", now)

    def ended(self, direction: Direction) -> None:
        """FIN was read."""
        half = self.half[direction]
        half.eof = True
        self.last = now = monotonic()
        if self.lingering:
            self._close_now()
            return
        self._put(half, b"", now)
        self._finish_half(half)

    def lost(self, direction: Direction, error: Exception | None) -> None:
        """A socket is closed. With an error (RST) the other side is reset too."""
        self.open -= 1
        self.requests.stop_pump()
        self.responses.stop_pump()
        half = self.half[direction]
        half.source = self.half[1 - direction].sink = None
        other = self.server if direction is REQUEST else self.client
        if self.lingering and direction is RESPONSE:
            pass  # We have closed it ourselves; the client may still read what is queued for it.
        elif error is not None or not (half.eof and self.half[1 - direction].finished):
            reset(other)
        elif other is not None:
            other.close()
        if direction is REQUEST:
            self.client = None
            self._cancel_connect()
        else:
            self.server = None
        if self.open == 0:
            self._over()

    def _over(self) -> None:
        try:
            self._apply([op for op in self.conversation.finish(monotonic()) if isinstance(op, Record)])
        finally:
            self.owner.closed(self)

    # -- bytes -> operations -------------------------------------------------------------------------------------

    def _take(self, half: Half, data: bytes, now: float) -> None:
        """Put everything of this direction that has no verdict yet to the conversation."""
        if self.lingering:
            return
        if half.pending:
            data = half.pending + data
            half.pending = b""
        passed, data = half.by_count(data)
        if passed:
            self._send(half, passed)
        if (half.credit or half.dropping) and not half.eof:
            return
        if (half.waiting or len(data) < half.need) and not half.eof:
            half.pending = data
        else:
            self._judge(half, data, now)
            self._wake(self.half[1 - half.direction], now)
        self._adjust(half)

    def _judge(self, half: Half, data: bytes, now: float) -> None:
        half.need, half.waiting = 0, False
        position = 0
        for op in self.conversation.receive(half.direction, data, half.eof, now):
            if isinstance(op, Pass):
                position = self._pass(half, data, position, op.size)
            elif isinstance(op, Record):
                self.owner.record(self, op)
            else:
                position = self._other(half, data, position, op)
            if self.lingering:
                return
        half.pending = data[position:] if position else data
        self._note_head(now)

    def _pass(self, half: Half, data: bytes, position: int, size: int) -> int:
        have = len(data) - position
        if size >= have:
            half.credit = size - have
            if have:
                self._send(half, data[position:] if position else data)
            elif half.direction is REQUEST:
                self._want_server()
            return len(data)
        self._send(half, data[position : position + size])
        return position + size

    def _other(self, half: Half, data: bytes, position: int, op: Op) -> int:
        """The operations that are rare: everything but Pass and Record."""
        if isinstance(op, Drop):
            have = len(data) - position
            half.dropping = max(0, op.size - have)
            return position + min(op.size, have)
        if isinstance(op, Inject):
            self._send(self.half[op.direction], op.data)
            self.flooded = self.responses.choked
        elif isinstance(op, Need):
            half.need = op.size
        elif isinstance(op, Wait):
            half.waiting = True
        elif isinstance(op, Close):
            self._close_after_flush()
        elif isinstance(op, Abort):
            self.abort()
        return position

    def _wake(self, half: Half, now: float) -> None:
        """The other direction has moved: ask again for the one that was waiting for it."""
        if half.waiting and not self.lingering:
            data, half.pending = half.pending, b""
            self._judge(half, data, now)
            self._adjust(half)
            self._finish_half(half)

    def _send(self, half: Half, data: bytes) -> None:
        if half.sink is not None:
            half.sink.write(data)
        elif half.direction is REQUEST and not self.lingering:
            self.early.append(data)
            self.early_size += len(data)
            self._want_server()

    def _finish_half(self, half: Half) -> None:
        """Forward FIN once every byte before it has gone."""
        if not half.eof or half.finished or half.pending or self.lingering:
            return
        if half.sink is None:
            if half.direction is REQUEST and self.connecting is None and self.client is not None:
                # FIN before any request was allowed: the server never hears of this connection.
                self._close_now()
            return
        half.finished = True
        if self.requests.finished and self.responses.finished:
            self._close_now()
        elif half.sink.can_write_eof():
            half.sink.write_eof()

    # -- back-pressure -------------------------------------------------------------------------------------------

    def choke(self, direction: int, choked: bool) -> None:
        """The sink of `direction` is full, or has room again."""
        half = self.half[direction]
        half.choked = choked
        if self.flooded and not self.responses.choked:
            self.flooded = False
            self._adjust(self.requests)
        self._adjust(half)

    def _adjust(self, half: Half) -> None:
        limit = self.owner.limits.buffered_bytes
        wanted = half.choked or len(half.pending) >= limit
        # A client that does not read our refusals may not ask for more of them.
        half.pause(wanted or (half is self.requests and (self.early_size >= limit or self.flooded)))

    # -- the upstream --------------------------------------------------------------------------------------------

    def _want_server(self) -> None:
        if self.connecting is None and self.server is None and not self.lingering:
            self.connecting = self.owner.loop.create_task(self._connect())

    async def _connect(self) -> None:
        origin, owner = self.origin, self.owner
        try:
            timeout, keep_port = owner.limits.connect_timeout, not origin.flow.host_server
            sock = await dial(owner.mark, origin.client, origin.server, timeout, keep_port=keep_port)
            transport, _ = await owner.loop.create_connection(lambda: self.side(RESPONSE), sock=sock)
        except (OSError, TimeoutError) as error:
            self._unreachable(str(error) or "connect timed out")
            return
        if self.client is None or self.lingering:
            transport.set_protocol(asyncio.Protocol())  # Never attached, so its end is none of ours.
            transport.abort()
            return
        self._attach_server(transport)

    def _unreachable(self, reason: str) -> None:
        self.owner.upstream_failed(self, reason)
        if self.client is None:
            return
        if self.owner.refuse_with_503:
            self._apply(self.conversation.upstream_failed(reason, monotonic()))
        else:
            self.abort()

    def _cancel_connect(self) -> None:
        if self.connecting is not None and not self.connecting.done() and self.server is None:
            self.connecting.cancel()

    # -- endings -------------------------------------------------------------------------------------------------

    def _apply(self, ops: Sequence[Op]) -> None:
        """Operations that come with no bytes: words for the client, records, an ending."""
        for op in ops:
            if isinstance(op, Record):
                self.owner.record(self, op)
            else:
                self._other(self.responses, b"", 0, op)

    def _close_after_flush(self) -> None:
        """Our last words are queued: send FIN behind them, and throw away what the client still sends, so that its
        kernel does not answer unread bytes with a reset that would destroy those words."""
        self.lingering = monotonic()
        self._close_server()
        client = self.client
        if client is None:
            return
        self.requests.pending = self.responses.pending = b""
        self.flooded = False
        if self.requests.eof or client.is_closing():
            client.close()
            return
        self.requests.pause(False)
        client.write_eof()

    def _close_now(self) -> None:
        self.lingering = self.lingering or monotonic()
        for transport in (self.client, self.server):
            if transport is not None:
                transport.close()

    def _close_server(self) -> None:
        self._cancel_connect()
        self.requests.drop_pump()
        self.early, self.early_size = [], 0
        if self.server is not None:
            self.server.close()

    def abort(self) -> None:
        """Reset both sides at once."""
        self.lingering = self.lingering or monotonic()
        self.requests.stop_pump()
        self.responses.stop_pump()
        self._cancel_connect()
        reset(self.client)
        reset(self.server)

    # -- time and change -----------------------------------------------------------------------------------------

    def _note_head(self, now: float) -> None:
        if not self.conversation.head_pending:
            self.head_since = 0.0
        elif not self.head_since:
            self.head_since = now

    def tick(self, now: float) -> None:
        """Once a second: the time-outs."""
        limits = self.owner.limits
        if self.progress.look(self.half, now):
            self.last = now
        idle = now - self.last > limits.idle_timeout
        if self.progress.stuck(now) > limits.idle_timeout:
            self.abort()
        elif self.lingering:
            if now - self.lingering > _LINGER:
                self._close_now()
        elif self.head_since and now - self.head_since > limits.head_timeout:
            self._apply(self.conversation.head_timeout(now))
        elif idle and (self.conversation.idle or self.requests.credit > FOREVER // 2):
            self._close_now()
        elif idle and (self.requests.credit or self.requests.dropping):
            self.abort()  # The client owes the rest of a body.

    def stop(self) -> None:
        """Graceful end: at once between messages, else behind the last response in flight."""
        if self.conversation.idle:
            self._close_now()
        else:
            self._apply(self.conversation.draining(monotonic()))

    def rejudge(self, locate: Callable[[Origin], Origin | None]) -> None:
        """A new policy: other rules from the next message on, or the end if the flow is no longer allowed at all."""
        origin = locate(self.origin)
        if origin is None or origin.judge is None:
            self.abort()
            return
        self.origin = origin
        self.conversation.judge = origin.judge
        self.encoder = None
