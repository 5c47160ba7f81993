"""One proxied connection: two sockets, and the operations of its conversation carried out on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic

from l7proxy.conversation import Conversation
from l7proxy.fastpath import FastPath
from l7proxy.frames import Frames
from l7proxy.half import PUMP_FROM, Half, Side
from l7proxy.listener import reset
from l7proxy.ops import Abort, Close, Direction, Drop, Inject, Need, Op, Pass, Record, Wait
from l7proxy.origin import Origin
from l7proxy.owner import Owner
from l7proxy.straight import look, waits
from l7proxy.timeouts import Progress
from l7proxy.upstream import Dial

REQUEST, RESPONSE = Direction.REQUEST, Direction.RESPONSE


class Relay:
    """Carries one connection. Fails closed: an error inside it resets both sides."""

    def __init__(self, owner: Owner, origin: Origin, conversation: Conversation) -> None:
        self.owner, self.origin = owner, origin
        self.conversation = conversation
        self.records = owner.records(origin)
        self.requests, self.responses = Half(REQUEST), Half(RESPONSE)
        self.half = (self.requests, self.responses)
        self.requests.other, self.responses.other = self.responses, self.requests
        self.client: asyncio.Transport | None = None
        self.server: asyncio.Transport | None = None
        self.dial: Dial | None = None
        self.dialled = False
        self.early: list[bytes] = []
        self.early_size = 0
        self.last = monotonic()
        self.head_since = self.lingering = 0.0
        self.open = 0
        self.flooded = False
        self.progress = Progress()
        self.frames = conversation if isinstance(conversation, Frames) else None
        self.fast: FastPath | None = None
        self._pumping = owner, self._pumped

    # -- the sockets ---------------------------------------------------------------------------------------------

    def attach_client(self, transport: asyncio.Transport) -> None:
        """The accepted socket is ready."""
        self.client = self.requests.source = self.responses.sink = transport
        self.open += 1
        transport.set_write_buffer_limits(self.owner.limits.buffered_bytes)

    def side(self, direction: Direction) -> asyncio.Protocol:
        """The callbacks for the socket that is read in `direction`."""
        return Side(self, self.half[direction])

    def connected(self, transport: asyncio.Transport) -> None:
        """The server's socket is ready."""
        self.dial = None
        if self.client is None or self.lingering:
            transport.set_protocol(asyncio.Protocol())  # Its end is none of ours.
            transport.abort()
            return
        self.open += 1
        self.server = self.responses.source = self.requests.sink = transport
        transport.set_write_buffer_limits(self.owner.limits.buffered_bytes)
        if self.early:
            transport.write(b"".join(self.early))
        self.early, self.early_size = [], 0
        self._finish_half(self.requests)
        self._adjust(self.requests)

    def arrived(self, half: Half, data: bytes) -> None:
        """Bytes were read. Fails closed whatever the failure is."""
        size = len(data)
        half.total += size
        self.last = now = monotonic()
        try:
            if half.busy or self.lingering or self.fast is not None:
                self.more(half, data, now)
                return
            # The hot path: nothing waits in this direction, and most likely all of the new bytes may pass.
            ops = self.conversation.receive(half.direction, data, False, now)
            sink, count = half.sink, len(ops)
            if 0 < count < 3 and sink is not None and not half.other.waiting:
                op, first = ops[-1], ops[0]
                if type(op) is Pass and op.size == size and (count == 1 or type(first) is Record):
                    if type(first) is Record:
                        self.records.add(first)
                    sink.write(data)
                    if self.frames is not None and self.frames.offers:
                        self.owner.hasten(self)
                    return
            self._perform(half, data, ops, now)
            self._wake(half.other, now)
            self._adjust(half)
        except Exception as error:
            self.failed(error)

    def more(self, half: Half, data: bytes, now: float) -> None:
        """Bytes behind others. What was allowed by count goes on at once; the rest is put to the conversation."""
        if self.fast is not None and self.fast.waits(half, data):
            return
        if half.straight is not None and half.straight.opened and waits(self, half, data):
            return
        if half.credit >= len(data):
            half.credit -= len(data)
            self._send(half, data)
            if half.credit >= PUMP_FROM:
                # Once what was just written has left: the loop writes at the end of its turn.
                self.owner.loop.call_soon(half.start_pump, *self._pumping)
            if half.credit or half.eof:
                self._adjust(half)
                return
            data = b""
        self._take(half, data, now)
        if self.fast is not None:
            self.fast.after()

    def guard(self, action: Callable[..., object], *arguments: object) -> None:
        """Do it, failing closed."""
        try:
            action(*arguments)
        except Exception as error:
            self.failed(error)

    def failed(self, error: Exception) -> None:
        """Fail closed."""
        context = {"message": "a conversation failed; its connection is reset", "exception": error}
        self.owner.loop.call_exception_handler(context)
        self.abort()

    def put(self, half: Half, now: float) -> None:
        """`_take` what waits."""
        self.guard(self._take, half, b"", now)

    def _pumped(self, half: Half, error: OSError | None) -> None:
        self.last = now = monotonic()
        if error is not None:
            self.abort()
        elif not half.credit:
            self.put(half, now)

    def ended(self, half: Half) -> None:
        """FIN was read."""
        self.last = now = monotonic()
        if self.fast is not None:
            self.guard(self.fast.ended, half)
        look(self, now)
        half.eof = half.busy = True
        if self.lingering:
            self.close_now()
            return
        self.put(half, now)
        self._finish_half(half)
        if self.responses.waiting and self.requests.eof and self.responses.eof:
            self.close_now()  # Nothing will move it any more.

    def lost(self, half: Half, error: Exception | None) -> None:
        """A socket is closed. With an error (RST) the other side is reset too."""
        self.open -= 1
        self._stop_pumps()
        half.source = half.other.sink = None
        other = self.server if half is self.requests else self.client
        if half is self.responses and (self.lingering or (half.eof and half.pending)):
            pass  # The client may still read what is queued for it, or make room for what the server said last.
        elif error is not None or not (half.eof and half.other.finished):
            reset(other)
        elif other is not None:
            other.close()
        if half is self.requests:
            self.client = None
            self._cancel_dial()
        else:
            self.server = None
        if self.open == 0:
            self._over()

    def _stop_pumps(self) -> None:
        if self.fast is not None:
            self.fast.shut()
        self.requests.stop_pump()
        self.responses.stop_pump()

    def _over(self) -> None:
        if self.fast is not None:
            self.guard(self.fast.over)
        try:
            self.apply([op for op in self.conversation.finish(monotonic()) if isinstance(op, Record)])
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
            self._wake(half.other, now)
        self._adjust(half)

    def _judge(self, half: Half, data: bytes, now: float) -> None:
        half.need, half.waiting = 0, False
        self._perform(half, data, self.conversation.receive(half.direction, data, half.eof, now), now)

    def _perform(self, half: Half, data: bytes, ops: Sequence[Op], now: float) -> None:
        """Carry out what the conversation says of `data`, which is all that waits in this direction."""
        position = 0
        for op in ops:
            if isinstance(op, Pass):
                position = self._pass(half, data, position, op.size)
            elif isinstance(op, Record):
                self.records.add(op)
            else:
                position = self._other(half, data, position, op)
            if self.lingering:
                return
        half.pending = data[position:] if position else data
        half.busy = bool(half.pending or half.credit or half.dropping or half.need or half.waiting or half.eof)
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
            if self.fast is not None:
                self.fast.before(half)
            half.sink.write(data)
        elif half.direction is REQUEST and not (self.lingering or self.responses.eof):
            self.early.append(data)
            self.early_size += len(data)
            self._want_server()

    def _finish_half(self, half: Half) -> None:
        """Forward FIN once every byte before it has gone."""
        if not half.eof or half.finished or half.pending or self.lingering:
            return
        if half.sink is None:
            if half.direction is REQUEST and not self.dialled and self.client is not None:
                # FIN before any request was allowed: the server never hears of this connection.
                self.close_now()
            return
        half.finished = True
        if self.requests.finished and self.responses.finished:
            self.close_now()
        elif half.sink.can_write_eof():
            half.sink.write_eof()

    # -- back-pressure -------------------------------------------------------------------------------------------
    def choke(self, half: Half, choked: bool) -> None:
        """The sink of a direction is full, or has room again."""
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
        if self.dialled or self.lingering:
            return
        self.dialled = True
        origin, owner = self.origin, self.owner
        self.dial = Dial(
            owner.loop,
            owner.mark,
            origin.client,
            origin.server,
            timeout=owner.limits.connect_timeout,
            keep_port=not origin.flow.host_server,
            protocol=lambda: Side(self, self.responses),
            failed=self._unreachable,
        )

    def _unreachable(self, reason: str) -> None:
        self.owner.upstream_failed(self, reason)
        if self.client is None:
            return
        if self.owner.refuse_with_503:
            self.apply(self.conversation.upstream_failed(reason, monotonic()))
        else:
            self.abort()

    def _cancel_dial(self) -> None:
        if self.dial is not None:
            self.dial.cancel()
            self.dial = None

    # -- endings -------------------------------------------------------------------------------------------------

    def apply(self, ops: Sequence[Op]) -> None:
        """Carry out operations that come with no bytes: words for the client, records, an ending."""
        for op in ops:
            if isinstance(op, Record):
                self.records.add(op)
            else:
                self._other(self.responses, b"", 0, op)

    def _close_after_flush(self) -> None:
        """Our last words are queued: send FIN behind them, and throw away what the client still sends, so that its
        kernel does not answer unread bytes with a reset that would destroy those words."""
        self.lingering = monotonic()
        self._cancel_dial()
        if self.fast is not None:
            self.fast.shut()
        self.requests.drop_pump()
        self.early, self.early_size = [], 0
        if self.server is not None:
            self.server.close()
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

    def close_now(self) -> None:
        """Close both sides behind what is queued for them."""
        self.lingering = self.lingering or monotonic()
        for transport in (self.client, self.server):
            if transport is not None:
                transport.close()

    def abort(self) -> None:
        """Reset both sides at once."""
        self.lingering = self.lingering or monotonic()
        self._stop_pumps()
        self._cancel_dial()
        reset(self.client)
        reset(self.server)

    def _note_head(self, now: float) -> None:
        if not self.conversation.head_pending:
            self.head_since = 0.0
        elif not self.head_since:
            self.head_since = now
