"""What splicing could lose, reorder, hoard or hide, and does not."""

from __future__ import annotations

import random
import select
import socket
import threading
import time
import zlib
from collections.abc import Iterator

import pytest

from sockmap.selfbench import Bench, take, waiting
from sockmap.splice import QUEUED, Splicer
from tests import netns
from tests.splice.bench import attached, disconnect, program, talk, until

pytestmark = pytest.mark.privileged
_FASTOPEN_NO_COOKIE = 34


@pytest.fixture(scope="module", params=[(), (QUEUED,)], ids=["counted by the kernel", "counted here"])
def either(request: pytest.FixtureRequest) -> Iterator[Splicer]:
    with attached(Splicer(without=request.param)) as splicer:
        yield splicer


@pytest.fixture
def any_bench(either: Splicer) -> Iterator[Bench]:
    with program(either) as bench:
        yield bench


def test_small_sends_to_a_reader_that_stops_are_bounded(any_bench: Bench) -> None:
    """1 MiB in sends of a byte took 1 GiB."""
    client, server = any_bench.both()
    for _ in range(5000):
        client.sendall(b"x")
    assert any_bench.sent(client).spliced <= 1025
    assert len(take(server, 5000)) == 5000


def test_a_reader_that_keeps_up_is_spliced_for_good(any_bench: Bench) -> None:
    """The bound of messages is of those that wait, not of all."""
    any_bench.on(budget=20_000)
    client, server = any_bench.both()
    client.sendall(b"12345678")
    for _ in range(2000):
        client.sendall(b"12345678")
        assert take(server, 8) == b"12345678"
    assert any_bench.sent(client).stack == 0


def test_bytes_by_the_stack_are_read_before_splicing_goes_on(any_bench: Bench) -> None:
    client, server = any_bench.both()
    any_bench.off()
    client.sendall(b"stack")
    any_bench.on()
    client.sendall(b"waits")
    assert any_bench.sent(client).reason == "the peer has not read what the stack still carries"
    assert take(server, 9) == b"stackwait"
    client.sendall(b"!")
    assert take(server, 2) == b"s!"
    assert any_bench.sent(client).spliced == 0
    client.sendall(b"spliced")
    assert take(server, 7) == b"spliced"
    assert any_bench.sent(client).spliced == 7


@pytest.mark.parametrize("budget", [2000, 50_000, 1 << 20])
def test_a_stream_of_any_sizes_arrives_whole(any_bench: Bench, budget: int) -> None:
    any_bench.on(budget)
    client, server = any_bench.both()
    source = random.Random(budget)
    data = source.randbytes(4 << 20)

    def write() -> None:
        place = 0
        while place < len(data):
            size = source.choice([1, 30, 2000, 70_000])
            client.sendall(data[place : place + size])
            place += size
            if source.random() < 0.01:
                time.sleep(0.001)
        client.shutdown(socket.SHUT_WR)

    writer = threading.Thread(target=write)
    writer.start()
    got, sizes = b"", random.Random(1)
    while part := server.recv(sizes.choice([10, 5000, 300_000])):
        got += part
    writer.join()
    assert (len(got), zlib.crc32(got)) == (len(data), zlib.crc32(data))
    way = any_bench.sent(client)
    assert way.spliced and way.spliced + way.stack == len(data)


def test_several_threads_may_send(any_bench: Bench) -> None:
    any_bench.on(10_000)
    client, server = any_bench.both()
    client.settimeout(None)

    def write(number: int) -> None:
        for turn in range(3000):
            client.sendall(bytes([number]) + turn.to_bytes(2, "big") + bytes(13))

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    turns = [0, 0, 0]
    for _ in range(9000):
        record = take(server, 16)
        assert int.from_bytes(record[1:3], "big") == turns[record[0]]
        turns[record[0]] += 1
    for writer in writers:
        writer.join()
    assert any_bench.sent(client).flips


def test_what_comes_with_the_handshake_is_seen_by_fionread(bench: Bench) -> None:
    listener = bench.listen()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
    client = bench.own(socket.create_connection(listener.getsockname()))
    client.sendall(b"first")
    server = bench.own(listener.accept()[0])
    assert waiting(server) == 5
    assert not bench.pair(client).spliceable and bench.splicer.counts()["fast_open"] == 1
    assert take(server, 5) == b"first"
    talk(client, server)


def test_fast_open_is_left_alone(bench: Bench) -> None:
    netns.run(["ip", "netns", "add", "l7-splice-tfo"])
    try:
        netns.run(["ip", "-n", "l7-splice-tfo", "link", "set", "lo", "up"])
        netns.sysctl("l7-splice-tfo", {"net/ipv4/tcp_fastopen": 3})
        listener, client = netns.call("l7-splice-tfo", lambda: (bench.listen(), bench.own(socket.socket())))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
        for sock in (listener, client):
            sock.setsockopt(socket.IPPROTO_TCP, _FASTOPEN_NO_COOKIE, 1)
        client.sendto(b"early", socket.MSG_FASTOPEN, listener.getsockname())
        server = bench.own(listener.accept()[0])
        assert waiting(server) == 5 and take(server, 5) == b"early"
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[5] & 32, "the SYN had no data"
        talk(client, server)
        assert not any(pair.spliceable for pair in bench.splicer.pairs())
    finally:
        netns.run(["ip", "netns", "del", "l7-splice-tfo"])


def test_nothing_is_sent_after_a_shutdown(bench: Bench) -> None:
    client, server = bench.both()
    talk(client, server)
    client.shutdown(socket.SHUT_WR)
    with pytest.raises(BrokenPipeError):
        client.sendall(b"late")
    assert take(server, 1) == b""


def filled(bench: Bench) -> tuple[socket.socket, socket.socket]:
    """A writer without room, for long enough that it asks for some, and its reader."""
    client, server = bench.both()
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            client.send(bytes(60_000))
    time.sleep(0.7)
    return client, server


def test_a_stalled_reader_that_closes_frees_its_writer(bench: Bench) -> None:
    client, server = filled(bench)
    server.close()
    poll = select.poll()
    poll.register(client, select.POLLOUT)
    assert poll.poll(10_000)
    with pytest.raises(OSError, match=r"Broken pipe|timed out"):
        client.send(b"x")


@pytest.mark.parametrize("first", [0, 1])
def test_what_a_writer_leaves_to_a_stalled_reader_goes_with_it(bench: Bench, first: int) -> None:
    ends = filled(bench)
    ends[first].close()
    ends[1 - first].close()
    until(lambda: not list(bench.splicer.pairs()))


def test_a_slow_reader_that_has_only_shut_down_its_own_way_gets_all(bench: Bench) -> None:
    client, server = bench.both()
    client.setblocking(False)
    given = 0
    with pytest.raises(BlockingIOError):
        while True:
            given += client.send(bytes(60_000))
    server.shutdown(socket.SHUT_WR)
    client.close()
    time.sleep(2.5)
    assert len(take(server, given + 1)) == given


def test_a_socket_that_connects_again(bench: Bench) -> None:
    listener = bench.listen()
    client, server = bench.connect(listener)
    talk(client, server)
    for _ in range(3):
        disconnect(client)
        client.connect(listener.getsockname())
        server = bench.own(listener.accept()[0])
        talk(client, server)
