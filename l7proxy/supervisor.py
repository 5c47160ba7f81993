"""The supervisor: owns the datapath, the policies and the workers of one node."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Iterable
from pathlib import Path
from time import time
from typing import Any

from aiohttp import web
from pyroute2 import IPRoute

from l7proxy.admin import make_app, serve
from l7proxy.config import Endpoint, NodeConfig
from l7proxy.flowjson import FlowEncoder
from l7proxy.flowlog import FlowWriter
from l7proxy.identities import IdentityError, IdentityTable, Workload
from l7proxy.metrics import NodeMetrics
from l7proxy.rows import PROTOCOL_NAMES, policy_rows
from l7proxy.snapshot import Settings, Snapshot
from l7proxy.workers import WorkerPool
from policies.document import DocumentError
from policies.load import find_files, load_paths
from policies.model import TrafficDirection
from policies.resolve import Resolver, cidr_prefixes
from policies.verdict import RuleRef
from sockmap.datapath import Datapath, Event, IpEntry

log = logging.getLogger("l7proxy")
_EVENTS_EVERY, _WATCH_EVERY = 0.1, 1.0


class Node:
    """One node: the state that the kernel, the workers and the admin API are told about."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.table = IdentityTable()
        self.policies = load_paths(config.policies)
        self.generation = 0
        self.load_errors = 0
        self.last_error = ""
        self.encoder = FlowEncoder(config.node_name, config.flow_log)
        self.flow_writer = FlowWriter(config.flow_log, config.node_name)
        self.node_metrics = NodeMetrics(on_lost=self.flow_writer.report_lost)
        self._lost_in_kernel = 0
        self._serving = False
        self._change = asyncio.Lock()
        self._seen = _fingerprint(config.policies)
        self.datapath = Datapath(config.datapath_config)
        self.pool = WorkerPool(
            config.worker_count,
            self.datapath.flows_fd,
            self.datapath.listeners_fd,
            on_flows=self.flow_writer.write,
            on_metrics=self.node_metrics.worker,
        )

    # -- life ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Bring everything up, serve until SIGTERM or SIGINT, and leave the node as it was."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: loop.create_task(self.reload()))
        runner: web.AppRunner | None = None
        chores: list[asyncio.Task[None]] = []
        try:
            await self._bring_up()
            runner = await serve(make_app(self), self.config.admin)
            chores = [asyncio.create_task(self._drain_events()), asyncio.create_task(self._watch())]
            log.info("ready: %d endpoints, %d policies", len(self.table.workloads), len(self.policies.policies))
            await stop.wait()
            log.info("stopping")
        finally:
            await self._take_down(runner, chores)

    async def _bring_up(self) -> None:
        """Policy first, then listeners, then the hooks: no packet is steered before somebody can judge it."""
        for endpoint in self.config.endpoints:
            self._register(endpoint)
        self.table.set_host_addresses(await asyncio.to_thread(_host_addresses))
        self.table.set_prefixes(cidr_prefixes(self.policies.policies))
        self.generation = 1
        await self._program()
        await self.pool.start(self._snapshot())
        self.datapath.attach_loopback()
        for interface in self.config.node_interfaces:
            self.datapath.attach_node_interface(interface)
        for workload in self.table.workloads.values():
            self._attach(workload)
        for line in self.datapath.drop_inherited():
            log.info("left by a predecessor, removed: %s", line)
        self._serving = True

    async def _take_down(self, runner: web.AppRunner | None, chores: Iterable[asyncio.Task[None]]) -> None:
        self._serving = False
        for chore in chores:
            chore.cancel()
        if runner is not None:
            await runner.cleanup()
        await self.pool.stop(self.config.limits.grace)
        self._log_events()
        self.datapath.close()
        self.flow_writer.close()

    # -- endpoints -----------------------------------------------------------------------------------------------

    def _register(self, endpoint: Endpoint) -> Workload:
        return self.table.add(
            endpoint.name,
            endpoint.labels,
            addresses=endpoint.addresses,
            named_ports=endpoint.named_ports,
            interface=endpoint.interface,
            cgroup=endpoint.cgroup,
        )

    def _attach(self, workload: Workload) -> None:
        if workload.interface is not None:
            number = workload.identity.number
            self.datapath.attach_endpoint(workload.interface, workload.id, number, workload.addresses)
        elif workload.cgroup is not None:
            self.datapath.attach_cgroup(workload.cgroup, workload.identity.number, workload.id)

    def _detach(self, workload: Workload) -> None:
        if workload.interface is not None:
            self.datapath.detach_endpoint(workload.interface)
        elif workload.cgroup is not None:
            self.datapath.detach_cgroup(workload.cgroup)

    async def add_endpoint(self, endpoint: Endpoint) -> None:
        """Manage one more workload from now on. Raises ValueError if it clashes or cannot be attached."""
        async with self._change:
            for other in self.table.workloads.values():
                clash = set(map(str, endpoint.addresses)) & set(map(str, other.addresses))
                if clash and endpoint.cgroup is None and other.cgroup is None:
                    raise ValueError(f"address {clash.pop()} belongs to endpoint {other.name}")
            try:
                workload = self._register(endpoint)
            except IdentityError as error:
                raise ValueError(str(error)) from error
            await self._advance()
            try:
                self._attach(workload)
            except Exception as error:
                self.table.remove(endpoint.name)
                await self._advance()
                raise ValueError(f"endpoint {endpoint.name} cannot be attached: {error}") from error

    async def remove_endpoint(self, name: str) -> None:
        """Stop managing a workload. Raises KeyError."""
        async with self._change:
            try:
                workload = self.table.remove(name)
            except IdentityError as error:
                raise KeyError(str(error)) from error
            self._detach(workload)
            await self._advance()

    # -- policy --------------------------------------------------------------------------------------------------

    async def reload(self) -> bool:
        """Read the policies again. A bad file changes nothing and says so."""
        async with self._change:
            self._seen = _fingerprint(self.config.policies)
            try:
                loaded = load_paths(self.config.policies)
            except DocumentError as error:
                self.load_errors += 1
                self.last_error = str(error)
                log.error("policies are not changed:\n%s", error)
                return False
            self.policies, self.last_error = loaded, ""
            await self._advance()
            log.info("generation %d: %d policies", self.generation, len(loaded.policies))
            return True

    async def _advance(self) -> None:
        """A new generation: the workers first, so that they know every identity the kernel may hand them."""
        self.table.set_prefixes(cidr_prefixes(self.policies.policies))
        self.generation += 1
        await self.pool.update(self._snapshot())
        await self._program()

    async def _program(self) -> None:
        """Write identities and policy into the kernel's maps."""
        resolver = self._resolver = Resolver(
            self.policies.policies,
            node_audit=self.config.audit,
            allow_localhost=self.config.allow_localhost == "always",
        )
        # Many endpoints and prefixes take seconds: the loop has events to drain and questions to answer meanwhile.
        rows = await asyncio.to_thread(lambda: list(policy_rows(self.table, resolver)))
        entries = self.table.ipcache().items()
        self.datapath.set_ipcache({network: IpEntry(identity.number, id) for network, (identity, id) in entries})
        self.datapath.set_policy(rows, generation=self.generation)

    def _snapshot(self) -> Snapshot:
        config = self.config
        settings = Settings(
            node_name=config.node_name,
            node_audit=config.audit,
            allow_localhost=config.allow_localhost == "always",
            refuse_upstream_with_503=config.on_upstream_refused == "503",
            mark=config.datapath.mark_proxy,
            limits=config.limits,
            http=config.http,
            flow_log=config.flow_log,
        )
        local = {entry.id: entry.name for entry in self.table.workloads.values() if entry.local}
        everywhere = [entry for entry in self.table.workloads.values() if entry.cgroup is None]
        addresses = {str(address): entry.identity.number for entry in everywhere for address in entry.addresses}
        here = {str(address): entry.id for entry in everywhere if entry.local for address in entry.addresses}
        numbers = dict(self.table.numbers)
        return Snapshot(self.generation, settings, self.policies.policies, numbers, local, addresses, here)

    # -- chores --------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Once a second: have the policy files or the node's own addresses changed?"""
        while True:
            await asyncio.sleep(_WATCH_EVERY)
            try:
                if _fingerprint(self.config.policies) != self._seen:
                    await self.reload()
                if self.table.set_host_addresses(await asyncio.to_thread(_host_addresses)):
                    async with self._change:
                        await self._advance()
            except Exception as error:  # A full map, no descriptor left: the next change must be seen all the same.
                self.load_errors += 1
                self.last_error = f"a change could not be put in force: {error}"
                log.exception("a change could not be put in force")

    async def _drain_events(self) -> None:
        while True:
            await asyncio.sleep(_EVENTS_EVERY)
            try:
                self._log_events()
            except Exception:
                log.exception("packets' records could not be written")

    def _log_events(self) -> None:
        lost = self.datapath.counters().get("events_lost", 0)
        self.flow_writer.report_lost(lost - self._lost_in_kernel)
        self._lost_in_kernel = lost
        events = self.datapath.events()
        if events:
            names = {entry.id: entry.name for entry in self.table.workloads.values()}
            now = time()
            lines = [self.encoder.drop(e, self.table.numbers, names, now, self._rule_of(e)) for e in events]
            self.flow_writer.write(b"".join(lines), len(lines))

    def _rule_of(self, event: Event) -> RuleRef | None:
        """The rule behind a packet's verdict: the kernel knows the verdict only."""
        numbers = self.table.numbers
        subject, peer = numbers.get(event.dst_identity), numbers.get(event.src_identity)
        direction = TrafficDirection.EGRESS if event.direction else TrafficDirection.INGRESS
        if event.direction:
            subject, peer = peer, subject
        protocol = PROTOCOL_NAMES.get(event.proto, "OTHER")
        if subject is None or peer is None or not event.endpoint_id:
            return None
        destination = peer if event.direction else subject
        return self._resolver.decide(direction, subject, peer, protocol, event.dport, destination).rule

    # -- what the admin API asks (AdminNode) ---------------------------------------------------------------------

    def ready(self) -> tuple[bool, str]:
        """Whether flows are judged now, and if not, why."""
        if not self._serving:
            return False, "starting or stopping"
        if not self.pool.ready():
            return False, "no worker is ready"
        return True, f"generation {self.generation}"

    def metrics_text(self) -> str:
        """Prometheus' text format."""
        return self.node_metrics.text(
            drops=self.datapath.counters(),
            generation=self.generation,
            load_errors=self.load_errors,
            lost=self.flow_writer.lost,
            restarts=self.pool.restarts,
        )

    def endpoints(self) -> list[dict[str, Any]]:
        """The endpoints, as JSON."""
        return [
            {
                "id": entry.id,
                "name": entry.name,
                "identity": entry.identity.number,
                "labels": entry.identity.label_list(),
                "addresses": [str(address) for address in entry.addresses],
                "interface": entry.interface,
                "cgroup": entry.cgroup,
                "named_ports": dict(entry.identity.named_ports),
            }
            for entry in self.table.workloads.values()
        ]

    def policies_json(self) -> dict[str, Any]:
        """The policies in force, as JSON."""
        listed = [
            {"name": p.name, "file": p.file, "line": p.line, "mode": "audit" if p.audit else "enforce"}
            for p in self.policies.policies
        ]
        return {"generation": self.generation, "last_error": self.last_error, "policies": listed}

    def status(self) -> dict[str, Any]:
        """Everything an operator asks first, as JSON."""
        ready, why = self.ready()
        return {
            "ready": ready,
            "detail": why,
            "mode": self.config.mode,
            "node": self.config.node_name,
            "generation": self.generation,
            "policies": len(self.policies.policies),
            "last_error": self.last_error,
            "endpoints": len(self.table.workloads),
            "workers": self.pool.pids(),
            "worker_restarts": self.pool.restarts,
            "flows_lost": self.flow_writer.lost,
            "datapath": self.datapath.counters(),
        }


def _host_addresses() -> set[str]:
    """The addresses of this network namespace, link-local ones included. In a thread of its own, please: pyroute2
    runs an event loop and refuses to do so inside another."""
    with IPRoute() as netlink:
        return {str(message.get_attr("IFA_ADDRESS")) for message in netlink.get_addr()} | {
            str(local)
            for message in netlink.get_addr(family=socket.AF_INET)
            if (local := message.get_attr("IFA_LOCAL"))
        }


def _fingerprint(paths: Iterable[Path]) -> tuple[tuple[str, int, int, int], ...]:
    """Changes whenever a policy file is written, moved, added or taken away."""
    found = []
    try:
        for path in find_files(paths):
            state = path.stat()
            found.append((str(path), state.st_ino, state.st_mtime_ns, state.st_size))
    except (OSError, DocumentError) as error:
        return ((str(error), 0, 0, 0),)
    return tuple(found)
