"""The end of a connection on real sockets: what was said last arrives before FIN, and is not lost to a reset."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from l7proxy.http2 import Http2Conversation
from l7proxy.relay import Relay
from l7proxy.timeouts import enforce, stop
from tests.http1.rig import PublicOnly
from tests.http2 import frames
from tests.http2.frames import request
from tests.http2.peers import Peer, denied
from tests.rim.test_relay import rig, run

pytestmark = pytest.mark.privileged


class Server:
    """A backend of h2: `size` bytes for every request, and FIN once `over` is set; `gone`: it is closed then."""

    def __init__(self, size: int = 5, *, gone: bool = False) -> None:
        self.size, self.gone, self.over = size, gone, asyncio.Event()
        self.streams: list[int] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(client=False)
        asyncio.get_running_loop().create_task(self._end(writer))
        while True:
            writer.write(peer.take())
            data = await reader.read(65_536)
            if not data:
                break
            peer.receive(data)
            for stream in [one for one in peer.seen if one not in self.streams]:
                self.streams.append(stream)
                peer.reply(stream, body=b"y" * self.size)
        writer.close()

    async def _end(self, writer: asyncio.StreamWriter) -> None:
        await self.over.wait()
        if self.gone:
            writer.close()
        else:
            writer.write_eof()


class Client:
    """A client of h2 on a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
        self.reader, self.writer, self.peer = reader, writer, peer
        self.ended = False

    def say(self) -> None:
        data = self.peer.take()
        if data:
            self.writer.write(data)

    async def hear(self) -> None:
        """What comes next. Raises ConnectionResetError."""
        self.say()
        data = await self.reader.read(65_536)
        self.ended = not data
        self.peer.receive(data)

    async def get(self, path: str = "/public/x") -> int:
        """A request, and its whole answer."""
        stream = self.peer.ask(request(path))
        while not (stream in self.peer.seen and self.peer.seen[stream].ended):
            await self.hear()
        return stream

    async def hear_the_end(self) -> None:
        while not self.ended:
            await self.hear()


@asynccontextmanager
async def connected(server: Server, **options: Any) -> AsyncIterator[tuple[Client, SimpleNamespace]]:
    """A client on a connection of its own."""
    async with rig(server, talk=lambda: Http2Conversation(PublicOnly())) as r:
        client = Client(*await r.connect(), Peer(client=True, **options))
        yield client, r


def leave(r: SimpleNamespace, how: str) -> None:
    """What ends an idle connection."""
    relay = r.owner.relays[0]
    if how == "stop":
        stop(relay)
    else:
        enforce(relay, monotonic() + 1000)


@pytest.mark.parametrize("how", ["stop", "idle"])
def test_an_idle_connection_ends_with_a_goaway(how: str) -> None:
    async def scenario() -> None:
        async with connected(Server()) as (client, r):
            await client.get()
            stream = await client.get("/secret")
            leave(r, how)
            await client.hear_the_end()
            assert client.peer.goaway == (stream, 0)
            client.writer.close()
            while not r.owner.gone:
                await asyncio.sleep(0.01)

    run(scenario)


@pytest.mark.parametrize("how", ["stop", "idle"])
def test_a_request_on_its_way_meets_no_reset(how: str) -> None:
    """By the GOAWAY the client knows that it was not taken."""

    async def scenario() -> None:
        server = Server()
        async with connected(server) as (client, r):
            stream = await client.get()
            leave(r, how)
            for _ in range(20):
                client.peer.ask(request())
                client.say()
                await asyncio.sleep(0.005)
            await client.hear_the_end()
            assert client.peer.goaway == (stream, 0) and server.streams == [stream]

    run(scenario)


def test_who_does_not_go_is_closed_after_a_while() -> None:
    async def scenario() -> None:
        async with connected(Server()) as (client, r):
            await client.get()
            leave(r, "stop")
            enforce(r.owner.relays[0], monotonic() + 1)
            leave(r, "stop")
            await client.hear_the_end()
            assert not r.owner.gone
            enforce(r.owner.relays[0], monotonic() + 5)
            while not r.owner.gone:
                await asyncio.sleep(0.01)

    run(scenario)


@pytest.mark.parametrize("how", ["stop", "idle"])
def test_before_a_request_came(how: str) -> None:
    async def scenario() -> None:
        async with connected(Server()) as (client, r):
            while not client.peer.settings:
                await client.hear()
            leave(r, how)
            await client.hear_the_end()
            assert client.peer.goaway == (0, 0)

    run(scenario)


@asynccontextmanager
async def cut_short(*, gone: bool) -> AsyncIterator[tuple[Client, Relay, int]]:
    """Our own answer has taken of a window that the server then fills, and ends; the stream of that answer."""
    server = Server(65_535, gone=gone)
    async with connected(server, greedy=False, options={2: 0, 4: 1_000_000}) as (client, r):
        assert denied(client.peer.seen[await client.get("/secret")])
        stream = client.peer.ask(request())
        relay = r.owner.relays[0]
        while not relay.responses.waiting:
            await client.hear()
        server.over.set()
        while not relay.responses.eof:
            await asyncio.sleep(0.01)
        yield client, relay, stream


@pytest.mark.parametrize("gone", [False, True])
def test_what_waits_for_room_is_not_lost_to_the_servers_fin(gone: bool) -> None:
    """Nor to the reset with which a server that is gone answers what the client still sends."""

    async def scenario() -> None:
        async with cut_short(gone=gone) as (client, relay, stream):
            while gone and relay.server is not None:
                client.peer.h2.ping(b"8 bytes.")
                client.say()
                await asyncio.sleep(0.01)
            for _ in range(100 if gone else 0):
                client.peer.raw(frames.raw(0xBA, 0, 0, bytes(8000)))
            client.peer.give()
            await client.hear_the_end()
            seen = client.peer.seen[stream]
            assert seen.data == b"y" * 65_535 and seen.ended

    run(scenario)


@pytest.mark.parametrize("gone", [False, True])
def test_a_client_that_ends_gives_no_more_room(gone: bool) -> None:
    async def scenario() -> None:
        async with cut_short(gone=gone) as (client, relay, _):
            client.writer.write_eof()
            await client.hear_the_end()
            while relay.open:
                await asyncio.sleep(0.01)

    run(scenario)


def test_a_client_that_gives_no_room_behind_the_servers_fin_is_reset_in_time() -> None:
    async def scenario() -> None:
        async with cut_short(gone=False) as (client, relay, _):
            enforce(relay, monotonic() + 1000)
            with pytest.raises(ConnectionResetError):
                await client.hear_the_end()

    run(scenario)
