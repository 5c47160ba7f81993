"""Policies as frozen data, read from CiliumNetworkPolicy files and understood by everything else."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, TypeAlias

from policies.identity import Network
from policies.verdict import RuleRef


class TrafficDirection(StrEnum):
    """Which side of a flow the selected endpoint is: ingress (it is the destination) or egress."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Operator(StrEnum):
    """The operators of matchExpressions; matchLabels become IN with one value."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement on labels. `key` is ``source:key``; source ``any`` holds for every source."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Selector:
    """A label selector: all requirements must hold. The policy's namespace is already among them where it belongs."""

    requirements: tuple[Requirement, ...]
    ref: RuleRef


@dataclass(frozen=True, slots=True)
class EntityPeer:
    """A named group such as world, host, cluster, all (see CILIUM-SEMANTICS)."""

    name: str
    ref: RuleRef


@dataclass(frozen=True, slots=True)
class CidrPeer:
    """Addresses outside the cluster inside `prefix` and in none of `excepts`."""

    prefix: Network
    excepts: tuple[Network, ...]
    ref: RuleRef


Peer: TypeAlias = Selector | EntityPeer | CidrPeer


class L7Protocol(StrEnum):
    """What the requests of a port are read as."""

    HTTP = "http"
    KAFKA = "kafka"
    CASSANDRA = "cassandra"


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """A condition on a header, name in lower case. `value` None asks for presence only. With `log` the condition
    never decides (Cilium's ``mismatch: LOG``): a mismatch is only recorded."""

    name: str
    value: str | None
    log: bool = False


@dataclass(frozen=True, slots=True)
class GrpcCall:
    """The calls a gRPC rule is about: `service` the full name, literal, `method` RE2, full match; None: any."""

    service: str | None
    method: str | None


@dataclass(frozen=True, slots=True)
class HttpRule:
    """One HTTP rule: fields AND, absent ones (None) not asked. method, path and host are RE2, full match.

    With `grpc` it is a gRPC rule: `headers` are its metadata, and method, path and host are not asked, for a call is
    ``POST /service/method`` (see `policies.spellings`).
    """

    protocol: ClassVar = L7Protocol.HTTP

    method: str | None
    path: str | None
    host: str | None
    headers: tuple[HeaderMatch, ...]
    ref: RuleRef
    grpc: GrpcCall | None = None

    @property
    def asks_nothing(self) -> bool:
        """Whether every request of the protocol is held."""
        asked = (self.grpc, self.method, self.path, self.host)
        return all(one is None for one in asked) and all(header.log for header in self.headers)


class KafkaRole(StrEnum):
    """What a client does; each stands for a list of APIs (see `policies.kafka_apis`)."""

    PRODUCE = "produce"
    CONSUME = "consume"


@dataclass(frozen=True, slots=True)
class KafkaRule:
    """One Kafka rule: fields AND, absent ones (None) not asked. `api` is an API's key; api and role exclude each other.

    Topics, groups and transactional ids are globs, one of which must hold all of the name. An allow rule does not ask
    about what a request does not name; a deny rule holds only requests that name all that it asks about.
    """

    protocol: ClassVar = L7Protocol.KAFKA

    api: int | None
    role: KafkaRole | None
    version: int | None
    client_id: str | None
    topics: tuple[str, ...] | None
    groups: tuple[str, ...] | None
    transactional_ids: tuple[str, ...] | None
    ref: RuleRef

    @property
    def asks_nothing(self) -> bool:
        """Whether every request of the protocol is held."""
        names = (self.topics, self.groups, self.transactional_ids)
        return all(one is None for one in (self.api, self.role, self.version, self.client_id, *names))


@dataclass(frozen=True, slots=True)
class CqlRule:
    """One CQL rule: fields AND, absent ones (None) not asked. `actions` are of `parsers.facts.ACTIONS`; None: any but
    `UNKNOWN`, which an allow rule has to name.

    Keyspaces and tables are globs, one of which must hold all of the name. `pattern` is Cilium's ``query_table``: RE2,
    found anywhere in ``keyspace.table``, or in the keyspace of what names no table; it is not asked of USE.
    An allow rule holds only statements that name what it asks about. Of a deny rule see `policies.cql_index`.
    """

    protocol: ClassVar = L7Protocol.CASSANDRA

    actions: frozenset[str] | None
    keyspaces: tuple[str, ...] | None
    tables: tuple[str, ...] | None
    pattern: str | None
    ref: RuleRef

    @property
    def asks_nothing(self) -> bool:
        """Whether every request of the protocol is held (to allow them: that can be read)."""
        return all(one is None for one in (self.actions, self.keyspaces, self.tables, self.pattern))


L7Rule: TypeAlias = HttpRule | KafkaRule | CqlRule
L7Rules: TypeAlias = tuple[L7Rule, ...]
"""Rules of one protocol."""


@dataclass(frozen=True, slots=True)
class Port:
    """A port match. `protocol` is TCP, UDP, SCTP or ANY (all three); `low`..`high` are inclusive, 0..65535 for port 0.
    With `name` the number comes from the destination's named ports, and low and high mean nothing."""

    protocol: str
    low: int
    high: int
    name: str | None = None


@dataclass(frozen=True, slots=True)
class PortRule:
    """One entry of toPorts. `rules` are its L7 rules, of one protocol and one at least; None: no L7 part. An empty
    `ports` matches nothing."""

    ports: tuple[Port, ...]
    rules: L7Rules | None
    ref: RuleRef

    @property
    def protocol(self) -> L7Protocol | None:
        """The protocol of its L7 rules."""
        return self.rules[0].protocol if self.rules else None


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of ingress, egress, ingressDeny or egressDeny.

    `peers` None: not asked (everyone, if `ports` is there); an empty tuple: nobody. `requires` are fromRequires or
    toRequires. `ports` None: every port and protocol (L3-only).
    """

    direction: TrafficDirection
    deny: bool
    peers: tuple[Peer, ...] | None
    requires: tuple[Selector, ...]
    ports: tuple[PortRule, ...] | None
    ref: RuleRef


@dataclass(frozen=True, slots=True)
class Policy:
    """One spec of one policy (a file's `specs` give several).

    `name` is ``namespace/name`` or, clusterwide, ``name``. `default_deny` holds the directions in which the policy
    puts what it selects in default deny; one with ``enableDefaultDeny: false`` is not among them. `audit`: what it
    would refuse is recorded and forwarded. `reason`: the author's text for refusals.
    """

    name: str
    namespace: str | None
    selector: Selector
    rules: tuple[Rule, ...]
    default_deny: frozenset[TrafficDirection]
    audit: bool
    reason: str | None
    file: str
    line: int
