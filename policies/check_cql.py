"""CQL rules that are likely mistakes: they hold nothing, or more or less than their author meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from parsers.facts import UNKNOWN, CqlRequest
from policies.check_grpc import Remark
from policies.cql_actions import (
    KEYSPACE_ACTIONS,
    MODIFY,
    SWEEPING,
    SYSTEM_TABLES,
    SYSTEM_TEXT,
    TABLE_ACTIONS,
    USE,
    held_actions,
)
from policies.cql_index import CqlIndex
from policies.model import CqlRule, Policy, PortRule
from policies.verdict import RuleRef

_OWN = "system_auth"
"""A keyspace of Cassandra's own: its roles and permissions."""
_LOOSE_DOT = re.compile(r"(?<=[A-Za-z0-9_])\.(?=[A-Za-z0-9_])")
_FIRST_READ = [
    CqlRequest("select", keyspace, table)
    for keyspace, tables in SYSTEM_TABLES.items()
    for table in sorted(tables or {"tables"})
]
_ON_ALL = TABLE_ACTIONS - {"describe"}


def cql_remarks(entry: PortRule, deny: bool) -> Iterator[tuple[RuleRef, Remark]]:
    """What is odd about the rules of one entry."""
    rules: Sequence[Any] = entry.rules or ()
    for rule in rules:
        for remark in (*_names(rule, deny), *(_deny(rule) if deny else _allow(rule)), *_pattern(rule)):
            yield rule.ref, remark


def _names(rule: CqlRule, deny: bool) -> Iterator[Remark]:
    asked = (("keyspace", rule.keyspaces, KEYSPACE_ACTIONS), ("table", rule.tables, TABLE_ACTIONS))
    actions = held_actions(rule, deny=deny)
    for key, globs, naming in asked:
        if globs is None:
            continue
        if not actions & (naming | SWEEPING if deny else naming):
            yield "warning", f"never matches: {_listed(actions)} names no {key}"
        elif key == "table" and not deny and rule.actions is not None and USE in rule.actions:
            yield "warning", "does not allow use, which names no table: write a rule of its own for it"
        for glob in globs:
            if glob != glob.lower():
                text = f"{key} {glob!r} holds only what was made in quotation marks"
                yield "note", f"{text}: Cassandra folds other names to lower case"


def _listed(actions: frozenset[str]) -> str:
    return min(actions) if len(actions) == 1 else f"none of {', '.join(sorted(actions)[:3])}..."


def _allow(rule: CqlRule) -> Iterator[Remark]:
    if rule.actions is not None and UNKNOWN in rule.actions:
        yield "warning", "allows what cannot be read, whatever it does: the other rules can then be got round"
    names = rule.keyspaces is not None or rule.tables is not None
    if rule.actions is None and names:
        text = "without an action it allows DROP, ALTER and GRANT, too"
        yield "note", f"{text}: write action: [select, modify] if that is not meant"
    if rule.pattern is not None:
        return
    held = CqlIndex([rule])
    actions = sorted(held_actions(rule, deny=False) & _ON_ALL)
    if not rule.asks_nothing and any(held.find(CqlRequest(action, _OWN, "roles")) for action in actions):
        yield "note", f"holds Cassandra's own keyspaces, such as {_OWN}, too: name the keyspaces that are meant"


def _deny(rule: CqlRule) -> Iterator[Remark]:
    if rule.actions is not None and rule.actions >= MODIFY and "truncate" not in rule.actions:
        yield "note", "leaves truncate, which empties a table"


def _pattern(rule: CqlRule) -> Iterator[Remark]:
    """Of Cilium's ``query_table``."""
    pattern = rule.pattern
    if pattern is None:
        return
    if not (pattern.startswith("^") and pattern.endswith("$")):
        text = f"query_table {pattern!r} is looked for anywhere in keyspace.table"
        yield "note", f"{text}: write ^ before it and $ behind it if the whole name is meant"
    if _LOOSE_DOT.search(pattern):
        meant = _LOOSE_DOT.sub(r"\\.", pattern)
        yield "note", f"query_table {pattern!r} has a dot that holds any character: write {meant}"
    if rule.actions is None:
        text = "without query_action it allows what names such a table, DROP and GRANT among it"
        yield "note", f"{text}, and nothing that names none, which to Cilium it allows"


def start_remarks(policies: Sequence[Policy], *, system_tables: bool) -> Iterator[tuple[RuleRef, Remark]]:
    """Whether drivers can begin: one note for each policy whose CQL rules allow something."""
    for policy in policies:
        listed = [
            (entry, rule)
            for one in policy.rules
            for entry in one.ports or ()
            for rule in entry.rules or ()
            if not one.deny and isinstance(rule, CqlRule)
        ]
        texts = list(_start([rule for _, rule in listed], system_tables)) if listed else ()
        if texts:
            yield listed[0][0].ref, ("note", "; ".join(texts))


def _start(rules: Sequence[CqlRule], system_tables: bool) -> Iterator[str]:
    held = CqlIndex(rules)
    if not all(held.find(probe) for probe in _FIRST_READ):
        if system_tables:
            yield f"SELECT on {SYSTEM_TEXT} is allowed as well (cassandra.system_tables of node.yaml)"
        else:
            yield f"no rule here allows SELECT on {SYSTEM_TEXT}, which drivers read when they connect"
    if not any(USE in held_actions(rule, deny=False) and rule.tables is None for rule in rules):
        yield "no rule here allows use, which sets the keyspace of a session"
