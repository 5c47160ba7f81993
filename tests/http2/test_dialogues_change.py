"""A new policy and the gRPC streams that run: judged at their next request message, and cut or kept."""

from __future__ import annotations

import pytest

from parsers.options import HttpOptions
from policies.verdict import Verdict
from tests.conversations import REQUEST
from tests.http1.rig import RULE
from tests.http2 import frames
from tests.http2.changes import (
    CANCEL,
    DONE,
    FIRST,
    GRPC_OK,
    NO_ERROR,
    SECOND,
    THIRD,
    Now,
    change,
    refused_late,
    running,
    say,
    whole_messages,
)
from tests.http2.frames import grpc, message, request
from tests.http2.peers import Wire, denied_grpc
from tests.http2.rig import Stage, whole_and_cut

# -- cut -------------------------------------------------------------------------------------------------------------


@whole_and_cut
@pytest.mark.parametrize("answered", [False, True], ids=["before the response", "in the response"])
def test_the_next_message_is_refused(cut: int, answered: bool) -> None:
    stage, stream = running(cut, answered=answered)
    change(stage)
    stage.works()
    say(stage, frames.data(stream, SECOND))
    seen, heard = stage.client.seen[stream], stage.server.seen[stream]
    assert refused_late(seen) if answered else denied_grpc(seen) == b"Access denied"
    assert seen.reset == NO_ERROR and (heard.data, heard.ended, heard.reset) == (FIRST, False, CANCEL)
    record = stage.rig.records[-1]
    assert (record.request.decision.verdict, record.request.decision.rule) == (Verdict.DROPPED, RULE)
    assert record.request.decision.reason == "policy changed: the new rule"
    assert record.code == 200 and record.call == ("public.Service", "Method", 7, 1, 0)
    stage.works()
    assert stage.windows() == (0, 0) and stage.rig.talk.idle
    assert [one[0] for one in stage.finish().log] == ["FORWARDED", "DROPPED", "FORWARDED"]


def test_a_call_without_a_message_yet() -> None:
    stage = Stage()
    stream = stage.client.ask(grpc(), end=False)
    stage.settle()
    change(stage, Now(text="ask us: 100% sûr"))
    stage.client.send(stream, FIRST, end=True)
    stage.settle()
    seen, heard = stage.client.seen[stream], stage.server.seen[stream]
    assert denied_grpc(seen) == b"ask us: 100%25 s%C3%BBr"
    assert seen.reset is None, "the client has ended: there is nothing to reset"
    assert (heard.data, heard.reset) == (b"", CANCEL)
    stage.works()
    assert stage.windows() == (0, 0)


def test_interim_responses_are_no_response() -> None:
    stage, stream = running()
    stage.server.reply(stream, [(b":status", b"103"), (b"link", b"<x>")], end=False)
    stage.settle()
    change(stage)
    say(stage, frames.data(stream, SECOND))
    assert stage.client.seen[stream].interim == [103] and denied_grpc(stage.client.seen[stream]) == b"Access denied"


def test_what_began_before_the_change_passes_whole() -> None:
    """A message is under its stream's policy of the time of its first byte."""
    large = message(b"x" * 40_000)
    stage, stream = running()
    say(stage, frames.data(stream, large[:3]))
    change(stage)
    for start in range(3, len(large), 10_000):
        say(stage, frames.data(stream, large[start : start + 10_000]))
    assert stage.server.seen[stream].data == FIRST + large and stage.client.seen.get(stream) is None
    say(stage, frames.data(stream, THIRD[:1]))
    assert stage.server.seen[stream].data == FIRST + large and stage.server.seen[stream].reset == CANCEL
    assert denied_grpc(stage.client.seen[stream]) == b"Access denied"
    say_late(stage, stream)


def say_late(stage: Stage, stream: int) -> None:
    """What a client sends that has not yet heard of the end is swallowed."""
    before = len(stage.rig.server)
    stage.client.raw(frames.data(stream, SECOND * 10) + frames.data(stream, b"", end=True))
    stage.settle()
    behind = list(frames.split(stage.rig.server[before:]))
    assert stream not in [one.stream for one in behind]


@whole_and_cut
@pytest.mark.parametrize("pad", [None, 0, 7])
@pytest.mark.parametrize("end", [False, True])
def test_the_next_message_within_a_frame(cut: int, pad: int | None, end: bool) -> None:
    """The server has the head of the frame, and what is before the message: the frame is filled for it."""
    stage, stream = running(cut, answered=True, client=Wire(client=True))
    say(stage, frames.data(stream, SECOND[:8]))
    change(stage)
    stage.rig.filled = 1
    say(stage, frames.data(stream, SECOND[8:] + THIRD + THIRD, end=end, pad=pad))
    heard, seen = stage.server.seen[stream], stage.client.seen[stream]
    assert whole_messages(heard.data) == [FIRST, SECOND] and b"third" not in stage.rig.server
    assert heard.reset == CANCEL and stage.rig.filled == 0
    assert refused_late(seen) and seen.reset == (None if end else NO_ERROR)
    assert stage.rig.records[-1].call == ("public.Service", "Method", 7, 2, 0)
    assert taken(stage.rig.server) == taken(b"".join(data for way, data in stage.lines if way is REQUEST))
    stage.works()


def taken(said: bytes) -> int:
    """The room that these frames of a client take."""
    split = frames.split(said.removeprefix(frames.PREFACE))
    return sum(len(one.payload) for one in split if one.kind == frames.DATA)


@pytest.mark.parametrize("begun", [b"", SECOND[:8]])
def test_a_client_that_has_ended_has_ended(begun: bytes) -> None:
    stage, stream = running(client=Wire(client=True))
    say(stage, frames.data(stream, begun))
    change(stage)
    stage.rig.filled = 1
    say(stage, frames.data(stream, SECOND[len(begun) :] + THIRD, end=True))
    assert stage.client.seen[stream].reset is None
    say(stage, frames.data(stream, b"more"))
    assert stage.client.seen[stream].reset == 5
    stage.works()


@pytest.mark.parametrize("gone", range(1, 45))
def test_a_change_anywhere_within_a_frame(gone: int) -> None:
    """Messages whose first byte came before the change are passed whole, and none behind them."""
    stage, stream = running(client=Wire(client=True))
    sent = frames.data(stream, SECOND + THIRD + message(), pad=2)
    stage.client.raw(sent)
    stage.arrive(REQUEST, gone)
    change(stage)
    stage.rig.filled = 1
    stage.settle()
    begun = [begins < gone - frames.HEAD - 1 for begins in (0, len(SECOND), len(SECOND + THIRD))]
    passed = [FIRST] + [one for one, early in zip((SECOND, THIRD, message()), begun, strict=True) if early]
    heard = stage.server.seen[stream]
    assert whole_messages(heard.data)[: len(passed)] == passed
    assert whole_messages(heard.data) == passed and (heard.reset == CANCEL) == (not all(begun))
    stage.works()
    say(stage, frames.data(stream, SECOND))
    assert stage.server.seen[stream].reset == CANCEL and whole_messages(stage.server.seen[stream].data) == passed
    assert denied_grpc(stage.client.seen[stream]) is not None
    stage.works()


def test_an_empty_message_is_one() -> None:
    stage, stream = running(client=Wire(client=True))
    change(stage)
    say(stage, frames.data(stream, b"") + frames.data(stream, message(b"")))
    assert stage.server.seen[stream].data == FIRST and stage.server.seen[stream].reset == CANCEL


def test_the_clients_end_is_no_message() -> None:
    for end in (frames.data(1, end=True), frames.data(1, end=True, pad=9)):
        stage, stream = running(client=Wire(client=True))
        change(stage)
        say(stage, end)
        stage.server.reply(stream, GRPC_OK, b"", trailers=DONE)
        stage.settle()
        assert stage.client.seen[stream].trailers == DONE and stage.server.seen[stream].ended
        assert stage.log == [("FORWARDED", "POST", "/public.Service/Method", 200)]


def test_many_streams_at_once() -> None:
    """A change is no flood of the client's."""
    stage = Stage(client=Wire(client=True))
    streams = [stage.client.ask(grpc(), end=False) for _ in range(50)]
    stage.settle()
    judge = Now()
    judge.options = HttpOptions(max_resets=1, max_control_frames=10)
    change(stage, judge)
    say(stage, b"".join(frames.data(stream, FIRST) for stream in streams))
    assert all(denied_grpc(stage.client.seen[one]) and stage.server.seen[one].reset == CANCEL for one in streams)
    stage.works()


# -- no cut ----------------------------------------------------------------------------------------------------------


@whole_and_cut
@pytest.mark.parametrize("verdict", [Verdict.FORWARDED, Verdict.AUDIT])
def test_what_is_still_allowed_goes_on_and_is_judged_once(cut: int, verdict: Verdict) -> None:
    stage, stream = running(cut, answered=True, client=Wire(client=True))
    judge = change(stage, Now(verdict))
    before = len(stage.rig.server)
    sent = frames.data(stream, SECOND + THIRD, pad=3) + frames.data(stream, FIRST * 3) + frames.data(stream, end=True)
    say(stage, sent)
    assert stage.rig.server[before:].startswith(sent)
    assert judge.judged == [("POST", "/public.Service/Method")]
    stage.server.send(stream, message(b"answer"), trailers=DONE)
    stage.settle()
    assert stage.client.seen[stream].trailers == DONE
    record = stage.rig.records[-1]
    reason = "policy changed: the new rule" if verdict is Verdict.AUDIT else "the new rule"
    assert (record.request.decision.verdict, record.request.decision.reason) == (verdict, reason)
    assert record.call == ("public.Service", "Method", 0, 6, 1)


def test_every_change_counts() -> None:
    stage, stream = running(client=Wire(client=True))
    first = change(stage, Now(Verdict.FORWARDED))
    say(stage, frames.data(stream, SECOND))
    change(stage)
    second = change(stage, Now(Verdict.FORWARDED))
    say(stage, frames.data(stream, SECOND))
    assert len(first.judged) == len(second.judged) == 1 and stage.server.seen[stream].data == FIRST + SECOND * 2
    change(stage)
    say(stage, frames.data(stream, THIRD))
    assert stage.server.seen[stream].data == FIRST + SECOND * 2 and stage.server.seen[stream].reset == CANCEL


@whole_and_cut
def test_keep(cut: int) -> None:
    stage, stream = running(cut, answered=True)
    judge = change(stage, Now(cut=False))
    say(stage, frames.data(stream, SECOND + THIRD))
    stage.client.send(stream, end=True)
    stage.settle()
    assert judge.judged == [] and whole_messages(stage.server.seen[stream].data) == [FIRST, SECOND, THIRD]
    stage.server.send(stream, trailers=DONE)
    stage.settle()
    assert stage.client.seen[stream].trailers == DONE
    assert stage.log == [("FORWARDED", "POST", "/public.Service/Method", 200)]
    stream = stage.client.ask(grpc(), end=False)
    stage.settle()
    assert denied_grpc(stage.client.seen[stream]) is not None


@pytest.mark.parametrize("kind", ["application/json", "application/grpc-web"])
def test_other_streams_live_on(kind: str) -> None:
    stage = Stage()
    stream = stage.client.ask(request("/public/x", ("content-type", kind), method="POST"), end=False)
    stage.settle()
    judge = change(stage)
    stage.client.send(stream, FIRST + SECOND, end=True)
    stage.settle()
    assert stage.server.seen[stream].data == FIRST + SECOND and judge.judged == []


def test_streams_that_ended_meanwhile_are_no_burden() -> None:
    stage, stream = running(client=Wire(client=True), more=2)
    change(stage)
    stage.client.raw(frames.rst(stream, 8))
    stage.server.raw(frames.rst(stream + 2, 8))
    stage.settle()
    say(stage, frames.data(stream + 4, end=True))
    for _ in range(4):
        stage.works()
    assert stage.rig.talk._stale == {}


def test_a_stop_behind_a_cut() -> None:
    stage, stream = running(client=Wire(client=True))
    change(stage)
    stage.apply(stage.rig.talk.draining(1.0))
    say(stage, frames.data(stream, SECOND))
    assert denied_grpc(stage.client.seen[stream]) is not None and stage.ending is not None
