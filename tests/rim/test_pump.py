"""Large bodies by splice, on real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import closing

import pytest
import uvloop

from l7proxy.pump import Pump


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    uvloop.run(asyncio.wait_for(scenario(), 30))


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    for sock in (one, other):
        sock.setblocking(False)
    return one, other


class Rig:
    """client -> (left, right) -> server, with a pump between the two in the middle."""

    def __init__(self, size: int, buffer: int = 65536) -> None:
        self.loop = asyncio.get_running_loop()
        self.client, self.left = tcp_pair()
        self.right, self.server = tcp_pair()
        self.result: asyncio.Future[tuple[int, OSError | None]] = self.loop.create_future()
        done = lambda moved, error: self.result.set_result((moved, error))  # noqa: E731
        self.pump = Pump(self.left.fileno(), self.right.fileno(), size, buffer, done)

    def close(self) -> None:
        self.pump.stop()
        for sock in (self.client, self.left, self.right, self.server):
            sock.close()

    async def read(self, size: int) -> bytes:
        parts = []
        while size and (data := await self.loop.sock_recv(self.server, size)):
            parts.append(data)
            size -= len(data)
        return b"".join(parts)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_exactly_the_count_is_moved_and_in_order() -> None:
    async def scenario() -> None:
        before = descriptors()
        body = os.urandom(5_000_003)
        with closing(Rig(len(body))) as rig:
            sending = asyncio.create_task(rig.loop.sock_sendall(rig.client, body + b"next message"))
            got = await rig.read(len(body))
            await sending
            assert hashlib.sha256(got).digest() == hashlib.sha256(body).digest()
            assert await rig.result == (len(body), None)
            assert await rig.loop.sock_recv(rig.left, 100) == b"next message"
        assert descriptors() == before

    run(scenario)


def test_a_slow_reader_stops_the_sender() -> None:
    async def scenario() -> None:
        with closing(Rig(1 << 30)) as rig:
            sent = 0
            block = bytes(1 << 20)
            with pytest.raises(TimeoutError):
                while True:
                    await asyncio.wait_for(rig.loop.sock_sendall(rig.client, block), 0.3)
                    sent += len(block)
            assert sent < 32 << 20

    run(scenario)


def test_the_end_of_the_source_ends_it_early() -> None:
    async def scenario() -> None:
        with closing(Rig(1000)) as rig:
            await rig.loop.sock_sendall(rig.client, b"x" * 400)
            rig.client.shutdown(socket.SHUT_WR)
            assert await rig.result == (400, None)
            assert await rig.read(400) == b"x" * 400

    run(scenario)


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_reset_of_either_side_is_an_error(side: str) -> None:
    async def scenario() -> None:
        with closing(Rig(1 << 30)) as rig:
            await rig.loop.sock_sendall(rig.client, b"x")
            await rig.read(1)
            victim = rig.client if side == "client" else rig.server
            victim.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            victim.close()
            if side == "server":
                await rig.loop.sock_sendall(rig.client, b"y")
            _, error = await rig.result
            assert isinstance(error, ConnectionError)

    run(scenario)


def test_stop_is_silent_and_gives_everything_back() -> None:
    async def scenario() -> None:
        before = descriptors()
        rig = Rig(1 << 30)
        await rig.loop.sock_sendall(rig.client, b"x")
        await rig.read(1)
        rig.pump.stop()
        rig.pump.stop()
        assert not rig.result.done()
        rig.close()
        assert descriptors() == before

    run(scenario)


def test_a_socket_that_splice_reads_nothing_from_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose bytes another program's sockmap carries: readable, but for recv alone (docs/splice.md)."""

    def splice(*_: int) -> int:
        raise BlockingIOError

    async def scenario() -> None:
        with closing(Rig(1000)) as rig:
            monkeypatch.setattr(os, "splice", splice)
            await rig.loop.sock_sendall(rig.client, b"x" * 400)
            assert await rig.result == (0, None)
            assert rig.pump.useless
            assert await rig.loop.sock_recv(rig.left, 1000) == b"x" * 400

    run(scenario)


def test_waiting_for_more_is_not_useless() -> None:
    async def scenario() -> None:
        with closing(Rig(1000)) as rig:
            for _ in range(10):
                await rig.loop.sock_sendall(rig.client, b"x" * 100)
                assert await rig.read(100) == b"x" * 100
            assert await rig.result == (1000, None)
            assert not rig.pump.useless

    run(scenario)
