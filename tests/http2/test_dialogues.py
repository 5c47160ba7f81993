"""What is allowed, what is refused, and what is only watched, between two h2 ends."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from parsers.facts import HttpRequest
from policies.verdict import L7Decision, Verdict
from tests.conversations import REQUEST, RESPONSE
from tests.http1.rig import PublicOnly
from tests.http2 import frames
from tests.http2.frames import grpc, message, request
from tests.http2.peers import OK, Peer, Wire, denied, denied_grpc
from tests.http2.rig import Stage, whole_and_cut

GRPC_OK = (*OK, (b"content-type", b"application/grpc"))
DONE = [(b"grpc-status", b"0")]


class Worded(PublicOnly):
    """Refuses all, in the policy's own words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def judge(self, request: HttpRequest) -> L7Decision:
        return L7Decision(Verdict.DROPPED, None, "refused", self.text)


@whole_and_cut
def test_what_is_allowed_goes_byte_for_byte(cut: int) -> None:
    stage = Stage(cut, client=Peer(client=True, options={2: 0, 4: 70_000}))
    stream = stage.client.ask(request("/public/x", ("x-token", "é"), method="POST"), end=False)
    stage.client.send(stream, b"x" * 100_000, trailers=[(b"x-sum", b"1")])
    stage.settle()
    stage.server.reply(stream, [*OK, (b"server", b"h2")], b"y" * 100_000, trailers=[(b"x-time", b"2")])
    stage.settle().works()
    said = b"".join(data for direction, data in stage.lines if direction is REQUEST)
    assert stage.rig.server == said
    seen = stage.server.seen[stream]
    assert (seen.data, seen.trailers, seen.ended) == (b"x" * 100_000, [(b"x-sum", b"1")], True)
    seen = stage.client.seen[stream]
    assert (seen.data, seen.trailers, seen.ended) == (b"y" * 100_000, [(b"x-time", b"2")], True)
    assert stage.log == [("FORWARDED", "POST", "/public/x", 200), ("FORWARDED", "GET", "/public/still", 200)]
    assert stage.windows() == (0, 0)


def test_of_the_servers_words_only_its_table_size_is_another() -> None:
    stage = Stage(server=Peer(client=False, options={1: 8192, 3: 17, 5: 20_000, 6: 1000}))
    stage.works()
    said = b"".join(data for direction, data in stage.lines if direction is RESPONSE)
    (first, *rest), (heard, *others) = list(frames.split(said)), list(frames.split(stage.rig.client))
    assert dict(frames.settings_of(first)) | {1: 0} == dict(frames.settings_of(heard))
    assert rest == others
    assert stage.client.settings == [{1: 0, 3: 17, 5: 20_000, 6: 1000}]


def test_a_server_that_says_nothing_of_its_table_is_said_to_have_none() -> None:
    stage = Stage(server=Wire(client=False))
    assert stage.client.settings == [{1: 0}]
    assert [one.flags for one in stage.server.kinds(frames.SETTINGS)] == [0, frames.ACK]


def test_push_is_switched_off_and_a_large_table_cut_to_size() -> None:
    stage = Stage(client=Wire(client=True, options=((1, 1 << 20), (2, 1), (4, 1000))))
    assert stage.server.settings == [{1: 65_536, 2: 0, 4: 1000}]
    assert [one.flags for one in stage.client.kinds(frames.SETTINGS)] == [0, frames.ACK]


def test_push_stays_off() -> None:
    stage = Stage(client=Wire(client=True, options=((2, 1), (2, 0), (2, 1))), server=Wire(client=False))
    stage.client.raw(frames.settings((2, 1), (4, 1000), (2, 1)))
    stage.settle()
    first, second = (frames.settings_of(one) for one in stage.server.kinds(frames.SETTINGS) if not one.flags)
    assert {one for one in first if one[0] == 2} == {(2, 0)} and second == [(2, 0), (4, 1000), (2, 0)]


def test_a_client_that_says_nothing_of_push_gets_none() -> None:
    stage = Stage(client=Wire(client=True, options=((3, 5),)))
    assert stage.server.settings == [{2: 0, 3: 5}]


@whole_and_cut
@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "QUERY"])
def test_a_refused_request_is_answered_and_never_heard_of(cut: int, method: str) -> None:
    stage = Stage(cut)
    stream = stage.client.ask(request("/secret", method=method))
    stage.settle()
    seen = stage.client.seen[stream]
    assert denied(seen) and seen.reset is None
    assert stage.server.seen == {} and stage.log == [("DROPPED", method, "/secret", 403)]
    record = stage.rig.records[0]
    assert (record.request.protocol, record.request.host) == ("HTTP/2", "a")
    stage.works()


def test_an_answer_to_head_has_no_body() -> None:
    stage = Stage()
    stream = stage.client.ask(request("/secret", method="HEAD"))
    stage.settle()
    seen = stage.client.seen[stream]
    assert (seen.code, seen.data, seen.ended, seen.reset) == (403, b"", True, None)
    assert dict(seen.fields)[b"content-length"] == b"15"
    stage.works()


@whole_and_cut
def test_a_refused_request_with_a_body_to_come_is_answered_at_once(cut: int) -> None:
    stage = Stage(cut)
    stream = stage.client.ask(request("/secret", method="POST"), end=False)
    stage.settle()
    seen = stage.client.seen[stream]
    assert denied(seen) and seen.reset is None
    stage.client.send(stream, b"x" * 100, end=True)
    stage.settle()
    assert seen.reset is None and stage.server.seen == {}
    stage.works()


def test_the_policys_own_words() -> None:
    stage = Stage()
    assert denied(stage.client.seen[stage.get("/worded")], b"Ask the owner\r\n")
    stream = stage.client.ask(grpc("/worded.Service/Method"))
    stage.settle()
    assert denied_grpc(stage.client.seen[stream]) == b"Ask the owner"


@whole_and_cut
def test_a_refused_call_ends_with_status_7(cut: int) -> None:
    stage = Stage(cut)
    half = stage.client.ask(grpc("/secret.Service/Method"), end=False)
    stage.settle()
    whole = stage.client.ask(grpc("/secret.Service/Method"))
    stage.settle()
    for stream, reset in ((half, 0), (whole, None)):
        seen = stage.client.seen[stream]
        assert denied_grpc(seen) == b"Access denied" and seen.reset == reset
    assert stage.server.seen == {}
    assert [one.call and one.call[:3] for one in stage.rig.records] == [("secret.Service", "Method", 7)] * 2
    assert {one[0] for one in stage.log} == {"DROPPED"}
    stage.works()


@pytest.mark.parametrize("kind", ["application/grpc+proto", "application/grpc;charset=utf-8", "application/grpc-web"])
def test_what_is_a_grpc_call(kind: str) -> None:
    stage = Stage()
    stream = stage.client.ask(request("/secret.S/M", ("content-type", kind), method="POST"))
    stage.settle()
    seen = stage.client.seen[stream]
    assert denied(seen) if kind.endswith("web") else denied_grpc(seen) is not None


@pytest.mark.parametrize("text", ["100 %", "Ärger\r\nmit 日本", "a\x00b\x7f", "é" * 5000], ids=range(4))
def test_a_message_is_percent_encoded(text: str) -> None:
    stage = Stage(judge=Worded(text))
    stream = stage.client.ask(grpc())
    stage.settle()
    said = denied_grpc(stage.client.seen[stream])
    assert said is not None and all(0x20 <= byte < 0x7F for byte in said)
    assert text.startswith(unquote(said.decode(), errors="strict").rstrip("�")) and (len(text) > 99 or b"%" in said)
    stream = stage.client.ask(request())
    stage.settle()
    assert denied(stage.client.seen[stream], text.encode() + b"\r\n")
    assert stage.ending is None


@whole_and_cut
def test_audit_forwards_and_records(cut: int) -> None:
    stage = Stage(cut)
    stream = stage.get("/audit")
    stage.server.reply(stream, body=b"seen")
    stage.settle()
    assert stage.client.seen[stream].data == b"seen"
    assert stage.log == [("AUDIT", "GET", "/audit", 200)]
    stage = Stage(cut, judge=PublicOnly(audit_only=True))
    stream = stage.get("/secret")
    stage.server.reply(stream, [(b":status", b"404")])
    stage.settle()
    assert stage.log == [("AUDIT", "GET", "/secret", 404)]


@pytest.mark.parametrize(
    "sent",
    [
        frames.headers(3, frames.plain(request("/secret", ("content-length", "5"), method="POST"))),
        frames.headers(3, frames.plain(request("/secret", ("content-length", "5"), method="POST")), end=False)
        + frames.data(3, b"ab", end=True),
        frames.headers(3, frames.plain(request("/secret")), end=False)
        + frames.headers(3, frames.plain([(b"x-token", b"1")])),
        frames.data(1, b"behind the end"),
        b"".join(frames.headers(number, frames.plain(request("/secret"))) for number in range(3, 4000, 2)),
        frames.ping() * 5000,
    ],
    ids=range(6),
)
def test_audit_lets_everything_pass(sent: bytes) -> None:
    stage = Stage(judge=PublicOnly(audit_only=True), client=Wire(client=True), server=Wire(client=False, polite=False))
    stage.client.ask(request())
    stage.settle()
    before = len(stage.rig.server)
    stage.client.raw(sent)
    stage.settle()
    assert stage.rig.server[before:] == sent and stage.ending is None
    assert "DROPPED" not in [one[0] for one in stage.finish().log]


@whole_and_cut
def test_a_whole_call_and_its_record(cut: int) -> None:
    stage = Stage(cut)
    stream = stage.client.ask(grpc(), end=False)
    stage.settle()
    stage.server.reply(stream, GRPC_OK, end=False)
    for number in range(3):
        stage.client.send(stream, message(b"x" * number * 20_000))
        stage.settle()
        stage.server.send(stream, message(b"y") + message())
        stage.settle()
    stage.client.send(stream, end=True)
    stage.server.send(stream, trailers=DONE)
    stage.settle()
    seen = stage.client.seen[stream]
    assert (seen.data, seen.trailers) == ((message(b"y") + message()) * 3, DONE)
    assert stage.rig.records[0].call == ("public.Service", "Method", 0, 3, 6)
    assert stage.log == [("FORWARDED", "POST", "/public.Service/Method", 200)]


@pytest.mark.parametrize("status", [0, 5, 16])
def test_the_servers_own_trailers_only(status: int) -> None:
    stage = Stage()
    stream = stage.client.ask(grpc())
    stage.settle()
    stage.server.reply(stream, [*GRPC_OK, (b"grpc-status", b"%d" % status)])
    stage.settle()
    assert stage.rig.records[0].call == ("public.Service", "Method", status, 0, 0)


@whole_and_cut
def test_refused_between_allowed(cut: int) -> None:
    stage = Stage(cut)
    streams = [stage.client.ask(request(("/public/x", "/secret")[number % 2])) for number in range(10)]
    stage.settle()
    assert sorted(stage.server.seen) == streams[::2]
    assert all(denied(stage.client.seen[one]) for one in streams[1::2])
    for one in reversed(streams[::2]):
        stage.server.reply(one, body=b"%d" % one)
    stage.settle()
    assert [stage.client.seen[one].data for one in streams[::2]] == [b"%d" % one for one in streams[::2]]
    assert len(stage.log) == 10


def test_interim_responses_are_not_the_answer() -> None:
    stage = Stage()
    stream = stage.client.ask(request(method="POST"), end=False)
    stage.settle()
    stage.server.reply(stream, [(b":status", b"100")], end=False)
    stage.server.reply(stream, [(b":status", b"103"), (b"link", b"<x>")], end=False)
    stage.settle()
    assert stage.client.seen[stream].interim == [100, 103] and stage.log == []
    stage.client.send(stream, b"body", end=True)
    stage.settle()
    stage.server.reply(stream, [(b":status", b"204")])
    stage.settle()
    assert stage.log == [("FORWARDED", "POST", "/public/x", 204)]


def test_records_of_streams_that_are_reset() -> None:
    stage = Stage()
    first, second = stage.get("/public/1"), stage.get("/public/2")
    stage.client.h2.reset_stream(first, 8)
    stage.settle()
    assert stage.server.seen[first].reset == 8
    stage.server.h2.reset_stream(second, 2)
    stage.settle()
    assert stage.client.seen[second].reset == 2
    assert stage.log == [("FORWARDED", "GET", "/public/1", 0), ("FORWARDED", "GET", "/public/2", 0)]
    stage.works()


def test_times_and_headers_of_a_record() -> None:
    judge = PublicOnly()
    judge.log_headers = True
    stage = Stage(judge=judge)
    stage.rig.now = 5.0
    stream = stage.get("/public/x?a=b", [(b"x-token", b"1")])
    stage.rig.now = 7.0
    stage.server.reply(stream, body=b"ok")
    stage.settle()
    record = stage.rig.records[0]
    assert (record.started, record.ended, record.code, record.request.url) == (5.0, 7.0, 200, "/public/x?a=b")
    assert ("x-token", "1") in record.request.headers
