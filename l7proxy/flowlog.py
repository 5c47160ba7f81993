"""Flow records on their way out: batched in the workers, written by a thread of the supervisor, shown to followers.

Nothing here makes the hot path wait. What finds no room is counted, and the log's next line says how many are missing.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from time import time
from typing import TypeAlias

from l7proxy.config import FlowLogConfig
from l7proxy.flowfile import FlowFile
from l7proxy.flowjson import lost_line

_BATCH = 64 << 10
_WORKER_BYTES = 4 << 20
_QUEUE_BYTES = 32 << 20
_FOLLOWER_BYTES = 4 << 20
_RING_RECORDS, _RING_BYTES = 4096, 8 << 20
_WRITE_BYTES = 1 << 20
_RETRY = 1.0
_GATHER = 0.05
"""Seconds between two writes of the file: waking the thread for each batch would cost more than the writing."""

Lines: TypeAlias = bytes | memoryview
"""Whole lines of the log."""


class BatchSink:
    """A worker's records, collected and sent on together.

    `send(lines)` must not block: it takes the lines and says true, or false if there is no room. Then the records wait
    here, up to a bound beyond which new ones are lost (`lost` counts them).
    """

    def __init__(self, send: Callable[[list[bytes]], bool], limit: int = _WORKER_BYTES) -> None:
        self._send, self._limit = send, limit
        self._lines: list[bytes] = []
        self._size, self._full_at = 0, _BATCH
        self.lost = 0

    def add(self, lines: list[bytes]) -> None:
        """Take lines, newlines included; those that find no room are lost."""
        size = self._size + sum(map(len, lines))
        while lines and size > self._limit:
            size -= len(lines.pop())
            self.lost += 1
        self._lines += lines
        self._size = size
        if size >= self._full_at:
            self.flush()

    def flush(self) -> None:
        """Send what there is. Call it every 50 ms or so."""
        if not self._lines:
            return
        if self._send(self._lines):
            self._lines, self._size, self._full_at = [], 0, _BATCH
        else:
            # Do not try again for each record: the next try is the timer's.
            self._full_at = self._limit + 1


class FlowWriter:
    """The supervisor's end: a bounded queue, a thread that writes the file, the last records, and followers.

    `write` and the reading methods belong to the event loop's thread. `lost` counts records that are in no file,
    `written` those that are; `error` is why the file cannot be written just now, or "".
    """

    def __init__(self, config: FlowLogConfig, node_name: str = "", limit: int = _QUEUE_BYTES) -> None:
        self._node_name, self._limit = node_name or socket.gethostname(), limit
        self._file = FlowFile(config.file, config.max_bytes, config.keep) if config.file else None
        self._queue: deque[tuple[Lines, int]] = deque()
        self._queued = 0
        self._wake = threading.Condition()
        self._stopping = False
        self._unsaid = 0
        self._ring = Ring(_RING_RECORDS, _RING_BYTES)
        self._followers: set[Follower] = set()
        self._thread = threading.Thread(target=self._run, name="flow-writer", daemon=True)
        self.lost = 0
        self.written = 0
        self.error = ""
        if self._file is not None:
            self._thread.start()

    def write(self, batch: Lines, records: int) -> None:
        """Take whole lines. Never blocks on the disk."""
        self._ring.add(batch, records)
        for follower in self._followers:
            follower.put(batch, records)
        if self._file is None:
            return
        with self._wake:
            if self._queued + len(batch) > self._limit:
                self._lose(records)
                return
            self._queue.append((batch, records))
            self._queued += len(batch)
            if len(self._queue) == 1:
                self._wake.notify()

    def report_lost(self, records: int) -> None:
        """Records that were lost before they came here: in a worker, or in the kernel's ring buffer."""
        if records <= 0:
            return
        with self._wake:
            self._lose(records)
            self._wake.notify()
        for follower in self._followers:
            follower.lose(records)

    def last(self, count: int) -> list[bytes]:
        """The last `count` lines, oldest first, newlines included."""
        return self._ring.last(count)

    @property
    def followers(self) -> int:
        """How many read along now."""
        return len(self._followers)

    def subscribe(self) -> Follower:
        """All that is written from now on. Close it when done."""
        return Follower(self._node_name, self._followers)

    def close(self, timeout: float = 5.0) -> None:
        """Write what is queued, as far as the disk allows within `timeout` seconds, and end the followers."""
        for follower in list(self._followers):
            follower.end()
        with self._wake:
            if self._stopping:
                return
            self._stopping = True
            self._wake.notify()
        if self._file is not None:
            self._thread.join(timeout)
        with self._wake:
            self._lose(sum(records for _, records in self._queue))

    # -- the thread ----------------------------------------------------------------------------------------------

    def _lose(self, records: int) -> None:
        self.lost += records
        self._unsaid += records

    def _run(self) -> None:
        if self._file is None:
            return
        while True:
            with self._wake:
                while not (self._queue or self._unsaid or self._stopping):
                    self._wake.wait()
                stopping, said, chosen = self._stopping, self._unsaid, self._choose()
            if not said and not chosen:
                break
            written = self._put(self._file, said, chosen)
            if not written and stopping:
                break
            if not written:
                self._pause(_RETRY)
            elif not self._queue:
                self._pause(_GATHER)
        self._file.close()

    def _choose(self) -> list[tuple[Lines, int]]:
        """The oldest batches, about 1 MiB of them. They stay in the queue until they are written."""
        chosen: list[tuple[Lines, int]] = []
        size = 0
        for batch, records in self._queue:
            size += len(batch)
            if chosen and size > _WRITE_BYTES:
                break
            chosen.append((batch, records))
        return chosen

    def _put(self, file: FlowFile, said: int, chosen: list[tuple[Lines, int]]) -> bool:
        """Write the batches, behind a line about the records that are missing; false if the disk would not."""
        head = lost_line(self._node_name, said, time()) if said else b""
        try:
            file.append(head + b"".join(batch for batch, _ in chosen))
        except OSError as error:
            self.error = str(error)
            return False
        with self._wake:
            for batch, records in chosen:
                self._queue.popleft()
                self._queued -= len(batch)
                self.written += records
            self._unsaid -= said
            self.error = ""
        return True

    def _pause(self, seconds: float) -> None:
        """Wait before the next write, but not when told to stop."""
        with self._wake:
            self._wake.wait_for(lambda: self._stopping, seconds)


class Ring:
    """The last records, kept as the batches they came in."""

    def __init__(self, records: int, size: int) -> None:
        self._most_records, self._most_bytes = records, size
        self._batches: deque[tuple[Lines, int]] = deque()
        self._records = self._bytes = 0

    def add(self, batch: Lines, records: int) -> None:
        """Keep a batch, and forget old ones."""
        self._batches.append((batch, records))
        self._records += records
        self._bytes += len(batch)
        while len(self._batches) > 1 and self._more_than_enough():
            old, count = self._batches.popleft()
            self._records -= count
            self._bytes -= len(old)

    def _more_than_enough(self) -> bool:
        oldest = self._batches[0][1]
        return self._records - oldest >= self._most_records or self._bytes > self._most_bytes

    def last(self, count: int) -> list[bytes]:
        """The last `count` lines, oldest first."""
        batches: list[Lines] = []
        have = 0
        for batch, records in reversed(self._batches):
            if have >= count:
                break
            batches.append(batch)
            have += records
        lines = b"".join(reversed(batches)).splitlines(keepends=True)
        return lines[-count:] if count > 0 else []


class Follower:
    """One reader of live records: an async iterator of batches of lines. A slow one is told how many it missed."""

    def __init__(self, node_name: str, group: set[Follower]) -> None:
        self._node_name, self._group = node_name, group
        self._batches: deque[Lines] = deque()
        self._size = self._lost = 0
        self._ended = False
        self._event = asyncio.Event()
        group.add(self)

    def put(self, batch: Lines, records: int) -> None:
        """Offer a batch."""
        if self._size and self._size + len(batch) > _FOLLOWER_BYTES:
            self._lost += records
            return
        if self._lost:
            self._tell()
        self._batches.append(batch)
        self._size += len(batch)
        self._event.set()

    def lose(self, records: int) -> None:
        """Records that nobody has."""
        self._lost += records
        self._event.set()

    def end(self) -> None:
        """No more records: the iterator ends behind those it has."""
        self._ended = True
        self._event.set()
        self._group.discard(self)

    def _tell(self) -> None:
        line, self._lost = lost_line(self._node_name, self._lost, time()), 0
        self._batches.append(line)
        self._size += len(line)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while self._batches:
                batch = self._batches.popleft()
                self._size -= len(batch)
                yield bytes(batch)
            if self._lost:
                self._tell()
                continue
            if self._ended:
                return
            self._event.clear()
            await self._event.wait()
