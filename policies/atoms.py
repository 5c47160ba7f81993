"""The rules that count for one endpoint and direction, laid out by ports: what `policies.resolve` decides with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from policies.identity import Identity
from policies.model import Policy, Port, PortRule, Rule, Selector, TrafficDirection
from policies.selectors import PeerSet, selects_endpoint
from policies.verdict import RuleRef

PROTOCOLS = ("TCP", "UDP", "SCTP", "OTHER")
"""Everything L4 policy tells apart; OTHER (ICMP and the rest) has no ports."""
LAST_PORT = 65535
_TRANSPORT = ("TCP", "UDP", "SCTP")


@dataclass(frozen=True, slots=True)
class Atom:
    """One rule on one interval of ports of one protocol. `number` is its place among all rules; `entry` is the
    one whose L7 rules count, or None for an L4 rule."""

    number: int
    protocol: str
    low: int
    high: int
    deny: bool
    entry: PortRule | None
    ref: RuleRef


@dataclass(slots=True)
class Member:
    """One rule of one policy that selects the endpoint. `ports` are the named ports it asks for."""

    number: int
    policy: Policy
    rule: Rule
    peers: PeerSet | None
    names: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.names = frozenset(port.name for port in self._ports() if port.name is not None)

    def _ports(self) -> Iterable[Port]:
        return (port for entry in self.rule.ports or () for port in entry.ports)

    def holds(self, peer: Identity, requires: Sequence[Selector]) -> bool:
        """Whether the rule's peers hold an identity. Without peers and without ports a rule holds nobody."""
        if self.peers is None:
            return self.rule.ports is not None
        return self.peers.holds(peer, requires)

    def atoms(self, named_ports: Mapping[str, int]) -> Iterable[Atom]:
        """The rule as intervals. A port name that the destination does not have is without effect."""
        rule = self.rule
        if rule.ports is None:
            for protocol in PROTOCOLS:
                yield Atom(self.number, protocol, 0, LAST_PORT, rule.deny, None, rule.ref)
            return
        for entry in rule.ports:
            judged = entry if entry.rules is not None else None
            for port in entry.ports:
                span = _span(port, named_ports)
                if span is not None:
                    for protocol in _TRANSPORT if port.protocol == "ANY" else (port.protocol,):
                        yield Atom(self.number, protocol, *span, rule.deny, judged, entry.ref)


def _span(port: Port, named_ports: Mapping[str, int]) -> tuple[int, int] | None:
    if port.name is None:
        return port.low, port.high
    number = named_ports.get(port.name)
    return None if number is None else (number, number)


@dataclass(slots=True)
class Selection:
    """The policies of one mode that select one endpoint, in one direction. `places` are theirs among all."""

    direction: TrafficDirection
    places: tuple[int, ...]
    policies: tuple[Policy, ...]
    members: tuple[Member, ...]
    selected: bool = field(init=False)
    touched: bool = field(init=False)
    _requires: dict[bool, tuple[Selector, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self.selected = any(self.direction in policy.default_deny for policy in self.policies)
        self.touched = self.selected or bool(self.members)
        # fromRequires of any allow (deny) rule binds the selectors of all allow (deny) rules of the direction.
        self._requires = {
            deny: tuple(one for m in self.members if m.rule.deny is deny for one in m.rule.requires)
            for deny in (False, True)
        }

    def holding(self, peer: Identity) -> tuple[Member, ...]:
        """The rules whose peers hold an identity."""
        return tuple(m for m in self.members if m.holds(peer, self._requires[m.rule.deny]))


class Members:
    """All rules of all policies, numbered, to be selected from by endpoint."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._policies = policies
        self._members: list[list[Member]] = []
        number = 0
        for policy in policies:
            own = []
            for rule in policy.rules:
                peers = None if rule.peers is None else PeerSet(rule.peers)
                own.append(Member(number, policy, rule, peers))
                number += 1
            self._members.append(own)

    def select(self, direction: TrafficDirection, subject: Identity, *, audit: bool) -> Selection:
        """What counts for an endpoint. Without `audit` the policies in audit mode are left out."""
        places = tuple(
            place
            for place, policy in enumerate(self._policies)
            if (audit or not policy.audit) and selects_endpoint(policy.selector, subject)
        )
        members = (m for place in places for m in self._members[place] if m.rule.direction is direction)
        return Selection(direction, places, tuple(self._policies[place] for place in places), tuple(members))
