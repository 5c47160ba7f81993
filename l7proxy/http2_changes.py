"""A new policy, and the gRPC streams that run: the next request message of each is judged by it before it passes.

If it is refused the stream is cut. The client gets trailers with grpc-status 7, behind the response as far as that has
come, the server RST_STREAM(CANCEL); what either still sends on it is swallowed, and its room given back. The server's
late header blocks are read, for they change its table: the client's is out of step from then on, and later blocks are
made anew for it (`l7proxy.http2_blocks`).

Nothing here is run on a connection before its policy has changed.
"""

from __future__ import annotations

from dataclasses import replace

from l7proxy.http1_exchange import Judge, refusal_text
from l7proxy.http2_blocks import block_frames, gathered
from l7proxy.http2_requests import Http2Requests
from l7proxy.http2_responses import REMEMBERED
from l7proxy.http2_streams import PERMISSION_DENIED, Stream, examine, grpc_end, unfinished
from l7proxy.ops import Direction, Drop, Inject, Pass
from l7proxy.output import Output
from parsers.http2 import (
    DATA,
    END_STREAM,
    HEAD,
    HEADERS,
    PADDED,
    RST_STREAM,
    WINDOW_UPDATE,
    Code,
    check_frame,
    fragment,
    frame_head,
    rst_stream,
    window_update,
)
from policies.verdict import Verdict


class Http2Changes(Http2Requests):
    """What both directions do once the policy has changed."""

    def __init__(self, judge: Judge) -> None:
        super().__init__(judge)
        self._was_cut = False
        """A stream was cut, of which the server may not have heard yet, or whose end has parted the tables."""
        self._late: dict[int, None] = {}
        """Streams that were cut, and that the server has not ended."""

    @property
    def judge(self) -> Judge:
        """The rules in force."""
        return self._judge

    @judge.setter
    def judge(self, judge: Judge) -> None:
        self._judge = judge
        self._mine = {}
        if judge.cut_streams:
            running = (stream for stream in self.streams.values() if not stream.client_done)
            self._stale = {one.id: one.messages[Direction.REQUEST] for one in running if one.messages is not None}

    # -- the client ----------------------------------------------------------------------------------------------

    def _read_stale(self, data: bytes, now: float, output: Output) -> None:
        oldest = next(iter(self._stale))
        if not self._awaited(oldest):
            del self._stale[oldest]
        self.head_pending = False
        position = self._carry_stale(data, 0, now, output)
        self._frames(Direction.REQUEST, data, position, now, output, self._stale_frame_at, self._client_done)

    def _awaited(self, number: int) -> Stream | None:
        """The stream, if its client has not ended it."""
        stream = self.streams.get(number)
        return None if stream is None or stream.client_done else stream

    def _stale_frame_at(self, data: bytes, position: int, now: float, output: Output) -> int:
        """As `_client_frame_at`, but where a message begins it is judged first."""
        length, kind, flags, number = frame_head(data, position)
        messages = self._stale.get(number) if kind == DATA else None
        stream = self._awaited(number)
        if messages is None or stream is None:
            return self._client_frame_at(data, position, now, output)
        padded = flags & PADDED
        if padded and position + HEAD + 1 > len(data):
            return 0
        start, stop = fragment(data, position + HEAD, length, padded)
        if messages.between and start < stop and not self._judged_again(stream):
            self._cut_off(stream, bool(flags & END_STREAM), b"", now, output)
        step = self._client_frame_at(data, position, now, output)
        return self._carry_stale(data, position + step, now, output) - position

    def _carry_stale(self, data: bytes, position: int, now: float, output: Output) -> int:
        """Take what is there of the message that has begun, if the DATA frame under way is one of a stale stream; the
        position behind it.

        The server has the head of this frame: where the next message is refused, bytes of ours fill the frame.
        """
        part = self._parts[Direction.REQUEST]
        stream = None if part is None else part.stream
        messages = None if stream is None else self._stale.get(stream.id)
        if part is None or stream is None or messages is None:
            return position
        end = min(position + part.data, len(data))
        stop = messages.stop(data, position, end)
        messages.feed(data, position, stop)
        part.data -= stop - position
        output.take(Pass, stop - position)
        if stop < end and not self._judged_again(stream):
            stream.client_done = part.last
            self._cut_off(stream, part.last, unfinished(part.data) + bytes(part.padding), now, output)
            part.way, part.messages, part.stream = Drop, None, None
        return stop

    def _judged_again(self, stream: Stream) -> bool:
        """Whether the policy in force lets the stream go on."""
        del self._stale[stream.id]
        request = stream.call.request
        decision = examine(stream.call.fields or [], self._judge).request.decision
        if decision.verdict is not request.decision.verdict:
            decision = replace(decision, reason=f"policy changed: {decision.reason}")
        stream.call = replace(stream.call, request=replace(request, decision=decision))
        return decision.verdict is not Verdict.DROPPED

    def _cut_off(self, stream: Stream, last: bool, rest: bytes, now: float, output: Output) -> None:
        """End a stream towards both sides. `last`: the client ends it too; `rest`: that of the server's frame."""
        if not self._answered_whole(stream):
            self._say_status(stream)
            self._was_cut, self._late[stream.id] = True, None
            if len(self._late) > REMEMBERED + self._judge.options.max_streams:
                del self._late[next(iter(self._late))]
        if not last:
            self._to_client.append(rst_stream(stream.id, Code.NO_ERROR))
        output.add(Inject(Direction.REQUEST, rest + rst_stream(stream.id, Code.CANCEL)))
        self._forget(stream)
        self._note(stream, now, output)

    def _answered_whole(self, stream: Stream) -> bool:
        """Whether the client has the end of the response, or gets it with the frame under way. Of a frame that goes on
        in pieces no further one does."""
        part, cut = self._parts[Direction.RESPONSE], self._cut
        if cut is None or cut.stream is not stream:
            return stream.answered or (part is not None and part.stream is stream and part.last)
        ended = cut.ended
        if not ended:
            self._to_server.append(window_update(0, cut.stop()))
        return ended

    def _say_status(self, stream: Stream) -> None:
        """Status 7, behind what the client has of the response."""
        text, stream.status = refusal_text(stream.call.request.decision), PERMISSION_DENIED
        if stream.code >= 200:
            self._to_client.append(grpc_end(stream.id, PERMISSION_DENIED, text, self._own_block()))
            return
        stream.code = 200
        self._to_client.append(replace(stream.call, code=403, answer=text).frames(stream.id, 0, self._own_block())[0])

    # -- the server ----------------------------------------------------------------------------------------------

    def _late_frame_at(self, data: bytes, position: int, now: float, output: Output) -> int:
        """As `_server_frame_at`, but without what is of a stream that was cut, and with the client's table in mind."""
        length, kind, flags, number = frame_head(data, position)
        late = number in self._late
        if kind == HEADERS and (late or not self._answers.in_step):
            return self._late_headers(data, position, late, now, output)
        if not late or kind not in (DATA, RST_STREAM, WINDOW_UPDATE):
            return self._server_frame_at(data, position, now, output)
        check_frame(length, kind, flags, number, self._client_frame)
        if kind == DATA:
            if length:
                self._to_server.append(window_update(0, length))
            if flags & END_STREAM:
                self._ended_late(number)
            content = position + HEAD, position + HEAD + length
            return self._begin(Direction.RESPONSE, (position, length), content, Drop, None, False, output)
        if position + HEAD + length > len(data):
            return 0
        if kind == RST_STREAM:
            self._ended_late(number)
        output.take(Drop, HEAD + length)
        return HEAD + length

    def _ended_late(self, number: int) -> None:
        del self._late[number]
        self._was_cut = bool(self._late) or not self._answers.in_step

    def _late_headers(self, data: bytes, position: int, late: bool, now: float, output: Output) -> int:
        length, kind, flags, number = frame_head(data, position)
        check_frame(length, kind, flags, number, self._client_frame)
        most = self._judge.options.max_head
        found = gathered(data, position, length, flags, number, self._client_frame, most)
        if found is None:
            return 0
        size, block = found[0] - position, found[1]
        before = self._answers.epoch
        fields = self._answers.decode(block)
        if late:
            if self._answers.epoch != before or self._table_due >= 0:
                self._answers.in_step = False
            if flags & END_STREAM:
                self._ended_late(number)
            output.take(Drop, size)
            return size
        anew = self._answers.anew(block, fields)
        self._table_due = -1
        output.take(Pass if anew is None else Drop, size)
        if anew is not None:
            output.add(Inject(Direction.RESPONSE, block_frames(flags & END_STREAM, number, anew)))
        stream = self.streams.get(number)
        if stream is not None:
            self._answered(stream, flags, self._judged_answer(fields, stream.code >= 200), now, output)
        return size
