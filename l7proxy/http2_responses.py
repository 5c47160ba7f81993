"""HTTP/2, from the server to the client; and what both halves of the conversation share.

Frames go on as they came. Our own stand between two frames of their direction, never within one or in a header block:
what has no place yet waits for the end of the frame that is under way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from l7proxy.http1_exchange import Judge
from l7proxy.http2_blocks import Blocks, gathered, table_size, too_large
from l7proxy.http2_parts import Cut, Part, Way
from l7proxy.http2_settings import BINARY_METADATA
from l7proxy.http2_streams import Messages, Stream
from l7proxy.ops import Direction, Drop, Inject, Pass, Wait
from l7proxy.output import Output
from parsers.http1 import Refused
from parsers.http2 import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_FRAME,
    DEFAULT_WINDOW,
    END_STREAM,
    FRAME_HEAD,
    HEAD,
    HEADER_TABLE_SIZE,
    HEADERS,
    LARGEST_STREAM,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    PADDED,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    Broken,
    Code,
    check_frame,
    fragment,
    frame_head,
    rst_stream,
    settings,
    settings_frame,
)
from parsers.http2_fields import STATUS, ResponseFacts, response_facts, trailer_facts

_KNOWN_ANSWERS = 256
REMEMBERED = 1000


Take: TypeAlias = Callable[[bytes, int, float, Output], int]
"""Takes the frame at a position, at a time; how many bytes that was, 0 if it cannot be taken yet."""
Done: TypeAlias = Callable[["Stream", float, Output], None]


class Http2Shared:
    """The server's half. `streams` are those that were let through and are not over."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.streams: dict[int, Stream] = {}
        self._asked, self._answers = Blocks(judge.options.max_head), Blocks(judge.options.max_head)
        self._known: dict[bytes, ResponseFacts | int] = {}
        self._known_epoch = 0
        self._parts: list[Part | None] = [None, None]
        """The DATA frame under way, by direction."""
        self._cut: Cut | None = None
        """A frame of the server's, of which such a part may be a piece."""
        self._to_client: list[bytes] = []
        self._to_server: list[bytes] = []
        self._greeted = self._settled = False
        """The client's, and the server's, first SETTINGS have passed."""
        self._window, self._owed = DEFAULT_WINDOW, 0
        """Bytes of DATA that the client takes now, and how many of ours the server has not heard of."""
        self._client_frame = self._server_frame = DEFAULT_FRAME
        self._most_streams = judge.options.max_streams
        self._pending: deque[tuple[int, int]] = deque()
        """The table's size and the initial window in each SETTINGS of the client without an answer; -1: not in it."""
        self._client_initial = DEFAULT_WINDOW
        self._table_due = -1
        """The size that the server's next block has to begin with, or less; -1: none."""
        self._swallowed: dict[int, None] = {}
        """Streams that are over, or were refused, on which the client may still send."""
        self._drained: dict[int, int] = {}
        """The last of these that were refused and not reset, some ended since; and how many bytes may still come."""
        self._past: deque[int] = deque(maxlen=REMEMBERED)
        """Streams that are over for the client too."""
        self._over = ""
        """Why the connection closes with its last stream."""
        self._taken = LARGEST_STREAM
        """The last stream that our GOAWAY takes. Those behind it are ignored (RFC 9113, section 6.8)."""
        self._stale: dict[int, Messages] = {}
        """The requests' messages of streams that an older policy let through, and on which more may come."""

    # -- frames of our own ---------------------------------------------------------------------------------------

    def _flush(self, output: Output) -> None:
        """Send what waits, where a frame may begin."""
        if self._to_client and self._settled and self._parts[Direction.RESPONSE] is None:
            output.add(Inject(Direction.RESPONSE, b"".join(self._to_client)))
            self._to_client = []
        if self._to_server and self._greeted and self._parts[Direction.REQUEST] is None:
            output.add(Inject(Direction.REQUEST, b"".join(self._to_server)))
            self._to_server = []

    # -- what both directions do ---------------------------------------------------------------------------------

    def _frames(
        self, direction: Direction, data: bytes, position: int, now: float, output: Output, take: Take, done: Done
    ) -> None:
        """Take frame by frame what is there, from `position` on. `done`: an end has ended its half of a stream."""
        runs = self._settled and (direction or not self._stale)
        while True:
            part = self._parts[direction]
            if part is not None:
                position = self._carry(part, data, position, output)
                if part.data or part.padding:
                    return
                self._parts[direction] = None
                if part.last and part.stream is not None:
                    done(part.stream, now, output)
            self._flush(output)
            if position + HEAD > len(data):
                return
            if runs and data[position + 3] == DATA:
                position = self._run(direction, data, position, output)
                if position + HEAD > len(data):
                    return
            step = take(data, position, now, output)
            if not step:
                return
            position += step

    def _run(self, direction: Direction, data: bytes, position: int, output: Output) -> int:
        """Pass whole DATA frames of streams that go on, which most bytes of a busy connection are; the position behind.

        What is more than that, or an error, is left to `_client_frame_at` and `_server_frame_at`.
        """
        start, there, streams, window = position, len(data), self.streams, self._window
        most = self._client_frame if direction else self._server_frame
        while position + HEAD < there:
            high, low, kind, flags, number = FRAME_HEAD(data, position)
            length = high << 8 | low
            end = position + HEAD + length
            stream = streams.get(number)
            if kind or flags or stream is None or not 0 < length <= most or end > there:
                break
            if direction:
                if length > window:
                    break
                window -= length
            elif stream.client_done or 0 <= stream.left < length:
                break
            else:
                stream.left -= length
            if stream.messages is not None:
                stream.messages[direction].feed(data, position + HEAD, end)
            position = end
        if position > start:
            self._window = window
            output.take(Pass, position - start)
        return position

    def _begin(
        self,
        direction: Direction,
        frame: tuple[int, int],
        content: tuple[int, int],
        way: Way,
        stream: Stream | None,
        last: bool,
        output: Output,
    ) -> int:
        """Take the head of a DATA frame; how many bytes that was. `frame`: where it begins, and its length; `content`:
        where its data begins and ends."""
        (position, length), (start, stop) = frame, content
        head = start - position
        output.take(way, head)
        padding = HEAD + length - head - (stop - start)
        messages = None if stream is None or stream.messages is None else stream.messages[direction]
        self._parts[direction] = Part(stop - start, padding, way, messages, stream, last)
        return head

    def _note(self, stream: Stream, now: float, output: Output) -> None:
        """Write the record of a stream, if it has none yet."""
        if not stream.answered:
            output.ops.append(stream.record(now))

    def _carry(self, part: Part, data: bytes, position: int, output: Output) -> int:
        """Take what is there of a DATA frame; the position behind it."""
        size = min(part.data, len(data) - position)
        if part.messages is not None and size:
            part.messages.feed(data, position, position + size)
        part.data -= size
        rest = min(part.padding, len(data) - position - size)
        part.padding -= rest
        output.take(part.way, size + rest)
        return position + size + rest

    # -- the server ----------------------------------------------------------------------------------------------

    def _read_server(self, data: bytes, now: float, output: Output, take: Take) -> None:
        while self._cut is None or self._pieces(self._cut, data, output):
            self._frames(Direction.RESPONSE, data, output.taken, now, output, take, self._server_done)
            if self._cut is None:
                return

    def _pieces(self, cut: Cut, data: bytes, output: Output) -> bool:
        """Go on with a frame as far as the client has room for it; whether all pieces have gone."""
        while True:
            part = self._parts[Direction.RESPONSE]
            if part is not None:
                self._carry(part, data, output.taken, output)
                if part.data:
                    return False
                self._parts[Direction.RESPONSE] = None
                self._flush(output)
            if not cut.left:
                self._cut, self._parts[Direction.RESPONSE] = None, cut.end()
                return True
            # Where nothing is owed, what is more than the client's window is the server's own fault.
            size = min(cut.left, self._window) if self._owed else cut.left
            if not size:
                output.add(Wait())
                return False
            self._window -= size
            words, self._parts[Direction.RESPONSE] = cut.piece(size)
            output.add(Inject(Direction.RESPONSE, words))

    def _server_frame_at(self, data: bytes, position: int, now: float, output: Output) -> int:
        """Take the frame that begins here; how many bytes that was, 0 if it cannot be taken yet."""
        length, kind, flags, number = frame_head(data, position)
        check_frame(length, kind, flags, number, self._client_frame)
        if not self._settled and kind != SETTINGS:
            raise Broken(Code.PROTOCOL_ERROR, "the server does not begin with SETTINGS")
        if kind == DATA:
            return self._server_data(data, position, length, flags, number, output)
        most = self._judge.options.max_head
        if HEAD + length > most:
            raise too_large(HEAD + length, most)
        if kind == HEADERS:
            found = gathered(data, position, length, flags, number, self._client_frame, most)
            if found is None:
                return 0
            self._server_headers(number, flags, found[1], now, output)
            output.take(Pass, found[0] - position)
            return found[0] - position
        size = HEAD + length
        if kind in (PUSH_PROMISE, CONTINUATION):
            raise Broken(Code.PROTOCOL_ERROR, f"a frame of type {kind} from the server")
        if position + size > len(data):
            return 0
        if kind == SETTINGS and flags & ACK:
            self._acknowledged()
        elif kind == SETTINGS:
            self._server_settings(data[position + HEAD : position + size], size, output)
            return size
        if kind == RST_STREAM:
            stream = self.streams.get(number)
            if stream is not None:
                self._forget(stream)
                self._note(stream, now, output)
        output.take(Pass, size)
        return size

    def _server_settings(self, payload: bytes, size: int, output: Output) -> None:
        """The client is told of no table: what it sends then means the same with and without the blocks before."""
        found = settings(payload)
        for name, value in found:
            if name == MAX_FRAME_SIZE:
                self._server_frame = max(self._server_frame, value)
            elif name == HEADER_TABLE_SIZE:
                self._asked.wanted = min(value, self._asked.wanted)
            elif name == MAX_CONCURRENT_STREAMS:
                self._most_streams = min(value, self._judge.options.max_streams)
        told = [(name, 0 if name in (HEADER_TABLE_SIZE, BINARY_METADATA) else value) for name, value in found]
        if not self._settled and all(name != HEADER_TABLE_SIZE for name, _ in found):
            told.append((HEADER_TABLE_SIZE, 0))
        if told == found:
            output.take(Pass, size)
        else:
            output.take(Drop, size)
            output.add(Inject(Direction.RESPONSE, settings_frame(told)))
        self._settled = True

    def _server_data(self, data: bytes, position: int, length: int, flags: int, number: int, output: Output) -> int:
        if flags & PADDED and position + HEAD + 1 > len(data):
            return 0
        content = fragment(data, position + HEAD, length, flags & PADDED)
        stream, last = self.streams.get(number), bool(flags & END_STREAM)
        if length > self._window and self._owed:
            # The server does not know of what we have sent, and the client may give no room back before it has got
            # more than that: it gets what it has room for.
            output.take(Drop, content[0] - position)
            size = content[1] - content[0]
            self._cut = Cut(number, size, length - size, stream, last)
            return 0
        self._window -= length
        return self._begin(Direction.RESPONSE, (position, length), content, Pass, stream, last, output)

    def _server_headers(self, number: int, flags: int, block: bytes, now: float, output: Output) -> None:
        stream = self.streams.get(number)
        if stream is None:
            self._answers.decode(block)
            self._table_due = -1
            return
        self._answered(stream, flags, self._answer_facts(block, stream.code >= 200), now, output)

    def _answered(self, stream: Stream, flags: int, facts: ResponseFacts | int, now: float, output: Output) -> None:
        """The server has said this of a stream in a header block."""
        if isinstance(facts, ResponseFacts):
            stream.code = facts.code
            stream.status = facts.grpc_status
        else:
            stream.status = facts
        if flags & END_STREAM:
            self._server_done(stream, now, output)

    def _answer_facts(self, block: bytes, trailers: bool) -> ResponseFacts | int:
        if self._known_epoch != self._answers.epoch:
            self._known, self._known_epoch = {}, self._answers.epoch
        known = self._known.get(block)
        if known is not None and isinstance(known, int) == trailers:
            return known
        fields = self._answers.decode(block)
        self._table_due = -1
        facts = self._judged_answer(fields, trailers)
        if self._known_epoch == self._answers.epoch and len(self._known) < _KNOWN_ANSWERS:
            self._known[block] = facts
        return facts

    def _judged_answer(self, fields: list[tuple[bytes, bytes]], trailers: bool) -> ResponseFacts | int:
        try:
            return trailer_facts(fields, frozenset(), request=False) if trailers else response_facts(fields)
        except Refused:
            # The client will see what is wrong with it. To keep its block back would part their tables.
            status = dict(fields).get(b":status", b"")
            return -1 if trailers else ResponseFacts(int(status) if STATUS.fullmatch(status) else 502, -1, -1)

    def _server_done(self, stream: Stream, now: float, output: Output) -> None:
        self._note(stream, now, output)
        if stream.client_done:
            self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        """The stream is over. What the client sends on it before it has heard so is swallowed."""
        if self.streams.pop(stream.id, None) is None:
            return
        if stream.client_done:
            self._past.append(stream.id)
        else:
            self._swallow(stream.id)

    def _swallow(self, number: int, spare: int = -1) -> None:
        """What comes on this stream is not for the server. The oldest are forgotten: most clients stop at our reset.

        `spare`: bytes that may come before that; -1: it has been sent.
        """
        self._swallowed[number] = None
        if spare >= 0:
            self._drained[number] = spare
            if len(self._drained) > self._most_streams // 2:
                # They count among the streams that the client may have: some have to be left for what is allowed.
                self._stop(next(iter(self._drained)))
        if len(self._swallowed) > REMEMBERED:
            oldest = next(iter(self._swallowed))
            self._stop(oldest)
            del self._swallowed[oldest]
            self._past.append(oldest)

    def _stop(self, number: int) -> None:
        """Reset a refused stream, if it is still open."""
        if self._drained.pop(number, -1) >= 0 and number in self._swallowed:
            self._to_client.append(rst_stream(number, Code.NO_ERROR))

    def _acknowledged(self) -> None:
        """The client's oldest SETTINGS hold now: its table may have become smaller than the server's still is."""
        if not self._pending:
            raise Broken(Code.PROTOCOL_ERROR, "the server acknowledges SETTINGS that nobody sent")
        size, window = self._pending.popleft()
        if window >= 0:
            self._client_initial = window
        if size >= 0 and size < self._answers.size:
            self._table_due = size if self._table_due < 0 else min(size, self._table_due)

    def _room(self) -> int:
        """Bytes of DATA that the client takes on a new stream, whether it has heard that its SETTINGS hold or not."""
        windows = [window for _, window in self._pending if window >= 0]
        return min(self._window, self._client_initial, *windows)

    def _own_block(self) -> bytes:
        """What a block of our own has to begin with, before the server's next one does: the table's new size."""
        return b"" if self._table_due < 0 else table_size(self._table_due)
