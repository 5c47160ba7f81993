"""Verdicts, and the rule that gave them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Hubble's words for what became of a request or a packet."""

    FORWARDED = "FORWARDED"
    DROPPED = "DROPPED"
    AUDIT = "AUDIT"


@dataclass(frozen=True, slots=True)
class RuleRef:
    """Where a rule stands: policy as ``namespace/name`` (clusterwide: ``name``), rule as
    ``ingress[0].toPorts[0].rules.http[1]``, and the line of the file it begins on (from 1)."""

    policy: str
    rule: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class L7Decision:
    """What the policy says of one request.

    `rule` is the rule that allowed or denied; None where no rule did (default deny, or nothing selects the flow).
    `reason` is a sentence for a person; `message` is the policy's own text for the refusal's body, if it has one.
    `direction` is "ingress" or "egress": the side whose rules decided.
    """

    verdict: Verdict
    rule: RuleRef | None
    reason: str
    message: str | None = None
    direction: str = "ingress"
