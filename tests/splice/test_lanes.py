"""Known requests and their answers straight from peer to peer: messages through the real programs, by the lanes of a
relay of raw sockets (lanes.py)."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmap import splice_lanes
from sockmap.selfbench import Bench
from sockmap.splice import Splicer
from sockmap.splice_lanes import BINDINGS, COMPACT, EXACTLY, LANE_MAPS, RECORDS, SAMPLE, SHAPES
from tests.matching import AT_ONCE
from tests.splice.lanes import (
    AGAIN,
    MOST,
    PLACES,
    TAILS,
    THERE,
    VALUES,
    Road,
    answer,
    bindings,
    compact,
    exactly,
    mask_of,
    mutated,
    prefix_of,
    records,
    roads,
    straight,
    varint,
)

pytestmark = pytest.mark.privileged


@pytest.mark.parametrize("name", ["lanes", "known"])
def test_sizes_are_the_kernels(splicer: Splicer, name: str) -> None:
    said = dict(
        line.split(":\t") for line in Path(f"/proc/self/fdinfo/{splicer.bridge_fds()[name]}").read_text().splitlines()
    )
    assert (int(said["key_size"]), int(said["value_size"])) == LANE_MAPS[name]
    assert int(said["max_entries"]) == {"lanes": PLACES, "known": 32 * PLACES}[name]


# -- straight ----------------------------------------------------------------------------------------------------------


def test_what_is_known_goes_straight(road: Road, bench: Bench) -> None:
    before = time.monotonic_ns()
    for tail, request in zip(TAILS, (records(), compact(b"data"), bindings(b"1", -1, b""), exactly()), strict=True):
        assert road.goes(request)
        ((at, identity, number, _),) = road.notes(THERE)
        assert (identity, number) == (7, 10 + TAILS.index(tail))
        assert before <= at <= (before := time.monotonic_ns())
    for size in (0, 1, 24, 25, 5000):
        data = answer(9, bytes(range(1, 256)) * 20)[: 8 + size]
        data = struct.pack(">I", 4 + size) + data[4:]
        assert road.goes(data, AGAIN)
        ((at, identity, part, sample),) = road.notes(AGAIN)
        assert (identity, part, sample) == (9, min(len(data), SAMPLE), data[:SAMPLE].ljust(SAMPLE, b"\0"))
        assert before <= at <= (before := time.monotonic_ns())
    carried = road.four.there.bridge.carried(), road.four.again.bridge.carried()
    assert sum(carried) == bench.splicer.counts()["straight_bytes"] and min(carried) > 0


def test_many_in_one_send_and_many_sends(road: Road) -> None:
    road.open()
    for way in (THERE, AGAIN):
        expected = []
        for first in range(0, 100, 10):
            expected += list(range(first, first + 10))
            ids = range(first, first + 10)
            assert road.where(b"".join(answer(one) if way else records(identity=one) for one in ids), way)
        assert road.ids(way) == expected


def test_as_many_as_are_looked_at_in_one_send(road: Road) -> None:
    assert road.goes(exactly() * AT_ONCE) and len(road.notes(THERE)) == AT_ONCE
    assert not road.goes(exactly() * (AT_ONCE + 1)) and not road.notes(THERE)
    assert road.goes(answer() * AT_ONCE, AGAIN) and not road.goes(answer() * (AT_ONCE + 1), AGAIN)


@pytest.mark.parametrize("way", [THERE, AGAIN])
def test_the_rest_of_a_message_goes_by_its_count(road: Road, way: int) -> None:
    whole, other = (records(bytes(1000)), exactly()) if way == THERE else (answer(7, bytes(1000)), answer(8))
    road.open()
    assert road.where(whole[:100], way) and road.lane.left(way) == len(whole) - 100
    assert road.where(whole[100:400], way) and road.lane.left(way) == len(whole) - 400
    assert len(road.notes(way)) == 1
    assert road.where(whole[400:] + other + whole[:50], way) and len(road.notes(way)) == 2
    assert road.where(whole[50:], way) and not road.lane.left(way) and not road.notes(way)
    assert road.where(whole[:-1], way) and road.lane.left(way) == 1
    assert not road.where(whole[-1:] + other[:6], way)  # what follows cannot be told
    assert road.lane.left(way) == 1 and len(road.notes(way)) == 1
    assert not road.where(b"?", way)


def test_a_large_message_in_one_send(road: Road) -> None:
    large = records(bytes(MOST - 24))
    assert len(large) == MOST and road.goes(large) and len(road.notes(THERE)) == 1
    assert road.goes(2 * large + exactly()) is False  # the last one begins beyond what is looked at
    assert road.goes(large + large[:5000]) and road.lane.left(THERE) == MOST - 5000


# -- by the relay ------------------------------------------------------------------------------------------------------


def test_what_is_unknown_comes_to_the_relay_and_all_behind_it(road: Road) -> None:
    road.open()
    assert road.where(exactly())
    assert not road.where(records(name=b"unknown."))
    for request in (exactly(), records(), b"!"):
        assert not road.where(request)
    assert road.ids() == [7]
    road.open()
    assert road.where(exactly()) and road.ids() == [7]


def test_what_comes_to_the_relay_of_one_way_leaves_the_other(road: Road) -> None:
    road.open()
    assert not road.where(b"unknown") and road.where(answer(), AGAIN) and not road.where(exactly())


def test_nothing_of_a_send_goes_straight_unless_all_of_it_does(road: Road) -> None:
    for place in range(4):
        requests = [exactly()] * 4
        requests[place] = records(name=b"unknown.")
        assert not road.goes(b"".join(requests)) and not road.notes(THERE)
        assert road.goes(exactly()) and road.ids() == [7]


@pytest.mark.parametrize("tail", TAILS)
def test_each_byte_of_a_prefix_counts_unless_it_is_masked(road: Road, tail: int) -> None:
    request = {RECORDS: records(), COMPACT: compact(b"1"), BINDINGS: bindings(b"", b"", b""), EXACTLY: exactly()}[tail]
    for place, masked in enumerate(mask_of(tail)[4:20], 4):
        other = bytearray(request)
        other[place] ^= 1 << place % 8
        assert road.goes(bytes(other)) is not bool(masked), place


def test_what_another_group_may_is_not_known(road: Road) -> None:
    road.lane.allow(road.group + 1000, 0)
    assert not road.goes(exactly())
    road.lane.allow(road.group, 0)
    assert road.goes(exactly())


def test_what_is_known_later_or_of_a_kind_that_is_not_looked_at(road: Road) -> None:
    assert not road.goes(records(name=b"another!"))
    road.know(RECORDS, 99, b"another!")
    assert road.goes(records(name=b"another!")) and road.notes(THERE)[0][2] == 99
    assert len(TAILS) == SHAPES and not road.lane.has(b"\xff" * 8, EXACTLY) and road.lane.has(mask_of(RECORDS), RECORDS)


def test_messages_that_do_not_hold_their_prefix(road: Road) -> None:
    for size in range(1, len(prefix_of(RECORDS))):
        assert not road.goes(records()[:size]), size  # the header may come in a second send
        assert not road.goes(records()[size:])
        short = records()[:size]
        assert not road.goes(struct.pack(">I", size - 4 & 0xFFFFFFFF)[:size] + short[4:]), size
    assert road.goes(records(b""))


def test_lengths_that_messages_may_not_have(road: Road) -> None:
    assert road.goes(records(bytes(MOST - 24))) and not road.goes(records(bytes(MOST - 23)))
    for size in (-1, -4, -5, 0, 3, 1 << 31, (1 << 31) - 1, (1 << 31) - 4):
        assert not road.goes(struct.pack(">I", size & 0xFFFFFFFF) + records()[4:]), size
        assert not road.goes(struct.pack(">I", size & 0xFFFFFFFF) + answer()[4:], AGAIN), size


# -- what may follow a prefix ------------------------------------------------------------------------------------------


def test_records(road: Road) -> None:
    assert road.goes(records(b"")) and road.goes(records(b"12345"))
    for inner in (0, 4, 6, -1, 1 << 30):
        assert not road.goes(records(b"12345", inner=inner)), inner


def test_who_wants_no_lanes_gets_none(bench: Bench) -> None:
    with_them, without = bench.splicer.bridge_fds(), bench.splicer.bridge_fds(lanes=False)
    assert with_them.keys() - without.keys() == LANE_MAPS.keys()


def test_compact(road: Road) -> None:
    for size in (0, 1, 126, 127, 5000, (1 << 14) - 2, (1 << 14) - 1, 17_000):
        assert road.goes(compact(bytes(size))), size
        for wrong in (varint(size), varint(size + 2), b"\0"):
            assert not road.goes(compact(bytes(size), wrong)), (size, wrong)
        for behind in (0, 2, 4):
            assert not road.goes(compact(bytes(size), behind=bytes(behind)))
    for tagged in (b"\1\0\0", b"\0\1\0", b"\0\0\1"):
        assert not road.goes(compact(b"12345", behind=tagged)), tagged
    for length in (2, 3, 4):  # overlong, and the same number for whoever reads it
        assert road.goes(compact(b"12345", varint(6, length)))
    for said in (varint(6, 5), b"\x86\x80\x80\x80\x80", b"\xff\xff\xff\xff\x0f", b"\x80\x80\x80\x00"):
        assert not road.goes(compact(b"12345", said)), said
    assert not road.goes(prefixed := compact(b"", b"", b"")) and len(prefixed) == len(prefix_of(COMPACT))
    assert not road.goes(compact(b"", b"\x80", b"")) and not road.goes(compact(b"", b"\x80\x80", b""))


def test_a_number_that_is_still_to_come(road: Road) -> None:
    """The message says it is longer than what is there, in the middle of its varint."""
    whole = compact(bytes(300))
    assert road.goes(whole[:22]) and road.lane.left(THERE) == len(whole) - 22
    assert not road.goes(whole[:21])  # one byte of two
    assert not road.goes(whole[:20])


def test_bindings(road: Road) -> None:
    assert VALUES == 3
    for right in ((b"1", b"22", b"333"), (-1, -1, -1), (b"", b"", b""), (b"", -1, bytes(5000)), (0, 0, 0)):
        assert road.goes(bindings(*right)), right
    for wrong in ((b"1", b"2"), (b"1", b"2", b"3", b"4"), (-2, b"2", b"3"), (b"1", b"2", -2), (b"1", -1 << 31, b"3")):
        assert not road.goes(bindings(*wrong)), wrong
    for size in (3, 4, 1 << 30, (1 << 31) - 1):  # over the end, or into the bytes behind
        assert not road.goes(bindings(b"1", b"2", size)), size
        assert not road.goes(bindings(size, b"1", b"2")), size
    for behind in (b"", b"1", b"123"):
        assert not road.goes(bindings(b"1", b"2", b"3", rest=behind)), behind
    assert not road.goes(bindings(b"1", b"2", b"3")[:-1])  # all of it has to be there


def test_as_many_values_as_are_counted(road: Road) -> None:
    for values, goes in ((0, True), (15, True), (16, True), (17, False), (1 << 31, False)):
        road.lanes.know(road.group, prefix_of(BINDINGS), BINDINGS, 1, values, 0)
        assert road.goes(bindings(*[b"v"] * min(values, 20), rest=b"")) is goes, values


def test_exactly(road: Road) -> None:
    assert road.goes(exactly()) and not road.goes(exactly(b"1"))


@pytest.mark.parametrize("seed", range(3))
def test_the_program_and_a_second_account_of_it(road: Road, seed: int) -> None:
    chance, went = random.Random(seed), 0
    for turn in range(300):
        data = mutated(chance)
        goes = road.goes(data)
        left = straight(data)
        assert goes is (left is not None), (turn, data[:100], len(data), left)
        if left is not None:
            assert road.lane.left(THERE) == left
            went += 1
        assert bool(road.notes(THERE)) is goes
    assert 40 < went < 260


# -- segments ----------------------------------------------------------------------------------------------------------

CQL = splice_lanes.Form(
    5, 9, MOST, 9, 2, 2, 2, True, b"\xff" + bytes(3) + b"\xff" + bytes(11), b"\x85\0\0\0\x08".ljust(16, b"\0")
)


def segment(*messages: bytes, bits: int = 1 << 17, size: int | None = None) -> bytes:
    """Of CQL's protocol 5; nobody looks at its CRCs."""
    inside = b"".join(messages)
    return (bits | (len(inside) if size is None else size)).to_bytes(3, "little") + b"crc" + inside + b"crc!"


def cql(stream: int = 7, data: bytes = b"identity", version: int = 5, opcode: int = 10, more: int = 0) -> bytes:
    """A message; `more`: bytes that it says it has besides."""
    return struct.pack(">BBHBI", version, 0, stream, opcode, len(data) + more) + data


@pytest.fixture
def framed(bench: Bench) -> Iterator[Road]:
    """Whose messages come in segments."""
    mask = b"\xff\xff\0\0\xff\0\0\0\0" + b"\xff" * 8
    with roads(bench, CQL) as made:
        assert made.lane.has(mask, EXACTLY) and made.lane.has(mask, BINDINGS)
        for data, tail in ((b"identity", EXACTLY), (b"bindings", BINDINGS)):
            made.lanes.know(made.group, struct.pack(">BBHBI8s", 5, 0, 0, 10, 0, data), tail, 5, 1, 0)
        yield made


def test_segments_of_known_messages(framed: Road) -> None:
    framed.open()
    bound = cql(8, b"bindings" + struct.pack(">I4s", 4, b"1234"))
    assert framed.where(segment(cql(1))) and framed.ids() == [1]
    assert framed.where(segment(cql(2), bound, cql(65535))) and framed.ids() == [2, 8, 65535]
    assert framed.where(segment(cql(3)) + segment(bound, cql(4)) + segment(cql(5))) and framed.ids() == [3, 8, 4, 5]
    assert framed.where(segment(*[cql(1)] * AT_ONCE)) and framed.ids() == [1] * AT_ONCE
    assert not framed.where(segment(*[cql(1)] * AT_ONCE) + segment(cql(1))) and not framed.notes(THERE)
    answers = cql(1, b"some rows", 0x85, 8), cql(513, bytes(12_000), 0x85, 8)
    assert framed.where(segment(*answers) + segment(answers[0]), AGAIN)
    assert [note[1:] for note in framed.notes(AGAIN)] == [
        (number, min(len(data), SAMPLE), data[:SAMPLE].ljust(SAMPLE, b"\0"))
        for number, data in ((1, answers[0]), (513, answers[1]), (1, answers[0]))
    ]
    assert not framed.where(segment(answers[0], cql(1, b"error", 0x85, 0)), AGAIN)


def test_segments_that_are_not_as_they_have_to_be(framed: Road) -> None:
    good = segment(cql())
    for bits in [0] + [1 << 17 | 1 << bit for bit in range(18, 24)]:
        assert not framed.goes(segment(cql(), bits=bits)), bits
    for size in range(1, len(good)):
        assert not framed.goes(good[:size]) and not framed.goes(good[size:]), size
        assert not framed.goes(good + good[:size]), size
    for size in (0, len(cql()) - 1, len(cql()) + 1, 0x1FFFF):
        assert not framed.goes(segment(cql(), size=size)), size
    assert not framed.goes(segment()) and not framed.goes(good + segment()) and not framed.goes(cql())
    assert not framed.goes(segment(cql(), b"rest")) and not framed.goes(segment(cql()[:-1]))
    for more in (1, 4, 6 + len(good), 1 << 20, (1 << 32) - 9, -1 & 0xFFFFFFF):  # larger than the segment
        assert not framed.goes(segment(cql(more=more % (1 << 32) - len(b"identity") if more > 1 << 30 else more))), more
        assert not framed.goes(segment(cql(1, b"rows", 0x85, 8, more % (1 << 31))) + good, AGAIN), more
    assert framed.goes(good)
