"""DATA of the server's for which the client has less room than the server knows of: our own words took some."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from l7proxy.ops import Close
from tests.conversations import REQUEST, RESPONSE
from tests.http2 import frames
from tests.http2.frames import grpc, message, request
from tests.http2.peers import OK, Peer, Wire, denied
from tests.http2.rig import Stage

WINDOW, LARGE = 65_535, 1 << 20
pieces = pytest.mark.parametrize("cut", [0, 100])


def tight(cut: int = 0, *, greedy: bool = True, server: Wire | None = None) -> Stage:
    """A client whose frames may be larger than its connection's window, of which a refusal has taken 15 bytes."""
    client = Peer(client=True, options={frames.PUSH: 0, frames.WINDOW: LARGE, frames.FRAME: LARGE}, greedy=greedy)
    stage = Stage(cut, client=client, server=server)
    assert denied(stage.client.seen[stage.get("/secret")])
    return stage


def heard(stage: Stage, stream: int) -> list[frames.Frame]:
    """DATA that the client got."""
    return [one for one in frames.split(stage.rig.client) if one.kind == frames.DATA and one.stream == stream]


@pieces
def test_a_frame_as_large_as_the_window_that_the_server_knows_of(cut: int) -> None:
    stage = tight(cut)
    stream = stage.get()
    stage.server.reply(stream, end=False)
    stage.server.h2.send_data(stream, b"y" * WINDOW, end_stream=True)
    stage.settle()
    seen = stage.client.seen[stream]
    assert seen.ended and seen.data == b"y" * WINDOW and seen.reset is None
    assert [(len(one.payload), one.flags) for one in heard(stage, stream)] == [(WINDOW - 15, 0), (15, 1)]
    assert abs(stage.windows()[1]) < 16_384
    stage.works()


@pytest.mark.parametrize(("size", "more"), [(0, 0), (0, 14), (1, 0), (1, 1), (255, 0), (255, 1), (255, 14)])
@pieces
def test_padding_takes_the_room_it_took(cut: int, size: int, more: int) -> None:
    stage = tight(cut, greedy=False)
    stream = stage.get()
    stage.server.h2.send_headers(stream, OK)
    data = b"y" * (WINDOW - 1 - size - more)
    stage.server.h2.send_data(stream, data, pad_length=size, end_stream=True)
    stage.settle()
    seen = stage.client.seen[stream]
    assert stage.server.h2.outbound_flow_control_window == more
    assert seen.data == data[: WINDOW - 15] and not seen.ended
    stage.client.give()
    stage.settle()
    assert seen.data == data and seen.ended
    pads = [one for one in heard(stage, stream) if one.flags & frames.PADDED]
    assert sum(len(one.payload) for one in pads) == size + 1
    assert sum(len(one.payload) for one in heard(stage, stream)) == len(data) + 1 + size
    stage.client.give()
    stage.settle().works()


@pieces
def test_a_call_whose_messages_are_cut(cut: int) -> None:
    stage = tight(cut)
    stream = stage.get()
    stage.server.reply(stream)
    stage.settle()
    stream = stage.client.ask(grpc())
    stage.settle()
    size = stage.server.h2.outbound_flow_control_window
    stage.server.reply(
        stream, body=message(b"y" * (size - 105)) + message(b"z" * 95), trailers=[(b"grpc-status", b"0")]
    )
    stage.settle().finish()
    assert len(heard(stage, stream)) == 2 and stage.client.seen[stream].trailers
    assert stage.rig.records[-1].call is not None and stage.rig.records[-1].call[2:] == (0, 0, 2)


def test_between_the_pieces_there_is_place_for_our_words() -> None:
    stage = tight(greedy=False)
    stream = stage.get()
    stage.server.reply(stream, body=b"y" * WINDOW)
    stage.server.h2.ping(b"behind..")
    stage.settle()
    assert len(stage.client.seen[stream].data) == WINDOW - 15 and not stage.client.pings
    refused = stage.client.seen[stage.get("/secret")]
    assert (refused.code, refused.data, refused.ended) == (403, b"", True)
    stage.client.give()
    stage.settle()
    assert stage.client.seen[stream].ended and stage.client.pings
    stage.works()


def test_the_servers_end_waits_for_the_room() -> None:
    stage = tight(greedy=False)
    stream = stage.get()
    stage.server.reply(stream, body=b"y" * WINDOW)
    stage.settle()
    stage.rig.arrive(RESPONSE, b"", True)
    assert stage.ending is None
    stage.client.give()
    stage.settle()
    assert stage.client.seen[stream].ended and isinstance(stage.ending, Close)


def test_a_stream_that_is_reset_between_the_pieces() -> None:
    stage = tight(greedy=False)
    stream = stage.get()
    stage.server.reply(stream, body=b"y" * WINDOW)
    stage.settle()
    stage.client.cancel(stream)
    stage.settle()
    stage.client.give()
    stage.settle()
    assert stage.log[-1] == ("FORWARDED", "GET", "/public/x", 200)
    stage.works()


def test_what_the_client_breaks_between_the_pieces() -> None:
    stage = tight(greedy=False)
    stream = stage.get()
    stage.server.reply(stream, body=b"y" * WINDOW)
    stage.settle()
    stage.client.raw(frames.data(99, b"x"))
    stage.settle()
    assert isinstance(stage.ending, Close) and stage.client.goaway


ANSWERS = st.lists(
    st.tuples(st.integers(1, 200_000), st.one_of(st.none(), st.integers(0, 255)), st.integers(0, 3)),
    min_size=1,
    max_size=5,
)


@settings(max_examples=100)
@given(ANSWERS, st.integers(1000, 1 << 17), st.booleans())
@example([(LARGE, 255, 3)], LARGE, True)
def test_whatever_is_refused_all_answers_arrive(
    answers: list[tuple[int, int | None, int]], size: int, greedy: bool
) -> None:
    """Each frame takes all the room that the server knows of, or what is left of its answer."""
    stage = tight(greedy=greedy)
    for length, pad, refusals in answers:
        stream = stage.get()
        stage.server.h2.send_headers(stream, OK)
        left = length
        over = 0 if pad is None else pad + 1
        while left:
            for _ in range(refusals):
                stage.client.ask(request("/secret"))
                stage.arrive(REQUEST)
            room = stage.server.h2.local_flow_control_window(stream) - over
            if room > 0:
                taken = min(room, left)
                left -= taken
                stage.server.h2.send_data(stream, b"y" * taken, end_stream=not left, pad_length=pad)
            while stage.arrive(RESPONSE, size):
                stage.hand(RESPONSE)
            if not greedy:
                stage.client.give()
            before = stage.server.h2.outbound_flow_control_window
            stage.settle()
            assert room > 0 or stage.server.h2.outbound_flow_control_window > before, "nothing moves any more"
        stage.client.give()
        stage.settle()
        seen = stage.client.seen[stream]
        assert (seen.data, seen.ended, seen.reset) == (b"y" * length, True, None)
    assert stage.ending is None and abs(stage.windows()[1]) < WINDOW
    assert stage.log.count(("FORWARDED", "GET", "/public/x", 200)) == len(answers)
    stage.works()
