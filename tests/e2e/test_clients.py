"""Real clients through the proxy, keep-alive, pipelining and all."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests import netns
from tests.e2e.common import DENIED, from_app, http, policy, received
from tests.lab import Lab, Pod, Server
from tests.node import COMMAND, NodeHandle

pytestmark = pytest.mark.privileged

AUDITED = {"l7proxy.io/mode": "audit"}
POLICIES = policy("api", "api", ingress=[{**from_app("front"), "toPorts": [http(), http(port=8000)]}]) + policy(
    "old", "old", AUDITED, ingress=[{**from_app("front"), "toPorts": [http()]}]
)

AIOHTTP = """
import asyncio, sys, aiohttp
async def one(session, number):
    path = "/public/%d" % number if number % 3 else "/secret/%d" % number
    async with session.post(sys.argv[1] + path, data=b"x" * number * 100) as answer:
        text = await answer.text()
        return answer.status, text.count("Access denied"), number % 3
async def main():
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=8)) as session:
        seen = await asyncio.gather(*(one(session, number) for number in range(300)))
    wrong = [one for one in seen if one[:2] != ((200, 0) if one[2] else (403, 1))]
    print(len(seen), len(wrong))
asyncio.run(main())
"""
REQUESTS = """
import sys, requests
session = requests.Session()
codes = []
for number in range(60):
    path = "/public/r%d" % number if number % 2 else "/secret/r%d" % number
    codes.append(session.request("GET", sys.argv[1] + path, timeout=10).status_code)
print(codes.count(200), codes.count(403), len(session.adapters["http://"].poolmanager.pools))
"""


@dataclass
class Net:
    lab: Lab
    node: NodeHandle
    front: Pod
    api: Pod
    server: Server
    old_server: Server


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with Lab() as lab:
        front, api, old = lab.pod("front"), lab.pod("api"), lab.pod("old")
        servers = lab.serve(api.ns, 80), lab.serve(old.ns, 80)
        node = lab.start_l7proxy(POLICIES, on_upstream_refused="503", limits={"head_timeout": 2.0})
        yield Net(lab, node, front, api, *servers)


@pytest.fixture(autouse=True)
def _forget(net: Net) -> None:
    net.server.forget()


def test_aiohttp(net: Net) -> None:
    done = net.lab.run(net.front.ns, [sys.executable, "-c", AIOHTTP, f"http://{net.api.v4}"], timeout=60)
    assert done.stdout.split() == ["300", "0"]
    net.lab.wait(lambda: len(net.server.requests()) == 200)
    assert {target.split("/")[1] for _, target in net.server.seen()} == {"public"}
    lengths = {request["target"]: request["length"] for request in net.server.requests()}
    assert all(length == int(target.rpartition("/")[2]) * 100 for target, length in lengths.items())


def test_requests_keeps_its_connection_over_refusals(net: Net) -> None:
    done = net.lab.run(net.front.ns, [sys.executable, "-c", REQUESTS, f"http://[{net.api.v6}]"], timeout=60)
    assert done.stdout.split() == ["30", "30", "1"]
    net.lab.wait(lambda: len(net.server.requests()) == 30)
    assert len([event for event in net.server.events() if event["event"] == "connect"]) == 1


def test_wrk(net: Net) -> None:
    argv = ["wrk", "-t1", "-c16", "-d2s", f"http://{net.api.v4}/public/wrk"]
    output = net.lab.run(net.front.ns, argv, timeout=30).stdout
    net.lab.wait(net.server.requests)
    assert "Non-2xx" not in output and "Socket errors" not in output, output
    assert set(net.server.seen()) == {("GET", "/public/wrk")}


def test_wrk_refused(net: Net) -> None:
    script = net.lab.folder / "mixed.lua"
    script.write_text(
        "n = 0\nrequest = function() n = n + 1\n"
        'return wrk.format("GET", (n % 2 == 0) and "/public/even" or "/secret/odd") end\n'
    )
    argv = ["wrk", "-t1", "-c8", "-d2s", "-s", str(script), f"http://{net.api.v4}"]
    output = net.lab.run(net.front.ns, argv, timeout=30).stdout
    assert "Non-2xx" in output and "Socket errors" not in output, output
    assert set(net.server.seen()) == {("GET", "/public/even")}


def test_pipelined_refusals_come_in_their_turn(net: Net) -> None:
    paths = ["/public/1?sleep=0.2", "/secret/2", "/public/3", "/secret/4", "/public/5?close=1"]
    with netns.connect(net.front.ns, (net.api.v4, 80)) as client:
        client.sendall(b"".join(f"GET {path} HTTP/1.1\r\nHost: api\r\n\r\n".encode() for path in paths))
        answer = received(client)
    codes = re.findall(r"HTTP/1\.1 (\d{3})", answer.decode())
    assert codes == ["200", "403", "200", "403", "200"], answer
    assert answer.decode().count(DENIED) == 2
    net.lab.wait(lambda: len(net.server.requests()) == 3)
    assert [target for _, target in net.server.seen()] == paths[::2]


def test_a_body_is_not_sent_before_it_is_asked_for(net: Net) -> None:
    url = f"http://{net.api.v4}"
    expect = ("-H", "Expect: 100-continue", "--data-binary", "x" * 5000)
    assert net.lab.curl(net.front.ns, url + "/public/up", *expect)[0] == 200
    assert net.lab.curl(net.front.ns, url + "/secret/up", *expect)[0] == 403
    net.lab.wait(net.server.requests)
    assert [(r["target"], r["length"]) for r in net.server.requests()] == [("/public/up", 5000)]


def test_a_malformed_request_gets_400_and_never_reaches_the_server(net: Net) -> None:
    with netns.connect(net.front.ns, (net.api.v4, 80)) as client:
        client.sendall(
            b"POST /public/a HTTP/1.1\r\nHost: api\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            b"GET /secret HTTP/1.1\r\nHost: api\r\n\r\n"
        )
        answer = received(client)
    assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1") == 1
    assert net.server.seen() == []


def test_byte_by_byte(net: Net) -> None:
    with netns.connect(net.front.ns, (net.api.v4, 80)) as client:
        for byte in b"POST /public/slow HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc":
            client.sendall(bytes([byte]))
        assert received(client).startswith(b"HTTP/1.1 200")
    net.lab.wait(net.server.requests)
    assert net.server.seen() == [("POST", "/public/slow")]


def test_an_endpoint_in_audit_mode_serves_everything_and_says_what_it_would_refuse(net: Net) -> None:
    old = net.lab.pods["old"]
    net.old_server.forget()
    assert net.lab.curl(net.front.ns, f"http://{old.v4}/public/a")[0] == 200
    assert net.lab.curl(net.front.ns, f"http://{old.v4}/admin/audited")[0] == 200
    net.lab.wait(lambda: len(net.old_server.requests()) == 2)
    flow = net.node.wait_flows(lambda r: "/admin/audited" in str(r))[0]["flow"]
    assert flow["verdict"] == "AUDIT" and flow["l7"]["http"]["code"] == 200


def test_a_head_that_does_not_end_is_given_up(net: Net) -> None:
    with netns.connect(net.front.ns, (net.api.v4, 80)) as client:
        client.sendall(b"GET /public/slowloris HTTP/1.1\r\nHost: ")
        began = time.monotonic()
        answer = received(client)
        assert 1.5 < time.monotonic() - began < 6 and answer.startswith(b"HTTP/1.1 408 ")
    assert net.server.events() == []


def test_a_server_that_is_not_there_is_told_as_configured(net: Net) -> None:
    code, body = net.lab.curl(net.front.ns, f"http://{net.api.v4}:8000/public/a")
    assert code == 503 and body
    assert net.lab.curl(net.front.ns, f"http://{net.api.v4}:8000/secret")[0] == 403


def test_a_connection_without_a_request_never_reaches_the_server(net: Net) -> None:
    with netns.connect(net.front.ns, (net.api.v4, 80)) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600))
        assert received(client)[:12] in (b"", b"HTTP/1.1 400")
    assert net.server.events() == []


def test_metrics_and_status_count_what_happened(net: Net) -> None:
    def count(verdict: str) -> float:
        text = net.node.admin("/metrics")[1]
        pattern = rf'^l7proxy_requests_total{{endpoint="api",protocol="HTTP/1.1",verdict="{verdict}"}} (\S+)$'
        return sum(map(float, re.findall(pattern, text, re.MULTILINE)))

    time.sleep(2)  # workers report once a second: what earlier tests did must be in
    before = count("FORWARDED"), count("DROPPED")
    for path in ("/public/m", "/public/m", "/secret/m"):
        net.lab.curl(net.front.ns, f"http://{net.api.v4}{path}")
    net.lab.wait(lambda: (count("FORWARDED"), count("DROPPED")) == (before[0] + 2, before[1] + 1))
    argv = [COMMAND, "status"]
    shown = net.lab.run(net.lab.node_ns, argv).stdout
    assert re.search(r"^ready: +yes$", shown, re.MULTILINE) and re.search(r"^mode: +enforce$", shown, re.MULTILINE)


def test_observe_filters_what_it_shows(net: Net) -> None:
    net.lab.curl(net.front.ns, f"http://{net.api.v4}/public/observed")
    net.lab.curl(net.front.ns, f"http://{net.api.v4}/secret/observed")
    net.node.wait_flows(lambda r: "/secret/observed" in str(r))
    argv = [COMMAND, "observe", "--verdict", "DROPPED", "--from", "front", "--to", "api", "--last", "1000"]
    shown = net.lab.run(net.lab.node_ns, argv).stdout
    assert "/secret/observed" in shown and "/public/observed" not in shown and "policy.yaml:" in shown
