"""Lanes and the relay that opens and shuts them: what it says counts, bytes keep their order, and every message is told
of once. As test_lanes.py."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sockmap import splice_lanes
from sockmap.selfbench import Bench, ready, take
from sockmap.splice_lanes import EXACTLY, NOTES, Lanes
from sockmap.splice_tables import _HALF, _WAY
from tests.splice.bench import until
from tests.splice.hops import splice
from tests.splice.lanes import (
    AGAIN,
    FORM,
    PLACES,
    THERE,
    Road,
    Shaky,
    answer,
    exactly,
    records,
    roads,
)

pytestmark = pytest.mark.privileged


# -- what the relay says -----------------------------------------------------------------------------------------------


def test_until(road: Road) -> None:
    road.lane.allow(road.group, time.monotonic() + 60)
    assert road.goes(records()[:30])
    road.lane.allow(road.group, time.monotonic() - 0.001)
    assert road.where(records()[30:])  # the rest of one that was allowed
    assert not road.goes(exactly()) and road.goes(answer(), AGAIN)
    road.lane.allow(road.group, 0)
    assert road.goes(exactly())


@pytest.mark.parametrize("way", [THERE, AGAIN])
def test_notes_that_nobody_reads(road: Road, way: int) -> None:
    message = exactly() if way == THERE else answer()
    road.open()
    for _ in range(NOTES // 64 - 1):
        assert road.where(64 * message, way)
    assert road.where(62 * message, way)
    assert not road.goes(3 * message, way) and road.goes(2 * message, way)
    assert not road.goes(message, way) and not road.where(message, way)
    assert len(road.notes(way)) == NOTES
    assert not road.where(message, way)  # until it is opened again
    assert road.goes(64 * message, way) and len(road.notes(way)) == 64


def test_no_more_requests_are_under_way_than_there_is_room_for(road: Road) -> None:
    road.open(AGAIN)
    road.lane.open(THERE, road.ends(THERE)[1].read, 3)
    assert road.where(exactly()) and road.where(2 * exactly())
    assert road.where(answer(), AGAIN)
    assert not road.where(2 * exactly())
    road.lane.open(THERE, road.ends(THERE)[1].read, 2)
    assert not road.where(3 * exactly())
    road.lane.open(THERE, road.ends(THERE)[1].read, 0)
    assert not road.where(exactly())


def test_shut(road: Road) -> None:
    road.open()
    assert road.where(exactly()) and road.where(answer(), AGAIN)
    road.lane.shut(THERE)
    assert not road.where(exactly()) and road.where(answer(), AGAIN)
    road.lane.shut(AGAIN)
    assert not road.where(answer(), AGAIN)
    assert road.goes(exactly()) and road.goes(answer(), AGAIN)
    road.four.there.bridge.shut()
    assert not road.goes(exactly())


def test_the_place_is_another_connections(road: Road) -> None:
    assert road.goes(exactly())
    road.lane.begin(road.lane.nonce + 1, FORM)
    road.lane.allow(road.group, 0)
    road.know(EXACTLY)
    assert not road.goes(exactly())
    road.four.there.bridge.by_lane(road.lane)
    assert road.goes(exactly())


def test_a_place_that_is_given_back(road: Road, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = Lanes(bench.splicer.bridge_fds(), 1, 4, PLACES)
    first, second = lanes.take(FORM), lanes.take(FORM)
    assert first is not None and second is not None and {first.index, second.index} == {1, 5}
    assert first.nonce != second.nonce and lanes.take(FORM) is None
    lanes.give_back(first)
    assert lanes.take(FORM) is None  # a program may be at work in it
    now = time.monotonic() + 1.5
    monkeypatch.setattr(splice_lanes, "monotonic", lambda: now)
    again = lanes.take(FORM)
    assert again is first and again.made(THERE) == 0 and again.nonce > second.nonce
    road.open()
    road.lanes.give_back(road.lane)
    assert not road.where(exactly()) and not road.goes(exactly())


@pytest.mark.parametrize("wrong", [1, -1, len(exactly()), 1 << 31])
def test_an_opening_with_another_count_is_over_for_good(road: Road, wrong: int) -> None:
    assert not road.where(b"unknown")
    road.lane.open(THERE, road.four.there.read + wrong)
    assert not road.where(exactly())
    assert not road.where(exactly())  # also where the count comes to be right
    assert road.goes(exactly())


def test_answers_under_another_mask(bench: Bench) -> None:
    form = FORM._replace(
        answer_mask=bytes(8) + b"\xff\x0f" + bytes(5) + b"\xf0", answer=bytes(8) + b"r\x01" + bytes(5) + b"\x20"
    )
    with roads(bench, form) as road:
        for data, goes in (
            (b"r\x01" + bytes(5) + b"\x2f rows", True),
            (b"r\xf1" + b"xxxxx" + b"\x20", True),
            (b"s\x01" + bytes(5) + b"\x20", False),
            (b"r\x02" + bytes(5) + b"\x20", False),
            (b"r\x01" + bytes(5) + b"\x10", False),
            (b"r\x01" + bytes(5), False),
        ):
            assert road.goes(answer(7, data), AGAIN) is goes, data
        whole = answer(7, b"r\x01" + bytes(5) + b"\x2f rows")
        assert not road.goes(whole[:20], AGAIN)  # a sample that is not all there
        assert not road.goes(whole + answer(7, b"error of a kind"), AGAIN)


def test_whether_it_is_decided(road: Road, bench: Bench) -> None:
    bridges = road.four.there.bridge, road.four.again.bridge
    assert road.goes(exactly()) and road.goes(answer(), AGAIN) and not road.goes(b"unknown")
    assert not any(bridge.deciding() for bridge in bridges)
    pairs = road.four.bridges.maps["pairs"]
    for side, (end, bridge, other) in enumerate(
        ((road.four.client, *bridges), (road.four.back, bridges[1], bridges[0])),
    ):
        key = struct.pack("=Q", bench.pair(end).id)
        value = bytearray(pairs.lookup(key) or b"")
        begun = 2 * _HALF.size + side * _WAY.size + struct.calcsize("=QQIIIIQIIIIQI")
        struct.pack_into("=I", value, begun, struct.unpack_from("=I", value, begun)[0] + 1)
        pairs.update(key, bytes(value))
        assert bridge.deciding()
        assert not other.deciding() or side


# -- order -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [THERE, AGAIN])
def test_what_the_relay_has_written_is_read_before(road: Road, way: int) -> None:
    sender, direction, target = road.ends(way)
    message, other = (records(b"one"), b"unknown") if way == THERE else (answer(), b"an")
    sender.sendall(other)
    assert ready(direction.source, 1000) and direction.turn(opens=False) == other
    road.open()
    sender.sendall(message)  # the reader has not read what was before
    assert ready(direction.source, 1000) and direction.turn(opens=False) == message and not road.notes(way)
    road.open()
    assert take(target, len(other + message)) == other + message
    for _ in range(3):
        sender.sendall(message)  # while the first ones are not read
    assert not ready(direction.source) and len(road.notes(way)) == 3
    assert direction.bridge.unread() == 3 * len(message)
    assert take(target, 3 * len(message)) == 3 * message and not direction.bridge.unread()


def test_what_the_relay_has_not_read_goes_before(road: Road) -> None:
    road.open()
    four, there = road.four, road.four.there
    four.client.sendall(records(b"straight"))
    four.client.sendall(b"by the relay")
    road.open()  # it has read nothing of it yet
    four.client.sendall(records(b"after"))
    assert there.turn(opens=False) == b"by the relay" + records(b"after")
    road.open()
    expected = records(b"straight") + b"by the relay" + records(b"after")
    assert take(four.server, len(expected)) == expected
    four.client.sendall(records(b"straight"))
    assert take(four.server, 32) == records(b"straight") and len(road.notes(THERE)) == 2


def test_what_the_stack_brings_goes_before(road: Road, bench: Bench) -> None:
    four, there = road.four, road.four.there
    bench.off()
    four.client.sendall(b"by the stack")
    assert ready(four.front, 1000) and there.turn(opens=False) == b"by the stack"
    splice(bench.splicer)
    road.open()
    four.client.sendall(exactly())  # the server has not read what the relay has sent by the stack
    assert ready(four.front, 1000) and not road.notes(THERE)
    assert there.turn(opens=False) == exactly()
    assert take(four.server, 32) == b"by the stack" + exactly()
    road.open()
    bench.off()
    four.client.sendall(exactly())
    splice(bench.splicer)
    four.client.sendall(exactly())  # behind one by the stack
    until(lambda: there.turn(opens=False) and there.read == 72)
    assert not road.notes(THERE) and take(four.server, 40) == 2 * exactly()
    assert road.goes(exactly())


def test_a_new_policy_is_asked_before_anything_goes_straight_again(road: Road, bench: Bench) -> None:
    assert road.goes(exactly())
    bench.splicer.judged_anew()
    assert not road.goes(exactly()) and len(road.notes(THERE)) == 1
    road.four.back.sendall(b"!")  # by the stack, which shows it
    assert take(road.four.server, 1) == b"!"
    until(lambda: road.goes(exactly()))


def test_readers_that_are_too_slow(road: Road, bench: Bench) -> None:
    splice(bench.splicer, 64 << 10)
    road.open()
    sent = 0
    while not ready(road.four.front):
        road.four.client.sendall(records(bytes(1000)))
        sent += 1
    assert len(road.notes(THERE)) == sent - 1 and 20 < sent <= 64
    assert road.four.there.turn(opens=False) == records(bytes(1000))
    assert take(road.four.server, sent * 1024) == sent * records(bytes(1000))
    assert road.goes(exactly())


# -- at random ---------------------------------------------------------------------------------------------------------

_SECONDS, _COUNT = 20.0, 20_000


def pieces(way: int, chance: random.Random) -> Iterator[bytes]:
    """What is sent at once: messages, or parts of them."""
    number, rest = 0, b""
    while number < _COUNT or rest:
        for _ in range(min(chance.choice([1, 1, 1, 2, 5, 30]), _COUNT - number)):
            data = bytes(chance.choice([0, 10, 10, 100, 100, 4000]))
            if way == AGAIN:
                rest += answer(number, data)
            else:
                rest += records(data, number, name=b"unknown." if chance.random() < 0.02 else b"known...")
            number += 1
        size = chance.randrange(1, len(rest)) if len(rest) > 1 and chance.random() < 0.2 else len(rest)
        yield rest[:size]
        rest = rest[size:]


def send_all(sock: socket.socket, parts: list[bytes], seed: int, errors: list[Exception]) -> None:
    """With breaks in which the relay may get ahead."""
    chance = random.Random(seed)
    try:
        for part in parts:
            sock.sendall(part)
            if chance.random() < 0.3:
                time.sleep(chance.choice([0, 0.0001, 0.0005]))
    except OSError as error:
        errors.append(error)


def read_all(sock: socket.socket, size: int, got: list[bytes], errors: list[Exception]) -> None:
    """So many bytes."""
    try:
        while size and (data := sock.recv(65536)):
            got.append(data)
            size -= len(data)
    except OSError as error:
        errors.append(error)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("ways", [(THERE,), (AGAIN,), (THERE, AGAIN)])
def test_every_message_once_and_in_order_however_the_relay_opens_and_shuts(
    road: Road, ways: tuple[int, ...], seed: int
) -> None:
    errors: list[Exception] = []
    got: tuple[list[bytes], list[bytes]] = ([], [])
    parts = {way: list(pieces(way, random.Random(seed))) for way in ways}
    wanted = {way: b"".join(parts[way]) for way in ways}
    shaky = [Shaky(road, way, random.Random(seed + way)) for way in ways]
    jobs = []
    for way in ways:
        sender, direction, target = road.ends(way)
        for sock in (sender, direction.source, direction.sink, target):
            sock.settimeout(_SECONDS)
        jobs.append(threading.Thread(target=read_all, args=(target, len(wanted[way]), got[way], errors)))
        jobs.append(threading.Thread(target=send_all, args=(sender, parts[way], seed, errors)))
    for job in jobs:
        job.start()
    end = time.monotonic() + _SECONDS
    while any(job.is_alive() for job in jobs):
        assert time.monotonic() < end, [(one.held, one.credit, one.opened, len(one.told)) for one in shaky]
        for one in shaky:
            one.turn()
    for one in shaky:
        one.end()
        assert b"".join(got[one.way]) == wanted[one.way]
        assert one.told == list(range(_COUNT))
        assert one.openings > 3 and 0 < one.by_notes < _COUNT
        assert not one.held and not one.credit
    assert not errors


# -- pages that are the sender's ---------------------------------------------------------------------------------------


class _Part(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


def by_vmsplice(client: socket.socket, data: bytes) -> Callable[[bytes], None]:
    """From a page of this process, by a pipe; returns what writes to the page."""
    page = mmap.mmap(-1, mmap.PAGESIZE)
    page[: len(data)] = data
    part = _Part(ctypes.addressof(ctypes.c_char.from_buffer(page)), len(data))
    out, into = os.pipe()
    assert ctypes.CDLL(None).vmsplice(into, ctypes.byref(part), 1, 0) == len(data)
    assert os.splice(out, client.fileno(), len(data)) == len(data)
    os.close(out)
    os.close(into)
    return lambda other: page.__setitem__(slice(0, len(other)), other)


def by_sendfile(client: socket.socket, data: bytes) -> Callable[[bytes], None]:
    """From a file's page."""
    file = os.memfd_create("page")
    os.write(file, data)
    assert os.sendfile(client.fileno(), file, 0, len(data)) == len(data)

    def write(other: bytes) -> None:
        os.pwrite(file, other, 0)
        os.close(file)

    return write


def without_a_copy(client: socket.socket, data: bytes) -> Callable[[bytes], None]:
    """MSG_ZEROCOPY, if its program may."""
    page = mmap.mmap(-1, mmap.PAGESIZE)
    page[: len(data)] = data
    client.setsockopt(socket.SOL_SOCKET, 60, 1)
    assert client.send(memoryview(page)[: len(data)], 0x4000000) == len(data)
    return lambda other: page.__setitem__(slice(0, len(other)), other)


@pytest.mark.parametrize("send", [by_vmsplice, by_sendfile, without_a_copy])
def test_what_was_looked_at_is_what_comes(
    road: Road, send: Callable[[socket.socket, bytes], Callable[[bytes], None]]
) -> None:
    """The kernel copies what is given to a socket that is spliced, whatever way it is given; so nobody can change it
    behind the program's back."""
    road.open()
    request = records(b"what is allowed", name=b"known...")
    write = send(road.four.client, request)
    write(records(b"what is not.....", name=b"unknown."))
    assert ready(road.four.server) and not ready(road.four.front)
    assert take(road.four.server, len(request)) == request and road.ids() == [7]
