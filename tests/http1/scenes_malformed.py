"""Dialogues of what is malformed, where a policy is enforced and where none is."""

from __future__ import annotations

from l7proxy.ops import Abort, Close
from parsers.options import HttpOptions
from tests.http1.rig import OK, get
from tests.http1.scene import (
    CHUNKED_OK,
    CHUNKS,
    GET,
    NOTHING,
    SWITCH,
    WITH_CHUNKS,
    WITH_LENGTH,
    Scene,
    no,
    ok,
    said,
    scene,
)

MALFORMED: dict[str, Scene] = {
    # what is malformed
    "malformed": scene(
        ("c", GET + b"GET  /x HTTP/1.1\r\n\r\n" + GET),
        ("s", OK),
        server=GET,
        client=OK + said("400 Bad Request", "the request line is not METHOD target HTTP/1.1"),
        log=[ok(), ("DROPPED", "", "", 400)],
        ended=Close,
    ),
    "the preface of HTTP/2": scene(
        ("c", GET + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("s", OK),
        server=GET,
        client=OK + said("505 HTTP Version Not Supported", "the version is neither HTTP/1.0 nor HTTP/1.1"),
        log=[ok(), ("DROPPED", "", "", 505)],
        ended=Close,
    ),
    "TLS": scene(
        ("c", b"\x16\x03\x01\x02\x00"),
        server=NOTHING,
        client=said("400 Bad Request", "a request cannot begin with byte 0x16"),
        log=[("DROPPED", "", "", 400)],
        ended=Close,
    ),
    "two empty lines": scene(
        ("c", b"\r\n\r\n" + GET),
        server=NOTHING,
        client=said("400 Bad Request", "a request cannot begin with byte 0x0d"),
        log=[("DROPPED", "", "", 400)],
        ended=Close,
    ),
    "FIN within a head": scene(
        ("C", GET[:-2]),
        server=NOTHING,
        client=said("400 Bad Request", "the client ended the connection within a request's head"),
        log=[("DROPPED", "", "", 400)],
        ended=Close,
    ),
    "FIN within a body": scene(
        ("C", WITH_LENGTH + b"hel"),
        server=WITH_LENGTH + b"hel",
        client=said("400 Bad Request", "the client ended the connection within a request's body"),
        log=[ok(method="POST", code=400)],
        ended=Close,
    ),
    "FIN within chunks": scene(
        ("C", WITH_CHUNKS + CHUNKS[:-2]),
        server=WITH_CHUNKS + CHUNKS[:-7],
        client=said("400 Bad Request", "the client ended the connection within a request's body"),
        log=[ok(method="POST", code=400)],
        ended=Close,
    ),
    "FIN within a body that was answered": scene(
        ("c", WITH_LENGTH),
        ("s", OK),
        ("C", b"hel"),
        ("S", NOTHING),
        server=WITH_LENGTH + b"hel",
        client=OK,
        log=[ok(method="POST")],
        ended=Close,
    ),
    "bad chunks": scene(
        ("c", WITH_CHUNKS + b"5;\nhello\r\n0\r\n\r\n"),
        server=WITH_CHUNKS,
        client=said("400 Bad Request", "a malformed chunk line"),
        log=[ok(method="POST", code=400)],
        ended=Close,
    ),
    "bad chunks behind the answer": scene(
        ("c", WITH_CHUNKS),
        ("s", OK),
        ("c", b"100000003\r\nabc"),
        server=WITH_CHUNKS,
        client=OK,
        log=[ok(method="POST")],
        ended=Abort,
    ),
    "too large a head": scene(
        ("c", get("/public/x", "X: " + "y" * 300)),
        server=NOTHING,
        client=said("431 Request Header Fields Too Large", "the head is longer than 256 bytes"),
        log=[("DROPPED", "", "", 431)],
        ended=Close,
        options=HttpOptions(max_head=256),
    ),
    "too many fields": scene(
        ("c", get("/public/x", "X: y", "X: y", "X: y")),
        server=NOTHING,
        client=said("431 Request Header Fields Too Large", "more than 3 header fields"),
        log=[no("/public/x", code=431)],
        ended=Close,
        options=HttpOptions(max_headers=3),
    ),
    "a malformed response": scene(
        ("c", GET * 2),
        ("s", OK + b"HTTP/1.1 200 OK\nX: y\r\n\r\n"),
        server=GET * 2,
        client=OK + said("502 Bad Gateway", "malformed response: a bare LF in its head"),
        log=[ok(), ok(code=502)],
        ended=Close,
    ),
    "no response at all": scene(
        ("c", GET),
        ("s", b"SSH-2.0-x\r\n"),
        server=GET,
        client=said("502 Bad Gateway", "the server's answer does not begin with HTTP/1"),
        log=[ok(code=502)],
        ended=Close,
    ),
    "a response cut short in its head": scene(
        ("c", GET),
        ("S", OK[:20]),
        server=GET,
        client=said("502 Bad Gateway", "the server ended the connection within a response's head"),
        log=[ok(code=502)],
        ended=Close,
    ),
    "a response cut short in its body": scene(
        ("c", GET), ("S", OK[:-1]), server=GET, client=OK[:-1], log=[ok()], ended=Abort
    ),
    "a chunked response cut short": scene(
        ("c", GET), ("S", CHUNKED_OK[:-2]), server=GET, client=CHUNKED_OK[:-13], log=[ok()], ended=Abort
    ),
    "bad chunks in a response": scene(
        ("c", GET),
        ("s", CHUNKED_OK.replace(b"2\r\nbc", b"+2\r\nbc")),
        server=GET,
        client=CHUNKED_OK[: CHUNKED_OK.index(b"\r\n2\r\nbc")],
        log=[ok()],
        ended=Abort,
    ),
    "a response that nobody asked for": scene(
        ("c", GET), ("s", OK + OK), server=GET, client=OK, log=[ok()], ended=Abort
    ),
    # where nothing is enforced
    "audit: malformed is tunnelled": scene(
        ("c", GET + b"\x16\x03\x01"),
        ("s", OK + b"any"),
        ("c", b"thing"),
        ("S", b"at all"),
        server=GET + b"\x16\x03\x01thing",
        client=OK + b"anyat all",
        log=[("AUDIT", "", "", 0), ok()],
        audit_only=True,
    ),
    "audit: h2c is tunnelled": scene(
        ("c", get("/public/x", "Upgrade: h2c") + b"x"),
        ("s", SWITCH),
        server=get("/public/x", "Upgrade: h2c") + b"x",
        client=SWITCH,
        log=[("AUDIT", "GET", "/public/x", 0)],
        audit_only=True,
    ),
    "audit: bad chunks": scene(
        ("c", WITH_CHUNKS + b"5;\nhello"),
        ("s", OK),
        server=WITH_CHUNKS + b"5;\nhello",
        client=OK,
        log=[("AUDIT", "", "", 0), ok(method="POST")],
        audit_only=True,
    ),
    "audit: a malformed response": scene(
        ("c", GET),
        ("s", b"HTTP/1.1 200 OK\n\nx"),
        ("c", b"y"),
        server=GET + b"y",
        client=b"HTTP/1.1 200 OK\n\nx",
        log=[("AUDIT", "GET", "/public/x", 0)],
        audit_only=True,
    ),
}
