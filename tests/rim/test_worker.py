"""A worker without its supervisor and its datapath: what it accepts, counts, and survives."""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, cast

import pytest

from l7proxy.control import FrameReader, Kind, frame
from l7proxy.limits import Limits
from l7proxy.origin import PolicyView
from l7proxy.snapshot import Snapshot
from l7proxy.worker import Worker
from sockmap.flows import BLOCKED, PROXY, UPSTREAM, Flow, FlowTable, ListenerTable
from tests.rim.test_origin import Node
from tests.rim.test_relay import run

pytestmark = pytest.mark.privileged
DENIED = b"GET /secret HTTP/1.1\r\nHost: a\r\n\r\n"
ANY_PORT = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: api}
spec:
  endpointSelector: {matchLabels: {app: api}}
  ingress:
  - toPorts: [{ports: [{port: "1", endPort: 65535, protocol: TCP}], rules: {http: [{path: "/public"}]}}]
"""
KAFKA = ANY_PORT.replace('http: [{path: "/public"}]', "kafka: [{topic: orders}]")
CQL = ANY_PORT.replace('http: [{path: "/public"}]', "cql: [{keyspace: shop, table: orders}]")


class Steered:
    """Stands for both kernel maps: every connection is `flow`, and the listeners' ports are kept."""

    def __init__(self, flow: Flow | None) -> None:
        self.flow = flow
        self.ports: dict[int, int] = {}

    def lookup(self, *_: Any) -> Flow | None:
        return self.flow

    def put(self, slot: int, descriptor: int) -> None:
        with socket.socket(fileno=os.dup(descriptor)) as copy:
            self.ports[slot] = copy.getsockname()[1]


class Rig:
    """A running worker, and the supervisor's end of its channel."""

    def __init__(self, limits: Limits, policy: str = ANY_PORT) -> None:
        self.node = Node(policy)
        whole = self.node.view.snapshot
        self.snapshot = replace(whole, settings=replace(whole.settings, limits=limits))
        front, api = self.node.front, self.node.api
        self.steered = Steered(Flow(front.identity.number, api.identity.number, front.id, api.id, 1, PROXY))
        self.ours, theirs = socket.socketpair()
        self.ours.setblocking(False)
        theirs.setblocking(False)
        self.worker = Worker(0, cast(FlowTable, self.steered), cast(ListenerTable, self.steered), theirs)
        self.frames: list[tuple[Kind, bytes]] = []
        self.task = asyncio.create_task(self.worker.run())
        self.reading = asyncio.create_task(self.read())

    async def read(self) -> None:
        reader = FrameReader(lambda kind, body: self.frames.append((kind, body)))
        while data := await asyncio.get_running_loop().sock_recv(self.ours, 1 << 20):
            reader.feed(data)

    async def tell(self, snapshot: Snapshot) -> None:
        """Give it a generation, and wait until that is in force."""
        self.ours.send(frame(Kind.SNAPSHOT, pickle.dumps(snapshot)))
        ready = (Kind.READY, struct.pack("<Q", snapshot.generation))
        while ready not in self.frames:
            await asyncio.sleep(0.005)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.steered.ports[0])

    async def stop(self) -> list[bytes]:
        """Ask it to end; the records that it sent."""
        self.ours.send(frame(Kind.STOP, b""))
        await self.task
        await self.reading
        return b"".join(body[4:] for kind, body in self.frames if kind is Kind.FLOWS).splitlines()


@asynccontextmanager
async def rig(limits: Limits | None = None, policy: str = ANY_PORT) -> AsyncIterator[Rig]:
    made = Rig(limits or Limits(grace=0.1), policy)
    await made.tell(made.snapshot)
    try:
        yield made
    finally:
        if not made.task.done():
            await made.stop()
        made.ours.close()


async def refused(r: Rig) -> bool:
    reader, writer = await r.connect()
    writer.write(DENIED)
    with suppress(ConnectionResetError):
        return await asyncio.wait_for(reader.read(), 2) == b""
    return True


@pytest.mark.parametrize("flags", [0, PROXY | UPSTREAM, PROXY | BLOCKED, None])
def test_what_was_not_steered_here_is_reset(flags: int | None) -> None:
    async def scenario() -> None:
        async with rig() as r:
            assert r.steered.flow is not None
            r.steered.flow = None if flags is None else r.steered.flow._replace(flags=flags)
            assert await refused(r)
            assert not r.worker.relays

    run(scenario)


def test_an_error_in_the_policy_resets_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with rig() as r:

            def fail(*_: Any) -> None:
                raise KeyError(77)

            monkeypatch.setattr(PolicyView, "origin", fail)
            assert await refused(r)

    run(scenario)


def test_connections_are_counted_for_one_endpoint_from_beginning_to_end() -> None:
    async def scenario() -> None:
        async with rig() as r:
            _, writer = await r.connect()
            while not r.worker.relays:
                await asyncio.sleep(0.005)
            assert r.worker.by_endpoint == {"api": 1}
            # The same endpoint under another name: the connection lives on, and is counted for both in no way.
            names = {**r.snapshot.endpoints, r.node.api.id: "renamed"}
            await r.tell(replace(r.snapshot, generation=2, endpoints=names))
            assert next(iter(r.worker.relays)).origin.endpoint == "renamed"
            writer.close()
            while r.worker.relays:
                await asyncio.sleep(0.005)
            assert r.worker.by_endpoint == {}

    run(scenario)


def test_a_connection_does_not_outlive_its_endpoint() -> None:
    async def scenario() -> None:
        async with rig() as r:
            reader, _ = await r.connect()
            while not r.worker.relays:
                await asyncio.sleep(0.005)
            api = r.node.api.id
            names = {number: name for number, name in r.snapshot.endpoints.items() if number != api}
            await r.tell(replace(r.snapshot, generation=2, endpoints={**names, api + 1: "api"}))
            with pytest.raises(ConnectionResetError):
                await reader.read()
            assert not r.worker.relays

    run(scenario)


def test_one_failing_connection_does_not_stop_the_clock_or_a_new_policy() -> None:
    async def scenario() -> None:
        async with rig(Limits(head_timeout=0.1, grace=0.1)) as r:
            bad, _ = await r.connect()
            while not r.worker.relays:
                await asyncio.sleep(0.005)

            def fail(*_: Any) -> None:
                raise RuntimeError("tick")

            next(iter(r.worker.relays)).conversation = cast(Any, fail)  # has no `idle`, no `head_pending`
            next(iter(r.worker.relays)).last = -1e9
            reader, writer = await r.connect()
            writer.write(b"GET / HT")
            assert b" 408 " in await asyncio.wait_for(reader.read(), 5)
            with pytest.raises(ConnectionResetError):
                await bad.read()

    run(scenario)


def test_the_limit_of_connections() -> None:
    async def scenario() -> None:
        async with rig(Limits(connections_per_endpoint=1, grace=0.1)) as r:
            reader, writer = await r.connect()
            writer.write(DENIED)
            assert b" 403 " in await reader.readline()
            assert await refused(r)
            writer.close()
            while r.worker.relays:
                await asyncio.sleep(0.005)
            reader, writer = await r.connect()
            writer.write(DENIED)
            assert b" 403 " in await reader.readline()

    run(scenario)


def test_more_refusals_than_may_wait_are_all_answered() -> None:
    async def scenario() -> None:
        async with rig() as r:
            reader, writer = await r.connect()
            writer.write(DENIED * 200)
            answers = b""
            while answers.count(b"Access denied") < 200:
                answers += await asyncio.wait_for(reader.read(1 << 16), 5)

    run(scenario)


def test_a_stop_does_not_wait_for_clients_that_have_heard_their_last_words() -> None:
    async def scenario() -> None:
        async with rig(Limits(grace=1000)) as r:
            reader, writer = await r.connect()
            writer.write(DENIED.replace(b"Host", b"Connection: close\r\nHost"))
            assert b" 403 " in await reader.read()
            _, late = await r.connect()
            late.write(DENIED + DENIED[:9])
            await r.stop()
            assert not r.worker.relays and not writer.is_closing() and not late.is_closing()

    run(scenario)


def test_every_record_is_sent_before_the_end() -> None:
    async def scenario() -> None:
        async with rig() as r:
            reader, writer = await r.connect()
            r.reading.cancel()
            for _ in range(20):
                writer.write(DENIED * 200)
                answers = b""
                while answers.count(b"Access denied") < 200:
                    answers += await reader.read(1 << 16)
            r.ours.send(frame(Kind.STOP, b""))
            await asyncio.sleep(0.3)
            r.reading = asyncio.create_task(r.read())
            await r.task
            await r.reading
            records = b"".join(body[4:] for kind, body in r.frames if kind is Kind.FLOWS).splitlines()
            assert len(records) == 20 * 200

    run(scenario)


@pytest.mark.parametrize("other", [KAFKA, CQL], ids=["kafka", "cassandra"])
@pytest.mark.parametrize("http_first", [True, False])
def test_rules_for_another_protocol_end_a_connection(other: str, http_first: bool) -> None:
    first, then = (ANY_PORT, other) if http_first else (other, ANY_PORT)

    async def scenario() -> None:
        async with rig(policy=first) as r:
            reader, _ = await r.connect()
            while not r.worker.relays:
                await asyncio.sleep(0.005)
            await r.tell(replace(r.node.load(then).snapshot, generation=2, settings=r.snapshot.settings))
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
            assert not r.worker.relays

    run(scenario)
