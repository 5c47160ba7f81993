"""Straight from a sender to the far end of a relayed connection: a relay of raw sockets through the real programs."""

from __future__ import annotations

import hashlib
import random
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from sockmap.bpfmap import BpfMap
from sockmap.selfbench import Bench, ready, reset, take, waiting
from sockmap.splice import QUEUED, Splicer
from sockmap.splice_bridge import Bridges
from tests.splice.bench import attached, close, program, until
from tests.splice.hops import Hops, hops, splice

pytestmark = pytest.mark.privileged


@pytest.fixture
def four(bench: Bench) -> Iterator[Hops]:
    """Two connections and the relay between them."""
    with hops(bench) as made:
        yield made


def test_bytes_go_straight_once_the_relay_has_written_what_it_read(four: Hops) -> None:
    four.client.sendall(b"first")
    assert ready(four.front, 1000) and four.there.turn() == b"first"
    for _ in range(3):
        four.client.sendall(b"straight")
    assert not ready(four.front)
    assert take(four.server, 29) == b"first" + 3 * b"straight"
    assert four.there.bridge.carried() == 24 and four.again.bridge.carried() == 0


def test_both_ways(four: Hops, bench: Bench) -> None:
    four.there.open()
    four.again.open()
    for turn in range(5):
        four.client.sendall(b"ask%d" % turn)
        assert take(four.server, 4) == b"ask%d" % turn
        four.server.sendall(b"answer%d" % turn)
        assert take(four.client, 7) == b"answer%d" % turn
    assert not ready(four.front) and not ready(four.back)
    assert (four.there.bridge.carried(), four.again.bridge.carried()) == (20, 35)
    assert bench.splicer.counts()["straight_bytes"] == 55
    near, far = bench.pair(four.client), bench.pair(four.back)
    assert (near.sent[0].straight, near.sent[1].straight, near.sent[1].spliced) == (0, 35, 35)
    assert (far.sent[0].straight, far.sent[1].straight, far.sent[0].spliced) == (20, 0, 20)


def test_what_the_relay_has_not_read_goes_before(four: Hops) -> None:
    four.there.open()
    four.client.sendall(b"straight")
    four.there.bridge.shut()
    four.client.sendall(b"by the relay")
    four.there.open()  # it has read nothing of it yet
    four.client.sendall(b"after")
    assert take(four.server, 8) == b"straight" and not ready(four.server)
    assert four.there.turn(most=12) == b"by the relay"
    four.client.sendall(b"!")
    assert take(four.server, 12) == b"by the relay" and not ready(four.server)
    assert four.there.turn() == b"after!"
    four.client.sendall(b"straight")
    assert take(four.server, 14) == b"after!straight"
    assert b"".join(four.there.seen) == b"by the relayafter!" and four.there.bridge.carried() == 16


def test_a_sender_on_the_stack_is_bridged_once_that_is_read(four: Hops, bench: Bench) -> None:
    bench.off()
    four.client.sendall(b"by the stack")
    splice(bench.splicer)
    four.there.open()
    four.client.sendall(b"!")
    assert ready(four.front, 1000)
    until(lambda: four.there.turn() and four.there.read == 13)
    four.client.sendall(b"straight")
    assert take(four.server, 21) == b"by the stack!straight"
    assert four.there.bridge.carried() == 8


def test_what_the_stack_still_carries_to_the_server_goes_before(four: Hops, bench: Bench) -> None:
    bench.off()
    four.client.sendall(b"by the stack")
    assert ready(four.front, 1000) and four.there.turn() == b"by the stack"
    splice(bench.splicer)
    four.client.sendall(b"one")  # the server has not read what the relay has sent by the stack
    assert ready(four.front, 1000) and four.there.bridge.carried() == 0
    assert take(four.server, 12) == b"by the stack"
    assert four.there.turn() == b"one"
    four.client.sendall(b"two")
    assert take(four.server, 6) == b"onetwo" and four.there.bridge.carried() == 3


def test_no_byte_behind_the_room(four: Hops) -> None:
    four.there.open(room=10)
    four.client.sendall(b"12345678")
    four.client.sendall(b"90" + b"next")  # in one send: its first bytes may not go apart
    assert take(four.server, 8) == b"12345678" and not ready(four.server)
    assert four.there.bridge.carried() == 8 and not four.there.bridge.unread()
    assert four.there.turn(room=4) == b"90next" and take(four.server, 6) == b"90next"
    four.client.sendall(b"more")
    four.client.sendall(b"last")
    assert take(four.server, 4) == b"more" and not ready(four.server)
    assert four.there.turn() == b"last"


def test_what_the_server_has_not_read_of_a_counted_body(four: Hops) -> None:
    four.there.open(room=100)
    four.client.sendall(b"12345678")
    four.client.sendall(b"9")
    assert four.there.bridge.unread() == 9
    assert take(four.server, 4) == b"1234" and four.there.bridge.unread() == 5
    assert take(four.server, 5) == b"56789" and not four.there.bridge.unread()


def test_a_counted_body_begins_where_the_server_has_read_all(four: Hops) -> None:
    four.client.sendall(b"head")
    assert ready(four.front, 1000) and four.there.turn(room=100) == b"head"
    four.client.sendall(b"body")
    assert ready(four.front) and four.there.bridge.carried() == 0
    assert four.there.turn(room=100) == b"body" and take(four.server, 8) == b"headbody"
    four.client.sendall(b"straight")
    assert take(four.server, 8) == b"straight" and not ready(four.front)


def test_the_budget_is_the_servers(bench: Bench) -> None:
    with hops(bench, budget=64 << 10) as four:
        four.there.open()
        sent = 0
        while not ready(four.front):
            four.client.sendall(bytes(1024))
            sent += 1024
        assert four.there.bridge.carried() == waiting(four.server) == sent - 1024 <= 64 << 10
        assert len(four.there.turn()) == 1024
        assert take(four.server, sent) == bytes(sent)
        four.client.sendall(b"straight")
        assert take(four.server, 8) == b"straight" and not ready(four.front)


def test_switched_off_and_on(four: Hops, bench: Bench) -> None:
    four.there.open()
    four.client.sendall(b"straight")
    bench.off()
    four.client.sendall(b"by the relay")
    splice(bench.splicer)
    four.client.sendall(b"after")
    assert take(four.server, 8) == b"straight"
    until(lambda: four.there.turn() and four.there.read == 17)
    assert take(four.server, 17) == b"by the relayafter"
    four.client.sendall(b"straight")
    assert take(four.server, 8) == b"straight" and four.there.bridge.carried() == 16


def test_a_new_policy_is_asked_on_both_hops_before_bytes_go_straight_again(four: Hops, bench: Bench) -> None:
    four.there.open()
    four.client.sendall(b"straight")
    assert take(four.server, 8) == b"straight"
    bench.splicer.judged_anew()
    four.client.sendall(b"one")
    until(lambda: four.there.turn(opens=False))
    assert bench.pair(four.client).sent[0].stack == bench.pair(four.back).sent[0].stack == 3
    four.there.open()
    four.client.sendall(b"two")  # the server has not read what the stack has brought
    assert ready(four.front, 1000) and four.there.bridge.carried() == 8
    assert take(four.server, 3) == b"one"
    assert four.there.turn() == b"two"
    four.client.sendall(b"straight")
    assert take(four.server, 11) == b"twostraight" and four.there.bridge.carried() == 16
    bench.splicer.judged_anew()
    four.there.bridge.shut()
    four.client.sendall(b"one")  # it is the second hop alone that has not been asked
    until(lambda: ready(four.front) and four.there.source.recv(3))
    four.there.read += 3
    four.there.open()
    four.client.sendall(b"two")
    assert ready(four.front, 1000) and four.there.bridge.carried() == 16


def test_the_end_comes_behind_what_went_straight(four: Hops) -> None:
    four.there.open()
    four.again.open()
    four.client.sendall(b"straight")
    four.client.shutdown(socket.SHUT_WR)
    until(lambda: four.turn() or four.there.end)
    assert take(four.server, 100) == b"straight"
    four.server.sendall(b"answer")
    four.server.close()
    until(lambda: four.turn() or four.again.end)
    assert take(four.client, 100) == b"answer"


def test_a_send_after_shutdown_fails(four: Hops) -> None:
    four.there.open()
    four.client.shutdown(socket.SHUT_WR)
    with pytest.raises(BrokenPipeError):
        four.client.send(b"late")
    assert four.there.bridge.carried() == 0


def test_nothing_goes_straight_once_the_relay_has_shut_its_way_to_the_server(four: Hops) -> None:
    four.there.open()
    four.back.shutdown(socket.SHUT_WR)
    four.client.sendall(b"late")
    assert ready(four.front) and four.there.bridge.carried() == 0


@pytest.mark.parametrize("which", ["front", "back"])
def test_nothing_goes_straight_once_the_relay_has_closed(four: Hops, which: str) -> None:
    four.there.open()
    getattr(four, which).close()
    four.client.send(b"late")
    assert four.there.bridge.carried() == 0 and not (ready(four.server, 50) and four.server.recv(100))


def test_a_server_that_is_gone(four: Hops) -> None:
    four.there.open()
    four.client.sendall(b"straight")
    reset(four.server)
    four.client.sendall(b"late")
    assert ready(four.front, 1000) and four.front.recv(100) == b"late"
    assert ready(four.back, 1000)
    with pytest.raises(ConnectionError):
        four.back.recv(100)
        four.back.send(b"late")
        until(lambda: four.back.send(b"late") < 0)


def test_a_client_that_resets(four: Hops) -> None:
    four.there.open()
    four.client.sendall(b"straight")
    reset(four.client)
    assert ready(four.front, 1000)
    with pytest.raises(ConnectionResetError):
        until(lambda: four.front.recv(100, socket.MSG_DONTWAIT))
    assert take(four.server, 8) == b"straight"


def test_bridges_end_with_their_pairs(four: Hops, bench: Bench) -> None:
    table: BpfMap = four.bridges.maps["bridges"]
    four.there.open()
    four.again.open()
    assert len(list(table.items())) == 2
    close((four.client, four.front))
    until(lambda: len(list(table.items())) == 1)
    close((four.back, four.server))
    until(lambda: not list(table.items()))
    assert four.there.bridge.carried() == four.there.bridge.unread() == 0


def test_sockets_that_are_not_in_the_map_have_no_bridge(bench: Bench) -> None:
    splice(bench.splicer)
    _, front = bench.connect(bench.listen())
    bench.splicer.stop()
    back, _ = bench.connect(bench.listen())
    bridges = Bridges(bench.splicer.bridge_fds())
    assert bridges.holds(front.fileno()) and not bridges.holds(back.fileno())
    assert bridges.between(front.fileno(), back.fileno()) is None


# -- at random ---------------------------------------------------------------------------------------------------------

_SECONDS = 60.0


def send_all(sock: socket.socket, data: bytes, seed: int, errors: list[Exception]) -> None:
    """In parts of random sizes, with breaks in which the relay may get ahead."""
    chance, position = random.Random(seed), 0
    try:
        while position < len(data):
            size = chance.choice([1, 7, 100, 1000, 5000, 40_000])
            sock.sendall(data[position : position + size])
            position += size
            if chance.random() < 0.5:
                time.sleep(chance.choice([0, 0.0001, 0.001]))
        sock.shutdown(socket.SHUT_WR)
    except OSError as error:
        errors.append(error)


def read_all(sock: socket.socket, seed: int, got: list[bytes], errors: list[Exception]) -> None:
    """To the end, with breaks in which the queue fills."""
    chance = random.Random(seed)
    try:
        while data := sock.recv(chance.choice([10, 1000, 65536])):
            got.append(data)
            if chance.random() < 0.02:
                time.sleep(0.005)
    except OSError as error:
        errors.append(error)


def carry(four: Hops, bench: Bench, seed: int, budget: int, counted: bool) -> None:
    """Until both ends have come: the relay opens bridges at random, and the splicer is switched off and on."""
    chance, end = random.Random(seed), time.monotonic() + _SECONDS
    while not (four.there.end and four.again.end):
        assert time.monotonic() < end, (four.there.read, four.again.read)
        readable, _, _ = select.select([d.source for d in (four.there, four.again) if not d.end], [], [], 0.01)
        for direction in (four.there, four.again):
            if direction.source in readable:
                room = chance.choice([1, 3000, 50_000]) if counted else None
                direction.turn(room, opens=chance.random() < 0.9, most=chance.choice([100, 65536]))
        if chance.random() < 0.02:
            bench.off()
            time.sleep(0.001)
            splice(bench.splicer, budget)


def exchange(bench: Bench, seed: int, counted: bool) -> list[int]:
    """A megabyte each way; how much of it went straight."""
    chance = random.Random(seed)
    streams = [chance.randbytes(1 << 20) for _ in range(2)]
    errors: list[Exception] = []
    got: tuple[list[bytes], list[bytes]] = ([], [])
    budget = chance.choice([8 << 10, 1 << 20])
    with hops(bench, budget) as four:
        for sock in (four.client, four.front, four.back, four.server):
            sock.settimeout(_SECONDS)
        for direction, end, stream in zip((four.there, four.again), (four.client, four.server), streams, strict=True):
            direction.open(1000 if counted else None)
            end.sendall(stream[:1000])  # straight for certain; the rest as it comes
        jobs = [
            threading.Thread(target=send_all, args=(four.client, streams[0][1000:], seed, errors)),
            threading.Thread(target=send_all, args=(four.server, streams[1][1000:], seed + 1, errors)),
            threading.Thread(target=read_all, args=(four.server, seed, got[0], errors)),
            threading.Thread(target=read_all, args=(four.client, seed + 1, got[1], errors)),
        ]
        for job in jobs:
            job.start()
        try:
            carry(four, bench, seed, budget, counted)
        finally:
            for job in jobs:
                job.join(_SECONDS)
        assert not errors
        for stream, parts, direction in zip(streams, got, (four.there, four.again), strict=True):
            assert hashlib.sha256(b"".join(parts)).digest() == hashlib.sha256(stream).digest()
            assert direction.read + direction.bridge.carried() == len(stream)
        return [four.there.bridge.carried(), four.again.bridge.carried()]


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_every_byte_in_order_whatever_happens_when(bench: Bench, seed: int, counted: bool) -> None:
    assert min(exchange(bench, seed, counted)) >= 1000


def test_ends_that_are_taken_out_of_the_map_meanwhile() -> None:
    """They go when nothing can be on its way to them, by whomever it was sent."""
    with attached(Splicer(streamed=20_000)) as splicer:
        out = straight = 0
        for seed in range(8):
            with program(splicer) as bench:
                straight += sum(exchange(bench, seed, counted=seed % 2 == 1))
                out += splicer.counts()["taken_out"]
        assert out and straight


def test_nothing_goes_straight_to_a_server_that_is_about_to_leave_the_map() -> None:
    with attached(Splicer(streamed=20_000)) as splicer, program(splicer) as bench, hops(bench) as four:
        four.there.open()
        four.client.sendall(b"straight")  # unread: it has to stay
        while bench.pair(four.back).sent[0].reason != "an end streams by the stack":
            for _ in range(100):
                four.server.sendall(bytes(64))
            until(lambda: four.again.source.recv(1 << 20))
            four.back.sendall(b"!")
        four.client.sendall(b"by the relay")
        assert four.there.bridge.carried() == 8 and ready(four.front)
        assert take(four.server, 9) == b"straight!"


def test_a_kernel_that_does_not_count_what_waits() -> None:
    with attached(Splicer(without={QUEUED})) as splicer, program(splicer) as bench, hops(bench, 64 << 10) as four:
        four.there.open()
        sent = 0
        while not ready(four.front):
            four.client.sendall(bytes(1024))
            sent += 1024
        assert len(four.there.turn()) == 1024 and four.there.bridge.carried() == sent - 1024 <= 64 << 10
        assert take(four.server, sent) == bytes(sent)
        four.client.sendall(b"straight")
        assert take(four.server, 8) == b"straight" and not ready(four.front)
