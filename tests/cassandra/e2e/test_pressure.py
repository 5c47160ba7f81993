"""Clients that ask and do not read, and servers that are slow, or do not read: a worker's memory stays what it was, and
others are served meanwhile. The server is one of the tests' own, which does as its statements say."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from socket import socket

import pytest

from parsers.cassandra import Opcode
from tests import netns
from tests.cassandra import words
from tests.cassandra.e2e.common import cql_policy
from tests.cassandra.rig import code_of, own, split, stream_of, tells
from tests.lab import Lab
from tests.node import NodeHandle, growth

pytestmark = pytest.mark.privileged
PORT = 9042
STREAMS = 32_767
MOST = 64 << 20
"""Bytes by which a worker may grow, whoever floods it."""
WITHIN = 10.0
"""Seconds in which others have their answer."""


@dataclass
class Net:
    lab: Lab
    node: NodeHandle
    namespace: str
    address: tuple[str, int]

    @contextmanager
    def session(self) -> Iterator[socket]:
        """A connection of version 4 that has begun."""
        with netns.connect(self.namespace, self.address) as connection:
            connection.settimeout(30)
            connection.sendall(words.startup(4))
            assert connection.recv(100)[4] == Opcode.READY
            yield connection


class Server:
    """What it is asked it answers at once; SLOW statements a hundred a second; LARGE ones with a megabyte. Behind STOP
    it reads nothing more of a connection."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waits, slow = b"", False
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                waits += data
                asked = split(waits)
                waits = waits[sum(map(len, asked)) :]
                for one in asked:
                    slow = slow or b"SLOW" in one
                    if slow:
                        await asyncio.sleep(0.01)
                    writer.write(self.answer(one))
                    await writer.drain()
                    if b"STOP" in one:
                        await asyncio.sleep(60)
        writer.close()

    @staticmethod
    def answer(asked: bytes) -> bytes:
        stream = stream_of(asked)
        if asked[4] == Opcode.STARTUP:
            return words.ready(4, stream)
        if own(asked):
            return tells(asked)
        return words.rows(4, stream, (1 << 20) if b"LARGE" in asked else 30)


@contextmanager
def serving(listening: socket) -> Iterator[None]:
    """That server, in a thread of its own."""
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        await asyncio.start_server(Server().serve, sock=listening)
        await over.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        front, pod = lab.pod("front"), lab.pod("cassandra")
        stack.enter_context(serving(netns.listen(pod.ns, (pod.v4, PORT))))
        node = lab.start_l7proxy(cql_policy(PORT), workers=1)
        yield Net(lab, node, front.ns, (pod.v4, PORT))


def statements(text: str, streams: Sequence[int]) -> bytes:
    """They differ in a constant."""
    return b"".join(words.query(f"SELECT * FROM shop.{text} WHERE id = {one}", 4, one) for one in streams)


def flood(net: Net, count: int, data: bytes, seconds: float = 4.0) -> tuple[int, list[float]]:
    """So many clients send `data` again and again, and read nothing. By how many bytes the worker has grown, and the
    seconds in which another client had its answers meanwhile."""
    (pid,) = net.node.worker_pids()
    with ExitStack() as stack:
        honest = stack.enter_context(net.session())
        attackers = [stack.enter_context(net.session()) for _ in range(count)]
        for one in attackers:
            one.setblocking(False)
        grown, took = growth(pid), []
        places = dict.fromkeys(attackers, 0)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for one in attackers:
                with suppress(BlockingIOError, ConnectionError):
                    places[one] += one.send(data[places[one] : places[one] + (1 << 16)])
                    places[one] %= len(data)
            began = time.monotonic()
            honest.sendall(words.query("SELECT * FROM shop.orders", 4, 9))
            answer = honest.recv(1000)
            assert (stream_of(answer), code_of(answer)) == (9, 0)
            took.append(time.monotonic() - began)
        assert net.node.worker_pids() == [pid]
        return grown(), took


REFUSED = statements("secrets", range(1000))
LARGE = statements("orders /* LARGE */", range(1000))
SLOW = statements("orders /* SLOW */", range(STREAMS + 1))
UNREAD = words.query("SELECT * FROM shop.orders /* STOP */", 4, 0) + b"".join(
    words.query(f"SELECT * FROM shop.orders /* {'x' * 10_000} */", 4, one) for one in range(1, STREAMS + 1, 10)
)


@pytest.mark.parametrize(
    ("count", "data"),
    [(20, REFUSED), (20, LARGE), (4, SLOW), (20, UNREAD)],
    ids=["refused and never read", "large rows that are never read", "a slow server", "a server that does not read"],
)
def test_memory_and_the_others(net: Net, count: int, data: bytes) -> None:
    grown, took = flood(net, count, data)
    print(f"grown by {grown >> 20} MiB; {len(took)} answers meanwhile, in {max(took):.2f} s at most")
    assert grown < MOST
    assert took and max(took) < WITHIN
