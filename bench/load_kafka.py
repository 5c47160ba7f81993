"""The load of Kafka: bench/load_kafka.c, with requests that are made here once and sent again and again."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bench.contenders import Contender
from bench.load import Costs, Figures, compile_load, per_gigabyte, per_request, run_load
from parsers.kafka import Head, response
from parsers.kafka_codec import encode
from parsers.kafka_schema import BY_NAME, REQUEST
from tests.kafka.wire import framed, request

SMALL, BULK, STORED = "orders", "bulk", "stored"
"""Topics of one partition: for small records, for large batches, and one with records to be read."""
PRODUCE, FETCH = 12, 16
"""Versions of the requests: topics by name, and by id."""
CLIENT = "bench"
_BATCH, _FETCHED = 1_000_000, 1 << 20
"""Bytes of records in a large batch, and those that a fetch asks for."""
_SMALL_RECORD, _BULK_RECORD = 100, 10_000
_IN_FLIGHT = 5
"""Large batches on their way: as many as Kafka's own client sends."""
_PLACEHOLDER = 0x7BCD
_LONGEST = 60.0
"""Seconds for bulk."""
_SOURCE = Path(__file__).with_name("load_kafka.c")
Tree = Mapping[str, Any]


class Request(NamedTuple):
    """A request that is sent again and again: the file with its frame, its API and version, how many may wait for
    their responses, and what these look like."""

    file: str
    api: str
    version: int
    flight: int
    answer: Tree

    @property
    def place(self) -> int:
        """Where a response has its error code."""
        head = Head(BY_NAME[self.api].key, self.version, 1, CLIENT, 0, 0)
        return response(head, self.answer).index(struct.pack(">h", _PLACEHOLDER))

    def write(self, folder: Path, tree: Tree) -> None:
        """Make the file."""
        key = BY_NAME[self.api].key
        body = encode(key, self.version, REQUEST, tree)
        (folder / self.file).write_bytes(framed(request(key, self.version, body, client=CLIENT)))


def _produced(topic: str) -> Tree:
    return {"responses": [{"name": topic, "partition_responses": [{"error_code": _PLACEHOLDER}]}]}


_FOUND = {"responses": [{"topic_id": bytes(16), "partitions": [{"error_code": _PLACEHOLDER}]}]}
_ONE = Request("one", "produce", PRODUCE, 1, _produced(SMALL))
_BULK = Request("bulk", "produce", PRODUCE, _IN_FLIGHT, _produced(BULK))
_FILL = Request("fill", "produce", PRODUCE, 1, _produced(STORED))
_READ = Request("read", "fetch", FETCH, 1, _FOUND)


def prepare(folder: Path, stored: bytes) -> None:
    """Write the requests into a folder, and compile the program that sends them. `stored`: the id of that topic."""
    compile_load(_SOURCE, folder)
    _ONE.write(folder, produce(SMALL, batch(1, _SMALL_RECORD)))
    _BULK.write(folder, produce(BULK, batch(_BATCH // _BULK_RECORD, _BULK_RECORD)))
    _FILL.write(folder, produce(STORED, batch(_BATCH // _BULK_RECORD, _BULK_RECORD)))
    _READ.write(folder, _fetch(stored))


def fill(contender: Contender, size: int) -> None:
    """Put records where they will be read."""
    _run(contender, _FILL, _LONGEST, size)


def one_by_one(contender: Contender, seconds: float) -> Figures:
    """A record of 100 bytes at a time, acknowledged by all: per second, latency in us, and CPU in us for each."""
    return per_request(*_run(contender, _ONE, seconds, float("inf")))


def bulk_produce(contender: Contender, size: int) -> Figures:
    """Batches of 1 MB, five on their way: GB/s, and CPU seconds for each GB."""
    return per_gigabyte(*_run(contender, _BULK, _LONGEST, size))


def bulk_consume(contender: Contender, size: int) -> Figures:
    """Fetches of 1 MiB one after the other."""
    return per_gigabyte(*_run(contender, _READ, _LONGEST, size))


def _run(contender: Contender, what: Request, seconds: float, size: float) -> tuple[Figures, Costs]:
    return run_load(contender, [contender.road.lab.folder / what.file, what.place, what.flight], seconds, size)


# -- requests ------------------------------------------------------------------------------------------------------


def produce(topic: str, records: bytes) -> Tree:
    """The tree of a request that waits for all replicas."""
    rows = [{"index": 0, "records": records}]
    return {"acks": -1, "timeout": 30_000, "topic_data": [{"name": topic, "partition_data": rows}]}


def _fetch(topic: bytes) -> Tree:
    """All that the topic has from its beginning on, without a session."""
    partition = {"partition": 0, "fetch_offset": 0, "log_start_offset": -1, "current_leader_epoch": -1}
    row = {"topic_id": topic, "partitions": [partition | {"last_fetched_epoch": -1, "partition_max_bytes": _FETCHED}]}
    return {"max_wait": 500, "min_bytes": 1, "max_bytes": 50 << 20, "session_epoch": -1, "topics": [row]}


def batch(count: int, size: int) -> bytes:
    """A batch of `count` records, of about `size` bytes each with what stands around them (not compressed)."""
    records = b"".join(_record(number, size) for number in range(count))
    head = struct.pack(">hiqqqhii", 0, count - 1, 0, 0, -1, -1, -1, count)
    body = struct.pack(">I", _crc32c(head + records)) + head + records
    return struct.pack(">qiib", 0, len(body) + 5, -1, 2) + body


def _record(number: int, size: int) -> bytes:
    head = b"\0\0" + _zigzag(number) + b"\x01"
    value = b"v" * (size - len(head) - 5)
    body = head + _zigzag(len(value)) + value + b"\0"
    return _zigzag(len(body)) + body


def _zigzag(value: int) -> bytes:
    value, out = value << 1, bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _crc32c(data: bytes) -> int:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ table[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF
