"""The conversation of one HTTP/2 connection (RFC 9113): frames go on as they came, and refused streams never arrive.

A refused request is answered at once with HEADERS and DATA (403, ``Access denied``), a gRPC call with trailers alone
(grpc-status 7). What the client still sends on it is swallowed, and its room in the windows given back; a call at once,
and any other request when that becomes much, is reset with NO_ERROR. A malformed request is an error of its stream.

What a policy in audit mode alone restricts is passed whatever it is; bytes that are no HTTP/2 go on unread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from l7proxy.http1_exchange import Judge, unjudged
from l7proxy.http2_changes import Http2Changes
from l7proxy.http2_settings import for_server
from l7proxy.http2_streams import UNAVAILABLE, Call, Stream
from l7proxy.limits import Limits
from l7proxy.ops import Abort, Close, Direction, Drop, Op, Pass, Record, Request, Wait
from l7proxy.output import Output
from parsers.http2 import Broken, Code, goaway, rst_stream, settings, settings_frame
from policies.model import L7Protocol

_EMPTY_SETTINGS = settings_frame([])
_MOST_WAITING = 1000
"""Frames of our own that wait for the end of one of the server's."""


class Http2Conversation(Http2Changes):
    """See `l7proxy.conversation.Conversation`."""

    protocol: ClassVar[L7Protocol] = L7Protocol.HTTP

    def __init__(self, judge: Judge) -> None:
        super().__init__(judge)
        self._unread = self._closed = False

    def upgraded(self, request: Request, payload: bytes, started: float, over: str) -> None:
        """Begin with stream 1 open, asked in HTTP/1.1, and with the SETTINGS that came with it. `over`: why that is the
        last stream, if it is."""
        self._last = 1
        stream = self.streams[1] = Stream(1, Call(request), started)
        stream.client_done = True
        self._pending.append(self._offered(for_server(settings(payload), first=True)))
        self._acknowledged()
        if over:
            self._take_no_more(over)

    @property
    def idle(self) -> bool:
        """No stream is open, and no header block or frame of the server's is half there."""
        return self._closed or not (self.head_pending or self._under_way)

    @property
    def _under_way(self) -> bool:
        """The connection goes on: for a stream, or to the end of a frame, behind which our GOAWAY has its place."""
        return bool(self.streams) or self._parts[Direction.RESPONSE] is not None

    @property
    def receiving(self) -> bool:
        """A request's body is awaited. (That of a gRPC call may take as long as it likes.)"""
        return any(not stream.client_done and not stream.call.grpc for stream in self.streams.values())

    def receive(self, direction: Direction, data: bytes, end: bool, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation.receive`."""
        output = Output()
        if self._closed:
            output.take(Drop, len(data))
            return output.done()
        try:
            if self._unread:
                self._pass_unread(len(data), output)
            elif direction:
                take = self._late_frame_at if self._was_cut else self._server_frame_at
                self._read_server(data, now, output, take)
            elif self._stale:
                self._read_stale(data, now, output)
            else:
                self._read_client(data, now, output)
            self._flush(output)
            if len(self._to_client) > _MOST_WAITING:
                raise Broken(Code.ENHANCE_YOUR_CALM, "too much waits for the end of a frame of the server's")
            if end and not self._unread:
                self._ended(direction, len(data) - output.taken, output)
            elif self._over and not self._under_way:
                self._close(self._over, output)
        except Broken as error:
            self._broken(error, len(data), now, output, 502 if direction else 400)
        return output.done()

    # -- endings -------------------------------------------------------------------------------------------------

    def _pass_unread(self, size: int, output: Output) -> None:
        if not self._judge.audit_only:
            output.add(Abort("a policy enforces now what this connection was not read for"))
        else:
            output.take(Pass, size)

    def _broken(self, error: Broken, size: int, now: float, output: Output, code: int = 400) -> None:
        """A connection error. Where nothing is enforced all goes on, unread; but not behind our GOAWAY: what that did
        not take is asked for elsewhere. Nor behind a piece of a frame: its rest has no head."""
        audit = self._judge.audit_only
        goes_on = not (self._over or self._cut or self._was_cut)
        otherwise = "forwarded unread" if goes_on else "cut short"
        request = Request(unjudged(error.reason, self._judge, otherwise), protocol="HTTP/2")
        output.ops.append(Record(request, 0 if audit else code, now, now))
        if audit and goes_on:
            self._unread = True
            output.take(Pass, size - output.taken)
            return
        self._say_goaway(error.code, error.reason)
        self._close(error.reason, output)

    def _say_goaway(self, code: Code, reason: str) -> None:
        self._taken = min(self._last, self._taken)
        self._to_client.append(goaway(self._taken, code, reason))

    def _close(self, reason: str, output: Output) -> None:
        """Last words, if there is a place for them, and the end."""
        if not self._settled:
            self._to_client.insert(0, _EMPTY_SETTINGS)
            self._settled = True
        self._flush(output)
        output.add(Close(reason))
        self._closed = True

    def _ended(self, direction: Direction, rest: int, output: Output) -> None:
        """FIN from one side. From the server: the end of all, once there was room for what it said before. From the
        client: answers may still come."""
        if direction is Direction.RESPONSE:
            if not any(isinstance(op, Wait) for op in output.ops):
                output.add(Close("the server ended the connection"))
        elif rest:
            output.take(Drop, rest)

    def upstream_failed(self, reason: str, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`. Every stream gets a 503, or grpc-status 14."""
        output = Output()
        text = f"upstream: {reason}"
        for stream in self.streams.values():
            stream.call, stream.code = stream.call.answered(503, text, text), 503
            stream.status = UNAVAILABLE
            frames, used = stream.call.frames(stream.id, self._room(), self._own_block())
            self._window -= used
            self._to_client.append(frames)
            if not stream.client_done:
                self._to_client.append(rst_stream(stream.id, Code.NO_ERROR))
            output.ops.append(stream.record(now))
        self.streams.clear()
        self._say_goaway(Code.NO_ERROR, text)
        self._close(text, output)
        return output.done()

    def head_timeout(self, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`."""
        if not self.head_pending or self._closed:
            return ()
        self.head_pending = False
        output = Output()
        self._broken(Broken(Code.ENHANCE_YOUR_CALM, "a header block did not come in time"), 0, now, output, 408)
        return output.done()

    def late(self, now: float, limits: Limits) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`. Nothing is held here, and who waits for what is up to the peers."""
        return ()

    def draining(self, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`. Streams opened behind our GOAWAY are refused."""
        if self._unread or self._closed or self._over:
            return ()
        output = Output()
        self._take_no_more("the proxy ends this connection")
        if self._under_way:
            self._flush(output)
        else:
            self._close(self._over, output)
        return output.done()

    def _take_no_more(self, reason: str) -> None:
        self._over = reason
        self._say_goaway(Code.NO_ERROR, reason)

    def finish(self, now: float) -> Sequence[Op]:
        """See `l7proxy.conversation.Conversation`."""
        records = [stream.record(now) for stream in self.streams.values() if not stream.answered]
        self.streams.clear()
        return records
