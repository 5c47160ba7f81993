"""Streams whose framing two servers may read in two ways."""

from __future__ import annotations

from collections.abc import Iterator

from tests.realservers.stream import CHUNKED, END, HIDDEN, SIZE, TAG, Vector, length, request, vector

FULL = END + HIDDEN
"""The end of a chunked body and a request behind it; to a reader of lengths, a body."""


def all_framing() -> list[Vector]:
    """Every vector of this file."""
    parts = (chunk_sizes(), chunk_lines(), lengths(), lengths_with_codings(), codings(), names(), line_ends(), bodies())
    return [made for part in parts for made in part]


def chunk_sizes() -> Iterator[Vector]:
    """Sizes that wrap, or that only some numeric conversions accept."""
    for size in (b"100000003", b"10000000000000003", b"ffffffff00000003", b"fffffffffffffffd", b"ffffffffffffffff"):
        yield vector(f"chunk size {size.decode()}", request(CHUNKED, body=size + b"\r\nabc\r\n" + FULL))
    for size in (b"+3", b"-3", b"0x3", b"0_3", b" 3", b"\t3", b"3 ", b"3\t", b"3g", b"", b"\xb3", b"3.0", b"3\x00"):
        yield vector(f"chunk size {size!r}", request(CHUNKED, body=size + b"\r\nabc\r\n" + FULL))
    many = b"0" * 300 + b"3\r\nabc\r\n" + FULL
    yield vector("chunk size of 300 zeros", request(CHUNKED, body=many))
    yield vector("chunk without CRLF behind data", request(CHUNKED, body=b"3\r\nabc" + FULL))
    yield vector("chunk with other bytes behind data", request(CHUNKED, body=b"3\r\nabcXX" + FULL))
    yield vector("chunk prefix 0x with length", request(length(len(FULL) + 4), CHUNKED, body=b"0x0\r\n" + FULL))


def chunk_lines() -> Iterator[Vector]:
    """Line ends and extensions between chunks."""
    size = len(FULL)
    hides = b"%x;\n" % size + b"x" * size + b"\r\n" + FULL + b"\r\n" + END
    yield vector("extension ends at a bare LF", request(CHUNKED, body=hides))
    tail = b"\r\n%02x" % size
    body = b"y" * 60 + tail
    hides = b"%x;\naa\r\n" % len(body) + body + b"\r\n" + FULL + b"\r\n" + END
    yield vector("extension goes on behind a bare LF", request(CHUNKED, body=hides))
    for name, line in (("LF", b"3\nabc\r\n"), ("CR", b"3\rabc\r\n"), ("CRCRLF", b"3\r\r\nabc\r\n")):
        yield vector(f"chunk line ended by {name}", request(CHUNKED, body=line + FULL))
    for name, end in (("LF", b"\n"), ("CR", b"\r"), ("nothing", b""), ("LFLF", b"\n\n"), ("CRCR", b"\r\r")):
        yield vector(f"chunk data ended by {name}", request(CHUNKED, body=b"3\r\nabc" + end + FULL))
    for ends in (
        b"0\n\n",
        b"0\r\n\n",
        b"0\n\r\n",
        b"0\r\n\r",
        b"0\r\nX: y\n\r\n",
        b"0\r\nX: y\r\n\n",
        b"0\r\nX: y\r\r\n\r\n",
    ):
        yield vector(f"last chunk {ends!r}", request(CHUNKED, body=ends + HIDDEN))
    for extension in (b";a\rb", b";a\x00b", b";\x0b", b";\x7f", b';a="\r\n"', b';a="\n"', b"\r"):
        yield vector(f"chunk extension {extension!r}", request(CHUNKED, body=b"3" + extension + b"\r\nabc\r\n" + FULL))
    trailer = b"0\r\nX:GET /secret/" + TAG + b" HTTP/1.0\r\n\r\n"
    yield vector("trailer that is a request", request(CHUNKED, body=trailer), legal=True)
    for trailer in (b"Content-Length: %d" % SIZE, CHUNKED, b" folded", b"no colon", b"X : y", b"Host: hidden"):
        yield vector(f"trailer {trailer!r}", request(CHUNKED, body=b"0\r\n" + trailer + b"\r\n\r\n" + HIDDEN))


def lengths() -> Iterator[Vector]:
    """Content-Length that wraps, repeats or is no number."""
    for value in (2**64 + 3, 2**32 + 3, 2**63, 2**64 - 1, 10**40):
        made = request(length(value), body=b"abc" + HIDDEN)
        yield vector(f"length {value}", made, legal=value < 2**63)  # a body of 4 GiB is nothing odd
    for value, body in ((SIZE, HIDDEN), (3, b"abc" + HIDDEN)):
        for odd in _odd_numbers(value):
            yield vector(f"length {odd!r}", request(b"Content-Length: " + odd, body=body))
    for first, second in ((0, SIZE), (SIZE, 0), (SIZE, SIZE)):
        yield vector(f"lengths {first} and {second}", request(length(first), length(second), body=HIDDEN))
    yield vector("lengths with another case", request(length(SIZE), b"content-length: 0", body=HIDDEN))


def _odd_numbers(value: int) -> Iterator[bytes]:
    """A number as it is not written in a Content-Length, though some readers take it."""
    plain = b"%d" % value
    yield from (
        b"+" + plain,
        b"-" + plain,
        b"0_" + plain,
        b"0x%x" % value,
        b"0o%o" % value,
        plain + b".0",
        plain + b"a",
    )
    yield from (
        b"0 " + plain,
        plain + b" 0",
        plain + b", 0",
        b"0, " + plain,
        plain + b"," + plain,
        plain + b";a",
        b"-0",
    )
    yield from (plain + b"\x0b", b"\x0c" + plain, b'"' + plain + b'"', plain + b"\x00", plain + b"e0", b"\xb2", b"")


def lengths_with_codings() -> Iterator[Vector]:
    """Content-Length together with Transfer-Encoding, and codings in HTTP/1.0."""
    yield vector("length before coding", request(length(len(FULL)), CHUNKED, body=FULL))
    yield vector("coding before length", request(CHUNKED, length(len(FULL)), body=FULL))
    head = b"%x\r\n" % SIZE
    yield vector(
        "length of the first chunk line", request(length(len(head)), CHUNKED, body=head + HIDDEN + b"\r\n" + END)
    )
    old = b"POST /public/" + TAG + b" HTTP/1.0"
    keep = b"Connection: keep-alive"
    yield vector("coding in 1.0", request(keep, CHUNKED, body=FULL, start=old))
    yield vector("coding with length in 1.0", request(keep, length(len(FULL)), CHUNKED, body=FULL, start=old))
    short = request(keep, length(3), CHUNKED, body=b"%x\r\n" % (SIZE + 40) + HIDDEN, start=old)
    yield vector("coding with a short length in 1.0", short)


def codings() -> Iterator[Vector]:
    """Transfer-Encoding that is not a single final ``chunked``, with a length for those who do not see it."""
    twice = [(b"identity", b"chunked"), (b"cow", b"chunked"), (b"chunked", b"identity"), (b"chunked", b"chunked")]
    for first, second in twice:
        lines = (b"Transfer-Encoding: " + first, b"Transfer-Encoding: " + second)
        yield vector(f"codings {first!r} and {second!r}", request(*lines, body=FULL))
        yield vector(f"codings {first!r} and {second!r} with length", request(*lines, length(len(FULL)), body=FULL))
    values = [b"identity", b"gzip, chunked", b"chunked, gzip", b"identity, chunked", b"chunked, identity", b"xchunked"]
    values += [b"chunked, chunked", b'"chunked"', b"chunked;q=1", b"chunked,", b",chunked", b"chunke", b"\x0bchunked"]
    values += [b"\x0cchunked", b"chunked\x0b", b"\x00chunked", b"chunked\x00", b"\xa0chunked", b"chun\x00ked", b""]
    values += [
        b"\x85chunked",
        b"chunked\r\n ",
        b"\r\n chunked",
        b"chunked\r\n , identity",
        b"x\rchunked",
        b"ch\xe9nked",
    ]
    for value in values:
        line = b"Transfer-Encoding: " + value
        yield vector(f"coding {value!r}", request(line, body=FULL))
        yield vector(f"coding {value!r} with length", request(line, length(len(FULL)), body=FULL))
    for glued in (b"Transfer-Encoding:chunked", b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding:\tchunked"):
        yield vector(f"line {glued!r} with length", request(glued, length(len(FULL)), body=FULL))


def names() -> Iterator[Vector]:
    """Names that only some readers take for a framing field: what they do not see is a body to one, a request to
    another."""
    spaces = (b" ", b"\t", b"\x0b", b"\x0c", b"\x00", b"\xa0", b"\r", b"\r\n ", b"\x1f")
    for space in spaces:
        line = b"Transfer-Encoding" + space + b": chunked"
        yield vector(f"name {line!r} with length", request(line, length(len(FULL)), body=FULL))
        yield vector(
            f"length{space!r} before the colon", request(b"Content-Length" + space + b": %d" % SIZE, body=HIDDEN)
        )
    for line in (b"Transfer_Encoding: chunked", b" Transfer-Encoding: chunked", b"\tTransfer-Encoding: chunked"):
        yield vector(f"name {line!r} with length", request(line, length(len(FULL)), body=FULL))
        yield vector(f"name {line!r}", request(line, body=FULL))
    for line in (b"Content_Length: %d", b" Content-Length: %d", b"Content Length: %d", b"\xefContent-Length: %d"):
        yield vector(f"name {line!r}", request(line % SIZE, body=HIDDEN))
        yield vector(f"name {line!r} first", request(b"X: y", line % SIZE, body=HIDDEN))
    for line in (b"no colon at all", b": empty name", b"X\x00: y", b"X: a\x00b", b"X@: y", b"X: \x7f"):
        yield vector(f"line {line!r}", request(line, length(SIZE), body=HIDDEN))


def line_ends() -> Iterator[Vector]:
    """Bare CR, bare LF and folded lines around a framing field."""
    for end in (b"\r", b"\n", b"\r\r\n", b"\n\r"):
        yield vector(f"length behind {end!r}", request(b"X: y" + end + length(SIZE), body=HIDDEN))
        line = b"X: y" + end + CHUNKED
        yield vector(f"coding behind {end!r} with length", request(line, length(len(FULL)), body=FULL))
        yield vector(f"length before {end!r}", request(length(0) + end + length(SIZE), body=HIDDEN))
    for line in (
        b"Content-Length:\r\n %d",
        b"Content-Length: 0\r\n %d",
        b"Content-Length:\r\n\t%d",
        b"X: y\r\n Content-Length: %d",
    ):
        yield vector(f"folded {line!r}", request(line % SIZE, body=HIDDEN))
    yield vector("folded length with its rest", request(b"Content-Length: %d\r\n 0" % SIZE, body=HIDDEN))
    start = b"POST /public/" + TAG + b" HTTP/1.1"
    for blank in (b"\n\n", b"\r\n\n", b"\n\r\n", b"\r\r", b"\r\n\r"):
        early = start + b"\r\nHost: a" + blank + b"Content-Length: %d\r\n\r\n" % SIZE + HIDDEN
        yield vector(f"head ended by {blank!r}", early)


def bodies() -> Iterator[Vector]:
    """Bodies where some servers expect none, expectations, and what stands behind a request that ends all."""
    for method in (b"GET", b"HEAD"):
        start = method + b" /public/" + TAG + b" HTTP/1.1"
        made = request(length(SIZE), body=HIDDEN, start=start)
        yield vector(f"{method.decode()} with a body", made, legal=True)
        chunked = request(CHUNKED, body=b"%x\r\n" % SIZE + HIDDEN + b"\r\n" + END, start=start)
        yield vector(f"{method.decode()} with a chunked body", chunked, legal=True)
    yield vector("chunked body", request(CHUNKED, body=b"%x\r\n" % SIZE + HIDDEN + b"\r\n" + END), legal=True)
    yield vector("body", request(length(SIZE), body=HIDDEN), legal=True)
    for value in (b"x", b"100-continue, 100-continue", b"100-continue, x", b"", b"100-continue\x0b", b"200-ok"):
        yield vector(f"expect {value!r}", request(b"Expect: " + value, length(SIZE), body=HIDDEN))
        yield vector(f"expect {value!r} in two parts", request(b"Expect: " + value, length(SIZE)), HIDDEN)
    yield vector("expect", request(b"Expect: 100-continue", length(SIZE)), HIDDEN, legal=True)
    yield vector("expect twice", request(b"Expect: 100-continue", b"Expect: 100-continue", length(SIZE)), HIDDEN)
    yield vector("close, then a request", request(b"Connection: close", length(0), body=HIDDEN))
    yield vector("1.0, then a request", request(length(0), body=HIDDEN, start=b"POST /public/" + TAG + b" HTTP/1.0"))
    for connection in (b"close, Content-Length", b"Content-Length", b"Transfer-Encoding", b"Host, keep-alive"):
        lines = (b"Connection: " + connection, length(SIZE))
        yield vector(f"connection names {connection!r}", request(*lines, body=HIDDEN), legal=True)
    yield vector("1,000 fields", request(*(b"X%d: y" % n for n in range(1000)), length(SIZE), body=HIDDEN))
    yield vector("a field of 100 KB", request(b"X: " + b"y" * 100_000, length(SIZE), body=HIDDEN))
