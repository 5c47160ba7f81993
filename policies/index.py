"""What judging needs of the rules of one list, whatever protocol they are for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

R = TypeVar("R")


@dataclass(slots=True, eq=False)
class Entry(Generic[R]):
    """A rule and its place in the order of the files."""

    rule: R
    order: int


class Index(Protocol):
    """The rules of one list, ready to be asked about requests of their protocol (see `parsers.facts`).

    `header_names` are the lower-case names of the headers that any rule looks at. `remarks`: `remark` may say
    something.
    """

    header_names: frozenset[str]
    remarks: bool

    def find(self, request: Any) -> Entry[Any] | None:
        """A rule that holds the request: which one of several, the protocol says."""

    def remark(self, entry: Entry[Any], request: Any) -> str:
        """What is to be told of a request that the rule allows, to go behind the reason; or nothing."""

    @staticmethod
    def told(request: Any) -> str:
        """A request in words, for a reason: short, and without what may be secret."""
