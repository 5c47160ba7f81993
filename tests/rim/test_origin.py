"""From a steered flow to its ends and rules."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.config import FlowLogConfig
from l7proxy.identities import IdentityTable
from l7proxy.limits import Limits
from l7proxy.origin import PolicyView, Prefixes, UnknownFlow
from l7proxy.snapshot import Settings, Snapshot
from parsers.facts import CqlRequest, HttpRequest, KafkaRequest
from parsers.options import CassandraOptions, HttpOptions
from policies.identity import cidr
from policies.load import load_text
from policies.resolve import cidr_prefixes
from sockmap.flows import Flow

POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: api}
spec:
  endpointSelector: {matchLabels: {app: api}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: front}}]
    toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{method: GET, path: "/public/.*"}]}}]
  - fromCIDR: [10.0.0.0/8]
    toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{path: "/ten"}]}}]
  - fromCIDR: [10.1.0.0/16]
    toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{path: "/one"}]}}]
"""
SERVER = ("10.77.0.3", 80)


class Node:
    """A table of identities and the snapshots made of it."""

    def __init__(self, policy: str = POLICY) -> None:
        self.table = IdentityTable()
        self.front = self.table.add("front", {"app": "front"}, addresses=["10.77.0.2"], interface="v0")
        self.api = self.table.add("api", {"app": "api"}, addresses=["10.77.0.3"], interface="v1")
        self.view = self.load(policy)

    def load(self, policy: str, cassandra: CassandraOptions | None = None) -> PolicyView:
        policies = tuple(load_text(policy, "policy.yaml"))
        self.table.set_prefixes(cidr_prefixes(policies))
        settings = Settings("node", False, False, False, True, 0xA00, Limits(), HttpOptions(), FlowLogConfig())
        settings = replace(settings, cassandra=cassandra or settings.cassandra)
        names = {entry.id: entry.name for entry in self.table.workloads.values()}
        addresses = {str(a): e.identity.number for e in self.table.workloads.values() for a in e.addresses}
        return PolicyView(Snapshot(1, settings, policies, dict(self.table.numbers), names, addresses))

    def flow(self, source: int) -> Flow:
        return Flow(source, self.api.identity.number, 0, self.api.id, 1, 1)

    def allowed(self, view: PolicyView, client: str, source: int) -> set[str]:
        """Which of a few paths the client may GET."""
        origin = view.origin((client, 4000), SERVER, self.flow(source))
        if origin.judge is None:
            return set()
        paths = ("/public/a", "/ten", "/one", "/other")
        return {p for p in paths if origin.judge.judge(HttpRequest("GET", p, "h")).verdict == "FORWARDED"}


def test_a_workload_is_known_by_its_number() -> None:
    node = Node()
    origin = node.view.origin(("10.77.0.2", 4000), SERVER, node.flow(node.front.identity.number))
    assert (origin.source, origin.destination, origin.endpoint) == (node.front.identity, node.api.identity, "api")
    assert node.allowed(node.view, "10.77.0.2", node.front.identity.number) == {"/public/a"}


def test_who_is_outside_is_known_by_the_longest_prefix() -> None:
    node = Node()
    ten = node.table.by_address("10.9.9.9").number
    assert node.allowed(node.view, "10.9.9.9", ten) == {"/ten"}
    # The number says 10/8, as it was when the connection came; the policy knows better now.
    assert node.allowed(node.view, "10.1.2.3", ten) == {"/ten", "/one"}
    assert node.allowed(node.view, "192.0.2.1", 2) == set()


def test_a_prefix_that_is_gone_makes_its_addresses_the_world() -> None:
    node = Node()
    ten = node.table.by_address("10.9.9.9").number
    assert node.allowed(node.load(POLICY.replace("10.0.0.0/8", "192.0.2.0/24")), "10.9.9.9", ten) == set()


def test_an_address_that_became_a_workload() -> None:
    node = Node()
    node.table.add("ledger", {"app": "front"}, addresses=["192.0.2.10"])
    assert node.allowed(node.load(POLICY), "192.0.2.10", 2) == {"/public/a"}


def test_unknown_flows_and_identities_are_refused() -> None:
    node = Node()
    with pytest.raises(UnknownFlow, match="was steered here"):
        node.view.origin(("10.77.0.2", 4000), SERVER, None)
    with pytest.raises(UnknownFlow, match="identity 999 is not known"):
        node.view.origin(("10.77.0.2", 4000), SERVER, node.flow(999))


def test_a_flow_that_l4_denies_has_no_judge_but_a_reason() -> None:
    node = Node()
    origin = node.view.origin(("10.77.0.2", 4000), ("10.77.0.3", 81), node.flow(node.front.identity.number))
    assert origin.judge is None
    assert origin.reason


def test_a_flow_of_no_endpoint_of_this_node_has_no_judge() -> None:
    node = Node()
    flow = replace_endpoints(node.flow(node.front.identity.number))
    assert node.view.origin(("10.77.0.2", 4000), SERVER, flow).judge is None


def replace_endpoints(flow: Flow) -> Flow:
    return flow._replace(src_endpoint=0, dst_endpoint=0)


def test_connections_between_the_same_identities_share_a_judge() -> None:
    node = Node()
    flow = node.flow(node.front.identity.number)
    one = node.view.origin(("10.77.0.2", 4000), SERVER, flow)
    other = node.view.origin(("10.77.0.2", 4001), SERVER, flow)
    assert one.judge is other.judge
    assert replace(one, client=other.client) == other


def test_what_clients_make_judges_remember_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("l7proxy.origin._MAX_HEADS", 10)
    node = Node()
    judges = [node.view.origin((address, 4000), SERVER, node.flow(2)).judge for address in ("10.9.9.9", "10.1.2.3")]
    for judge in judges:
        assert judge is not None
        judge.cache.update((b"%d" % i, None) for i in range(5))
    node.view.trim()
    assert [len(judge.cache) for judge in judges if judge] == [5, 5]
    judges[0].cache[b"one more"] = None  # type: ignore[union-attr]
    node.view.trim()
    assert [len(judge.cache) for judge in judges if judge] == [0, 0]


@given(
    prefixes=st.sets(st.tuples(st.integers(0, 0xFF), st.integers(24, 32)), max_size=20),
    address=st.integers(0, 0xFF),
)
def test_longest_prefix_as_a_scan_finds_it(prefixes: set[tuple[int, int]], address: int) -> None:
    networks = {ip_network((0x0A000000 | low, bits), strict=False) for low, bits in prefixes}
    identities = [cidr(32768 + i, network) for i, network in enumerate(sorted(networks, key=str))]
    text = f"10.0.0.{address}"
    holding = [i for i in identities if i.prefix is not None and ip_network(text).subnet_of(i.prefix)]
    best = max(holding, key=lambda i: i.prefix.prefixlen if i.prefix else 0, default=None)
    assert Prefixes(identities).longest(text) == best


TWO_PROTOCOLS = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: kafka}
spec:
  endpointSelector: {matchLabels: {app: api}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: front}}]
    toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {kafka: [{topic: orders}]}}]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: http}
spec:
  endpointSelector: {matchLabels: {app: front}}
  egress:
  - toEndpoints: [{}]
    toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{}]}}]
"""


def test_a_judge_knows_its_protocol_and_there_is_none_for_two() -> None:
    kafka, _ = TWO_PROTOCOLS.split("---")
    for policy, protocol in ((kafka, "kafka"), (POLICY, "http")):
        node = Node(policy)
        judge = node.view.origin(("10.77.0.2", 4000), SERVER, node.flow(node.front.identity.number)).judge
        assert judge is not None and judge.protocol == protocol
    node = Node(kafka)
    topics = {"orders": "FORWARDED", "secret": "DROPPED"}
    judge = node.view.origin(("10.77.0.2", 4000), SERVER, node.flow(node.front.identity.number)).judge
    assert judge is not None
    assert {topic: judge.judge(KafkaRequest(0, 9, topic=topic)).verdict for topic in topics} == topics
    node = Node(TWO_PROTOCOLS)
    flow = node.flow(node.front.identity.number)._replace(src_endpoint=node.front.id)
    origin = node.view.origin(("10.77.0.2", 4000), SERVER, flow)
    assert origin.judge is None and "egress rules for http and ingress rules for kafka" in origin.reason


@pytest.mark.parametrize("on", [True, False])
def test_a_judge_of_cql_has_the_settings_of_the_node(on: bool) -> None:
    kafka, _ = TWO_PROTOCOLS.split("---")
    node = Node()
    options = CassandraOptions(system_tables=on, max_in_flight=7)
    view = node.load(kafka.replace("kafka: [{topic: orders}]", "cql: [{action: select, keyspace: shop}]"), options)
    judge = view.origin(("10.77.0.2", 4000), SERVER, node.flow(node.front.identity.number)).judge
    assert judge is not None and judge.protocol == "cassandra" and judge.cassandra.max_in_flight == 7
    system = judge.judge(CqlRequest("select", "system", "local")).verdict
    assert judge.judge(CqlRequest("select", "shop", "orders")).verdict == "FORWARDED"
    assert judge.judge(CqlRequest("insert", "shop", "orders")).verdict == "DROPPED"
    assert system == ("FORWARDED" if on else "DROPPED")


def test_a_flow_that_nothing_restricts_has_no_protocol() -> None:
    node = Node(POLICY.partition("    toPorts")[0])
    judge = node.view.origin(("10.77.0.2", 4000), SERVER, node.flow(node.front.identity.number)).judge
    assert judge is not None and judge.protocol is None
