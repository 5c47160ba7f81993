"""The expressions of one field, numbered: what a request says in it becomes numbers to look rules up by."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from policies.patterns import PatternSet, Style, literals

ANY = 0
"""The number that stands for a field a rule does not ask about."""
_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")
_WILD = {"*": "(?s:.*)", "?": "(?s:.)"}


class Expressions:
    """One field's expressions: a text becomes the numbers of those that match it, `ANY` among them."""

    __slots__ = ("_literals", "_numbers", "_patterns", "_set", "_style")

    def __init__(self, style: Style) -> None:
        """Texts are to be given in lower case if the style folds case."""
        self._style = style
        self._literals: dict[str, int] = {}
        self._patterns: dict[str, int] = {}
        self._numbers: list[int] = []
        self._set: PatternSet | None = None

    def add(self, pattern: str | None) -> tuple[int, ...]:
        """The numbers that will stand for an expression (one for each text it can match, if those can be told)."""
        if pattern is None:
            return (ANY,)
        texts = literals(pattern)
        if texts is None:
            return (self._patterns.setdefault(pattern, self._next()),)
        folded = (wire(text.lower() if self._style.fold else text) for text in texts)
        return tuple(self._literals.setdefault(text, self._next()) for text in dict.fromkeys(folded))

    def _next(self) -> int:
        return len(self._literals) + len(self._patterns) + 1

    def compile(self) -> None:
        """To be called once, when all are there. Raises PatternError."""
        if self._patterns:
            self._set = PatternSet(list(self._patterns), self._style)
            self._numbers = list(self._patterns.values())

    def ids(self, texts: Sequence[str]) -> Iterable[int]:
        """The numbers that hold for any of the texts."""
        found = [ANY]
        for text in texts:
            number = self._literals.get(text)
            if number is not None:
                found.append(number)
            if self._set is not None:
                found += [self._numbers[place] for place in self._set.match(text.encode("latin-1"))]
        return found if len(texts) == 1 else dict.fromkeys(found)


def wire(text: str) -> str:
    """A policy's text as a request has it: its UTF-8 bytes, read as latin-1."""
    return text if text.isascii() else text.encode().decode("latin-1")


def of_glob(glob: str) -> str:
    """A glob (``*`` any run of characters, ``?`` one) as an expression of RE2."""
    parts = re.split(r"(\*+|\?)", glob)
    return "".join(_WILD.get(part[:1]) or _SPECIAL.sub(r"\\\g<0>", part) for part in parts)


def of_search(pattern: str) -> str:
    """An expression of what holds `pattern` anywhere in it. Where that begins with ``^`` it costs less."""
    if not pattern.startswith("^") or "|" in pattern:
        return f"(?s:.*)(?:{pattern})(?s:.*)"
    rest = pattern[1:]
    if rest.endswith("$") and literals(rest[:-1]) is not None:
        return rest[:-1]
    return f"(?:{rest})(?s:.*)"
