"""The fast path's rule (sockmap/bpf/splice_lanes.h) once more, plainly: which messages of a client go straight."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from l7proxy.offers import Offer, masked
from sockmap.splice_lanes import BINDINGS, COMPACT, EXACTLY, MOST_VALUES, RECORDS, Form


def straight(offers: Iterable[Offer], form: Form, message: bytes) -> Offer | None:
    """What the whole message was offered by, all of which is there."""
    if len(message) < form.head:
        return None
    (size,) = struct.unpack_from(">I", message, form.length_at)
    if size + form.more != len(message) or len(message) > form.most:
        return None
    for offer in offers:
        begin = message[: len(offer.mask)]
        if len(begin) == len(offer.mask) and masked(begin, offer.mask) == offer.prefix and follows(offer, message):
            return offer
    return None


def follows(offer: Offer, message: bytes) -> bool:
    """Whether the rest is as the offer says."""
    place = len(offer.mask)
    if offer.tail == RECORDS:
        return struct.unpack_from(">I", message, place - 4)[0] == len(message) - place
    if offer.tail == COMPACT:
        return _compact(message, place)
    if offer.tail == BINDINGS:
        return offer.values <= MOST_VALUES and _bindings(message, place, offer.values) == offer.rest
    return offer.tail == EXACTLY and place == len(message)


def _compact(message: bytes, place: int) -> bool:
    value = shift = 0
    for byte in message[place : place + 4]:
        value |= (byte & 0x7F) << shift
        shift += 7
        place += 1
        if byte < 0x80:
            return value > 0 and value - 1 == len(message) - place - 3 and message.endswith(bytes(3))
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
