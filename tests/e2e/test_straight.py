"""The proxy's connections past the proxy: upgraded ones, and bodies by count, straight from client to server."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests import netns
from tests.e2e.common import from_app, http, policy, received
from tests.everywhere import everywhere
from tests.lab import Lab, Pod
from tests.node import NodeHandle
from tests.splice.bench import until

pytestmark = pytest.mark.privileged

POLICY = policy("api", "api", ingress=[{**from_app("front"), "toPorts": [http()]}])
NOBODY = policy("api", "api", ingress=[{**from_app("nobody"), "toPorts": [http()]}])
UPGRADE = (
    b"GET /public/socket HTTP/1.1\r\nHost: api\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SECONDS = 20.0
SIZE = 1 << 20
"""Of a body."""


def exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        assert part, (len(data), size)
        data += part
    return data


@dataclass
class Ends:
    """A client's socket and its server's, with the proxy between."""

    client: socket.socket
    server: socket.socket
    port: int = 0

    def __post_init__(self) -> None:
        self.port = self.client.getsockname()[1]

    def ask(self, data: bytes) -> None:
        self.client.sendall(data)
        assert exactly(self.server, len(data)) == data

    def answer(self, data: bytes) -> None:
        self.server.sendall(data)
        assert exactly(self.client, len(data)) == data

    def close(self) -> None:
        self.client.close()
        self.server.close()


@dataclass
class Net:
    lab: Lab
    node: NodeHandle
    front: Pod
    api: Pod
    listener: socket.socket

    def straight(self) -> int:
        count: int = self.node.status()["splice"]["straight_bytes"]
        return count

    def connect(self, first: bytes) -> Ends:
        """The proxy asks the server once it has allowed something."""
        client = netns.connect(self.front.ns, (self.api.v4, 80), timeout=SECONDS)
        client.sendall(first)
        server = self.listener.accept()[0]
        server.settimeout(SECONDS)
        assert exactly(server, len(first)) == first
        return Ends(client, server)

    def upgraded(self) -> Ends:
        """A WebSocket, both directions of which go straight."""
        ends = self.connect(UPGRADE)
        ends.answer(SWITCHED)
        self.until_straight(ends.ask)
        self.until_straight(ends.answer)
        return ends

    def record(self, ends: Ends) -> dict[str, dict[str, int]]:
        """What the flow log says of how the bytes of a connection went."""
        ends.close()

        def this(record: dict[str, Any]) -> bool:
            return record["flow"]["Type"] == "L3_L4" and record["flow"]["l4"]["TCP"]["source_port"] == ends.port

        (found,) = self.node.wait_flows(this)
        ways: dict[str, dict[str, int]] = found["flow"]["extensions"]["value"]["l7proxy"]["carried"]
        return ways

    def learn(self) -> None:
        """Show how this program reads."""
        while not self.straight():
            ends = self.connect(UPGRADE)
            ends.answer(SWITCHED)
            for _ in range(5):
                for say in (ends.ask, ends.answer):
                    say(b"frame")
                    time.sleep(0.01)
            ends.close()
            until(lambda: self.node.status()["splice"]["paired"] == self.node.status()["splice"]["ended"])

    def until_straight(self, say: Callable[[bytes], None]) -> int:
        """Say as much as it takes until it goes past the proxy; how many bytes that was."""
        before = self.straight()
        for number in range(1, 300):
            say(bytes(1000))
            if self.straight() > before:
                return 1000 * number
        raise AssertionError("nothing goes straight")


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with everywhere(), Lab() as lab:
        front, api = lab.pod("front"), lab.pod("api")
        node = lab.start_l7proxy(POLICY, endpoints=[front.endpoint(), api.endpoint()], splice=True)
        with netns.listen(api.ns, (api.v4, 80)) as listener:
            listener.settimeout(SECONDS)
            found = Net(lab, node, front, api, listener)
            assert node.status()["splice"]["on"], node.status()["splice"]["detail"]
            found.learn()
            yield found


def test_frames_of_a_websocket_go_straight(net: Net) -> None:
    ends, before = net.upgraded(), net.straight()
    for number in range(20):
        ends.ask(b"%04d" % number)
        ends.answer(b"%05d" % number)
    assert net.straight() - before == 20 * 9
    ends.ask(bytes(300_000))
    ends.answer(bytes(300_000))
    ends.client.shutdown(socket.SHUT_WR)
    assert ends.server.recv(100) == b""
    ends.server.sendall(b"last words")
    ends.server.close()
    assert received(ends.client) == b"last words"
    ends.close()


def test_the_record_says_how_bytes_went(net: Net) -> None:
    ends, before = net.upgraded(), net.straight()
    for _ in range(5):
        ends.ask(bytes(1000))
        ends.answer(bytes(100))
    assert net.straight() - before == 5500
    found = net.record(ends)
    for way, size, head in (("requests", 1000, UPGRADE), ("responses", 100, SWITCHED)):
        assert found[way]["straight"] >= 5 * size
        assert found[way]["straight"] + found[way]["relayed"] >= len(head) + 6 * size
        assert found[way]["by_stack_in"] == found[way]["by_stack_out"] == 0
    assert f'l7proxy_splice_bytes_total{{path="straight"}} {float(net.straight())}' in net.node.admin("/metrics")[1]


def test_a_reset_of_either_end_comes_to_the_other(net: Net) -> None:
    for which in ("client", "server"):
        ends, before = net.upgraded(), net.straight()
        ends.ask(b"straight")
        ends.answer(b"straight")
        assert net.straight() - before == 16
        gone, other = (ends.client, ends.server) if which == "client" else (ends.server, ends.client)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gone.close()
        with pytest.raises(ConnectionResetError):
            other.recv(100)
        other.close()


def test_a_policy_that_allows_no_more_cuts_what_goes_straight(net: Net) -> None:
    ends, before = net.upgraded(), net.straight()
    ends.ask(b"straight")
    assert net.straight() - before == 8
    net.node.write_policy(NOBODY)
    try:
        with pytest.raises(ConnectionResetError):
            ends.client.recv(100)
        with pytest.raises(OSError):
            ends.client.sendall(b"late")
        assert received(ends.server) == b""
        assert net.straight() - before == 8
    finally:
        net.node.write_policy(POLICY)
        ends.close()


def upload(net: Net) -> tuple[Ends, int]:
    """A request with a large body, part of which has gone straight; how many bytes are left."""
    ends = net.connect(b"POST /public/upload HTTP/1.1\r\nHost: api\r\nContent-Length: %d\r\n\r\n" % SIZE)
    return ends, SIZE - net.until_straight(ends.ask)


def get(path: bytes) -> bytes:
    return b"GET %s HTTP/1.1\r\nHost: api\r\n\r\n" % path


def in_parts(say: Callable[[bytes], None], left: int) -> None:
    while left:
        say(bytes(min(left, 1000)))
        left -= min(left, 1000)


def test_the_rest_of_a_body_goes_straight_and_the_next_request_is_judged(net: Net) -> None:
    ends, left = upload(net)
    before = net.straight()
    in_parts(ends.ask, left - 1000)
    assert net.straight() - before == left - 1000
    allowed, refused = get(b"/public/a"), get(b"/secret")
    ends.client.sendall(bytes(1000) + allowed + refused)
    assert exactly(ends.server, 1000 + len(allowed)) == bytes(1000) + allowed
    ends.answer(OK)
    ends.answer(OK)
    assert received(ends.client, b"denied").startswith(b"HTTP/1.1 403")
    assert net.straight() - before == left - 1000
    ends.ask(allowed)
    ends.answer(OK)
    ends.server.setblocking(False)
    with pytest.raises(BlockingIOError):
        ends.server.recv(1)
    ends.close()


def test_a_body_that_has_gone_straight_to_its_last_byte(net: Net) -> None:
    ends, left = upload(net)
    before = net.straight()
    in_parts(ends.ask, left)
    assert net.straight() - before == left
    ends.client.sendall(get(b"/secret"))
    ends.answer(OK)
    assert received(ends.client, b"denied").startswith(b"HTTP/1.1 403")
    ends.ask(get(b"/public/a"))
    ends.answer(OK)
    ends.close()


def test_what_follows_a_body_waits_until_the_server_has_read_that(net: Net) -> None:
    ends, left = upload(net)
    before = net.straight()
    in_parts(ends.ask, left - 1000)
    ends.client.sendall(bytes(1000))
    ends.client.sendall(get(b"/public/a"))
    time.sleep(0.2)  # it may not come before
    assert len(ends.server.recv(SIZE)) == 1000
    assert exactly(ends.server, len(get(b"/public/a"))) == get(b"/public/a")
    assert net.straight() - before == left
    ends.answer(OK + OK)
    ends.close()


def test_a_body_that_ends_with_its_connection(net: Net) -> None:
    ends, left = upload(net)
    in_parts(ends.ask, left)
    ends.client.shutdown(socket.SHUT_WR)
    assert ends.server.recv(1) == b""
    ends.server.sendall(OK)
    ends.server.close()
    assert received(ends.client) == OK
    ends.close()


def test_a_download(net: Net) -> None:
    ends = net.connect(get(b"/public/large"))
    ends.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
    left = SIZE - net.until_straight(ends.answer)
    before = net.straight()
    in_parts(ends.answer, left)
    assert net.straight() - before == left
    ends.ask(get(b"/public/a"))
    ends.answer(OK)
    ends.close()


def test_a_worker_that_is_killed_ends_what_goes_straight(net: Net) -> None:
    ends, before = net.upgraded(), net.straight()
    ends.client.sendall(b"straight")
    for pid in net.node.worker_pids():
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ConnectionError):
        while ends.client.recv(100):
            pass
        until(lambda: ends.client.send(b"late") < 0)
    assert received(ends.server) == b"straight"
    assert net.straight() - before == 8
    ends.close()
    until(lambda: net.node.is_ready() and len(net.node.worker_pids()) > 0, 60)
