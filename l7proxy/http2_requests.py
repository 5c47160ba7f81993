"""HTTP/2, from the client to the server: what is let through, refused, or an error, frame by frame."""

from __future__ import annotations

import struct
from dataclasses import replace

from l7proxy.http1_exchange import CACHED_HEAD, Judge
from l7proxy.http2_blocks import block_frames, gathered, too_large
from l7proxy.http2_floods import Floods
from l7proxy.http2_parts import Way
from l7proxy.http2_responses import Http2Shared
from l7proxy.http2_settings import for_server
from l7proxy.http2_streams import Call, Stream, examine, refused_record
from l7proxy.ops import Direction, Drop, Inject, Pass, Record
from l7proxy.output import Output
from parsers.http1 import Refused
from parsers.http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_STREAM,
    GOAWAY,
    HEAD,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    MAX_FRAME_SIZE,
    PADDED,
    PREFACE,
    PRIORITISED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Broken,
    Code,
    check_frame,
    fragment,
    frame_head,
    rst_stream,
    settings,
    settings_frame,
    window_update,
)
from parsers.http2_fields import trailer_facts
from policies.verdict import Verdict

_KNOWN_CALLS = 4096


class Http2Requests(Http2Shared):
    """The client's half."""

    def __init__(self, judge: Judge) -> None:
        super().__init__(judge)
        self.head_pending = False
        self._prefaced = False
        self._last = 0
        """The highest stream that the client has opened."""
        self._mine: dict[bytes, Call] = {}
        self._mine_epoch = 0
        self._floods = Floods(judge.options)
        self._priority = b""
        """That of the header block looked at last, if it has one."""
        self._withheld = False
        """The header block looked at last does not reach the server as it is."""

    # -- the client ----------------------------------------------------------------------------------------------

    def _read_client(self, data: bytes, now: float, output: Output) -> None:
        position = 0
        self.head_pending = False
        if not self._prefaced:
            if not data.startswith(PREFACE):
                if not PREFACE.startswith(data):
                    raise Broken(Code.PROTOCOL_ERROR, "no HTTP/2 preface")
                self.head_pending = bool(data)
                return
            output.take(Pass, len(PREFACE))
            position, self._prefaced = len(PREFACE), True
        self._frames(Direction.REQUEST, data, position, now, output, self._client_frame_at, self._client_done)

    def _client_frame_at(self, data: bytes, position: int, now: float, output: Output) -> int:
        """Take the frame that begins here; how many bytes that was, 0 if it cannot be taken yet."""
        length, kind, flags, number = frame_head(data, position)
        check_frame(length, kind, flags, number, self._server_frame)
        if not self._greeted and (kind != SETTINGS or flags & ACK):
            raise Broken(Code.PROTOCOL_ERROR, "the client does not begin with SETTINGS")
        if kind == DATA:
            return self._client_data(data, position, length, flags, number, now, output)
        if kind in (PUSH_PROMISE, CONTINUATION):
            raise Broken(Code.PROTOCOL_ERROR, f"a frame of type {kind} from the client")
        most = self._judge.options.max_head
        if HEAD + length > most:
            raise too_large(HEAD + length, most)
        if kind == HEADERS:
            found = gathered(data, position, length, flags, number, self._server_frame, most)
            if found is None:
                self.head_pending = True
                return 0
            self._priority = found[2]
            self._client_headers(number, flags, found[1], found[0] - position, now, output)
            return found[0] - position
        size = HEAD + length
        if position + size > len(data):
            return 0
        self._client_control(kind, flags, number, data[position + HEAD : position + size], now, output)
        return size

    def _client_control(self, kind: int, flags: int, number: int, payload: bytes, now: float, output: Output) -> None:
        size = HEAD + len(payload)
        if kind == SETTINGS and flags & ACK:
            self._asked.told_none = self._settled
            self._floods.control(now)
            output.take(Pass, size)
        elif kind == SETTINGS:
            self._floods.control(now)
            self._client_settings(payload, size, output)
        elif kind == WINDOW_UPDATE:
            self._floods.update(now)
            self._client_window(number, payload, size, output)
        elif kind == PRIORITY:
            self._floods.control(now)
            output.take(self._way(number, number in self.streams or number > self._last), size)
        elif kind == RST_STREAM:
            self._client_reset(number, size, now, output)
        else:
            if kind != GOAWAY:
                self._floods.control(now)
            output.take(Pass, size)

    def _client_settings(self, payload: bytes, size: int, output: Output) -> None:
        found = settings(payload)
        told = for_server(found, first=not self._greeted)
        self._pending.append(self._offered(told))
        self._greeted = True
        if told == found:
            output.take(Pass, size)
        else:
            output.take(Drop, size)
            output.add(Inject(Direction.REQUEST, settings_frame(told)))

    def _offered(self, values: list[tuple[int, int]]) -> tuple[int, int]:
        """Take note of what the client offers; the least table's size and the last initial window, -1 if there is
        none."""
        table = window = -1
        for name, value in values:
            if name == HEADER_TABLE_SIZE:
                self._answers.allow_table(value)
                table = value if table < 0 else min(table, value)
            elif name == INITIAL_WINDOW_SIZE:
                window = value
            elif name == MAX_FRAME_SIZE:
                self._client_frame = max(self._client_frame, value)
        return table, window

    def _client_window(self, number: int, payload: bytes, size: int, output: Output) -> None:
        room = struct.unpack(">L", payload)[0] & LARGEST_WINDOW
        if number:
            self._known_or_broken(number)
            output.take(self._way(number, number in self.streams), size)
            return
        if not room:
            raise Broken(Code.PROTOCOL_ERROR, "a WINDOW_UPDATE of nothing")
        if self._window + room > LARGEST_WINDOW:
            raise Broken(Code.FLOW_CONTROL_ERROR, "the connection's window grows beyond all bounds")
        # The client gives back what it took of ours as well, of which the server knows nothing.
        self._window += room
        ours = min(self._owed, room)
        self._owed -= ours
        if not ours:
            output.take(Pass, size)
            return
        output.take(Drop, size)
        if room > ours:
            output.add(Inject(Direction.REQUEST, window_update(0, room - ours)))

    def _client_reset(self, number: int, size: int, now: float, output: Output) -> None:
        self._known_or_broken(number)
        self._floods.reset(now)
        stream = self.streams.pop(number, None)
        self._swallowed.pop(number, None)
        self._past.append(number)
        output.take(self._way(number, stream is not None), size)
        if stream is not None:
            self._note(stream, now, output)

    def _way(self, number: int, known: bool) -> Way:
        """What is done with a frame that says something of a stream: it passes if the server has heard of that."""
        return Pass if known or (self._judge.audit_only and number <= self._taken) else Drop

    def _unread_in_audit(self, code: Code, reason: str) -> None:
        """Before anything is refused: where nothing is enforced, all goes on unread instead. Raises Broken."""
        if self._judge.audit_only:
            raise Broken(code, reason)

    def _known_or_broken(self, number: int) -> None:
        if number > self._last:
            raise Broken(Code.PROTOCOL_ERROR, f"a frame for stream {number}, which is not open")

    def _client_data(
        self, data: bytes, position: int, length: int, flags: int, number: int, now: float, output: Output
    ) -> int:
        self._known_or_broken(number)
        padded = flags & PADDED
        if padded and position + HEAD + 1 > len(data):
            return 0
        start, stop = fragment(data, position + HEAD, length, padded)
        stream = self.streams.get(number)
        if stream is not None and stream.client_done:
            self._stream_error(stream, "DATA behind the end of its stream", now, output, Code.STREAM_CLOSED)
            stream = None
        elif stream is None and number not in self._swallowed:
            self._floods.reset(now)
            self._unread_in_audit(Code.STREAM_CLOSED, f"DATA on stream {number}, which has ended")
            self._to_client.append(rst_stream(number, Code.STREAM_CLOSED))
        last = bool(flags & END_STREAM)
        if stream is not None and stream.left >= 0:
            stream.left -= stop - start
            if stream.left < 0 or (last and stream.left):
                self._stream_error(stream, "the body's length differs from its content-length", now, output)
                stream = None
        if start == stop and not last:
            self._floods.control(now)
        if stream is None and length:
            self._to_client.append(window_update(0, length))
            if not last:
                self._drain(number, length)
        if last and stream is None:
            self._swallowed.pop(number, None)
        way = Drop if stream is None else Pass
        return self._begin(Direction.REQUEST, (position, length), (start, stop), way, stream, last, output)

    def _drain(self, number: int, length: int) -> None:
        """Many clients lose an answer if their stream is reset while they send: they may send a little more."""
        spare = self._drained.get(number, -1)
        if number not in self._swallowed or spare < 0:
            return
        if length > spare:
            self._stop(number)
        else:
            self._drained[number] = spare - length
            self._to_client.append(window_update(number, length))

    def _client_done(self, stream: Stream, now: float, output: Output) -> None:
        stream.client_done = True
        if stream.answered:
            self._forget(stream)

    # -- header blocks -------------------------------------------------------------------------------------------

    def _client_headers(self, number: int, flags: int, block: bytes, size: int, now: float, output: Output) -> None:
        before = self._asked.epoch
        if number <= self._last:
            self._check_open(number)
            self._client_trailers(number, flags, block, size, now, output)
        else:
            self._open(number, flags, block, size, now, output)
        if self._asked.epoch != before and self._withheld:
            self._asked.in_step = False

    def _open(self, number: int, flags: int, block: bytes, size: int, now: float, output: Output) -> None:
        """A new request."""
        if not number & 1:
            raise Broken(Code.PROTOCOL_ERROR, f"the client opens stream {number}")
        call = self._call(block)
        self._last = number
        last = bool(flags & END_STREAM)
        self._withheld = True
        spare = -1
        if number > self._taken:
            self._turn_away(number, call, self._over, now, output)
        elif len(self.streams) >= self._most_streams:
            self._floods.reset(now)
            self._unread_in_audit(Code.ENHANCE_YOUR_CALM, "more streams than are allowed")
            self._turn_away(number, call, f"more than {self._most_streams} streams at once", now, output)
        elif call.malformed or (last and call.length > 0 and not self._judge.audit_only):
            self._floods.reset(now)
            self._to_client.append(rst_stream(number, Code.PROTOCOL_ERROR))
            output.ops.append(refused_record(call if call.malformed else call.bodiless(), now))
        elif call.answer is not None:
            self._refuse(number, call, last, now, output)
            spare = -1 if call.grpc else self._judge.options.drain_body
        else:
            self._let_through(number, flags, block, call.fields or [], size, output)
            stream = self.streams[number] = Stream(number, call, now)
            stream.client_done = last
            return
        output.take(Drop, size)
        if last:
            self._past.append(number)
        else:
            self._swallow(number, spare)

    def _turn_away(self, number: int, call: Call, reason: str, now: float, output: Output) -> None:
        """The client may ask for it elsewhere."""
        self._to_client.append(rst_stream(number, Code.REFUSED_STREAM))
        output.ops.append(refused_record(call.turned_away(reason), now))

    def _refuse(self, number: int, call: Call, last: bool, now: float, output: Output) -> None:
        frames, used = call.frames(number, self._room(), self._own_block())
        self._window -= used
        self._owed += used
        self._to_client.append(frames)
        if not last:
            self._floods.reset(now)
            if call.grpc:
                self._to_client.append(rst_stream(number, Code.NO_ERROR))
        output.ops.append(refused_record(call, now))

    def _let_through(
        self, number: int, flags: int, block: bytes, fields: list[tuple[bytes, bytes]], size: int, output: Output
    ) -> None:
        self._withheld = False
        anew = self._asked.anew(block, fields)
        if anew is None:
            output.take(Pass, size)
            return
        output.take(Drop, size)
        kept = flags & (END_STREAM | PRIORITISED)
        output.add(Inject(Direction.REQUEST, block_frames(kept, number, self._priority + anew)))

    def _check_open(self, number: int) -> None:
        stream = self.streams.get(number)
        if (stream is not None and not stream.client_done) or number in self._swallowed:
            return
        if stream is not None or number in self._past:
            raise Broken(Code.STREAM_CLOSED, f"HEADERS on stream {number}, which has ended")
        raise Broken(Code.PROTOCOL_ERROR, f"the client opens stream {number} behind stream {self._last}")

    def _client_trailers(self, number: int, flags: int, block: bytes, size: int, now: float, output: Output) -> None:
        fields = self._asked.decode(block)
        stream = self.streams.get(number)
        self._withheld = True
        if stream is not None:
            try:
                if not flags & END_STREAM:
                    raise Refused(400, "a second header block that does not end its stream")
                if stream.left > 0:
                    raise Refused(400, "the body's length differs from its content-length")
                trailer_facts(fields, self._judge.header_names, request=True)
            except Refused as error:
                self._stream_error(stream, error.reason, now, output)
                stream = None
        if stream is None:
            if flags & END_STREAM:
                self._swallowed.pop(number, None)
                self._past.append(number)
            output.take(Drop, size)
            return
        self._let_through(number, flags, block, fields, size, output)
        self._client_done(stream, now, output)

    def _call(self, block: bytes) -> Call:
        """What becomes of the request with this block."""
        judge, plain = self._judge, self._asked.plain
        if self._mine_epoch != self._asked.epoch:
            self._mine, self._mine_epoch = {}, self._asked.epoch
        known = judge.calls if plain else self._mine
        call = known.get(block)
        if call is not None:
            return call
        call = examine(self._asked.decode(block), judge)
        if self._asked.epoch == self._mine_epoch and len(block) <= CACHED_HEAD:
            if len(known) >= _KNOWN_CALLS:
                known.clear()
            known[block] = call
        return call

    def _stream_error(
        self, stream: Stream, reason: str, now: float, output: Output, code: Code = Code.PROTOCOL_ERROR
    ) -> None:
        """Both ends hear that the stream is over."""
        self._unread_in_audit(code, reason)
        self._forget(stream)
        self._to_client.append(rst_stream(stream.id, code))
        self._to_server.append(rst_stream(stream.id, Code.CANCEL))
        if not stream.answered:
            request = stream.call.request
            decision = replace(request.decision, verdict=Verdict.DROPPED, rule=None, reason=reason)
            output.ops.append(Record(replace(request, decision=decision), 400, stream.started, now))
