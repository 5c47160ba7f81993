"""Streams whose first line, target, host or protocol servers resolve in different ways."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.realservers.stream import HIDDEN, SIZE, TAG, Vector, length, request, vector

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_PATHS = """
/secret/@  /%73ecret/@  //secret/@  /./secret/@  /secret/../secret/@  /secret;x/@  /secret%2f@  /secret%00/@
//public/secret/@  //public/../secret/@  /public/..;/secret/@  /public/..;x=y/secret/@  /public;/../secret/@
/public/../secret/@  /public/%2e%2e/secret/@  /public/.%2e/secret/@  /public/%2E./secret/@  /public/./../secret/@
/public/x/../../secret/@  /public//../secret/@  /public/x//../../secret/@  /public/../../secret/@
/public%2f..%2fsecret/@  /public/..%2fsecret/@  /public%2f../secret/@  /public/..%2Fsecret/@
/public/..%5csecret/@  /public%5c..%5csecret/@  /public\\..\\secret/@  /public/..\\secret/@  /public\\../secret/@
/public/%00/../../secret/@  /secret/@%00/public/  /public/../secret/@%00.png  /public/..%00/secret/@
/public/#/../../secret/@  /public/../secret/@#/public/  /public/..#/secret/@  /public/../secret/@?/public/
/public/%u002e%u002e/secret/@  /public/..%u2215secret/@  /public/%252e%252e/secret/@  /public/..%252fsecret/@
/public/%25252e%25252e/secret/@  /public/%c0%ae%c0%ae/secret/@  /public/..%c0%afsecret/@  /public/..%ef%bc%8fsecret/@
/public/%2e%2e%2fsecret/@  /public/.%00./secret/@  /public/..%0d%0a/secret/@  /public/..%09/secret/@
/public/%zz/../secret/@  /public/../secret/@/..;/../public/x  /..;/secret/@
/.;/secret/@  secret/@  public/../secret/@  ?/public/../secret/@
http://a/secret/@  http://a/public/../secret/@  HTTP://a/secret/@  https://a/secret/@  http://a//secret/@
http:/secret/@  http:///secret/@  //a/secret/@  a:80/secret/@  ftp://a/secret/@  http://a\\secret/@
http://hidden/public/@  http://hidden@a/public/@  http://a@hidden/public/@  http://a:81/public/@  http://a#@hidden/public/@
"""


def all_targets() -> list[Vector]:
    """Every vector of this file."""
    parts = (paths(), hosts(), start_lines(), upgrades())
    return [made for part in parts for made in part]


def paths() -> Iterator[Vector]:
    """Targets that hide their meaning; `@` is the tag."""
    raw = [path.encode().replace(b"@", TAG, 1) for path in _PATHS.split()]
    raw += [b"/public/..\xc0\xafsecret/" + TAG, b"/public/..\x01/secret/" + TAG, b"/public/..\xff/secret/" + TAG]
    for path in raw:
        start = b"GET " + path + b" HTTP/1.1"
        yield vector(f"path {path.replace(TAG, b'').decode('latin-1')!r}", request(start=start))


def hosts() -> Iterator[Vector]:
    """Two opinions on the host, of which ``a`` is allowed and ``hidden`` is not."""
    get = b"GET /public/" + TAG + b" HTTP/1.1\r\n"
    absolute = b"GET http://a/public/" + TAG + b" HTTP/1.1\r\n"
    lines = [
        b"Host: hidden",
        b"Host: a\r\nHost: hidden",
        b"Host: hidden\r\nHost: a",
        b"Host: a\r\n hidden",
        b"Host:\r\n hidden",
    ]
    lines += [
        b"Host: a\r\n@hidden",
        b"Host: a, hidden",
        b"Host: hidden@a",
        b"Host: a@hidden",
        b"Host: a/hidden",
        b"Host: a hidden",
    ]
    lines += [
        b"Host : hidden",
        b"Host\x0b: hidden\r\nHost: a",
        b"Host: a\x00hidden",
        b"Host: a#hidden",
        b"Host: hidden#a",
    ]
    lines += [
        b"X: y\rHost: hidden\r\nHost: a",
        b"X: y\nHost: hidden\r\nHost: a",
        b"Host: a\r\n\tHost: hidden",
        b"Host: a\\hidden",
    ]
    lines += [b"Host: a\r\nX-Forwarded-Host: hidden\r\nHost : hidden", b"Host: a:80:hidden", b"Host: a?hidden", b"X: y"]
    for line in lines:
        yield vector(f"host {line!r}", get + line + b"\r\n\r\n")
    for line in (b"Host: hidden", b"Host: a\r\nHost: hidden", b"Host: a:80", b"Host:"):
        yield vector(f"absolute form, host {line!r}", absolute + line + b"\r\n\r\n")


def start_lines() -> Iterator[Vector]:
    """First lines that are no HTTP/1.1 request line."""
    public, secret = b"/public/" + TAG, b"/secret/" + TAG
    lines = [b"GET " + public + b" " + secret + b" HTTP/1.1", b"GET " + secret + b" HTTP/1.1 " + public + b" HTTP/1.1"]
    lines += [b"GET\t" + secret + b" HTTP/1.1", b"GET  " + secret + b" HTTP/1.1", b" GET " + secret + b" HTTP/1.1"]
    lines += [
        b"GET " + secret,
        b"GET " + secret + b" HTTP/0.9",
        b"GET " + secret + b" HTTP/1.2",
        b"get " + secret + b" HTTP/1.1",
    ]
    lines += [b"GET " + secret + b" HTTP/2.0", b"GET " + secret + b" HTTP/1.1 ", b"GET " + secret + b" http/1.1"]
    lines += [b"GET " + secret + b" HTTP/01.1", b"GET " + secret + b" HTTP/1.1\x00", b"GET " + secret + b" HTTP/1.1\r"]
    lines += [
        b"G\x00ET " + secret + b" HTTP/1.1",
        b"GET\x0b" + secret + b" HTTP/1.1",
        b"GET " + secret + b"\x0bHTTP/1.1",
    ]
    lines += [
        b"DELETE " + public + b" HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"CONNECT a:80 HTTP/1.1",
        b"TRACE " + public + b" HTTP/1.1",
    ]
    lines += [b"POST " + secret + b" HTTP/1.1", b"HEAD " + secret + b" HTTP/1.1", b"GET " + public + b"\rHTTP/1.1"]
    for line in lines:
        yield vector(f"line {line.replace(TAG, b'')!r}", request(start=line))
        yield vector(f"line {line.replace(TAG, b'')!r} behind a request", request(length(0), body=request(start=line)))
    for blank in (b"\r\n", b"\n", b"\r\n\r\n", b"\r", b" \r\n", b"\x00"):
        yield vector(f"{blank!r} before a request", blank + HIDDEN)
        yield vector(f"{blank!r} between two", request(length(0), body=blank + HIDDEN))
    yield vector("override", request(b"X-HTTP-Method-Override: DELETE", length(SIZE), body=HIDDEN), legal=True)
    yield vector("0.9 behind a request", request(length(0), body=b"GET " + secret + b"\r\n\r\n"))


def upgrades() -> Iterator[Vector]:
    """Other protocols: bytes that are a tunnel to one side and requests to the other."""
    get = b"GET /public/" + TAG + b" HTTP/1.1"
    web = (
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )
    h2c = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")
    frames = PREFACE + frame(4, 0, 0, b"") + frame(1, 5, 3, header_block())
    yield vector("websocket that is ignored", request(*web, start=get), HIDDEN)
    yield vector("websocket that is ignored, at once", request(*web, start=get, body=HIDDEN))
    yield vector("websocket without a key", request(*web[:2], start=get), HIDDEN)
    yield vector("websocket and h2c", request(b"Upgrade: websocket, h2c", *h2c, start=get), frames)
    yield vector("h2c", request(*h2c, start=get), frames)
    yield vector("h2c, at once", request(*h2c, start=get, body=frames))
    yield vector("h2c that Connection does not name", request(*h2c[1:], start=get), frames)
    yield vector("H2C", request(h2c[0], b"Upgrade: H2C", h2c[2], start=get), frames)
    yield vector("TLS", request(b"Connection: upgrade", b"Upgrade: TLS/1.0", start=get), HIDDEN)
    one = PREFACE + frame(4, 0, 0, b"") + frame(1, 5, 1, header_block())
    yield vector("preface", one)
    yield vector("preface behind a request", request(start=get, body=one))
    yield vector("preface behind an answer", request(start=get), one)
    yield vector("half a preface", PREFACE[:18] + HIDDEN)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def header_block() -> bytes:
    """GET /secret/TAG in HPACK: :method GET, :scheme http, :path and :authority as literals that are not indexed."""
    path = b"/secret/" + TAG
    return b"\x82\x86\x04" + bytes((len(path),)) + path + b"\x01\x01a"
