"""The words of the dialogues: who says what, what server and client get, what is recorded, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass, field

from parsers.options import HttpOptions
from tests.http1.rig import chunked, get

Log = list[tuple[str, str, str, int]]
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
WEB = ("Connection: keep-alive, Upgrade", "Upgrade: websocket")
NOTHING = b""


@dataclass
class Scene:
    """Lines of (C)lient and (S)erver, upper case with FIN behind; what comes of them. `ended`: Close, Abort or None."""

    lines: list[tuple[str, bytes]]
    server: bytes
    client: bytes
    log: Log
    ended: type | None = None
    options: HttpOptions = field(default_factory=HttpOptions)
    audit_only: bool = False


def scene(*lines: tuple[str, bytes], server: bytes, client: bytes, log: Log, **more: object) -> Scene:
    return Scene(list(lines), server, client, log, **more)  # type: ignore[arg-type]


def said(status: str, text: str) -> bytes:
    """Our own closing answer."""
    body = text.encode() + b"\r\n"
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def ok(
    url: str = "/public/x", method: str = "GET", code: int = 200, verdict: str = "FORWARDED"
) -> tuple[str, str, str, int]:
    return verdict, method, url, code


def no(url: str = "/secret", method: str = "GET", code: int = 403) -> tuple[str, str, str, int]:
    return "DROPPED", method, url, code


BODY, CHUNKS = b"hello", chunked(b"hello", b"wor\r\nld")
LENGTH, CODED = "Content-Length: 5", "Transfer-Encoding: chunked"
WITH_LENGTH, WITH_CHUNKS = get("/public/x", LENGTH, method="POST"), get("/public/x", CODED, method="POST")
HEAD_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
CHUNKED_OK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"a", b"bc", trailers=b"X: y\r\n")
OLD_OK = b"HTTP/1.0 200 OK\r\n\r\nall of this"
GET = get()
