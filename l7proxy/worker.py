"""A worker process: one event loop, its own listeners, and the connections that the datapath steers to them."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import logging
import os
import pickle
import signal
import socket
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic, time
from typing import cast

import uvloop

from l7proxy.control import FrameReader, Kind, frame
from l7proxy.detect import converse, known
from l7proxy.fastpath import FastPath, begin
from l7proxy.flowjson import ConnectionEncoder, FlowEncoder
from l7proxy.flowlog import BatchSink
from l7proxy.held import Server
from l7proxy.listener import listen, reset
from l7proxy.metrics import WorkerMetrics
from l7proxy.offers import Offer
from l7proxy.ops import Direction
from l7proxy.origin import Origin, PolicyView, UnknownFlow
from l7proxy.recorder import ConnectionRecords, Recorder
from l7proxy.relay import Relay
from l7proxy.snapshot import Snapshot
from l7proxy.timeouts import enforce, rejudge, stop
from sockmap.flows import FlowTable, ListenerTable
from sockmap.splice_bridge import Bridge, Bridges
from sockmap.splice_lanes import Lanes

log = logging.getLogger("l7proxy.worker")
_PR_SET_PDEATHSIG = 1
_LAST_WORDS = 2.0
"""Seconds in which the supervisor may read the last records before the worker ends."""
_MAX_UNSENT = 8 << 20
"""Bytes of flow records that may wait for the supervisor before further ones are lost (and counted)."""
_REFUSALS_LOGGED = 10
"""Refused connections a second that are told one by one: a peer must not fill the log."""


class _Accepting(asyncio.Protocol):
    """The protocol of a socket just accepted: it finds out whose flow it is, then hands over to a relay."""

    __slots__ = ("_worker",)

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)
        relay = self._worker.accept(stream)
        if relay is not None:
            stream.set_protocol(relay.side(Direction.REQUEST))
            relay.attach_client(stream)


class Worker:
    """Everything one process holds. It is an Owner of relays."""

    def __init__(
        self,
        index: int,
        flows: FlowTable,
        listeners: ListenerTable,
        control: socket.socket,
        bridges: Bridges | None = None,
        lanes: Lanes | None = None,
    ) -> None:
        self.index, self._flows, self._listeners = index, flows, listeners
        self._bridges, self._lanes = bridges, lanes
        self._fast: set[FastPath] = set()
        self._control_socket = control
        self._control: asyncio.Transport | None = None
        self.loop = asyncio.get_running_loop()
        self.relays: dict[Relay, str] = {}
        """Each with the endpoint that it was counted for: that of its origin may be another by its end."""
        self.by_endpoint: Counter[str] = Counter()
        self.metrics = WorkerMetrics()
        self.sink = BatchSink(self._send_flows)
        self.view: PolicyView | None = None
        self.stopped, self._control_gone = asyncio.Event(), asyncio.Event()
        self._taking = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._recorder = Recorder(self.sink, self.metrics)
        self._recorder.clock_offset = time() - monotonic()
        self._refused = 0

    # -- life ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until the supervisor says stop, or is gone."""
        reader = FrameReader(self._command)
        transport, _ = await self.loop.create_connection(lambda: _Control(self, reader), sock=self._control_socket)
        self._control = transport
        ticks = self.loop.create_task(self._ticks())
        await self.stopped.wait()
        await self._drain()
        ticks.cancel()
        self._report()
        # What the supervisor has not read yet are records.
        self._control.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._control_gone.wait(), _LAST_WORDS)

    def _command(self, kind: Kind, body: memoryview) -> None:
        if kind is Kind.SNAPSHOT:
            task = self.loop.create_task(self._take_snapshot(pickle.loads(body)))  # noqa: S301 -- our own supervisor's
            self._tasks.add(task)
            task.add_done_callback(self._taken)
        elif kind is Kind.STOP:
            self.stopped.set()

    def _taken(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("a new policy could not be put in force; this worker ends", exc_info=error)
            os._exit(4)

    async def _take_snapshot(self, snapshot: Snapshot) -> None:
        settings = snapshot.settings
        self.limits, self.mark = settings.limits, settings.mark
        self.refuse_with_503 = settings.refuse_upstream_with_503
        if self.view is None:
            self.known = known(settings.kafka, settings.cassandra)
            self.known.cassandra.changed = self._changed
        self.view = PolicyView(snapshot)
        self._encode = FlowEncoder(settings.node_name, settings.flow_log)
        self._each(lambda relay: rejudge(relay, self._locate))
        async with self._taking:
            if not self._servers:
                await self._listen()
        self.send(frame(Kind.READY, struct.pack("<Q", snapshot.generation)))

    async def _listen(self) -> None:
        for offset, family in enumerate((socket.AF_INET, socket.AF_INET6)):
            sock = listen(family, self.mark)
            server = await self.loop.create_server(lambda: _Accepting(self), sock=sock, backlog=4096)
            self._servers.append(server)
            self._listeners.put(2 * self.index + offset, sock.fileno())

    async def _drain(self) -> None:
        """Stop accepting, let what is in flight end within the grace time, then reset the rest."""
        for server in self._servers:
            server.close()
        self._each(stop)
        deadline = monotonic() + (self.limits.grace if self.view else 0)
        while self.relays and monotonic() < deadline:
            await asyncio.sleep(0.02)
        self._each(Relay.abort)
        await asyncio.sleep(0)

    def _each(self, action: Callable[[Relay], None]) -> None:
        """Do something to every connection. One at which that fails is reset, and the others do not suffer for it."""
        for relay in list(self.relays):
            try:
                action(relay)
            except Exception as error:
                context = {"message": "a connection failed and is reset", "exception": error}
                self.loop.call_exception_handler(context)
                relay.abort()

    async def _ticks(self) -> None:
        """Records every 50 ms; time-outs and metrics every second."""
        next_second = monotonic() + 1
        while True:
            await asyncio.sleep(0.05)
            for fast in list(self._fast):
                fast.relay.guard(fast.look)
            self._flush()
            now = monotonic()
            if now >= next_second:
                next_second = now + 1
                self._recorder.clock_offset = time() - now
                self._each(lambda relay: enforce(relay, monotonic()))
                self._tidy()
                self._report()

    def _tidy(self) -> None:
        if self.view is not None:
            self.view.trim()
        if self._refused > _REFUSALS_LOGGED:
            log.warning("%d more connections refused within a second", self._refused - _REFUSALS_LOGGED)
        self._refused = 0

    def control_lost(self) -> None:
        """The channel to the supervisor is closed."""
        self._control_gone.set()

    # -- towards the supervisor ----------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Queue a control frame."""
        if self._control is not None and not self._control.is_closing():
            self._control.write(data)

    def _send_flows(self, lines: list[bytes]) -> bool:
        if self._control is None or self._control.get_write_buffer_size() > _MAX_UNSENT:
            return False
        self.send(frame(Kind.FLOWS, struct.pack("<I", len(lines)), *lines))
        return True

    def _flush(self) -> None:
        self._recorder.work()
        self.sink.flush()

    def _report(self) -> None:
        self._flush()
        self.metrics.active = len(self.relays)
        self.metrics.lost = self.sink.lost
        self.send(frame(Kind.METRICS, json.dumps(self.metrics.snapshot()).encode()))

    # -- connections ---------------------------------------------------------------------------------------------

    def accept(self, transport: asyncio.Transport) -> Relay | None:
        """The relay for an accepted connection; None (and a reset) if it may not be."""
        client = transport.get_extra_info("peername")
        server = transport.get_extra_info("sockname")
        try:
            if client is None or server is None or self.view is None:
                raise UnknownFlow("the connection was gone before it was looked at")
            origin = self._origin(client[:2], server[:2])
            if origin.judge is None:
                raise UnknownFlow(origin.reason)
            if self.by_endpoint[origin.endpoint] >= self.limits.connections_per_endpoint:
                raise UnknownFlow(f"endpoint {origin.endpoint} has its limit of connections")
        except UnknownFlow as error:
            self._refuse(transport, str(error))
            return None
        except Exception:
            log.exception("a connection could not be judged")
            self._refuse(transport, "see above")
            return None
        self.by_endpoint[origin.endpoint] += 1
        relay = Relay(self, origin, converse(origin.judge, self.known, origin.server, origin.source.number))
        self.relays[relay] = origin.endpoint
        if self._lanes is not None and relay.frames is not None:
            relay.frames.offers = []
        return relay

    def _origin(self, client: tuple[str, int], server: tuple[str, int]) -> Origin:
        assert self.view is not None  # noqa: S101 -- no connection is accepted before the first snapshot
        return self.view.origin(client, server, self._flows.lookup(*client, *server))

    def _locate(self, origin: Origin) -> Origin | None:
        """The same flow under the policy now in force."""
        try:
            assert self.view is not None  # noqa: S101 -- as above
            return self.view.origin(origin.client, origin.server, origin.flow)
        except UnknownFlow:
            return None

    def _refuse(self, transport: asyncio.Transport, reason: str) -> None:
        self._refused += 1
        if self._refused <= _REFUSALS_LOGGED:
            log.warning("connection refused: %s", reason)
        self.metrics.refused_connection()
        reset(transport)

    # -- what relays say (Owner) ---------------------------------------------------------------------------------

    def records(self, origin: Origin) -> ConnectionRecords:
        """What logs and counts the requests of a connection."""
        names = self.view.snapshot.endpoints if self.view else {}
        return ConnectionRecords(self._recorder, origin.endpoint, partial(self._encoder, self._encode, names, origin))

    @staticmethod
    def _encoder(encode: FlowEncoder, names: Mapping[int, str], origin: Origin) -> ConnectionEncoder:
        return encode.connection(
            source=(origin.source, origin.flow.src_endpoint, names.get(origin.flow.src_endpoint, "")),
            destination=(origin.destination, origin.flow.dst_endpoint, names.get(origin.flow.dst_endpoint, "")),
            client=origin.client,
            server=origin.server,
        )

    def upstream_failed(self, relay: Relay, reason: str) -> None:
        """Count an upstream that could not be reached."""
        log.info("upstream %s:%d: %s", *relay.origin.server, reason)
        self.metrics.upstream_failed(relay.origin.endpoint)

    def spliced(self, descriptor: int) -> bool:
        """Whether the kernel puts what comes to this socket into a queue of its own, or may."""
        return self._bridges is not None and self._bridges.holds(descriptor)

    def bridge(self, source: int, sink: int) -> Bridge | None:
        """For what is read of one socket and written to another; None if the kernel cannot."""
        return self._bridges.between(source, sink) if self._bridges is not None else None

    def hasten(self, relay: Relay) -> None:
        """Give it a fast path, if both of its ends are on this node and there is a place; else it makes no offers."""
        if self._lanes is not None and (fast := begin(relay, self._lanes)) is not None:
            self._fast.add(fast)

    def _changed(self, server: Server) -> None:
        """Requests to it may do other things than they did."""
        for fast in self._fast:
            if fast.relay.origin.server == server:
                fast.shut()

    def know(self, group: int, offer: Offer, number: int) -> None:
        """Give an offer to the programs. If there is no room, such requests go on coming here."""
        assert self._lanes is not None  # noqa: S101 -- a fast path has asked
        try:
            self._lanes.know(group, offer.prefix, offer.tail, number, offer.values, offer.rest)
        except OSError as error:
            log.warning("known requests are not remembered: %s", error)

    def closed(self, relay: Relay) -> None:
        """Forget a connection."""
        if relay.fast is not None and self._lanes is not None:
            self._fast.discard(relay.fast)
            self._lanes.give_back(relay.fast.lane)
        endpoint = self.relays.pop(relay)
        self.by_endpoint[endpoint] -= 1
        if not self.by_endpoint[endpoint]:
            del self.by_endpoint[endpoint]
        self.metrics.bytes(relay.requests.total, relay.responses.total)
        if relay.requests.straight or relay.responses.straight:
            relay.records.over(relay.requests.carried(), relay.responses.carried(), monotonic())


class _Control(asyncio.Protocol):
    """The control channel. Without a supervisor nobody updates the policy, so the worker ends at once."""

    def __init__(self, worker: Worker, reader: FrameReader) -> None:
        self._worker, self._reader = worker, reader

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._worker.control_lost()
        if not self._worker.stopped.is_set():
            log.error("the supervisor is gone; this worker ends, its flows fail closed")
            os._exit(3)


async def _serve(arguments: argparse.Namespace) -> None:
    control = socket.socket(fileno=arguments.control)
    control.setblocking(False)
    bridges, lanes, index = None, None, arguments.index
    if arguments.splice:
        fds = _descriptors(arguments.splice)
        bridges = Bridges(fds)
        lanes = Lanes(fds, index, arguments.workers) if "lanes" in fds else None
    tables = FlowTable(arguments.flows), ListenerTable(arguments.listeners)
    await Worker(index, *tables, control, bridges, lanes).run()


def _descriptors(words: str) -> dict[str, int]:
    """Of maps, by their names: "name=3,other=4"."""
    return {name: int(number) for name, number in (word.split("=") for word in words.split(","))}


def main() -> None:
    """Entry point of ``python -m l7proxy.worker``; started by the supervisor only."""
    parser = argparse.ArgumentParser(prog="l7proxy-worker")
    for name in ("control", "flows", "listeners", "index", "workers"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--splice")
    parser.add_argument("--cgroup", type=Path)
    arguments = parser.parse_args()
    if arguments.cgroup is not None:
        (arguments.cgroup / "cgroup.procs").write_text("0", encoding="ascii")
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    logging.basicConfig(level=logging.INFO, format=f"l7proxy worker {arguments.index}: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the supervisor says when to stop
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    uvloop.run(_serve(arguments))


if __name__ == "__main__":
    main()
