"""Frames that break RFC 9113: the client hears of it, the server does not."""

from __future__ import annotations

import pytest

from l7proxy.ops import Close
from parsers.http2 import Code
from tests.http2 import frames
from tests.http2.frames import plain, raw, request
from tests.http2.peers import Peer, Wire
from tests.http2.rig import Stage, whole_and_cut

PROTOCOL, FLOW, CLOSED, SIZE = Code.PROTOCOL_ERROR, Code.FLOW_CONTROL_ERROR, Code.STREAM_CLOSED, Code.FRAME_SIZE_ERROR
GET, POST = plain(request("/public/2")), plain(request(method="POST"))
END_HEADERS, PADDED, PRIORITISED = frames.END_HEADERS, frames.PADDED, frames.PRIORITISED
CONNECTION_ERRORS: dict[str, tuple[bytes, set[Code]]] = {
    "DATA on stream 0": (raw(frames.DATA, 0, 0, b"x"), {PROTOCOL}),
    "HEADERS on stream 0": (raw(frames.HEADERS, END_HEADERS, 0, GET), {PROTOCOL}),
    "PRIORITY on stream 0": (frames.priority(0, 3), {PROTOCOL}),
    "RST_STREAM on stream 0": (frames.rst(0), {PROTOCOL}),
    "SETTINGS on a stream": (raw(frames.SETTINGS, 0, 1), {PROTOCOL}),
    "PING on a stream": (raw(frames.PING, 0, 1, b"8 bytes."), {PROTOCOL}),
    "GOAWAY on a stream": (raw(frames.GOAWAY, 0, 1, b"8 bytes."), {PROTOCOL}),
    "CONTINUATION of nothing": (raw(frames.CONTINUATION, END_HEADERS, 1, GET), {PROTOCOL}),
    "CONTINUATION on stream 0": (raw(frames.CONTINUATION, END_HEADERS, 0, GET), {PROTOCOL}),
    "CONTINUATION behind the end": (frames.headers(3, GET) + raw(frames.CONTINUATION, 4, 3, GET), {PROTOCOL}),
    "CONTINUATION of another stream": (
        raw(frames.HEADERS, 0, 3, GET) + raw(frames.CONTINUATION, END_HEADERS, 5),
        {PROTOCOL},
    ),
    "DATA within a block": (raw(frames.HEADERS, 0, 3, GET) + frames.data(1, b"x"), {PROTOCOL}),
    "HEADERS within a block": (raw(frames.HEADERS, 0, 3, GET) + frames.headers(5, GET), {PROTOCOL}),
    "PING within a block": (raw(frames.HEADERS, 0, 3, GET) + frames.ping(), {PROTOCOL}),
    "an unknown frame within a block": (raw(frames.HEADERS, 0, 3, GET) + raw(0xBA, 0, 3), {PROTOCOL}),
    "an unknown frame within a refused block": (
        raw(frames.HEADERS, 0, 3, plain(request("/secret"))) + raw(0xBA, 0, 3),
        {PROTOCOL},
    ),
    "PUSH_PROMISE from the client": (frames.push(1, 2, GET), {PROTOCOL}),
    "a stream with an even number": (frames.headers(2, GET), {PROTOCOL}),
    "a stream behind a later one": (frames.headers(7, GET) + frames.headers(5, GET), {PROTOCOL}),
    "a stream behind a later one that was refused": (
        frames.headers(7, plain(request("/secret"))) + frames.headers(5, GET),
        {PROTOCOL},
    ),
    "DATA on an idle stream": (frames.data(9, b"x"), {PROTOCOL}),
    "DATA on an idle stream behind a refused one": (
        frames.headers(5, plain(request("/secret"))) + frames.data(7, b"x"),
        {PROTOCOL},
    ),
    "DATA on an idle stream of the server's": (frames.data(2, b"x"), {PROTOCOL}),
    "RST_STREAM of an idle stream": (frames.rst(9), {PROTOCOL}),
    "WINDOW_UPDATE of an idle stream": (frames.update(9, 1), {PROTOCOL}),
    "an initial window beyond all bounds": (frames.settings((4, 1 << 31)), {FLOW}),
    "a frame too large": (frames.data(1, b"x" * 16_385), {SIZE}),
    "a HEADERS frame too large": (raw(frames.HEADERS, END_HEADERS, 3, GET + b"x" * 16_384), {SIZE}),
    "a frame of 16 MiB that only begins": (raw(frames.DATA, 0, 1, b"", 0xFFFFFF), {SIZE}),
    "an unknown frame too large": (raw(0xBA, 0, 1, b"", 0xFFFFFF), {SIZE}),
    "SETTINGS of seven bytes": (raw(frames.SETTINGS, 0, 0, b"7 bytes"), {SIZE}),
    "an ACK with settings": (raw(frames.SETTINGS, 1, 0, b"\0\1\0\0\0\0"), {SIZE}),
    "PING of seven bytes": (raw(frames.PING, 0, 0, b"7 bytes"), {SIZE}),
    "RST_STREAM of three bytes": (raw(frames.RST_STREAM, 0, 1, b"abc"), {SIZE}),
    "WINDOW_UPDATE of five bytes": (raw(frames.WINDOW_UPDATE, 0, 0, b"12345"), {SIZE}),
    "GOAWAY of seven bytes": (raw(frames.GOAWAY, 0, 0, b"7 bytes"), {SIZE}),
    "PRIORITY of four bytes": (raw(frames.PRIORITY, 0, 1, b"1234"), {SIZE, PROTOCOL}),
    "DATA with more padding than payload": (raw(frames.DATA, PADDED, 1, b"\x05abc"), {PROTOCOL}),
    "DATA with no padding's length": (raw(frames.DATA, PADDED, 1), {PROTOCOL, SIZE}),
    "HEADERS with more padding than payload": (raw(frames.HEADERS, 4 | PADDED, 3, b"\xff" + GET), {PROTOCOL}),
    "HEADERS with no room for priority": (raw(frames.HEADERS, 4 | PRIORITISED, 3, b"1234"), {PROTOCOL, SIZE}),
    "HEADERS with padding into priority": (raw(frames.HEADERS, 0x2C, 3, b"\4" + b"12345678"), {PROTOCOL}),
    "ENABLE_PUSH of 2": (frames.settings((2, 2)), {PROTOCOL}),
    "a largest frame too small": (frames.settings((5, 16_383)), {PROTOCOL}),
    "a largest frame too large": (frames.settings((5, 1 << 24)), {PROTOCOL}),
}
LEFT_TO_THE_SERVER: dict[str, bytes] = {
    "WINDOW_UPDATE of nothing": frames.update(0, 0),
    "WINDOW_UPDATE of nothing, on a stream": frames.update(1, 0),
    "a window beyond all bounds": frames.update(0, 0x7FFFFFFF),
    "a stream's window beyond all bounds": frames.update(1, 0x7FFFFFFF),
    "a window that grows beyond all bounds": frames.update(0, 0x40000000) * 2,
    "an initial window too large for an open stream": frames.update(1, 0x7FFF0000) + frames.settings((4, 100_000)),
    "more DATA than the connection has room for": frames.data(1, b"x" * 16_384) * 5,
    "a stream that depends on itself": frames.priority(1, 1),
}
"""What the server sees as the client has sent it. Its answer is the client's."""


def with_an_open_stream(cut: int = 0, server: Peer | None = None) -> Stage:
    stage = Stage(cut, client=Wire(client=True), server=server)
    stage.client.raw(frames.headers(1, POST, end=False))
    return stage.settle()


@pytest.mark.parametrize("name", CONNECTION_ERRORS)
@whole_and_cut
def test_what_ends_the_connection(cut: int, name: str) -> None:
    sent, codes = CONNECTION_ERRORS[name]
    stage = with_an_open_stream(cut)
    stage.client.raw(sent + frames.headers(11, GET))
    stage.settle()
    assert stage.client.goaway and stage.client.goaway[1] in codes
    assert isinstance(stage.ending, Close) and stage.ending.reason
    assert 11 not in stage.server.seen and not stage.server.seen[1].ended
    last = stage.client.goaway[0]
    assert last >= max(stage.server.seen), "the client may send again what the server has got"
    stage.finish()
    assert len(stage.log) >= len(stage.server.seen)


@pytest.mark.parametrize("name", LEFT_TO_THE_SERVER)
@whole_and_cut
def test_what_ends_by_the_servers_own_word(cut: int, name: str) -> None:
    stage = with_an_open_stream(cut, Peer(client=False, patient=True))
    before = len(stage.rig.server)
    stage.client.raw(LEFT_TO_THE_SERVER[name])
    stage.settle()
    if stage.ending is None:
        assert stage.rig.server[before:].endswith(LEFT_TO_THE_SERVER[name])
        assert stage.client.goaway or stage.client.seen[1].reset
    code = stage.client.goaway[1] if stage.client.goaway else stage.client.seen[1].reset
    assert code in (PROTOCOL, FLOW)


@pytest.mark.parametrize(
    "sent", [frames.data(1, b"more"), frames.headers(1, GET), frames.headers(1, GET, end=False)], ids=range(3)
)
@whole_and_cut
def test_what_comes_behind_the_end_of_a_stream(cut: int, sent: bytes) -> None:
    stage = with_an_open_stream(cut)
    stage.client.raw(frames.data(1, b"all", end=True) + sent)
    stage.settle()
    assert stage.server.seen[1].data == b"all" and stage.server.seen[1].ended and not stage.server.seen[1].trailers
    assert stage.client.goaway[1] == CLOSED if stage.client.goaway else stage.client.seen[1].reset == CLOSED


@whole_and_cut
@pytest.mark.parametrize(
    "sent", [frames.data(1, b"late"), frames.update(1, 5), frames.rst(1, 8), frames.priority(1)], ids=range(4)
)
def test_what_may_cross_the_servers_reset(cut: int, sent: bytes) -> None:
    """The client may not know yet; the server ignores it, and has its room counted."""
    stage = with_an_open_stream(cut)
    stage.server.h2.reset_stream(1, 8)
    stage.settle()
    stage.client.raw(sent)
    stage.settle()
    assert stage.ending is None
    stage.works()


def test_a_request_that_a_frame_error_cuts_short_is_not_passed() -> None:
    stage = Stage(client=Wire(client=True))
    stage.client.raw(raw(frames.HEADERS, 1, 1, GET) + frames.ping())
    stage.settle()
    assert stage.server.seen == {} and stage.rig.judge.judged == []
    assert isinstance(stage.ending, Close)


@pytest.mark.parametrize(
    "preface",
    [
        frames.PREFACE[:-1] + b"x" + frames.settings(),
        frames.PREFACE + frames.ping(),
        frames.PREFACE + frames.SETTINGS_ACK,
        frames.PREFACE + frames.headers(1, GET),
        frames.PREFACE + raw(frames.SETTINGS, 0, 0, b"", 1_000_000),
    ],
    ids=range(5),
)
@whole_and_cut
def test_a_beginning_that_is_none(cut: int, preface: bytes) -> None:
    stage = Stage(cut, client=Wire(client=True), server=Wire(client=False), begin=False)
    stage.client.outgoing = bytearray(preface)
    stage.settle()
    assert stage.ending is not None and stage.server.seen == {} and stage.rig.judge.judged == []


@pytest.mark.parametrize(
    "sent",
    [
        raw(frames.DATA, 0, 0, b"x"),
        raw(frames.HEADERS, 0, 1, plain([(b":status", b"200")])) + frames.ping(),
        frames.data(9, b"x"),
        frames.headers(2, plain([(b":status", b"200")])),
        frames.push(1, 2, GET),
        raw(frames.DATA, PADDED, 1, b"\x05abc"),
        raw(frames.DATA, 0, 1, b"", 0xFFFFFF),
        raw(frames.SETTINGS, 0, 0, b"7 bytes"),
        frames.update(0, 0x7FFFFFFF),
        frames.update(0, 0),
        raw(frames.CONTINUATION, END_HEADERS, 1, plain([(b":status", b"200")])),
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    ],
    ids=range(12),
)
@whole_and_cut
def test_a_server_that_breaks_the_rules_harms_nobody(cut: int, sent: bytes) -> None:
    """The client sees it, or the connection ends; nothing is raised, and nothing of the client's is lost."""
    stage = Stage(cut, client=Wire(client=True), server=Wire(client=False))
    stage.client.raw(frames.headers(1, POST, end=False))
    stage.settle()
    stage.server.raw(sent)
    stage.settle()
    stage.client.raw(frames.headers(3, plain(request("/secret"))))
    stage.settle()
    assert 3 not in stage.server.seen
    stage.finish()
    assert ("FORWARDED", "POST", "/public/x") in [one[:3] for one in stage.log] or stage.ending is None


@whole_and_cut
def test_a_server_that_speaks_http1_only(cut: int) -> None:
    stage = Stage(cut, client=Wire(client=True), server=Wire(client=False), begin=False)
    stage.client.ask(request())
    stage.server.outgoing = bytearray(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nnot that language")
    stage.settle()
    assert stage.ending is not None
    stage.finish()
    assert ("FORWARDED", "GET", "/public/x") in [one[:3] for one in stage.log]
