"""The admin API from the command line's side: one blocking connection, over TCP or a unix socket."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlencode, urlsplit

DEFAULT = "http://127.0.0.1:9878"
_TIMEOUT = 10.0
_MAX_LINE = 16 << 20


class AdminError(Exception):
    """The API does not answer, or refuses; the text says what to do."""


class _Unix(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def get(admin: str, path: str, query: Mapping[str, str] | None = None) -> Iterator[bytes]:
    """The lines of an answer, as they come, newlines included. Raises AdminError."""
    target = path + ("?" + urlencode(query) if query else "")
    connection = _connection(admin)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        if response.status != 200:
            raise AdminError(f"{admin} answers {response.status}: {_message(response.read(1 << 20))}")
        if connection.sock is not None:
            connection.sock.settimeout(None)  # a follower waits for as long as nothing happens
        yield from _lines(response)
    except (OSError, http.client.HTTPException) as error:
        hint = "is `l7proxy run` running on this node? --admin names another address, --file reads a log file"
        raise AdminError(f"no answer from {admin} ({error}); {hint}") from error
    finally:
        connection.close()


def _connection(admin: str) -> http.client.HTTPConnection:
    if admin.startswith("unix:"):
        return _Unix(Path(admin.removeprefix("unix:")))
    parts = urlsplit(admin if "://" in admin else f"http://{admin}")
    try:
        if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError("it must be http://host:port or unix:/path")
        return http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=_TIMEOUT)
    except ValueError as error:
        raise AdminError(f"bad admin address {admin!r}: {error}") from error


def _lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    rest = b""
    while data := response.read1(1 << 16):
        *lines, rest = (rest + data).splitlines(keepends=True) or [b""]
        if rest.endswith(b"\n"):
            lines.append(rest)
            rest = b""
        if len(rest) > _MAX_LINE:
            raise AdminError("a line of the answer is too long")
        yield from lines
    if rest:
        yield rest


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, LookupError, TypeError):
        return body[:200].decode("utf-8", "replace").strip()
