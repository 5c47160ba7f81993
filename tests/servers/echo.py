"""An HTTP/1.1 server that writes down exactly what reached it, one JSON object a line.

`connect` and `close` (with the number of bytes received) of every connection, `request` for each that came whole
(method, raw target, headers, length and SHA-256 of the body, the peer's address), `malformed` for what is no HTTP.
The answer is the same as JSON, unless the query asks otherwise: ``size=N`` (N bytes of a known pattern),
``sleep=SECONDS``, ``status=CODE``, ``chunks=N`` (chunked), ``close=1``, ``reset=1``.
Run as a program: no import from the tests, so that it can be started in any namespace.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import json
import socket
import struct
from typing import Any, TextIO, cast
from urllib.parse import parse_qs, urlsplit

import httptools
import uvloop

PATTERN = bytes(range(256)) * 256
"""What ``size=`` answers repeat."""
HIGH_WATER = 1 << 20


class Journal:
    """The log file. Lines are written together, at the latest after 5 ms."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.lines: list[str] = []

    def write(self, event: str, **facts: Any) -> None:
        """Add a line."""
        if not self.lines:
            asyncio.get_running_loop().call_later(0.005, self.flush)
        self.lines.append(json.dumps({"event": event, **facts}))

    def flush(self) -> None:
        """Hand everything to the kernel."""
        lines, self.lines = self.lines, []
        self.file.write("\n".join([*lines, ""]))
        self.file.flush()


class Connection(asyncio.Protocol):
    """One connection: requests are answered one after the other, in order."""

    transport: asyncio.Transport

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.parser = httptools.HttpRequestParser(self)
        self.received = 0
        self.waiting: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.writable = asyncio.Event()
        self.writable.set()
        self.begin()

    def begin(self) -> None:
        self.target, self.length, self.digest = b"", 0, hashlib.sha256()
        self.headers: list[tuple[str, str]] = []

    # -- the transport's calls -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.transport.set_write_buffer_limits(HIGH_WATER)
        self.peer = list(self.transport.get_extra_info("peername")[:2])
        self.journal.write("connect", peer=self.peer)
        self.answering = asyncio.ensure_future(self.answer_all())

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.journal.write("upgrade", rest=data[upgrade.args[0] :].hex())
        except httptools.HttpParserError as error:
            self.journal.write("malformed", error=str(error), data=data[:4096].decode("latin-1"))
            self.waiting.put_nowait(None)

    def eof_received(self) -> bool:
        self.waiting.put_nowait(None)
        return True

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.answering.cancel()
        how = type(exc).__name__ if exc else "closed"
        self.journal.write("close", peer=self.peer, received=self.received, how=how)

    # -- the parser's calls ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.begin()

    def on_url(self, data: bytes) -> None:
        self.target += data

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        expects = [value for name, value in self.headers if name.lower() == "expect"]
        if expects == ["100-continue"]:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        self.length += len(data)
        self.digest.update(data)

    def on_message_complete(self) -> None:
        request = {
            "method": self.parser.get_method().decode("latin-1"),
            "target": self.target.decode("latin-1"),
            "headers": self.headers,
            "length": self.length,
            "sha256": self.digest.hexdigest(),
            "peer": self.peer,
        }
        self.journal.write("request", **request)
        keep = self.parser.should_keep_alive()
        self.waiting.put_nowait(request | {"keep": keep, "version": self.parser.get_http_version()})

    # -- answers ---------------------------------------------------------------------------------------------------

    async def answer_all(self) -> None:
        while (request := await self.waiting.get()) is not None:
            query = {key: values[0] for key, values in parse_qs(urlsplit(request["target"]).query).items()}
            if "sleep" in query:
                await asyncio.sleep(float(query["sleep"]))
            if "reset" in query:
                return self.reset()
            await self.answer(request, query)
            if "close" in query or not request["keep"]:
                break
        self.transport.close()

    def reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()

    async def answer(self, request: dict[str, Any], query: dict[str, str]) -> None:
        shown = {key: request[key] for key in ("method", "target", "length", "sha256", "peer")}
        body = json.dumps(shown).encode() + b"\n"
        size, chunks = int(query.get("size", -1)), int(query.get("chunks", 0))
        length = len(body) if size < 0 else size
        framing = "Transfer-Encoding: chunked" if chunks else f"Content-Length: {length}"
        close = "" if request["keep"] and "close" not in query else "Connection: close\r\n"
        head = f"HTTP/1.1 {query.get('status', '200')} Said\r\n{framing}\r\n{close}\r\n".encode()
        if request["method"] == "HEAD":
            self.transport.write(head)
        elif chunks:
            part = b"%x\r\n%b\r\n" % (len(body), body)
            self.transport.write(head + part * chunks + b"0\r\n\r\n")
        elif size < 0:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            await self.send_pattern(size)

    async def send_pattern(self, size: int) -> None:
        while size > 0:
            await self.writable.wait()
            self.transport.write(PATTERN[:size])
            size -= len(PATTERN)


async def serve(host: str, port: int, log: str) -> None:
    """Listen until killed."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ":" in host:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind((host, port))
    with open(log, "a") as file:
        journal = Journal(file)
        loop = asyncio.get_running_loop()
        await loop.create_server(lambda: Connection(journal), sock=listener, backlog=4096)
        print("ready", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="::")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", required=True)
    arguments = parser.parse_args()
    gc.disable()
    uvloop.run(serve(arguments.host, arguments.port, arguments.log))


if __name__ == "__main__":
    main()
