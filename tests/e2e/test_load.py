"""Much at once: bulk in both directions, thousands of connections, slow ends, and changes under load."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import netns
from tests.e2e.common import from_app, http, policy, received
from tests.lab import Lab
from tests.node import NodeHandle

pytestmark = pytest.mark.privileged

POLICIES = policy("api", "api", ingress=[{**from_app("front"), "toPorts": [http()]}])
GIGABYTE = 1 << 30
KERNEL_BUFFER = 4 << 20
"""The most that the kernel may hold for one direction of one socket; four of them lie between the two ends."""
MOST_HELD = 4 * KERNEL_BUFFER + (1 << 20)
GET_PUBLIC = b"GET /public/a HTTP/1.1\r\nHost: a\r\n\r\n"
PATTERN = bytes(range(256)) * 256

UPLOAD = """
import hashlib, socket, sys
host, size = sys.argv[1], int(sys.argv[2])
pattern, digest = bytes(range(256)) * 1024, hashlib.sha256()
with socket.create_connection((host, 80)) as out:
    head = "POST /public/up HTTP/1.1", "Host: api", "Connection: close", "Content-Length: %d" % size
    out.sendall("\\r\\n".join((*head, "", "")).encode())
    while size:
        part = pattern[:size]
        out.sendall(part)
        digest.update(part)
        size -= len(part)
    answer = b""
    while part := out.recv(65536):
        answer += part
print(digest.hexdigest(), digest.hexdigest().encode() in answer)
"""
CROWD = """
import asyncio, sys
host, count = sys.argv[1], int(sys.argv[2])
async def one(number, gate):
    async with gate:
        reader, writer = await asyncio.open_connection(host, 80)
    return reader, writer
async def ask(number, reader, writer):
    writer.write(b"GET /public/%d HTTP/1.1\\r\\nHost: api\\r\\n\\r\\n" % number)
    head = await reader.readuntil(b"\\r\\n\\r\\n")
    return head.startswith(b"HTTP/1.1 200") and b"/public/%d" % number in await reader.readline()
async def main():
    gate = asyncio.Semaphore(100)
    ends = await asyncio.gather(*(one(number, gate) for number in range(count)))
    for turn in range(2):
        seen = await asyncio.gather(*(ask(number, *end) for number, end in enumerate(ends)))
        print(sum(seen), flush=True)
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        made.pod("front")
        made.pod("api")
        for ns in (made.node_ns, made.pods["front"].ns, made.pods["api"].ns):
            netns.sysctl(ns, {f"net/ipv4/tcp_{name}": f"4096 131072 {KERNEL_BUFFER}" for name in ("rmem", "wmem")})
        yield made


@pytest.fixture(scope="module")
def node(lab: Lab) -> NodeHandle:
    lab.serve(lab.pods["api"].ns, 80)
    return lab.start_l7proxy(POLICIES, limits={"idle_timeout": 120.0})


def memory(node: NodeHandle) -> int:
    """Bytes of resident memory of all workers."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in node.worker_pids()]
    return sum(pages) * os.sysconf("SC_PAGESIZE")


@pytest.mark.slow
def test_a_gigabyte_up_and_down(lab: Lab, node: NodeHandle) -> None:
    front, api = lab.pods["front"], lab.pods["api"]
    before = memory(node)
    argv = [sys.executable, "-c", UPLOAD, api.v4, str(GIGABYTE)]
    _, matches = lab.run(front.ns, argv, timeout=120).stdout.split()
    assert matches == "True"
    script = f"curl -sS --max-time 100 'http://{api.v4}/public/down?size={GIGABYTE}' | sha256sum"
    digest = lab.run(front.ns, ["sh", "-c", script], timeout=120).stdout.split()[0]
    wanted = hashlib.sha256()
    for _ in range(GIGABYTE // len(PATTERN)):
        wanted.update(PATTERN)
    assert digest == wanted.hexdigest()
    assert memory(node) - before < 32 << 20


def test_five_thousand_connections(lab: Lab, node: NodeHandle) -> None:
    front, api = lab.pods["front"], lab.pods["api"]
    netns.sysctl(front.ns, {"net/ipv4/ip_local_port_range": "1024 65000"})
    argv = [sys.executable, "-c", CROWD, api.v4, "5000"]
    before = memory(node)
    crowd = lab.popen(front.ns, ["sh", "-c", 'ulimit -n 16000; exec "$@"', "sh", *argv], stdout=-1)
    output, _ = crowd.communicate(timeout=120)
    assert output.split() == ["5000", "5000"]
    assert memory(node) - before < 400 << 20


def test_a_client_that_does_not_read_stops_the_server(lab: Lab, node: NodeHandle) -> None:
    front, api = lab.pods["front"], lab.pods["api"]
    before = memory(node)
    with netns.listen(api.ns, (api.v4, 8000)) as listener, small(lab, front.ns, node, listener) as client:
        server, _ = listener.accept()
        with server:
            received(server, b"\r\n\r\n")
            server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % GIGABYTE)
            sent = push(server)
            assert sent < MOST_HELD, "the proxy took in what nobody reads"
            assert memory(node) - before < 8 << 20
            # The reader wakes up, and the rest flows.
            assert len(received(client, limit=sent)) >= sent


def test_a_server_that_does_not_read_stops_the_client(lab: Lab, node: NodeHandle) -> None:
    front, api = lab.pods["front"], lab.pods["api"]
    before = memory(node)
    with netns.listen(api.ns, (api.v4, 8000)) as listener:
        head = b"POST /public/a HTTP/1.1\r\nHost: api\r\nContent-Length: %d\r\n\r\n" % GIGABYTE
        with small(lab, front.ns, node, listener, head) as client:
            server, _ = listener.accept()
            with server:
                assert push(client) < MOST_HELD
                assert memory(node) - before < 8 << 20


def small(
    lab: Lab,
    ns: str,
    node: NodeHandle,
    listener: socket.socket,
    head: bytes = b"GET /public/a HTTP/1.1\r\nHost: a\r\n\r\n",
) -> socket.socket:
    """A connection with a small receive buffer to the listener's port, which the policy gets to know first."""
    address = listener.getsockname()
    if str(address[1]) not in (node.policies / "policy.yaml").read_text():
        rules = [http(), http(port=address[1])]
        node.write_policy(policy("api", "api", ingress=[{**from_app("front"), "toPorts": rules}]))
    option = (socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
    client = netns.connect(ns, address[:2], options=[option])
    client.sendall(head)
    return client


def push(sender: socket.socket) -> int:
    """Send until nothing is taken for a second; how many bytes were."""
    sender.settimeout(1.0)
    sent = 0
    try:
        while sent < GIGABYTE:
            sent += sender.send(PATTERN)
    except TimeoutError:
        pass
    return sent


def open_pair(lab: Lab, node: NodeHandle, listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    """A client and the server's end of the same proxied connection, with an unanswered request under way."""
    client = small(lab, lab.pods["front"].ns, node, listener)
    server, _ = listener.accept()
    server.settimeout(5)
    assert received(server, b"\r\n\r\n").startswith(b"GET /public/a ")
    return client, server


def test_a_reset_of_either_end_reaches_the_other(lab: Lab, node: NodeHandle) -> None:
    api = lab.pods["api"]
    linger = struct.pack("ii", 1, 0)
    with netns.listen(api.ns, (api.v4, 8000)) as listener:
        for victim, witness in ((0, 1), (1, 0)):
            pair = open_pair(lab, node, listener)
            pair[victim].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            pair[victim].close()
            with pair[witness] as other, pytest.raises(ConnectionResetError):
                other.recv(1)


def test_half_close_both_ways(lab: Lab, node: NodeHandle) -> None:
    api = lab.pods["api"]
    with netns.listen(api.ns, (api.v4, 8000)) as listener:
        client, server = open_pair(lab, node, listener)
        with client, server:
            client.shutdown(socket.SHUT_WR)
            assert server.recv(1) == b""
            server.sendall(b"HTTP/1.1 200 OK\r\n\r\nto the ")
            time.sleep(0.1)
            server.sendall(b"end")
            server.shutdown(socket.SHUT_WR)
            assert received(client).endswith(b"to the end")


def test_a_server_that_refuses_the_connection(lab: Lab, node: NodeHandle) -> None:
    api = lab.pods["api"]
    with netns.listen(api.ns, (api.v4, 8000)) as listener:
        address = listener.getsockname()
        small(lab, lab.pods["front"].ns, node, listener).close()
    with netns.connect(lab.pods["front"].ns, address[:2]) as client, pytest.raises(ConnectionResetError):
        client.sendall(b"GET /public/a HTTP/1.1\r\nHost: a\r\n\r\n")
        client.recv(1)


def test_policy_flips_under_load(lab: Lab, node: NodeHandle) -> None:
    """Each answer is right for the old or the new policy, and none is lost."""
    front, api = lab.pods["front"], lab.pods["api"]
    stop = threading.Event()
    seen: dict[str, int] = {}

    def ask() -> None:
        with netns.connect(front.ns, (api.v4, 80)) as client:
            while not stop.is_set():
                client.sendall(b"GET /public/flip HTTP/1.1\r\nHost: a\r\n\r\n")
                head = received(client, b"\r\n\r\n", 1 << 16)
                length = int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1])  # type: ignore[index]
                rest = length - len(head.partition(b"\r\n\r\n")[2])
                while rest > 0:
                    rest -= len(client.recv(rest))
                code = head[9:12].decode()
                seen[code] = seen.get(code, 0) + 1

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    shut = policy("api", "api", ingress=[{**from_app("front"), "toPorts": [http({"path": "/closed"})]}])
    for text in (shut, POLICIES) * 3:
        node.write_policy(text)
        before = sum(seen.values())
        Lab.wait(lambda least=before: sum(seen.values()) > least + 20)  # type: ignore[misc]
    stop.set()
    for thread in threads:
        thread.join(10)
    assert set(seen) == {"200", "403"} and min(seen.values()) > 20
    assert not any(thread.is_alive() for thread in threads)


def test_a_worker_killed_under_load(lab: Lab, node: NodeHandle) -> None:
    front, api = lab.pods["front"], lab.pods["api"]
    node.write_policy(POLICIES + "\n")
    argv = ["wrk", "-t1", "-c32", "-d4s", f"http://{api.v4}/public/wrk"]
    load = lab.popen(front.ns, argv, stdout=-1)
    time.sleep(1.5)
    os.kill(node.worker_pids()[0], signal.SIGKILL)
    output, _ = load.communicate(timeout=30)
    total = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
    assert total > 500 and "Non-2xx" not in output, output
    lab.wait(lambda: len(node.worker_pids()) == len(os.sched_getaffinity(0)))
    assert lab.curl(front.ns, f"http://{api.v4}/secret")[0] == 403


def test_the_flow_log_has_every_request_of_a_load(lab: Lab, node: NodeHandle) -> None:
    front, api = lab.pods["front"], lab.pods["api"]
    argv = ["wrk", "-t1", "-c16", "-d2s", f"http://{api.v4}/public/counted"]
    output = lab.run(front.ns, argv).stdout
    total = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]

    def recorded() -> int:
        lines = [line for path in node.folder.glob("flows.jsonl*") for line in path.read_text().splitlines()]
        lost = sum(int(json.loads(line)["lost_events"]["num_events_lost"]) for line in lines if "lost_events" in line)
        return lost + sum("/public/counted" in line for line in lines)

    # wrk leaves up to one request a connection unanswered when its time is over.
    lab.wait(lambda: total <= recorded() <= total + 16, 15, f"{total} requests, {recorded()} records")
