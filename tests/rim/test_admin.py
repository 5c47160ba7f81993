"""The admin API over real sockets: what it answers, and whom it refuses."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from l7proxy.admin import make_app, serve
from l7proxy.config import AdminConfig, Endpoint, FlowLogConfig
from l7proxy.flowjson import FlowEncoder
from l7proxy.flowlog import FlowWriter
from l7proxy.ops import Record, Request
from policies.identity import workload
from policies.verdict import L7Decision, Verdict

ENDPOINT = {"name": "new", "labels": {"app": "new"}, "addresses": ["10.0.0.9"]}


class Node:
    """A node that keeps what it is told."""

    def __init__(self) -> None:
        self.flow_writer = FlowWriter(FlowLogConfig(), "n")
        self.is_ready = True
        self.known: dict[str, Endpoint] = {}
        self.pause = 0.0

    def ready(self) -> tuple[bool, str]:
        return self.is_ready, "generation 1" if self.is_ready else "starting"

    def metrics_text(self) -> str:
        return "l7proxy_x 1\n"

    def endpoints(self) -> list[dict[str, Any]]:
        return [endpoint.plain() for endpoint in self.known.values()]

    async def add_endpoint(self, endpoint: Endpoint) -> None:
        await asyncio.sleep(self.pause)
        if endpoint.name in self.known:
            raise ValueError(f"an endpoint named {endpoint.name!r} is already there")
        self.known[endpoint.name] = endpoint

    async def remove_endpoint(self, name: str) -> None:
        if name not in self.known:
            raise KeyError(f"no endpoint is named {name!r}")
        del self.known[name]

    def policies_json(self) -> dict[str, Any]:
        return {"generation": 1, "policies": []}

    def status(self) -> dict[str, Any]:
        raise RuntimeError("a bug")


Play = Callable[[Node, aiohttp.ClientSession], Awaitable[None]]


@asynccontextmanager
async def running(config: AdminConfig) -> AsyncIterator[tuple[Node, str]]:
    node = Node()
    runner = await serve(make_app(node), config)
    try:
        address = runner.addresses[0] if runner.addresses else None
        yield node, f"http://127.0.0.1:{address[1]}" if isinstance(address, tuple) else "http://localhost"
    finally:
        node.flow_writer.close()
        await runner.cleanup()


def play(scene: Play, config: AdminConfig | None = None) -> None:
    async def whole() -> None:
        async with running(config or AdminConfig("127.0.0.1:0")) as (node, base), aiohttp.ClientSession(base) as http:
            await scene(node, http)

    asyncio.run(asyncio.wait_for(whole(), 20))


def flow(number: int, verdict: Verdict = Verdict.FORWARDED) -> bytes:
    source, destination = (workload(256, {"app": "a"}), 1, "a"), (workload(257, {"app": "b"}), 2, "b")
    connection = FlowEncoder("n").connection(source, destination, ("10.0.0.1", 1), ("10.0.0.2", 80))
    decision = L7Decision(verdict, None, "because")
    return connection.l7(Record(Request(decision, "GET", f"/{number}", host="b"), 200, 0.0, 0.1), 1.0)


def paths(lines: bytes) -> list[str]:
    flows = [json.loads(line)["flow"] for line in lines.splitlines()]
    return [one["l7"]["http"]["url"].rpartition("/")[2] for one in flows]


def test_health_and_metrics() -> None:
    async def scene(node: Node, http: aiohttp.ClientSession) -> None:
        for path, status, text in (
            ("/healthz", 200, "ok\n"),
            ("/readyz", 200, "generation 1\n"),
            ("/metrics", 200, "l7proxy_x 1\n"),
        ):
            async with http.get(path) as answer:
                assert (answer.status, await answer.text()) == (status, text)
        node.is_ready = False
        async with http.get("/readyz") as answer:
            assert (answer.status, await answer.text()) == (503, "starting\n")
        async with http.get("/policies") as answer:
            assert await answer.json() == {"generation": 1, "policies": []}

    play(scene)


def test_failures_are_json() -> None:
    async def scene(_: Node, http: aiohttp.ClientSession) -> None:
        for method, path, status, part in (
            ("GET", "/status", 500, "internal error"),
            ("GET", "/nothing", 404, "Not Found"),
            ("PUT", "/endpoints", 405, "Method Not Allowed"),
            ("GET", "/flows?verdict=maybe", 400, "none of FORWARDED, DROPPED, AUDIT"),
            ("GET", "/flows?protocol=x", 400, "none of http"),
            ("GET", "/flows?last=-1", 400, "last must be a number"),
            ("GET", "/flows?follow=yes", 400, "follow must be 0 or 1"),
            ("GET", "/flows?form=a", 400, "unknown parameter 'form'"),
        ):
            async with http.request(method, path) as answer:
                assert answer.status == status, path
                assert part in (await answer.json())["error"]

    play(scene)


def test_endpoints_come_and_go() -> None:
    async def scene(_: Node, http: aiohttp.ClientSession) -> None:
        async with http.post("/endpoints", json=ENDPOINT) as answer:
            assert (answer.status, await answer.json()) == (201, ENDPOINT)
        async with http.get("/endpoints") as answer:
            assert await answer.json() == [ENDPOINT]
        async with http.post("/endpoints", json=ENDPOINT) as answer:
            assert answer.status == 409
            assert "already there" in (await answer.json())["error"]
        async with http.delete("/endpoints/new") as answer:
            assert answer.status == 204
        async with http.delete("/endpoints/new") as answer:
            assert (answer.status, await answer.json()) == (404, {"error": "no endpoint is named 'new'"})

    play(scene)


def test_a_change_is_finished_though_the_client_hangs_up() -> None:
    async def scene(node: Node, http: aiohttp.ClientSession) -> None:
        node.pause = 0.3
        with pytest.raises(asyncio.TimeoutError):
            await http.post("/endpoints", json=ENDPOINT, timeout=aiohttp.ClientTimeout(0.1))
        while "new" not in node.known:
            await asyncio.sleep(0.01)

    play(scene)


@pytest.mark.parametrize(
    ("body", "status", "part"),
    [
        (b"{", 400, "not JSON"),
        (b"\xff", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b"[]", 400, "must be a mapping"),
        (b'{"name": "x", "labels": {"reserved:host": ""}, "addresses": ["1.1.1.1"]}', 400, "label source 'reserved'"),
        (b" " * (2 << 20), 413, "Too Large"),
    ],
)
def test_bad_endpoints(body: bytes, status: int, part: str) -> None:
    async def scene(_: Node, http: aiohttp.ClientSession) -> None:
        async with http.post("/endpoints", data=body) as answer:
            assert answer.status == status
            assert part in (await answer.json())["error"]

    play(scene)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:9878"}, 200),
        ({"Host": "127.0.0.1"}, 200),
        ({"Host": "[::1]:9878"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost.evil.example:9878"}, 403),
        ({"Host": "node.example"}, 200),
        ({"Origin": "http://localhost:9878"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_web_pages_are_refused(headers: dict[str, str], status: int) -> None:
    async def scene(_: Node, http: aiohttp.ClientSession) -> None:
        async with http.get("/healthz", headers=headers) as answer:
            assert answer.status == status

    play(scene, AdminConfig("127.0.0.1:0", hosts=("node.example",)))


def test_the_last_flows() -> None:
    async def scene(node: Node, http: aiohttp.ClientSession) -> None:
        for number in range(30):
            verdict = Verdict.DROPPED if number % 10 == 0 else Verdict.FORWARDED
            node.flow_writer.write(flow(number, verdict), 1)
        for query, expected in (
            ("", [str(number) for number in range(10, 30)]),
            ("?last=2", ["28", "29"]),
            ("?last=0", []),
            ("?verdict=dropped", ["0", "10", "20"]),
            ("?verdict=DROPPED&last=1", ["20"]),
            ("?from=a&to=app=b&last=1", ["29"]),
            ("?from=default/a&to=10.0.0.2&protocol=http&last=1", ["29"]),
            ("?from=b", []),
            ("?protocol=udp", []),
        ):
            async with http.get(f"/flows{query}") as answer:
                assert paths(await answer.read()) == expected, query

    play(scene)


def test_following() -> None:
    async def scene(node: Node, http: aiohttp.ClientSession) -> None:
        node.flow_writer.write(flow(0), 1)
        node.flow_writer.write(flow(1), 1)
        async with http.get("/flows?follow=1&last=1&verdict=FORWARDED") as answer:
            assert paths(await answer.content.readline()) == ["1"]
            node.flow_writer.write(flow(2, Verdict.DROPPED), 1)
            node.flow_writer.write(flow(3), 1)
            assert paths(await answer.content.readline()) == ["3"]
            node.flow_writer.report_lost(5)
            assert "lost_events" in json.loads(await answer.content.readline())
            assert node.flow_writer.followers == 1
        while node.flow_writer.followers:
            await asyncio.sleep(0.01)

    play(scene)


def test_followers_are_limited() -> None:
    async def scene(node: Node, http: aiohttp.ClientSession) -> None:
        many = [node.flow_writer.subscribe() for _ in range(32)]
        async with http.get("/flows?follow=1") as answer:
            assert answer.status == 503
        many[0].end()
        async with http.get("/flows?follow=1") as answer:
            assert answer.status == 200

    play(scene)


def test_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    config = AdminConfig(f"unix:{path}")

    async def once() -> None:
        async with running(config) as (_, base):
            assert path.stat().st_mode & 0o777 == 0o600
            session = aiohttp.ClientSession(base, connector=aiohttp.UnixConnector(str(path)))
            async with session as http, http.get("/healthz") as answer:
                assert answer.status == 200
            with pytest.raises(OSError, match="in use"):
                await serve(make_app(Node()), config)
        assert not path.exists()

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    asyncio.run(once())  # what a dead instance left is no hindrance
