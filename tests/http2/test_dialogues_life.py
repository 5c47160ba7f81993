"""Beginnings and endings: GOAWAY of either end and our own, FIN, time-outs, an unreachable server, a new policy."""

from __future__ import annotations

from typing import Any

import pytest

from l7proxy.ops import Abort, Close
from parsers.facts import HttpRequest
from policies.verdict import L7Decision
from tests.conversations import REQUEST, RESPONSE
from tests.http1.rig import PublicOnly
from tests.http2 import frames
from tests.http2.frames import grpc, plain, raw, request
from tests.http2.peers import Peer, Wire, denied, denied_grpc
from tests.http2.rig import Stage, whole_and_cut

GET = plain(request())


def open_post(cut: int = 0, **more: Any) -> tuple[Stage, int]:
    stage = Stage(cut, **more)
    stream = stage.client.ask(request(method="POST"), end=False)
    return stage.settle(), stream


def test_idle_and_receiving() -> None:
    stage = Stage(begin=False)
    assert stage.rig.talk.idle and not stage.rig.talk.receiving
    stage.settle()
    assert stage.rig.talk.idle and not stage.rig.talk.head_pending
    stream = stage.client.ask(request(method="POST"), end=False)
    stage.arrive(REQUEST, 12)
    assert stage.rig.talk.head_pending and not stage.rig.talk.idle
    stage.settle()
    assert not stage.rig.talk.head_pending and stage.rig.talk.receiving and not stage.rig.talk.idle
    stage.client.send(stream, b"x", end=True)
    stage.settle()
    assert not stage.rig.talk.receiving and not stage.rig.talk.idle
    stage.server.reply(stream, body=b"x" * 100)
    stage.arrive(RESPONSE, 60)
    assert not stage.rig.talk.idle
    stage.settle()
    assert stage.rig.talk.idle
    stage.get("/secret")
    assert stage.rig.talk.idle


def test_a_block_that_goes_on_is_a_pending_head() -> None:
    stage = Stage(client=Wire(client=True))
    stage.client.raw(raw(frames.HEADERS, 1, 1, GET))
    stage.settle()
    assert stage.rig.talk.head_pending
    stage.client.raw(raw(frames.CONTINUATION, frames.END_HEADERS, 1))
    stage.settle()
    assert not stage.rig.talk.head_pending and list(stage.server.seen) == [1]


@whole_and_cut
def test_the_servers_goaway_goes_through(cut: int) -> None:
    stage, stream = open_post(cut, client=Wire(client=True))
    stage.server.raw(frames.goaway(stream, 0, b"restart"))
    stage.settle()
    assert stage.client.goaway == (stream, 0) and stage.ending is None
    stage.client.raw(frames.data(stream, b"the rest", end=True))
    stage.settle()
    assert stage.server.seen[stream].data == b"the rest"
    stage.server.reply(stream, body=b"done")
    stage.settle()
    assert stage.client.seen[stream].data == b"done" and stage.client.seen[stream].ended


def test_a_refusal_behind_the_servers_goaway() -> None:
    stage = Stage(client=Wire(client=True), server=Wire(client=False))
    stage.server.raw(frames.goaway(0, 0))
    stage.settle()
    stage.client.ask(request("/secret"))
    stage.settle()
    assert stage.server.seen == {}
    seen = stage.client.seen.get(1)
    assert seen is None or denied(seen) or seen.reset == 7


@whole_and_cut
def test_the_clients_goaway_goes_through(cut: int) -> None:
    stage, stream = open_post(cut, client=Wire(client=True), server=Wire(client=False))
    stage.client.raw(frames.goaway(0, 0, b"bye") + frames.data(stream, b"the rest", end=True))
    stage.settle()
    assert stage.server.goaway == (0, 0) and stage.server.seen[stream].ended and stage.ending is None


@whole_and_cut
def test_fin_goes_through_both_ways(cut: int) -> None:
    stage, stream = open_post(cut)
    stage.client.send(stream, b"x", end=True)
    stage.settle()
    stage.rig.arrive(REQUEST, b"", True)
    assert stage.rig.halves[REQUEST].ended and stage.ending is None
    stage.server.reply(stream, body=b"done")
    stage.settle()
    stage.rig.arrive(RESPONSE, b"", True)
    assert stage.client.seen[stream].data == b"done"
    stage.finish()
    assert stage.log == [("FORWARDED", "POST", "/public/x", 200)]


@pytest.mark.parametrize("size", [1, 9, 12])
def test_fin_within_a_frame(size: int) -> None:
    stage = Stage()
    stage.client.ask(request())
    stage.arrive(REQUEST, size)
    stage.rig.arrive(REQUEST, b"", True)
    assert stage.server.seen == {}
    stage.settle().finish()
    assert stage.rig.judge.judged == []


@whole_and_cut
def test_a_refusal_is_said_although_the_client_has_ended(cut: int) -> None:
    stage = Stage(cut)
    stream = stage.client.ask(request("/secret"))
    stage.arrive(REQUEST)
    stage.rig.arrive(REQUEST, b"", True)
    stage.hand(RESPONSE)
    assert denied(stage.client.seen[stream])


def test_a_server_that_goes_leaves_a_record() -> None:
    stage, _ = open_post()
    stage.rig.arrive(RESPONSE, b"", True)
    stage.finish()
    assert stage.log == [("FORWARDED", "POST", "/public/x", 0)]
    assert list(stage.rig.talk.finish(9.0)) == []


def test_a_server_that_ends_behind_its_answer() -> None:
    """The client's upload is still open: what the server said is not thrown away by a reset."""
    stage, stream = open_post()
    stage.server.reply(stream, [(b":status", b"413")], body=b"too large")
    stage.arrive(RESPONSE)
    stage.rig.arrive(RESPONSE, b"", True)
    stage.hand(RESPONSE)
    assert stage.client.seen[stream].code == 413 and not isinstance(stage.ending, Abort)
    stage.finish()
    assert stage.log == [("FORWARDED", "POST", "/public/x", 413)]


# -- the server cannot be reached ------------------------------------------------------------------------------------


@whole_and_cut
def test_an_unreachable_server(cut: int) -> None:
    stage = Stage(cut, begin=False)
    first, refused = stage.client.ask(request()), stage.client.ask(request("/secret"))
    head, call = stage.client.ask(request(method="HEAD")), stage.client.ask(grpc(), end=False)
    stage.arrive(REQUEST)
    stage.rig.apply(stage.rig.talk.upstream_failed("connection refused", 2.0))
    stage.hand(RESPONSE)
    assert isinstance(stage.ending, Close) and stage.codes[0] is not None
    seen = stage.client.seen
    assert seen[first].code == 503 and seen[first].ended and denied(seen[refused])
    assert seen[head].code == 503 and not seen[head].data
    assert seen[call].code == 200 and dict(seen[call].fields)[b"grpc-status"] == b"14" and seen[call].ended
    stage.finish()
    assert {one[:2] for one in stage.log} == {
        ("FORWARDED", "GET"),
        ("DROPPED", "GET"),
        ("FORWARDED", "HEAD"),
        ("FORWARDED", "POST"),
    }
    assert len(stage.log) == 4


# -- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [raw(frames.HEADERS, 1, 1, GET), frames.headers(1, GET)[:15]], ids=range(2))
def test_a_head_that_does_not_come(sent: bytes) -> None:
    stage = Stage(client=Wire(client=True))
    stage.client.raw(sent)
    stage.settle()
    stage.rig.apply(stage.rig.talk.head_timeout(9.0))
    stage.hand(RESPONSE)
    assert isinstance(stage.ending, Close) and stage.client.goaway
    assert stage.server.seen == {} and stage.rig.judge.judged == []
    stage.finish()
    assert [(one[0], one[3]) for one in stage.log] == [("DROPPED", 408)]


def test_no_head_no_time_out() -> None:
    stage, _ = open_post()
    assert list(stage.rig.talk.head_timeout(9.0)) == []
    stage.works()


# -- a new policy ----------------------------------------------------------------------------------------------------


class Nothing(PublicOnly):
    """A policy that allows nothing."""

    def judge(self, request: HttpRequest) -> L7Decision:
        request.path = "/secret"
        return super().judge(request)


@whole_and_cut
def test_a_new_policy_holds_for_new_streams(cut: int) -> None:
    stage, stream = open_post(cut)
    stage.get()
    stage.rig.talk.judge = Nothing()
    refused = stage.get()
    assert denied(stage.client.seen[refused])
    stage.client.send(stream, b"the rest", end=True)
    stage.settle()
    stage.server.reply(stream, body=b"done")
    stage.settle()
    assert stage.client.seen[stream].data == b"done"
    stage.rig.talk.judge = PublicOnly()
    stage.works()


def test_a_new_policy_and_the_same_bytes() -> None:
    """Nothing that was remembered under the old one holds."""
    for shrunk in (b"", frames.table_size(0)):
        stage = Stage(client=Wire(client=True))
        stage.client.raw(frames.headers(1, shrunk + GET) + frames.headers(3, GET))
        stage.settle()
        stage.rig.talk.judge = Nothing()
        stage.client.raw(frames.headers(5, GET))
        stage.settle()
        assert list(stage.server.seen) == [1, 3] and denied(stage.client.seen[5])


def test_a_new_policy_between_the_halves_of_a_block() -> None:
    stage = Stage(client=Wire(client=True))
    stage.client.raw(raw(frames.HEADERS, 1, 1, GET))
    stage.settle()
    stage.rig.talk.judge = Nothing()
    stage.client.raw(raw(frames.CONTINUATION, frames.END_HEADERS, 1))
    stage.settle()
    assert stage.server.seen == {} and denied(stage.client.seen[1])


def test_a_new_policy_and_a_call() -> None:
    stage = Stage(client=Peer(client=True))
    stage.rig.talk.judge = Nothing()
    stream = stage.client.ask(grpc())
    stage.settle()
    assert denied_grpc(stage.client.seen[stream])
