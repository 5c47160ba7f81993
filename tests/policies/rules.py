"""Short ways to write rules and requests in tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from parsers.facts import HttpRequest
from policies.decision import L7Lists, L7Policy
from policies.match import RuleSet
from policies.model import GrpcCall, HeaderMatch, HttpRule, TrafficDirection
from policies.verdict import RuleRef


def rule(
    method: str | None = None,
    path: str | None = None,
    host: str | None = None,
    headers: Sequence[HeaderMatch] = (),
    *,
    line: int = 1,
    policy: str = "default/api",
) -> HttpRule:
    ref = RuleRef(policy, f"ingress[0].toPorts[0].rules.http[{line - 1}]", "api.yaml", line)
    return HttpRule(method, path, host, tuple(headers), ref)


def call(
    service: str | None = None,
    method: str | None = None,
    metadata: Sequence[HeaderMatch] = (),
    *,
    line: int = 1,
) -> HttpRule:
    """A gRPC rule."""
    ref = RuleRef("default/api", f"ingress[0].toPorts[0].rules.grpc[{line - 1}]", "api.yaml", line)
    return HttpRule(None, None, None, tuple(metadata), ref, GrpcCall(service, method))


def rules(
    allow: Sequence[HttpRule] = (), deny: Sequence[HttpRule] = (), *, messages: Mapping[str, str] | None = None
) -> RuleSet:
    lists = L7Lists(tuple(allow), tuple(deny))
    return RuleSet(L7Policy(TrafficDirection.INGRESS, lists, lists, messages or {}))


def audited(enforced: L7Lists, candidate: L7Lists, messages: Mapping[str, str] | None = None) -> RuleSet:
    return RuleSet(L7Policy(TrafficDirection.INGRESS, enforced, candidate, messages or {}))


def request(method: str = "GET", path: str = "/", host: str = "api", *headers: tuple[str, str]) -> HttpRequest:
    return HttpRequest(method, path, host, headers=headers)


def cost(call: Callable[[], object]) -> float:
    """Seconds of CPU of 200 calls, in the best of several rounds."""
    best = float("inf")
    for _ in range(20):
        start = time.process_time()
        for _ in range(200):
            call()
        best = min(best, time.process_time() - start)
    return best
