"""Which rule decides a flow or a request, and why: what the datapath and the proxy would say, without either."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from parsers.facts import CqlRequest, HttpRequest, KafkaRequest, Request
from policies.decision import Clash, L4Decision, L4Kind, L7Policy, judging
from policies.identity import Identity
from policies.kafka_apis import ADMINISTRATION
from policies.match import RuleSet, judge_all, worst
from policies.model import L7Protocol, TrafficDirection
from policies.resolve import Resolver
from policies.spellings import call_of
from policies.verdict import RuleRef, Verdict

_PROTOCOLS = {HttpRequest: L7Protocol.HTTP, KafkaRequest: L7Protocol.KAFKA, CqlRequest: L7Protocol.CASSANDRA}
Refusal: TypeAlias = Callable[[frozenset[str]], str | None]
"""Why the proxy refuses a request before any rule is asked, or None; given the header names that rules look at."""


@dataclass(frozen=True, slots=True)
class Query:
    """A flow, and a request in it if `request` is there. What a CQL statement does is one request or more: each of
    them must be allowed.

    `direction` None asks both: the source's egress and the destination's ingress, each if that side is an endpoint.
    `protocol` is TCP, UDP, SCTP or another name (ICMP: then `port` means nothing). `refusal` is the parser's word;
    `remark` is added to a refusal's reason.
    """

    source: Identity
    destination: Identity
    protocol: str
    port: int
    request: Request | tuple[CqlRequest, ...] | None = None
    direction: TrafficDirection | None = None
    refusal: Refusal | None = None
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The verdict, whether packets (L4) or the request (L7) decided it, the rule, and a sentence."""

    verdict: Verdict
    layer: str
    rule: RuleRef | None
    reason: str

    def plain(self) -> dict[str, Any]:
        """As JSON: verdict, layer, policy, rule, file, line, reason; null where no rule decided."""
        ref = self.rule
        return {
            "verdict": str(self.verdict),
            "layer": self.layer,
            "policy": ref.policy if ref else None,
            "rule": ref.rule if ref else None,
            "file": ref.file if ref else None,
            "line": ref.line if ref else None,
            "reason": self.reason,
        }


class Explainer:
    """Answers queries with one set of policies; rules are compiled once for all. `system_tables`: see `RuleSet`."""

    def __init__(self, resolver: Resolver, *, system_tables: bool = True) -> None:
        self._resolver, self._system_tables = resolver, system_tables
        self._sets: dict[int, tuple[L7Policy, RuleSet]] = {}

    def explain(self, query: Query) -> Explanation:
        """The verdict on one query. Raises PatternError if a policy holds an expression RE2 does not take."""
        decisions = self._decide(query)
        if not decisions:
            return Explanation(Verdict.FORWARDED, "L4", None, "no end that was asked about is an endpoint")
        for decision in decisions:
            if decision.kind is L4Kind.DENY:
                return Explanation(Verdict.DROPPED, "L4", decision.rule, decision.reason)
        packets = _packets(decisions)
        try:
            policies = judging(decisions)
        except Clash as error:
            return Explanation(Verdict.DROPPED, "L4", None, str(error))
        if not policies:
            return packets
        if not query.request:
            return _unread(packets)
        asked = query.request if isinstance(query.request, tuple) else (query.request,)
        sets = [self._rules(policy) for policy in policies]
        if _PROTOCOLS[type(asked[0])] is not sets[0].protocol:
            return _refused(sets, f"it is no request of {sets[0].protocol}, which the rules of this port are for")
        return self._request(query, asked, sets, packets)

    def _request(
        self, query: Query, asked: Sequence[Request], sets: list[RuleSet], packets: Explanation
    ) -> Explanation:
        refusal = query.refusal(frozenset[str]().union(*(one.header_names for one in sets))) if query.refusal else None
        if refusal is not None:
            return _refused(sets, refusal)
        request = worst(judge_all(sets, one) for one in asked)
        if packets.verdict is Verdict.AUDIT and request.verdict is Verdict.FORWARDED:
            return packets
        refused = request.verdict is not Verdict.FORWARDED
        hint = _hint(sets, asked[0]) + query.remark if refused else ""
        return Explanation(request.verdict, "L7", request.rule, request.reason + hint)

    def _decide(self, query: Query) -> list[L4Decision]:
        decisions = []
        for direction, subject, peer in (
            (TrafficDirection.EGRESS, query.source, query.destination),
            (TrafficDirection.INGRESS, query.destination, query.source),
        ):
            if query.direction in (None, direction) and is_endpoint(subject):
                decisions.append(
                    self._resolver.decide(direction, subject, peer, query.protocol, query.port, query.destination)
                )
        return decisions

    def _rules(self, policy: L7Policy) -> RuleSet:
        found = self._sets.get(id(policy))
        if found is None:
            # The policy is kept beside its rules, so that its id stays its own.
            found = self._sets[id(policy)] = (policy, RuleSet(policy, system_tables=self._system_tables))
        return found[1]


def is_endpoint(identity: Identity) -> bool:
    """True for workloads: policy is enforced for them, and for nothing else."""
    return identity.reserved is None and identity.prefix is None


def _packets(decisions: list[L4Decision]) -> Explanation:
    """What L3/L4 says of a flow that it does not drop: AUDIT first, then the last that a rule allowed."""
    audited = [decision for decision in decisions if decision.audit]
    ruled = [decision for decision in decisions if decision.rule is not None]
    chosen = (audited or ruled or decisions)[-1]
    verdict = Verdict.AUDIT if audited else Verdict.FORWARDED
    return Explanation(verdict, "L4", chosen.rule, chosen.reason)


def _refused(sets: list[RuleSet], reason: str) -> Explanation:
    """A refusal by the proxy itself. Where nothing is enforced, it lets pass what it cannot read."""
    verdict = Verdict.AUDIT if all(one.audit_only for one in sets) else Verdict.DROPPED
    return Explanation(verdict, "L7", None, f"refused before any rule is asked: {reason}")


def _unread(packets: Explanation) -> Explanation:
    reason = f"{packets.reason}; the connection goes to the proxy, where L7 rules judge each request"
    return Explanation(packets.verdict, "L4", packets.rule, reason)


def _hint(sets: list[RuleSet], request: Request) -> str:
    """What a small change of the request would do, where that shows a likely mistake in a rule."""
    if isinstance(request, KafkaRequest):
        named = request.topic is not None or request.group is not None
        told = named and request.api in ADMINISTRATION
        return "; it is administration, which no rule allows by names alone: write its apiKey" if told else ""
    return _http_hint(sets, request) if isinstance(request, HttpRequest) else ""


def _http_hint(sets: list[RuleSet], request: HttpRequest) -> str:
    path, mark, _ = request.path.partition("?")
    host, colon, _ = request.host.rpartition(":")
    tries = (
        ("rules see the query string: without it", mark, request.method, path, request.host),
        ("rules see the port of the host: without it", colon, request.method, request.path, host),
        ("as a gRPC call, with POST,", call_of("POST", request.path), "POST", request.path, request.host),
    )
    for text, applies, method, other_path, other_host in tries:
        if applies:
            changed = HttpRequest(method, other_path, other_host, headers=request.headers)
            passed = judge_all(sets, changed)
            if passed.verdict is Verdict.FORWARDED and passed.rule is not None:
                return f"; {text} it would be allowed by {passed.rule.file}:{passed.rule.line}"
    return ""
