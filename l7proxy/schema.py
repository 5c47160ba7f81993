"""From YAML nodes to frozen dataclasses, whose fields' names, types and bounds are the schema.

Nothing raises here: each complaint is appended to a list with its file, line and key, and the default stands in for
the bad value, so that one reading finds every problem.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from policies.document import Node, Problem

T = TypeVar("T")
Converter = Callable[[Node, list[Problem]], Any]
"""Makes a field's value of a node. Returns INVALID after it has appended a problem."""


class _Invalid:
    """The value of what was complained about: the field's default is taken."""


INVALID = _Invalid()
_MOST = 1 << 53
"""The bound of numbers that have no other: what a double still holds exactly."""


def bounds(low: float, high: float | None = None) -> Mapping[str, float | None]:
    """Field metadata: the number must be at least `low` and at most `high`. Without it, numbers begin at 0."""
    return {"low": low, "high": high}


def read(
    cls: type[T], node: Node | None, problems: list[Problem], converters: Mapping[str, Converter] | None = None
) -> T | None:
    """An instance of a dataclass from a mapping. `converters` take over single fields by name.

    None if a field without a default is missing or bad (a problem says so).
    """
    values: dict[str, Any] = {}
    given = mapping(node, problems) if node is not None else {}
    fields = {field.name: field for field in dataclasses.fields(cast(Any, cls)) if field.init}
    unknown_keys(given, fields, problems)
    hints = get_type_hints(cls)
    for name, field in fields.items():
        if name in given:
            convert = (converters or {}).get(name) or _converter(hints[name], field.metadata)
            value = convert(given[name], problems)
            if value is not INVALID:
                values[name] = value
        elif _required(field) and node is not None:
            problems.append(node.problem(f"the key {name!r} is missing"))
    if any(_required(field) and name not in values for name, field in fields.items()):
        return None
    return cls(**values)


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def mapping(node: Node, problems: list[Problem]) -> dict[str, Node]:
    """The children of a mapping, by key."""
    if isinstance(node.value, dict):
        return node.value
    problems.append(node.problem(f"must be a mapping, not {describe(node)}"))
    return {}


def sequence(node: Node, problems: list[Problem]) -> list[Node]:
    """The items of a list."""
    if isinstance(node.value, list):
        return node.value
    problems.append(node.problem(f"must be a list, not {describe(node)}"))
    return []


def unknown_keys(given: Mapping[str, Node], known: Iterable[str], problems: list[Problem]) -> None:
    """A problem for each key that is not known, with what may have been meant."""
    names = list(known)
    for key, node in given.items():
        if key not in names:
            close = difflib.get_close_matches(key, names, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(sorted(names))}"
            problems.append(node.problem(f"unknown key {key!r}; {hint}"))


def describe(node: Node) -> str:
    """A value in the words of an error message."""
    value = node.value
    if value is None:
        return "empty"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "a mapping"
    return f"{value!r}"[:80]


def text(node: Node, problems: list[Problem]) -> Any:
    """A string that is not empty."""
    if isinstance(node.value, str) and node.value:
        return node.value
    number = isinstance(node.value, int | float)
    hint = " (put it in quotes: YAML reads it as another type)" if number else ""
    return _bad(node, problems, f"must be a string, not {describe(node)}{hint}")


def _bad(node: Node, problems: list[Problem], message: str) -> _Invalid:
    problems.append(node.problem(message))
    return INVALID


def _converter(hint: Any, metadata: Mapping[str, Any]) -> Converter:
    """The converter that a field's type and bounds ask for."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _converter(next(kind for kind in arguments if kind is not type(None)), metadata)
    if origin is Literal:
        return _choice(arguments)
    if origin in (tuple, frozenset):
        return _collection(origin, _converter(arguments[0], metadata))
    if dataclasses.is_dataclass(hint):
        return lambda node, problems: _nested(hint, node, problems)
    if hint in (int, float):
        return _number(hint, metadata.get("low", 0), metadata.get("high"))
    return {bool: _boolean, str: text, Path: _path}[hint]


def _nested(cls: Any, node: Node, problems: list[Problem]) -> Any:
    value = read(cls, node, problems)
    return INVALID if value is None else value


def _boolean(node: Node, problems: list[Problem]) -> Any:
    if isinstance(node.value, bool):
        return node.value
    return _bad(node, problems, f"must be true or false, not {describe(node)}")


def _path(node: Node, problems: list[Problem]) -> Any:
    value = text(node, problems)
    return value if value is INVALID else Path(value)


def _choice(options: tuple[Any, ...]) -> Converter:
    def convert(node: Node, problems: list[Problem]) -> Any:
        scalar = isinstance(node.value, str | int) and not isinstance(node.value, bool)
        value = str(node.value) if scalar else None
        if value in options:
            return value
        return _bad(node, problems, f"must be one of {', '.join(map(str, options))}, not {describe(node)}")

    return convert


def _collection(kind: Any, convert: Converter) -> Converter:
    def collect(node: Node, problems: list[Problem]) -> Any:
        items = [convert(item, problems) for item in sequence(node, problems)]
        return kind(item for item in items if item is not INVALID)

    return collect


def _number(kind: type, low: float, high: float | None) -> Converter:
    allowed = (int,) if kind is int else (int, float)
    noun = "a whole number" if kind is int else "a number"

    def convert(node: Node, problems: list[Problem]) -> Any:
        value = node.value
        if isinstance(value, bool) or not isinstance(value, allowed):
            return _bad(node, problems, f"must be {noun}, not {describe(node)}")
        if not low <= value <= (_MOST if high is None else high):  # false for NaN too
            span = f"at least {low}" if high is None else f"{low} to {high}"
            return _bad(node, problems, f"must be {span}, not {describe(node)}")
        return kind(value)

    return convert


def from_plain(value: Any, file: str, key: str = "") -> Node:
    """Plain JSON data as nodes without lines, so that one reader serves the file and the admin API."""
    if isinstance(value, dict):
        children = {str(k): from_plain(v, file, f"{key}.{k}" if key else str(k)) for k, v in value.items()}
        return Node(children, file, 0, key)
    if isinstance(value, list):
        return Node([from_plain(item, file, f"{key}[{i}]") for i, item in enumerate(value)], file, 0, key)
    return Node(value, file, 0, key)
