"""A worker under rules for Cassandra: refusals over sockets, their records, and a policy that changes meanwhile."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.cassandra import words
from tests.cassandra.rig import code_of, stream_of
from tests.rim.test_relay import run
from tests.rim.test_worker import CQL, rig

pytestmark = pytest.mark.privileged


async def envelope(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(9)
    return head + await reader.readexactly(int.from_bytes(head[5:], "big"))


def test_what_cannot_be_read_and_its_record() -> None:
    async def scenario() -> None:
        async with rig(policy=CQL) as r:
            reader, writer = await r.connect()
            writer.write(words.query("SELECT * FROM shop.secrets", 4, 77))
            answer = await envelope(reader)
            assert (stream_of(answer), code_of(answer)) == (77, 0x000A) and await reader.read() == b""
            writer.close()
            lines = await r.stop()
            flow = json.loads(lines[0])["flow"]
            own = flow["extensions"]["value"]["l7proxy"]
            assert flow["verdict"] == "DROPPED" and "before the server has let the client in" in own["reason"]
            assert [row[:3] for row in r.worker.metrics.snapshot()["requests"]] == [["Cassandra", "DROPPED", "api"]]

    run(scenario)


def test_a_version_that_is_too_new_over_a_socket() -> None:
    async def scenario() -> None:
        async with rig(policy=CQL) as r:
            reader, writer = await r.connect()
            writer.write(bytes([66]) + words.options(4)[1:])
            answer = await envelope(reader)
            assert answer[0] == 0x85 and b"supported versions are (3/v3, 4/v4, 5/v5)" in answer

    run(scenario)
