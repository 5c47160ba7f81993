"""A request to Produce that is too large to be held: its topics are judged as they come, its records go by count.

A broker stores nothing of a request before all of it is there. So where a refused topic comes behind others whose
records have gone on, the rest is not passed, and the connection ends behind an answer that refuses this topic and
bids the client try the others again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from l7proxy.kafka_responses import Due
from l7proxy.ops import Drop, Pass
from parsers.kafka import Head, read_head, response
from parsers.kafka_names import Item
from parsers.kafka_produce import ProduceScan
from parsers.kafka_refusals import refuse
from parsers.malformed import Malformed

LARGE_FROM = 65_536
"""Bytes of a request from which on it may be one; what it begins with fits into them."""
_TRY_AGAIN = 13
"""NETWORK_EXCEPTION: clients send it again."""
_MOST_PARTITIONS = 100_000


@dataclass(slots=True, eq=False)
class Large:
    """One that is under way. `left`: its bytes that are not decided on. `due`: what the server owes for it, once part
    of it was passed; None if nothing is due. `passed`: part of it has gone to the server."""

    head: Head
    scan: ProduceScan
    left: int
    way: type[Pass] | type[Drop] = Pass
    passed: bool = False
    due: Due | None = None
    refused: dict[Item, int] = field(default_factory=dict)

    @property
    def items(self) -> tuple[Item, ...]:
        """The topics that were read so far."""
        return tuple(dict.fromkeys(map(self.scan.item_of, self.scan.topics)))

    def step(self, data: bytes, position: int) -> int:
        """The size of the next piece; 0 if it is not all there. Raises Malformed."""
        size = self.scan.step(data, position)
        if size > self.left:
            raise Malformed(position, "a request goes on behind its end")
        self.left -= size
        if self.scan.done and self.left:
            raise Malformed(position + size, f"{self.left} bytes behind the end of the message")
        if self.scan.partitions > _MOST_PARTITIONS:
            raise Malformed(position, f"a request with more than {_MOST_PARTITIONS} partitions, too large to be held")
        return size

    def answer(self) -> bytes | None:
        """Our answer, once all was read; None if none is due."""
        codes = {item: self.refused.get(item, _TRY_AGAIN) for item in self.items}
        split = refuse(self.head, self.scan.tree, codes)
        return response(self.head, split.answer) if split.answer is not None else None


def begin(data: bytes, start: int, size: int, most: int) -> tuple[Large, int] | None:
    """Begin to read the frame of `size` bytes that starts here, up to its first topic, and where that was. None: more
    has to be there, or it is to be held (at most `most` bytes). Raises Malformed."""
    try:
        head = read_head(data, start + 4, min(start + size, len(data)))
    except Malformed:
        return None  # of what is not all there
    if head.api_key or not head.known:
        return None
    head = head._replace(end=start + size)
    large = Large(head, ProduceScan(head), start + size - head.body)
    place = head.body
    while not large.scan.topics and not large.scan.done:
        read = large.step(data, place)
        if not read:
            return None
        place += read
    if large.scan.done or (large.scan.count > 1 and size <= most):
        return None
    large.scan.keep = large.scan.count > 1
    return large, place
