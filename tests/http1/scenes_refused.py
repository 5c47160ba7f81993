"""Dialogues of what policy refuses, of Expect, and of Upgrade."""

from __future__ import annotations

from l7proxy.ops import Close
from parsers.options import HttpOptions
from tests.http1.rig import DENIED, DENIED_LAST, OK, get
from tests.http1.scene import (
    BODY,
    CHUNKS,
    CODED,
    CONTINUE,
    GET,
    LENGTH,
    NOTHING,
    SWITCH,
    WEB,
    Scene,
    no,
    ok,
    said,
    scene,
)

REFUSED: dict[str, Scene] = {
    # what is refused by policy
    "a refused GET": scene(("c", get("/secret")), server=NOTHING, client=DENIED, log=[no()]),
    "with the policy's words": scene(
        ("c", get("/worded")),
        server=NOTHING,
        client=b"HTTP/1.1 403 Forbidden\r\nContent-Length: 15\r\nContent-Type: text/plain\r\n\r\nAsk the owner\r\n",
        log=[no("/worded")],
    ),
    "a refused HEAD": scene(
        ("c", get("/secret", method="HEAD") + GET),
        ("s", OK),
        server=GET,
        client=DENIED[:-15] + OK,
        log=[no(method="HEAD"), ok()],
    ),
    "refused between allowed": scene(
        ("c", GET + get("/secret") + GET),
        ("s", OK),
        ("s", OK),
        server=GET * 2,
        client=OK + DENIED + OK,
        log=[ok(), no(), ok()],
    ),
    "refused, small body": scene(
        ("c", get("/secret", LENGTH, method="PUT") + BODY + GET),
        ("s", OK),
        server=GET,
        client=DENIED + OK,
        log=[no(method="PUT"), ok()],
    ),
    "refused, chunked body": scene(
        ("c", get("/secret", CODED, method="PUT") + CHUNKS + GET),
        ("s", OK),
        server=GET,
        client=DENIED + OK,
        log=[no(method="PUT"), ok()],
    ),
    "refused, large body": scene(
        ("c", get("/secret", "Content-Length: 99", method="PUT") + GET),
        server=NOTHING,
        client=DENIED_LAST,
        log=[no(method="PUT")],
        ended=Close,
        options=HttpOptions(drain_body=98),
    ),
    "refused, many chunks": scene(
        ("c", get("/secret", CODED, method="PUT") + CHUNKS + GET),
        server=NOTHING,
        client=DENIED,
        log=[no(method="PUT")],
        ended=Close,
        options=HttpOptions(drain_body=20),
    ),
    "refused, bad chunks": scene(
        ("c", get("/secret", CODED, method="PUT") + b"x\r\n" + GET),
        server=NOTHING,
        client=DENIED,
        log=[no(method="PUT")],
        ended=Close,
    ),
    "refused with Expect": scene(
        ("c", get("/secret", LENGTH, "Expect: 100-continue") + GET),
        server=NOTHING,
        client=DENIED_LAST,
        log=[no()],
        ended=Close,
    ),
    "refused with close": scene(
        ("c", get("/secret", "Connection: close") + GET), server=NOTHING, client=DENIED_LAST, log=[no()], ended=Close
    ),
    "refused in HTTP/1.0": scene(
        ("c", get("/secret", "Connection: keep-alive", version="1.0") + GET),
        server=NOTHING,
        client=DENIED_LAST,
        log=[no()],
        ended=Close,
    ),
    "refused websocket": scene(
        ("c", get("/secret", *WEB) + GET), server=NOTHING, client=DENIED_LAST, log=[no()], ended=Close
    ),
    "refused with close, behind others": scene(
        ("c", GET + get("/secret", "Connection: close")),
        ("s", OK),
        server=GET,
        client=OK + DENIED_LAST,
        log=[ok(), no()],
        ended=Close,
    ),
    "FIN within a refused body": scene(
        ("C", get("/secret", LENGTH, method="PUT") + b"hel"), server=NOTHING, client=DENIED, log=[no(method="PUT")]
    ),
    # Expect and Upgrade
    "Expect: 100-continue": scene(
        ("c", get("/public/x", LENGTH, "Expect: 100-Continue")),
        ("s", CONTINUE),
        ("c", BODY),
        ("s", OK),
        server=get("/public/x", LENGTH, "Expect: 100-Continue") + BODY,
        client=CONTINUE + OK,
        log=[ok()],
    ),
    "Expect: x": scene(
        ("c", get("/public/x", LENGTH, "Expect: x") + BODY),
        server=NOTHING,
        client=said("417 Expectation Failed", "Expect other than 100-continue"),
        log=[no("/public/x", code=417)],
        ended=Close,
    ),
    "websocket": scene(
        ("c", get("/public/x", *WEB) + b"\x81\x00"),
        ("s", SWITCH + b"\x81\x01a"),
        ("c", b"GET /secret HTTP/1.1\r\n\r\n"),
        ("S", b"end"),
        server=get("/public/x", *WEB) + b"\x81\x00GET /secret HTTP/1.1\r\n\r\n",
        client=SWITCH + b"\x81\x01aend",
        log=[ok(code=101)],
    ),
    "websocket that is ignored": scene(
        ("c", get("/public/x", *WEB) + get("/secret") + GET),
        ("s", OK),
        ("s", OK),
        server=get("/public/x", *WEB) + GET,
        client=OK + DENIED + OK,
        log=[ok(), no(), ok()],
    ),
    "websocket behind another": scene(
        ("c", GET + get("/public/x", *WEB) + b"x"),
        ("s", OK + SWITCH),
        server=GET + get("/public/x", *WEB) + b"x",
        client=OK + SWITCH,
        log=[ok(), ok(code=101)],
    ),
    "h2c with half a setting": scene(
        ("c", get("/public/x", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA")),
        server=NOTHING,
        client=said("400 Bad Request", "HTTP2-Settings: SETTINGS of 1 bytes"),
        log=[no("/public/x", code=400)],
        ended=Close,
    ),
    "h2c with a body": scene(
        (
            "c",
            get(
                "/public/x",
                "Connection: Upgrade, HTTP2-Settings",
                "Upgrade: h2c",
                "HTTP2-Settings:",
                "Content-Length: 2",
            ),
        ),
        server=NOTHING,
        client=said("403 Forbidden", "Upgrade to h2c takes HTTP/1.1, Connection: Upgrade, HTTP2-Settings, and no body"),
        log=[no("/public/x")],
        ended=Close,
    ),
    "a 101 that nobody asked for": scene(
        ("c", GET),
        ("s", SWITCH),
        ("c", get("/secret")),
        server=GET,
        client=said("502 Bad Gateway", "the server switched protocols though nobody asked for it"),
        log=[ok(code=502)],
        ended=Close,
    ),
    "a 101 to h2c": scene(
        ("c", get("/public/x", *WEB)),
        ("s", SWITCH.replace(b"websocket", b"h2c")),
        server=get("/public/x", *WEB),
        client=said("502 Bad Gateway", "the server switched protocols though nobody asked for it"),
        log=[ok(code=502)],
        ended=Close,
    ),
    "CONNECT": scene(
        ("c", get("a:80", method="CONNECT") + GET),
        server=NOTHING,
        client=said("403 Forbidden", "CONNECT: nothing behind it could be judged"),
        log=[no("a:80", "CONNECT")],
        ended=Close,
    ),
}
