"""Lists of globs, and which of them hold all that others hold, found by hash: of globs only ``a*`` is known to hold
``abc`` and ``ab*``."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import TypeAlias, TypeVar

Globs: TypeAlias = tuple[str, ...] | None
"""A field of a rule, any of which must hold a name; None: it is not asked."""
Entered: TypeAlias = frozenset[str] | str | None
"""All globs of a field; one of them; or any name."""
_Key = TypeVar("_Key", bound=Hashable)


def whole(globs: Globs) -> Entered:
    """All of a field, as it is entered and looked up."""
    if globs is None:
        return None
    return globs[0] if len(globs) == 1 else frozenset(globs)


def own(globs: Globs) -> Iterable[Entered]:
    """What a field is entered as: a list of globs holds what each of them does."""
    return dict.fromkeys((whole(globs), *(globs or ())))


def stems(fields: Iterable[Globs]) -> frozenset[str]:
    """The beginnings of names that some of these hold whatever follows."""
    listed = (glob for globs in fields for glob in globs or ())
    return frozenset(glob[:-1] for glob in listed if glob.endswith("*") and not set(glob[:-1]) & set("*?"))


def wider(globs: Globs, known: frozenset[str]) -> Iterable[Entered]:
    """What may be entered for a field that holds all of this one. `known` are the `stems` of all such fields."""
    found: dict[Entered, None] = {None: None}
    if globs is not None and len(globs) == 1:
        plain = globs[0].partition("*")[0].partition("?")[0]
        found.update((f"{plain[:end]}*", None) for end in range(len(plain) + 1) if plain[:end] in known)
    found[whole(globs)] = None
    return found


def find(keys: Iterable[_Key], same: _Key, place: int, first: Mapping[_Key, int]) -> int | None:
    """The place of a rule entered under one of the keys that is not the one at `place`; of those that are entered under
    its `same` key only the ones before it count."""
    for key in keys:
        other = first.get(key)
        if other is not None and other != place and (key != same or other < place):
            return other
    return None
