"""The ends of a conversation: a real h2 state machine, or one who says whatever a test wants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from h2 import events
from h2.config import H2Configuration
from h2.connection import ConnectionInputs, H2Connection
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hpack import Decoder, Encoder
from hyperframe.frame import Frame as HyperFrame

from tests.http2 import frames
from tests.http2.frames import Fields, Frame

OK = ((b":status", b"200"),)


@dataclass
class Seen:
    """What one end got of a stream: `fields` of the request or final response, and all behind it."""

    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    data: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    interim: list[int] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None

    @property
    def code(self) -> int:
        """The status of a response."""
        return int(dict(self.fields).get(b":status", b"0"))

    def block(self, fields: list[tuple[bytes, bytes]]) -> None:
        """A header block came."""
        status = dict(fields).get(b":status", b"")
        if status.startswith(b"1"):
            self.interim.append(int(status))
        elif self.fields:
            self.trailers = fields
        else:
            self.fields = fields


class Sizing(Encoder):
    """hpack's encoder forgets a size that it is told twice, and repeats those that no longer hold: two ends of its own
    making part over that, with nobody between them."""

    @property
    def header_table_size(self) -> int:
        return int(self.header_table.maxsize)

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        least = min([*self.table_size_changes, value])
        self.header_table.maxsize = value
        self.header_table.resized = True
        self.table_size_changes = [least, value] if least < value else [value]


class Growing(H2Connection):
    """h2 takes larger frames, which it has offered, from the next call on; they may come with the acknowledgement."""

    def _receive_frame(self, frame: HyperFrame) -> list[events.Event]:
        found: list[events.Event] = super()._receive_frame(frame)
        self.incoming_buffer.max_frame_size = self.max_inbound_frame_size
        return found


class Peer:
    """A client or server as h2 makes it, with all of its checks. Raises where it sees a protocol error; `patient`: it
    says GOAWAY then, as a server does.

    `options` are its settings; they hold once they are acknowledged, as RFC 9113, section 6.5.3, has it. `greedy`: it
    gives room back as soon as data comes. `begin`: it says its preface at once; without, h2 has to be told how.
    """

    def __init__(
        self,
        *,
        client: bool,
        options: Mapping[int, int] | None = None,
        greedy: bool = True,
        checked: bool = True,
        begin: bool = True,
        patient: bool = False,
    ) -> None:
        config = H2Configuration(client_side=client, header_encoding=None, validate_outbound_headers=checked)
        config.normalize_outbound_headers = checked
        config.normalize_inbound_headers = False
        self.h2 = Growing(config)
        self.h2.encoder = Sizing()
        self.greedy, self.patient = greedy, patient
        self.failure: ProtocolError | None = None
        self.seen: dict[int, Seen] = {}
        self.goaway: tuple[int, int] | None = None
        self.settings: list[dict[int, int]] = []
        self.pings: list[bytes] = []
        self.owed: list[tuple[int, int]] = []
        """(stream, bytes) of data whose room was not given back."""
        self.promised: list[int] = []
        self.outgoing = bytearray(frames.PREFACE if client and begin else b"")
        self._changes: list[dict[int, int]] = []
        self._in_flight = False
        self._unsent: dict[int, tuple[bytearray, Fields | None]] = {}
        if not begin:
            return
        if client:
            self.h2.state_machine.process_input(ConnectionInputs.SEND_SETTINGS)
        self.change(options or ({SettingCodes.ENABLE_PUSH: 0} if client else {}))

    # -- what it says ------------------------------------------------------------------------------------------------

    def change(self, options: Mapping[int, int]) -> None:
        """New settings, once those before are acknowledged: h2 takes an ACK for all of them together."""
        self._changes.append(dict(options))
        self._next_change()

    def _next_change(self) -> None:
        if self._changes and not self._in_flight:
            self._in_flight = True
            self.h2.update_settings(self._changes.pop(0))

    def ask(self, fields: Fields, *, end: bool = True) -> int:
        """A request; its stream."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, fields, end_stream=end)
        return stream

    def send(self, stream: int, data: bytes = b"", *, end: bool = False, trailers: Fields | None = None) -> None:
        """Data, as far as the windows allow; the rest when there is room. `trailers` end the stream behind it."""
        waiting, _ = self._unsent.get(stream, (bytearray(), None))
        last = trailers if trailers is not None else () if end else None
        self._unsent[stream] = (waiting + data, last)
        self._flush()

    def reply(
        self,
        stream: int,
        fields: Fields = OK,
        body: bytes | None = None,
        *,
        end: bool = True,
        trailers: Fields | None = None,
    ) -> None:
        """A response, or the whole of one."""
        self.h2.send_headers(stream, fields, end_stream=body is None and trailers is None and end)
        if body is not None or trailers is not None:
            self.send(stream, body or b"", end=end, trailers=trailers)

    def cancel(self, stream: int, code: int = 8) -> None:
        """Reset a stream that is not over."""
        self._unsent.pop(stream, None)
        self.h2.reset_stream(stream, code)

    def alive(self, stream: int) -> bool:
        """Whether h2 would let this stream be reset, or written to as far as it is not ended."""
        return stream in self.h2.streams and not self.h2.streams[stream].closed

    def _flush(self) -> None:
        for stream in list(self._unsent):
            waiting, last = self._unsent.pop(stream)
            if not self.alive(stream):
                continue
            rest = self._data(stream, waiting)
            if rest or last is None:
                self._unsent[stream] = (rest, last)
            elif last:
                self.h2.send_headers(stream, last, end_stream=True)
            else:
                self.h2.end_stream(stream)
            if last is None and not rest:
                del self._unsent[stream]

    def _data(self, stream: int, waiting: bytearray) -> bytearray:
        while waiting:
            size = min(len(waiting), self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if size <= 0:
                break
            self.h2.send_data(stream, bytes(waiting[:size]))
            waiting = waiting[size:]
        return waiting

    @property
    def unsent(self) -> list[int]:
        """Streams that wait for room."""
        return list(self._unsent)

    def raw(self, data: bytes) -> None:
        """Bytes behind h2's back, in order with what it says."""
        self.outgoing += self.h2.data_to_send() + data

    def take(self, size: int | None = None) -> bytes:
        """What goes out next."""
        self.outgoing += self.h2.data_to_send()
        size = len(self.outgoing) if size is None else size
        data = bytes(self.outgoing[:size])
        del self.outgoing[:size]
        return data

    # -- what it hears -----------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Bytes came. Raises h2's ProtocolError."""
        if self.failure is not None:
            return
        try:
            for event in self.h2.receive_data(data):
                self._hear(event)
        except ProtocolError as error:
            if not self.patient:
                raise
            self.failure = error
            return
        self._flush()

    def _hear(self, event: events.Event) -> None:
        stream = getattr(event, "stream_id", None)
        elsewhere = not stream or isinstance(event, events.PriorityUpdated | events.WindowUpdated)
        seen = Seen() if elsewhere else self.seen.setdefault(stream or 0, Seen())
        if isinstance(event, events.DataReceived):
            seen.data += event.data
            self.owed.append((event.stream_id or 0, event.flow_controlled_length or 0))
            if self.greedy:
                self.give()
        elif hasattr(event, "headers") and not isinstance(event, events.PushedStreamReceived):
            seen.block([(bytes(name), bytes(value)) for name, value in event.headers])
        elif isinstance(event, events.StreamEnded):
            seen.ended = True
        elif isinstance(event, events.StreamReset):
            seen.reset = int(event.error_code or 0)
        else:
            self._of_connection(event)

    def _of_connection(self, event: events.Event) -> None:
        if isinstance(event, events.ConnectionTerminated):
            self.goaway = (event.last_stream_id or 0, int(event.error_code or 0))
        elif isinstance(event, events.RemoteSettingsChanged):
            self.settings.append({int(one): change.new_value for one, change in event.changed_settings.items()})
        elif isinstance(event, events.SettingsAcknowledged):
            self._in_flight = False
            self._next_change()
        elif isinstance(event, events.PingReceived | events.PingAckReceived):
            self.pings.append(event.ping_data or b"")
        elif isinstance(event, events.PushedStreamReceived):
            self.promised.append(event.pushed_stream_id or 0)

    def give(self) -> None:
        """Give back the room of all data that came."""
        for stream, size in self.owed:
            if size:
                self.h2.acknowledge_received_data(size, stream)
        self.owed.clear()


class Wire:
    """An end that says what it is told to, and understands what it hears without judging it.

    `polite`: it acknowledges SETTINGS and PING.
    """

    def __init__(self, *, client: bool, options: tuple[tuple[int, int], ...] = (), polite: bool = True) -> None:
        self._next = 1
        self.outgoing = bytearray((frames.PREFACE if client else b"") + frames.settings(*options))
        self.polite = polite
        self.encoder, self.decoder = Encoder(), Decoder()
        self.seen: dict[int, Seen] = {}
        self.heard: list[Frame] = []
        self.goaway: tuple[int, int] | None = None
        self._preface = b"" if client else frames.PREFACE
        self._waiting = b""
        self._block = b""

    def raw(self, data: bytes) -> None:
        """Say it. Requests that are asked for later take later streams."""
        self.outgoing += data
        opened = [one.stream for one in frames.split(data) if one.kind == frames.HEADERS]
        self._next = max(self._next, *(stream + 2 for stream in opened if stream & 1), 1)

    def ask(self, fields: Fields, *, end: bool = True) -> int:
        """A request; its stream."""
        stream = self._next
        self.raw(frames.headers(stream, self.encoder.encode(fields), end=end))
        return stream

    def reply(self, stream: int, fields: Fields = OK, body: bytes = b"") -> None:
        """A whole response."""
        self.raw(frames.headers(stream, self.encoder.encode(fields), end=not body))
        if body:
            self.raw(frames.data(stream, body, end=True))

    def take(self, size: int | None = None) -> bytes:
        """What goes out next."""
        size = len(self.outgoing) if size is None else size
        data = bytes(self.outgoing[:size])
        del self.outgoing[:size]
        return data

    def receive(self, data: bytes) -> None:
        """Bytes came."""
        self._waiting += data
        if self._preface:
            if len(self._waiting) < len(self._preface):
                return
            assert self._waiting.startswith(self._preface)
            self._waiting, self._preface = self._waiting[len(self._preface) :], b""
        for one in frames.split(self._waiting):
            self._waiting = self._waiting[frames.HEAD + len(one.payload) :]
            self.heard.append(one)
            self._hear(one)

    def _hear(self, one: Frame) -> None:
        if one.kind == frames.GOAWAY:
            self.goaway = (int.from_bytes(one.payload[:4], "big"), one.number)
        elif one.kind == frames.SETTINGS and self.polite and not one.flags & frames.ACK:
            self.raw(frames.SETTINGS_ACK)
        elif one.kind == frames.PING and self.polite and not one.flags & frames.ACK:
            self.raw(frames.ping(one.payload, ack=True))
        elif one.kind in (frames.HEADERS, frames.CONTINUATION, frames.DATA, frames.RST_STREAM):
            self._of_stream(one, self.seen.setdefault(one.stream, Seen()))

    def _of_stream(self, one: Frame, seen: Seen) -> None:
        if one.kind == frames.RST_STREAM:
            seen.reset = one.number
        elif one.kind == frames.DATA:
            seen.data += one.content
        else:
            self._block += one.content
            if one.flags & frames.END_HEADERS:
                seen.block([(bytes(name), bytes(value)) for name, value in self.decoder.decode(self._block, raw=True)])
                self._block = b""
        if one.kind in (frames.DATA, frames.HEADERS) and one.flags & frames.END_STREAM:
            seen.ended = True

    def kinds(self, *which: int) -> list[Frame]:
        """The frames of these types that came."""
        return [one for one in self.heard if one.kind in which]


def denied(seen: Seen, text: bytes = b"Access denied\r\n") -> bool:
    """Whether this is, in full, the answer to what policy refuses."""
    kind = b"text/plain" if text.isascii() else b"text/plain; charset=utf-8"
    said = {b":status": b"403", b"content-length": b"%d" % len(text), b"content-type": kind}
    return len(seen.fields) == 3 and dict(seen.fields) == said and seen.data == text and seen.ended


def denied_grpc(seen: Seen) -> bytes | None:
    """The grpc-message of the answer to a refused gRPC call; None if this is another answer."""
    fields = dict(seen.fields)
    text = fields.pop(b"grpc-message", None)
    said = {b":status": b"200", b"content-type": b"application/grpc", b"grpc-status": b"7"}
    return text if fields == said and seen.ended and not seen.data and not seen.trailers else None
