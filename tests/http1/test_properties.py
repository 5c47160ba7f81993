"""What is judged is what is sent: for arbitrary bytes, and for those that a grammar of smuggling makes."""

from __future__ import annotations

import re

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conversations import REQUEST, RESPONSE
from tests.http1.rig import OK, PublicOnly, Rig, chunked, get, play
from tests.realservers.grammar import streams

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=8)
GOOD = st.sampled_from(
    [
        get(),
        get("/secret"),
        get(method="HEAD"),
        get("/public", "Content-Length: 4", method="POST") + b"GET ",
        get("/public", "Transfer-Encoding: chunked", method="POST") + chunked(b"abc", b"\r\n0\r\n\r\n"),
        get("/secret", "Content-Length: 4", method="PUT") + b"GET ",
        get("/audit"),
        b"\r\n" + get("/public/2"),
    ]
)
BAD = st.one_of(
    st.sampled_from([b"\r\n", b"\n", b"GET ", b"Host: a\r\n", b"\x00", b"0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n", b"x"]),
    st.binary(max_size=20),
    streams().map(lambda vector: b"".join(vector.parts)),
)
ASKED = st.lists(st.one_of(GOOD, GOOD, BAD), max_size=6).map(b"".join)
ANSWERS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                OK,
                b"HTTP/1.1 204 No Content\r\n\r\n",
                b"HTTP/1.1 100 Continue\r\n\r\n",
                b"HTTP/1.0 200 OK\r\n\r\nx",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"abc"),
                b"HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n",
            ]
        ),
        st.binary(max_size=20),
    ),
    max_size=4,
).map(b"".join)


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    """The data in pieces of the given sizes, over and over."""
    made: list[bytes] = []
    start = number = 0
    while start < len(data):
        size = sizes[number % len(sizes)]
        made.append(data[start : start + size])
        start, number = start + size, number + 1
    return made


def requests_in(data: bytes) -> tuple[list[tuple[str, str]], bool]:
    """(method, target) of what h11 reads, up to where the last one is incomplete; and whether it refused the rest for
    white space before a chunk's extension, which RFC 9112, section 7.1.1, allows."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    if data:  # no data at all would mean FIN to h11
        server.receive_data(data)
    found: list[tuple[str, str]] = []
    while True:
        try:
            event = server.next_event()
        except h11.RemoteProtocolError as error:
            if re.search(r"illegal chunk header: .*[0-9a-f](?: |\\t)+;", str(error)):
                return found, True
            raise
        if isinstance(event, h11.Request):
            found.append((event.method.decode(), event.target.decode("latin-1")))
        elif event in (h11.NEED_DATA, h11.PAUSED):
            return found, False
        elif isinstance(event, h11.EndOfMessage):
            server.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            server.send(h11.EndOfMessage())
            if server.states[h11.SERVER] is h11.MUST_CLOSE:
                return found, False
            server.start_next_cycle()


def allowed(rig: Rig) -> list[tuple[str, str]]:
    """(method, target) of every request that was recorded as passed."""
    requests = [one.request for one in rig.records]
    return [(one.method, one.url) for one in requests if one.decision.verdict.value != "DROPPED"]


@settings(max_examples=400)
@given(ASKED, SIZES)
def test_what_the_server_reads_is_what_was_judged_and_allowed(data: bytes, sizes: list[int]) -> None:
    rig = play([(REQUEST, piece) for piece in pieces(data, sizes)])
    read, refused = requests_in(rig.server)
    passed = allowed(rig.finish())
    assert read == (passed[: len(read)] if refused else passed)


@settings(max_examples=300)
@given(ASKED, SIZES)
def test_how_bytes_are_cut_changes_nothing(data: bytes, sizes: list[int]) -> None:
    whole = play([(REQUEST, data)]).finish()
    cut = play([(REQUEST, piece) for piece in pieces(data, sizes)]).finish()
    assert (cut.server, cut.client, cut.told, cut.ending) == (
        whole.server,
        whole.client,
        whole.told,
        whole.ending,
    )


@settings(max_examples=300)
@given(ASKED, ANSWERS, SIZES, SIZES, st.booleans(), st.booleans())
def test_no_byte_is_lost_or_changes_places(
    asked: bytes, said: bytes, first: list[int], second: list[int], audit_only: bool, ends: bool
) -> None:
    rig = Rig(PublicOnly(audit_only=audit_only))
    requests, responses = pieces(asked, first), pieces(said, second)
    for number in range(max(len(requests), len(responses))):
        for direction, lines in ((REQUEST, requests), (RESPONSE, responses)):
            if number < len(lines):
                rig.arrive(direction, lines[number])
    if ends:
        rig.arrive(REQUEST, b"", True).arrive(RESPONSE, b"", True)
    rig.finish()
    for half, data in zip(rig.halves, (asked, said), strict=True):
        assert half.passed + half.dropped + len(half.pending) == len(data)
    rest = iter(asked)
    assert all(byte in rest for byte in rig.server), "the server got bytes that are no part of what was sent, in order"
    judged = len(rig.judge.judged)
    assert rig.judge.audit_only or judged <= len(rig.records)


@settings(max_examples=200)
@given(ANSWERS, SIZES)
def test_how_responses_are_cut_changes_nothing(data: bytes, sizes: list[int]) -> None:
    asked = [(REQUEST, get() * 2)]
    whole = play([*asked, (RESPONSE, data)]).finish()
    cut = play([*asked, *((RESPONSE, piece) for piece in pieces(data, sizes))]).finish()
    assert (cut.client, cut.told, cut.ending) == (whole.client, whole.told, whole.ending)
