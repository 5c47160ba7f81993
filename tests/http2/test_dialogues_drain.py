"""A stop, or an idle time-out: GOAWAY, the streams under way to their end, nothing behind them; and a server's FIN that
comes while its last words still wait."""

from __future__ import annotations

import pytest

from l7proxy.ops import Abort, Close
from parsers.options import HttpOptions
from tests.conversations import REQUEST, RESPONSE
from tests.http1.rig import OK, PublicOnly
from tests.http2 import frames
from tests.http2.frames import plain, request
from tests.http2.peers import Peer, Wire, denied
from tests.http2.rig import Stage, whole_and_cut
from tests.http2.test_dialogues_detect import SWITCH, Upgraded
from tests.http2.test_dialogues_life import open_post

GET = plain(request())


@whole_and_cut
def test_a_stop_lets_the_streams_end(cut: int) -> None:
    stage, stream = open_post(cut, client=Wire(client=True))
    stage.apply(stage.rig.talk.draining(1.0))
    assert stage.client.goaway == (stream, 0) and stage.ending is None
    stage.client.raw(frames.data(stream, b"the rest", end=True))
    stage.settle()
    stage.server.reply(stream, body=b"y" * 1000)
    stage.settle()
    assert stage.client.seen[stream].data == b"y" * 1000
    assert isinstance(stage.ending, Close)
    stage.finish()
    assert stage.log == [("FORWARDED", "POST", "/public/x", 200)]


def test_a_stop_takes_no_new_streams_but_reads_their_blocks() -> None:
    stage, stream = open_post(client=Wire(client=True))
    stage.apply(stage.rig.talk.draining(1.0))
    late = stage.client.ask([*request("/public/late"), (b"x-sum", b"late")], end=False)
    stage.client.raw(frames.data(late, b"x"))
    block = stage.client.encoder.encode([(b"x-sum", b"late")])
    stage.client.raw(frames.headers(stream, block))
    stage.settle()
    assert list(stage.server.seen) == [stream]
    assert stage.server.seen[stream].trailers == [(b"x-sum", b"late")]
    assert late not in stage.client.seen or stage.client.seen[late].reset == 7
    stage.server.reply(stream)
    stage.settle()
    assert isinstance(stage.ending, Close)


def test_a_stop_when_nothing_goes_on_is_at_once() -> None:
    stage = Stage()
    stage.works()
    stage.apply(stage.rig.talk.draining(1.0))
    assert stage.codes == (0, None) and isinstance(stage.ending, Close)
    assert stage.client.goaway[0] == 1


def test_a_stop_behind_a_refusal() -> None:
    stage, _ = open_post()
    stage.get("/secret")
    stage.apply(stage.rig.talk.draining(1.0))
    assert stage.codes == (0, None) and stage.client.goaway[0] in (1, 3)


def test_a_stop_within_the_servers_frame_waits_for_its_end() -> None:
    stage = Stage(client=Wire(client=True))
    stream = stage.get()
    stage.server.reply(stream, body=b"y" * 1000)
    stage.arrive(RESPONSE, 500)
    stage.apply(stage.rig.talk.draining(1.0))
    stage.settle()
    assert stage.client.seen[stream].data == b"y" * 1000
    assert stage.codes == (0, None) and isinstance(stage.ending, Close)


def test_a_stop_before_anything_came() -> None:
    stage = Stage(begin=False)
    stage.rig.apply(stage.rig.talk.draining(1.0))
    assert isinstance(stage.ending, Close | Abort)


def stopped(stage: Stage) -> Stage:
    return stage.apply(stage.rig.talk.draining(1.0))


def test_a_stop_within_a_frame_of_a_dead_stream_waits_for_its_end() -> None:
    """The GOAWAY has no place before it."""
    stage = Stage(client=Wire(client=True), server=Wire(client=False))
    stream = stage.get()
    stage.server.reply(stream, body=b"y" * 1000)
    stage.arrive(RESPONSE, 500)
    stage.client.raw(frames.rst(stream, 8))
    stage.arrive(REQUEST)
    assert not stage.rig.talk.idle
    stopped(stage)
    assert stage.codes == (0, None) and isinstance(stage.ending, Close)


def test_the_last_stream_of_a_goaway_never_rises() -> None:
    stage, stream = open_post(client=Wire(client=True))
    stopped(stage)
    stage.get()
    stage.client.raw(frames.raw(frames.CONTINUATION, 0, 1))
    stage.settle()
    said = [(int.from_bytes(one.payload[:4], "big"), one.number) for one in stage.client.kinds(frames.GOAWAY)]
    assert said == [(stream, 0), (stream, 1)]


@whole_and_cut
@pytest.mark.parametrize("audit", [True, False])
def test_streams_behind_the_goaway_are_ignored(cut: int, audit: bool) -> None:
    """The window and the tables of HPACK stay in step, and the connection ends with the last stream before it."""
    stage, stream = open_post(cut, judge=PublicOnly(audit_only=audit), client=Wire(client=True))
    stopped(stage)
    late = [stage.client.ask(request("/public/late", ("x-sum", str(n))), end=n == 1) for n in range(3)]
    stage.client.raw(frames.data(late[0], b"x" * 16_000, end=True) + frames.data(late[2], b"x" * 3000))
    stage.client.raw(frames.headers(late[2], stage.client.encoder.encode([(b"x-sum", b"late")])))
    stage.client.raw(frames.data(stream, b"rest"))
    stage.client.raw(frames.headers(stream, stage.client.encoder.encode([(b"x-sum", b"late")])))
    stage.settle()
    assert list(stage.server.seen) == [stream]
    seen = stage.server.seen[stream]
    assert seen.data == b"rest" and seen.trailers == [(b"x-sum", b"late")] and seen.ended
    assert [one.number for one in stage.client.kinds(frames.WINDOW_UPDATE)] == [16_000, 3000]
    assert stage.client.goaway == (stream, 0) and stage.ending is None
    stage.server.reply(stream, body=b"done")
    stage.settle()
    assert stage.client.seen[stream].data == b"done" and isinstance(stage.ending, Close)
    stage.finish()
    assert stage.log == [("DROPPED", "GET", "/public/late", 0)] * 3 + [("FORWARDED", "POST", "/public/x", 200)]


@pytest.mark.parametrize("audit", [True, False])
def test_what_a_client_says_of_streams_behind_the_goaway(audit: bool) -> None:
    """To the server they are idle: a word on them would be an error of the connection."""
    stage, stream = open_post(judge=PublicOnly(audit_only=audit), client=Wire(client=True))
    stopped(stage)
    late = stage.client.ask(request(), end=False)
    stage.client.raw(frames.update(late, 9) + frames.data(late, b"x") + frames.priority(late) + frames.rst(late, 8))
    stage.client.raw(frames.data(stream, b"rest", end=True))
    stage.settle()
    assert list(stage.server.seen) == [stream] and stage.server.seen[stream].ended
    stage.server.reply(stream)
    stage.settle()
    assert isinstance(stage.ending, Close) and stage.client.seen[stream].ended


def test_many_streams_behind_the_goaway_are_no_flood() -> None:
    """A busy client has opened them before it could hear of it."""
    stage, stream = open_post(judge=PublicOnly(HttpOptions(max_resets=5)), client=Wire(client=True))
    stopped(stage)
    stage.client.raw(b"".join(frames.headers(number, GET) for number in range(3, 103, 2)))
    stage.client.raw(frames.data(stream, b"rest", end=True))
    stage.settle()
    stage.server.reply(stream)
    stage.settle()
    assert stage.client.seen[stream].code == 200 and stage.codes == (0, None)


def test_what_cannot_be_read_behind_the_goaway_goes_nowhere_in_audit_mode() -> None:
    """The client asks elsewhere for what the GOAWAY did not take: nothing of it may arrive twice."""
    stage, _ = open_post(judge=PublicOnly(audit_only=True), client=Wire(client=True), server=Wire(client=False))
    stopped(stage)
    before = stage.rig.server
    stage.client.raw(frames.raw(frames.CONTINUATION, 0, 1) + frames.headers(3, GET))
    stage.settle()
    assert stage.rig.server == before and isinstance(stage.ending, Close)
    assert stage.rig.records[-1].request.decision.reason.startswith("audit mode, cut short: ")


# -- a stop while an upgrade is pending --------------------------------------------------------------------------------


@whole_and_cut
def test_a_stop_before_the_101(cut: int) -> None:
    stage = Upgraded(cut)
    stage.client = Wire(client=True)
    stage.ends = (stage.client, stage.server)
    stage.rig.apply(stage.rig.talk.draining(1.0))
    assert stage.ending is None
    stage.switch()
    assert stage.client.goaway == (1, 0) and stage.ending is None
    stage.client.raw(frames.headers(3, GET))
    stage.settle()
    stage.server.reply(1, body=b"first")
    stage.settle()
    assert stage.client.seen[1].data == b"first" and isinstance(stage.ending, Close)
    assert stage.server.seen == {}, "stream 1 was asked in HTTP/1.1, and nothing behind it is taken"


def test_a_stop_before_an_upgrade_that_is_not_made() -> None:
    stage = Upgraded()
    stage.rig.apply(stage.rig.talk.draining(1.0))
    stage.rig.arrive(RESPONSE, OK)
    assert stage.rig.client == OK and isinstance(stage.ending, Close)


# -- FIN of the server, whose last words wait --------------------------------------------------------------------------


@whole_and_cut
def test_the_servers_fin_waits_for_room(cut: int) -> None:
    """The server has filled the whole window before it could hear what our own answer took of it."""
    stage = Stage(cut, client=Peer(client=True, greedy=False, options={2: 0, 4: 1_000_000}))
    stream = stage.get()
    stage.server.reply(stream, body=b"y" * 65_535)
    refused = stage.client.ask(request("/secret"))
    stage.arrive(REQUEST)
    stage.arrive(RESPONSE)
    stage.rig.arrive(RESPONSE, b"", True)
    stage.hand(RESPONSE)
    assert denied(stage.client.seen[refused])
    assert len(stage.client.seen[stream].data) < 65_535 and stage.ending is None
    assert not stage.rig.halves[RESPONSE].ended
    stage.client.give()
    stage.settle()
    assert stage.client.seen[stream].data == b"y" * 65_535 and stage.client.seen[stream].ended
    assert isinstance(stage.ending, Close)


@whole_and_cut
def test_the_servers_fin_behind_its_101(cut: int) -> None:
    """What is behind the 101 waits for the client's preface, and the FIN behind it."""
    stage = Upgraded(cut)
    stage.server.reply(1, body=b"first")
    said = stage.server.take()
    for last in range(len(SWITCH), len(SWITCH) + len(said), cut or len(said)):
        stage = Upgraded(cut)
        stage.rig.arrive(RESPONSE, (SWITCH + said)[:last])
        stage.rig.arrive(RESPONSE, (SWITCH + said)[last:], True)
        stage.handed[RESPONSE] = len(SWITCH)
        assert stage.rig.client.startswith(SWITCH)
        stage.hand(RESPONSE)
        stage.arrive(REQUEST)
        stage.hand(RESPONSE)
        assert stage.client.seen[1].data == b"first" and stage.client.seen[1].ended
        assert isinstance(stage.ending, Close)
