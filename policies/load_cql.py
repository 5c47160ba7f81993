"""``rules.cql`` of policy files, which is our own, and Cilium's ``l7proto: cassandra`` with its ``l7``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from policies.cql_actions import CILIUM_ACTIONS, CILIUM_TABLELESS, USE, find_actions, unknown_action
from policies.document import Node
from policies.expressions import of_search
from policies.load_fields import Reader
from policies.load_http import HttpReader, complaint
from policies.model import CqlRule, L7Protocol
from policies.patterns import Style

_NAME = re.compile(r"[A-Za-z0-9_*?]+")
_LONGEST = 222
"""Characters of a name: Cassandra's own limit for files is below that."""


def cql_rules(reader: Reader, node: Node, deny: bool) -> tuple[CqlRule, ...]:
    """The rules of one list, for allow or deny rules, which are written alike."""
    return tuple(_rule(reader, item) for item in reader.items(node))


def _rule(reader: Reader, node: Node) -> CqlRule:
    fields = reader.mapping(node, ("action", "keyspace", "table"))
    actions: set[str] = set()
    for item in _texts(reader, fields, "action"):
        found = find_actions(item.value)
        if found is None:
            reader.fault(item, unknown_action(item.value))
        actions |= found or set()
    names = (_globs(reader, fields, "keyspace"), _globs(reader, fields, "table"))
    return CqlRule(frozenset(actions) if "action" in fields else None, *names, None, reader.ref(node))


def _globs(reader: Reader, fields: Mapping[str, Node], key: str) -> tuple[str, ...] | None:
    found = []
    for item in _texts(reader, fields, key):
        text: str = item.value
        if not _NAME.fullmatch(text) or len(text) > _LONGEST:
            reader.fault(item, f"no {key} is named {text[:100]!r}: {_hint(key, text)}")
        found.append(text)
    return tuple(dict.fromkeys(found)) if key in fields else None


def _hint(key: str, text: str) -> str:
    keyspace, dot, table = text.partition(".")
    if dot and key == "table" and _NAME.fullmatch(keyspace) and _NAME.fullmatch(table):
        return f"write keyspace: {keyspace!r}, table: {table!r}"
    if text.startswith('"'):
        return "names stand without quotation marks here, and are compared with their case"
    return f"names are of A-Z, a-z, 0-9 and _, with * and ?, and have at most {_LONGEST} characters"


def _texts(reader: Reader, fields: Mapping[str, Node], key: str) -> list[Node]:
    """The texts of a field, which is one or a list of them."""
    node = fields.get(key)
    if node is None:
        return []
    if node.value == []:
        reader.fault(node, f"an empty list holds nothing: leave {key} out for any")
    items = node.value if isinstance(node.value, list) else [node]
    texts = []
    for item in items:
        text = reader.text(item)
        if text == "":
            reader.fault(item, f"an empty text is no {key}")
        elif text is not None:
            texts.append(item)
    return texts


def l7_rules(http: HttpReader, lists: Mapping[str, Node], node: Node, deny: bool) -> tuple[CqlRule, ...]:
    """The rules of ``l7``, as far as Cilium's parser for Cassandra takes them. `lists` are the children of `node`."""
    reader = http.reader
    proto, listed = lists.get("l7proto"), lists.get("l7")
    if proto is None or listed is None:
        other = "l7proto: cassandra" if proto is None else "l7 (`l7: [{}]` allows every statement)"
        reader.fault(node, f"{' and '.join(lists)} needs {other} beside it")
        return ()
    name = reader.text(proto)
    if name is not None and name != L7Protocol.CASSANDRA:
        reader.fault(proto, f"not supported: l7proto {name[:100]!r} (only {L7Protocol.CASSANDRA} is)")
        return ()
    if deny:
        reader.fault(listed, "not supported: l7 in a deny rule (write rules.cql)")
    return tuple(_l7_rule(http, item) for item in reader.items(listed))


def _l7_rule(http: HttpReader, node: Node) -> CqlRule:
    """USE always passes in Cilium, which every rule here allows as well."""
    reader = http.reader
    fields = reader.mapping(node, ("query_action", "query_table"))
    action, pattern = _cilium_action(reader, fields.get("query_action")), _pattern(http, fields.get("query_table"))
    if pattern is not None and action in CILIUM_TABLELESS:
        text = f"query_table cannot stand beside query_action {action}, for Cilium either"
        reader.fault(node, f"{text} (write rules.cql)")
    actions = None if action is None else frozenset(("truncate" if action == "truncate-table" else action, USE))
    return CqlRule(actions, None, None, pattern, reader.ref(node))


def _pattern(http: HttpReader, node: Node | None) -> str | None:
    """An expression that is one with more around it, too: ``\\Q`` without its end is none."""
    before = len(http.reader.problems)
    pattern = http.pattern(node, False)
    if node is None or pattern is None or len(http.reader.problems) > before:
        return pattern
    told = None if "\\Q" not in pattern else "\\Q (escape each character)"
    told = told or complaint(of_search(pattern), Style())
    if told is not None:
        http.reader.fault(node, f"not supported in query_table: {told}")
    return pattern


def _cilium_action(reader: Reader, node: Node | None) -> str | None:
    text = reader.text(node)
    if node is None or not text:
        return None
    known = CILIUM_ACTIONS | CILIUM_TABLELESS
    if text in known:
        return text
    close = difflib.get_close_matches(text.lower(), sorted(known), 1)
    hint = f", did you mean {close[0]}?" if close else " (rules.cql has more)"
    reader.fault(node, f"Cilium knows no query_action {text[:100]!r}{hint}")
    return None
