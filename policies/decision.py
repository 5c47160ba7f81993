"""What L3/L4 policy says of a flow, and the L7 lists it leaves for the proxy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from policies.model import L7Protocol, L7Rules, TrafficDirection
from policies.verdict import RuleRef


class L4Kind(StrEnum):
    """ALLOW: passes without the proxy. DENY: dropped. PROXY: every request is judged by the L7 lists."""

    ALLOW = "allow"
    DENY = "deny"
    PROXY = "proxy"


@dataclass(frozen=True, slots=True)
class L7Lists:
    """The union of the L7 lists of one peer and port, of one set of policies; all its rules are of one protocol.

    A request passes if no `deny` rule matches and (`allow_all` is set or an `allow` rule matches). `allow_all` is the
    rule that opens the port for every request (an L4-only rule beside the L7 rules), or None; `deny_all` one that
    refuses every request. With `open` nothing restricts the port in this set of policies: everything that no deny rule
    matches passes, without a rule to name.
    """

    allow: L7Rules = ()
    deny: L7Rules = ()
    allow_all: RuleRef | None = None
    open: bool = False
    deny_all: RuleRef | None = None

    @property
    def protocol(self) -> L7Protocol | None:
        """The protocol of the rules; None if there are none."""
        rules = self.allow or self.deny
        return rules[0].protocol if rules else None


@dataclass(frozen=True, slots=True)
class L7Policy:
    """What the proxy enforces on one flow in one direction.

    `enforced` comes from the policies in enforce mode alone, `candidate` from those and the ones in audit mode; where
    no audit policy matters the two are the same object. A request that `enforced` refuses is DROPPED; one that only
    `candidate` refuses is AUDIT. `messages` holds each policy's own refusal text by policy name.
    """

    direction: TrafficDirection
    enforced: L7Lists
    candidate: L7Lists
    messages: Mapping[str, str] = field(default_factory=dict)

    @property
    def protocol(self) -> L7Protocol:
        """What requests are read as: what the rules of either list are for."""
        return self.enforced.protocol or self.candidate.protocol or L7Protocol.HTTP

    @property
    def audit_only(self) -> bool:
        """Whether nothing is ever refused."""
        return self.enforced.open and not self.enforced.deny


@dataclass(frozen=True, slots=True)
class L4Decision:
    """L3/L4's word on (endpoint, direction, peer, protocol, port).

    `kind` is what happens. `audit`: a policy in audit mode would have denied; it passes and is recorded. `rule` is
    the rule that decided (None: default deny, or no policy selects the endpoint). `selected`: some policy puts the
    endpoint in default deny in this direction. `l7` is set for PROXY.
    """

    kind: L4Kind
    audit: bool
    rule: RuleRef | None
    reason: str
    selected: bool
    l7: L7Policy | None = None


@dataclass(frozen=True, slots=True)
class PortRow:
    """One interval of ports, `low`..`high` inclusive, of one protocol (TCP, UDP, SCTP, or OTHER for the rest, whose
    only interval is 0..65535) with the decision that holds for all of it."""

    protocol: str
    low: int
    high: int
    decision: L4Decision


class Clash(Exception):
    """Nothing of a flow may pass: its two sides have rules for different protocols."""


def judging(decisions: Sequence[L4Decision]) -> list[L7Policy]:
    """The L7 policies of a flow that its two sides allow, for one protocol. A side that enforces nothing gives way to
    the other. Raises Clash."""
    sides = [decision.l7 for decision in decisions if decision.l7 is not None]
    if len({side.protocol for side in sides}) < 2:
        return sides
    enforcing = [side for side in sides if not side.audit_only]
    if len(enforcing) < 2:
        return enforcing or sides[:1]
    shown = " and ".join(f"{side.direction} rules for {side.protocol}" for side in sides)
    raise Clash(f"the flow has {shown}: all is refused")
