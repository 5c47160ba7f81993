"""The supervisor: owns the datapath, the policies and the workers of one node."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic, time
from typing import Any

from aiohttp import web

from l7proxy.admin import make_app, serve
from l7proxy.config import Endpoint, NodeConfig
from l7proxy.flowjson import FlowEncoder
from l7proxy.flowlog import FlowWriter
from l7proxy.identities import IdentityError, IdentityTable, Workload
from l7proxy.metrics import NodeMetrics
from l7proxy.rows import PROTOCOL_NAMES, policy_rows
from l7proxy.snapshot import Settings, Snapshot
from l7proxy.splice_node import NodeSplicer
from l7proxy.surroundings import fingerprint, host_addresses
from l7proxy.workers import WorkerPool
from policies.decision import L4Kind
from policies.document import DocumentError
from policies.load import load_paths
from policies.model import TrafficDirection
from policies.resolve import Resolver, cidr_prefixes
from policies.verdict import RuleRef
from sockmap.datapath import Datapath, DatapathError, Event, IpEntry

log = logging.getLogger("l7proxy")
_EVENTS_EVERY, _WATCH_EVERY = 0.1, 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
"""Seconds before what the kernel refused is tried again: doubled each time, from the first to the longest."""
_BY_POLICY = ("Policy denied", "Policy denied (changed)")
"""The datapath's reasons that a rule may stand behind."""


class Node:
    """One node: the state that the kernel, the workers and the admin API are told about."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.table = IdentityTable()
        self.policies = load_paths(config.policies)
        self.in_force = self.policies.policies
        self.generation = 0
        self._load_error = self._refusal = self._look_error = ""
        self._pause, self._retry_at = _FIRST_PAUSE, 0.0
        self.load_errors = 0
        self.encoder = FlowEncoder(config.node_name, config.flow_log)
        self.flow_writer = FlowWriter(config.flow_log, config.node_name)
        self.node_metrics = NodeMetrics(on_lost=self.flow_writer.report_lost)
        self._lost_in_kernel = 0
        self._serving = False
        self._change = asyncio.Lock()
        self._seen = fingerprint(config.policies)
        self.datapath = Datapath(config.datapath_config)
        place, lifetimes = config.datapath.state_dir, config.datapath.lifetimes
        self.splicer = NodeSplicer(config.splice, config.accelerate, place, lifetimes.established, config.fast_path)
        self.pool = WorkerPool(
            config.worker_count,
            self.datapath.flows_fd,
            self.datapath.listeners_fd,
            self.splicer,
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
        self.table.set_host_addresses(await asyncio.to_thread(host_addresses))
        self.table.set_prefixes(cidr_prefixes(self.policies.policies))
        await self.splicer.begin()
        await self._put_in_force(1, self.pool.start)
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
        self.splicer.end()
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
        self.splicer.judged_anew()

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
            try:
                # Without rows of its own in the kernel it would be open.
                if not await self._advance():
                    raise DatapathError(self._refusal)
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
        """Read the policies again; true if they are in force now. A bad file changes nothing and says so."""
        async with self._change:
            self._seen = fingerprint(self.config.policies)
            try:
                loaded = load_paths(self.config.policies)
            except DocumentError as error:
                self.load_errors += 1
                self._load_error = str(error)
                log.error("policies are not changed:\n%s", error)
                return False
            self.policies, self._load_error = loaded, ""
            if not await self._advance():
                return False
            log.info("generation %d: %d policies", self.generation, len(loaded.policies))
            return True

    async def _advance(self) -> bool:
        """A new generation. If the kernel has no room for it, false: what there is stays in force as a whole, and
        `_watch` tries again."""
        self.table.set_prefixes(cidr_prefixes(self.policies.policies))
        try:
            await self._put_in_force(self.generation + 1, self.pool.update)
        except Exception as error:
            self.load_errors += 1
            self._refusal = f"the kernel refuses generation {self.generation + 1}, {self.generation} stays: {error}"
            unexpected = not isinstance(error, DatapathError)
            log.error("%s; tried again in %.0f s", self._refusal, self._pause, exc_info=unexpected)
            self._retry_at = monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            return False
        if self._refusal:
            log.info("generation %d: in force after all", self.generation)
        self._refusal, self._pause = "", _FIRST_PAUSE
        return True

    async def _put_in_force(self, generation: int, tell: Callable[[Snapshot], Awaitable[None]]) -> None:
        """Written beside the former one in the kernel, then told to the workers, then counting in the kernel too: what
        can be refused comes first, and the workers know every identity that the kernel may hand them."""
        policies = self.policies.policies
        resolver = Resolver(
            policies, node_audit=self.config.audit, allow_localhost=self.config.allow_localhost == "always"
        )
        # Many endpoints and prefixes take seconds: the loop has events to drain and questions to answer meanwhile.
        rows = await asyncio.to_thread(lambda: list(policy_rows(self.table, resolver)))
        entries = {network: IpEntry(who.number, id) for network, (who, id) in self.table.ipcache().items()}
        self.datapath.stage_policy(rows, entries, generation=generation)
        await tell(self._snapshot(generation))
        self.datapath.switch_policy()
        self._resolver, self.in_force, self.generation = resolver, policies, generation
        self.splicer.judged_anew()

    def _snapshot(self, generation: int) -> Snapshot:
        config = self.config
        settings = Settings(
            node_name=config.node_name,
            node_audit=config.audit,
            allow_localhost=config.allow_localhost == "always",
            refuse_upstream_with_503=config.on_upstream_refused == "503",
            cut_streams=config.on_policy_change.streams == "cut",
            mark=config.datapath.mark_proxy,
            limits=config.limits,
            http=config.http,
            flow_log=config.flow_log,
            kafka=config.kafka,
            cassandra=config.cassandra,
        )
        local = {entry.id: entry.name for entry in self.table.workloads.values() if entry.local}
        everywhere = [entry for entry in self.table.workloads.values() if entry.cgroup is None]
        addresses = {str(address): entry.identity.number for entry in everywhere for address in entry.addresses}
        here = {str(address): entry.id for entry in everywhere if entry.local for address in entry.addresses}
        numbers = dict(self.table.numbers)
        return Snapshot(generation, settings, self.policies.policies, numbers, local, addresses, here)

    # -- chores --------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Once a second: have the policy files or the node's own addresses changed, is the kernel behind?"""
        while True:
            await asyncio.sleep(_WATCH_EVERY)
            try:
                await self._look()
                self._look_error = ""
            except Exception as error:  # No descriptor left: the next change must be seen all the same.
                self._look_error = f"policy files and addresses cannot be looked at: {error}"
                self.load_errors += 1
                log.exception("policy files and addresses cannot be looked at")

    async def _look(self) -> None:
        if fingerprint(self.config.policies) != self._seen:
            await self.reload()
        self.splicer.look()
        await asyncio.to_thread(self.splicer.tidy)
        addresses = await asyncio.to_thread(host_addresses)
        async with self._change:
            is_due = bool(self._refusal) and monotonic() >= self._retry_at
            if self.table.set_host_addresses(addresses) or is_due:
                await self._advance()

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
        """The rule behind a packet's verdict: the kernel knows the verdict only. A reply has its flow's."""
        client, server, port = event.src_identity, event.dst_identity, event.dport
        if event.reply:
            client, server, port = server, client, event.sport
        source, destination = self.table.numbers.get(client), self.table.numbers.get(server)
        if event.reason not in _BY_POLICY or source is None or destination is None or not event.endpoint_id:
            return None
        direction = TrafficDirection.EGRESS if event.direction else TrafficDirection.INGRESS
        subject, peer = (source, destination) if event.direction else (destination, source)
        protocol = PROTOCOL_NAMES.get(event.proto, "OTHER")
        decision = self._resolver.decide(direction, subject, peer, protocol, port, destination)
        return decision.rule if decision.audit or decision.kind is L4Kind.DENY else None

    # -- what the admin API asks (AdminNode) ---------------------------------------------------------------------

    def ready(self) -> tuple[bool, str]:
        """Whether flows are judged now, and if not, why."""
        if not self._serving:
            return False, "starting or stopping"
        if not self.pool.ready():
            return False, "no worker is ready"
        return True, f"generation {self.generation}"

    @property
    def last_error(self) -> str:
        """Why the policy files, or the last change of anything, are not what is in force; empty if they are."""
        return "\n".join(filter(None, (self._load_error, self._refusal, self._look_error)))

    def metrics_text(self) -> str:
        """Prometheus' text format."""
        return self.node_metrics.text(
            drops=self.datapath.counters(),
            generation=self.generation,
            load_errors=self.load_errors,
            lost=self.flow_writer.lost,
            restarts=self.pool.restarts,
            more=self.splicer.metrics(),
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
            for p in self.in_force
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
            "policies": len(self.in_force),
            "last_error": self.last_error,
            "endpoints": len(self.table.workloads),
            "workers": self.pool.pids(),
            "worker_restarts": self.pool.restarts,
            "compiled": self.pool.compiled,
            "flows_lost": self.flow_writer.lost,
            "datapath": self.datapath.counters(),
        } | self.splicer.status()
