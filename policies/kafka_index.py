"""The Kafka rules of one list, in tables: a look-up costs the same with ten rules and with ten thousand.

A rule that asks about topics allows what names none as well, but denies nothing that names none. So there is a table
for each combination of what a request may name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import TypeAlias

from parsers.facts import KafkaRequest
from parsers.kafka_schema import APIS
from policies import index
from policies.expressions import ANY, Expressions, of_glob, wire
from policies.kafka_apis import SWEEPING, Names, Scope, api_name, asked, scope
from policies.model import KafkaRule
from policies.patterns import Style

Entry: TypeAlias = index.Entry[KafkaRule]
_Key: TypeAlias = tuple[int, int | None, str | None, int, int, int]
"""The numbers of a scope, a version, a client, and of topic, group and transaction; None and ANY: any."""

_SHOWN = 200
"""Characters of a name that a reason quotes."""
_SHAPES = tuple(map(Names, range(8)))


class KafkaIndex:
    """The rules of one list (see `policies.index.Index`). Of several that hold a request the first is found."""

    header_names: frozenset[str] = frozenset()
    remarks = False

    def __init__(self, rules: Sequence[KafkaRule], deny: bool = False) -> None:
        """Raises PatternError."""
        self._deny = deny
        self._topics, self._groups, self._transactions = (Expressions(Style()) for _ in range(3))
        self._scopes: dict[Scope, int] = {}
        self._asked = Names(0)
        for rule in rules:
            self._asked |= asked(rule)
        self._versions = frozenset(rule.version for rule in rules if rule.version is not None)
        self._clients = frozenset(rule.client_id for rule in rules if rule.client_id is not None)
        # Shapes that differ only in what no rule asks about share a table.
        tables: Mapping[Names, dict[_Key, Entry]] = {shape: {} for shape in _SHAPES if shape in self._asked}
        for order, rule in enumerate(rules):
            self._add(Entry(rule, order), tables)
        self._tables = tuple(tables[shape & self._asked] for shape in _SHAPES)
        self._held: dict[tuple[int, int], tuple[int, ...]] = {}
        self._sweeping = [Entry(rule, order) for order, rule in enumerate(rules) if deny and asked(rule) is Names.TOPIC]
        for expressions in (self._topics, self._groups, self._transactions):
            expressions.compile()

    def _add(self, entry: Entry, tables: Mapping[Names, dict[_Key, Entry]]) -> None:
        rule, names = entry.rule, asked(entry.rule)
        number = self._scopes.setdefault(scope(rule, deny=self._deny), len(self._scopes))
        topics, groups = _numbers(self._topics, rule.topics), _numbers(self._groups, rule.groups)
        transactions = _numbers(self._transactions, rule.transactional_ids)
        for shape, table in tables.items():
            if self._deny and names & ~shape:
                continue
            for topic, group, transaction in product(
                topics if Names.TOPIC in shape else (ANY,),
                groups if Names.GROUP in shape else (ANY,),
                transactions if Names.TRANSACTION in shape else (ANY,),
            ):
                table.setdefault((number, rule.version, rule.client_id, topic, group, transaction), entry)

    def find(self, request: KafkaRequest) -> Entry | None:
        """The rule that holds the request, the first in the order of the files."""
        topic, group, transaction = request.topic, request.group, request.transactional_id
        shape = (topic is not None) | (group is not None) << 1 | (transaction is not None) << 2
        held = self._held.get((request.api, shape))
        if held is None:
            held = self._scopes_of(request.api, shape)
        table, best = self._tables[shape], None
        for key in product(
            held,
            (None, request.version) if request.version in self._versions else (None,),
            (None, request.client_id) if request.client_id in self._clients else (None,),
            (ANY,) if topic is None else self._topics.ids((wire(topic),)),
            (ANY,) if group is None else self._groups.ids((wire(group),)),
            (ANY,) if transaction is None else self._transactions.ids((wire(transaction),)),
        ):
            entry = table.get(key)
            if entry is not None and (best is None or entry.order < best.order):
                best = entry
        if self._sweeping and request.every_topic and request.api in SWEEPING:
            best = self._swept(request, best)
        return best

    def _swept(self, request: KafkaRequest, best: Entry | None) -> Entry | None:
        """The first deny rule on topics, whichever, for a request that changes them all."""
        for entry in self._sweeping:
            rule, apis = entry.rule, scope(entry.rule, deny=True).apis
            about = apis is None or request.api in apis
            if about and rule.version in (None, request.version) and rule.client_id in (None, request.client_id):
                return entry if best is None or entry.order < best.order else best
        return best

    def _scopes_of(self, api: int, shape: int) -> tuple[int, ...]:
        """The numbers of the scopes that hold such a request."""
        found = tuple(number for one, number in self._scopes.items() if one.holds(api, Names(shape)))
        if api in APIS:
            self._held[api, shape] = found
        return found

    def remark(self, entry: Entry, request: KafkaRequest) -> str:
        """Nothing."""
        return ""

    @staticmethod
    def told(request: KafkaRequest) -> str:
        """``Produce 9, topic 'orders', client 'app'``."""
        names = (
            ("topic", request.topic),
            ("group", request.group),
            ("transactional id", request.transactional_id),
            ("client", request.client_id or None),
        )
        shown = [f"{what} {name[:_SHOWN]!r}" for what, name in names if name is not None]
        return ", ".join([f"{api_name(request.api)} {request.version}", *shown])


def _numbers(expressions: Expressions, globs: Iterable[str] | None) -> Sequence[int]:
    """The numbers that stand for a rule's globs; ANY alone if it asks for none."""
    if globs is None:
        return (ANY,)
    return [number for glob in globs for number in expressions.add(None if glob == "*" else of_glob(glob))]
