"""What RFC 9113 calls malformed never passes: a stream error each, and the connection goes on."""

from __future__ import annotations

import pytest

from tests.http1.rig import PublicOnly
from tests.http2 import frames
from tests.http2.frames import plain, request
from tests.http2.peers import Wire, denied
from tests.http2.rig import Stage, whole_and_cut

GOOD = request()
METHOD, SCHEME, PATH, AUTHORITY = GOOD
FIELD = (b"x-field", b"1")
MALFORMED: dict[str, list[tuple[bytes, bytes]]] = {
    "a name in upper case": [*GOOD, (b"X-Field", b"1")],
    "connection": [*GOOD, (b"connection", b"close")],
    "connection that names a field": [*GOOD, (b"connection", b"x-token"), (b"x-token", b"1")],
    "proxy-connection": [*GOOD, (b"proxy-connection", b"keep-alive")],
    "keep-alive": [*GOOD, (b"keep-alive", b"5")],
    "transfer-encoding": [*GOOD, (b"transfer-encoding", b"chunked")],
    "upgrade": [*GOOD, (b"upgrade", b"websocket")],
    "te": [*GOOD, (b"te", b"gzip")],
    "te, and trailers": [*GOOD, (b"te", b"trailers, gzip")],
    "a pseudo-header field behind a field": [METHOD, SCHEME, AUTHORITY, FIELD, PATH],
    "an unknown pseudo-header field": [*GOOD, (b":unknown", b"1")],
    "a response's pseudo-header field": [*GOOD, (b":status", b"200")],
    "two methods": [METHOD, *GOOD],
    "two paths": [*GOOD, (b":path", b"/secret")],
    "the same path twice": [*GOOD, PATH],
    "two schemes": [*GOOD, SCHEME],
    "two authorities": [*GOOD, AUTHORITY],
    "no method": [SCHEME, PATH, AUTHORITY],
    "no scheme": [METHOD, PATH, AUTHORITY],
    "no path": [METHOD, SCHEME, AUTHORITY],
    "nothing at all": [],
    "an empty method": [(b":method", b""), SCHEME, PATH, AUTHORITY],
    "a method that is no token": [(b":method", b"GET /"), SCHEME, PATH, AUTHORITY],
    "an empty path": [METHOD, SCHEME, (b":path", b""), AUTHORITY],
    "a path that does not begin with a slash": request("public/x"),
    "a path that is a URL": request("http://a/public/x"),
    "an asterisk for GET": request("*"),
    "a space in the path": request("/public/x HTTP/1.1"),
    "CR LF in the path": request("/public/x\r\nx: y"),
    "NUL in the path": request("/public/x\0"),
    "a fragment in the path": request("/public/x#y"),
    "CR in a value": [*GOOD, (b"x-field", b"1\r2")],
    "LF in a value": [*GOOD, (b"x-field", b"1\n2")],
    "CR LF in a value": [*GOOD, (b"x-field", b"1\r\nx-token: open")],
    "NUL in a value": [*GOOD, (b"x-field", b"1\x002")],
    "a space before a value": [*GOOD, (b"x-field", b" 1")],
    "a tab behind a value": [*GOOD, (b"x-field", b"1\t")],
    "an empty name": [*GOOD, (b"", b"1")],
    "a space in a name": [*GOOD, (b"x field", b"1")],
    "a colon in a name": [*GOOD, (b"x:field", b"1")],
    "CR LF in a name": [*GOOD, (b"x\r\nfield", b"1")],
    "NUL in a name": [*GOOD, (b"x\0field", b"1")],
    "a name beyond ASCII": [*GOOD, ("x-é".encode(), b"1")],
    "a host that is another": [*GOOD, (b"host", b"b")],
    "two hosts": [METHOD, SCHEME, PATH, (b"host", b"a"), (b"host", b"a")],
    "no authority and no host": [METHOD, SCHEME, PATH],
    "an empty authority": request(authority=""),
    "a user in the authority": request(authority="me@a"),
    "CR LF in the authority": request(authority="a\r\nb"),
    "a path in the authority": request(authority="a/b"),
    "a scheme that is none": request(scheme="ht tp"),
    "a length that is no number": [*GOOD, (b"content-length", b"x")],
    "a length with a sign": [*GOOD, (b"content-length", b"+0")],
    "two lengths": [*GOOD, (b"content-length", b"0"), (b"content-length", b"1")],
    "a list of lengths": [*GOOD, (b"content-length", b"0, 0")],
    "a length beyond all bounds": [*GOOD, (b"content-length", b"18446744073709551616")],
    "a length of what does not come": [*GOOD, (b"content-length", b"5")],
}
"""Requests that end with their header block."""


def never_passed(stage: Stage, code: int = 400) -> None:
    """The one request on stream 1 was refused as malformed, and nobody else heard of it."""
    assert stage.client.seen[1].reset == 1 and not stage.client.seen[1].fields
    assert stage.server.seen == {}
    assert [(one[0], one[3]) for one in stage.log] == [("DROPPED", code)]


def room_of(said: bytes) -> int:
    """Bytes of windows that these frames use."""
    return sum(len(one.payload) for one in frames.split(said) if one.kind == frames.DATA)


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("cut", [0, 1])
def test_a_malformed_request_is_a_stream_error(cut: int, name: str) -> None:
    stage = Stage(cut, client=Wire(client=True))
    assert stage.client.ask(MALFORMED[name]) == 1
    stage.settle()
    never_passed(stage)
    stage.works()


@pytest.mark.parametrize("name", MALFORMED)
def test_it_is_one_with_a_body_too(name: str) -> None:
    stage = Stage(client=Wire(client=True))
    block = plain([*MALFORMED[name], (b"x-last", b"1")])
    stage.client.raw(frames.headers(1, block, end=False, pieces=2, pad=7) + frames.data(1, b"x" * 6, end=True))
    stage.settle()
    if "a length of" in name:
        assert stage.client.seen[1].reset == 1 and not stage.server.seen[1].ended
    else:
        never_passed(stage)
    stage.works()


def test_the_same_is_malformed_again_and_again() -> None:
    """Whatever remembers blocks remembers this too."""
    stage = Stage(client=Wire(client=True))
    for number in range(1, 12, 2):
        stage.client.raw(frames.headers(number, plain(MALFORMED["upgrade"])))
        stage.settle()
        assert stage.client.seen[number].reset == 1
    assert stage.server.seen == {} and len(stage.log) == 6


@pytest.mark.parametrize("path", ["/public/../secret", "/public//../secret", "/public%2f..%2fsecret", "/public/%00"])
def test_a_path_that_hides_its_meaning(path: str) -> None:
    stage = Stage()
    stream = stage.get(path)
    assert stage.server.seen == {} and stage.log[0][0] == "DROPPED"
    assert stage.client.seen[stream].reset == 1 or stage.client.seen[stream].ended
    stage.works()


@pytest.mark.parametrize(
    "trailers",
    [
        [(b":path", b"/secret")],
        [(b":status", b"200")],
        [(b"X-Upper", b"1")],
        [(b"connection", b"x")],
        [(b"transfer-encoding", b"chunked")],
        [(b"x-field", b"1\r\n2")],
        [(b"", b"1")],
        [(b"x field", b"1")],
        [(b"content-length", b"5")],
        [(b"host", b"b")],
    ],
    ids=str,
)
@whole_and_cut
def test_malformed_trailers(cut: int, trailers: list[tuple[bytes, bytes]]) -> None:
    """The request is with the server already: it is reset on both sides."""
    stage = Stage(cut, client=Wire(client=True))
    stream = stage.client.ask(request(method="POST"), end=False)
    stage.client.raw(frames.data(stream, b"x"))
    stage.client.raw(frames.headers(stream, stage.client.encoder.encode(trailers)))
    stage.settle()
    assert stage.client.seen[stream].reset == 1
    seen = stage.server.seen[stream]
    assert not seen.ended and not seen.trailers and seen.reset is not None
    assert len(stage.log) == 1
    stage.works()


def test_trailers_that_a_rule_looks_at() -> None:
    """A field that rules ask for may not come in behind them."""
    stage = Stage(judge=PublicOnly(watched=("x-token",)), client=Wire(client=True))
    stream = stage.client.ask(request(method="POST"), end=False)
    stage.client.raw(frames.headers(stream, plain([(b"x-token", b"open")])))
    stage.settle()
    assert stage.client.seen[stream].reset == 1 and not stage.server.seen[stream].trailers
    stage.works()


def test_a_second_block_that_does_not_end_the_stream() -> None:
    stage = Stage(client=Wire(client=True))
    stream = stage.client.ask(request(method="POST"), end=False)
    stage.client.raw(frames.headers(stream, plain([FIELD]), end=False) + frames.data(stream, b"more", end=True))
    stage.settle()
    assert stage.client.seen[stream].reset == 1
    seen = stage.server.seen[stream]
    assert not seen.trailers and not seen.data and not seen.ended and seen.reset is not None
    stage.works()


@pytest.mark.parametrize(
    "sent",
    [
        frames.data(1, b"abcdef"),
        frames.data(1, b"abc") + frames.data(1, b"def"),
        frames.data(1, b"abc", end=True),
        frames.data(1, b"abc", pad=2, end=True),
        frames.data(1, end=True),
        frames.data(1, b"abc") + frames.data(1, end=True),
        frames.data(1, b"abc") + frames.headers(1, plain([FIELD])),
        frames.data(1, b"abcdef", end=True),
    ],
    ids=range(8),
)
@whole_and_cut
def test_a_body_that_is_not_as_long_as_it_says(cut: int, sent: bytes) -> None:
    stage = Stage(cut, client=Wire(client=True))
    stage.client.ask([*request(method="POST"), (b"content-length", b"5")], end=False)
    stage.client.raw(sent)
    stage.settle()
    assert stage.client.seen[1].reset == 1
    seen = stage.server.seen[1]
    assert len(seen.data) <= 5 and not seen.ended and not seen.trailers and seen.reset is not None
    assert len(stage.log) == 1
    given = sum(one.number for one in stage.client.kinds(frames.WINDOW_UPDATE) if not one.stream)
    assert given == room_of(sent) - room_of(stage.rig.server.removeprefix(frames.PREFACE))
    stage.works()


def test_a_body_as_long_as_it_says() -> None:
    stage = Stage(client=Wire(client=True))
    stage.client.ask([*request(method="POST"), (b"content-length", b"5")], end=False)
    stage.client.raw(frames.data(1, b"ab", pad=9) + frames.data(1, b"cde") + frames.data(1, end=True))
    stage.settle()
    assert stage.server.seen[1].data == b"abcde" and stage.server.seen[1].ended


@pytest.mark.parametrize(
    "fields",
    [
        [(b":method", b"CONNECT"), AUTHORITY],
        [(b":method", b"CONNECT"), (b":protocol", b"websocket"), SCHEME, PATH, AUTHORITY],
    ],
    ids=["CONNECT", "extended CONNECT"],
)
@whole_and_cut
def test_connect_is_refused(cut: int, fields: list[tuple[bytes, bytes]]) -> None:
    stage = Stage(cut, client=Wire(client=True))
    stage.client.raw(frames.headers(1, plain(fields), end=False) + frames.data(1, b"tunnelled"))
    stage.settle()
    assert stage.server.seen == {} and stage.log[0][0] == "DROPPED"
    assert stage.client.seen[1].reset is not None
    stage.works()


@pytest.mark.parametrize(
    "fields",
    [
        request("*", method="OPTIONS"),
        [METHOD, SCHEME, PATH, (b"host", b"a")],
        [*GOOD, (b"host", b"a")],
        [*GOOD, (b"te", b"trailers")],
        [*GOOD, (b"cookie", b"a=b"), (b"cookie", b"c=d")],
        [*GOOD, (b"x-field", b"")],
        [*GOOD, (b"x-field", b"a, b"), (b"x-field", "é".encode())],
        [*GOOD, (b"content-length", b"0")],
        [PATH, AUTHORITY, METHOD, SCHEME],
        request(scheme="https"),
        request(authority="[::1]:8080"),
    ],
    ids=range(11),
)
def test_what_is_well_formed(fields: list[tuple[bytes, bytes]]) -> None:
    stage = Stage(client=Wire(client=True), judge=PublicOnly(audit_only=True))
    stage.client.ask(fields)
    stage.settle()
    assert stage.server.seen[1].fields == fields and stage.rig.judge.judged
    stage.works()


@pytest.mark.parametrize("code", [200, 404])
def test_a_malformed_response_is_the_servers_affair(code: int) -> None:
    """Nothing of policy hangs on it, but it breaks nothing either."""
    stage = Stage(client=Wire(client=True), server=Wire(client=False))
    stage.client.ask(GOOD)
    stage.settle()
    stage.server.reply(1, [(b":status", b"%d" % code), (b"X-Upper", b"1")])
    stage.settle()
    assert stage.client.seen[1].code in (code, 0)
    stage.client.ask(request("/secret"))
    stage.settle()
    assert denied(stage.client.seen[3])
