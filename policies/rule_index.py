"""HTTP rules indexed by what they ask, so that a look-up costs the same with ten rules and with ten thousand.

Method, path and host of a request become the numbers of the expressions that match them (literals by hash, the rest
by one RE2 set a field); the rules stand in a table by those three numbers, and in it by the value of a header.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from parsers.facts import HttpRequest
from policies.model import HttpRule
from policies.patterns import PatternSet, Style, literals

_PARAMETERS = re.compile(r";[^/]*")
_PORT = re.compile(r":[0-9]*\Z")
_ANY = 0
"""The number that stands for a field a rule does not ask about."""


@dataclass(slots=True, eq=False)
class Entry:
    """A rule and its place in the order of the files."""

    rule: HttpRule
    order: int

    @property
    def keys(self) -> list[tuple[str, str]]:
        """The headers that must have a value, as (name, value)."""
        return [(h.name, _wire(h.value)) for h in self.rule.headers if not h.log and h.value is not None]


class RuleIndex:
    """The rules of one list. With `deny`, requests are asked in every form a server might read them in, so that no
    other spelling gets past (see `path_forms`, `host_forms` and `HeaderView`)."""

    def __init__(self, rules: Sequence[HttpRule], *, deny: bool = False) -> None:
        """Raises PatternError."""
        self._deny = deny
        self._methods, self._paths = _Field(Style(deny)), _Field(Style(deny))
        self._hosts = _Field(Style(deny, fold=deny))
        self._table: dict[tuple[int, int, int], _Bucket] = {}
        self._exact: dict[tuple[str, str], Entry] = {}
        self.header_names = frozenset(header.name for rule in rules for header in rule.headers)
        for order, rule in enumerate(rules):
            self._add(Entry(rule, order))
        for one in (self._methods, self._paths, self._hosts):
            one.compile()

    def _add(self, entry: Entry) -> None:
        rule = entry.rule
        for method in self._methods.add(rule.method):
            for path in self._paths.add(rule.path):
                for host in self._hosts.add(rule.host):
                    self._table.setdefault((method, path, host), _Bucket()).add(entry)
        if self._deny or rule.method is None or rule.path is None or rule.host is not None or rule.headers:
            return
        for text in literals(rule.method) or ():
            for target in literals(rule.path) or ():
                self._exact.setdefault((_wire(text), _wire(target)), entry)

    def find(self, request: HttpRequest) -> Entry | None:
        """The rule that matches: a wholly literal one if there is one, else the first in the order of the files."""
        exact = self._exact.get((request.method, request.path))
        if exact is not None:
            return exact
        paths = path_forms(request.path) if self._deny else (request.path,)
        hosts = host_forms(request.host) if self._deny else (request.host,)
        return self._search(request, paths, hosts)

    def _search(self, request: HttpRequest, paths: Sequence[str], hosts: Sequence[str]) -> Entry | None:
        best: Entry | None = None
        view = HeaderView(request, self.header_names, self._deny)
        host_ids = self._hosts.ids(hosts)
        path_ids = self._paths.ids(paths)
        table = self._table
        for method in self._methods.ids((request.method,)):
            for path in path_ids:
                for host in host_ids:
                    bucket = table.get((method, path, host))
                    if bucket is not None:
                        best = _first(best, bucket.find(view))
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
        return bool(values) if value is None else _wire(value) in values


def path_forms(path: str) -> Sequence[str]:
    """What a server may take a path in normal form for: itself, without its query, with every escape decoded, and
    without path parameters (``;x``)."""
    plain = path.partition("?")[0]
    forms = [path, plain]
    if "%" in plain:
        forms.append(unquote(plain, "latin-1"))
    if ";" in plain or "%" in plain:
        forms += [_PARAMETERS.sub("", form) for form in forms[1:]]
    return tuple(dict.fromkeys(forms))


def host_forms(host: str) -> Sequence[str]:
    """What a server may take an authority for: itself, without its port, and without a final dot. In lower case."""
    text = host.lower()
    plain = _PORT.sub("", text)
    return tuple(dict.fromkeys((text, plain, plain.removesuffix("."))))


@dataclass(slots=True)
class _Bucket:
    """Rules that ask the same of method, path and host. `plain` is the first that asks nothing more."""

    plain: Entry | None = None
    keyed: dict[tuple[str, str], list[Entry]] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)
    rest: list[Entry] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        keys = entry.keys
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


class _Field:
    """One field's expressions: a text becomes the numbers of those that match it, `_ANY` among them."""

    __slots__ = ("_literals", "_numbers", "_patterns", "_regexes", "_set", "_style")

    def __init__(self, style: Style) -> None:
        self._style = style
        self._literals: dict[str, int] = {}
        self._patterns: dict[str, int] = {}
        self._numbers: list[int] = []
        self._set: PatternSet | None = None

    def add(self, pattern: str | None) -> tuple[int, ...]:
        """The numbers that will stand for an expression (one for each text it can match, if those can be told)."""
        if pattern is None:
            return (_ANY,)
        texts = literals(pattern)
        if texts is None:
            return (self._patterns.setdefault(pattern, self._next()),)
        folded = (_wire(text.lower() if self._style.fold else text) for text in texts)
        return tuple(self._literals.setdefault(text, self._next()) for text in dict.fromkeys(folded))

    def _next(self) -> int:
        return len(self._literals) + len(self._patterns) + 1

    def compile(self) -> None:
        """To be called once, when all expressions are there."""
        if self._patterns:
            self._set = PatternSet(list(self._patterns), self._style)
            self._numbers = list(self._patterns.values())

    def ids(self, texts: Sequence[str]) -> Iterable[int]:
        """The numbers that hold for any of the texts."""
        found = [_ANY]
        for text in texts:
            number = self._literals.get(text)
            if number is not None:
                found.append(number)
            if self._set is not None:
                found += [self._numbers[place] for place in self._set.match(text.encode("latin-1"))]
        return found if len(texts) == 1 else dict.fromkeys(found)


def _first(one: Entry | None, other: Entry | None) -> Entry | None:
    if one is None or other is None:
        return one or other
    return one if one.order < other.order else other


def _wire(text: str) -> str:
    """A policy's text as a request has it: its UTF-8 bytes, read as latin-1."""
    return text if text.isascii() else text.encode().decode("latin-1")
