"""HTTP/2 header lists: each rule with what it refuses and a neighbour that passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from parsers.http1 import Refused
from parsers.http2_fields import (
    RequestFacts,
    ResponseFacts,
    header_pairs,
    plain_request,
    request_facts,
    response_facts,
    trailer_facts,
)
from parsers.options import HttpOptions

Pair = tuple[bytes, bytes]
STRICT = HttpOptions()
WATCHED = frozenset(("x-token",))
PLAIN = RequestFacts("GET", "/a?b=c", "/a?b=c", "api:80", -1, False)


def request(*others: Pair, **pseudo: bytes | None) -> list[Pair]:
    """A proper request's fields, with other pseudo-header fields (None: without it) and more behind them."""
    values: dict[str, bytes | None] = {"method": b"GET", "scheme": b"http", "path": b"/a?b=c", "authority": b"api:80"}
    values |= pseudo
    return [(b":" + name.encode(), value) for name, value in values.items() if value is not None] + list(others)


def facts(fields: list[Pair], options: HttpOptions = STRICT) -> RequestFacts:
    return request_facts(fields, options, WATCHED)


def refusal(ask: Callable[..., object], fields: list[Pair], *more: Any, **options: Any) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        ask(fields, *more, **options)
    return caught.value.status, caught.value.reason


ANYWHERE: list[tuple[str, Pair, Pair]] = [
    ("no header can be named 'X-a'", (b"X-a", b"1"), (b"x-a", b"1")),
    ("no header can be named ''", (b"", b"1"), (b"a", b"")),
    ("no header can be named 'x a'", (b"x a", b"1"), (b"x.a", b"1")),
    ("no header can be named 'x:a'", (b"x:a", b"1"), (b"x|a", b"1")),
    ("no header can be named 'x\\x80'", (b"x\x80", b"1"), (b"x!", b"1")),
    ("no header can be named 'x\\r'", (b"x\r", b"1"), (b"x~", b"1")),
    ("no header can be named 'x\\n'", (b"x\n", b"1"), (b"x", b"1")),
    ("a control character in 'x'", (b"x", b"a\rb"), (b"x", b"a b")),
    ("a control character in 'x'", (b"x", b"a\nb"), (b"x", b"a\tb")),
    ("a control character in 'x'", (b"x", b"a\0b"), (b"x", b"a\xffb")),
    ("a control character in 'x'", (b"x", b"\x7f"), (b"x", b"\x7e")),
    ("a control character in 'x'", (b"x", b"a\n"), (b"x", b"a")),
    ("connection has no place", (b"connection", b"close"), (b"connections", b"close")),
    ("proxy-connection has no place", (b"proxy-connection", b"close"), (b"proxy-authorization", b"close")),
    ("keep-alive has no place", (b"keep-alive", b"1"), (b"keep-alived", b"1")),
    ("transfer-encoding has no place", (b"transfer-encoding", b"chunked"), (b"content-encoding", b"chunked")),
    ("upgrade has no place", (b"upgrade", b"websocket"), (b"upgrade-insecure-requests", b"1")),
    ("te has no place", (b"te", b"trailers, gzip"), (b"te", b"trailers")),
    ("te has no place", (b"te", b""), (b"te", b"Trailers")),
    (":x' is unknown", (b":x", b"1"), (b"x", b"1")),
    (":' is unknown", (b":", b"1"), (b"-", b"1")),
]
"""What is refused in every header list: why, the field, and its neighbour."""
PADDED: list[tuple[str, Pair, Pair]] = [
    ("white space around the value of 'x'", (b"x", b" a"), (b"x", b"a")),
    ("white space around the value of 'x'", (b"x", b"a\t"), (b"x", b"")),
]
IN_REQUEST: list[tuple[str, Pair, Pair]] = [
    ("may be read as 'content-length'", (b"content_length", b"1"), (b"contentlength", b"1")),
    ("may be read as 'transfer-encoding'", (b"transfer_encoding", b"chunked"), (b"transferencoding", b"chunked")),
    ("may be read as 'x-token'", (b"x_token", b"1"), (b"x_tokens", b"1")),
    ("may be read as 'x-token'", (b"x.token", b"1"), (b"x-token", b"1")),
    (":method' is doubled", (b":method", b"GET"), (b"method", b"GET")),
    (":status' is unknown", (b":status", b"200"), (b"status", b"200")),
    ("has no :protocol", (b":protocol", b"websocket"), (b"protocol", b"websocket")),
]
LENGTHS: list[tuple[str, Pair, Pair]] = [
    ("no plain number", (b"content-length", b"+1"), (b"content-length", b"1")),
    ("no plain number", (b"content-length", b"01"), (b"content-length", b"0")),
    ("no plain number", (b"content-length", b"1, 1"), (b"content-length", b"9" * 18)),
    ("no plain number", (b"content-length", b"1" * 19), (b"content-length", b"1" * 18)),
]


@pytest.mark.parametrize(("why", "bad", "good"), ANYWHERE + PADDED + LENGTHS + IN_REQUEST)
def test_fields_of_a_request(why: str, bad: Pair, good: Pair) -> None:
    assert replace(facts(request(good)), length=-1) == PLAIN
    # A pseudo-header field stands where it may, so that it is not refused for its place.
    fields = [*request()[:4], bad, (b"y", b"1")]
    status, reason = refusal(facts, fields)
    assert status == 400 and why in reason


@pytest.mark.parametrize(("why", "bad", "good"), ANYWHERE + LENGTHS)
def test_fields_of_a_response(why: str, bad: Pair, good: Pair) -> None:
    ok = (b":status", b"200")
    assert response_facts([ok, good]).code == 200
    status, reason = refusal(response_facts, [ok, bad])
    assert status == 502 and reason.startswith("malformed response: ") and why in reason


@pytest.mark.parametrize("request_side", [True, False])
@pytest.mark.parametrize(("why", "bad", "good"), ANYWHERE)
def test_fields_of_trailers(why: str, bad: Pair, good: Pair, request_side: bool) -> None:
    assert trailer_facts([good], WATCHED, request=request_side) == -1
    status, reason = refusal(trailer_facts, [bad], WATCHED, request=request_side)
    assert status == (400 if request_side else 502) and why in reason


@pytest.mark.parametrize(
    ("why", "bad", "good"),
    [
        (":method, :scheme and :path", {"method": None}, {"method": b"POST"}),
        (":method, :scheme and :path", {"scheme": None}, {"scheme": b"https"}),
        (":method, :scheme and :path", {"path": None}, {"path": b"/"}),
        (":method is 'get'", {"method": b"get"}, {"method": b"M-SEARCH"}),
        (":method is ''", {"method": b""}, {"method": b"X"}),
        (":method is 'GE T'", {"method": b"GE T"}, {"method": b"GE_T"}),
        (":scheme is 'HTTP'", {"scheme": b"HTTP"}, {"scheme": b"http"}),
        (":scheme is 'ftp'", {"scheme": b"ftp"}, {"scheme": b"https"}),
        (":path is ''", {"path": b""}, {"path": b"/"}),
        (":path is 'a'", {"path": b"a"}, {"path": b"/a"}),
        (":path is 'http://api:80/a'", {"path": b"http://api:80/a"}, {"path": b"/http:/a"}),
        (":path is '*'", {"path": b"*"}, {"path": b"*", "method": b"OPTIONS"}),
        (":path is '*a'", {"path": b"*a", "method": b"OPTIONS"}, {"path": b"/*a", "method": b"OPTIONS"}),
        (":path is '/a b'", {"path": b"/a b"}, {"path": b"/a+b"}),
        (":path is '/a\\tb'", {"path": b"/a\tb"}, {"path": b"/a%20b"}),
        ("a control character in ':path'", {"path": b"/a\r\nx: y"}, {"path": b"/a%2B"}),
        ("a dot segment", {"path": b"/a/../b"}, {"path": b"/a/..b"}),
        ("an encoded slash", {"path": b"/a%2fb"}, {"path": b"/a%2eb"}),
        ("a fragment", {"path": b"/a#b"}, {"path": b"/a%23b"}),
        ("neither :authority nor host", {"authority": None}, {"authority": b"a"}),
        ("neither :authority nor host", {"authority": b""}, {"authority": b"[::1]:80"}),
        ("no plain name", {"authority": b"user@api"}, {"authority": b"user-api"}),
        ("no plain name", {"authority": b"a,b"}, {"authority": b"a.b"}),
        ("no plain name", {"authority": b"a b"}, {"authority": b"a_b:1"}),
        ("no plain name", {"authority": b"a\tb"}, {"authority": b"a~b"}),
    ],
)
def test_pseudo_header_fields(why: str, bad: dict[str, bytes | None], good: dict[str, bytes | None]) -> None:
    facts(request(**good))
    status, reason = refusal(facts, request(**bad))
    assert status == 400 and why in reason


def test_pseudo_header_fields_stand_first_and_once() -> None:
    for misplaced in range(4):
        fields = request((b"x", b"1"))
        fields.append(fields.pop(misplaced))
        assert "is misplaced" in refusal(facts, fields)[1]
        fields = request()
        fields.insert(misplaced, fields[misplaced])
        assert "is doubled" in refusal(facts, fields)[1]
    assert facts(request()[::-1]) == PLAIN


def test_host() -> None:
    host = (b"host", b"API:80")
    assert facts(request(host, authority=None)).host == "API:80"
    assert facts(request(host)).host == "API:80"
    assert facts(request(authority=b"API")).host == "API"
    for other in (b"api", b"api:81", b"", b"apj:80", b"api.:80"):
        assert "differs" in refusal(facts, request((b"host", other)))[1]
    assert "more than one Host" in refusal(facts, request(host, host))[1]
    assert "more than one Host" in refusal(facts, request(host, host, authority=None))[1]
    assert "no plain name" in refusal(facts, request((b"host", b"a@b"), authority=None))[1]


def test_connect_is_refused_whatever_else_it_says() -> None:
    for fields in (
        request(method=b"CONNECT", scheme=None, path=None),
        request(method=b"CONNECT", protocol=b"websocket"),
        request(method=b"CONNECT"),
    ):
        assert refusal(facts, fields) == (403, "CONNECT: nothing behind it could be judged")


def test_expect() -> None:
    assert refusal(facts, request((b"expect", b"100-continue, x"))) == (417, "Expect other than 100-continue")
    assert facts(request((b"expect", b"100-Continue"))) == PLAIN


def test_one_content_length() -> None:
    one = (b"content-length", b"5")
    assert facts(request(one, method=b"POST")).length == 5
    assert "more than one" in refusal(facts, request(one, one, method=b"POST"))[1]
    assert refusal(response_facts, [(b":status", b"200"), one, one])[0] == 502


def test_a_body_on_get_is_refused_where_the_options_say_so() -> None:
    careful = replace(STRICT, refuse_get_body=True)
    for method in (b"GET", b"HEAD"):
        body, none = (request((b"content-length", size), method=method) for size in (b"5", b"0"))
        assert facts(body).length == 5
        assert facts(none, careful).length == 0
        assert "refuse_get_body" in refusal(facts, body, careful)[1]
    assert facts(request((b"content-length", b"5"), method=b"POST"), careful).length == 5


def test_options_of_paths_hold() -> None:
    loose = replace(STRICT, allow_dot_segments=True)
    found = facts(request(path=b"/a/../b%7e"), loose)
    assert (found.target, found.path) == ("/a/../b%7e", "/b~")


def test_as_many_fields_as_are_allowed() -> None:
    few = replace(STRICT, max_headers=3)
    crumbs = [(b"cookie", b"a=1")] * 3
    assert facts(request(*crumbs), few) == PLAIN
    assert refusal(facts, request(*crumbs, (b"x", b"")), few)[0] == 431


@pytest.mark.parametrize("kind", [b"application/grpc", b"application/grpc+proto", b"Application/gRPC;x=y"])
def test_grpc(kind: bytes) -> None:
    assert facts(request((b"content-type", kind))) == replace(PLAIN, grpc=True)


@pytest.mark.parametrize("kind", [b"application/grpc-web", b"application/grpcs", b"text/x; application/grpc", b""])
def test_no_grpc(kind: bytes) -> None:
    assert facts(request((b"content-type", kind))) == PLAIN


def test_responses() -> None:
    ok = (b":status", b"200")
    assert response_facts([ok]) == ResponseFacts(200, -1, -1)
    assert response_facts([ok, (b"content-length", b"3"), (b"x", b" y ")]) == ResponseFacts(200, -1, 3)
    assert response_facts([ok, (b"grpc-status", b"16")]) == ResponseFacts(200, 16, -1)
    assert response_facts([ok, (b"grpc-status", b"x")]) == ResponseFacts(200, -1, -1)
    assert response_facts([(b":status", b"100")]).code == 100
    for status in (b"", b"20", b"2000", b"099", b"600", b"2x0", b"+20", b"101", b" 200"):
        assert ":status is" in refusal(response_facts, [(b":status", status)])[1]
    assert ":status is" in refusal(response_facts, [(b"x", b"y")])[1]
    assert "doubled" in refusal(response_facts, [ok, ok])[1]
    assert "misplaced" in refusal(response_facts, [(b"x", b"y"), ok])[1]
    assert "unknown" in refusal(response_facts, [ok, (b":path", b"/")])[1]


def test_trailers() -> None:
    for request_side in (True, False):
        assert trailer_facts([(b"grpc-status", b"7")], WATCHED, request=request_side) == 7
        assert trailer_facts([], WATCHED, request=request_side) == -1
    for name in (b"x-token", b"x_token", b"content-length", b"host", b"expect", b"content_length"):
        status, reason = refusal(trailer_facts, [(name, b"1")], WATCHED, request=True)
        assert status == 400 and "would be a header" in reason
        assert trailer_facts([(name, b"1")], WATCHED, request=False) == -1
    assert trailer_facts([(b"x-token", b"1")], frozenset(), request=True) == -1
    for pseudo in (b":status", b":path", b":x"):
        assert "unknown" in refusal(trailer_facts, [(pseudo, b"1")], WATCHED, request=False)[1]
    assert "white space" in refusal(trailer_facts, [(b"x", b"a ")], WATCHED, request=True)[1]


def test_what_rules_see() -> None:
    fields = request((b"x-token", b"a"), (b"x-token", b"\xff"))
    asked = plain_request(facts(fields), fields)
    assert (asked.method, asked.path, asked.host, asked.target) == ("GET", "/a?b=c", "api:80", "/a?b=c")
    assert asked.protocol == "HTTP/2"
    assert asked.headers == (("host", "api:80"), ("x-token", "a"), ("x-token", "\xff"))


def test_rules_see_one_host_and_one_cookie() -> None:
    """As in HTTP/1.1: a rule about them is not evaded by the way in which HTTP/2 words them."""
    assert header_pairs(request((b"host", b"API:80"))) == (("host", "API:80"),)
    assert header_pairs([(b":status", b"200")]) == ()
    crumbs = [(b"a", b"1"), (b"cookie", b"x=1"), (b"b", b"2"), (b"cookie", b"y=2"), (b"c", b"3"), (b"cookie", b"z")]
    assert header_pairs(crumbs) == (("a", "1"), ("cookie", "x=1; y=2; z"), ("b", "2"), ("c", "3"))
    assert header_pairs(crumbs[:2]) == (("a", "1"), ("cookie", "x=1"))


NAMES = st.sampled_from(
    b":method :scheme :path :authority :protocol :status : host cookie te expect content-length content_length x-token "
    b"x_token grpc-status content-type connection".split()
)
VALUES = st.sampled_from(b"GET CONNECT http /a /../ * api:80 200 0 5 trailers application/grpc".split())
ANY_PAIRS = st.lists(st.tuples(NAMES | st.binary(max_size=4), VALUES | st.binary(max_size=6)), max_size=8)


@given(st.builds(lambda front, back: front + back, st.just([]) | st.just(request()), ANY_PAIRS))
@example([])
def test_nothing_but_refused_is_raised(fields: list[Pair]) -> None:
    for ask in (
        lambda: facts(fields),
        lambda: response_facts(fields),
        lambda: trailer_facts(fields, WATCHED, request=True),
        lambda: trailer_facts(fields, WATCHED, request=False),
    ):
        try:
            ask()
        except Refused as error:
            assert error.status in (400, 403, 417, 431, 502) and error.reason.isprintable()
    header_pairs(fields)


@given(ANY_PAIRS)
def test_what_is_taken_could_not_be_read_otherwise(pairs: list[Pair]) -> None:
    fields = request() + pairs
    try:
        found = facts(fields)
    except Refused:
        return
    assert found.path.startswith("/") and found.host == dict(pairs).get(b"host", b"api:80").decode()
    names = [name for name, _ in pairs]
    assert names.count(b"content-length") < 2 and names.count(b"host") < 2
    for name, value in pairs:
        assert name == name.lower() and not name.startswith(b":") and value == value.strip(b" \t\r\n\0")
        assert name not in (b"x_token", b"content_length", b"connection") and b"\n" not in name + value
