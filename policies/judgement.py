"""The word of the rules over one port, and how the words of enforced and audited policies become one decision."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from policies.atoms import Atom, Selection
from policies.decision import L4Decision, L4Kind, L7Lists, L7Policy
from policies.model import L7Rules, PortRule
from policies.verdict import RuleRef

_NAMED = 3
"""Policies that a reason names."""


@dataclass(frozen=True, slots=True)
class Word:
    """What one set of policies says of one port. `lists` is set for PROXY."""

    kind: L4Kind
    rule: RuleRef | None
    reason: str
    lists: L7Lists | None = None


class Judge:
    """Gives words and decisions. Equal L7 lists are one object, so that they are compiled only once."""

    def __init__(self) -> None:
        self._lists: dict[object, L7Lists] = {}
        self._policies: dict[object, L7Policy] = {}

    def word(self, selection: Selection, atoms: Sequence[Atom], *, localhost: bool) -> Word:
        """What rules that all hold the peer and the port come to.

        With `localhost` the peer is the host, which nothing but a deny rule keeps from a local endpoint.
        """
        for atom in atoms:
            if atom.deny and atom.entry is None:
                return Word(L4Kind.DENY, atom.ref, f"denied by {place(atom.ref)}")
        denied = _entries(atom for atom in atoms if atom.deny)
        opened = next((atom.ref for atom in atoms if not atom.deny and atom.entry is None), None)
        listed = () if localhost else _entries(atom for atom in atoms if not atom.deny)
        free = localhost or not selection.selected
        if not (listed or opened or free):
            return Word(L4Kind.DENY, None, f"default deny: no rule of {_names(selection)} allows this")
        judged = (*listed, *denied)
        if not judged:
            return Word(L4Kind.ALLOW, opened, _why_open(opened, selection, localhost))
        first = judged[0].ref
        other = next((entry for entry in judged if entry.protocol is not judged[0].protocol), None)
        if other is not None:
            # Whatever the port was read as, the rules of the other protocol would not be asked.
            return Word(L4Kind.DENY, first, clash(judged[0], other))
        lists = self._intern(listed, denied, opened, free)
        return Word(L4Kind.PROXY, first, f"every request is judged, {place(first)}", lists)

    def decision(self, enforced: Word, candidate: Word, selection: Selection) -> L4Decision:
        """One decision of two words: what is enforced counts, and what only the candidate denies is an audit.

        `selection` is the candidate's, which holds every policy.
        """
        if enforced.kind is L4Kind.DENY:
            return L4Decision(L4Kind.DENY, False, enforced.rule, _told(enforced, selection), selection.selected)
        audit = candidate.kind is L4Kind.DENY
        word = candidate if audit or enforced.rule is None else enforced
        rule, reason = word.rule, word.reason
        if audit:
            reason = f"audit mode, passes: {_told(candidate, selection)}"
        if enforced.kind is L4Kind.ALLOW and candidate.kind is not L4Kind.PROXY:
            return L4Decision(L4Kind.ALLOW, audit, rule, reason, selection.selected)
        first = self._lists_of(enforced)
        second = self._lists_of(candidate)
        policy = self._policy(selection, first, second)
        return L4Decision(L4Kind.PROXY, audit, rule, reason, selection.selected, policy)

    def _lists_of(self, word: Word) -> L7Lists:
        """A word as lists: what is open passes everything, what is denied refuses every request."""
        if word.lists is not None:
            return word.lists
        if word.kind is L4Kind.ALLOW:
            return self._keep(("allow", word.rule), L7Lists(allow_all=word.rule, open=True))
        return self._keep(("deny", word.rule), L7Lists(deny_all=word.rule))

    def _intern(
        self, allow: Sequence[PortRule], deny: Sequence[PortRule], allow_all: RuleRef | None, free: bool
    ) -> L7Lists:
        # Entries are kept alive by the policies, so their ids stay their own.
        key = (tuple(map(id, allow)), tuple(map(id, deny)), allow_all, free)
        found = self._lists.get(key)
        return found or self._keep(key, L7Lists(_rules(allow), _rules(deny), allow_all, free))

    def _keep(self, key: object, lists: L7Lists) -> L7Lists:
        return self._lists.setdefault(key, lists)

    def _policy(self, selection: Selection, enforced: L7Lists, candidate: L7Lists) -> L7Policy:
        key = (selection.direction, id(enforced), id(candidate))
        found = self._policies.get(key)
        if found is None:
            messages = _messages(selection, (enforced, candidate))
            found = self._policies[key] = L7Policy(selection.direction, enforced, candidate, messages)
        return found


def place(ref: RuleRef) -> str:
    """``policy default/api, ingress[0] (api.yaml:7)``."""
    return f"policy {ref.policy}, {ref.rule} ({ref.file}:{ref.line})"


def clash(one: PortRule, other: PortRule) -> str:
    """What is told of two entries that hold the same flows and are not of one protocol."""
    return f"{place(one.ref)} is for {one.protocol}, {place(other.ref)} for {other.protocol}: all is refused"


def _entries(atoms: Iterable[Atom]) -> tuple[PortRule, ...]:
    return tuple({id(atom.entry): atom.entry for atom in atoms if atom.entry is not None}.values())


def _rules(entries: Iterable[PortRule]) -> L7Rules:
    return tuple(rule for entry in entries for rule in entry.rules or ())


def _names(selection: Selection) -> str:
    """The policies that put the endpoint in default deny."""
    found = {p.name: p for p in selection.policies if selection.direction in p.default_deny}
    shown = ", ".join(f"{name} ({p.file}:{p.line})" for name, p in list(found.items())[:_NAMED])
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f"{'policy' if len(found) == 1 else 'policies'} {shown}{more}"


def _why_open(rule: RuleRef | None, selection: Selection, localhost: bool) -> str:
    if rule is not None:
        return f"allowed by {place(rule)}"
    if localhost:
        return "the host may reach its endpoints (allow_localhost)"
    return f"no policy puts the endpoint in default deny for {selection.direction}"


def _told(word: Word, selection: Selection) -> str:
    """A refusal's reason, with the text its policy has for it."""
    if word.rule is None:
        texts = [p.reason for p in selection.policies if p.reason and selection.direction in p.default_deny]
    else:
        texts = [p.reason for p in selection.policies if p.reason and p.name == word.rule.policy]
    return f"{word.reason}: {texts[0]}" if texts else word.reason


def _messages(selection: Selection, lists: Iterable[L7Lists]) -> dict[str, str]:
    texts = {policy.name: policy.reason for policy in selection.policies if policy.reason}
    if not texts:
        return {}
    named = {rule.ref.policy for one in lists for rule in (*one.allow, *one.deny)}
    named.update(one.deny_all.policy for one in lists if one.deny_all is not None)
    return {name: text for name, text in texts.items() if name in named}
