"""The fast path's rule (sockmap/bpf/splice_lanes.h) once more, plainly: which messages go straight, and what the
programs leave behind of them."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable
from time import monotonic_ns
from typing import NamedTuple

from l7proxy.offers import Offer, masked
from l7proxy.ops import Direction
from sockmap.splice_lanes import (
    ANSWER_NOTE,
    ANSWERS,
    BINDINGS,
    COMPACT,
    EXACTLY,
    MOST_VALUES,
    NOTES,
    RECORDS,
    REQUEST_NOTE,
    REQUESTS,
    SAMPLE,
    SIZE,
    Form,
    Lane,
)

REQUEST, RESPONSE = Direction.REQUEST, Direction.RESPONSE

LINEAR, AT_ONCE = 32_768, 128
"""Bytes of a send that are looked at, and messages in it, at most."""
_SEGMENT, _TRAILER, _PAYLOAD, _ALONE = 6, 4, 0x1FFFF, 1 << 17
EPOCH, BASE, READ, BOUND, SHUT, MADE, LEFT = range(7)
"""The words of a lane's way."""
Known = dict[tuple[int, bytes, int, bytes], tuple[Offer, int]]
"""Offers and their numbers, by group, mask, tail and prefix."""


class Begun(NamedTuple):
    """A message as it is looked at: its `begin`, as much as there is, and how long it is in all."""

    begin: bytes
    size: int


def messages(form: Form, data: bytes, left: int = 0) -> tuple[list[Begun], int] | None:
    """Those that begin in a send when `left` bytes of one before were still to come, fewer than it has; and how many
    are to come behind it. None: it does not go straight, whatever is known."""
    have, place, stop, found = min(len(data), LINEAR), left, 0, []
    for _ in range(AT_ONCE):
        if form.segments and not stop:
            bits = int.from_bytes(data[place : place + 3], "little")
            place += _SEGMENT
            stop = place + (bits & _PAYLOAD)
            if place > have or bits & ~_PAYLOAD != _ALONE or stop + _TRAILER > len(data):
                return None
        if place + form.head > have:
            return None
        size = struct.unpack_from(">I", data, place + form.length_at)[0] + form.more
        if not form.head <= size <= form.most or (stop and size > stop - place):
            return None
        found.append(Begun(data[place : min(place + size, have)], size))
        if not stop and size >= len(data) - place:
            return found, size - (len(data) - place)
        place += size
        if stop and place == stop:
            place, stop = place + _TRAILER, 0
            if place == len(data):
                return found, 0
    return None


def straight(offers: Iterable[Offer], form: Form, message: bytes) -> Offer | None:
    """What the whole message was offered by, all of which is there."""
    if len(message) < form.head:
        return None
    (size,) = struct.unpack_from(">I", message, form.length_at)
    if size + form.more != len(message) or len(message) > form.most:
        return None
    return offered(offers, Begun(message, len(message)))


def offered(offers: Iterable[Offer], message: Begun) -> Offer | None:
    """What a message was offered by."""
    for offer in offers:
        begin = message.begin[: len(offer.mask)]
        alike = len(begin) == len(offer.mask) and masked(begin, offer.mask) == offer.prefix
        if alike and follows(offer, message):
            return offer
    return None


def follows(offer: Offer, message: Begun) -> bool:
    """Whether the rest is as the offer says."""
    place, (begin, size) = len(offer.mask), message
    if offer.tail == RECORDS:
        return bool(struct.unpack_from(">I", begin, place - 4)[0] == size - place)
    if offer.tail == COMPACT:
        return _compact(message, place)
    if offer.tail == BINDINGS:
        whole = offer.values <= MOST_VALUES and len(begin) == size
        return whole and _bindings(begin, place, offer.values) == offer.rest
    return offer.tail == EXACTLY and place == size


def _compact(message: Begun, place: int) -> bool:
    value = shift = 0
    begin, size = message
    for byte in begin[place : place + 4]:
        value |= (byte & 0x7F) << shift
        shift += 7
        place += 1
        if byte < 0x80:
            ends = len(begin) < size or begin.endswith(bytes(3))
            return value > 0 and value - 1 == size - place - 3 and ends
    return False


def _bindings(message: bytes, place: int, values: int) -> int:
    """Bytes behind the values; -1: these are none."""
    for _ in range(values):
        if place + 4 > len(message):
            return -1
        (size,) = struct.unpack_from(">i", message, place)
        place += 4 + max(size, 0)
        if size < -1 or place > len(message):
            return -1
    return len(message) - place


def mutated(message: bytes, places: Iterable[tuple[int, int]], tail: bytes) -> bytes:
    """With some bytes changed, and another end."""
    raw = bytearray(message + tail)
    for place, byte in places:
        raw[place % len(raw)] = byte
    return bytes(raw)


class Programs:
    """A lane, and what the programs do with it: its words are read and written nowhere else. `known`: the map of what
    is allowed, which all lanes share."""

    def __init__(self, known: Known | None = None) -> None:
        self.lane = Lane(mmap.mmap(-1, -(-SIZE // mmap.PAGESIZE) * mmap.PAGESIZE), 0)
        self.known: Known = {} if known is None else known
        self._form: Form | None = None

    def take(self, form: Form) -> Lane | None:
        """It is given away once."""
        if self._form is not None:
            return None
        self._form = form
        self.lane.begin(1, form)
        return self.lane

    def is_open(self, way: int) -> bool:
        """For the next send, if the relay has been given nothing meanwhile."""
        return self._word(way, EPOCH) not in (0, self._word(way, SHUT))

    def opens(self, way: int, given: int) -> bool:
        """At a send's beginning. `given`: bytes of its sender that have come to the relay."""
        if not self.is_open(way):
            return False
        if given & 0xFFFFFFFF != self._word(way, BASE):
            self._set(way, SHUT, self._word(way, EPOCH))
            return False
        return True

    def passes(self, way: int, data: bytes) -> bool:
        """Whether all of the send is known; if so it is noted."""
        form, left = self._form, self._word(way, LEFT)
        assert form is not None
        if left >= len(data):
            self._set(way, LEFT, left - len(data))
            return True
        group, until = struct.unpack_from("=QQ", self.lane.memory, self.lane.start + 8)
        found = messages(form, data, left)
        if found is None or (way == REQUEST and monotonic_ns() > until):
            return False
        made = self._word(way, MADE)
        for message in found[0]:
            if (made - self._word(way, READ)) & 0xFFFFFFFF >= NOTES:
                return False
            if not (self._asks(group, form, made, message) if way == REQUEST else self._answers(form, made, message)):
                return False
            made = (made + 1) & 0xFFFFFFFF
        self._set(way, MADE, made)
        self._set(way, LEFT, found[1])
        return True

    def _asks(self, group: int, form: Form, made: int, message: Begun) -> bool:
        under_way = made - self._word(RESPONSE, MADE) - self._word(REQUEST, BOUND)
        if not under_way & 0x80000000:
            return False
        place = self.lane.start + REQUESTS + made % NOTES * REQUEST_NOTE.size
        identity = self._identity(form, form.request_id_at, message)
        for mask, tail in self.lane._shapes:
            start = message.begin[: len(mask)]
            if len(start) < len(mask) or (hit := self.known.get((group, mask, tail, masked(start, mask)))) is None:
                continue
            if follows(hit[0], message):
                REQUEST_NOTE.pack_into(self.lane.memory, place, monotonic_ns(), identity, hit[1])
                return True
            return False
        return False

    def _answers(self, form: Form, made: int, message: Begun) -> bool:
        sample = message.begin[:SAMPLE]
        seen = zip(sample.ljust(SAMPLE, b"\0"), form.answer_mask, form.answer, strict=False)
        if len(sample) < min(message.size, SAMPLE) or any(byte & mask != wanted for byte, mask, wanted in seen):
            return False
        place = self.lane.start + ANSWERS + made % NOTES * ANSWER_NOTE.size
        identity = self._identity(form, form.answer_id_at, message)
        ANSWER_NOTE.pack_into(self.lane.memory, place, monotonic_ns(), identity, len(sample), sample)
        return True

    @staticmethod
    def _identity(form: Form, place: int, message: Begun) -> int:
        return int.from_bytes(message.begin[place : place + form.id_size], "big")

    def _word(self, way: int, word: int) -> int:
        return self.lane._words[self.lane._ways[way] + word]

    def _set(self, way: int, word: int, value: int) -> None:
        self.lane._words[self.lane._ways[way] + word] = value
