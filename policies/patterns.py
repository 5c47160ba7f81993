"""Expressions that cost the same however many there are: literals for a dict, the rest in one RE2 set.

Every expression must match the whole text, as Cilium anchors them. Texts are bytes on the wire.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import re2

MAX_MEMORY = 256 << 20
"""Bytes one RE2 set may use for its program and states; a set that needs more is cut in two."""

_LITERAL = r"(?:[^\\.+*?()|\[\]{}^$]|\\[!-/:-@\[-^`{-~])*"
_ALTERNATIVES = re.compile(rf"\^?(\((?:\?:)?)?({_LITERAL}(?:\|{_LITERAL})*)(?(1)\))\$?")
_PART = re.compile(r"\\.|[^\\]", re.DOTALL)


class PatternError(ValueError):
    """An expression that RE2 does not take."""


@dataclass(frozen=True, slots=True)
class Style:
    """How expressions are read.

    `wide` is for deny rules, which must not be slipped past: every byte is one character and ``.`` holds them all.
    Without it text is UTF-8, as Envoy reads it, and ``.`` does not hold bytes that are no UTF-8. `fold` ignores case.
    """

    wide: bool = False
    fold: bool = False

    def options(self, max_memory: int = MAX_MEMORY) -> Any:
        """RE2's own options."""
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1 if self.wide else re2.Options.Encoding.UTF8
        options.dot_nl = self.wide
        options.case_sensitive = not self.fold
        options.never_capture = True
        options.log_errors = False
        options.max_mem = max_memory
        return options


def literals(pattern: str) -> tuple[str, ...] | None:
    r"""The only texts an expression can match (``GET|HEAD``, ``(a|b)``, ``/v1\.0``), or None if that is not all."""
    found = _ALTERNATIVES.fullmatch(pattern)
    if found is None:
        return None
    texts = [""]
    for part in _PART.findall(found[2]):
        if part == "|":
            texts.append("")
        else:
            texts[-1] += part[-1]
    return tuple(dict.fromkeys(texts))


class PatternSet:
    """Many expressions asked at once, in one pass over the text."""

    __slots__ = ("_halves", "_options", "_patterns", "_set", "_single", "_size")

    def __init__(self, patterns: Sequence[str], style: Style, max_memory: int = MAX_MEMORY) -> None:
        """Raises PatternError if RE2 does not take one of them."""
        self._patterns, self._size = patterns, len(patterns)
        self._options = (style, max_memory)
        self._halves: tuple[PatternSet, PatternSet] | None = None
        self._set = _compile(patterns, style, max_memory)
        self._single: Any = None
        if self._set is None:
            self._split()

    def match(self, text: bytes) -> list[int]:
        """The places, in no order, of all expressions that match the whole text."""
        if self._set is not None:
            found: list[int] | None = self._set.Match(text)
            if found is not None and self._size in found:
                found.remove(self._size)
                return found
            # RE2 ran out of memory on this text, and an empty answer would let it past every deny rule.
            self._split()
        if self._halves is None:
            return [0] if self._single.fullmatch(text) else []
        left, right = self._halves
        return left.match(text) + [left._size + place for place in right.match(text)]

    def _split(self) -> None:
        self._set = None
        style, max_memory = self._options
        if self._size == 1:
            # One expression alone falls back to RE2's NFA, which needs little memory and cannot fail.
            self._single = _single(self._patterns[0], style)
            return
        middle = self._size // 2
        first, second = self._patterns[:middle], self._patterns[middle:]
        self._halves = PatternSet(first, style, max_memory), PatternSet(second, style, max_memory)


def _compile(patterns: Sequence[str], style: Style, max_memory: int) -> Any:
    """An RE2 set whose last member matches everything, or None if it does not fit the memory."""
    result = re2.Set.FullMatchSet(style.options(max_memory))
    try:
        for pattern in patterns:
            result.Add(pattern.encode())
    except re2.error:
        for pattern in patterns:
            _single(pattern, style)
        return None
    result.Add(rb"(?s)\C*")
    try:
        result.Compile()
    except re2.error:
        return None
    return result


def _single(pattern: str, style: Style) -> Any:
    try:
        return re2.compile(pattern.encode(), style.options())
    except re2.error as error:
        text = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else error
        raise PatternError(f"{pattern!r} is no valid expression: {text}") from error
