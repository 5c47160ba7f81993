"""Senders of several threads: what is judged in one order has to come in that order, where a message is sent in parts.
As test_lanes.py."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from sockmap.selfbench import ready, take
from sockmap.splice import QUEUED, Splicer
from sockmap.splice_lanes import EXACTLY, RECORDS
from tests.splice.bench import attached, program, until
from tests.splice.lanes import AGAIN, PLACES, THERE, Road, answer, exactly, frame, records, roads

pytestmark = pytest.mark.privileged


@contextmanager
def another(sock: socket.socket, data: bytes, delays: list[int]) -> Iterator[Callable[[], None]]:
    """Another process sends this as often as it is called on, at once or a little later; leaving waits for it."""
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    count, sent = memoryview(shared).cast("I")[:1], memoryview(shared).cast("I")[1:2]
    child = os.fork()
    if not child:
        with suppress(BaseException):
            for turn, delay in enumerate(delays):
                while count[0] <= turn:
                    pass
                for _ in range(delay):
                    pass
                sock.send(data)
                sent[0] = turn + 1
        os._exit(0)

    def call() -> None:
        count[0] += 1

    try:
        yield call
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def gather(road: Road, size: int) -> tuple[bytes, bytes]:
    """So many bytes: those that went straight, and the others."""
    straight = relayed = b""
    while len(straight + relayed) < size:
        with suppress(BlockingIOError):
            straight += road.four.server.recv(1 << 16)
        with suppress(BlockingIOError):
            relayed += road.four.front.recv(1 << 16)
    road.four.there.read += len(relayed)
    return straight, relayed


def test_the_rest_of_a_message_does_not_come_before_it(road: Road) -> None:
    """The kernel gives up the sender's lock before it puts a send into its reader's queue. A client that sends a
    message's rest by another thread must not get it there first: it would be read as a message that nobody judged."""
    rest = frame(EXACTLY, b"", name=b"unknown.")
    first = records(rest)[: -len(rest)]
    four, chance, end = road.four, random.Random(1), time.monotonic() + 1
    four.server.setblocking(False)
    four.front.setblocking(False)
    delays = [chance.randrange(60) for _ in range(400_000)]
    whole = 0
    with another(four.client, rest, delays) as call:
        for _turn in delays:
            road.open(THERE)
            call()
            four.client.send(first)
            straight, _ = gather(road, len(first + rest))
            assert straight in (b"", first, first + rest), "what was judged last has come first"
            whole += straight == first + rest
            road.notes(THERE)
            if time.monotonic() > end:
                break
    assert whole


_NEW, _API, _REGISTER, _ZERO = 0xAA00, 0xC018AA3F, 0xC020AA00, 0xC020AA04
"""Of userfaultfd."""


@contextmanager
def stuck(sock: socket.socket) -> Iterator[bytearray]:
    """A read that keeps the socket's lock until this is left: what others give to the socket is on its way as long.
    What it has read is there then. (No assertion meanwhile: pytest would ask the socket for its name.)"""
    page, got = mmap.mmap(-1, mmap.PAGESIZE), bytearray()
    start = ctypes.addressof(ctypes.c_char.from_buffer(page))
    try:
        device = os.open("/dev/userfaultfd", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        pytest.skip("this kernel has no userfaultfd")
    faults = fcntl.ioctl(device, _NEW, os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(faults, _API, struct.pack("=QQQ", 0xAA, 0, 0))
    fcntl.ioctl(faults, _REGISTER, struct.pack("=QQQQ", start, mmap.PAGESIZE, 1, 0))
    reader = threading.Thread(target=lambda: got.extend(page[: sock.recv_into(page)]))
    reader.start()
    try:
        select.select([faults], [], [], 5)
        yield got
    finally:
        fcntl.ioctl(faults, _ZERO, struct.pack("=QQQQ", start, mmap.PAGESIZE, 0, 0))
        reader.join()
        os.close(faults)
        os.close(device)


@contextmanager
def on_its_way(road: Road, data: bytes) -> Iterator[None]:
    """Sent by another thread, which has been judged and not come yet; until this is left."""
    road.open(THERE)
    assert road.where(exactly())
    road.four.client.sendall(exactly())
    made = road.lane.made(THERE)
    with stuck(road.four.server) as got:
        sender = threading.Thread(target=road.four.client.sendall, args=(data,))
        sender.start()
        until(lambda: road.lane.made(THERE) > made and not road.four.there.bridge.deciding())
        yield
    sender.join()
    assert got + take(road.four.server, 20 + len(data) - len(got)) == exactly() + data


FIRST, OTHER = records(exactly())[:-20], exactly()


@pytest.mark.parametrize("sent", [OTHER, OTHER + FIRST, FIRST], ids=["whole", "whole and a part", "part"])
def test_parts_of_messages_wait_for_what_other_threads_have_sent(road: Road, sent: bytes) -> None:
    parts = [OTHER] if sent.endswith(FIRST) else [FIRST, OTHER + FIRST]
    for part in parts:
        with on_its_way(road, sent):
            job = threading.Thread(target=road.four.client.sendall, args=(part,))
            job.start()
            by_relay = ready(road.four.front, 1000)
        job.join()
        assert by_relay and take(road.four.front, len(part)) == part
        road.four.there.read += len(part)
        assert road.goes(OTHER)


def test_whole_messages_of_several_threads_go_straight_together(road: Road) -> None:
    with on_its_way(road, OTHER):
        jobs = [threading.Thread(target=road.four.client.sendall, args=(part,)) for part in (OTHER, 2 * OTHER)]
        made = road.lane.made(THERE)
        for job in jobs:
            job.start()
        until(lambda: road.lane.made(THERE) == made + 3)
        none = not ready(road.four.front)
        jobs.append(threading.Thread(target=road.four.client.sendall, args=(FIRST,)))  # which would come among them
        jobs[-1].start()
        by_relay = ready(road.four.front, 1000)
    for job in jobs:
        job.join()
    assert none and by_relay and take(road.four.front, len(FIRST)) == FIRST
    road.four.there.read += len(FIRST)
    assert take(road.four.server, 60) == 3 * OTHER and road.goes(OTHER)


@pytest.mark.parametrize("way", [THERE, AGAIN])
def test_parts_go_straight_behind_what_has_come(road: Road, way: int) -> None:
    """Whichever thread they are of, and whether that is read."""
    whole = records(bytes(1000)) if way == THERE else answer(7, bytes(1000))
    sender, direction, target = road.ends(way)
    road.open(way)
    for place in range(0, 1000, 100):
        job = threading.Thread(target=sender.sendall, args=(whole[place : place + 100],))
        job.start()
        job.join()
        sender.sendall(b"")
    sender.sendall(whole[1000:])
    assert not ready(direction.source) and take(target, len(whole)) == whole
    assert road.lane.left(way) == 0 and len(road.notes(way)) == 1


def test_while_a_reader_is_at_work_parts_of_another_thread_do_not(road: Road) -> None:
    """It cannot be seen then that what was before has come; of the same thread it is known."""
    whole = records(bytes(2000))
    road.open(THERE)
    begun, go = threading.Event(), threading.Event()

    def two_parts() -> None:
        road.four.client.sendall(whole[:1000])
        begun.set()
        go.wait()
        road.four.client.sendall(whole[1000:1500])

    job = threading.Thread(target=two_parts, daemon=True)
    job.start()
    begun.wait()
    with stuck(road.four.server) as got:
        go.set()
        until(lambda: road.lane.left(THERE) == len(whole) - 1500)
        none = not ready(road.four.front)
        other = threading.Thread(target=road.four.client.sendall, args=(whole[1500:],))
        other.start()
        by_relay = ready(road.four.front, 1000)
    job.join()
    other.join()
    assert none and by_relay and take(road.four.front, len(whole) - 1500) == whole[1500:]
    assert got + take(road.four.server, 1500 - len(got)) == whole[:1500]


def test_a_kernel_that_does_not_count_what_waits() -> None:
    """Parts of another thread go straight once all is read that was before."""
    with attached(Splicer(without={QUEUED}, lanes=PLACES)) as splicer, program(splicer) as bench, roads(bench) as road:
        road.know(RECORDS)
        whole = records(bytes(300))
        road.open(THERE)
        for part in (whole[:100], whole[100:200]):
            road.four.client.sendall(part)
        job = threading.Thread(target=road.four.client.sendall, args=(whole[200:],))
        job.start()
        job.join()
        assert ready(road.four.front) and take(road.four.front, len(whole) - 200) == whole[200:]
        assert take(road.four.server, 200) == whole[:200]
        road.four.there.read += len(whole) - 200
        road.open(THERE)
        for part in (whole[:100], whole[100:200], whole[200:]):
            job = threading.Thread(target=road.four.client.sendall, args=(part,))
            job.start()
            job.join()
            assert take(road.four.server, len(part)) == part
        assert not ready(road.four.front) and road.ids() == [7, 7]
