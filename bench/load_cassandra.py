"""The load of Cassandra: bench/load_cassandra.c, with requests in the words of its driver, which are made here once."""

from __future__ import annotations

import struct
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import NamedTuple

from bench.contenders import Contender
from bench.load import Costs, Figures, compile_load, per_gigabyte, per_request, run_load
from parsers.cassandra_responses import Kind
from tests.cassandra import words

KEYSPACE, SMALL, BULK = "bench", "small", "bulk"
"""Tables for short texts, and for large blobs."""
ROWS, LARGE_ROWS, LARGE = 1024, 16, 1 << 20
"""Rows of the tables, and bytes of each of the large ones."""
TABLES = (
    f"CREATE KEYSPACE {KEYSPACE} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}",
    f"CREATE TABLE {KEYSPACE}.{SMALL} (id int PRIMARY KEY, value text)",
    f"CREATE TABLE {KEYSPACE}.{BULK} (id int PRIMARY KEY, value blob)",
)
MANY = 64
"""Requests in flight."""
_FEW = 4
_TEXTS = 1 << 15
"""Simple statements that differ: more than anybody remembers."""
_LONGEST = 60.0
"""Seconds for bulk."""
_SOURCE = Path(__file__).with_name("load_cassandra.c")


class Load(NamedTuple):
    """What is sent again and again: the file it stands in, the protocol's version, how many are in flight, what kind
    of RESULT each has to have, and the statement that is prepared before."""

    file: str
    version: int
    flight: int
    kind: Kind
    prepared: str

    def write(self, folder: Path, request: Callable[[int, int], bytes], count: int) -> None:
        """Make the file. `request` gives the envelope of one, by its number and its stream."""
        requests = (request(number, number % self.flight) for number in range(count))
        framed = (self._framed(one) for one in (words.prepare(self.prepared, self.version), *requests))
        made = (words.startup(self.version), *framed)
        (folder / self.file).write_bytes(b"".join(struct.pack(">I", len(one)) + one for one in made))

    def execute(self, number: int, stream: int) -> bytes:
        """The envelope of the prepared statement for the row of this number."""
        made = md5(self.prepared.encode(), usedforsecurity=False).digest()
        return words.execute(made, self.version, stream, [struct.pack(">i", number)])

    def insert(self, number: int, stream: int) -> bytes:
        """That of a simple statement whose text is no other's."""
        text = f"INSERT INTO {KEYSPACE}.{SMALL} (id, value) VALUES ({number % ROWS}, '{number:0100}')"
        return words.query(text, self.version, stream)

    def _framed(self, envelope: bytes) -> bytes:
        return words.segments(envelope) if self.version > 4 else envelope


_SELECT = f"SELECT value FROM {KEYSPACE}.{SMALL} WHERE id = ?"
_SELECT_LARGE = f"SELECT value FROM {KEYSPACE}.{BULK} WHERE id = ?"
_ONE = Load("one", 4, 1, Kind.ROWS, _SELECT)
_MANY = Load("many", 4, MANY, Kind.ROWS, _SELECT)
_MANY5 = Load("many5", 5, MANY, Kind.ROWS, _SELECT)
_QUERY = Load("query", 4, MANY, Kind.VOID, _SELECT)
_READ = Load("read", 4, _FEW, Kind.ROWS, _SELECT_LARGE)
_READ5 = Load("read5", 5, _FEW, Kind.ROWS, _SELECT_LARGE)


def prepare(folder: Path) -> None:
    """Write the requests into a folder, and compile the program that sends them."""
    compile_load(_SOURCE, folder)
    for one, count in ((_ONE, ROWS), (_MANY, ROWS), (_MANY5, ROWS), (_READ, LARGE_ROWS), (_READ5, LARGE_ROWS)):
        one.write(folder, one.execute, count)
    _QUERY.write(folder, _QUERY.insert, _TEXTS)


def one_by_one(contender: Contender, seconds: float) -> Figures:
    """A prepared statement that reads a row of 100 bytes, one at a time: per second, latency in us, and CPU in us for
    each."""
    return _requests(contender, _ONE, seconds)


def many(contender: Contender, seconds: float) -> Figures:
    """The same with 64 in flight."""
    return _requests(contender, _MANY, seconds)


def many_in_segments(contender: Contender, seconds: float) -> Figures:
    """The same in version 5."""
    return _requests(contender, _MANY5, seconds)


def simple(contender: Contender, seconds: float) -> Figures:
    """Simple statements, each with a text of its own, that write a row of 100 bytes, 64 in flight."""
    return _requests(contender, _QUERY, seconds)


def bulk_read(contender: Contender, size: int) -> Figures:
    """Rows of 1 MiB, four on their way: GB/s, and CPU seconds for each GB."""
    return per_gigabyte(*_run(contender, _READ, _LONGEST, size))


def bulk_read_in_segments(contender: Contender, size: int) -> Figures:
    """The same in version 5."""
    return per_gigabyte(*_run(contender, _READ5, _LONGEST, size))


def _requests(contender: Contender, what: Load, seconds: float) -> Figures:
    return per_request(*_run(contender, what, seconds, float("inf")))


def _run(contender: Contender, what: Load, seconds: float, size: float) -> tuple[Figures, Costs]:
    file = contender.road.lab.folder / what.file
    return run_load(contender, [what.version, int(what.kind), file, what.flight], seconds, size)
