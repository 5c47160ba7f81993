"""When a relay opens its bridges, and how it takes a connection back: with bridges of the test's own."""

from __future__ import annotations

import asyncio
import errno
import time
from types import SimpleNamespace

import pytest

from l7proxy.half import PUMP_FROM
from l7proxy.ops import FOREVER, Carried
from l7proxy.straight import Straight
from l7proxy.timeouts import enforce
from tests.rim.test_relay import echo, rig, run

pytestmark = pytest.mark.privileged
LARGE = 4 * PUMP_FROM


class Bridge:
    """What the kernel would carry is what the test says."""

    def __init__(self) -> None:
        self.opened: list[tuple[int, int | None]] = []
        self.shuts = self.sent = self.left = 0
        self.full = False

    def open(self, read: int, limit: int | None = None) -> None:
        if self.full:
            raise OSError(errno.E2BIG, "full")
        self.opened.append((read, limit))

    def shut(self) -> None:
        self.shuts += 1

    def carried(self) -> int:
        return self.sent

    def unread(self) -> int:
        return self.left


async def happens(what: object) -> None:
    """`what` is called until it is true."""
    while not what():  # type: ignore[operator]
        await asyncio.sleep(0.001)


async def opened(r: SimpleNamespace, first: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Bridge]:
    """A connection whose direction to the server is bridged behind `first` and two bytes more."""
    made: list[Bridge] = []

    def make() -> Bridge:
        made.append(Bridge())
        return made[-1]

    r.owner.bridges = make
    reader, writer = await r.connect()
    for data in (first, b"ab"):
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
    await happens(lambda: made and made[0].opened)
    return reader, writer, made[0]


def test_a_tunnel_is_bridged_behind_what_was_read() -> None:
    async def scenario() -> None:
        async with rig(echo) as r:
            reader, writer, bridge = await opened(r, b"tunnel\n")
            assert bridge.opened == [(9, None)]
            bridge.sent = 1000
            writer.write(b"more")
            assert await reader.readexactly(4) == b"more"
            await happens(lambda: len(bridge.opened) == 2)
            assert bridge.opened[1] == (13, None)
            relay = r.owner.relays[0]
            assert (relay.requests.total, relay.requests.credit) == (1013, FOREVER - 1013)
            bridge.sent = 1500
            relay.abort()
            assert bridge.shuts and relay.requests.total == 1513

    run(scenario)


def test_a_body_ends_where_its_count_does() -> None:
    async def scenario() -> None:
        async with rig(echo) as r:
            head = b"take %d\n" % LARGE
            reader, writer, bridge = await opened(r, head)
            assert bridge.opened == [(len(head) + 2, LARGE - 2)]
            bridge.sent = LARGE - 6
            writer.write(b"cdefdeny\npass\n")
            assert (await reader.readexactly(16)).replace(b"denied\n", b"") == b"cdefpass\n"
            assert r.owner.relays[0].requests.total == len(head) + LARGE + 10

    run(scenario)


@pytest.mark.parametrize("rest", [b"", b"cdef"])
def test_what_follows_waits_until_the_server_has_read_what_went_straight(rest: bytes) -> None:
    async def scenario() -> None:
        async with rig(echo) as r:
            reader, writer, bridge = await opened(r, b"take %d\n" % LARGE)
            bridge.sent, bridge.left = LARGE - 2 - len(rest), 1
            writer.write(rest + b"pass\n")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(100), 0.2)
            relay = r.owner.relays[0]
            assert relay.requests.held and relay.requests.backlog()
            writer.write(b"pass\n")
            bridge.left = 0
            assert await reader.readexactly(len(rest) + 10) == rest + b"pass\npass\n"
            assert not relay.requests.held

    run(scenario)


def test_the_end_of_a_body_that_nobody_follows_is_noticed() -> None:
    async def scenario() -> None:
        async with rig(echo) as r:
            reader, writer, bridge = await opened(r, b"take %d\n" % LARGE)
            relay = r.owner.relays[0]
            assert relay.requests.credit == LARGE - 2
            bridge.sent, relay.last = LARGE - 2, 0.0
            enforce(relay, time.monotonic())
            assert not relay.requests.credit and relay.last
            bridge.left = 1  # it is asked for at the next bytes all the same
            writer.write(b"pass\n")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(100), 0.2)
            bridge.left = 0
            assert await reader.readline() == b"pass\n"
            writer.write(b"deny\n")
            assert await reader.readline() == b"denied\n"

    run(scenario)


def test_bytes_that_go_straight_keep_a_connection_alive() -> None:
    async def scenario() -> None:
        async with rig(echo, limits={"idle_timeout": 0.2}) as r:
            reader, _, bridge = await opened(r, b"tunnel\n")
            relay = r.owner.relays[0]
            for _ in range(3):
                bridge.sent += 1
                await asyncio.sleep(0.25)
                enforce(relay, time.monotonic())
                assert not relay.lingering
            await asyncio.sleep(0.25)
            enforce(relay, time.monotonic())
            assert await reader.read() in (b"", b"server saw the end\n")

    run(scenario)


def test_an_end_or_a_reset_while_bytes_wait() -> None:
    async def scenario() -> None:
        async with rig(echo) as r:
            reader, writer, bridge = await opened(r, b"take %d\n" % LARGE)
            bridge.sent, bridge.left = LARGE - 2, 1
            writer.write(b"pass\n")
            writer.write_eof()
            relay = r.owner.relays[0]
            await happens(lambda: relay.requests.held)
            bridge.left = 0
            assert await reader.read() == b"pass\nserver saw the end\n"
            _, writer, bridge = await opened(r, b"take %d\n" % LARGE)
            bridge.sent, bridge.left = LARGE - 2, 1
            writer.write(b"pass\n")
            relay = r.owner.relays[1]
            await happens(lambda: relay.requests.held)
            writer.transport.abort()
            relay.server.abort()
            await happens(lambda: r.owner.gone == 2)
            bridge.left = 0
            await asyncio.sleep(0.1)
            assert not r.owner.failures

    run(scenario)


def test_a_fin_behind_a_body_that_went_straight_does_not_cut_it_short() -> None:
    async def scenario() -> None:
        async with rig(echo) as r:
            reader, writer, bridge = await opened(r, b"take %d\n" % LARGE)
            relay = r.owner.relays[0]
            bridge.sent = LARGE - 2
            writer.write_eof()
            assert await reader.read() == b"server saw the end\n"
            assert not relay.requests.credit

    run(scenario)


def test_what_is_said_of_a_connection_that_is_over() -> None:
    async def scenario() -> None:
        async with rig(echo) as r:
            reader, writer, bridge = await opened(r, b"tunnel\n")
            bridge.sent = 1000
            writer.write_eof()
            assert await reader.read() == b"server saw the end\n"
            await happens(lambda: r.owner.gone)
            relay = r.owner.relays[0]
            assert relay.requests.carried() == Carried(1000, 9, 9, 9)
            assert relay.responses.carried() == Carried(0, 28, 0, 0)  # there was never anything to go by count

    run(scenario)


def test_a_full_table_of_bridges_means_copying() -> None:
    bridge = Bridge()
    bridge.full = True
    straight = Straight(bridge)
    straight.open(10, FOREVER)
    assert not straight.opened


def test_a_sender_that_is_always_ahead_is_seldom_waited_for() -> None:
    bridge = Bridge()
    straight = Straight(bridge)

    def opened(times: int) -> int:
        before = len(bridge.opened)
        for read in range(times):
            if straight.due():
                straight.open(read, FOREVER)
        return len(bridge.opened) - before

    assert opened(4) == 4 and not straight.in_vain
    assert 30 < opened(10_000) < 60 and straight.in_vain
    bridge.sent = 1
    assert straight.news() == 1 and not straight.in_vain
    assert opened(4) == 4


def test_bytes_that_are_not_known_of_yet_are_in_the_limit() -> None:
    bridge = Bridge()
    straight = Straight(bridge)
    straight.open(10, 1000)
    bridge.sent = 300
    straight.open(10, 1000)  # as before: 300 of these have gone
    assert straight.news() == 300
    straight.open(310, 700)
    assert bridge.opened == [(10, 1000)] * 3


def test_a_source_that_has_left_the_map_is_pumped() -> None:
    async def scenario() -> None:
        async with rig(echo) as r:
            reader, writer, bridge = await opened(r, b"take %d\n" % LARGE)
            r.owner.bridges = None  # it is not in the map any more
            half, left = r.owner.relays[0].requests, LARGE - 2
            while half.pump is None:
                writer.write(b"more")
                assert await reader.readexactly(4) == b"more"
                left -= 4
                await asyncio.sleep(0)
            assert len(bridge.opened) == 5 and half.credit == left
            writer.write(bytes(left) + b"pass\n")
            assert await reader.readexactly(left + 5) == bytes(left) + b"pass\n"

    run(scenario)
