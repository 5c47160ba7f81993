"""Reading YAML nodes strictly: every complaint is kept with its place, and reading goes on to find the next."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from policies.document import Node, Problem
from policies.verdict import RuleRef

_NOTHING: dict[str, Node] = {}


class Reader:
    """Reads one policy object. A getter that meets a fault notes it and gives back nothing (or what is usable); the
    loader takes no policy of a file with problems, so what is left out can never weaken one.

    `policy` is the object's name in every RuleRef; `root` the part of keys that rule paths leave out (``spec.``).
    """

    def __init__(self, policy: str, namespace: str | None, root: str) -> None:
        self.policy, self.namespace, self.root = policy, namespace, root
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def fault(self, node: Node, message: str) -> None:
        """Note an error about a place."""
        self.problems.append(node.problem(message))

    def warn(self, node: Node, message: str) -> None:
        """Note something that Cilium takes but that hardly says what its author meant."""
        self.warnings.append(node.problem(message, "warning"))

    def ref(self, node: Node) -> RuleRef:
        """The RuleRef of a node."""
        return RuleRef(self.policy, node.key.removeprefix(self.root), node.file, node.line)

    def mapping(
        self, node: Node, known: Collection[str], unsupported: Mapping[str, str] | None = None
    ) -> Mapping[str, Node]:
        """The children of a mapping by key. Unknown keys, keys without a value, and keys that are `unsupported`
        (key to why) are faults."""
        children: Any = node.value
        if not isinstance(children, dict):
            self.fault(node, f"must be a mapping, not {kind(node)}")
            return _NOTHING
        for key, child in children.items():
            if key not in known:
                self._unknown(key, child, known, unsupported or {})
            elif child.value is None:
                # Kubernetes drops such keys, and an absent list of peers means everyone.
                self.fault(child, "has no value; write an empty list or leave the key out")
        return {key: child for key, child in children.items() if key in known and child.value is not None}

    def _unknown(self, key: str, child: Node, known: Collection[str], unsupported: Mapping[str, str]) -> None:
        if key in unsupported:
            why = unsupported[key]
            self.fault(child, f"not supported: {key}{f' ({why})' if why else ''}")
            return
        close = difflib.get_close_matches(key, known, 1) or [one for one in known if one.lower() == key.lower()]
        hint = f", did you mean {close[0]}?" if close else f" (known: {', '.join(sorted(known))})"
        self.fault(child, f"unknown key {key!r}{hint}")

    def items(self, node: Node | None) -> Sequence[Node]:
        """The items of a list; none if it is not there."""
        if node is None:
            return ()
        if not isinstance(node.value, list):
            self.fault(node, f"must be a list, not {kind(node)}")
            return ()
        result: list[Node] = node.value
        return result

    def text(self, node: Node | None) -> str | None:
        """A string, or None if it is not there."""
        if node is None:
            return None
        if not isinstance(node.value, str):
            self.fault(node, f"must be a string, not {kind(node)} (quote it)")
            return None
        if not node.value.isascii() and any("\ud800" <= char <= "\udfff" for char in node.value):
            self.fault(node, "holds half of a surrogate pair, which is no character")
            return None
        return node.value

    def required(self, node: Node, key: str, hint: str = "") -> str | None:
        """The string under a key that must be there; None only after a fault."""
        child = node.get(key)
        if child is None and isinstance(node.value, dict):
            self.fault(node, f"needs {key}{hint}")
        return None if child is None or child.value is None else self.text(child)

    def flag(self, node: Node | None) -> bool | None:
        """A boolean, or None if it is not there."""
        if node is None:
            return None
        if not isinstance(node.value, bool):
            self.fault(node, f"must be true or false, not {kind(node)}")
            return None
        return node.value


def kind(node: Node) -> str:
    """What a node's value is, in words."""
    value: Any = node.value
    if value is None:
        return "empty"
    names = {dict: "a mapping", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")
