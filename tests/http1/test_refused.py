"""Heads and bodies that servers read in different ways: each row of what was measured, and what is refused instead."""

from __future__ import annotations

import pytest

from l7proxy.ops import Close
from parsers.http1 import Refused, parse_request, parse_response
from parsers.options import HttpOptions
from tests.http1.rig import PublicOnly, Rig, chunked, get
from tests.realservers.framing import all_framing
from tests.realservers.stream import Vector
from tests.realservers.targets import all_targets

OPTIONS = HttpOptions()
NO_UPGRADE = "403 Upgrade to another protocol than websocket: nothing behind it could be judged"
WATCHED = frozenset(("x-token",))
CHUNKED = "Transfer-Encoding: chunked"
BODY_ROW = "length 4294967299"
"""A vector whose hidden bytes are, to every server measured, a body of 4 GiB that an honest client may send."""


def refusal(head: bytes, options: HttpOptions = OPTIONS) -> str:
    """Why a head is refused; fails if it is not."""
    with pytest.raises(Refused) as refused:
        parse_request(head, options, WATCHED)
    return f"{refused.value.status} {refused.value.reason}"


REFUSED = {
    ("Content-Length: 1", CHUNKED): "400 Content-Length with Transfer-Encoding",
    ("Content-Length: 1", "Content-Length: 1"): "400 more than one Content-Length",
    ("Transfer-Encoding: identity", CHUNKED): "400 a Transfer-Encoding other than chunked",
    (CHUNKED, "transfer-encoding: chunked"): "400 a Transfer-Encoding other than chunked",
    ("Transfer-Encoding: gzip, chunked",): "400 a Transfer-Encoding other than chunked",
    ("Content_Length: 1",): "400 header 'Content_Length' may be read as 'content-length'",
    ("Transfer.Encoding: chunked",): "400 header 'Transfer.Encoding' may be read as 'transfer-encoding'",
    ("X_Token: closed",): "400 header 'X_Token' may be read as 'x-token'",
    ("Connection: close, X-Token",): "400 Connection names the header 'x-token'",
    ("Connection: Content-Length",): "400 Connection names the header 'content-length'",
    ("Host: b",): "400 more than one Host",
    ("Upgrade: h2c, websocket",): NO_UPGRADE,
    ("Upgrade: websocket", "Upgrade: h2c"): NO_UPGRADE,
    ("Upgrade: websocket",): "400 Upgrade to websocket takes a GET of HTTP/1.1, Connection: Upgrade, and no body",
    ("Expect: 100-continue", "Expect: 100-continue"): "417 Expect other than 100-continue",
    ("Expect: 100-continue, x",): "417 Expect other than 100-continue",
    ("X: a\x00b",): "400 no header line at byte 26 of the head",
    ("X: a\rb",): "400 no header line at byte 26 of the head",
    ("X : a",): "400 no header line at byte 26 of the head",
    (" X: a",): "400 no header line at byte 26 of the head",
    ("X",): "400 no header line at byte 26 of the head",
    (": a",): "400 no header line at byte 26 of the head",
}


@pytest.mark.parametrize("lines", REFUSED, ids=" | ".join)
def test_a_head_is_refused_with_a_reason(lines: tuple[str, ...]) -> None:
    assert refusal(get("/p", *lines)) == REFUSED[lines]


@pytest.mark.parametrize(
    "value",
    ["+1", "-1", "0x1", "1_0", "1,1", "1 1", "1 ", "01", "", "1\x0b", "1;", "9" * 19, "18446744073709551619", "\xb2"],
)
def test_an_odd_length_is_refused(value: str) -> None:
    assert refusal(get("/p", f"Content-Length: {value}")).startswith("400 ")


@pytest.mark.parametrize(
    "host",
    [
        "a, b",
        "a b",
        "b@a",
        "a/b",
        "a\\b",
        "a#b",
        "a?b",
        "a:80:b",
        "a:",
        ":80",
        "a:x",
        "[",
        "[::1",
        "a:123456",
        "a\x7f",
        "\xe9",
    ],
)
def test_an_odd_host_is_refused(host: str) -> None:
    assert refusal(b"GET /p HTTP/1.1\r\nHost: " + host.encode("latin-1") + b"\r\n\r\n").startswith("400 ")


@pytest.mark.parametrize("host", ["a", "a:80", "A.b-c_d~.example.", "[::1]:8080", "127.0.0.1", ""])
def test_a_plain_host_is_judged_as_sent(host: str) -> None:
    assert parse_request(b"GET /p HTTP/1.1\r\nhOST:" + host.encode() + b"\r\n\r\n", OPTIONS).host == host


def test_host_and_target_have_to_agree() -> None:
    assert refusal(get("http://b/p")) == "400 a Host that differs from the target's"
    assert refusal(get("http://a:80/p")) == "400 a Host that differs from the target's"
    assert parse_request(get("http://A/p"), OPTIONS).host == "a"
    assert refusal(b"GET /p HTTP/1.1\r\n\r\n") == "400 no Host"
    assert parse_request(b"GET /p HTTP/1.0\r\n\r\n", OPTIONS).host == ""
    assert parse_request(b"GET http://b/p HTTP/1.0\r\n\r\n", OPTIONS).host == "b"


@pytest.mark.parametrize(
    "line",
    [
        "get / HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / http/1.1",
        "GET /",
        "GET\t/ HTTP/1.1",
        "G\x00T / HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /\x0b HTTP/1.1",
        "GET / HTTP/01.1",
        "GET /\x7f HTTP/1.1",
        "A" * 33 + " / HTTP/1.1",
    ],
)
def test_an_odd_request_line_is_refused(line: str) -> None:
    assert refusal(line.encode() + b"\r\nHost: a\r\n\r\n") == "400 the request line is not METHOD target HTTP/1.1"


def test_codings_in_old_requests_are_refused_and_other_versions() -> None:
    assert refusal(get("/p", CHUNKED, version="1.0")) == "400 Transfer-Encoding in HTTP/1.0"
    assert refusal(get("/p", version="1.2")).startswith("505 ")
    assert refusal(get("/p", version="2.0")).startswith("505 ")


def test_what_is_legal_is_refused_if_so_configured() -> None:
    body = get("/public", "Content-Length: 1")
    assert parse_request(body, OPTIONS).length == 1
    assert "refuse_get_body" in refusal(body, HttpOptions(refuse_get_body=True))
    coded = get("/public", CHUNKED, method="POST") + chunked(trailers=b"X: y\r\n")
    assert Rig().ask(coded).server == coded
    rig = Rig(PublicOnly(HttpOptions(refuse_trailers=True))).ask(coded)
    assert rig.server == get("/public", CHUNKED, method="POST") and rig.ending == Close(
        "fields behind the last chunk (refuse_trailers)"
    )


@pytest.mark.parametrize(
    "body",
    [
        b"100000003\r\nabc",
        b"80000000\r\n",
        b"ffffffffffffffff\r\n",
        b"10000000000000003\r\n",
        b"3\nabc\r\n",
        b"3;\nabc",
        b"3;a\x00\r\n",
        b"3;a\rb\r\n",
        b"+3\r\n",
        b"0x3\r\n",
        b"3 \r\n",
        b"-0\r\n",
        b"\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabc\r0",
        b"0\r\n\n",
        b"0\r\nX: y\n\n",
        b"0\r\nX y\r\n\r\n",
        b"0\r\n X: y\r\n\r\n",
        b"0\r\nHost: b\r\n\r\n",
        b"0\r\ncontent_length: 1\r\n\r\n",
        b"0\r\nX-Token: open\r\n\r\n",
        b"0\r\n" + b"X: y\r\n" * 2000 + b"\r\n",
        b"1;" + b"x" * 1100 + b"\r\n",
        b"1" * 1100,
    ],
)
@pytest.mark.parametrize("piece", [0, 1, 5])
def test_a_bad_chunk_ends_the_connection(body: bytes, piece: int) -> None:
    head = get("/public", CHUNKED, method="POST")
    rig = Rig().ask(head)
    for start in range(0, len(body), piece or len(body)):
        rig.ask(body[start : start + (piece or len(body))])
    assert isinstance(rig.ending, Close) and b" 400 Bad Request\r\n" in rig.client
    sound = b"3\r\nabc" if body.startswith(b"3\r\nabc") else b""
    assert rig.server == head + sound
    assert rig.log == [("FORWARDED", "POST", "/public", 400)]


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 600 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/2.0 200 OK",
        b"HTTP/1.1 200 OK\r\nX : y",
        b"HTTP/1.1 200 OK\r\n X: y",
        b"HTTP/1.1 200 O\x00K",
        b"HTTP/1.1 200 OK\r\nContent_Length: 1",
    ],
)
def test_a_response_is_refused(head: bytes) -> None:
    with pytest.raises(Refused) as refused:
        parse_response(head + b"\r\n\r\n", 100)
    assert refused.value.status == 502


VECTORS = [*all_framing(), *all_targets()]


def through(vector: Vector, piece: int) -> Rig:
    """What a server gets that never answers."""
    rig = Rig()
    data = b"".join(vector.parts)
    for start in range(0, len(data), piece or len(data)):
        rig.ask(data[start : start + (piece or len(data))])
    return rig.finish()


def test_no_measured_evasion_reaches_a_server() -> None:
    assert len(VECTORS) > 400
    leaks = [v.name for v in VECTORS if not v.legal and b"/secret/" in through(v, 0).server and v.name != BODY_ROW]
    assert leaks == []


def test_measured_evasions_are_the_same_however_they_are_cut() -> None:
    for vector in VECTORS:
        whole = through(vector, 0)
        for piece in (1, 2, 5, 13):
            cut = through(vector, piece)
            assert (cut.server, cut.client, cut.log) == (whole.server, whole.client, whole.log), (vector.name, piece)
            assert [r.request.decision for r in cut.records] == [r.request.decision for r in whole.records], vector.name
