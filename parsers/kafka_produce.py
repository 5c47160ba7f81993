"""A Produce request that is too large to be held, read as it comes: its records are passed over by their length."""

from __future__ import annotations

import struct
from enum import IntEnum, auto

from parsers.kafka import Head
from parsers.kafka_codec import Tree, text, varint
from parsers.kafka_names import Item
from parsers.malformed import Malformed

_ACKS = struct.Struct(">hi")
_LONG = struct.Struct(">i")
_SHORT = struct.Struct(">h")
_MOST_TAGS = 1000
_MAX_NAME = 1024
"""Bytes of a name: no broker knows a topic or a transaction of more."""


class _At(IntEnum):
    HEAD = auto()
    TOPIC = auto()
    PARTITION = auto()
    TAGS = auto()
    TAG = auto()
    DONE = auto()


class _More(Exception):
    """What begins here is not complete yet."""


class ProduceScan:
    """Reads the message behind `head`, piece by piece: `step` says how long each is.

    `count`: topics that are announced. `topics`: each with the indexes of its partitions, as far as it was read, in
    the form of the request's tree; `partitions`: how many these are together. With `keep` False none are kept.
    """

    def __init__(self, head: Head) -> None:
        self.head = head
        self.keep = True
        self.transactional_id: str | None = None
        self.acks = self.timeout = self.count = self.partitions = 0
        self.topics: list[Tree] = []
        self._flexible = head.version >= 9
        self._by_id = head.version >= 13
        self._at = _At.HEAD
        self._topics_left = self._partitions_left = self._tags = 0
        self._behind = _At.DONE

    @property
    def done(self) -> bool:
        """All was read."""
        return self._at is _At.DONE

    @property
    def item(self) -> Item:
        """What the topic whose head was read last is, for a policy."""
        return self.item_of(self.topics[-1])

    def item_of(self, topic: Tree) -> Item:
        """What one of `topics` is, for a policy."""
        return Item(topic.get("name"), topic.get("topic_id"), None, self.transactional_id)

    @property
    def tree(self) -> Tree:
        """The request without its records."""
        head = {"transactional_id": self.transactional_id, "acks": self.acks, "timeout": self.timeout}
        return {**head, "topic_data": self.topics}

    def step(self, data: bytes, place: int) -> int:
        """The length of the next piece, perhaps beyond the end of `data`; 0 if it cannot be told yet. A topic's head is
        a piece of its own. Raises Malformed."""
        try:
            stop = self._step(data, place)
        except _More:
            return 0
        return stop - place

    def _step(self, data: bytes, place: int) -> int:
        if self._at is _At.HEAD:
            return self._head(data, place)
        if self._at is _At.TOPIC:
            return self._topic(data, place)
        if self._at is _At.PARTITION:
            return self._partition(data, place)
        if self._at is _At.TAGS:
            self._tags, place = self._varint(data, place)
            if self._tags > _MOST_TAGS:
                raise Malformed(place, f"{self._tags} tagged fields")
            self._next_tag()
            return place
        _, place = self._varint(data, place)
        size, place = self._varint(data, place)
        self._tags -= 1
        self._next_tag()
        return place + size

    def _head(self, data: bytes, place: int) -> int:
        name, place = self._text(data, place)
        self._want(data, place, _ACKS.size)
        acks, timeout = _ACKS.unpack_from(data, place)
        count, place = self._size(data, place + _ACKS.size)
        if count < 0:
            raise Malformed(place, "null where topics must be")
        self.transactional_id, self.acks, self.timeout, self.count = name, acks, timeout, count
        self._topics_left = count
        self._next_topic()
        return place

    def _topic(self, data: bytes, place: int) -> int:
        topic: Tree = {}
        if self._by_id:
            self._want(data, place, 16)
            topic["topic_id"] = data[place : place + 16]
            place += 16
        else:
            topic["name"], place = self._text(data, place)
            if topic["name"] is None:
                raise Malformed(place, "null where a topic must be")
        count, place = self._size(data, place)
        if count < 0:
            raise Malformed(place, "null where partitions must be")
        topic["partition_data"] = []
        self.topics.append(topic)
        self._topics_left -= 1
        self._partitions_left = count
        self._next_partition()
        return place

    def _partition(self, data: bytes, place: int) -> int:
        self._want(data, place, 4)
        (index,) = _LONG.unpack_from(data, place)
        size, place = self._size(data, place + 4)
        if size < 0:
            raise Malformed(place, "null where records must be, which brokers do not answer")
        if self.keep:
            self.topics[-1]["partition_data"].append({"index": index, "records": None})
        self.partitions += 1
        self._partitions_left -= 1
        self._tagged(_At.PARTITION)
        return place + size

    # -- what comes next -----------------------------------------------------------------------------------------

    def _tagged(self, behind: _At) -> None:
        """Tagged fields, if there are such, and then on."""
        self._behind = behind
        if self._flexible:
            self._at = _At.TAGS
        else:
            self._go_on()

    def _next_tag(self) -> None:
        self._at = _At.TAG
        if not self._tags:
            self._go_on()

    def _go_on(self) -> None:
        if self._behind is _At.PARTITION:
            self._next_partition()
        elif self._behind is _At.TOPIC:
            self._next_topic()
        else:
            self._at = _At.DONE

    def _next_partition(self) -> None:
        if self._partitions_left:
            self._at = _At.PARTITION
        else:
            self._tagged(_At.TOPIC)

    def _next_topic(self) -> None:
        if self._topics_left:
            self._at = _At.TOPIC
        else:
            self._tagged(_At.DONE)

    # -- fields --------------------------------------------------------------------------------------------------

    @staticmethod
    def _want(data: bytes, place: int, size: int) -> None:
        if place + size > len(data):
            raise _More

    def _varint(self, data: bytes, place: int) -> tuple[int, int]:
        stop = place
        while stop < len(data) and data[stop] > 0x7F and stop - place < 5:
            stop += 1
        if stop >= len(data):
            raise _More
        return varint(data, place, stop + 1)

    def _size(self, data: bytes, place: int) -> tuple[int, int]:
        """Of an array or of records; -1 is null."""
        if self._flexible:
            size, place = self._varint(data, place)
            return size - 1, place
        self._want(data, place, 4)
        (size,) = _LONG.unpack_from(data, place)
        if size < -1:
            raise Malformed(place, "a negative length")
        return size, place + 4

    def _text(self, data: bytes, place: int) -> tuple[str | None, int]:
        if self._flexible:
            size, behind = self._varint(data, place)
            size -= 1
        else:
            self._want(data, place, 2)
            (size,) = _SHORT.unpack_from(data, place)
            behind = place + 2
        if size < 0:
            if size < -1:
                raise Malformed(place, "a negative length")
            return None, behind
        if size > _MAX_NAME:
            raise Malformed(place, f"a name of {size} bytes")
        self._want(data, behind, size)
        return text(data[behind : behind + size]), behind + size
