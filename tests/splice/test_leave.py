"""Senders that are taken out of the map again (sockmap/bpf/splice_leave.h), and a reader's own SO_RCVBUF."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sockmap.cgroups import cgroup_root, remove, version_1
from sockmap.selfbench import Bench, take
from sockmap.splice import Scope, Splicer
from tests.splice.bench import another_is_spliced, attached, program, talk, until
from tests.splice.programs import stress
from tests.splice.test_stress_spliced import BUDGET, going_on_and_off, is_right

pytestmark = pytest.mark.privileged
STREAMED = 1 << 20
STREAMS = "an end streams by the stack"


@pytest.fixture(scope="module")
def splicer() -> Iterator[Splicer]:
    with attached(Splicer(streamed=STREAMED)) as splicer:
        yield splicer


@pytest.fixture
def bench(splicer: Splicer) -> Iterator[Bench]:
    with program(splicer) as bench:
        yield bench


@contextmanager
def streaming(sender: socket.socket, size: int) -> Iterator[list[int]]:
    """Sends of `size` bytes by another thread until the end; yields the number of sends so far, in a list."""
    over, count = threading.Event(), [0]

    def run() -> None:
        sender.settimeout(20)
        while not over.is_set():
            sender.sendall(count[0].to_bytes(8, "big") * (size // 8))
            count[0] += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield count
    finally:
        over.set()
        thread.join()


def stream(bench: Bench, sender: socket.socket, reader: socket.socket, size: int = 64) -> int:
    """Small sends behind each other, read and compared as they come, until the sender is taken out and a good while
    beyond; the bytes."""
    reader.settimeout(20)
    total = beyond = 0
    with streaming(sender, size) as count:
        while beyond < 200:
            block = take(reader, 100 * size)
            first = int.from_bytes(block[:8], "big")
            assert first == total // size
            assert block == b"".join((first + turn).to_bytes(8, "big") * (size // 8) for turn in range(100))
            total += len(block)
            beyond += bench.splicer.counts()["taken_out"]
    rest = take(reader, count[0] * size - total)
    assert rest.endswith((count[0] - 1).to_bytes(8, "big"))
    return total + len(rest)


@pytest.mark.parametrize("backwards", [False, True], ids=["client", "server"])
def test_a_sender_of_small_messages_behind_each_other_is_taken_out(bench: Bench, backwards: bool) -> None:
    ends = bench.both()
    client = ends[0]
    talk(*ends)
    before = bench.pair(client).sent[backwards]
    sender, reader = reversed(ends) if backwards else ends
    total = stream(bench, sender, reader)
    way = bench.pair(client).sent[backwards]
    # What was not seen by the program any more is in it all the same.
    assert way.spliced > before.spliced and way.spliced + way.stack == total + before.spliced
    assert way.stack > STREAMED // 2 and way.reason == "it streams, which splicing does not make faster"
    talk(*ends, times=20)  # both ways go on
    back = bench.pair(client).sent[not backwards]
    assert back.reason == STREAMS and back.stack >= 20 * 4 and back.spliced == 3 * 4
    sender.shutdown(socket.SHUT_WR)
    assert take(reader, 1) == b""
    reader.sendall(b"behind the end")
    assert take(sender, 14) == b"behind the end"
    for end in ends:
        end.close()
    until(lambda: bench.splicer.counts()["ended"])
    counts = bench.splicer.counts()
    assert counts["spliced_bytes"] + counts["stack_bytes"] == total + 2 * 12 + 2 * 80 + 14
    assert counts["taken_out"] == 1 and not counts["reads_otherwise"]
    assert another_is_spliced(bench)


def test_an_end_with_something_unread_stays(bench: Bench) -> None:
    """Its peer's message waits while it streams: it must not get lost."""
    client, server = bench.both()
    server.sendall(b"unread")
    server.settimeout(20)
    got = 0
    with streaming(client, 64) as count:
        while True:  # until it is to leave
            way = bench.sent(client)
            if way.stack > 2 * (way.spliced + STREAMED):
                break
            time.sleep(0.001)  # its queue is never empty
            got += len(server.recv(10_000))
    while got < count[0] * 64:
        got += len(server.recv(1 << 20))
    server.sendall(b" and more")  # by the stack: the client is leaving
    assert bench.pair(client).sent[1].reason == STREAMS
    assert not bench.splicer.counts()["taken_out"]
    assert take(client, 15) == b"unread and more"


def test_a_stream_of_small_messages_is_known_by_an_eighth(bench: Bench) -> None:
    client, server = bench.both()
    for _ in range(200):
        client.sendall(bytes(1000))
    way = bench.sent(client)
    assert way.spliced == 1000 * (1 + -(-STREAMED // 8 // 1000)) and way.reason == STREAMS  # the first found nothing
    assert take(server, 200_000) == bytes(200_000)


@pytest.mark.parametrize("between", [0, 5000])
def test_small_messages_between_large_ones_are_no_stream_of_small_ones(bench: Bench, between: int) -> None:
    client, server = bench.both()
    bench.off()
    for _ in range(150):
        client.sendall(bytes(1000))
        client.sendall(bytes(between))
        take(server, 1000 + between)
    bench.on()
    client.sendall(b"one more")
    assert take(server, 8) == b"one more"
    assert bench.sent(client).spliced == (8 if between else 0)


def test_requests_and_answers_are_no_stream(bench: Bench) -> None:
    """However many bytes: whoever waits for an answer stays."""
    client, server = bench.both()
    for _ in range(300):
        client.sendall(bytes(10_000))
        take(server, 10_000)
        server.sendall(bytes(3000))
        take(client, 3000)
    assert not bench.splicer.counts()["taken_out"]
    assert [(way.spliced, way.stack) for way in bench.pair(client).sent] == [(3_000_000, 0), (900_000, 0)]


def test_a_reader_that_keeps_up_does_not_make_a_stream_pay(bench: Bench) -> None:
    """Its queue is empty each time, and yet: a small message alone costs more than TCP's share in a large one."""
    client, server = bench.both()

    def send(messages: int) -> None:
        for _ in range(messages):
            client.sendall(bytes(1000))
            take(server, 1000)

    for _ in range(2 * STREAMED // 5000):
        send(5)
        time.sleep(0.0001)
    assert not bench.splicer.counts()["taken_out"] and bench.sent(client).stack == 0

    def it_streams() -> bool:
        send(500)  # on a busy machine there may be time between many of them
        return bench.sent(client).reason == "it streams, which splicing does not make faster"

    until(it_streams, 60)


def test_a_receive_buffer_that_a_program_has_set_holds(bench: Bench) -> None:
    listener = bench.listen()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
    client, server = bench.connect(listener)
    half = server.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
    assert half == 10_000
    client.setblocking(False)
    client.sendall(bytes(1000))
    client.sendall(bytes(1000))
    assert bench.sent(client).spliced == 2000
    client.sendall(bytes(half))  # above half of it, with what waits and the messages' own kilobyte
    assert (bench.sent(client).spliced, bench.sent(client).stack) == (2000, half)
    assert bench.sent(client).reason == "the peer does not read fast enough"
    assert len(take(server, 2000 + half)) == 2000 + half
    client.sendall(bytes(1000))
    assert bench.sent(client).spliced == 3000


def test_a_cgroups_limit_of_memory_for_tcp_holds(bench: Bench) -> None:
    """At the limit a send that is spliced would end with ENOMEM; the stack has the sender wait."""
    memory = version_1("memory")
    if memory is None:  # then the kernel makes room, as for all memory (memory.max)
        assert "memory" in (cgroup_root() / "cgroup.controllers").read_text().split()
        return
    limited = memory / f"l7-limited-{os.getpid()}"
    limited.mkdir()
    try:
        (limited / "memory.kmem.tcp.limit_in_bytes").write_text(str(600 << 10))
        (limited / "cgroup.procs").write_text(str(os.getpid()))
        client, server = bench.both()
        client.setblocking(False)
        sent = 0
        with pytest.raises(BlockingIOError):
            while True:
                sent += client.send(bytes(16 << 10))
        way = bench.sent(client)
        assert way.spliced > 100 << 10 and way.reason == "the kernel's memory for TCP is scarce"
        assert sent == way.spliced + way.stack
        assert len(take(server, sent)) == sent
        talk(client, server)
    finally:
        (memory / "cgroup.procs").write_text(str(os.getpid()))
        remove(limited)


def test_streams_of_all_kinds_whose_senders_are_taken_out() -> None:
    """Many, as it takes 128 KiB by the stack, or 16 of small messages, while splicing goes on and off."""
    scope = Scope(learn=False, budget=BUDGET)
    with attached(Splicer(streamed=128 << 10)) as eager, going_on_and_off(eager, scope):
        report = stress("--connections", "500", "--bytes", str(8 << 20), "--seconds", "0", timeout=300)
        counts = eager.counts()
    is_right(report)
    assert counts["taken_out"] > 10 and counts["leaving"] and counts["spliced_bytes"] > 1 << 20, counts
