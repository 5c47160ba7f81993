"""Beginnings and endings that no byte brings about: time-outs, a stop, an unreachable server, a new policy."""

from __future__ import annotations

import pytest

from l7proxy.http1 import Http1Conversation
from l7proxy.ops import Abort, Close, Pass
from tests.conversations import REQUEST
from tests.http1.rig import DENIED, OK, PublicOnly, Rig, chunked, get

GET = get()
WEB = get("/public/x", "Connection: Upgrade", "Upgrade: websocket")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


def test_idle_is_between_messages() -> None:
    rig = Rig()
    assert rig.talk.idle
    assert not rig.ask(GET[:9]).talk.idle and rig.talk.head_pending
    assert not rig.ask(GET[9:]).talk.idle and not rig.talk.head_pending
    assert not rig.say(OK[:-1]).talk.idle
    assert rig.say(OK[-1:]).talk.idle
    posted = get("/public", "Transfer-Encoding: chunked", method="POST")
    assert not rig.ask(posted).say(OK).talk.idle
    assert rig.talk.receiving
    assert rig.ask(chunked(b"abc")).talk.idle and not rig.talk.receiving
    assert not rig.ask(WEB).say(SWITCH).talk.idle


def test_a_head_that_does_not_come_gets_a_408_in_its_turn() -> None:
    rig = Rig().ask(GET + GET[:9])
    rig.apply(rig.talk.head_timeout(9.0))
    assert rig.client == b"" and rig.ending is None
    assert rig.talk.head_timeout(10.0) == ()
    rig.say(OK)
    assert rig.client.startswith(OK + b"HTTP/1.1 408 Request Timeout\r\n") and isinstance(rig.ending, Close)
    assert rig.log == [("FORWARDED", "GET", "/public/x", 200), ("DROPPED", "", "", 408)]
    assert rig.server == GET


@pytest.mark.parametrize("said", [b"HTTP/1.1 408 Request Timeout\r\n", b"HTTP/1.0 408 x\r\nContent-Length: 0\r\n\r\n"])
def test_a_server_that_gives_up_an_idle_connection_says_so_to_nobody(said: bytes) -> None:
    rig = Rig().ask(GET).say(OK).say(said)
    assert isinstance(rig.ending, Close) and rig.client == OK
    assert isinstance(Rig().ask(GET).say(OK).say(said.replace(b"408", b"200")).ending, Abort)
    awaited = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"
    assert Rig().ask(GET).say(awaited).client == awaited


def test_a_stop_waits_for_the_last_answer_and_takes_no_more() -> None:
    rig = Rig().ask(GET + GET[:9])
    rig.apply(rig.talk.draining(1.0)).ask(GET[9:])
    assert rig.ending is None
    assert isinstance(rig.say(OK).ending, Close)
    assert (rig.server, rig.client) == (GET, OK)


def test_a_stop_lets_a_body_come_to_its_end() -> None:
    rig = Rig().ask(get("/public", "Content-Length: 5", method="POST") + b"he")
    rig.apply(rig.talk.draining(1.0)).ask(b"llo" + GET).say(OK)
    assert rig.server.endswith(b"\r\n\r\nhello") and rig.client == OK and isinstance(rig.ending, Close)


def test_a_stop_between_messages_is_at_once() -> None:
    rig = Rig().ask(GET).say(OK)
    assert isinstance(rig.apply(rig.talk.draining(1.0)).ending, Close)


def test_an_unreachable_server_gives_503_to_each_in_order() -> None:
    head = get(method="HEAD")
    rig = Rig().ask(GET + get("/secret") + head)
    rig.apply(rig.talk.upstream_failed("connection refused", 2.0))
    assert rig.log == [
        ("FORWARDED", "GET", "/public/x", 503),
        ("DROPPED", "GET", "/secret", 403),
        ("FORWARDED", "HEAD", "/public/x", 503),
    ]
    first, last = rig.client.split(DENIED)
    assert first == (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 30\r\nContent-Type: text/plain\r\n\r\n"
        b"upstream: connection refused\r\n"
    )
    assert last.endswith(b"\r\nConnection: close\r\n\r\n") and isinstance(rig.ending, Close)


def test_what_is_unanswered_at_the_end_is_recorded() -> None:
    rig = Rig().ask(GET + get("/secret")).finish()
    assert rig.log == [("FORWARDED", "GET", "/public/x", 0), ("DROPPED", "GET", "/secret", 0)]
    assert Rig().ask(GET).say(OK[:-1]).finish().log == [("FORWARDED", "GET", "/public/x", 200)]


class Deny(PublicOnly):
    """Refuses everything."""

    def judge(self, request):  # type: ignore[no-untyped-def]
        request.path = "/secret"
        return super().judge(request)


def test_a_new_judge_holds_from_the_next_message_on() -> None:
    rig = Rig().ask(GET).say(OK).ask(GET[:20])
    rig.talk.judge = Deny()
    rig.ask(GET[20:])
    assert rig.server == GET and rig.client == OK + DENIED


def test_a_new_judge_that_enforces_ends_what_was_not_read() -> None:
    for direction in ("ask", "say"):
        rig = Rig(PublicOnly(audit_only=True)).ask(b"\x16\x03").say(b"\x16\x03")
        assert rig.talk.idle and rig.server == rig.client == b"\x16\x03"
        rig.talk.judge = PublicOnly()
        getattr(rig, direction)(b"secret")
        assert isinstance(rig.ending, Abort) and rig.server == rig.client == b"\x16\x03"


def test_one_head_is_judged_once_for_all_connections() -> None:
    judge = PublicOnly()
    for _ in range(3):
        talk = Http1Conversation(judge)
        assert list(talk.receive(REQUEST, bytes(bytearray(GET)), False, 1.0)) == [Pass(len(GET))]
        assert Rig(judge).ask(get("/secret")).client == DENIED
    assert judge.judged == [("GET", "/public/x"), ("GET", "/secret")]


def test_the_cache_is_bounded() -> None:
    judge = PublicOnly()
    for number in range(5000):
        Rig(judge).ask(get(f"/public/{number}"))
    assert 0 < len(judge.cache) <= 4096
    size = len(judge.cache)
    assert Rig(judge).ask(get("/public/x", "X: " + "y" * 3000)).server and len(judge.cache) == size


@pytest.mark.parametrize("wanted", [False, True])
def test_headers_are_recorded_if_the_judge_wants_them(wanted: bool) -> None:
    judge = PublicOnly()
    judge.log_headers = wanted
    rig = Rig(judge).ask(get("/public/x", "X-A:  b\xe9 ")).say(OK)
    assert rig.records[0].request.headers == ((("host", "a"), ("x-a", "b\xe9")) if wanted else ())
