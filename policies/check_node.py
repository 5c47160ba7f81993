"""What policies ask for that the endpoints of one node do not have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import TypeAlias

from policies.check_rules import problem
from policies.document import Problem
from policies.identity import Identity
from policies.model import CidrPeer, EntityPeer, Policy, PortRule, Rule, Selector, TrafficDirection
from policies.selectors import inside, peer_holds, selects, selects_endpoint

Address: TypeAlias = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Known:
    """An endpoint of the configuration."""

    name: str
    identity: Identity
    addresses: tuple[Address, ...] = ()


def node_problems(policies: Sequence[Policy], endpoints: Sequence[Known]) -> Iterator[Problem]:
    """Selectors that select nothing here, port names nobody has, prefixes that mean endpoints and do not hold them."""
    for policy in policies:
        subjects = [one for one in endpoints if selects_endpoint(policy.selector, one.identity)]
        if not subjects:
            yield problem(policy.selector.ref, "selects no endpoint of this configuration")
        for rule in policy.rules:
            yield from _peers(rule, endpoints)
            for entry in rule.ports or ():
                yield from _names(rule, entry, subjects, endpoints)


def _peers(rule: Rule, endpoints: Sequence[Known]) -> Iterator[Problem]:
    for peer in (*(rule.peers or ()), *rule.requires):
        if isinstance(peer, Selector):
            # Reserved identities (the host, the world) are no endpoints.
            reserved = any(one.key.startswith("reserved:") for one in peer.requirements)
            if not reserved and not any(selects(peer, one.identity) for one in endpoints):
                yield problem(peer.ref, "holds no endpoint of this configuration")
        elif isinstance(peer, CidrPeer):
            yield from _addresses(peer, endpoints)


def _addresses(peer: CidrPeer, endpoints: Sequence[Known]) -> Iterator[Problem]:
    if peer.prefix.prefixlen == 0:
        return
    for one in endpoints:
        for address in one.addresses:
            if inside(ip_network(str(address)), peer.prefix):
                text = f"{peer.prefix} does not hold endpoint {one.name} ({address}): prefixes hold addresses outside"
                yield problem(peer.ref, f"{text} the cluster only, endpoints are held by their labels")
                return


def _names(rule: Rule, entry: PortRule, subjects: Sequence[Known], endpoints: Sequence[Known]) -> Iterator[Problem]:
    """Names of ports are those of the destination: for ingress the endpoint itself, for egress the peer."""
    owners = subjects
    if rule.direction is TrafficDirection.EGRESS:
        owners = [one for one in endpoints if _may_be_peer(rule, one.identity)]
    known = {name for one in owners for name in one.identity.named_ports}
    for port in entry.ports:
        if port.name is not None and port.name not in known:
            names = ", ".join(sorted(known)) or "none"
            text = f"port {port.name!r} has no effect: no destination has a port of that name (known: {names})"
            yield problem(entry.ref, text)


def _may_be_peer(rule: Rule, identity: Identity) -> bool:
    if rule.peers is None:
        return True
    return any(isinstance(peer, EntityPeer) or peer_holds(peer, identity) for peer in rule.peers)
