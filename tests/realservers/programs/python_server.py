"""Python's HTTP servers, each with an application that writes down every request it is asked to execute.

``python python_server.py KIND PORT JOURNAL``. A line of the journal is method, raw target, path as resolved, host and
status, tab-separated, with other than printable ASCII escaped. It is written before the body is read: a request has
run once the application was called.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_BLOCK = 65536


def note(method: str, raw: str, path: str, host: str) -> bytes:
    """Write the line, and return the answer's body."""
    fields = (text.encode("unicode_escape").decode("ascii") for text in (method, raw, path, host, "200"))
    line = "\t".join(fields) + "\n"
    descriptor = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)
    return b"ran " + line.encode()


def wsgi(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """For gunicorn, waitress, cheroot and gevent."""
    path = environ.get("PATH_INFO", "")
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI") or path
    body = note(environ["REQUEST_METHOD"], raw, path, environ.get("HTTP_HOST", ""))
    while environ["wsgi.input"].read(_BLOCK):
        pass
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """For uvicorn and hypercorn."""
    if scope["type"] != "http":
        return
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    body = note(scope["method"], scope["raw_path"].decode("latin-1"), scope["path"], host.decode("latin-1"))
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Plain(BaseHTTPRequestHandler):
    """The standard library's server, in the manner of its file handler: a GET has no body."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = note(self.command, self.path, self.path, self.headers.get("Host", ""))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on standard error."""


def serve_plain(port: int) -> None:
    ThreadingHTTPServer(("127.0.0.1", port), Plain).serve_forever()


def serve_aiohttp(port: int) -> None:
    import asyncio

    from aiohttp import web

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        body = note(request.method, request.raw_path, request.path, request.headers.get("Host", ""))
        await request.read()
        return web.Response(body=body)

    async def run() -> None:
        runner = web.ServerRunner(web.Server(handler))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()

    asyncio.run(run())


def serve_waitress(port: int) -> None:
    import waitress

    waitress.serve(wsgi, host="127.0.0.1", port=port, threads=32)


def serve_cheroot(port: int) -> None:
    from cheroot.wsgi import Server

    Server(("127.0.0.1", port), wsgi, numthreads=32, shutdown_timeout=0).start()


def serve_gevent(port: int) -> None:
    from gevent.pywsgi import WSGIServer

    WSGIServer(("127.0.0.1", port), wsgi, log=None, error_log=None).serve_forever()


def serve_gunicorn(port: int) -> None:
    options = ["--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "32", "--log-level", "critical"]
    _exec("gunicorn", *options, "python_server:wsgi")


def serve_uvicorn(port: int, parser: str) -> None:
    options = [
        "--http",
        parser,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--log-level",
        "critical",
        "--lifespan=off",
    ]
    _exec("uvicorn", *options, "python_server:asgi")


def serve_hypercorn(port: int) -> None:
    _exec("hypercorn", "--bind", f"127.0.0.1:{port}", "--log-level", "CRITICAL", "python_server:asgi")


def _exec(module: str, *arguments: str) -> None:
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - the launcher becomes the server


KINDS: dict[str, Callable[[int], None]] = {
    "http.server": serve_plain,
    "aiohttp": serve_aiohttp,
    "waitress": serve_waitress,
    "cheroot": serve_cheroot,
    "gevent": serve_gevent,
    "gunicorn": serve_gunicorn,
    "uvicorn-h11": lambda port: serve_uvicorn(port, "h11"),
    "uvicorn-httptools": lambda port: serve_uvicorn(port, "httptools"),
    "hypercorn": serve_hypercorn,
}

if __name__ == "__main__":
    KINDS[sys.argv[1]](int(sys.argv[2]))
