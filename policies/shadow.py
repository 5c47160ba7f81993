"""HTTP and gRPC rules that decide nothing, because a wider rule of the same list allows all that they allow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, combinations, product
from typing import TypeAlias

from policies.cover import covering_keys, own_key
from policies.model import GrpcCall, HeaderMatch, HttpRule
from policies.patterns import literals

_MAX_HEADERS = 6
"""Header conditions of a rule whose every combination is looked up; beyond that only none and all of them."""

_Conditions: TypeAlias = frozenset[HeaderMatch]
_Key: TypeAlias = tuple[bool, str | None, str, str | None, _Conditions]
"""False, method, path, host; or, of a gRPC rule, True, service, method, None. A path or method is as in `own_key`."""


def shadowed(rules: Sequence[HttpRule], deny: bool = False) -> Iterator[tuple[HttpRule, HttpRule]]:
    """(rule, wider one) for each rule that another, wherever it stands in the list, makes useless. `deny`: they are
    deny rules.

    The look-up is by hash, so lists of thousands of rules are no trouble; what only an analysis of the expressions
    could show (``/[a-z]+`` holds ``/abc``) is not found.
    """
    first: dict[_Key, int] = {}
    for place, rule in enumerate(rules):
        for key in _own(rule):
            first.setdefault(key, place)
    for place, rule in enumerate(rules):
        wider = _wider(rule, place, first, deny)
        if wider is not None:
            yield rule, rules[wider]


def _own(rule: HttpRule) -> Iterator[_Key]:
    if rule.grpc is not None:
        yield True, rule.grpc.service, own_key(rule.grpc.method), None, _conditions(rule)
        return
    for method in _methods(rule.method):
        yield False, method, own_key(rule.path), rule.host, _conditions(rule)


def _wider(rule: HttpRule, place: int, first: dict[_Key, int], deny: bool) -> int | None:
    """The place of a rule that holds all of it, if every method it asks for has one (the last one's place)."""
    found: int | None = None
    for own in _own(rule):
        keys = _wider_keys(rule, own[1]) if rule.grpc is None else _wider_calls(rule, rule.grpc, deny)
        found = _find(keys, own, place, first)
        if found is None:
            return None
    return found


def _find(keys: Iterable[_Key], own: _Key, place: int, first: dict[_Key, int]) -> int | None:
    for key in keys:
        other = first.get(key)
        if other is not None and other != place and (key != own or other < place):
            return other
    return None


def _wider_keys(rule: HttpRule, method: str | None) -> Iterable[_Key]:
    methods, hosts = dict.fromkeys((None, method)), dict.fromkeys((None, rule.host))
    return product((False,), methods, dict.fromkeys(covering_keys(rule.path)), hosts, _subsets(_conditions(rule)))


def _wider_calls(rule: HttpRule, call: GrpcCall, deny: bool) -> Iterable[_Key]:
    """gRPC rules and, to allow, HTTP rules. To deny, a gRPC rule holds more spellings than any HTTP rule."""
    services, subsets = dict.fromkeys((None, call.service)), _subsets(_conditions(rule))
    calls = product((True,), services, dict.fromkeys(covering_keys(call.method)), (None,), subsets)
    if deny:
        return calls
    paths = dict.fromkeys(covering_keys(_path(call)))
    return chain(calls, product((False,), (None, "POST"), paths, (None,), subsets))


def _path(call: GrpcCall) -> str:
    """An expression for the paths of calls, as far as it tells what they begin with."""
    if call.service is None:
        return "/.+"
    plain = call.method is not None and "|" not in call.method
    return f"/{re.escape(call.service)}/{call.method if plain else '.+'}"


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
