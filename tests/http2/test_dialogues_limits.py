"""What a client can make grow has an end: GOAWAY(ENHANCE_YOUR_CALM); and what honest clients do has none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from l7proxy.ops import Close
from parsers.http2 import Code
from tests.conversations import REQUEST, RESPONSE
from tests.http2 import frames
from tests.http2.frames import indexed, inserting, plain, raw, request
from tests.http2.peers import OK, Peer, Wire, denied
from tests.http2.rig import Stage

GET, SECRET = plain(request()), plain(request("/secret", method="POST"))
MANY = 20_000


def odd(number: int) -> int:
    return 2 * number + 1


FLOODS: dict[str, Callable[[int], bytes]] = {
    "PING": lambda _: frames.ping(),
    "SETTINGS": lambda _: frames.settings((3, 5)),
    "empty SETTINGS": lambda _: frames.settings(),
    "PRIORITY": lambda number: frames.priority(odd(number)),
    "PRIORITY of one stream": lambda _: frames.priority(1),
    "empty DATA": lambda number: frames.data(1) if number else frames.headers(1, GET, end=False),
    "padding only": lambda number: frames.data(1, pad=0) if number else frames.headers(1, GET, end=False),
    "rapid reset": lambda number: frames.headers(odd(number), GET) + frames.rst(odd(number), 8),
    "rapid reset of refused requests": lambda number: (
        frames.headers(odd(number), SECRET, end=False) + frames.rst(odd(number), 8)
    ),
    "empty DATA on a refused stream": lambda number: frames.data(1) if number else frames.headers(1, SECRET, end=False),
    "unknown frames": lambda _: raw(0xBA, 0, 0),
    "RST_STREAM of one stream": lambda number: frames.rst(1) if number else frames.headers(1, GET),
    "malformed requests": lambda number: frames.headers(odd(number), plain(request("public"))),
    "refused streams held open": lambda number: frames.headers(odd(number), SECRET, end=False),
}


def calm(stage: Stage) -> bool:
    """The connection was ended, the reason given to both the client and the log."""
    if stage.ending is None:
        return False
    assert isinstance(stage.ending, Close) and stage.ending.reason
    assert stage.client.goaway and stage.client.goaway[1] == Code.ENHANCE_YOUR_CALM
    return True


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_comes_to_an_end(name: str) -> None:
    stage = Stage(client=Wire(client=True, polite=False), server=Wire(client=False))
    for start in range(0, MANY, 100):
        stage.client.raw(b"".join(FLOODS[name](number) for number in range(start, start + 100)))
        stage.arrive(REQUEST)
        stage.hand(REQUEST)
        stage.arrive(RESPONSE)
        stage.hand(RESPONSE)
        if calm(stage):
            break
    else:
        raise AssertionError("no end")
    assert 200 <= start < MANY


@pytest.mark.parametrize("piece", [b"", b"\x00\x01x\x01y"], ids=["empty", "with fields"])
@pytest.mark.parametrize("block", [GET, SECRET], ids=["allowed", "refused"])
def test_a_flood_of_continuation(block: bytes, piece: bytes) -> None:
    stage = Stage(client=Wire(client=True))
    stage.client.raw(raw(frames.HEADERS, 0, 1, block))
    for _ in range(MANY):
        stage.client.raw(raw(frames.CONTINUATION, 0, 1, piece))
    stage.settle()
    assert calm(stage) and stage.server.seen == {} and stage.rig.judge.judged == []


def test_a_block_beyond_all_bounds() -> None:
    stage = Stage(client=Wire(client=True))
    stage.client.raw(raw(frames.HEADERS, 0, 1, GET))
    for _ in range(100):
        stage.client.raw(raw(frames.CONTINUATION, 0, 1, plain([(b"x", b"y" * 16_000)])))
        stage.settle()
        assert len(stage.rig.halves[REQUEST].pending) < 200_000
        if stage.ending:
            break
    assert calm(stage) and stage.server.seen == {}


@pytest.mark.parametrize("block", [GET, SECRET], ids=["allowed", "refused"])
def test_a_small_block_that_is_large_once_it_is_read(block: bytes) -> None:
    stage = Stage(client=Wire(client=True))
    bomb = block + inserting([(b"x-bomb", b"y" * 4000)]) + indexed(*[62] * 4000)
    stage.client.raw(frames.headers(1, bomb))
    stage.settle()
    assert stage.server.seen == {} and calm(stage)


def test_more_fields_than_any_request_has() -> None:
    stage = Stage(client=Wire(client=True))
    stage.client.raw(frames.headers(1, GET + indexed(*[33] * 10_000)))
    stage.settle()
    assert stage.server.seen == {}
    assert stage.client.seen[1].reset if 1 in stage.client.seen else calm(stage)


def test_more_streams_than_the_server_allows() -> None:
    server = Peer(client=False, options={3: 10})
    stage = Stage(client=Wire(client=True), server=server)
    for number in range(MANY):
        if stage.ending:
            break
        stage.client.raw(frames.headers(odd(number), GET, end=False))
        stage.settle()
    assert calm(stage) and len(server.seen) <= 10


def test_a_few_too_many_cost_only_themselves() -> None:
    """The client may not have known how many the server allows."""
    stage = Stage(server=Peer(client=False, options={3: 10}), begin=False)
    for _ in range(15):
        stage.client.ask(request())
    stage.settle()
    assert stage.ending is None


def test_refused_streams_take_no_place_at_the_server() -> None:
    stage = Stage(client=Wire(client=True), server=Peer(client=False, options={3: 10}))
    for number in range(50):
        stage.client.raw(frames.headers(odd(number), SECRET, end=False))
        stage.client.raw(frames.data(odd(number), b"x", end=True))
        stage.settle()
        assert denied(stage.client.seen[odd(number)])
    stage.works()


def test_honest_work_is_no_flood() -> None:
    """A busy client: many requests, each with a message or two, with what gRPC does to measure its line."""
    stage = Stage(client=Peer(client=True, options={2: 0, 4: 1 << 20}))
    for number in range(1500):
        refused = stage.client.ask(request("/secret"))
        stream = stage.client.ask(request(method="POST"), end=False)
        stage.client.send(stream, b"x" * 10, end=True)
        if number % 2:
            stage.client.h2.ping(b"measured")
        stage.settle()
        stage.server.reply(stream, [*OK, (b"content-type", b"application/grpc")], b"y" * 2000, trailers=[(b"a", b"b")])
        stage.settle()
        assert stage.ending is None and stage.client.seen[stream].ended and stage.client.seen[refused].code == 403
    stage.works()


def test_cancelling_now_and_then_is_no_flood() -> None:
    stage = Stage()
    for number in range(1000):
        stream = stage.get()
        if number % 3:
            stage.server.reply(stream, body=b"y")
        else:
            stage.client.h2.reset_stream(stream, 8)
        stage.settle()
    stage.works()


def test_a_stream_of_small_messages_is_no_flood() -> None:
    stage = Stage()
    stream = stage.client.ask(request(method="POST"), end=False)
    stage.settle()
    for _ in range(3000):
        stage.client.send(stream, b"x")
        stage.settle()
    assert len(stage.server.seen[stream].data) == 3000
    stage.works()


def test_what_waits_for_the_servers_frame_has_an_end() -> None:
    """A server that stops within a frame, and a client that asks for ever more refusals."""
    stage = Stage(client=Wire(client=True), server=Wire(client=False))
    stage.client.raw(frames.headers(1, GET))
    stage.settle()
    stage.server.reply(1, body=b"y" * 1000)
    stage.arrive(RESPONSE, 500)
    for number in range(1, MANY):
        if stage.ending or stage.rig.halves[REQUEST].waiting:
            break
        stage.client.raw(frames.headers(odd(number), plain(request("/secret"))))
        stage.arrive(REQUEST)
    else:
        raise AssertionError("no end")
    if stage.ending:
        assert "too much waits" in stage.ending.reason
    else:
        stage.settle()
        assert all(denied(seen) or seen.code == 403 for one, seen in stage.client.seen.items() if one > 1)


def test_refused_uploads_for_days() -> None:
    """The client never says that it is done with them: all but the last few are reset by us."""
    stage = Stage(client=Wire(client=True), server=Wire(client=False))
    for number in range(6000):
        stage.rig.now += 0.01
        stage.client.raw(frames.headers(odd(number), SECRET, end=False) + frames.update(0, 15))
        stage.arrive(REQUEST)
    stage.settle()
    assert stage.ending is None
    resets = [stage.client.seen[odd(number)].reset for number in range(6000)]
    assert resets == [0] * 5500 + [None] * 500
    stage.works()


def test_uploads_that_the_server_resets_for_days() -> None:
    stage = Stage(client=Wire(client=True), server=Wire(client=False))
    for number in range(6000):
        stage.rig.now += 0.01
        stage.client.raw(frames.headers(odd(number), GET, end=False))
        stage.arrive(REQUEST)
        stage.server.raw(frames.headers(odd(number), plain(OK)) + frames.rst(odd(number)))
        stage.arrive(RESPONSE)
    stage.settle()
    assert stage.ending is None and len(stage.rig.records) == 6000
    stage.works()


# -- what has to be there whole ---------------------------------------------------------------------------------------

HELD, OF_ONE = 65_536, [(frames.FRAME, 1 << 20)]
"""Bytes: `http.max_head`, which is never more than the relay holds."""
ANSWER = plain(OK)
OVERSIZED: dict[str, Callable[[int, int], bytes]] = {
    "HEADERS": lambda stream, size: raw(frames.HEADERS, 5 | frames.PADDED, stream, b"\0", size - 9),
    "a block in two frames": lambda stream, size: (
        raw(frames.HEADERS, 1, stream, ANSWER) + raw(frames.CONTINUATION, 4, stream, b"", size - 18 - len(ANSWER))
    ),
    "PRIORITY_UPDATE": lambda _, size: raw(0x10, 0, 0, b"", size - 9),
    "an unknown frame": lambda stream, size: raw(0xBA, 0, stream, b"", size - 9),
    "GOAWAY": lambda _, size: raw(frames.GOAWAY, 0, 0, b"", size - 9),
}


def held(direction: int, size: int, name: str) -> Stage:
    """A frame, or a block, of `size` bytes in all, from either end; of its payload only zeros come, but the last."""
    stage = Stage(client=Wire(client=True, options=(*OF_ONE,)), server=Wire(client=False, options=(*OF_ONE,)))
    stage.client.raw(frames.headers(1, GET, end=False))
    stage.settle()
    start = OVERSIZED[name](1 if direction else 3, size)
    stage.ends[direction].raw(start)
    stage.settle()
    rest = size - len(start) - 1
    while rest > 0 and not stage.ending:
        stage.ends[direction].raw(bytes(min(rest, 10_000)))
        rest -= 10_000
        stage.settle()
    return stage


@pytest.mark.parametrize("name", OVERSIZED)
@pytest.mark.parametrize("direction", [REQUEST, RESPONSE])
def test_what_is_never_complete_within_what_is_held(direction: int, name: str) -> None:
    """Nothing more would be read of that side, and so the rest of it would never come."""
    assert held(direction, HELD, name).ending is None
    stage = held(direction, HELD + 1, name)
    assert calm(stage) and f"{HELD} are held" in stage.ending.reason
    assert len(stage.rig.halves[direction].pending) < 200


@pytest.mark.parametrize("direction", [REQUEST, RESPONSE])
def test_a_block_that_leaves_no_room_for_its_next_frame(direction: int) -> None:
    stage = Stage(client=Wire(client=True, options=(*OF_ONE,)), server=Wire(client=False, options=(*OF_ONE,)))
    stage.ends[direction].raw(raw(frames.HEADERS, 1, 1, bytes(HELD - 9 - 8)))
    stage.settle()
    assert calm(stage) and f"{HELD} are held" in stage.ending.reason
