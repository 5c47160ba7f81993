"""What `policies.check_rules` asks about the L7 rules of each protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from policies import cql_shadow, kafka_shadow
from policies.check_cql import cql_remarks
from policies.check_grpc import Remark, grpc_remarks
from policies.check_http import http_remarks
from policies.check_kafka import kafka_remarks
from policies.model import L7Protocol, PortRule
from policies.shadow import shadowed
from policies.verdict import RuleRef

Remarks: TypeAlias = Iterator[tuple[RuleRef, Remark]]


@dataclass(frozen=True, slots=True)
class Lint:
    """`remarks(entry, deny)`: what is odd about the rules of an entry. `shadowed(rules, deny)`: (rule, wider one) for
    each rule of a list that another makes useless."""

    remarks: Callable[[PortRule, bool], Remarks]
    shadowed: Callable[[Sequence[Any], bool], Iterable[tuple[Any, Any]]]


def _http(entry: PortRule, deny: bool) -> Remarks:
    rules: Sequence[Any] = entry.rules or ()
    for rule in rules:
        remarks = http_remarks(rule, entry, deny=deny) if rule.grpc is None else grpc_remarks(rule.grpc, rule.headers)
        for remark in remarks:
            yield rule.ref, remark


LINTS: Mapping[L7Protocol, Lint] = {
    L7Protocol.HTTP: Lint(_http, shadowed),
    L7Protocol.KAFKA: Lint(kafka_remarks, kafka_shadow.shadowed),
    L7Protocol.CASSANDRA: Lint(cql_remarks, cql_shadow.shadowed),
}
