"""What rules do to each other: one that opens what another closes, rules that decide nothing, and odd expressions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeAlias

from policies.cover import (
    contradiction,
    peer_covers,
    port_covers,
    ports_meet,
    rule_peers_cover,
    selector_covers,
)
from policies.document import Problem
from policies.judgement import clash
from policies.lints import LINTS
from policies.model import (
    CidrPeer,
    L7Protocol,
    L7Rules,
    Policy,
    Port,
    PortRule,
    Requirement,
    Rule,
    Selector,
    TrafficDirection,
)
from policies.selectors import inside
from policies.verdict import RuleRef

_EVERY_PORT = (Port("ANY", 0, 65535),)
_MANY = 8
"""Requirements of a selector whose subsets are looked up; of larger ones every other selector is asked."""


def problem(ref: RuleRef, message: str, severity: str = "warning") -> Problem:
    """A complaint about a rule."""
    key = ref.rule if ref.rule.startswith("spec") else f"spec.{ref.rule}" if ref.rule else "spec"
    return Problem(ref.file, ref.line, key, message, severity)


def rule_problems(policies: Sequence[Policy]) -> Iterator[Problem]:
    """Everything that a set of loaded policies shows without knowing any endpoint."""
    grants = [grant for policy in policies for rule in policy.rules for grant in _grants(policy, rule)]
    for policy in policies:
        yield from _selectors(policy)
        yield from _observing(policy, policies)
    for grant in grants:
        if grant.entry is not None:
            yield from _remarks(grant.entry, grant.rule.deny)
    yield from _clashing(grants)
    yield from _clashing_ends(grants)
    yield from _opened(grants)
    yield from _denied(grants)
    yield from _shadowed(grants)
    yield from _given_back(grants)


@dataclass(frozen=True, slots=True)
class _Grant:
    """One rule on some ports: an entry of toPorts, or (`entry` None) a rule for every port."""

    policy: Policy
    rule: Rule
    entry: PortRule | None

    @property
    def ports(self) -> tuple[Port, ...]:
        return _EVERY_PORT if self.entry is None else self.entry.ports

    @property
    def rules(self) -> L7Rules | None:
        return None if self.entry is None else self.entry.rules

    @property
    def ref(self) -> RuleRef:
        return self.rule.ref if self.entry is None else self.entry.ref

    @property
    def opener(self) -> RuleRef | None:
        """What lets every request on these ports pass: this rule itself without L7 rules, or an empty L7 rule."""
        if self.rule.deny or self.rule.requires:
            return None
        if self.rules is None:
            return self.ref
        return next((rule.ref for rule in self.rules if rule.asks_nothing), None)


def _grants(policy: Policy, rule: Rule) -> Iterator[_Grant]:
    if rule.peers == () or (rule.peers is None and rule.ports is None):
        return
    for entry in (None,) if rule.ports is None else rule.ports:
        yield _Grant(policy, rule, entry)


_Subject: TypeAlias = tuple[TrafficDirection, frozenset[Requirement]]


class _BySubject:
    """Grants by what their policies select, to find those of every wider or equal selector."""

    def __init__(self, grants: Iterable[_Grant]) -> None:
        self._grants: dict[_Subject, list[_Grant]] = defaultdict(list)
        for grant in grants:
            self._grants[grant.rule.direction, frozenset(grant.policy.selector.requirements)].append(grant)

    def wider(self, grant: _Grant, *, modes: bool = False) -> Iterator[_Grant]:
        """Grants of policies that select at least the same, in the same direction, in force if that one is (or, with
        `modes`, or not)."""
        requirements, direction = set(grant.policy.selector.requirements), grant.rule.direction
        if len(requirements) > _MANY:
            keys = [key for key in self._grants if key[0] is direction and key[1] <= requirements]
        else:
            sizes = range(len(requirements) + 1)
            keys = [(direction, frozenset(some)) for size in sizes for some in combinations(requirements, size)]
        for key in keys:
            for other in self._grants.get(key, ()):
                if other is not grant and (modes or grant.policy.audit or not other.policy.audit):
                    yield other


def _opened(grants: Sequence[_Grant]) -> Iterator[Problem]:
    """L7 rules beside which another rule lets every request of the same peers and port pass."""
    openers = _BySubject(grant for grant in grants if grant.opener is not None)
    for grant in grants:
        if grant.rules is None or grant.rule.deny or grant.opener is not None:
            continue
        beside = [other for other in openers.wider(grant) if _meet(grant, other)]
        whole = next((other for other in beside if rule_peers_cover(other.rule, grant.rule)), None)
        part = next((other for other in beside if rule_peers_cover(grant.rule, other.rule)), None)
        if whole is not None:
            yield problem(
                grant.ref, f"refuses nothing: {_place(whole.opener)} lets every request of the same peers pass"
            )
        elif part is not None:
            text = f"does not hold for all its peers: {_place(part.opener)} lets every request of some pass"
            yield problem(grant.ref, text, "note")


def _clashing(grants: Sequence[_Grant]) -> Iterator[Problem]:
    """Entries over one port that are for different protocols: `policies.judgement` then refuses everything."""
    judged = [grant for grant in grants if grant.entry is not None and grant.entry.protocol is not None]
    if len({grant.entry.protocol for grant in judged if grant.entry is not None}) < 2:
        return
    entries = _BySubject(judged)
    told: set[frozenset[int]] = set()
    for grant in judged:
        for other in entries.wider(grant, modes=True):
            one, two = grant.entry, other.entry
            if one is None or two is None or one.protocol is two.protocol or not _meet(grant, other):
                continue
            shared = rule_peers_cover(grant.rule, other.rule) or rule_peers_cover(other.rule, grant.rule)
            pair = frozenset((id(grant), id(other)))
            if shared and pair not in told:
                told.add(pair)
                yield problem(grant.ref, clash(one, two), "error")


def _clashing_ends(grants: Sequence[_Grant]) -> Iterator[Problem]:
    """Entries for what some send that others, who are sent it, take for another protocol: `policies.decision.judging`
    then refuses everything. One is told for each entry of a sender."""
    takers: dict[object, list[_Grant]] = defaultdict(list)
    senders: list[_Grant] = []
    for grant in grants:
        closed = grant.rule.deny or grant.rule.direction in grant.policy.default_deny
        if grant.entry is None or grant.entry.protocol is None or grant.policy.audit or not closed:
            continue
        if grant.rule.direction is TrafficDirection.EGRESS:
            senders.append(grant)
            continue
        for key in {_port_key(port) for port in grant.ports}:
            takers[key].append(grant)
    for grant in senders:
        keys = takers if _EVERY in map(_port_key, grant.ports) else {_EVERY, *map(_port_key, grant.ports)}
        some = (other for key in keys for other in takers.get(key, ()))
        other = next((one for one in some if _clash_as_ends(grant, one)), None)
        if other is not None:
            yield problem(grant.ref, clash(_entry(grant), _entry(other)), "error")


_EVERY = "every port"


def _port_key(port: Port) -> object:
    """What two matches of a single port have in common if they meet."""
    return port.low if port.name is None and port.low == port.high else port.name or _EVERY


def _clash_as_ends(sender: _Grant, taker: _Grant) -> bool:
    """Whether the text of both shows that they hold the same flows, and they are for different protocols."""
    if _entry(sender).protocol is _entry(taker).protocol or not _meet(sender, taker):
        return False
    return _reaches(sender.rule, taker.policy.selector) and _reaches(taker.rule, sender.policy.selector)


def _reaches(rule: Rule, end: Selector) -> bool:
    """Whether a rule's peers are all that `end` selects, or some of it."""
    if not all(selector_covers(one, end) for one in rule.requires):
        return False
    return rule.peers is None or any(
        peer_covers(peer, end) or (isinstance(peer, Selector) and selector_covers(end, peer)) for peer in rule.peers
    )


def _entry(grant: _Grant) -> PortRule:
    assert grant.entry is not None  # noqa: S101 -- only such are asked about
    return grant.entry


def _meet(one: _Grant, other: _Grant) -> bool:
    return any(ports_meet(mine, yours) for mine in one.ports for yours in other.ports)


def _denied(grants: Sequence[_Grant]) -> Iterator[Problem]:
    """Allow rules that a deny rule undoes wholly: deny beats allow, whatever is narrower."""
    deniers = _BySubject(grant for grant in grants if grant.rule.deny and grant.rules is None)
    for grant in grants:
        if grant.rule.deny or not grant.ports:
            continue
        for other in deniers.wider(grant):
            covered = all(any(port_covers(two, one) for two in other.ports) for one in grant.ports)
            if covered and rule_peers_cover(other.rule, grant.rule):
                yield problem(grant.ref, f"never allows anything: {_place(other.ref)} denies all of it")
                break


def _shadowed(grants: Sequence[_Grant]) -> Iterator[Problem]:
    """L7 rules that a wider one makes useless, in one list or in lists of the same endpoints, peers and ports."""
    lists: dict[tuple[L7Protocol, bool, object], list[Any]] = defaultdict(list)
    for grant in grants:
        if grant.entry is not None and grant.entry.protocol is not None:
            whose = grant.ref if grant.policy.audit else _same_flows(grant)
            lists[grant.entry.protocol, grant.rule.deny, whose] += grant.entry.rules or ()
    for (protocol, deny, _), listed in lists.items():
        for rule, wider in LINTS[protocol].shadowed(listed, deny):
            yield problem(rule.ref, f"decides nothing: {_place(wider.ref)} holds all that it holds")


def _same_flows(grant: _Grant) -> tuple[object, ...]:
    rule = grant.rule
    subject = frozenset(grant.policy.selector.requirements)
    peers = None if rule.peers is None else frozenset(map(_peer_key, rule.peers))
    requires = frozenset(frozenset(one.requirements) for one in rule.requires)
    return rule.deny, rule.direction, subject, peers, requires, frozenset(grant.ports)


def _peer_key(peer: object) -> object:
    if isinstance(peer, Selector):
        return frozenset(peer.requirements)
    if isinstance(peer, CidrPeer):
        return peer.prefix, frozenset(peer.excepts)
    return getattr(peer, "name", peer)


def _given_back(grants: Sequence[_Grant]) -> Iterator[Problem]:
    """Exceptions of a CIDR that another rule of the same endpoints allows all the same."""
    allowing = _BySubject(grant for grant in grants if not grant.rule.deny and not grant.rule.requires)
    for grant in grants:
        cut = [peer for peer in grant.rule.peers or () if isinstance(peer, CidrPeer) and peer.excepts]
        if grant.rule.deny or not cut:
            continue
        others = [other for other in allowing.wider(grant) if other.rule is not grant.rule]
        for peer in cut:
            yield from _giver(grant, peer, others)


def _giver(grant: _Grant, peer: CidrPeer, others: Sequence[_Grant]) -> Iterator[Problem]:
    for network in peer.excepts:
        hole = CidrPeer(network, (), peer.ref)
        siblings = [(grant, [one for one in grant.rule.peers or () if one is not peer])]
        for other, peers in siblings + [(other, list(other.rule.peers or ())) for other in others]:
            everyone = other is not grant and other.rule.peers is None
            if _meet(grant, other) and (everyone or any(peer_covers(one, hole) for one in peers)):
                yield problem(peer.ref, f"{network} is excepted here, and {_place(other.ref)} allows it all the same")
                break


def _selectors(policy: Policy) -> Iterator[Problem]:
    yield from _impossible(policy.selector, "selects nothing")
    for rule in policy.rules:
        for peer in (*(rule.peers or ()), *rule.requires):
            if isinstance(peer, Selector):
                yield from _impossible(peer, "holds nobody")
            elif isinstance(peer, CidrPeer) and any(inside(peer.prefix, cut) for cut in peer.excepts):
                yield problem(peer.ref, f"holds nobody: its exceptions take away all of {peer.prefix}")


def _impossible(selector: Selector, word: str) -> Iterator[Problem]:
    key = contradiction(selector.requirements)
    if key is not None:
        name = key.removeprefix("any:").removeprefix("k8s:")
        yield problem(selector.ref, f"{word}: no value of label {name} can meet all that is asked of it")


def _observing(policy: Policy, policies: Sequence[Policy]) -> Iterator[Problem]:
    """L7 rules that only observe, because their policy starts no default deny and no other does."""
    for direction in TrafficDirection:
        entries = [
            entry
            for rule in policy.rules
            if rule.direction is direction and not rule.deny
            for entry in rule.ports or ()
            if entry.rules is not None
        ]
        closed = any(
            direction in other.default_deny and selector_covers(other.selector, policy.selector)
            for other in policies
            if policy.audit or not other.audit
        )
        if entries and not closed:
            text = f"only observes, and refuses nothing: enableDefaultDeny.{direction} is false"
            yield problem(entries[0].ref, text)


def _remarks(entry: PortRule, deny: bool) -> Iterator[Problem]:
    if entry.protocol is not None:
        for ref, (severity, text) in LINTS[entry.protocol].remarks(entry, deny):
            yield problem(ref, text, severity)


def _place(ref: RuleRef | None) -> str:
    return f"{ref.policy} {ref.rule} ({ref.file}:{ref.line})" if ref else ""
