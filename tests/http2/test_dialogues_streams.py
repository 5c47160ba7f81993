"""What comes on refused streams, what it does to the windows, and where our words may stand among the server's."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conversations import REQUEST, RESPONSE
from tests.http2 import frames
from tests.http2.frames import plain, request
from tests.http2.peers import OK, Peer, Wire, denied
from tests.http2.rig import Stage, whole_and_cut

SECRET = request("/secret", method="POST")


def half_refused(cut: int = 0, **more: Any) -> tuple[Stage, int]:
    """A stage on which a request was refused that still has a body to come, and the client does not know yet."""
    stage = Stage(cut, **more)
    stream = stage.client.ask(SECRET, end=False)
    stage.arrive(REQUEST)
    return stage, stream


@whole_and_cut
def test_the_body_of_a_refused_request_is_swallowed_and_its_room_given_back(cut: int) -> None:
    stage, stream = half_refused(cut)
    stage.client.send(stream, b"x" * 50_000, end=True)
    stage.settle()
    assert stage.server.seen == {} and denied(stage.client.seen[stream])
    assert stage.windows()[0] == 0
    stage.works()


def test_room_is_given_back_for_padding_too() -> None:
    stage, stream = half_refused()
    stage.client.h2.send_data(stream, b"x" * 100, pad_length=200)
    stage.client.h2.send_data(stream, b"", pad_length=0)
    stage.client.h2.send_data(stream, b"", end_stream=True)
    stage.settle()
    assert stage.windows()[0] == 0
    stage.works()


def test_more_than_a_window_of_refused_bodies() -> None:
    stage = Stage()
    for _ in range(30):
        stream = stage.client.ask(SECRET, end=False)
        stage.arrive(REQUEST)
        stage.client.send(stream, b"x" * 30_000, end=True)
        stage.settle()
        assert not stage.client.unsent
    assert stage.windows()[0] == 0
    stage.works()


@whole_and_cut
def test_trailers_of_a_refused_request_go_nowhere(cut: int) -> None:
    stage, stream = half_refused(cut)
    stage.client.send(stream, b"x", trailers=[(b"x-trailer", b"known from now on")])
    stage.settle()
    assert stage.server.seen == {}
    stage.get("/public/x", [(b"x-trailer", b"known from now on")])
    stage.works()


@pytest.mark.parametrize(
    "sent",
    [
        frames.update(1, 1000),
        frames.rst(1, 8),
        frames.priority(1),
        frames.data(1, b"x" * 100),
        frames.data(1, b"x", end=True),
        frames.data(1, b"x", pad=10) + frames.data(1, end=True),
        frames.headers(1, plain([(b"x-trailer", b"1")])),
        frames.update(1, 1) + frames.data(1, b"x") + frames.rst(1, 0),
        frames.rst(1, 8) + frames.data(1, b"late"),
    ],
    ids=range(9),
)
@whole_and_cut
def test_what_follows_on_a_refused_stream_is_not_the_servers_business(cut: int, sent: bytes) -> None:
    stage = Stage(cut, client=Wire(client=True))
    before = len(stage.rig.server)
    stage.client.ask(SECRET, end=False)
    stage.client.raw(sent)
    stage.settle()
    assert stage.server.seen == {} and denied(stage.client.seen[1])
    assert [one.kind for one in frames.split(stage.rig.server[before:])] in ([], [frames.PRIORITY])
    taken = sum(len(one.payload) for one in frames.split(sent) if one.kind == frames.DATA)
    given = [one.number for one in stage.client.kinds(frames.WINDOW_UPDATE) if not one.stream]
    assert sum(given) == taken
    stage.works()


DRAINED = 65_536
"""Bytes: `http.drain_body`."""


def given(stage: Stage, stream: int) -> int:
    """Room that the client was given, by us alone."""
    return sum(one.number for one in stage.client.kinds(frames.WINDOW_UPDATE) if one.stream == stream)


def test_a_large_body_of_a_refused_request_is_reset_and_its_rest_no_error_of_the_connection() -> None:
    stage = Stage(client=Wire(client=True))
    stage.client.ask(SECRET, end=False)
    for number in range(4):
        assert given(stage, 0) == given(stage, 1) == number * 16_384
        stage.client.raw(frames.data(1, b"x" * 16_384))
        stage.settle()
        assert denied(stage.client.seen[1]) and stage.client.seen[1].reset is None
    assert given(stage, 1) == DRAINED
    stage.client.raw(frames.data(1, b"x", pad=1) + frames.data(1) + frames.data(1, b"x" * 1000))
    stage.settle()
    assert stage.client.seen[1].reset == 0 and len(stage.client.kinds(frames.RST_STREAM)) == 1
    assert (given(stage, 0), given(stage, 1)) == (DRAINED + 3 + 1000, DRAINED)
    stage.works()


@pytest.mark.parametrize("room", [1000, 65_535])
def test_a_body_of_a_refused_request_may_be_larger_than_its_window(room: int) -> None:
    """The server has offered `room`, and never hears of the stream."""
    stage, stream = half_refused(server=Peer(client=False, options={frames.WINDOW: room}))
    stage.client.send(stream, b"x" * DRAINED, end=True)
    stage.settle()
    seen = stage.client.seen[stream]
    assert denied(seen) and seen.reset is None and not stage.client.unsent
    assert stage.windows()[0] == 0 and stage.server.seen == {}
    stage.works()


def test_a_refused_call_that_has_more_to_send_is_reset_at_once() -> None:
    """gRPC's clients want nothing else."""
    stage = Stage()
    stream = stage.client.ask(frames.grpc("/secret.S/M"), end=False)
    stage.settle()
    assert stage.client.seen[stream].reset == 0


@pytest.mark.parametrize("most", [1, 10, 100])
def test_half_of_the_streams_stay_for_what_is_allowed(most: int) -> None:
    """Refused ones that the client does not end count among those that it may have."""
    stage = Stage(server=Peer(client=False, options={frames.CONCURRENT: most}))
    refused = []
    for _ in range(3 * most):
        refused.append(stage.client.ask(SECRET, end=False))
        stage.settle()
    still = [one for one in refused if stage.client.seen[one].reset is None]
    assert still == refused[len(refused) - most // 2 :]
    assert all(denied(stage.client.seen[one]) for one in refused)
    stage.works()
    for one in still:
        stage.client.send(one, b"x" * 10, end=True)
    stage.settle().works()


@whole_and_cut
def test_we_speak_only_between_the_servers_frames(cut: int) -> None:
    stage = Stage(cut)
    stream = stage.get()
    stage.server.reply(stream, body=b"y" * 10_000)
    stage.arrive(RESPONSE, 5000)
    refused = stage.get("/secret")
    assert refused not in stage.client.seen or denied(stage.client.seen[refused])
    stage.settle()
    assert denied(stage.client.seen[refused]) and stage.client.seen[stream].data == b"y" * 10_000


def test_we_wait_for_the_end_of_a_frame_and_no_longer() -> None:
    stage = Stage(client=Wire(client=True), server=Wire(client=False))
    stream = stage.client.ask(request())
    stage.settle()
    stage.server.reply(stream, body=b"y" * 100)
    stage.arrive(RESPONSE, len(stage.server.outgoing) - 1)
    refused = stage.client.ask(request("/secret"))
    stage.arrive(REQUEST)
    stage.hand(RESPONSE)
    assert refused not in stage.client.seen
    stage.arrive(RESPONSE)
    stage.hand(RESPONSE)
    assert denied(stage.client.seen[refused])


@whole_and_cut
def test_never_within_the_servers_header_block(cut: int) -> None:
    stage = Stage(cut, server=Wire(client=False))
    stream = stage.get()
    block = plain([*OK, (b"x-long", b"y" * 1000)])
    answer = frames.headers(stream, block, pieces=4)
    for size in range(1, len(answer), 97):
        stage.server.raw(answer[:size])
        stage.settle()
        refused = stage.get("/secret")
        stage.server.raw(answer[size:])
        stage.settle()
        assert denied(stage.client.seen[refused])
        assert stage.client.seen[stream].code == 200
        stream = stage.get()
        answer = frames.headers(stream, block, pieces=4)


def test_the_servers_settings_come_first() -> None:
    stage = Stage(begin=False)
    refused = stage.client.ask(request("/secret"))
    stage.arrive(REQUEST)
    stage.hand(RESPONSE)
    heard = [one.kind for one in frames.split(stage.rig.client)]
    assert heard[:1] in ([], [frames.SETTINGS])
    stage.settle()
    first = next(frames.split(stage.rig.client))
    assert (first.kind, first.flags) == (frames.SETTINGS, 0)
    assert denied(stage.client.seen[refused])
    stage.works()


@pytest.mark.parametrize("window", [0, 14, 15])
def test_where_the_clients_windows_have_no_room(window: int) -> None:
    stage = Stage(client=Peer(client=True, options={2: 0, 4: window}))
    seen = stage.client.seen[stage.get("/secret")]
    if window < 15:
        assert (seen.code, seen.data, seen.ended) == (403, b"", True)
    else:
        assert denied(seen)


def test_where_the_connection_has_no_room() -> None:
    stage = Stage(client=Peer(client=True, greedy=False, options={2: 0, 4: 1_000_000}))
    stream = stage.get()
    stage.server.reply(stream, body=b"y" * 70_000)
    stage.settle()
    assert len(stage.client.seen[stream].data) == 65_535
    seen = stage.client.seen[stage.get("/secret")]
    assert (seen.code, seen.data, seen.ended) == (403, b"", True)
    stage.client.give()
    stage.settle()
    assert len(stage.client.seen[stream].data) == 70_000


@pytest.mark.parametrize("greedy", [True, False])
def test_our_answers_never_cost_the_server_a_flow_control_error(greedy: bool) -> None:
    stage = Stage(client=Peer(client=True, greedy=greedy, options={2: 0, 4: 1_000_000}))
    stream = stage.get()
    stage.server.reply(stream, body=b"y" * 300_000)
    for _ in range(200):
        stage.arrive(RESPONSE, 1500)
        refused = stage.client.ask(request("/secret"))
        stage.arrive(REQUEST)
        stage.hand(RESPONSE)
        assert refused not in stage.client.seen or stage.client.seen[refused].code == 403
        if not greedy:
            stage.client.give()
    while not stage.client.seen[stream].ended:
        stage.client.give()
        stage.settle()
    assert len(stage.client.seen[stream].data) == 300_000
    assert abs(stage.windows()[1]) < 16_384
    stage.works()


def test_a_thousand_refusals_use_up_no_window() -> None:
    stage = Stage()
    for _ in range(1000):
        assert stage.client.seen[stage.get("/secret")].code == 403
    stream = stage.get()
    stage.server.reply(stream, body=b"y" * 500_000)
    stage.settle()
    assert len(stage.client.seen[stream].data) == 500_000
    assert abs(stage.windows()[1]) < 16_384


def test_room_that_was_taken_by_us_is_not_given_to_the_server() -> None:
    stage = Stage(client=Wire(client=True), server=Wire(client=False))
    for _ in range(4):
        assert denied(stage.client.seen[stage.get("/secret")])
    for size in (30, 20, 30, 100):
        stage.client.raw(frames.update(0, size))
        stage.settle()
    assert [one.number for one in stage.server.kinds(frames.WINDOW_UPDATE)] == [20, 100]


@whole_and_cut
def test_padding_and_priority_go_through(cut: int) -> None:
    stage = Stage(cut, client=Wire(client=True))
    before = len(stage.rig.server)
    block = plain(request())
    sent = frames.headers(1, block, end=False, pad=50, priority=(0, 200, True), pieces=3) + frames.data(1, b"x", pad=9)
    sent += frames.priority(9, 1) + frames.data(1, end=True) + frames.headers(3, block, pad=0, priority=(1, 0, False))
    stage.client.raw(sent)
    stage.settle()
    assert stage.rig.server[before:] == sent
    assert stage.server.seen[1].data == b"x" and stage.server.seen[3].ended
    stage.client.raw(frames.headers(5, plain(SECRET), end=False, pad=50, priority=(3, 1, False), pieces=2))
    stage.settle()
    assert denied(stage.client.seen[5]) and 5 not in stage.server.seen


def test_frames_of_unknown_types_go_through() -> None:
    stage = Stage(client=Wire(client=True), server=Wire(client=False))
    unknown = frames.raw(0xBA, 0xFF, 0, b"who knows") + frames.raw(0x10, 0, 0, b"") + frames.raw(0xBA, 1, 7, b"x" * 99)
    stage.client.raw(unknown)
    stage.server.raw(unknown)
    stage.settle()
    for end in stage.ends:
        assert [one for one in end.heard if one.kind > 9] == list(frames.split(unknown))


def test_pings_go_through_both_ways() -> None:
    stage = Stage()
    stage.client.h2.ping(b"from cli")
    stage.server.h2.ping(b"from ser")
    stage.settle()
    assert stage.client.pings == stage.server.pings == [b"from cli", b"from ser"] or {
        *stage.client.pings,
        *stage.server.pings,
    } == {b"from cli", b"from ser"}
    assert len(stage.client.pings) == len(stage.server.pings) == 2


def test_a_window_that_is_not_acknowledged_yet() -> None:
    """h2 has the room that a client offers from the server's acknowledgement on."""
    stage = Stage(client=Peer(client=True, options={2: 0, 4: 0}))
    stage.client.change({4: 65_535})
    refused = stage.client.ask(request("/secret"))
    stage.arrive(REQUEST)
    stage.hand(RESPONSE)
    assert (stage.client.seen[refused].code, stage.client.seen[refused].data) == (403, b"")
    stage.settle()
    assert denied(stage.client.seen[stage.get("/secret")])


@pytest.mark.parametrize("trailers", [[(b"grpc-status", b"0")], [(b"x-sum", b"1")]], ids=range(2))
def test_trailers_that_cross_a_cancel(trailers: list[tuple[bytes, bytes]]) -> None:
    stage = Stage()
    stream = stage.get()
    stage.server.reply(stream, OK, end=False)
    stage.settle()
    stage.server.send(stream, b"y" * 100, trailers=trailers)
    stage.client.cancel(stream)
    stage.arrive(REQUEST)
    stage.settle()
    assert stage.ending is None
    stage.works()


def test_a_whole_answer_that_crosses_a_cancel() -> None:
    stage = Stage()
    stream = stage.get()
    stage.server.reply(stream, [*OK, (b"x-token", b"new")], b"y", trailers=[(b"x-sum", b"1")])
    stage.client.cancel(stream)
    stage.arrive(REQUEST)
    stage.settle()
    stage.works()
