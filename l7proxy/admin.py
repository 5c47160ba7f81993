"""The admin API: health, metrics, endpoints, policies and flows, over HTTP on loopback or a unix socket.

It has no passwords: whoever can connect may use it. A web page that a user of this node has open can connect as
well, so a request with an `Origin`, or a `Host` that is a name somebody could have pointed here (DNS rebinding), is
refused.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Coroutine
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from l7proxy.config import AdminConfig, Endpoint, endpoint_from_json
from l7proxy.flowfilter import FlowFilter
from l7proxy.flowlog import FlowWriter
from policies.document import DocumentError

log = logging.getLogger("l7proxy.admin")
_MAX_BODY = 1 << 20
_MAX_LAST = 100_000
_MAX_FOLLOWERS = 32
_DEFAULT_LAST = 20
_FLOW_KEYS = {"follow", "last", "verdict", "protocol", "from", "to"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AdminNode(Protocol):
    """What the API needs of the node."""

    flow_writer: FlowWriter

    def ready(self) -> tuple[bool, str]:
        """Whether flows are judged now, and why or why not."""

    def metrics_text(self) -> str:
        """Prometheus' text format."""

    def endpoints(self) -> list[dict[str, Any]]:
        """The endpoints, as JSON."""

    async def add_endpoint(self, endpoint: Endpoint) -> None:
        """Manage one more. Raises ValueError if it clashes or cannot be attached."""

    async def remove_endpoint(self, name: str) -> None:
        """Manage one less. Raises KeyError."""

    def policies_json(self) -> dict[str, Any]:
        """The policies in force, as JSON."""

    def status(self) -> dict[str, Any]:
        """Everything an operator asks first, as JSON."""


_NODE = web.AppKey("node", AdminNode)
_CONFIG = web.AppKey("config", AdminConfig)


def make_app(node: AdminNode, config: AdminConfig | None = None) -> web.Application:
    """The application. `config` says which Host headers are ours."""
    app = web.Application(middlewares=[_guard], client_max_size=_MAX_BODY)
    app[_NODE] = node
    app[_CONFIG] = config or AdminConfig()
    app.add_routes(
        [
            web.get("/healthz", _healthz),
            web.get("/readyz", _readyz),
            web.get("/metrics", _metrics),
            web.get("/status", _status),
            web.get("/policies", _policies),
            web.get("/endpoints", _endpoints),
            web.post("/endpoints", _add_endpoint),
            web.delete("/endpoints/{name}", _remove_endpoint),
            web.get("/flows", _flows, allow_head=False),
        ]
    )
    return app


async def serve(app: web.Application, config: AdminConfig) -> web.AppRunner:
    """Listen; `cleanup()` of the result ends it. Raises OSError if the address cannot be had."""
    app[_CONFIG] = config
    path = config.unix_path
    sock = _unix_socket(path) if path is not None else None
    if path is not None:
        app.on_cleanup.append(lambda _: _remove(path))
    # A follower that hangs up while no flow comes must not stay.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.SockSite(runner, sock) if sock is not None else web.TCPSite(runner, *config.host_port)
        await site.start()
    except BaseException:
        await runner.cleanup()
        raise
    return runner


async def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _unix_socket(path: Path) -> socket.socket:
    """A socket that only this user may connect to. One that a dead instance left is replaced."""
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode) and not _answers(path):
        path.unlink()
    sock = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        sock.bind(str(path))
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(mask)
    return sock


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


# -- who may ask --------------------------------------------------------------------------------------------------


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what a web page could send; turn every failure into JSON."""
    try:
        complaint = _foreign(request)
        if complaint:
            return _error(403, complaint)
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _error(error.status, error.reason)
    except ConnectionError:
        raise
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return _error(500, "internal error; the log says more")


def _foreign(request: web.Request) -> str:
    if "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none":
        return "requests from web pages are not served"
    config = request.app[_CONFIG]
    host = _host_name(request.headers.get("Host", ""))
    # An address in Host cannot have been rebound: only names can.
    if config.unix_path is None and host not in {"localhost", *config.hosts} and not _is_address(host):
        return f"Host {host[:100]!r} is not this node (admin.hosts in the configuration allows more names)"
    return ""


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _error(status: int, message: str, **more: Any) -> web.Response:
    return web.json_response({"error": message, **more}, status=status)


# -- the node -----------------------------------------------------------------------------------------------------


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _readyz(request: web.Request) -> web.Response:
    ready, why = request.app[_NODE].ready()
    return web.Response(text=f"{why}\n", status=200 if ready else 503)


async def _metrics(request: web.Request) -> web.Response:
    body = request.app[_NODE].metrics_text().encode()
    return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def _status(request: web.Request) -> web.Response:
    return web.json_response(request.app[_NODE].status())


async def _policies(request: web.Request) -> web.Response:
    return web.json_response(request.app[_NODE].policies_json())


async def _endpoints(request: web.Request) -> web.Response:
    return web.json_response(request.app[_NODE].endpoints())


async def _add_endpoint(request: web.Request) -> web.Response:
    try:
        endpoint = endpoint_from_json(json.loads(await request.text()))
    except DocumentError as error:
        return _error(400, str(error), problems=[str(problem) for problem in error.problems])
    except (ValueError, RecursionError, LookupError) as error:  # no JSON, no UTF-8, or a charset nobody knows
        return _error(400, f"the body is not JSON: {error}")
    try:
        await _to_the_end(request.app[_NODE].add_endpoint(endpoint))
    except ValueError as error:
        return _error(409, str(error))
    return web.json_response(endpoint.plain(), status=201)


async def _to_the_end(change: Coroutine[Any, Any, None]) -> None:
    """A change is not left half done when the client that asked for it hangs up."""
    await asyncio.shield(asyncio.ensure_future(change))


async def _remove_endpoint(request: web.Request) -> web.Response:
    try:
        await _to_the_end(request.app[_NODE].remove_endpoint(request.match_info["name"]))
    except KeyError as error:
        return _error(404, str(error.args[0]) if error.args else "no such endpoint")
    return web.Response(status=204)


# -- flows --------------------------------------------------------------------------------------------------------


async def _flows(request: web.Request) -> web.StreamResponse:
    """The last records as JSON lines, and with `follow` those to come."""
    try:
        wanted, last, follow = _flow_query(request)
    except ValueError as error:
        return _error(400, str(error))
    writer = request.app[_NODE].flow_writer
    if follow and writer.followers >= _MAX_FOLLOWERS:
        return _error(503, f"{_MAX_FOLLOWERS} followers are there already")
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    # Subscribed before the last ones are read, with nothing awaited between: no record is missed or comes twice.
    follower = writer.subscribe() if follow else None
    recent = _chosen(wanted, b"".join(writer.last(_MAX_LAST if not wanted.empty else last)))
    try:
        await response.prepare(request)
        await response.write(b"".join(recent.splitlines(keepends=True)[-last:]) if last else b"")
        if follower is not None:
            async for batch in follower:
                await response.write(_chosen(wanted, batch))
        await response.write_eof()
    finally:
        if follower is not None:
            follower.end()
    return response


def _chosen(wanted: FlowFilter, batch: bytes) -> bytes:
    if wanted.empty:
        return batch
    return b"".join(line for line in batch.splitlines(keepends=True) if wanted.line(line))


def _flow_query(request: web.Request) -> tuple[FlowFilter, int, bool]:
    query = request.query
    unknown = sorted(set(query) - _FLOW_KEYS)
    if unknown:
        raise ValueError(f"unknown parameter {unknown[0]!r}; known: {', '.join(sorted(_FLOW_KEYS))}")
    wanted = FlowFilter.checked(query.get("verdict"), query.get("protocol"), query.get("from"), query.get("to"))
    follow = query.get("follow", "0")
    if follow not in ("0", "1", "true", "false"):
        raise ValueError("follow must be 0 or 1")
    text = query.get("last", str(0 if follow in ("1", "true") else _DEFAULT_LAST))
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise ValueError("last must be a number")
    return wanted, min(int(text), _MAX_LAST), follow in ("1", "true")
