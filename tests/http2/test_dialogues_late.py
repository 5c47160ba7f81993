"""A stream that was cut, and what either end says before it has heard of that."""

from __future__ import annotations

import pytest

from tests.conversations import REQUEST, RESPONSE
from tests.http1.rig import PublicOnly
from tests.http2 import frames
from tests.http2.changes import (
    CANCEL,
    DONE,
    FIRST,
    GRPC_OK,
    NO_ERROR,
    SECOND,
    THIRD,
    begin_answer,
    change,
    refused_late,
    running,
    say,
)
from tests.http2.frames import message, plain
from tests.http2.peers import OK, Wire, denied_grpc
from tests.http2.rig import whole_and_cut


@whole_and_cut
@pytest.mark.parametrize("answered", [False, True])
def test_the_server_speaks_before_it_hears_of_the_end(cut: int, answered: bool) -> None:
    """Between two ends of h2: no table and no window parts, as often as it happens."""
    stage, _ = running(cut, answered=answered, more=3)
    for number, stream in enumerate((1, 3, 5)):
        change(stage)
        stage.client.send(stream, SECOND)
        stage.arrive(REQUEST)
        if not answered:
            stage.server.reply(stream, GRPC_OK, end=False)
        stage.server.send(stream, b"y" * 3000, trailers=[*DONE, (b"x-late", b"%d" % number), (b"x-all", b"1" * 900)])
        stage.settle()
        seen = stage.client.seen[stream]
        assert refused_late(seen) if answered else denied_grpc(seen) == b"Access denied"
        assert stage.server.seen[stream].reset == CANCEL and stage.server.seen[stream].data == FIRST
        change(stage, PublicOnly())
        stage.works()
    if not answered:
        begin_answer(stage, 7)
    # What it says next of the same fields is said by their places in its table.
    stage.server.send(7, message(b"answer"), trailers=[*DONE, (b"x-late", b"1"), (b"x-all", b"1" * 900)])
    stage.settle()
    assert stage.client.seen[7].trailers == [*DONE, (b"x-late", b"1"), (b"x-all", b"1" * 900)]
    assert stage.client.seen[7].ended and stage.windows() == (0, 0)


@whole_and_cut
@pytest.mark.parametrize("table", ["inserting", "plain"])
def test_late_words_of_every_kind(cut: int, table: str) -> None:
    """They do not reach the client, and are given back; its trailers in CONTINUATION frames are one block."""
    stage, stream = running(cut, answered=True, more=1, server=Wire(client=False))
    change(stage)
    say(stage, frames.data(stream, SECOND))
    before = len(stage.rig.client)
    late = frames.headers(stream, getattr(frames, table)([*DONE, (b"x-late", b"1")]), pieces=3)
    stage.server.raw(frames.data(stream, b"y" * 3000, pad=9) + frames.update(stream, 9) + late)
    stage.settle()
    assert len(stage.rig.client) == before
    assert [one.number for one in stage.server.kinds(frames.WINDOW_UPDATE) if not one.stream][-1] == 3010
    trailers = frames.indexed(62) if table == "inserting" else plain([(b"x-late", b"1")])
    stage.server.raw(frames.headers(stream + 2, plain(DONE) + trailers, pieces=2))
    stage.settle()
    assert stage.client.seen[stream + 2].trailers == [*DONE, (b"x-late", b"1")]
    assert refused_late(stage.client.seen[stream])
    # No entry, no need for other blocks than the server's own: they pass as they came.
    passed = frames.split(stage.rig.client[before:])
    assert (b"".join(one.payload for one in passed) == plain(DONE) + trailers) == (table == "plain")
    stage.works()


def test_a_late_response_in_several_blocks() -> None:
    """Cut before the response: its head and its trailers are both late."""
    stage, stream = running(server=Wire(client=False))
    change(stage)
    say(stage, frames.data(stream, SECOND))
    stage.server.raw(frames.headers(stream, frames.inserting(GRPC_OK), end=False))
    stage.server.raw(frames.data(stream, message(b"answer")))
    stage.server.raw(frames.headers(stream, frames.inserting(DONE)))
    stage.settle()
    assert denied_grpc(stage.client.seen[stream]) == b"Access denied"
    other = stage.get("/public/still")
    stage.server.raw(frames.headers(other, frames.indexed(64, 63, 62)))
    stage.settle()
    assert stage.client.seen[other].fields == [*GRPC_OK, *DONE] and stage.client.seen[other].ended


@pytest.mark.parametrize("sizes", [(100,), (0, 4096)])
def test_the_tables_size_that_a_late_block_begins_with(sizes: tuple[int, ...]) -> None:
    """The client has asked for a smaller table, and the block that tells it so is one that it does not get."""
    stage, stream = running(client=Wire(client=True), server=Wire(client=False))
    stage.client.raw(b"".join(frames.settings((frames.TABLE, size)) for size in sizes))
    stage.settle()
    change(stage)
    say(stage, frames.data(stream, SECOND))
    stage.server.raw(frames.headers(stream, frames.table_size(*sizes) + plain([*GRPC_OK, *DONE])))
    refused = stage.get("/secret")
    other = stage.get("/public/still")
    stage.server.raw(frames.headers(other, plain(OK)))
    stage.settle()
    first = {one.stream: one.payload[0] for one in stage.client.kinds(frames.HEADERS)}
    assert all(0x20 <= first[one] < 0x40 for one in (stream, refused, other))


def test_a_block_that_is_half_there_is_late() -> None:
    stage, stream = running(server=Wire(client=False), answered=True)
    stage.server.raw(frames.headers(stream, frames.inserting(DONE), pieces=2))
    stage.arrive(RESPONSE, 20)
    change(stage)
    say(stage, frames.data(stream, SECOND))
    assert refused_late(stage.client.seen[stream])
    stage.works()


@pytest.mark.parametrize("code", [0, 8])
def test_a_late_reset(code: int) -> None:
    stage, stream = running(server=Wire(client=False), answered=True)
    change(stage)
    say(stage, frames.data(stream, SECOND))
    before = len(stage.rig.client)
    stage.server.raw(frames.rst(stream, code))
    stage.settle()
    assert len(stage.rig.client) == before
    stage.works()
    assert not stage.rig.talk._was_cut, "the server's frames are looked at for nothing"


@pytest.mark.parametrize("last", [False, True])
def test_a_frame_of_the_server_that_is_half_there_is_carried_to_its_end(last: bool) -> None:
    stage, stream = running(server=Wire(client=False), answered=True, client=Wire(client=True))
    stage.server.raw(frames.data(stream, message(b"y" * 1000), end=last))
    stage.arrive(RESPONSE, 500)
    change(stage)
    stage.client.raw(frames.data(stream, SECOND))
    stage.arrive(REQUEST)
    stage.settle()
    seen = stage.client.seen[stream]
    assert seen.data == message(b"y" * 1000) and seen.ended and seen.reset == NO_ERROR
    assert seen.trailers == [] if last else refused_late(seen)
    assert stage.server.seen[stream].reset == CANCEL
    stage.works()


def test_a_server_that_has_ended_and_a_client_that_has_not() -> None:
    """The client has its answer: it is reset without another, and there is one record."""
    stage, stream = running()
    stage.server.reply(stream, GRPC_OK, b"", trailers=DONE)
    stage.settle()
    change(stage)
    say(stage, frames.data(stream, SECOND))
    seen = stage.client.seen[stream]
    assert seen.trailers == DONE and seen.reset == NO_ERROR and stage.server.seen[stream].data == FIRST
    assert stage.finish().log == [("FORWARDED", "POST", "/public.Service/Method", 200)]


def test_the_clients_late_words_are_none_of_the_servers() -> None:
    stage, stream = running(client=Wire(client=True))
    change(stage)
    say(stage, frames.data(stream, SECOND))
    before = len(stage.rig.server)
    stage.client.raw(frames.update(stream, 10) + frames.data(stream, THIRD) + frames.rst(stream, 8))
    stage.settle()
    assert len(stage.rig.server) == before
    updates = [one.number for one in stage.client.kinds(frames.WINDOW_UPDATE) if not one.stream]
    assert updates[-2:] == [len(SECOND), len(THIRD)]
    stage.works()


@whole_and_cut
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("pad", [None, 9])
@pytest.mark.parametrize("there", [0, 100, 16_400])
def test_a_frame_of_the_server_that_goes_on_in_pieces(cut: int, last: bool, pad: int | None, there: int) -> None:
    """The client has no room for all of it: the piece under way is its last, and the rest is given back."""
    stage, stream = running(cut, answered=True, client=Wire(client=True), server=Wire(client=False))
    stage.get("/secret")
    full = b"".join(frames.data(stream, b"y" * 16_384) for _ in range(3))
    padding = 0 if pad is None else pad + 1
    frame = frames.data(stream, b"y" * (16_383 - padding), end=last, pad=pad)
    stage.server.raw(full)
    stage.settle()
    stage.server.raw(frame)
    stage.arrive(RESPONSE, there)
    change(stage)
    stage.client.raw(frames.data(stream, SECOND))
    stage.arrive(REQUEST)
    stage.settle()
    seen, heard = stage.client.seen[stream], stage.server.seen[stream]
    assert refused_late(seen) and seen.reset == NO_ERROR and heard.reset == CANCEL
    got = sum(len(one.payload) for one in stage.client.kinds(frames.DATA) if one.stream == stream)
    given = sum(one.number for one in stage.server.kinds(frames.WINDOW_UPDATE) if not one.stream)
    assert got + given == 65_535 and got <= 65_520 and (got == 49_152) == (there == 0)
    stage.client.raw(frames.update(0, 65_535))
    stage.works()


def test_the_last_piece_of_a_frame_is_the_end() -> None:
    """It has begun, and ends the stream: there is no place for trailers of ours."""
    stage, stream = running(answered=True, client=Wire(client=True), server=Wire(client=False))
    stage.get("/secret")
    stage.server.raw(b"".join(frames.data(stream, b"y" * 16_384) for _ in range(3)))
    stage.settle()
    stage.server.raw(frames.data(stream, b"y" * 16_383, end=True))
    stage.arrive(RESPONSE, frames.HEAD + 16_370)
    stage.client.raw(frames.update(0, 65_535))
    stage.arrive(REQUEST)
    change(stage)
    stage.client.raw(frames.data(stream, SECOND))
    stage.arrive(REQUEST)
    stage.settle()
    seen = stage.client.seen[stream]
    assert len(seen.data) == 65_535 and seen.ended and seen.trailers == [] and seen.reset == NO_ERROR
    assert stage.server.seen[stream].reset == CANCEL
    stage.works()
