"""Policy decisions as the rows of the kernel's policy map."""

from __future__ import annotations

from collections.abc import Iterator

from l7proxy.identities import IdentityTable, Workload
from policies.decision import L4Decision, L4Kind
from policies.decision import PortRow as Interval
from policies.identity import Identity, reserved
from policies.model import TrafficDirection
from policies.resolve import Resolver
from sockmap.rows import PolicyRow, RowVerdict, port_prefixes

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132, "OTHER": 0}
PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items() if number}
DIRECTIONS = {TrafficDirection.INGRESS: 0, TrafficDirection.EGRESS: 1}
VERDICTS = {L4Kind.ALLOW: RowVerdict.ALLOW, L4Kind.DENY: RowVerdict.DENY, L4Kind.PROXY: RowVerdict.PROXY}


def policy_rows(table: IdentityTable, resolver: Resolver) -> Iterator[PolicyRow]:
    """The rows of every endpoint on this node, both directions."""
    for workload in table.workloads.values():
        if workload.local:
            for direction in TrafficDirection:
                yield from _endpoint_rows(table, resolver, workload, direction)


def _endpoint_rows(
    table: IdentityTable, resolver: Resolver, workload: Workload, direction: TrafficDirection
) -> Iterator[PolicyRow]:
    """Rows under identity 0 for everybody whom no rule singles out, and own rows for each identity that differs.

    An endpoint that no policy touches in this direction has no rows: the kernel lets it pass.
    """
    if not resolver.touched(direction, workload.identity):
        return
    nobody = reserved("unknown")
    usual = resolver.peer_signature(direction, workload.identity, nobody)
    yield from _identity_rows(resolver, workload, direction, nobody)
    for identity in table.numbers.values():
        if identity.number and resolver.peer_signature(direction, workload.identity, identity) != usual:
            yield from _identity_rows(resolver, workload, direction, identity)


def _identity_rows(
    resolver: Resolver, workload: Workload, direction: TrafficDirection, peer: Identity
) -> Iterator[PolicyRow]:
    for interval in resolver.table(direction, workload.identity, peer):
        yield from _interval_rows(workload.id, DIRECTIONS[direction], peer.number, interval)


def _interval_rows(endpoint: int, direction: int, identity: int, interval: Interval) -> Iterator[PolicyRow]:
    decision: L4Decision = interval.decision
    for port, bits in port_prefixes(interval.low, interval.high):
        yield PolicyRow(
            endpoint,
            direction,
            identity,
            PROTOCOLS[interval.protocol],
            port,
            bits,
            VERDICTS[decision.kind],
            decision.audit and decision.kind is not L4Kind.PROXY,
        )
