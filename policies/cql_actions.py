"""What CQL statements do, as policies see it: groups of actions, what each names, and what drivers need to start."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from parsers.facts import ACTIONS, UNKNOWN, CqlRequest
from policies.model import CqlRule


def _actions(words: str) -> frozenset[str]:
    return frozenset(words.split())


USE = "use"
MODIFY = _actions("insert update delete")
GROUPS: Mapping[str, frozenset[str]] = {
    "modify": MODIFY,
    **{
        verb: frozenset(action for action in ACTIONS if action.startswith(f"{verb}-"))
        for verb in ("create", "alter", "drop", "list", "grant", "revoke")
    },
}
"""What one word in a rule stands for."""
READABLE = frozenset(ACTIONS) - {UNKNOWN}
"""What an allow rule without actions holds."""

TABLE_ACTIONS = MODIFY | _actions(
    "select truncate describe create-table alter-table drop-table create-index create-trigger drop-trigger"
    " create-materialized-view alter-materialized-view drop-materialized-view"
    " grant-permission revoke-permission list-permissions"
)
"""What may name a table."""
KEYSPACE_ACTIONS = TABLE_ACTIONS | _actions(
    "use execute create-keyspace alter-keyspace drop-keyspace drop-index create-type alter-type drop-type"
    " create-function drop-function create-aggregate drop-aggregate"
)
"""What may name a keyspace."""
SWEEPING = _actions(
    "alter-keyspace drop-keyspace drop-index describe grant-permission revoke-permission list-permissions"
)
"""What is about every table of the keyspace that it names, and without one about everything there is."""

SYSTEM_TABLES: Mapping[str, frozenset[str] | None] = {
    "system": _actions("local peers peers_v2"),
    "system_schema": None,
    "system_virtual_schema": None,
}
"""What drivers read when they connect: tables by keyspace, None for all. Superusers may write these, so this is for
SELECT alone."""
_SYSTEM_KEYSPACES: frozenset[str | None] = frozenset(SYSTEM_TABLES)
SYSTEM_TEXT = ", ".join(
    f"{keyspace}.{table}" for keyspace, tables in SYSTEM_TABLES.items() for table in sorted(tables or "*")
)

CILIUM_ACTIONS = _actions(
    "select insert update delete create-table drop-table alter-table truncate-table"
    " use create-keyspace alter-keyspace drop-keyspace"
)
"""Cilium's words for what has a table, or a keyspace in its place."""
CILIUM_TABLELESS = _actions(
    "drop-index create-index create-materialized-view drop-materialized-view"
    " create-role alter-role drop-role grant-role revoke-role list-roles"
    " grant-permission revoke-permission list-permissions create-user alter-user drop-user list-users"
    " create-function drop-function create-aggregate drop-aggregate create-type alter-type drop-type"
    " create-trigger drop-trigger"
)
"""Cilium's words for what has none to it, so that ``query_table`` may not stand beside them."""


def read_by_drivers(request: CqlRequest) -> bool:
    """Whether it only reads one of `SYSTEM_TABLES`."""
    if request.action != "select" or request.table is None or request.keyspace not in _SYSTEM_KEYSPACES:
        return False
    tables = SYSTEM_TABLES[str(request.keyspace)]
    return tables is None or request.table in tables


def held_actions(rule: CqlRule, *, deny: bool) -> frozenset[str]:
    """The actions that a rule is about."""
    if rule.actions is not None:
        return rule.actions
    return frozenset(ACTIONS) if deny else READABLE


def find_actions(word: str) -> frozenset[str] | None:
    """The actions that a word of a rule stands for, in any case."""
    word = word.lower()
    return frozenset((word,)) if word in ACTIONS else GROUPS.get(word)


def unknown_action(word: str) -> str:
    """What is told of an action that there is none of."""
    if word.lower() == "batch":
        return "no action is named 'batch': a batch is judged by what is in it"
    close = difflib.get_close_matches(word.lower(), (*ACTIONS, *GROUPS), 1)
    hint = f", did you mean {close[0]}?" if close else f" (such as select, create-table; or {', '.join(GROUPS)})"
    return f"no action is named {word[:100]!r}{hint}"
