"""A connection on which nothing moves ends in time, in words its client understands where there are any."""

from __future__ import annotations

import asyncio
import time

import pytest

from l7proxy.timeouts import enforce
from tests.rim.test_relay import echo, rig, run

pytestmark = pytest.mark.privileged


def test_time_outs() -> None:
    async def scenario() -> None:
        async with rig(echo, limits={"head_timeout": 0.1, "idle_timeout": 0.2}) as r:
            reader, writer = await r.connect()
            writer.write(b"half a li")
            await asyncio.sleep(0.2)
            enforce(r.owner.relays[0], time.monotonic())
            assert await reader.read() == b"408\n"
            reader, writer = await r.connect()
            writer.write(b"pass\n")
            assert await reader.readline() == b"pass\n"
            await asyncio.sleep(0.3)
            enforce(r.owner.relays[1], time.monotonic())
            assert await reader.read() in (b"", b"server saw the end\n")

    run(scenario)


def test_a_client_that_owes_a_body_is_reset_in_time() -> None:
    async def scenario() -> None:
        async with rig(echo, limits={"idle_timeout": 0.2}) as r:
            reader, writer = await r.connect()
            writer.write(b"pass\n")
            assert await reader.readline() == b"pass\n"
            relay = r.owner.relays[0]
            relay.conversation.idle, relay.conversation.receiving = False, True
            enforce(relay, time.monotonic())
            assert not relay.lingering
            await asyncio.sleep(0.3)
            enforce(relay, time.monotonic())
            with pytest.raises(ConnectionResetError):
                await reader.read()

    run(scenario)
