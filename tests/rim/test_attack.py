"""What hostile peers try on a relay: last words cut off, memory without end, descriptors that stay."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from types import SimpleNamespace
from typing import Any

import pytest

from l7proxy.pump import Pump
from l7proxy.timeouts import enforce
from tests.rim.test_relay import rig, run

pytestmark = pytest.mark.privileged
LONG_AGO = 1000.0


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


def slow_client(port: int) -> socket.socket:
    """A client whose kernel takes little that it does not read."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.connect(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


async def accepted(r: Any) -> Any:
    """The relay of the only connection; the kernel takes little of what its client does not read."""
    while not r.owner.relays:
        await asyncio.sleep(0.005)
    relay = r.owner.relays[0]
    relay.client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    return relay


async def read_to_end(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    got = bytearray()
    while data := await loop.sock_recv(sock, 1 << 16):
        got += data
    return bytes(got)


def test_last_words_arrive_though_a_server_is_connected() -> None:
    async def scenario() -> None:
        async with rig(echo) as r:
            reader, writer = await r.connect()
            writer.write(b"pass\n")
            assert await reader.readline() == b"pass\n"
            writer.write(b"end\n")
            assert await reader.read() == b"bye\n"

    run(scenario)


def test_a_response_that_is_queued_arrives_though_the_connection_is_being_closed() -> None:
    async def scenario() -> None:
        size = 3_000_000

        async def big(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(bytes(size))
            await asyncio.sleep(10)

        async with rig(big, limits={"buffered_bytes": 4 << 20}) as r:
            client = slow_client(r.port)
            relay = await accepted(r)
            client.send(b"pass\n")
            while relay.responses.total < size:
                await asyncio.sleep(0.01)
            client.send(b"end\n")
            await asyncio.sleep(0.1)
            assert len(await read_to_end(client)) == size + 4

    run(scenario)


def test_refusals_that_nobody_reads_stop_the_reading_of_requests() -> None:
    async def scenario() -> None:
        async with rig(echo, limits={"buffered_bytes": 65536}) as r:
            client = slow_client(r.port)
            relay = await accepted(r)
            client.send(b"pass\n")
            block = b"deny\n" * 20_000
            loop = asyncio.get_running_loop()
            try:
                for _ in range(100):
                    await asyncio.wait_for(loop.sock_sendall(client, block), 0.5)
            except TimeoutError:
                pass
            assert relay.client.get_write_buffer_size() < 2_000_000
            got = 0
            while got < 7 * 20_000:
                got += len(await loop.sock_recv(client, 1 << 20))

    run(scenario)


def test_a_large_body_waits_for_the_connection_to_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr("l7proxy.relay.Dial", lambda *_, **__: SimpleNamespace(cancel=lambda: None))
        async with rig(echo, limits={"buffered_bytes": 65536}) as r:
            _, writer = await r.connect()
            writer.write(b"take 100000000\n")
            for _ in range(200):
                await asyncio.sleep(0.001)
                writer.write(bytes(40_000))
            await asyncio.sleep(0.1)
            assert r.owner.relays[0].early_size < 2_000_000
            writer.transport.abort()

    run(scenario)


def test_no_descriptor_stays_when_no_pipe_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        def full(_: int) -> tuple[int, int]:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(os, "pipe2", full)
        a, b = socket.socketpair()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(10):
            with pytest.raises(OSError, match="Too many"):
                Pump(a.fileno(), b.fileno(), 1 << 20, 65536, lambda *_: None)
        assert len(os.listdir("/proc/self/fd")) == before
        a.close()
        b.close()

    run(scenario)


def test_who_takes_nothing_is_reset_after_the_idle_time() -> None:
    async def scenario() -> None:
        async def big(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(bytes(30_000_000))
            await asyncio.sleep(10)

        async with rig(big, limits={"idle_timeout": 60, "buffered_bytes": 65536}) as r:
            client = slow_client(r.port)
            relay = await accepted(r)
            client.send(b"pass\n")
            while not relay.responses.choked:
                await asyncio.sleep(0.01)
            relay.conversation.idle = False
            enforce(relay, time.monotonic())
            assert r.owner.gone == 0
            enforce(relay, time.monotonic() + LONG_AGO)
            await asyncio.sleep(0.05)
            assert r.owner.gone == 1

    run(scenario)


def test_who_does_not_take_the_end_is_reset_as_well() -> None:
    async def scenario() -> None:
        async def big(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.write(bytes(3_000_000))
            writer.close()

        async with rig(big, limits={"idle_timeout": 60, "buffered_bytes": 4 << 20}) as r:
            client = slow_client(r.port)
            relay = await accepted(r)
            client.send(b"pass\n")
            client.shutdown(socket.SHUT_WR)
            while not relay.responses.finished:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert r.owner.gone == 0
            relay.conversation.idle = False
            enforce(relay, time.monotonic())
            enforce(relay, time.monotonic() + LONG_AGO)
            await asyncio.sleep(0.05)
            assert r.owner.gone == 1

    run(scenario)


def test_a_conversation_that_fails_at_the_end_is_forgotten_too() -> None:
    async def scenario() -> None:
        async with rig(echo) as r:
            _, writer = await r.connect()
            writer.write(b"pass\n")
            await asyncio.sleep(0.05)

            def fail(now: float) -> None:
                raise RuntimeError("finish")

            r.owner.relays[0].conversation.finish = fail
            writer.transport.abort()
            await asyncio.sleep(0.1)
            assert r.owner.gone == 1
            assert r.owner.failures == ["finish"]

    run(scenario)
