"""``rules.http`` of policy files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import re2

from policies.document import Node
from policies.load_fields import Reader
from policies.model import HeaderMatch, HttpRule
from policies.patterns import Style

_KEYS = frozenset(("method", "path", "host", "headers", "headerMatches"))
_UNREADABLE = "there is no Kubernetes API to read it from"
_CHANGES = "l7proxy forwards every request byte for byte and changes no header"
_MAX_PATTERN = 8192


class HttpReader:
    """Reads HTTP rules, and what gRPC rules have in common with them. `reader` is told of faults. Expressions that come
    again and again are compiled once."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._known: dict[tuple[str, bool], str | None] = {}

    def rules(self, node: Node, deny: bool) -> tuple[HttpRule, ...]:
        """The rules of one list, for allow or deny rules."""
        return tuple(self._rule(item, deny) for item in self.reader.items(node))

    def _rule(self, node: Node, deny: bool) -> HttpRule:
        fields = self.reader.mapping(node, _KEYS)
        return HttpRule(
            self.pattern(fields.get("method"), deny),
            self.pattern(fields.get("path"), deny),
            self.pattern(fields.get("host"), deny),
            tuple(self._headers(fields, deny)),
            self.reader.ref(node),
        )

    def pattern(self, node: Node | None, deny: bool) -> str | None:
        """An expression that RE2 takes; an empty one is not asked, as in Cilium."""
        text = self.reader.text(node)
        if node is None or not text:
            return None
        if (text, deny) not in self._known:
            self._known[text, deny] = complaint(text, Style(wide=deny))
        told = self._known[text, deny]
        if told is not None:
            self.reader.fault(node, told)
        return text

    def _headers(self, fields: Mapping[str, Node], deny: bool) -> Iterator[HeaderMatch]:
        for node in self.reader.items(fields.get("headers")):
            header = self.header(node, deny)
            if header is not None:
                yield header
        for node in self.reader.items(fields.get("headerMatches")):
            header = self.header_match(node, deny)
            if header is not None:
                yield header

    def header(self, node: Node, deny: bool) -> HeaderMatch | None:
        """``Name: value``, cut at the first space; without one, a name that must be there (colons and all)."""
        text = self.reader.text(node)
        if text is None:
            return None
        name, space, value = text.partition(" ")
        return self._named(node, name.rstrip(":") if space else name, value if space else None, deny)

    def header_match(self, node: Node, deny: bool) -> HeaderMatch | None:
        """``{name, value, mismatch}``; without a value the header must be there."""
        fields = self.reader.mapping(node, ("name", "value", "mismatch"), {"secret": _UNREADABLE})
        name, value = self.reader.required(node, "name"), self.reader.text(fields.get("value"))
        action = self._action(fields.get("mismatch"), deny)
        if name is None:
            return None
        return self._named(node, name, value or None, deny, log=action == "LOG")

    def _action(self, node: Node | None, deny: bool) -> str | None:
        action = self.reader.text(node)
        if node is None or action is None:
            return None
        if action in ("ADD", "DELETE", "REPLACE"):
            self.reader.fault(node, f"not supported: mismatch {action} ({_CHANGES})")
        elif action != "LOG":
            self.reader.fault(node, f"unknown mismatch {action!r} (known: LOG)")
        elif deny:
            self.reader.fault(node, "not supported: mismatch in a deny rule (the header would decide nothing)")
        return action

    def _named(self, node: Node, name: str, value: str | None, deny: bool, *, log: bool = False) -> HeaderMatch | None:
        if not name:
            self.reader.fault(node, "the header's name is missing")
            return None
        if deny and ":" in name:
            self.reader.fault(node, f"no header is named {name!r}, so this denies nothing (write 'Name: value')")
        return HeaderMatch(name.lower(), value, log)


def complaint(pattern: str, style: Style) -> str | None:
    """What RE2 has against an expression, with the place in it, or None."""
    if len(pattern) > _MAX_PATTERN:
        return f"an expression may have {_MAX_PATTERN} characters, this has {len(pattern)}"
    try:
        re2.compile(pattern.encode(), style.options())
    except re2.error as error:
        raw = error.args[0]
        text = raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)
        place = pattern.rfind(text.partition(": ")[2]) if ": " in text else -1
        where = f" at character {place + 1}" if place >= 0 else ""
        return f"{pattern[:200]!r} is no valid expression{where}: {text}"
    return None
