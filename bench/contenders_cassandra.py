"""A real Cassandra to be measured with, and the rules of its clients."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.contenders import Contender
from bench.contenders_kafka import MEMORY
from bench.contenders_tcp import Place, direct
from bench.load_cassandra import (
    BULK,
    KEYSPACE,
    LARGE,
    LARGE_ROWS,
    ROWS,
    SMALL,
    TABLES,
    bulk_read,
    bulk_read_in_segments,
    many,
    many_in_segments,
    one_by_one,
    prepare,
    simple,
)
from tests import netns
from tests.cassandra.server import Server, connect, server
from tests.lab import Lab

_JAVA = ("-Xmx1g", "-XX:TieredStopAtLevel=4")
_WARM, _WARM_BULK = 12.0, 256 << 20
"""Seconds and bytes of each load: as for Kafka."""


@contextmanager
def place() -> Iterator[Place]:
    """A server with tables, and rows in them."""
    with Lab() as lab:
        pod = lab.pod("server")
        under = MEMORY if MEMORY.is_dir() else None
        with server(namespace=pod.ns, host=pod.v4, java=_JAVA, under=under) as running:
            _fill(running)
            prepare(lab.folder)
            made = Place(lab, pod, running.address)
            _warm(direct(made))
            yield made


def _warm(plain: Contender) -> None:
    for run in (many, many_in_segments, simple, one_by_one):
        run(plain, _WARM)
    for read in (bulk_read, bulk_read_in_segments):
        read(plain, _WARM_BULK)


def _fill(running: Server) -> None:
    """From within the server's own namespace, as a process of its own: threads of a driver stay where they began."""
    host, port = running.address
    argv = [sys.executable, "-m", "bench.contenders_cassandra", host, str(port)]
    subprocess.run(netns.inside(str(running.namespace), argv), check=True, timeout=120)


def main(host: str, port: int) -> None:
    """Make the tables, and fill them."""
    with connect((host, port)) as session:
        for statement in TABLES:
            session.execute(statement)
        for table, rows, value in ((SMALL, ROWS, "v" * 100), (BULK, LARGE_ROWS, b"v" * LARGE)):
            insert = session.prepare(f"INSERT INTO {KEYSPACE}.{table} (id, value) VALUES (?, ?)")
            for number in range(rows):
                session.execute(insert, (number, value))


def rules(count: int) -> dict[str, Any]:
    """So many."""
    found = [{"action": "select", "keyspace": f"tenant{number}", "table": "events"} for number in range(count - 2)]
    met = [{"action": ["select", "modify"], "keyspace": KEYSPACE, "table": table} for table in (SMALL, BULK)]
    return {"cql": [*found, *met]}


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
