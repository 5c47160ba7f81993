"""Rules in a table, so that a look-up costs the same with ten rules and with ten thousand.

What a request says in each of some fields becomes the numbers of the expressions that match it (literals by hash, the
rest by one RE2 set a field); the rules stand in a table by these numbers, and in it by the value of a header.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TypeAlias

from parsers.facts import HttpRequest
from policies import index
from policies.expressions import Expressions, wire
from policies.model import HttpRule
from policies.patterns import Style

Entry: TypeAlias = index.Entry[HttpRule]


class Table:
    """Rules by what they ask of some fields, one expression (or None: any) for each."""

    __slots__ = ("_fields", "_rows")

    def __init__(self, *styles: Style) -> None:
        """One style a field. Texts of a field that folds case are to be given in lower case."""
        self._fields = tuple(map(Expressions, styles))
        self._rows: dict[tuple[int, ...], _Bucket] = {}

    def __bool__(self) -> bool:
        return bool(self._rows)

    def add(self, entry: Entry, *patterns: str | None) -> None:
        """Enter a rule under its expressions."""
        for key in product(*(one.add(pattern) for one, pattern in zip(self._fields, patterns, strict=True))):
            self._rows.setdefault(key, _Bucket()).add(entry)

    def compile(self) -> None:
        """To be called once, when all rules are there. Raises PatternError."""
        for one in self._fields:
            one.compile()

    def find(self, view: HeaderView, *texts: Sequence[str]) -> Entry | None:
        """The first rule, in the order of the files, that matches one of the texts of every field."""
        best: Entry | None = None
        rows = self._rows
        for key in product(*[one.ids(some) for one, some in zip(self._fields, texts, strict=True)]):
            bucket = rows.get(key)
            if bucket is not None:
                best = first_of(best, bucket.find(view))
        return best


class HeaderView:
    """The header values of a request that rules ask about.

    For allow rules, repeated fields are one value joined by ``,`` (as Cilium's Envoy compares them). For deny rules
    each field and each member of a comma-separated list counts as well.
    """

    __slots__ = ("_deny", "_names", "_request", "_values")

    def __init__(self, request: HttpRequest, names: frozenset[str], deny: bool) -> None:
        self._request, self._names, self._deny = request, names, deny
        self._values: dict[str, list[str]] | None = None

    def values(self, name: str) -> Sequence[str]:
        """What the header's value may be taken for; empty if it is not there."""
        if self._values is None:
            self._values = {}
            for key, value in self._request.headers:
                if key in self._names:
                    self._values.setdefault(key, []).append(value)
        fields = self._values.get(name)
        if fields is None:
            return ()
        joined = ",".join(fields)
        if not self._deny:
            return (joined,)
        return list(dict.fromkeys([joined, *fields, *(member.strip(" \t") for member in joined.split(","))]))

    def holds(self, rule: HttpRule) -> bool:
        """Whether every header condition of the rule that decides is met."""
        return all(h.log or self.has(h.name, h.value) for h in rule.headers)

    def has(self, name: str, value: str | None) -> bool:
        """Whether a header is there, with this value if one is given."""
        values = self.values(name)
        return bool(values) if value is None else wire(value) in values


@dataclass(slots=True)
class _Bucket:
    """Rules that ask the same of all fields. `plain` is the first that asks nothing more."""

    plain: Entry | None = None
    keyed: dict[tuple[str, str], list[Entry]] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)
    rest: list[Entry] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        keys = [(h.name, wire(h.value)) for h in entry.rule.headers if not h.log and h.value is not None]
        if keys:
            self.keyed.setdefault(keys[0], []).append(entry)
            self.names[keys[0][0]] = None
        elif any(not header.log for header in entry.rule.headers):
            self.rest.append(entry)
        elif self.plain is None:
            self.plain = entry

    def find(self, view: HeaderView) -> Entry | None:
        best = self.plain
        for entry in self._candidates(view):
            if (best is None or entry.order < best.order) and view.holds(entry.rule):
                best = entry
        return best

    def _candidates(self, view: HeaderView) -> Iterable[Entry]:
        for name in self.names:
            for value in view.values(name):
                yield from self.keyed.get((name, value), ())
        yield from self.rest


def first_of(one: Entry | None, other: Entry | None) -> Entry | None:
    """The one that stands first in the files."""
    if one is None or other is None:
        return one or other
    return one if one.order < other.order else other
