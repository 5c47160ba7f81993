"""An ASGI application for hypercorn that writes down each request whole, as a line of JSON in the file $JOURNAL.

It answers with the target and the length of the body; ``/public/large`` with 8 MiB.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

LARGE = 8 << 20


def note(event: str, **facts: Any) -> None:
    """Write a line."""
    descriptor = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, json.dumps({"event": event, **facts}).encode() + b"\n")
    os.close(descriptor)


async def application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Called once a request."""
    if scope["type"] != "http":
        return
    target, length = scope["raw_path"].decode("latin-1"), 0
    if scope["query_string"]:
        target += "?" + scope["query_string"].decode("latin-1")
    facts = {"method": scope["method"], "target": target, "version": scope["http_version"], "peer": scope["client"]}
    note("begin", **facts)
    while (message := await receive())["type"] == "http.request":
        length += len(message.get("body", b""))
        if not message.get("more_body"):
            note("request", **facts, length=length)
            break
    body = bytes(LARGE) if target == "/public/large" else f"served {target} {length}\n".encode()
    headers = [(b"content-length", str(len(body)).encode()), (b"x-version", scope["http_version"].encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
