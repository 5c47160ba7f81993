"""A worker under rules for Kafka: refusals over real sockets, their records, and a policy that changes meanwhile."""

from __future__ import annotations

import asyncio
import json
import struct
from dataclasses import replace

import pytest

from tests.kafka.rig import answer, produce
from tests.rim.test_relay import run
from tests.rim.test_worker import KAFKA, rig

pytestmark = pytest.mark.privileged


async def frame(reader: asyncio.StreamReader) -> bytes:
    size = await reader.readexactly(4)
    return size + await reader.readexactly(*struct.unpack(">i", size))


def test_a_refusal_and_its_record() -> None:
    async def scenario() -> None:
        async with rig(policy=KAFKA) as r:
            reader, writer = await r.connect()
            for number in (1, 2):
                writer.write(produce("payments", number=number))
                (topic,) = answer(await frame(reader), "Produce", 9, number)["responses"]
                assert topic["partition_responses"][0]["error_code"] == 29
            writer.close()
            lines = await r.stop()
            flow = json.loads(lines[1])["flow"]
            kafka = {"error_code": 29, "api_version": 9, "api_key": "Produce", "correlation_id": 2, "topic": "payments"}
            assert (flow["verdict"], flow["l7"]["kafka"]) == ("DROPPED", kafka)
            assert [row[:3] for row in r.worker.metrics.snapshot()["requests"]] == [["Kafka", "DROPPED", "api"]]

    run(scenario)


def test_other_rules_for_the_same_protocol_do_not() -> None:
    async def scenario() -> None:
        async with rig(policy=KAFKA.replace("orders", "payments")) as r:
            reader, writer = await r.connect()
            while not r.worker.relays:
                await asyncio.sleep(0.005)
            await r.tell(replace(r.node.load(KAFKA).snapshot, generation=2, settings=r.snapshot.settings))
            writer.write(produce("payments"))
            assert answer(await frame(reader), "Produce", 9)["responses"]

    run(scenario)
