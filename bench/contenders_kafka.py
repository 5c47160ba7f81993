"""A real Kafka broker to be measured with, and the rules of its clients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.contenders import Contender
from bench.contenders_tcp import Place, direct
from bench.load_kafka import BULK, SMALL, STORED, bulk_consume, bulk_produce, one_by_one, prepare
from bench.load_kafka import fill as fill_up
from tests.kafka.broker import broker
from tests.lab import Lab

MEMORY = Path("/dev/shm")
"""Where a server's data is, so that a disk that is busy with something else does not count."""
_SETTINGS = {
    # What is old goes soon, so that memory that was used before is written to: fresh one is three times as slow here.
    "log.initial.task.delay.ms": 1000,
    "log.segment.bytes": 128 << 20,
    "log.retention.bytes": 512 << 20,
    "log.retention.ms": -1,
    "log.retention.check.interval.ms": 1000,
    "log.segment.delete.delay.ms": 1000,
}
_JAVA = ("-Xmx1g", "-XX:TieredStopAtLevel=4")
_STORED = 64 << 20
_WARM, _WARM_BULK = 12.0, 256 << 20
"""Seconds of requests and bytes each way, until the server has compiled what it runs. Before that it takes several
times as much of the machine, which would count against those who share their server with the fewest others."""


@contextmanager
def place() -> Iterator[Place]:
    """A broker with topics, and records in one of them."""
    with Lab() as lab:
        server = lab.pod("server")
        under = MEMORY if MEMORY.is_dir() else None
        with broker(namespace=server.ns, host=server.v4, settings=_SETTINGS, java=_JAVA, under=under) as running:
            ids = running.create(SMALL, BULK, STORED)
            prepare(lab.folder, ids[STORED])
            made = Place(lab, server, running.address)
            _warm(direct(made))
            yield made


def _warm(plain: Contender) -> None:
    fill_up(plain, _STORED)
    one_by_one(plain, _WARM)
    for run in (bulk_produce, bulk_consume):
        run(plain, _WARM_BULK)


def rules(count: int) -> dict[str, Any]:
    """So many."""
    topics = [f"tenant{number}.events" for number in range(count - 3)]
    found = [{"role": "consume" if n % 2 else "produce", "topic": topic} for n, topic in enumerate(topics)]
    found += [
        {"role": role, "topic": topic} for role, topic in (("produce", SMALL), ("produce", BULK), ("consume", STORED))
    ]
    return {"kafka": found}
