"""Hostile peers and hostile moments, on a node as it really runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.common import from_app, http, l7, policy, url
from tests.lab import Lab
from tests.node import NodeHandle

pytestmark = pytest.mark.privileged
POLICIES = policy("api", "api", ingress=[{**from_app("front"), "toPorts": [http(), http(port=81)]}])

KEPT = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], 80, timeout=10)
connection.auto_open = 0
connection.connect()
for path in ("/public/a", "/secret"):
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        print(answer.status, flush=True)
    except OSError:
        print("cut", flush=True)
    input()
"""

ABORTS = """
import random, socket, struct, sys, time
head = b"%s /%s/a HTTP/1.1\\r\\nHost: a\\r\\n%s\\r\\n"
large, chunked = b"Content-Length: 5000000\\r\\n", b"Transfer-Encoding: chunked\\r\\n"
parts = [
    b"", b"G", head % (b"GET", b"public", b""), head % (b"GET", b"secret", b""),
    head % (b"POST", b"public", large) + bytes(1500000), head % (b"POST", b"public", chunked) + b"5\\r\\nab",
    head % (b"POST", b"secret", large) + bytes(300000), head % (b"GET", b"public", b"") * 2 + b"GET /pu",
]
for i in range(int(sys.argv[2])):
    with socket.socket() as connection:
        connection.connect((sys.argv[1], 80 if i % 10 else 81))
        connection.setblocking(False)
        try:
            connection.send(parts[i % len(parts)])
        except OSError:
            pass
        time.sleep(random.random() * 0.01)
        if i % 3:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        made.pod("front")
        made.pod("api")
        made.serve(made.pods["api"].ns, 80)
        yield made


def test_a_connection_does_not_outlive_the_endpoint_whose_policy_judged_it(lab: Lab) -> None:
    front, api = lab.pods["front"], lab.pods["api"]
    egress = policy("front", "front", egress=[{"toPorts": [http({"path": "/.*"})]}])
    node = lab.start_l7proxy(POLICIES + egress)
    argv = [sys.executable, "-c", KEPT, api.v4]
    client = subprocess.Popen(
        ["ip", "netns", "exec", front.ns, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert client.stdin is not None
    assert client.stdout is not None
    try:
        assert client.stdout.readline() == "200\n"
        assert node.admin("/endpoints/api", method="DELETE")[0] < 300
        assert node.admin("/endpoints", method="POST", body=api.endpoint())[0] < 300
        client.stdin.write("\n")
        client.stdin.flush()
        assert client.stdout.readline() == "cut\n"
    finally:
        client.kill()
        client.wait(5)
    assert lab.curl(front.ns, url(api.v4, "/secret"))[0] == 403


def descriptors(node: NodeHandle) -> list[int]:
    """How many each worker has open."""
    return [len(os.listdir(f"/proc/{pid}/fd")) for pid in node.worker_pids()]


def test_connections_that_end_at_any_stage_leave_nothing_behind(lab: Lab) -> None:
    front, api = lab.pods["front"], lab.pods["api"]
    node = lab.start_l7proxy(POLICIES, limits={"idle_timeout": 1, "head_timeout": 1, "connect_timeout": 1})
    before = descriptors(node)
    assert lab.curl(front.ns, url(api.v4, "/public/first"))[0] == 200
    lab.run(front.ns, [sys.executable, "-c", ABORTS, api.v4, "400"])
    lab.wait(lambda: descriptors(node) == before, 10, "every descriptor is closed")
    assert lab.curl(front.ns, url(api.v4, "/public/last"))[0] == 200
    lab.wait(lambda: l7(node, "FORWARDED", "/public/last"), 5)
    assert node.status()["worker_restarts"] == 0
