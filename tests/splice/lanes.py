"""A lane over the two connections of a small relay (hops.py), messages for it, and what goes straight of them by
tests/matching.py.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

from l7proxy.offers import Group, Offer
from sockmap.bpfmap import BpfMap
from sockmap.selfbench import Bench, ready, take
from sockmap.splice_lanes import (
    ANSWER_NOTE,
    ANSWERS,
    BINDINGS,
    COMPACT,
    EXACTLY,
    LANE_MAPS,
    NOTES,
    RECORDS,
    REQUEST_NOTE,
    REQUESTS,
    Form,
    Lane,
    Lanes,
)
from tests.matching import messages, offered
from tests.splice.hops import Direction, Hops, hops

PLACES = 8
THERE, AGAIN = 0, 1
"""The ways of a lane: requests, and answers."""
MOST = 20_000
FORM = Form(0, 4, MOST, 8, 4, 8, 4, False, bytes(16), bytes(16))
"""Requests: length, kind, id, name. Answers: length, id."""
TAILS = RECORDS, COMPACT, BINDINGS, EXACTLY
NAME = b"known..."
VALUES, REST = 3, 2
"""Of BINDINGS."""
_groups = count(1)


def mask_of(tail: int) -> bytes:
    """All but the length, the id, and the length of the records."""
    return bytes(4) + b"\xff" * 4 + bytes(4) + b"\xff" * 8 + bytes(4 if tail == RECORDS else 0)


def prefix_of(tail: int, name: bytes = NAME) -> bytes:
    """What is known of requests of a kind."""
    return struct.pack(">III8s", 0, tail, 0, name) + bytes(4 if tail == RECORDS else 0)


def frame(tail: int, behind: bytes, identity: int = 7, name: bytes = NAME, size: int | None = None) -> bytes:
    """A request; `size`: what it says of itself, if that is wrong."""
    body = struct.pack(">II8s", tail, identity, name) + behind
    return struct.pack(">I", len(body) if size is None else size & 0xFFFFFFFF) + body


def records(data: bytes = b"records", identity: int = 7, inner: int | None = None, name: bytes = NAME) -> bytes:
    """With a length before what it carries, and nothing behind."""
    inside = (len(data) if inner is None else inner) & 0xFFFFFFFF
    return frame(RECORDS, struct.pack(">I", inside) + data, identity, name)


def varint(value: int, least: int = 1) -> bytes:
    """In so many bytes, at least."""
    out = b""
    while value > 0x7F or len(out) + 1 < least:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def compact(data: bytes, said: bytes | None = None, behind: bytes = bytes(3)) -> bytes:
    """With a varint, one more than the length of what it carries, and three bytes behind."""
    return frame(COMPACT, (varint(len(data) + 1) if said is None else said) + data + behind)


def bindings(*values: bytes | int, rest: bytes = bytes(REST)) -> bytes:
    """With values, each behind its length, and what follows. A number is a length with nothing behind."""
    parts = [
        struct.pack(">I", value & 0xFFFFFFFF) if isinstance(value, int) else struct.pack(">I", len(value)) + value
        for value in values
    ]
    return frame(BINDINGS, b"".join(parts) + rest)


def exactly(behind: bytes = b"") -> bytes:
    """With nothing behind."""
    return frame(EXACTLY, behind)


def answer(identity: int = 7, data: bytes = b"answer") -> bytes:
    """Of a server."""
    return struct.pack(">II", 4 + len(data), identity) + data


@dataclass
class Road:
    """Two connections, the relay between them, and a lane that its two bridges go by."""

    four: Hops
    lanes: Lanes
    lane: Lane
    group: int
    taken: list[int] = field(default_factory=lambda: [0, 0])
    """Notes that were read."""

    def ends(self, way: int) -> tuple[socket.socket, Direction, socket.socket]:
        """Who sends, the relay's direction, and who reads."""
        four = self.four
        return (four.client, four.there, four.server) if way == THERE else (four.server, four.again, four.client)

    def know(self, tail: int, number: int = 0, name: bytes = NAME) -> None:
        """Requests of a kind and a name are allowed."""
        assert self.lane.has(mask_of(tail), tail)
        self.lanes.know(self.group, prefix_of(tail, name), tail, number, VALUES, REST)

    def open(self, *ways: int) -> None:
        """Nothing is in the relay's hands."""
        for way in ways or (THERE, AGAIN):
            self.lane.open(way, self.ends(way)[1].read)

    def notes(self, way: int) -> list[tuple[int, int, int, bytes]]:
        """New ones: times, ids, numbers or sizes, samples."""
        place, layout = (REQUESTS, REQUEST_NOTE) if way == THERE else (ANSWERS, ANSWER_NOTE)
        found = []
        while self.taken[way] != self.lane.made(way):
            start = self.lane.start + place + self.taken[way] % NOTES * layout.size
            at, identity, number, *sample = layout.unpack_from(self.lane.memory, start)
            found.append((at, identity, number, sample[0] if sample else b""))
            self.taken[way] += 1
        self.lane.took(way, self.taken[way])
        return found

    def ids(self, way: int = THERE) -> list[int]:
        """Those of the new notes."""
        return [note[1] for note in self.notes(way)]

    def where(self, data: bytes, way: int = THERE) -> bool:
        """Send it, and take it from where it has come: whether that is its reader, not the relay."""
        sender, direction, target = self.ends(way)
        sender.sendall(data)
        readable, _, _ = select.select([target, direction.source], [], [], 1)
        assert len(readable) == 1, f"it has come to {len(readable)} places"
        assert take(readable[0], len(data)) == data
        assert not ready(target) and not ready(direction.source)
        if readable[0] is direction.source:
            direction.read += len(data)
        return readable[0] is target

    def goes(self, data: bytes, way: int = THERE) -> bool:
        """Whether it goes straight where nothing has come before that does not."""
        self.open(way)
        return self.where(data, way)


@contextmanager
def roads(bench: Bench, form: Form = FORM) -> Iterator[Road]:
    """With a lane that is shut, and knows nothing yet."""
    fds = bench.splicer.bridge_fds()
    known = BpfMap(fds["known"], *LANE_MAPS["known"])
    for key, _ in list(known.items()):  # those of tests before
        known.delete(key)
    lanes = Lanes(fds, 0, 1, PLACES)
    with hops(bench) as four:
        lane = lanes.take(form)
        assert lane is not None
        road = Road(four, lanes, lane, next(_groups))
        lane.allow(road.group, 0)
        four.there.bridge.by_lane(lane)
        four.again.bridge.by_lane(lane)
        yield road


# -- a second account --------------------------------------------------------------------------------------------------


_OFFERS = [Offer(Group(), prefix_of(tail), mask_of(tail), tail, VALUES, REST, None) for tail in TAILS]


def straight(data: bytes, left: int = 0) -> int | None:
    """None if a send comes to the relay; else how much of its last message is still to come, where `left` bytes were
    of the one before."""
    if left >= len(data):
        return left - len(data)
    found = messages(FORM, data, left)
    if found is None or any(offered(_OFFERS, message) is None for message in found[0]):
        return None
    return found[1]


def mutated(chance: random.Random) -> bytes:
    """One to three requests, most of them with something about them changed."""
    return b"".join(_mutated(chance) for _ in range(chance.choice([1, 1, 1, 2, 3])))


def _mutated(chance: random.Random) -> bytes:
    data = chance.randbytes(chance.choice([0, 1, 5, 126, 127, 300, 3000]))
    values: list[bytes | int] = [
        chance.choice([b"", b"v", data[:40], -1, -1, -2, 0, 1, 1 << 30]) for _ in range(chance.choice([3] * 6 + [2, 4]))
    ]
    if chance.random() < 0.6:
        values = [value for value in values if not isinstance(value, int) or value == -1]
        values += [b"x"] * (VALUES - len(values))
    behind = bytes(chance.choice([3] * 8 + [2, 4]))
    said = varint(max(0, len(data) + 1 + chance.choice([0] * 5 + [1, -1])), chance.choice([1, 1, 1, 2, 3, 4, 5]))
    made = bytearray(
        chance.choice(
            [
                records(data, chance.randrange(1 << 32), len(data) + chance.choice([0, 0, 0, 1, -1])),
                compact(data, said, behind),
                bindings(*values, rest=bytes(chance.choice([2, 2, 2, 1, 3]))),
                exactly(bytes(chance.choice([0, 0, 0, 1]))),
            ]
        )
    )
    match chance.randrange(12):
        case 0:
            made[chance.randrange(min(len(made), 40))] ^= 1 << chance.randrange(8)
        case 1:
            del made[chance.randrange(1, len(made)) :]
        case 2:
            made += chance.randbytes(chance.choice([1, 4, 30]))
        case 3:
            made[0:4] = struct.pack(">I", chance.choice([0, 3, 4, 15, 16, MOST - 4, MOST - 3, 1 << 31, (1 << 32) - 1]))
        case 4:
            place = chance.randrange(len(made))
            made[place:place] = chance.randbytes(1)
    return bytes(made)


# -- a relay that opens and shuts at random ----------------------------------------------------------------------------


@dataclass
class Shaky:
    """One way of a relay, which sees every message: by its note, or whole."""

    road: Road
    way: int
    chance: random.Random
    told: list[int] = field(default_factory=list)
    """Ids."""
    by_notes: int = 0
    openings: int = 0
    opened: bool = False
    credit: int = 0
    """Bytes to come here of a message that has begun to go straight."""
    held: bytes = b""

    def _settle(self) -> None:
        """Nothing goes straight, and all is known of what did."""
        self._look()
        if self.opened:
            self.opened, self.credit = False, self.road.lane.left(self.way)

    def _look(self) -> None:
        found = self.road.ids(self.way)
        self.told += found
        self.by_notes += len(found)

    def _came(self) -> None:
        direction = self.road.ends(self.way)[1]
        self.road.lane.shut(self.way)
        self._settle()
        data = direction.turn(opens=False, most=self.chance.choice([5, 100, 65536]))
        skipped = min(self.credit, len(data))
        self.credit -= skipped
        self.held += data[skipped:]
        while len(self.held) >= 4 and len(self.held) >= (size := struct.unpack_from(">I", self.held)[0] + 4):
            self.told.append(struct.unpack_from(">I", self.held, 8 if self.way == THERE else 4)[0])
            self.held = self.held[size:]

    def turn(self) -> None:
        """Whatever comes to mind."""
        chance, lane, (_, direction, _) = self.chance, self.road.lane, self.road.ends(self.way)
        if ready(direction.source):
            self._came()
        elif self.opened and chance.random() < 0.3:
            lane.shut(self.way)
            while direction.bridge.deciding():
                time.sleep(0)
            self._settle()
        elif not self.opened and not self.credit and not self.held and chance.random() < 0.7:
            lane.open(self.way, direction.read)
            self.opened = True
            self.openings += 1
        else:
            self._look()
            time.sleep(chance.choice([0, 0, 0.0001, 0.001]))

    def end(self) -> None:
        """All has come."""
        self.road.lane.shut(self.way)
        self._settle()
