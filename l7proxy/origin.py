"""Who speaks to whom: from an accepted socket to the identities and rules of its flow."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from weakref import WeakSet

from l7proxy.http1_exchange import Exchange
from l7proxy.snapshot import Settings, Snapshot
from parsers.facts import Request
from policies.decision import Clash, L4Decision, L4Kind, L7Policy, judging
from policies.identity import FIRST_CIDR, FIRST_ENDPOINT, Identity, reserved
from policies.match import RuleSet, judge_all
from policies.model import TrafficDirection
from policies.resolve import Resolver
from policies.verdict import L7Decision
from sockmap.flows import BLOCKED, PROXY, UPSTREAM, Flow

_MAX_JUDGES = 20_000
"""(identities, port) combinations remembered in one generation before all are forgotten and made anew."""
_MAX_HEADS = 16_384
"""Heads, of up to 2 KiB, that all judges of a generation together remember from one second to the next."""


class FlowJudge:
    """The rules of one flow, shared by every connection between the same identities and port.

    `protocol` is what they judge, of all sets the same; None if nothing restricts the flow, and everything passes.
    """

    __slots__ = (
        "__weakref__",
        "audit_only",
        "cache",
        "calls",
        "cassandra",
        "cut_streams",
        "header_names",
        "kafka",
        "log_headers",
        "options",
        "protocol",
        "sets",
    )

    def __init__(self, sets: Sequence[RuleSet], settings: Settings) -> None:
        self.sets = tuple(sets)
        self.protocol = self.sets[0].protocol if self.sets else None
        self.options, self.kafka, self.cassandra = settings.http, settings.kafka, settings.cassandra
        self.log_headers, self.cut_streams = settings.flow_log.headers, settings.cut_streams
        self.cache: dict[bytes, Exchange] = {}
        self.calls: dict[Hashable, Any] = {}
        self.audit_only = all(one.audit_only for one in sets)
        self.header_names = frozenset[str]().union(*(one.header_names for one in sets))

    def judge(self, request: Request) -> L7Decision:
        """The verdict of both sides' rules on one request."""
        return judge_all(self.sets, request)


@dataclass(frozen=True, slots=True)
class Origin:
    """A flow the proxy was given: its ends, their identities, the endpoint it counts for, and its rules.

    `judge` is None if L3/L4 policy no longer allows the flow at all; `reason` then says why.
    """

    client: tuple[str, int]
    server: tuple[str, int]
    flow: Flow
    source: Identity
    destination: Identity
    endpoint: str
    judge: FlowJudge | None
    reason: str = ""


class Prefixes:
    """The longest prefix of an address: one look-up for each prefix length in use."""

    def __init__(self, identities: Iterable[Identity]) -> None:
        self._by_length: dict[tuple[int, int], dict[int, Identity]] = {}
        for identity in identities:
            if identity.prefix is not None:
                network = identity.prefix
                known = self._by_length.setdefault((network.version, network.prefixlen), {})
                known[int(network.network_address) >> (network.max_prefixlen - network.prefixlen)] = identity
        self._lengths = sorted(self._by_length, reverse=True)

    def longest(self, address: str) -> Identity | None:
        """The identity of the longest prefix that holds `address` (without zone), or None."""
        ip = ip_address(address.partition("%")[0])
        for version, length in self._lengths:
            if version == ip.version:
                found = self._by_length[version, length].get(int(ip) >> (ip.max_prefixlen - length))
                if found is not None:
                    return found
        return None


class UnknownFlow(Exception):
    """A connection that the datapath did not steer here, or whose identity is not known: refused."""


class PolicyView:
    """One generation's policies, compiled as flows ask for them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        settings = snapshot.settings
        self._system_tables = settings.cassandra.system_tables
        self._resolver = Resolver(
            snapshot.policies, node_audit=settings.node_audit, allow_localhost=settings.allow_localhost
        )
        self._prefixes = Prefixes(snapshot.identities.values())
        self._judges: dict[tuple[int, int, int, int, int], tuple[FlowJudge | None, str]] = {}
        self._living: WeakSet[FlowJudge] = WeakSet()
        self._sets: dict[int, tuple[L7Policy, RuleSet]] = {}

    def origin(self, client: tuple[str, int], server: tuple[str, int], flow: Flow | None) -> Origin:
        """Who is behind an accepted connection, and what holds for it. Raises UnknownFlow."""
        if flow is None:
            raise UnknownFlow(f"no flow from {client[0]}:{client[1]} to {server[0]}:{server[1]} was steered here")
        if flow.flags & (PROXY | UPSTREAM | BLOCKED) != PROXY:
            raise UnknownFlow(f"the flow from {client[0]}:{client[1]} to {server[0]}:{server[1]} is not for the proxy")
        flow = flow._replace(
            src_endpoint=self._endpoint(flow.src_endpoint, client[0]),
            dst_endpoint=self._endpoint(flow.dst_endpoint, server[0]),
        )
        source = self._identity(flow.src_identity, client[0])
        destination = self._identity(flow.dst_identity, server[0])
        judge, reason = self._judge(flow, server[1], source, destination)
        names = self.snapshot.endpoints
        endpoint = names.get(flow.dst_endpoint) or names.get(flow.src_endpoint) or ""
        return Origin(client, server, flow, source, destination, endpoint, judge, reason)

    def _endpoint(self, known: int, address: str) -> int:
        """The endpoint at one end. A flow does not outlive its endpoint: whoever has the address next may have other
        labels. A workload that was added while the flow lived is under its own policy from now on."""
        if known and known not in self.snapshot.endpoints:
            raise UnknownFlow(f"endpoint {known}, at {address}, is not on this node any more")
        return known or self.snapshot.local.get(address, 0)

    def trim(self) -> None:
        """Forget the heads that judges remember, if there are very many: clients choose how many differ."""
        if sum(len(judge.cache) + len(judge.calls) for judge in self._living) > _MAX_HEADS:
            for judge in self._living:
                judge.cache.clear()
                judge.calls.clear()

    def _identity(self, number: int, address: str) -> Identity:
        """A workload or the host keeps its number. Who is outside is known by address: a new policy may name a
        longer prefix than the one that held when the connection was opened."""
        identity = self.snapshot.identities.get(number)
        if identity is not None and identity.in_cluster:
            return identity
        if number in range(FIRST_ENDPOINT, FIRST_CIDR):
            raise UnknownFlow(f"identity {number} is not known in generation {self.snapshot.generation}")
        workload = self.snapshot.addresses.get(address)
        if workload is not None:
            return self.snapshot.identities[workload]
        return self._prefixes.longest(address) or reserved("world")

    def _judge(self, flow: Flow, port: int, source: Identity, destination: Identity) -> tuple[FlowJudge | None, str]:
        key = (source.number, destination.number, flow.src_endpoint, flow.dst_endpoint, port)
        found = self._judges.get(key)
        if found is None:
            if len(self._judges) >= _MAX_JUDGES:
                self._judges.clear()
            found = self._judges[key] = self._make_judge(flow, port, source, destination)
        return found

    def _make_judge(
        self, flow: Flow, port: int, source: Identity, destination: Identity
    ) -> tuple[FlowJudge | None, str]:
        decisions: list[L4Decision] = []
        if flow.src_endpoint in self.snapshot.endpoints:
            decide = self._resolver.decide
            decisions.append(decide(TrafficDirection.EGRESS, source, destination, "TCP", port, destination))
        if flow.dst_endpoint in self.snapshot.endpoints:
            decide = self._resolver.decide
            decisions.append(decide(TrafficDirection.INGRESS, destination, source, "TCP", port, destination))
        for decision in decisions:
            if decision.kind is L4Kind.DENY:
                return None, decision.reason
        if not decisions:
            return None, "neither end is an endpoint of this node any more"
        try:
            sets = [self._rule_set(policy) for policy in judging(decisions)]
        except Clash as error:
            return None, str(error)
        judge = FlowJudge(sets, self.snapshot.settings)
        self._living.add(judge)
        return judge, ""

    def _rule_set(self, policy: L7Policy) -> RuleSet:
        found = self._sets.get(id(policy))
        if found is None:
            # The policy is kept beside its rule set, so its id stays its own.
            found = self._sets[id(policy)] = (policy, RuleSet(policy, system_tables=self._system_tables))
        return found[1]
