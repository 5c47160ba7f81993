"""A worker whose peers let the others wait: bytes that trickle in, and a server that swallows what it is asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from l7proxy.limits import Limits
from parsers.cassandra import Opcode
from parsers.options import CassandraOptions, KafkaOptions
from tests.cassandra import words
from tests.cassandra.rig import code_of, own, split, stream_of, tells
from tests.cassandra.test_worker import envelope
from tests.kafka.rig import produce
from tests.kafka.test_worker import frame
from tests.rim.test_relay import run
from tests.rim.test_worker import CQL, KAFKA, Rig, rig

pytestmark = pytest.mark.privileged
LIMITS = Limits(head_timeout=0.5, idle_timeout=1.5, grace=0.1)
OPEN = "SELECT * FROM shop.orders"
LARGE = words.query(OPEN + " " * 500_000, 4, 1), produce("orders", "payments", size=500_000)


def answers(asked: bytes) -> bytes:
    """Those of a server of version 4 that says nothing to a USE."""
    found = b""
    for one in split(asked):
        if one[4] == Opcode.STARTUP:
            found += words.ready(4, stream_of(one))
        elif own(one):
            found += tells(one)
        elif b"USE" not in one:
            found += words.rows(4, stream_of(one))
    return found


@asynccontextmanager
async def worker(policy: str) -> AsyncIterator[Rig]:
    """One with little room, in front of that server."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waits = b""
        while data := await reader.read(1 << 20):
            waits += data
            whole = b"".join(split(waits))
            waits = waits[len(whole) :]
            writer.write(answers(whole))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    async with rig(LIMITS, policy) as made:
        find: Callable[..., Any] = made.worker._origin
        # Every connection leads to this server: without the kernel's part nobody would say where it goes.
        made.worker._origin = lambda client, _: find(client, address)  # type: ignore[method-assign]
        settings = replace(
            made.snapshot.settings,
            cassandra=CassandraOptions(max_held=1 << 20, max_held_together=600_000),
            kafka=KafkaOptions(max_held=1 << 20, max_held_together=600_000),
        )
        await made.tell(replace(made.snapshot, generation=2, settings=settings))
        yield made
    server.close()


async def trickle(r: Rig, data: bytes) -> None:
    """Most of a message, and then a byte now and then; until the connection ends."""
    reader, writer = await r.connect()
    writer.write(data[:250_000])
    with suppress(ConnectionError):
        for byte in data[250_000:]:
            await writer.drain()
            writer.write(bytes([byte]))
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.read(), 0.1)
                break
    writer.close()


@pytest.mark.parametrize(("policy", "large"), list(zip((CQL, KAFKA), LARGE, strict=True)), ids=("cassandra", "kafka"))
def test_who_sends_a_byte_now_and_then_loses_the_place(policy: str, large: bytes) -> None:
    async def scenario() -> None:
        async with worker(policy) as r:
            first = asyncio.create_task(trickle(r, large))
            await asyncio.sleep(2)
            pool = r.worker.known.cassandra if policy is CQL else r.worker.known.kafka
            assert not first.done() and pool.held > 250_000, "alone it takes nobody's place"
            second = asyncio.create_task(trickle(r, large))
            done, _ = await asyncio.wait((first, second), timeout=4, return_when=asyncio.FIRST_COMPLETED)
            assert done and pool.held < 300_000
            reader, writer = await r.connect()
            if policy is CQL:
                writer.write(words.startup(4))
                await envelope(reader)
                writer.write(words.query(OPEN + " " * 300_000, 4, 9))
                assert stream_of(await envelope(reader)) == 9
            else:
                writer.write(produce("payments", "secrets", size=150_000))
                assert await frame(reader)
            for task in (first, second):
                task.cancel()
            lines = await r.stop()
            assert "held for long" in str(json.loads(lines[0]))

    run(scenario)


def test_a_use_that_the_server_swallows() -> None:
    async def scenario() -> None:
        async with worker(CQL.replace("cql: [", "cql: [{action: use}, ")) as r:
            reader, writer = await r.connect()
            writer.write(words.startup(4))
            await envelope(reader)
            writer.write(words.query(OPEN, 4, 1))
            assert stream_of(await envelope(reader)) == 1
            writer.write(words.query("USE shop", 4, 2) + words.query(OPEN, 4, 3))
            began = asyncio.get_running_loop().time()
            answer = await asyncio.wait_for(envelope(reader), 5)
            assert (stream_of(answer), code_of(answer)) == (2, 0x0000) and b"no answer in time" in answer
            assert await reader.read() == b"" and asyncio.get_running_loop().time() - began > 1.5
            flow = json.loads((await r.stop())[-1])["flow"]
            own = flow["extensions"]["value"]["l7proxy"]
            assert own["cassandra"]["kind"] == "use" and "no answer in time" in own["reason"]

    run(scenario)
