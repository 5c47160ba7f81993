"""The supervisor's side of its worker processes: started, told what holds, listened to, started again."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, cast

from l7proxy.compiled import modules
from l7proxy.control import FrameReader, Kind, frame
from l7proxy.snapshot import Snapshot
from l7proxy.splice_node import NodeSplicer

log = logging.getLogger("l7proxy")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
"""Seconds before a dead worker is started again: doubled each time, from the first to the longest."""
_GOOD_LIFE = 10.0
"""A worker that lived this long has done well: the pause starts again at the shortest."""


class WorkerHandle(asyncio.Protocol):
    """One running worker and its control channel."""

    def __init__(self, pool: WorkerPool, index: int) -> None:
        self.pool, self.index = pool, index
        self.process: asyncio.subprocess.Process | None = None
        self.transport: asyncio.Transport | None = None
        self.generation = -1
        self.ended = asyncio.Event()
        self._reader = FrameReader(self._frame)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()

    def send(self, data: bytes) -> None:
        """Queue a control frame for the worker."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def _frame(self, kind: Kind, body: memoryview) -> None:
        if kind is Kind.READY:
            (self.generation,) = struct.unpack("<Q", body)
            self.pool.changed.set()
        elif kind is Kind.FLOWS:
            (records,) = struct.unpack_from("<I", body)
            self.pool.on_flows(body[4:], records)
        elif kind is Kind.METRICS:
            self.pool.on_metrics(self.index, self.process.pid if self.process else 0, json.loads(bytes(body)))


class WorkerPool:
    """All workers of a node. `on_flows(lines, records)` and `on_metrics(index, pid, snapshot)` are called as they
    report."""

    def __init__(
        self,
        count: int,
        flows_fd: int,
        listeners_fd: int,
        splicer: NodeSplicer,
        *,
        on_flows: Callable[[memoryview, int], None],
        on_metrics: Callable[[int, int, dict[str, Any]], None],
    ) -> None:
        self.count, self.flows_fd, self.listeners_fd = count, flows_fd, listeners_fd
        self._splicer = splicer
        self.on_flows, self.on_metrics = on_flows, on_metrics
        self.handles: dict[int, WorkerHandle] = {}
        self.changed = asyncio.Event()
        self.restarts = 0
        self._snapshot = b""
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False
        self._compiled = modules()

    @property
    def compiled(self) -> bool:
        """Whether the workers run compiled code."""
        return self._compiled is not None

    async def start(self, snapshot: Snapshot) -> None:
        """Start every worker and wait until all serve. Raises TimeoutError."""
        self._snapshot = frame(Kind.SNAPSHOT, pickle.dumps(snapshot))
        self._keepers = [asyncio.create_task(self._keep(index)) for index in range(self.count)]
        await self._reached(snapshot.generation, 30.0)

    async def update(self, snapshot: Snapshot) -> None:
        """Give all workers a new generation and wait until each has it in force (or has died and will get it)."""
        self._snapshot = frame(Kind.SNAPSHOT, pickle.dumps(snapshot))
        for handle in self.handles.values():
            handle.send(self._snapshot)
        try:
            await self._reached(snapshot.generation, 10.0)
        except TimeoutError:
            log.error("a worker has not taken generation %d within 10 s", snapshot.generation)

    async def _reached(self, generation: int, timeout: float) -> None:
        async with asyncio.timeout(timeout):
            while not (len(self.handles) == self.count and self.ready(generation)):
                self.changed.clear()
                await self.changed.wait()

    def ready(self, generation: int = 0) -> bool:
        """True if every worker that runs has this generation, and at least one does."""
        return bool(self.handles) and all(handle.generation >= generation for handle in self.handles.values())

    def pids(self) -> dict[int, int]:
        """Process ids by worker index."""
        return {i: handle.process.pid for i, handle in self.handles.items() if handle.process is not None}

    async def stop(self, grace: float) -> None:
        """Ask all to finish; what has not ended a second after the grace time is killed."""
        self._stopping = True
        if not self._keepers:
            return
        handles = list(self.handles.values())
        for handle in handles:
            handle.send(frame(Kind.STOP, b""))
        _, late = await asyncio.wait(self._keepers, timeout=grace + 1.0)
        for handle in handles:
            if handle.process is not None and handle.process.returncode is None:
                handle.process.kill()
        if late:
            await asyncio.wait(late)

    async def _keep(self, index: int) -> None:
        """Run one worker, again and again."""
        pause = _FIRST_PAUSE
        loop = asyncio.get_running_loop()
        while not self._stopping:
            began = loop.time()
            try:
                status = await self._run_once(index)
            except OSError as error:  # No process, no descriptor: there may be one later.
                log.error("worker %d cannot be started: %s", index, error)
                status = -1
            if self._stopping:
                return
            self.restarts += 1
            pause = _FIRST_PAUSE if loop.time() - began > _GOOD_LIFE else min(pause * 2, _LONGEST_PAUSE)
            log.error("worker %d ended with status %s; it is started again in %.2f s", index, status, pause)
            await asyncio.sleep(pause)

    async def _run_once(self, index: int) -> int:
        ours, theirs = socket.socketpair()
        handle = WorkerHandle(self, index)
        try:
            with theirs:
                handle.process = await asyncio.create_subprocess_exec(
                    *self._command(index, theirs.fileno()),
                    pass_fds=(theirs.fileno(), *self._fds()),
                    stdin=asyncio.subprocess.DEVNULL,
                    env=self._environment(),
                )
            ours.setblocking(False)
            await asyncio.get_running_loop().create_connection(lambda: handle, sock=ours)
            handle.send(self._snapshot)
            self.handles[index] = handle
            status = await handle.process.wait()
            # Its last records are still in the socket: read on until its end.
            await asyncio.wait([asyncio.ensure_future(handle.ended.wait())], timeout=2.0)
            return status
        finally:
            self.handles.pop(index, None)
            self.changed.set()
            if handle.transport is not None:
                handle.transport.close()
            else:
                ours.close()

    def _fds(self) -> list[int]:
        return [self.flows_fd, self.listeners_fd, *self._splicer.fds.values()]

    def _environment(self) -> dict[str, str]:
        if self._compiled is None:
            return dict(os.environ)
        path = os.pathsep.join(filter(None, (str(self._compiled), os.environ.get("PYTHONPATH"))))
        return {**os.environ, "PYTHONPATH": path}

    def _command(self, index: int, control: int) -> list[str]:
        words: dict[str, object] = {"--control": control, "--index": index, "--workers": self.count}
        words |= {"--flows": self.flows_fd, "--listeners": self.listeners_fd}
        if self._splicer.fds:
            words["--splice"] = ",".join(f"{name}={fd}" for name, fd in self._splicer.fds.items())
        if self._splicer.cgroup is not None:
            words["--cgroup"] = self._splicer.cgroup
        return [sys.executable, "-P", "-m", "l7proxy.worker", *(str(word) for pair in words.items() for word in pair)]
