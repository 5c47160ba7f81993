"""What a worker needs to judge flows: one consistent state of policies, identities and endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from l7proxy.config import FlowLogConfig
from l7proxy.limits import Limits
from parsers.options import CassandraOptions, HttpOptions, KafkaOptions
from policies.identity import Identity
from policies.model import Policy


@dataclass(frozen=True, slots=True)
class Settings:
    """The part of node.yaml that does not change while the program runs."""

    node_name: str
    node_audit: bool
    allow_localhost: bool
    refuse_upstream_with_503: bool
    cut_streams: bool
    mark: int
    limits: Limits
    http: HttpOptions
    flow_log: FlowLogConfig
    kafka: KafkaOptions = field(default_factory=KafkaOptions)
    cassandra: CassandraOptions = field(default_factory=CassandraOptions)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One generation. `endpoints` maps an endpoint id of this node to its name, `addresses` the addresses of all
    workloads, those elsewhere too, to their identities' numbers, and `local` those of workloads on this node, without
    services of the host, to their endpoint ids."""

    generation: int
    settings: Settings
    policies: tuple[Policy, ...]
    identities: Mapping[int, Identity]
    endpoints: Mapping[int, str]
    addresses: Mapping[str, int]
    local: Mapping[str, int] = field(default_factory=dict)
