"""Streams that nobody has thought of: grammars and mutations of smuggling."""

from __future__ import annotations

import random
from collections.abc import Iterator

from hypothesis import strategies as st

from tests.realservers.stream import CHUNKED, END, HIDDEN, SIZE, TAG, Vector

_METHODS = st.sampled_from((b"POST", b"POST", b"GET", b"HEAD", b"PUT", b"OPTIONS", b"post"))
_PATHS = st.sampled_from(
    (b"/public/", b"/public/", b"/public/x/../", b"/public/../secret/", b"/secret/", b"http://a/public/")
)
_VERSIONS = st.sampled_from((b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2"))
_ENDS = st.sampled_from((b"\r\n",) * 8 + (b"\n", b"\r", b"\r\r\n", b"\n\r\n"))
_GAPS = st.sampled_from((b": ",) * 8 + (b":", b" : ", b":\t", b":\x0b", b":\r\n ", b"\x00: "))
_NUMBERS = st.one_of(
    st.sampled_from((0, 1, 3, 5, SIZE, SIZE + 5, len(END), len(END) + SIZE)).map(lambda n: b"%d" % n),
    st.sampled_from((b"+5", b"0x5", b"5, 5", b"-1", b"5 ", b"05", b"4294967301", b"18446744073709551621", b"")),
)
_CODINGS = st.sampled_from(
    (b"chunked",) * 4 + (b"identity", b"chunked, identity", b"x, chunked", b"Chunked", b"chunked\x0b")
)
_HOSTS = st.sampled_from((b"a", b"a", b"hidden", b"a:80", b"a, hidden"))
_OTHERS = st.sampled_from(
    (b"close", b"keep-alive", b"Upgrade", b"Content-Length", b"100-continue", b"websocket", b"h2c", b"gzip", b"y")
)
_FIELDS = st.one_of(
    st.tuples(st.sampled_from((b"Content-Length", b"content-length", b"Content_Length")), _NUMBERS),
    st.tuples(st.sampled_from((b"Transfer-Encoding", b"transfer-encoding", b" Transfer-Encoding")), _CODINGS),
    st.tuples(st.just(b"Host"), _HOSTS),
    st.tuples(st.sampled_from((b"Connection", b"Upgrade", b"Expect", b"TE", b"X", b"Trailer")), _OTHERS),
)
_BODIES = st.lists(
    st.one_of(
        st.sampled_from(
            (HIDDEN, END, b"abc", b"\r\n", b"\n", b"0\r\n", b"5\r\nabcde\r\n", b"5;\nabcde\r\n", b"5;a=b\r\n")
        ),
        st.sampled_from(
            (b"%x\r\n" % SIZE + HIDDEN + b"\r\n", b"100000005\r\nabcde\r\n", b"0\r\nX: y\r\n\r\n", b"0\n\n")
        ),
        st.sampled_from((b"GET ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"0\r\nX:", b"%x\r\n" % (SIZE + 7))),
    ),
    max_size=4,
).map(b"".join)


@st.composite
def _requests(draw: st.DrawFn) -> bytes:
    """A request whose framing fields, line ends and body come from short lists of what is right and what is odd."""
    start: bytes = draw(_METHODS) + b" " + draw(_PATHS) + TAG + b" " + draw(_VERSIONS) + draw(_ENDS)
    host: bytes = draw(st.sampled_from((b"Host: a\r\n",) * 6 + (b"", b"Host: hidden\r\n", b"Host:a\n")))
    fields = draw(st.lists(_FIELDS, max_size=3))
    lines = b"".join(name + draw(_GAPS) + value + draw(_ENDS) for name, value in fields)
    return start + host + lines + draw(_ENDS) + draw(_BODIES)


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
