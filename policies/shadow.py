"""HTTP rules that decide nothing, because a wider rule of the same list allows all that they allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import TypeAlias

from policies.cover import covering_keys, own_key
from policies.model import HeaderMatch, HttpRule
from policies.patterns import literals

_MAX_HEADERS = 6
"""Header conditions of a rule whose every combination is looked up; beyond that only none and all of them."""

_Conditions: TypeAlias = frozenset[HeaderMatch]
_Key: TypeAlias = tuple[str | None, str, str | None, _Conditions]


def shadowed(rules: Sequence[HttpRule]) -> Iterator[tuple[HttpRule, HttpRule]]:
    """(rule, wider one) for each rule that another, wherever it stands in the list, makes useless.

    The look-up is by hash, so lists of thousands of rules are no trouble; what only an analysis of the expressions
    could show (``/[a-z]+`` holds ``/abc``) is not found.
    """
    first: dict[_Key, int] = {}
    for place, rule in enumerate(rules):
        for method in _methods(rule.method):
            first.setdefault((method, own_key(rule.path), rule.host, _conditions(rule)), place)
    for place, rule in enumerate(rules):
        wider = _wider(rule, place, first)
        if wider is not None:
            yield rule, rules[wider]


def _wider(rule: HttpRule, place: int, first: dict[_Key, int]) -> int | None:
    """The place of a rule that allows all of it, if every method it asks for has one (the last one's place)."""
    found: int | None = None
    for method in _methods(rule.method):
        found = _wider_for(rule, method, place, first)
        if found is None:
            return None
    return found


def _wider_for(rule: HttpRule, method: str | None, place: int, first: dict[_Key, int]) -> int | None:
    own = (method, own_key(rule.path), rule.host, _conditions(rule))
    choices = product(
        dict.fromkeys((None, method)),
        dict.fromkeys(covering_keys(rule.path)),
        dict.fromkeys((None, rule.host)),
        _subsets(_conditions(rule)),
    )
    for key in choices:
        other = first.get(key)
        if other is not None and other != place and (key != own or other < place):
            return other
    return None


def _methods(pattern: str | None) -> tuple[str | None, ...]:
    """The methods of a rule, each alone; an expression that is no list of methods stands for itself."""
    if pattern in (None, ".*"):
        return (None,)
    return literals(str(pattern)) or (f"={pattern}",)


def _conditions(rule: HttpRule) -> _Conditions:
    return frozenset(header for header in rule.headers if not header.log)


def _subsets(conditions: _Conditions) -> list[_Conditions]:
    sizes = range(len(conditions) + 1) if len(conditions) <= _MAX_HEADERS else (0, len(conditions))
    return [frozenset(some) for size in sizes for some in combinations(conditions, size)]
