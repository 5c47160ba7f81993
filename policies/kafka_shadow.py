"""Kafka rules that decide nothing, because a wider rule of the same list holds all that they hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import TypeAlias

from policies.kafka_apis import scope
from policies.model import KafkaRule

_Names: TypeAlias = frozenset[str] | str | None
"""All globs of a field; one of them; or any name."""
_Key: TypeAlias = tuple[object, ...]
"""Scope, version, client, topics, groups and transactional ids."""


def shadowed(rules: Sequence[KafkaRule], deny: bool = False) -> Iterator[tuple[KafkaRule, KafkaRule]]:
    """(rule, wider one) for each rule that another, wherever it stands in the list, makes useless. `deny`: they are
    deny rules.

    The look-up is by hash, as in `policies.shadow`: of globs only ``a*`` is known to hold ``abc`` and ``ab*``.
    """
    scopes = [scope(rule, deny=deny) for rule in rules]
    first: dict[_Key, int] = {}
    for place, rule in enumerate(rules):
        for names in product(*map(_own, _fields(rule))):
            first.setdefault((scopes[place], rule.version, rule.client_id, *names), place)
    stems = [_stems(rules, field) for field in range(3)]
    distinct = dict.fromkeys(scopes)
    covering = {one: [other for other in distinct if other.covers(one)] for one in distinct}
    for place, rule in enumerate(rules):
        own = (scopes[place], rule.version, rule.client_id, *map(_whole, _fields(rule)))
        keys = product(
            covering[scopes[place]],
            dict.fromkeys((None, rule.version)),
            dict.fromkeys((None, rule.client_id)),
            *(_wider(globs, known) for globs, known in zip(_fields(rule), stems, strict=True)),
        )
        wider = _find(keys, own, place, first)
        if wider is not None:
            yield rule, rules[wider]


def _fields(rule: KafkaRule) -> tuple[tuple[str, ...] | None, ...]:
    return rule.topics, rule.groups, rule.transactional_ids


def _whole(globs: tuple[str, ...] | None) -> _Names:
    """All of a field, as it is entered and looked up."""
    if globs is None:
        return None
    return globs[0] if len(globs) == 1 else frozenset(globs)


def _own(globs: tuple[str, ...] | None) -> Iterable[_Names]:
    """What a field is entered as: a list of globs holds what each of them does."""
    return dict.fromkeys((_whole(globs), *(globs or ())))


def _stems(rules: Sequence[KafkaRule], field: int) -> frozenset[str]:
    """The beginnings of names that rules hold whatever follows."""
    listed = (glob for rule in rules for glob in _fields(rule)[field] or ())
    return frozenset(glob[:-1] for glob in listed if glob.endswith("*") and not set(glob[:-1]) & set("*?"))


def _wider(globs: tuple[str, ...] | None, stems: frozenset[str]) -> Iterable[_Names]:
    """What may be entered for a field that holds all of this one."""
    found: dict[_Names, None] = {None: None}
    if globs is not None and len(globs) == 1:
        plain = globs[0].partition("*")[0].partition("?")[0]
        found.update((f"{plain[:end]}*", None) for end in range(len(plain) + 1) if plain[:end] in stems)
    found[_whole(globs)] = None
    return found


def _find(keys: Iterable[_Key], own: _Key, place: int, first: dict[_Key, int]) -> int | None:
    for key in keys:
        other = first.get(key)
        if other is not None and other != place and (key != own or other < place):
            return other
    return None
