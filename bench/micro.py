"""What is measured in conversations alone has in common: a judge, pairs of requests and answers, and a table."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from time import process_time
from typing import Any, Protocol, TypeVar

from l7proxy.conversation import Conversation
from l7proxy.ops import Direction
from parsers.options import CassandraOptions, HttpOptions, KafkaOptions
from policies.decision import L7Lists, L7Policy
from policies.match import RuleSet
from policies.model import L7Protocol, L7Rule, TrafficDirection

FEW, MANY = 10, 10_000
"""Rules."""
Pair = tuple[bytes, bytes]


class Rules:
    """A judge that enforces these."""

    audit_only = log_headers = cut_streams = False
    header_names: frozenset[str] = frozenset()
    options, kafka, cassandra = HttpOptions(), KafkaOptions(), CassandraOptions()

    def __init__(self, protocol: L7Protocol, rules: Sequence[L7Rule]) -> None:
        lists = L7Lists(tuple(rules))
        self.protocol: L7Protocol | None = protocol
        self.judge = RuleSet(L7Policy(TrafficDirection.INGRESS, lists, lists)).judge
        self.cache: dict[bytes, Any] = {}
        self.calls: dict[Hashable, Any] = {}


def carry(talk: Conversation, made: Iterable[Pair]) -> None:
    """Requests, each with its answer."""
    for asked, answered in made:
        talk.receive(Direction.REQUEST, asked, False, 1.0)
        talk.receive(Direction.RESPONSE, answered, False, 1.0)


def cost(talk: Conversation, made: Sequence[Pair]) -> float:
    """Microseconds of CPU of each pair."""
    start = process_time()
    carry(talk, made)
    return (process_time() - start) / len(made) * 1e6


class Titled(Protocol):
    """A case."""

    @property
    def title(self) -> str:
        """What it is called in the table."""


Case = TypeVar("Case", bound=Titled)


def table(cases: Iterable[Case], rules: Callable[[int], Rules], measure: Callable[[Case, Rules], float]) -> None:
    """Print what each case costs under few rules and under many."""
    few, many = rules(FEW), rules(MANY)
    print(f"{'':28}{f'{FEW} rules':>12}{f'{MANY:,}':>12}{'ratio':>8}")
    for case in cases:
        costs = [measure(case, one) for one in (few, many)]
        print(f"{case.title:28}{costs[0]:9.2f} us{costs[1]:9.2f} us{costs[1] / costs[0]:8.2f}")
