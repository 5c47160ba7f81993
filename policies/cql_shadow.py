"""CQL rules that decide nothing, because a wider rule of the same list holds all that they hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TypeAlias

from policies import globs
from policies.cql_actions import held_actions
from policies.model import CqlRule

_Key: TypeAlias = tuple[object, ...]
"""Actions, pattern, keyspaces and tables."""


def shadowed(rules: Sequence[CqlRule], deny: bool = False) -> Iterator[tuple[CqlRule, CqlRule]]:
    """(rule, wider one) for each rule that another, wherever it stands in the list, makes useless. `deny`: they are
    deny rules.

    The look-up is by hash, as in `policies.shadow`.
    """
    scopes = [held_actions(rule, deny=deny) for rule in rules]
    first: dict[_Key, int] = {}
    for place, rule in enumerate(rules):
        for names in product(*map(globs.own, _fields(rule))):
            first.setdefault((scopes[place], rule.pattern, *names), place)
    stems = [globs.stems(column) for column in zip(*map(_fields, rules), strict=True)]
    distinct = dict.fromkeys(scopes)
    covering = {one: [other for other in distinct if one <= other] for one in distinct}
    for place, rule in enumerate(rules):
        same = (scopes[place], rule.pattern, *map(globs.whole, _fields(rule)))
        keys = product(
            covering[scopes[place]],
            dict.fromkeys((None, rule.pattern)),
            *map(globs.wider, _fields(rule), stems),
        )
        wider = globs.find(keys, same, place, first)
        if wider is not None:
            yield rule, rules[wider]


def _fields(rule: CqlRule) -> tuple[globs.Globs, ...]:
    return rule.keyspaces, rule.tables
