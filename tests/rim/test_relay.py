"""The relay: operations carried out on real sockets, with a scripted conversation in place of a protocol.

The script reads lines: `pass`, `drop`, `hold` (wait for the server), `deny` (answer and go on), `end` (answer and
close), `boom` (fail), and `take N` (pass the line and the next N bytes by count). What the server says is passed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from l7proxy.flowlog import BatchSink
from l7proxy.limits import Limits
from l7proxy.metrics import WorkerMetrics
from l7proxy.ops import FOREVER, Abort, Close, Direction, Drop, Inject, Op, Pass, Wait
from l7proxy.origin import Origin
from l7proxy.recorder import ConnectionRecords, Recorder
from l7proxy.relay import Relay
from policies.identity import reserved
from sockmap.flows import Flow

pytestmark = pytest.mark.privileged
RESPONSE = Direction.RESPONSE


class Script:
    """A conversation with the words of the module's docstring."""

    def __init__(self) -> None:
        self.judge: Any = None
        self.idle = True
        self.head_pending = False
        self.receiving = False
        self.server_spoke = False

    def receive(self, direction: Direction, data: bytes, end: bool, now: float) -> Sequence[Op]:
        if direction is RESPONSE:
            self.server_spoke = self.server_spoke or bool(data)
            return [Pass(len(data))] if data else []
        ops: list[Op] = []
        position = 0
        while (stop := data.find(b"\n", position) + 1) > 0:
            word, _, argument = data[position:stop].strip().partition(b" ")
            if word == b"hold" and not self.server_spoke:
                ops.append(Wait())
                break
            ops += self.word(word, argument, stop - position)
            position = stop
            if word in (b"take", b"skip"):
                position = min(len(data), position + int(argument))
            elif word in (b"tunnel", b"end", b"abort"):
                break
        self.head_pending = position < len(data) and not (ops and isinstance(ops[-1], Wait))
        return ops

    def word(self, word: bytes, argument: bytes, size: int) -> list[Op]:
        if word == b"boom":
            raise RuntimeError("boom")
        table: dict[bytes, list[Op]] = {
            b"drop": [Drop(size)],
            b"deny": [Drop(size), Inject(RESPONSE, b"denied\n")],
            b"end": [Drop(size), Inject(RESPONSE, b"bye\n"), Close("asked")],
            b"abort": [Abort("asked")],
            b"tunnel": [Pass(FOREVER)],
        }
        if word in (b"take", b"skip"):
            return [(Pass if word == b"take" else Drop)(size + int(argument))]
        return table.get(word, [Pass(size)])

    def upstream_failed(self, reason: str, now: float) -> Sequence[Op]:
        return [Inject(RESPONSE, b"503 " + reason.encode() + b"\n"), Close("upstream")]

    def head_timeout(self, now: float) -> Sequence[Op]:
        return [Inject(RESPONSE, b"408\n"), Close("head")]

    def late(self, now: float, limits: Limits) -> Sequence[Op]:
        return []

    def draining(self, now: float) -> Sequence[Op]:
        return []

    def finish(self, now: float) -> Sequence[Op]:
        return []


class Owner:
    """Stands for the worker."""

    def __init__(self, limits: Limits, refuse_with_503: bool = False) -> None:
        self.limits, self.mark, self.refuse_with_503 = limits, 0x0A00, refuse_with_503
        self.loop = asyncio.get_running_loop()
        self.relays: list[Relay] = []
        self.gone = 0
        self.failures: list[str] = []
        self.bridges: Callable[[], Any] | None = None
        self.loop.set_exception_handler(lambda loop, context: self.failures.append(str(context.get("exception"))))

    def records(self, origin: Origin) -> ConnectionRecords:
        return ConnectionRecords(Recorder(BatchSink(lambda _: True), WorkerMetrics()), "x", _no_encoder)

    def upstream_failed(self, relay: Relay, reason: str) -> None:
        self.failures.append(reason)

    def spliced(self, descriptor: int) -> bool:
        return self.bridges is not None

    def bridge(self, source: int, sink: int) -> Any:
        return self.bridges and self.bridges()

    def closed(self, relay: Relay) -> None:
        self.gone += 1


def _no_encoder() -> Any:
    raise AssertionError("no lines are wanted")


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def rig(handler: Handler | None, **settings: Any) -> AsyncIterator[SimpleNamespace]:
    """A backend, a relay in front of it, and a way to connect. `talk` makes another conversation than the script."""
    talk = settings.pop("talk", Script)
    owner = Owner(Limits(**settings.pop("limits", {})), **settings)
    backend = await asyncio.start_server(handler or echo, "127.0.0.1", 0)
    address = backend.sockets[0].getsockname()
    if handler is None:
        backend.close()

    class Accept(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            flow = Flow(1, 1, 0, 0, 1, 0)
            peer = transport.get_extra_info("peername")
            origin = Origin(peer, address, flow, reserved("host"), reserved("host"), "x", None)
            relay = Relay(owner, origin, talk())
            owner.relays.append(relay)
            transport.set_protocol(relay.side(Direction.REQUEST))
            relay.attach_client(transport)

    front = await owner.loop.create_server(Accept, "127.0.0.1", 0)
    port = front.sockets[0].getsockname()[1]
    try:
        yield SimpleNamespace(owner=owner, connect=lambda: asyncio.open_connection("127.0.0.1", port), port=port)
    finally:
        for relay in owner.relays:
            relay.abort()
        front.close()
        backend.close()
        await asyncio.sleep(0.01)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b"server saw the end\n")
    writer.close()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    uvloop.run(asyncio.wait_for(scenario(), 30))


def test_words_are_passed_dropped_and_answered_in_order() -> None:
    async def scenario() -> None:
        async with rig(echo) as r:
            reader, writer = await r.connect()
            writer.write(b"pass one\ndrop two\npass three\n")
            assert await reader.readexactly(20) == b"pass one\npass three\n"
            writer.write(b"deny\n")
            assert await reader.readline() == b"denied\n"
            writer.write(b"pass four\n")
            assert await reader.readline() == b"pass four\n"

    run(scenario)


def test_nothing_connects_upstream_before_something_is_allowed() -> None:
    async def scenario() -> None:
        connections = []

        async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(1)
            await echo(reader, writer)

        async with rig(count) as r:
            reader, writer = await r.connect()
            writer.write(b"deny\ndeny\n")
            assert await reader.readexactly(14) == b"denied\ndenied\n"
            assert not connections
            writer.write_eof()
            assert await reader.read() == b""
            assert not connections

    run(scenario)


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_counts_go_beyond_what_has_arrived(size: int) -> None:
    async def scenario() -> None:
        async with rig(echo) as r:
            reader, writer = await r.connect()
            head = b"take %d\n" % size
            writer.write(head)
            assert await reader.readexactly(len(head)) == head
            body = bytes(i % 251 for i in range(size))
            writer.write(body + b"skip %d\n" % size + body + b"pass\n")
            assert await reader.readexactly(size) == body
            assert await reader.readline() == b"pass\n"

    run(scenario)


def test_every_split_gives_the_same() -> None:
    stream = b"pass one\ndrop two\ntake 5\n12345deny\npass x\n"

    async def scenario() -> None:
        async with rig(echo) as r:
            for size in (1, 2, 3, 5, 11):
                reader, writer = await r.connect()
                for i in range(0, len(stream), size):
                    writer.write(stream[i : i + size])
                    await asyncio.sleep(0.001)
                got = b""
                while len(got) < 9 + 12 + 7 + 7:
                    got += await reader.read(100)
                assert got.replace(b"denied\n", b"") == b"pass one\ntake 5\n12345pass x\n"
                assert got.count(b"denied\n") == 1
                writer.close()

    run(scenario)


def test_a_waiting_direction_goes_on_after_the_other() -> None:
    async def scenario() -> None:
        async with rig(echo) as r:
            reader, writer = await r.connect()
            writer.write(b"pass\nhold\npass 2\n")
            assert await reader.readexactly(17) == b"pass\nhold\npass 2\n"

    run(scenario)


def test_half_close_goes_both_ways() -> None:
    async def scenario() -> None:
        async with rig(echo) as r:
            reader, writer = await r.connect()
            writer.write(b"pass\n")
            writer.write_eof()
            assert await reader.read() == b"pass\nserver saw the end\n"
            writer.close()
            await asyncio.sleep(0.05)
            assert r.owner.gone == 1

    run(scenario)


def test_a_reset_reaches_the_other_side() -> None:
    async def scenario() -> None:
        seen: list[str] = []

        async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while await reader.read(100):
                    pass
                seen.append("end")
            except ConnectionResetError:
                seen.append("reset")

        async with rig(watch) as r:
            _, writer = await r.connect()
            writer.write(b"pass\n")
            await asyncio.sleep(0.05)
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()
            await asyncio.sleep(0.1)
            assert seen == ["reset"]

    run(scenario)


def test_a_server_that_resets_resets_the_client() -> None:
    async def scenario() -> None:
        async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()

        async with rig(reset) as r:
            reader, writer = await r.connect()
            writer.write(b"pass\n")
            with pytest.raises(ConnectionResetError):
                await reader.read()

    run(scenario)


def test_last_words_arrive_though_the_client_goes_on_sending() -> None:
    async def scenario() -> None:
        async with rig(echo) as r:
            reader, writer = await r.connect()
            writer.write(b"end\n" + b"x" * 1_000_000)
            assert await reader.read() == b"bye\n"

    run(scenario)


def test_a_failing_conversation_closes() -> None:
    async def scenario() -> None:
        async with rig(echo) as r:
            reader, writer = await r.connect()
            writer.write(b"pass\n")
            await reader.readline()
            writer.write(b"boom\npass\n")
            with pytest.raises(ConnectionResetError):
                await reader.read()
            assert r.owner.failures == ["boom"]

    run(scenario)


@pytest.mark.parametrize("with_503", [False, True])
def test_an_unreachable_server(with_503: bool) -> None:
    async def scenario() -> None:
        async with rig(None, refuse_with_503=with_503) as r:
            reader, writer = await r.connect()
            writer.write(b"pass\n")
            if with_503:
                assert (await reader.read()).startswith(b"503 ")
            else:
                with pytest.raises(ConnectionResetError):
                    await reader.read()
            assert len(r.owner.failures) == 1

    run(scenario)


def test_back_pressure_reaches_the_fast_end() -> None:
    async def scenario() -> None:
        gate = asyncio.Event()
        total = 0

        async def sleepy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal total
            await gate.wait()
            while data := await reader.read(1 << 20):
                total += len(data)
            writer.close()

        async with rig(sleepy) as r:
            reader, writer = await r.connect()
            size = 64 << 20
            writer.write(b"take %d\n" % size)
            writer.transport.set_write_buffer_limits(1)
            sent = 0
            block = bytes(1 << 20)
            try:
                while sent < size:
                    writer.write(block)
                    sent += len(block)
                    await asyncio.wait_for(writer.drain(), 0.5)
            except TimeoutError:
                pass
            # What the kernel's and our buffers hold; far below what was offered.
            assert sent < 32 << 20
            gate.set()
            while sent < size:
                writer.write(block)
                sent += len(block)
                await writer.drain()
            writer.write_eof()
            assert await reader.read() == b""
            assert total == size + len(b"take %d\n" % size)

    run(scenario)


def test_a_tunnel_carries_both_ways() -> None:
    async def scenario() -> None:
        async with rig(echo) as r:
            reader, writer = await r.connect()
            writer.write(b"tunnel\nboom\nend\n")
            assert await reader.readexactly(16) == b"tunnel\nboom\nend\n"
            writer.write_eof()
            assert await reader.read() == b"server saw the end\n"

    run(scenario)
