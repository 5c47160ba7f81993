"""YAML with positions: every node knows its file, line and key, so every complaint can name them.

Used for policies and for node.yaml. Aliases are followed but counted, so a small file cannot grow into a large tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

MAX_NODES = 2_000_000
"""Nodes one file may hold, aliases expanded."""

Value: TypeAlias = "str | int | float | bool | list[Node] | dict[str, Node] | None"


@dataclass(frozen=True, slots=True)
class Problem:
    """One complaint. `line` counts from 1 (0: the whole file); `key` is a path such as ``spec.ingress[0]``."""

    file: str
    line: int
    key: str
    message: str
    severity: str = "error"

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line or "", self.key) if part != "")
        return f"{where}: {self.severity}: {self.message}"


class DocumentError(Exception):
    """A file that cannot be taken, with every problem found in it."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


@dataclass(frozen=True, slots=True)
class Node:
    """A YAML value with its place. `value` is a scalar, a list of nodes, or a dict of nodes by key."""

    value: Any
    file: str
    line: int
    key: str

    def problem(self, message: str, severity: str = "error") -> Problem:
        """A complaint about this place."""
        return Problem(self.file, self.line, self.key, message, severity)

    def plain(self) -> Any:
        """The value without positions, as `yaml.safe_load` gives it."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def get(self, key: str) -> Node | None:
        """The child of a mapping, or None."""
        return self.value.get(key) if isinstance(self.value, dict) else None


def load(path: Path) -> list[Node]:
    """The documents of a YAML file. Raises DocumentError naming file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError([Problem(str(path), 0, "", f"cannot be read: {error}")]) from error
    return parse(text, str(path))


def parse(text: str, file: str) -> list[Node]:
    """The documents of a YAML text, empty ones left out."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        return list(_documents(loader, file))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        raise DocumentError([Problem(file, line, "", f"not YAML: {error.problem or error.context}")]) from error
    except yaml.YAMLError as error:
        raise DocumentError([Problem(file, 0, "", f"not YAML: {error}")]) from error
    except RecursionError as error:
        raise DocumentError([Problem(file, 0, "", "nested too deeply")]) from error
    finally:
        loader.dispose()


def _documents(loader: Any, file: str) -> Iterator[Node]:
    build = _Builder(loader, file)
    while loader.check_node():
        root = loader.get_node()
        node = build.node(root, "")
        if node.value is not None:
            yield node


class _Builder:
    """Turns PyYAML's nodes into ours, refusing doubled keys, non-string keys and oversized trees."""

    def __init__(self, loader: Any, file: str) -> None:
        self.loader, self.file, self.count = loader, file, 0

    def node(self, raw: Any, key: str) -> Node:
        self.count += 1
        line = raw.start_mark.line + 1
        if self.count > MAX_NODES:
            raise DocumentError([Problem(self.file, line, key, f"more than {MAX_NODES} values in one file")])
        return Node(self._value(raw, key, line), self.file, line, key)

    def _value(self, raw: Any, key: str, line: int) -> Any:
        if isinstance(raw, yaml.MappingNode):
            return self._mapping(raw, key)
        if isinstance(raw, yaml.SequenceNode):
            return [self.node(child, f"{key}[{index}]") for index, child in enumerate(raw.value)]
        try:
            return self.loader.construct_object(raw)
        except (ValueError, yaml.YAMLError) as error:
            raise DocumentError([Problem(self.file, line, key, f"bad value: {error}")]) from error

    def _mapping(self, raw: Any, key: str) -> dict[str, Node]:
        result: dict[str, Node] = {}
        for raw_key, raw_value in raw.value:
            line = raw_key.start_mark.line + 1
            if not isinstance(raw_key, yaml.ScalarNode):
                raise DocumentError([Problem(self.file, line, key, "a key must be a plain string")])
            name = str(raw_key.value)
            child = f"{key}.{name}" if key else name
            if name in result:
                raise DocumentError([Problem(self.file, line, child, "this key stands twice")])
            node = self.node(raw_value, child)
            # The line of the key, not of its value: that is where a reader looks.
            result[name] = Node(node.value, node.file, line, node.key)
        return result
