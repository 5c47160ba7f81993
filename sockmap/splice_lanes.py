"""Lanes: places of the programs for connections whose known requests go straight (sockmap/bpf/splice_lanes.h), as
the worker that has these connections writes and reads them, in memory that it shares with the programs.
"""

from __future__ import annotations

import mmap
import struct
from collections import OrderedDict, deque
from collections.abc import Mapping
from secrets import randbits
from time import monotonic
from typing import NamedTuple

from sockmap.bpfmap import BpfMap

PREFIX, SHAPES, NOTES, SAMPLE = 128, 4, 512, 32
"""As in splice_maps.h."""
PLACES = 512
"""On a node that has lanes: 17 MiB."""
MOST_VALUES = 16
"""Of BINDINGS."""
RECORDS, COMPACT, BINDINGS, EXACTLY = 1, 2, 3, 4
"""What may follow a prefix: see splice_lanes.h."""
_HEAD = struct.Struct("=QQQ8I16s16s")
_WAY, _SHAPE = struct.Struct("=15I"), struct.Struct(f"=II{PREFIX}s")
_KEY, _KNOWN = struct.Struct(f"=QII{PREFIX}s"), struct.Struct("=III4x")
REQUEST_NOTE, ANSWER_NOTE = struct.Struct("=QII"), struct.Struct(f"=QII{SAMPLE}s")
_SHAPES = _HEAD.size + 2 * _WAY.size
REQUESTS = _SHAPES + SHAPES * _SHAPE.size + _KEY.size
ANSWERS = REQUESTS + NOTES * REQUEST_NOTE.size
"""Where the notes begin in a lane."""
SIZE = ANSWERS + NOTES * ANSWER_NOTE.size
LANE_MAPS = {"lanes": (4, SIZE), "known": (_KEY.size, _KNOWN.size)}
"""The sizes of their keys and values."""
_REST = 1.0
"""Seconds before a place is another connection's: a program that has found it may be at work still."""
_OWNER = 56
"""Bits of a group's number; above are those of the worker that has it."""
_NEVER = (1 << 64) - 1


class Form(NamedTuple):
    """How messages are found in bytes, and pairs of them: see struct lane. Of answers, the first 16 bytes under
    `answer_mask` are `answer`."""

    length_at: int
    more: int
    most: int
    head: int
    id_size: int
    request_id_at: int
    answer_id_at: int
    segments: bool
    answer_mask: bytes
    answer: bytes


class Lane:
    """One place. `memory` is that of all, this one's begins at `start`."""

    def __init__(self, memory: mmap.mmap, index: int, owner: int = 0) -> None:
        self.memory, self.index, self.start = memory, index, index * SIZE
        self._owner = owner << _OWNER
        self.nonce = 0
        self._shapes: list[tuple[bytes, int]] = []
        self._words = memoryview(memory).cast("I")
        self._ways = [(self.start + _HEAD.size + way * _WAY.size) // 4 for way in (0, 1)]
        self._epochs = [0, 0]

    def begin(self, nonce: int, form: Form) -> None:
        """It is a connection's from now on."""
        self.memory[self.start : self.start + REQUESTS] = bytes(REQUESTS)
        self.nonce, self._shapes, self._epochs = nonce, [], [0, 0]
        _HEAD.pack_into(self.memory, self.start, nonce, 0, _NEVER, *form)

    def allow(self, group: int, until: float) -> None:
        """What is known of this group may go on, up to this time (seconds of the machine's clock; 0: for good)."""
        struct.pack_into("=QQ", self.memory, self.start + 8, self._owner | group, int(until * 1e9) if until else _NEVER)

    def has(self, mask: bytes, tail: int) -> bool:
        """Whether requests of this shape are looked at; they are if there was room for it. `mask`: of a prefix of this
        length."""
        shape = mask, tail
        if shape in self._shapes:
            return True
        place = self.start + _SHAPES + len(self._shapes) * _SHAPE.size
        if len(self._shapes) == SHAPES:
            return False
        self._shapes.append(shape)
        struct.pack_into(f"=I{PREFIX}s", self.memory, place + 4, tail, mask)
        self._words[place // 4] = len(mask)
        return True

    def open(self, way: int, base: int, room: int = 1 << 30) -> None:
        """`base`: bytes of the sender that have come to the relay, and gone on. `room`: for so many requests."""
        place = self._ways[way]
        self._epochs[way] = self._epochs[way] % 0xFFFFFFFF + 1
        self._words[place + 3] = (self.made(0) - self.made(1) + room) & 0xFFFFFFFF
        self._words[place + 6] = 0
        self._words[place + 1] = base & 0xFFFFFFFF
        self._words[place] = self._epochs[way]

    def shut(self, way: int) -> None:
        """From the sender's next send on nothing goes straight."""
        self._words[self._ways[way]] = 0

    def made(self, way: int) -> int:
        """Notes of a direction since the beginning (32 bits)."""
        return self._words[self._ways[way] + 5]

    def took(self, way: int, read: int) -> None:
        """So many have been read."""
        self._words[self._ways[way] + 2] = read

    def left(self, way: int) -> int:
        """Bytes that are still to come of the last message that began to go straight."""
        return self._words[self._ways[way] + 6]


class Lanes:
    """Those of one worker: its share, `index` of `count`, of all the places, which are `lanes` of a Splicer."""

    def __init__(self, fds: Mapping[str, int], index: int, count: int, places: int = PLACES) -> None:
        memory = mmap.mmap(fds["lanes"], -(-places * SIZE // mmap.PAGESIZE) * mmap.PAGESIZE)
        self._owner = index << _OWNER
        self._free = deque((0.0, Lane(memory, place, index)) for place in range(index, places, count))
        self._known = BpfMap(fds["known"], *LANE_MAPS["known"])
        self._keys: OrderedDict[bytes, None] = OrderedDict()
        self._most = 32 * places // count
        self._nonces = randbits(31) << 32
        for key, _ in list(self._known.items()):
            if _KEY.unpack(key)[0] >> _OWNER == index:
                self._known.delete(key)  # of a worker that had this place before

    def take(self, form: Form) -> Lane | None:
        """A place for a connection, if there is one."""
        if not self._free or self._free[0][0] > monotonic():
            return None
        lane = self._free.popleft()[1]
        self._nonces += 1
        lane.begin(self._nonces, form)
        return lane

    def give_back(self, lane: Lane) -> None:
        """Its connection is over."""
        lane.shut(0)
        lane.shut(1)
        struct.pack_into("=Q", lane.memory, lane.start, 0)
        self._free.append((monotonic() + _REST, lane))

    def know(self, group: int, prefix: bytes, tail: int, number: int, values: int, rest: int) -> None:
        """Requests that begin so, where the mask left nothing out, are allowed to this group. Raises OSError."""
        key = _KEY.pack(self._owner | group, len(prefix), tail, prefix)
        self._known.update(key, _KNOWN.pack(number, values, rest))
        self._keys[key] = None
        self._keys.move_to_end(key)
        if len(self._keys) > self._most:
            self._known.delete(self._keys.popitem(last=False)[0])
