"""What one L7 verdict costs, with ten rules and with ten thousand: microseconds, the best of several rounds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from parsers.facts import HttpRequest, KafkaRequest, Request
from policies.decision import L7Lists, L7Policy
from policies.match import RuleSet
from policies.model import HttpRule, KafkaRule, L7Rule, TrafficDirection
from policies.verdict import RuleRef

_REF = RuleRef("default/bench", "ingress[0].toPorts[0].rules.http[0]", "bench.yaml", 1)


def _rules(count: int, make: Callable[[int], L7Rule]) -> RuleSet:
    lists = L7Lists(tuple(make(number) for number in range(count)))
    return RuleSet(L7Policy(TrafficDirection.INGRESS, lists, lists))


def _cost(rules: RuleSet, request: Request) -> float:
    """Microseconds of one judge()."""
    best = float("inf")
    for _ in range(9):
        start = time.perf_counter()
        for _ in range(5000):
            rules.judge(request)
        best = min(best, time.perf_counter() - start)
    return best / 5000 * 1e6


def main() -> None:
    """Print a table."""
    kinds: list[tuple[str, Callable[[int], L7Rule], Request]] = [
        ("literal", lambda n: HttpRule("GET", f"/svc{n}", None, (), _REF), HttpRequest("GET", "/svc7", "h")),
        (
            "regex",
            lambda n: HttpRule("GET", f"/svc{n}/[0-9]+/.*", None, (), _REF),
            HttpRequest("GET", "/svc7/12/a", "h"),
        ),
        ("host", lambda n: HttpRule("GET", "/.*", f"h{n}", (), _REF), HttpRequest("GET", "/svc7/12/a", "h7")),
        ("refused", lambda n: HttpRule("GET", f"/svc{n}/.*", None, (), _REF), HttpRequest("GET", "/none", "h")),
        (
            "topic",
            lambda n: KafkaRule(None, None, None, None, (f"topic-{n}",), None, None, _REF),
            KafkaRequest(0, 9, "app", "topic-7"),
        ),
        (
            "topics",
            lambda n: KafkaRule(None, None, None, None, (f"team-{n}.*",), None, None, _REF),
            KafkaRequest(0, 9, "app", "team-7.orders"),
        ),
    ]
    print(f"{'':10}{'10 rules':>12}{'10,000':>12}{'ratio':>8}")
    for name, make, request in kinds:
        few, many = (_cost(_rules(count, make), request) for count in (10, 10_000))
        print(f"{name:10}{few:9.2f} us{many:9.2f} us{many / few:8.2f}")


if __name__ == "__main__":
    main()
