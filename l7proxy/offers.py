"""What a conversation lets the fast path have: requests that it would allow again whatever their rest says."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import count
from secrets import randbits
from typing import Any, NamedTuple

from l7proxy.http1_exchange import Judge

_NUMBERS = count(randbits(48))
_FAST = "fast path"
MOST = 4096
"""Entries of a group; then there is a new one."""


class Group:
    """What one judge allows with one server, by a number that is no other's. `until`: for how long, in seconds of the
    connections' clock; 0: for good."""

    __slots__ = ("entries", "given", "number", "until")

    def __init__(self) -> None:
        self.number = next(_NUMBERS)
        self.until = 0.0
        self.entries: list[Any] = []
        """What notes are told by."""
        self.given: dict[tuple[bytes, int], tuple[float, int]] = {}
        """When the programs were given a prefix (with its tail), and its place in `entries`."""


class Offer(NamedTuple):
    """Requests that begin with `prefix`, where `mask` has ones (elsewhere it is nought), and go on as `tail`, `values`
    and `rest` say (sockmap/splice_lanes.py), are allowed to `group`. `entry`: what a note of one is told by."""

    group: Group
    prefix: bytes
    mask: bytes
    tail: int
    values: int
    rest: int
    entry: Any


def group_of(judge: Judge, key: Hashable, until: float = 0.0) -> Group:
    """The one of this judge and what else decides; `until`: see `Group`."""
    found: Group | None = judge.calls.get((_FAST, key))
    if found is None or len(found.entries) >= MOST:
        found = judge.calls[_FAST, key] = Group()
    found.until = until
    return found


def masked(data: bytes, mask: bytes) -> bytes:
    """What stands there where the mask has ones."""
    return (int.from_bytes(data, "big") & int.from_bytes(mask, "big")).to_bytes(len(mask), "big")
