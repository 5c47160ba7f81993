"""What the L7 rules of a flow say of one request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from parsers.facts import CqlRequest, Request
from policies.cql_actions import read_by_drivers
from policies.cql_index import CqlIndex
from policies.decision import L7Lists, L7Policy
from policies.http_index import HttpIndex
from policies.index import Index
from policies.kafka_index import KafkaIndex
from policies.model import L7Protocol, L7Rule
from policies.verdict import L7Decision, RuleRef, Verdict

_NAMED = 3
"""Policies that a reason names."""
_INDEXES: Mapping[L7Protocol, Callable[[Sequence[Any], bool], Index]] = {
    L7Protocol.HTTP: HttpIndex,
    L7Protocol.KAFKA: KafkaIndex,
    L7Protocol.CASSANDRA: CqlIndex,
}
"""By protocol: the index of a list of rules, which are allow or (True) deny rules."""
_TO_DRIVERS = "drivers read this when they connect (cassandra.system_tables of node.yaml)"


class RuleSet:
    """The compiled rules of one direction of a flow, shared by all connections that have the same lists.

    They judge requests of `protocol` and no others. `header_names` are the lower-case names of the headers that any
    rule looks at; `needs_headers` says that there are some. With `audit_only` nothing is ever refused: no policy that
    enforces restricts the flow. `system_tables`: what drivers read when they connect is allowed beside the rules,
    unless one denies it (see `policies.cql_actions`).
    """

    def __init__(self, policy: L7Policy, *, system_tables: bool = True) -> None:
        """Raises `policies.patterns.PatternError` if RE2 does not take an expression."""
        self.protocol = policy.protocol
        self._enforced = _Lists(policy, policy.enforced, system_tables)
        self._candidate: _Lists | None = None
        if policy.candidate is not policy.enforced:
            self._candidate = _Lists(policy, policy.candidate, system_tables)
        self.header_names = self._enforced.header_names
        if self._candidate is not None:
            self.header_names |= self._candidate.header_names
        self.needs_headers = bool(self.header_names)
        self.audit_only = policy.audit_only

    def judge(self, request: Request) -> L7Decision:
        """DROPPED if a policy in force refuses, AUDIT if only one in audit mode would, else FORWARDED."""
        decision = self._enforced.judge(request)
        if self._candidate is None or decision.verdict is Verdict.DROPPED:
            return decision
        wanted = self._candidate.judge(request)
        if wanted.verdict is Verdict.DROPPED:
            return replace(wanted, verdict=Verdict.AUDIT, reason=f"audit mode, forwarded: {wanted.reason}")
        return wanted if decision.rule is None else decision


def judge_all(sets: Sequence[RuleSet], request: Request) -> L7Decision:
    """The verdict of all sides of a flow, the source's egress first: any DROPPED wins, then AUDIT, then the last
    FORWARDED that a rule gave. No sets at all means that L3/L4 policy lets the flow pass unread."""
    result: L7Decision | None = None
    for rules in sets:
        decision = rules.judge(request)
        if decision.verdict is Verdict.DROPPED:
            return decision
        if result is None or _weight(decision) >= _weight(result):
            result = decision
    return result or L7Decision(Verdict.FORWARDED, None, "no L7 rule restricts this flow")


def worst(decisions: Iterable[L7Decision]) -> L7Decision:
    """The word on a whole of which every part was judged: DROPPED goes before AUDIT, that before FORWARDED, and a word
    that a rule gave before others. Raises ValueError if there is none, for then nothing was judged."""
    return max(decisions, key=lambda one: (_SEVERITY[one.verdict], one.rule is not None))


_SEVERITY = {Verdict.FORWARDED: 0, Verdict.AUDIT: 1, Verdict.DROPPED: 2}


def _weight(decision: L7Decision) -> tuple[bool, bool]:
    return decision.verdict is Verdict.AUDIT, decision.rule is not None


class _Lists:
    """One set of policies' lists: deny before allow."""

    def __init__(self, policy: L7Policy, lists: L7Lists, system_tables: bool) -> None:
        index, messages = _INDEXES[policy.protocol], policy.messages
        self._direction, self._messages = str(policy.direction), messages
        self._deny = index(lists.deny, True) if lists.deny else None
        self._everything = self._all(lists)
        # Rules beside one that decides every request decide nothing, so they are not even compiled.
        self._allow = index(() if self._everything else lists.allow, False)
        self._remarks = self._allow.remarks
        self._denied = [self._deny_decision(rule.ref) for rule in lists.deny]
        self._allowed = [] if self._everything else [self._allow_decision(rule.ref) for rule in lists.allow]
        self._to_drivers: L7Decision | None = None
        if system_tables and policy.protocol is L7Protocol.CASSANDRA:
            self._to_drivers = L7Decision(Verdict.FORWARDED, None, _TO_DRIVERS, None, self._direction)
        self._whose = _whose(lists.allow)
        named = [rule.ref.policy for rule in lists.allow if rule.ref.policy in messages] or list(messages)
        self._message = messages[named[0]] if named else None
        self.header_names = self._allow.header_names | (self._deny.header_names if self._deny else frozenset())

    def judge(self, request: Request) -> L7Decision:
        if self._deny is not None:
            denied = self._deny.find(request)
            if denied is not None:
                return self._denied[denied.order]
        if self._everything is not None:
            return self._everything
        allowed = self._allow.find(request)
        if allowed is None:
            if self._to_drivers is not None and isinstance(request, CqlRequest) and read_by_drivers(request):
                return self._to_drivers
            return self._refuse(request)
        decision = self._allowed[allowed.order]
        if self._remarks and (remark := self._allow.remark(allowed, request)):
            return replace(decision, reason=decision.reason + remark)
        return decision

    def _all(self, lists: L7Lists) -> L7Decision | None:
        """What holds for every request that no deny rule matches, if that does not depend on the request."""
        if lists.deny_all is not None:
            return self._deny_decision(lists.deny_all)
        if lists.allow_all is not None:
            return self._allow_decision(lists.allow_all)
        if lists.open:
            return L7Decision(Verdict.FORWARDED, None, "no policy restricts this port", None, self._direction)
        return None

    def _allow_decision(self, ref: RuleRef) -> L7Decision:
        return L7Decision(Verdict.FORWARDED, ref, f"allowed by {_place(ref)}", None, self._direction)

    def _deny_decision(self, ref: RuleRef) -> L7Decision:
        message = self._messages.get(ref.policy)
        return L7Decision(Verdict.DROPPED, ref, f"denied by {_place(ref)}", message, self._direction)

    def _refuse(self, request: Request) -> L7Decision:
        reason = f"no rule {self._whose}allows {self._allow.told(request)}"
        return L7Decision(Verdict.DROPPED, None, reason, self._message, self._direction)


def _place(ref: RuleRef) -> str:
    return f"policy {ref.policy}, {ref.rule} ({ref.file}:{ref.line})"


def _whose(rules: Iterable[L7Rule]) -> str:
    """``of policy a (f.yaml:3) ``: the policies whose rules were asked, each with the line of its first rule."""
    first: dict[str, RuleRef] = {}
    for rule in rules:
        first.setdefault(rule.ref.policy, rule.ref)
    shown = [f"{name} ({ref.file}:{ref.line})" for name, ref in list(first.items())[:_NAMED]]
    if not shown:
        return ""
    more = f" and {len(first) - _NAMED} more" if len(first) > _NAMED else ""
    return f"of {'policy' if len(first) == 1 else 'policies'} {', '.join(shown)}{more} "
