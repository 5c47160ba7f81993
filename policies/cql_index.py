"""The CQL rules of one list, in tables: a look-up costs the same with ten rules and with ten thousand.

An allow rule holds only what names all that it asks about. A deny rule, which must not be slipped past, also holds
what is about more than it names: DROP KEYSPACE, GRANT, DESCRIBE and the like are about every table below (see
`policies.cql_actions.SWEEPING`), a table without a keyspace may be of any, and a statement that cannot be read may be
whatever is denied.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import product
from typing import TypeAlias

from parsers.facts import ACTIONS, UNKNOWN, CqlRequest
from policies import index
from policies.cql_actions import SWEEPING, USE, held_actions
from policies.expressions import ANY, Expressions, of_glob, of_search, wire
from policies.model import CqlRule
from policies.patterns import Style

Entry: TypeAlias = index.Entry[CqlRule]
_Key: TypeAlias = tuple[int, int, int, int]
"""The numbers of a set of actions, and of keyspace, table and pattern; ANY: any."""

_SHOWN = 200
"""Characters of a name that a reason quotes."""
_PLAIN = re.compile(r"[a-z][a-z0-9_]*")
_USE = frozenset((USE,))


class CqlIndex:
    """The rules of one list (see `policies.index.Index`). Of several that hold a request the first is found."""

    header_names: frozenset[str] = frozenset()
    remarks = False

    def __init__(self, rules: Sequence[CqlRule], deny: bool = False) -> None:
        """Raises PatternError."""
        self._deny = deny
        self._keyspaces, self._tables, self._names = (Expressions(Style()) for _ in range(3))
        self._scopes: dict[frozenset[str], int] = {}
        self._rules: dict[_Key, Entry] = {}
        # What deny rules come to for a request that leaves out the keyspace, the table, or both.
        self._swept: dict[tuple[bool, bool], dict[_Key, Entry]] = {
            shape: {} for shape in ((False, True), (True, False), (False, False)) if deny
        }
        self._first = Entry(rules[0], 0) if deny and rules else None
        for order, rule in enumerate(rules):
            self._add(Entry(rule, order))
        self._patterned = any(rule.pattern is not None for rule in rules)
        self._held = {
            action: tuple(number for actions, number in self._scopes.items() if action in actions) for action in ACTIONS
        }
        for expressions in (self._keyspaces, self._tables, self._names):
            expressions.compile()

    def _add(self, entry: Entry) -> None:
        rule, actions = entry.rule, held_actions(entry.rule, deny=self._deny)
        keyspaces, tables = _numbers(self._keyspaces, rule.keyspaces), _numbers(self._tables, rule.tables)
        patterns: Sequence[int] = (ANY,)
        if rule.pattern is not None:
            patterns = self._names.add(of_search(rule.pattern))
            if USE in actions:
                self._rules.setdefault((self._scope(_USE), ANY, ANY, ANY), entry)
        scope = (self._scope(actions),)
        for key in product(scope, keyspaces, tables, patterns):
            self._rules.setdefault(key, entry)
        for (keyspace, table), swept in self._swept.items():
            parts = (keyspaces if keyspace else (ANY,), tables if table else (ANY,), (ANY,))
            for key in product(scope, *parts):
                swept.setdefault(key, entry)

    def _scope(self, actions: frozenset[str]) -> int:
        return self._scopes.setdefault(actions, len(self._scopes))

    def find(self, request: CqlRequest) -> Entry | None:
        """The rule that holds the request, the first in the order of the files."""
        keyspace, table, rules = request.keyspace, request.table, self._rules
        held = self._held.get(request.action)
        if self._deny:
            if held is None or request.action == UNKNOWN:
                return self._first
            if request.action in SWEEPING or (keyspace is None and table is not None):
                rules = self._swept.get((keyspace is not None, table is not None), rules)
        best: Entry | None = None
        for key in product(
            held or (),
            (ANY,) if keyspace is None else self._keyspaces.ids((wire(keyspace),)),
            (ANY,) if table is None else self._tables.ids((wire(table),)),
            self._names.ids(_qualified(keyspace, table)) if self._patterned else (ANY,),
        ):
            entry = rules.get(key)
            if entry is not None and (best is None or entry.order < best.order):
                best = entry
        return best

    def remark(self, entry: Entry, request: CqlRequest) -> str:
        """Nothing."""
        return ""

    @staticmethod
    def told(request: CqlRequest) -> str:
        """``select on shop.orders``, ``use of keyspace shop``, ``list-roles``: names as CQL writes them."""
        keyspace, table = request.keyspace, request.table
        if request.action == UNKNOWN:
            return "a statement that cannot be read"
        if table is not None:
            where = " (of no keyspace)" if keyspace is None else ""
            return f"{request.action} on {'' if keyspace is None else f'{_quoted(keyspace)}.'}{_quoted(table)}{where}"
        return request.action if keyspace is None else f"{request.action} of keyspace {_quoted(keyspace)}"


def _qualified(keyspace: str | None, table: str | None) -> Sequence[str]:
    """What ``query_table`` is asked of."""
    if table is not None:
        return (wire(f"{keyspace or ''}.{table}"),)
    return () if keyspace is None else (wire(keyspace),)


def _numbers(expressions: Expressions, globs: Iterable[str] | None) -> Sequence[int]:
    """The numbers that stand for a rule's globs; ANY alone if it asks for none.

    ``*`` is not ANY: what has no name is not held.
    """
    if globs is None:
        return (ANY,)
    return [number for glob in globs for number in expressions.add(of_glob(glob))]


def _quoted(name: str) -> str:
    if _PLAIN.fullmatch(name):
        return name[:_SHOWN]
    return '"' + name[:_SHOWN].replace('"', '""') + '"'
