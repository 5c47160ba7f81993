"""What L3/L4 policy says of a flow, and the L7 lists it leaves for the proxy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from policies.model import HttpRule, TrafficDirection
from policies.verdict import RuleRef


class L4Kind(StrEnum):
    """ALLOW: passes without the proxy. DENY: dropped. PROXY: every request is judged by the L7 lists."""

    ALLOW = "allow"
    DENY = "deny"
    PROXY = "proxy"


@dataclass(frozen=True, slots=True)
class HttpLists:
    """The union of the L7 lists of one peer and port, of one set of policies.

    A request passes if no `deny` rule matches and (`allow_all` is set or an `allow` rule matches). `allow_all` is the
    rule that opens the port for every request (an L4-only rule beside the L7 rules), or None. With `open` nothing
    restricts the port in this set of policies: everything that no deny rule matches passes, without a rule to name.
    """

    allow: tuple[HttpRule, ...] = ()
    deny: tuple[HttpRule, ...] = ()
    allow_all: RuleRef | None = None
    open: bool = False


@dataclass(frozen=True, slots=True)
class L7Policy:
    """What the proxy enforces on one flow in one direction.

    `enforced` comes from the policies in enforce mode alone, `candidate` from those and the ones in audit mode; where
    no audit policy matters the two are the same object. A request that `enforced` refuses is DROPPED; one that only
    `candidate` refuses is AUDIT. `messages` holds each policy's own refusal text by policy name.
    """

    direction: TrafficDirection
    enforced: HttpLists
    candidate: HttpLists
    messages: Mapping[str, str] = field(default_factory=dict)


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
