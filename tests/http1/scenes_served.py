"""Dialogues of what passes, and of how responses end."""

from __future__ import annotations

from l7proxy.ops import Close
from parsers.options import HttpOptions
from tests.http1.rig import DENIED, OK, get
from tests.http1.scene import (
    BODY,
    CHUNKED_OK,
    CHUNKS,
    CONTINUE,
    GET,
    HEAD_OK,
    LENGTH,
    NOTHING,
    OLD_OK,
    WITH_CHUNKS,
    WITH_LENGTH,
    Scene,
    no,
    ok,
    scene,
)

SERVED: dict[str, Scene] = {
    # what passes
    "a GET": scene(("c", GET), ("s", OK), server=GET, client=OK, log=[ok()]),
    "two, one by one": scene(
        ("c", GET), ("s", OK), ("c", GET), ("s", OK), server=GET * 2, client=OK * 2, log=[ok()] * 2
    ),
    "two at once": scene(("c", GET * 2), ("s", OK * 2), server=GET * 2, client=OK * 2, log=[ok()] * 2),
    "a body of known length": scene(
        ("c", WITH_LENGTH + BODY + GET),
        ("s", OK * 2),
        server=WITH_LENGTH + BODY + GET,
        client=OK * 2,
        log=[ok(method="POST"), ok()],
    ),
    "a chunked body": scene(
        ("c", WITH_CHUNKS + CHUNKS + GET),
        ("s", OK * 2),
        server=WITH_CHUNKS + CHUNKS + GET,
        client=OK * 2,
        log=[ok(method="POST"), ok()],
    ),
    "extensions and trailers": scene(
        ("c", WITH_CHUNKS + b'1;a="b"\r\nx\r\n0;c\r\nX: GET /secret HTTP/1.0\r\n\r\n' + GET),
        ("s", OK * 2),
        server=WITH_CHUNKS + b'1;a="b"\r\nx\r\n0;c\r\nX: GET /secret HTTP/1.0\r\n\r\n' + GET,
        client=OK * 2,
        log=[ok(method="POST"), ok()],
    ),
    "an audited request": scene(
        ("c", get("/audit")), ("s", OK), server=get("/audit"), client=OK, log=[ok("/audit", verdict="AUDIT")]
    ),
    "OPTIONS *": scene(("c", get("*", method="OPTIONS")), server=NOTHING, client=DENIED, log=[no("*", "OPTIONS")]),
    "absolute form": scene(
        ("c", get("http://a/public/x")),
        ("s", OK),
        server=get("http://a/public/x"),
        client=OK,
        log=[ok("http://a/public/x")],
    ),
    "an empty line before a request": scene(
        ("c", b"\r\n" + GET + b"\r\n" + GET), ("s", OK * 2), server=GET * 2, client=OK * 2, log=[ok()] * 2
    ),
    "HTTP/1.0": scene(
        ("c", get(version="1.0") + GET),
        ("S", OLD_OK),
        server=get(version="1.0"),
        client=OLD_OK,
        log=[ok()],
        ended=Close,
    ),
    "HTTP/1.0 that is kept": scene(
        ("c", get("/public/x", "Connection: Keep-Alive", version="1.0") + GET),
        ("s", OK * 2),
        server=get("/public/x", "Connection: Keep-Alive", version="1.0") + GET,
        client=OK * 2,
        log=[ok()] * 2,
    ),
    "nothing behind close": scene(
        ("c", get("/public/x", "Connection: x, close") + GET),
        ("s", OK),
        server=get("/public/x", "Connection: x, close"),
        client=OK,
        log=[ok()],
    ),
    "nothing behind close with a body": scene(
        ("c", get("/public/x", "Connection: close", LENGTH) + BODY + GET),
        ("s", OK),
        server=get("/public/x", "Connection: close", LENGTH) + BODY,
        client=OK,
        log=[ok()],
    ),
    # responses
    "HEAD": scene(
        ("c", get(method="HEAD") + GET),
        ("s", HEAD_OK + OK),
        server=get(method="HEAD") + GET,
        client=HEAD_OK + OK,
        log=[ok(method="HEAD"), ok()],
    ),
    "204 and 304": scene(
        ("c", GET * 3),
        ("s", b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 304 \r\nContent-Length: 9\r\n\r\n" + OK),
        server=GET * 3,
        client=b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 304 \r\nContent-Length: 9\r\n\r\n" + OK,
        log=[ok(code=204), ok(code=304), ok()],
    ),
    "a chunked response": scene(
        ("c", GET * 2), ("s", CHUNKED_OK + OK), server=GET * 2, client=CHUNKED_OK + OK, log=[ok()] * 2
    ),
    "gzip, chunked": scene(
        ("c", GET),
        ("s", CHUNKED_OK.replace(b": chunked", b": gzip, chunked")),
        server=GET,
        client=CHUNKED_OK.replace(b": chunked", b": gzip, chunked"),
        log=[ok()],
    ),
    "a response that ends with the connection": scene(
        ("c", GET),
        ("s", OLD_OK),
        ("S", b" and more"),
        server=GET,
        client=OLD_OK + b" and more",
        log=[ok()],
        ended=Close,
    ),
    "no length, no body": scene(
        ("c", GET),
        ("s", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"),
        server=GET,
        client=b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        log=[ok()],
    ),
    "100, 103, 100, 200": scene(
        ("c", GET * 2),
        ("s", CONTINUE + b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + CONTINUE + OK * 2),
        server=GET * 2,
        client=CONTINUE + b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + CONTINUE + OK * 2,
        log=[ok()] * 2,
    ),
    "the server just ends": scene(
        ("c", GET), ("S", NOTHING), server=GET, client=NOTHING, log=[ok(code=0)], ended=Close
    ),
    "the client ends, the server answers": scene(("C", GET), ("s", OK), server=GET, client=OK, log=[ok()]),
    "an early answer": scene(
        ("c", WITH_LENGTH),
        ("s", OK),
        ("c", BODY + GET),
        ("s", OK),
        server=WITH_LENGTH + BODY + GET,
        client=OK * 2,
        log=[ok(method="POST"), ok()],
    ),
    "an early answer, refused": scene(
        ("c", WITH_LENGTH + b"h"),
        ("s", OK),
        ("c", b"ello" + GET),
        server=WITH_LENGTH + b"h",
        client=OK,
        log=[ok(method="POST")],
        ended=Close,
        options=HttpOptions(refuse_early_answer=True),
    ),
    "an early answer to chunks, refused": scene(
        ("c", WITH_CHUNKS + b"5\r\nh"),
        ("s", OK),
        ("c", b"ello\r\n0\r\n\r\n"),
        server=WITH_CHUNKS + b"5\r\nh",
        client=OK,
        log=[ok(method="POST")],
        ended=Close,
        options=HttpOptions(refuse_early_answer=True),
    ),
    "an answer in time": scene(
        ("c", WITH_CHUNKS + CHUNKS + WITH_LENGTH + BODY),
        ("s", OK * 2),
        server=WITH_CHUNKS + CHUNKS + WITH_LENGTH + BODY,
        client=OK * 2,
        log=[ok(method="POST")] * 2,
        options=HttpOptions(refuse_early_answer=True),
    ),
}
