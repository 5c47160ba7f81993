"""Streams that nobody has thought of: grammars and mutations of smuggling."""

from __future__ import annotations

import random
from collections.abc import Iterator

from hypothesis import strategies as st

from tests.realservers.stream import CHUNKED, END, HIDDEN, SIZE, TAG, Vector

_METHODS = st.sampled_from((b"POST",) * 6 + (b"GET", b"HEAD", b"PUT", b"OPTIONS", b"post"))
_PATHS = st.sampled_from((b"/public/",) * 9 + (b"/public/../secret/", b"/secret/", b"http://a/public/"))
_VERSIONS = st.sampled_from((b"HTTP/1.1",) * 9 + (b"HTTP/1.0", b"HTTP/1.2"))
_ENDS = st.sampled_from((b"\r\n",) * 40 + (b"\n", b"\r", b"\r\r\n", b"\n\r\n"))
_GAPS = st.sampled_from((b": ",) * 20 + (b":", b" : ", b":\t", b":\x0b", b":\r\n ", b"\x00: "))
_ODD_NUMBERS = st.sampled_from(
    (b"+5", b"0x5", b"5, 5", b"-1", b"5 ", b"05", b"4294967301", b"18446744073709551621", b"", b"0", b"%d" % SIZE)
)
_ODD_CODINGS = st.sampled_from(
    (b"identity", b"chunked, identity", b"x, chunked", b"Chunked", b"chunked\x0b", b"chunked")
)
_HOSTS = st.sampled_from((b"a", b"hidden", b"a:80", b"a, hidden"))
_OTHERS = st.sampled_from(
    (b"close", b"keep-alive", b"Upgrade", b"Content-Length", b"100-continue", b"websocket", b"h2c", b"gzip", b"y")
)
_ODD_FIELDS = st.one_of(
    st.tuples(st.sampled_from((b"Content-Length", b"content-length", b"Content_Length")), _ODD_NUMBERS),
    st.tuples(st.sampled_from((b"Transfer-Encoding", b"transfer-encoding", b" Transfer-Encoding")), _ODD_CODINGS),
    st.tuples(st.just(b"Host"), _HOSTS),
    st.tuples(st.sampled_from((b"Connection", b"Upgrade", b"Expect", b"TE", b"X", b"Trailer")), _OTHERS),
)
_CONTENTS = st.sampled_from((b"", b"abc", HIDDEN, END + HIDDEN, b"\r\n" + HIDDEN, b"0\r\n", b"GET /", HIDDEN * 2))
_EXTENSIONS = st.sampled_from((b"",) * 8 + (b";a=b", b' ; a="b"', b";\n", b"\x0b", b";\r\n x"))
_TAILS = st.sampled_from(
    (b"",) * 9 + (HIDDEN, END, b"\r\n", b"\n", b"5\r\n", b"GET ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
)
_ONCE_IN_A_WHILE = st.sampled_from((False,) * 3 + (True,))


@st.composite
def _chunks(draw: st.DrawFn) -> bytes:
    """A chunked body, now and then with a chunk whose size, line or end is odd."""
    body: bytes = b""
    for content in draw(st.lists(_CONTENTS.filter(len), max_size=2)):
        size = len(content) + draw(st.sampled_from((0,) * 12 + (1, -1, 2**32, 2**64)))
        body += b"%x" % size + draw(_EXTENSIONS) + draw(_ENDS) + content + draw(_ENDS)
    body += b"0" + draw(_ENDS) + draw(st.sampled_from((b"",) * 9 + (b"X: y\r\n", b"X:"))) + draw(_ENDS)
    return body


@st.composite
def _requests(draw: st.DrawFn) -> bytes:
    """A request that is right in most of its parts, so that the odd one is what decides."""
    start: bytes = draw(_METHODS) + b" " + draw(_PATHS) + TAG + b" " + draw(_VERSIONS) + draw(_ENDS)
    lines: bytes = draw(st.sampled_from((b"Host: a\r\n",) * 12 + (b"", b"Host: hidden\r\n", b"Host:a\n")))
    body: bytes = b""
    framing = draw(st.sampled_from(("none", "length", "chunks")))
    if framing == "length":
        body = draw(_CONTENTS)
        lines += b"Content-Length" + draw(_GAPS) + b"%d" % len(body) + draw(_ENDS)
    elif framing == "chunks":
        body = draw(_chunks())
        lines += b"Transfer-Encoding" + draw(_GAPS) + b"chunked" + draw(_ENDS)
    if draw(_ONCE_IN_A_WHILE):
        name, value = draw(_ODD_FIELDS)
        lines += name + draw(_GAPS) + value + draw(_ENDS)
    whole: bytes = start + lines + draw(_ENDS) + body + draw(_TAILS)
    return whole


def streams() -> st.SearchStrategy[Vector]:
    """One to three requests, sent in one or two parts."""
    joined = st.lists(_requests(), min_size=1, max_size=3).map(b"".join)
    return st.builds(_in_parts, joined, st.one_of(st.none(), st.integers(1, 400)))


def _in_parts(data: bytes, cut: int | None) -> Vector:
    # A cut through a tag would leave the stream's targets without one.
    if cut is None or cut >= len(data) or b"TAG" in data[max(0, cut - 8) : cut + 8]:
        return Vector("generated", (data,))
    return Vector("generated", (data[:cut], data[cut:]))


_PIECES = (
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b"\x00",
    b"\x0b",
    b":",
    b";",
    b",",
    b"0",
    b"3",
    b"x",
    b"_",
    b"%2f",
    b"..",
    b"/",
)
_LINES = (
    CHUNKED,
    b"Content-Length: 0",
    b"Content-Length: %d" % SIZE,
    b"Host: hidden",
    b"Connection: close",
    b"Upgrade: h2c",
)


def mutations(vectors: list[Vector], number: int, seed: int) -> Iterator[Vector]:
    """`number` vectors with one to three small changes each; the same for the same seed."""
    rng = random.Random(seed)
    for _ in range(number):
        origin = rng.choice(vectors)
        parts = tuple(_mutate(part, rng) for part in origin.parts)
        yield Vector(f"{origin.name}, mutated", parts)


def _mutate(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        if TAG in data[max(0, at - len(TAG)) : at + len(TAG)]:
            continue
        change = rng.randrange(4)
        if change == 0:
            data = data[:at] + rng.choice(_PIECES) + data[at:]
        elif change == 1:
            data = data[:at] + data[at + 1 :]
        elif change == 2:
            data = data[:at] + rng.choice(_PIECES) + data[at + 1 :]
        else:
            data = data.replace(b"\r\n", b"\r\n" + rng.choice(_LINES) + b"\r\n", 1)
    return data
