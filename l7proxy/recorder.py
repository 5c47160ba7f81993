"""From a relay's records to lines of the flow log and counts: collected, and worked off together.

Together, because between two requests the kernel's network code throws this code out of the CPU's caches: sixty-four
records at once cost half of what they cost one by one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from l7proxy.flowjson import ConnectionEncoder
from l7proxy.flowlog import BatchSink
from l7proxy.metrics import WorkerMetrics
from l7proxy.ops import Carried, Grpc, Record

log = logging.getLogger("l7proxy.worker")
_TOGETHER = 64


class Recorder:
    """A worker's. `clock_offset` makes wall time of the relays' clock, in seconds. Call `work` every 50 ms or so."""

    def __init__(self, sink: BatchSink, metrics: WorkerMetrics) -> None:
        self._sink, self._metrics = sink, metrics
        self.waiting: list[tuple[ConnectionRecords, Record]] = []
        self.clock_offset = 0.0

    def work(self) -> None:
        """Log and count what was taken."""
        waiting, self.waiting = self.waiting, []
        lines: list[bytes] = []
        offset, count = self.clock_offset, self._metrics.request
        for connection, record in waiting:
            try:
                lines.append(connection.encoder().l7(record, record.ended + offset))
            except Exception:
                log.exception("a record could not be written; it is counted as lost")
                self._sink.lost += 1
            count(record.request, connection.endpoint, record.ended - record.started, type(record.call) is Grpc)
        self._sink.add(lines)

    def over(self, connection: ConnectionRecords, requests: Carried, responses: Carried, now: float) -> None:
        """Log how the bytes of a connection went, behind its requests."""
        self.work()
        try:
            self._sink.add([connection.encoder().over(requests, responses, now + self.clock_offset)])
        except Exception:
            log.exception("a record could not be written; it is counted as lost")
            self._sink.lost += 1


class ConnectionRecords:
    """Takes the records of one connection, which are counted for `endpoint`. `make` gives what makes their lines."""

    __slots__ = ("_encoder", "_make", "_recorder", "endpoint")

    def __init__(self, recorder: Recorder, endpoint: str, make: Callable[[], ConnectionEncoder]) -> None:
        self._recorder, self.endpoint, self._make = recorder, endpoint, make
        self._encoder: ConnectionEncoder | None = None

    def add(self, record: Record) -> None:
        """Take one."""
        waiting = self._recorder.waiting
        waiting.append((self, record))
        if len(waiting) >= _TOGETHER:
            self._recorder.work()

    def over(self, requests: Carried, responses: Carried, now: float) -> None:
        """The connection is over, of which the kernel may have carried parts by itself."""
        self._recorder.over(self, requests, responses, now)

    def encoder(self) -> ConnectionEncoder:
        """Made when the first record asks for it: many connections have none."""
        if self._encoder is None:
            self._encoder = self._make()
        return self._encoder
