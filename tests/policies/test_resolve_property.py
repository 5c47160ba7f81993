"""Random policies: tables against a plain reading of the same files, one port at a time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.decision import L4Decision, L4Kind, L7Lists
from policies.identity import Identity
from policies.load import load_text
from policies.resolve import Resolver
from tests.policies.texts import API, BATCH, DESK, HOST, INGRESS, NODE, OFFICE, WEB, WORLD

PEERS = (WEB, BATCH, HOST, NODE, WORLD, OFFICE, DESK)
PORTS = (0, 1, 79, 80, 81, 90, 95, 100, 101, 443, 9000, 65535)
PROTOCOLS = ("TCP", "UDP", "SCTP", "ICMP")
SELECTORS: list[dict[str, Any]] = [{}, {"matchLabels": {"app": "web"}}, {"matchLabels": {"env": "prod"}}]

# -- random policy files -----------------------------------------------------------------------------------------

peers = st.one_of(
    st.just({}),
    st.lists(st.sampled_from(SELECTORS), max_size=2).map(lambda found: {"fromEndpoints": found}),
    st.lists(st.sampled_from(["all", "world", "host", "cluster", "none"]), max_size=2).map(
        lambda f: {"fromEntities": f}
    ),
    st.lists(st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0"]), max_size=2).map(lambda f: {"fromCIDR": f}),
    st.just({"fromCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}]}),
)
numbers: list[dict[str, Any]] = [
    {"port": "80"},
    {"port": "443"},
    {"port": "79", "endPort": 90},
    {"port": "90", "endPort": 100},
    {"port": "100", "endPort": 1},
    {"port": "admin"},
    {"port": "nobody"},
]
plain_ports = st.tuples(
    st.sampled_from([*numbers, {"port": "0"}]),
    st.sampled_from([{}, {"protocol": "ANY"}, {"protocol": "TCP"}, {"protocol": "UDP"}]),
).map(lambda parts: {**parts[0], **parts[1]})
plain_entries = st.lists(plain_ports, max_size=2).map(lambda found: {"ports": found})
l7_entries = st.tuples(st.lists(st.sampled_from(numbers), min_size=1, max_size=2), st.integers(0, 2)).map(
    lambda parts: {
        "ports": [{**port, "protocol": "TCP"} for port in parts[0]],
        "rules": {"http": [{"path": "?"}] * parts[1]},
    }
)
ports = st.one_of(
    st.just({}),
    st.lists(st.one_of(plain_entries, l7_entries, l7_entries), max_size=3).map(lambda found: {"toPorts": found}),
)
rules = st.tuples(peers, ports).map(lambda parts: {**parts[0], **parts[1]})
specs = st.fixed_dictionaries(
    {
        "endpointSelector": st.sampled_from([{}, {"matchLabels": {"app": "api"}}, {"matchLabels": {"app": "web"}}]),
        "ingress": st.lists(rules, min_size=1, max_size=3),
        "ingressDeny": st.one_of(st.just([]), st.lists(rules, max_size=1)),
    },
    optional={"enableDefaultDeny": st.sampled_from([{}, {"ingress": False}, {"ingress": True}])},
)


@dataclass
class File:
    """One policy: its spec, and whether it is in audit mode."""

    spec: dict[str, Any]
    audit: bool

    def text(self, number: int) -> str:
        notes = {"l7proxy.io/mode": "audit" if self.audit else "enforce"}
        metadata = {"name": f"p{number}", "annotations": notes}
        head = {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy"}
        return json.dumps({**head, "metadata": metadata, "spec": self.spec}) + "\n---\n"


@st.composite
def files(draw: st.DrawFn) -> list[File]:
    found = [
        File(json.loads(json.dumps(spec)), draw(st.sampled_from([False, False, True])))
        for spec in draw(st.lists(specs, min_size=1, max_size=3))
    ]
    count = itertools.count()
    for file in found:
        for rule in (*file.spec["ingress"], *file.spec["ingressDeny"]):
            for entry in rule.get("toPorts", []):
                for http in entry.get("rules", {}).get("http", []):
                    http["path"] = f"/{next(count)}"
    return found


# -- a plain reading ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """One set of policies' word on one port."""

    kind: L4Kind
    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()
    everything: bool = False


def labels_hold(selector: Mapping[str, Any], identity: Identity) -> bool:
    wanted = {"io.kubernetes.pod.namespace": "default", **selector.get("matchLabels", {})}
    return all(identity.labels.get(f"k8s:{key}") == value for key, value in wanted.items())


def entity_holds(name: str, identity: Identity) -> bool:
    pod = any(key.startswith("k8s:") for key in identity.labels)
    if name == "cluster":
        return pod or bool({"reserved:host", "reserved:remote-node"} & identity.labels.keys())
    return name == "all" or f"reserved:{name}" in identity.labels


def prefix_holds(prefix: str, identity: Identity) -> bool:
    return isinstance(identity.prefix, IPv4Network) and identity.prefix.subnet_of(IPv4Network(prefix))


def peer_holds(rule: Mapping[str, Any], identity: Identity) -> bool:
    if not any(key.startswith("from") for key in rule):
        return bool(rule.get("toPorts"))
    return (
        any(labels_hold(one, identity) for one in rule.get("fromEndpoints", []))
        or any(entity_holds(one, identity) for one in rule.get("fromEntities", []))
        or any(prefix_holds(one, identity) for one in rule.get("fromCIDR", []))
        or any(
            prefix_holds(one["cidr"], identity) and not any(prefix_holds(e, identity) for e in one["except"])
            for one in rule.get("fromCIDRSet", [])
        )
    )


def port_holds(port: Mapping[str, Any], protocol: str, number: int) -> bool:
    if protocol == "ICMP" or port.get("protocol", "ANY") not in ("ANY", protocol):
        return False
    low = API.named_ports.get(port["port"]) if port["port"].isalpha() else int(port["port"])
    if low is None:
        return False
    return low == 0 or low <= number <= max(low, port.get("endPort", 0))


def lists_of(rules: Iterable[Mapping[str, Any]], peer: Identity, protocol: str, number: int) -> list[list[str]]:
    """For each entry that holds peer and port its paths; an empty list is an L4 rule."""
    found = []
    for rule in rules:
        if not peer_holds(rule, peer):
            continue
        if not rule.get("toPorts"):
            found.append([])
        for entry in rule.get("toPorts", []):
            if any(port_holds(port, protocol, number) for port in entry["ports"]):
                found.append([http["path"] for http in entry.get("rules", {}).get("http", [])])
    return found


def say(policies: Sequence[File], peer: Identity, protocol: str, number: int) -> Said:
    chosen = [file.spec for file in policies if labels_hold(file.spec["endpointSelector"], API)]
    strict = any(spec.get("enableDefaultDeny", {}).get("ingress", True) for spec in chosen)
    allows = lists_of((rule for spec in chosen for rule in spec["ingress"]), peer, protocol, number)
    denies = lists_of((rule for spec in chosen for rule in spec["ingressDeny"]), peer, protocol, number)
    if [] in denies or (strict and not allows):
        return Said(L4Kind.DENY)
    allow, deny = frozenset(itertools.chain(*allows)), frozenset(itertools.chain(*denies))
    everything = [] in allows or not strict
    return Said(L4Kind.PROXY if allow or deny else L4Kind.ALLOW, allow, deny, everything)


def seen(lists: L7Lists) -> Said:
    """Lists of a decision in the same words; a list that refuses everything is a denial."""
    allow = frozenset(str(rule.path) for rule in lists.allow)
    deny = frozenset(str(rule.path) for rule in lists.deny)
    everything = lists.open or lists.allow_all is not None
    if lists.deny_all is not None or not (allow or deny or everything):
        return Said(L4Kind.DENY)
    return Said(L4Kind.PROXY if allow or deny else L4Kind.ALLOW, allow, deny, everything)


def agrees(decision: L4Decision, enforced: Said, candidate: Said) -> bool:
    if enforced.kind is L4Kind.DENY:
        return decision.kind is L4Kind.DENY and not decision.audit and decision.l7 is None
    if decision.audit is not (candidate.kind is L4Kind.DENY):
        return False
    if enforced.kind is L4Kind.ALLOW and candidate.kind is not L4Kind.PROXY:
        return decision.kind is L4Kind.ALLOW and decision.l7 is None
    if decision.kind is not L4Kind.PROXY or decision.l7 is None:
        return False
    return seen(decision.l7.enforced) == enforced and seen(decision.l7.candidate) == candidate


@settings(max_examples=100)
@given(files(), st.sampled_from(PEERS))
def test_tables_agree_with_a_plain_reading(policies: list[File], peer: Identity) -> None:
    found = Resolver(load_text("".join(file.text(number) for number, file in enumerate(policies)), "f"))
    in_force = [file for file in policies if not file.audit]
    rows = found.table(INGRESS, API, peer)
    for protocol in ("TCP", "UDP", "SCTP", "OTHER"):
        own = [row for row in rows if row.protocol == protocol]
        assert own[0].low == 0 and own[-1].high == 65535
        assert all(one.high + 1 == two.low for one, two in itertools.pairwise(own))
    for protocol, port in itertools.product(PROTOCOLS, PORTS):
        decision = found.decide(INGRESS, API, peer, protocol, port, API)
        known = "OTHER" if protocol == "ICMP" else protocol
        (row,) = [row for row in rows if row.protocol == known and row.low <= port <= row.high]
        assert row.decision == decision
        enforced, candidate = (say(which, peer, protocol, port) for which in (in_force, policies))
        assert agrees(decision, enforced, candidate), (protocol, port, decision, enforced, candidate)


@settings(max_examples=40)
@given(files())
def test_equal_signatures_are_equal_tables(policies: list[File]) -> None:
    text = "".join(file.text(number) for number, file in enumerate(policies))
    found = Resolver(load_text(text, "f"))
    for one, other in itertools.combinations(PEERS, 2):
        same = found.peer_signature(INGRESS, API, one) == found.peer_signature(INGRESS, API, other)
        # A resolver of its own, so that the two tables do not come from one cache.
        tables = found.table(INGRESS, API, one), Resolver(load_text(text, "f")).table(INGRESS, API, other)
        assert not same or tables[0] == tables[1]


@settings(max_examples=40)
@given(files(), st.sampled_from(PEERS))
def test_a_node_in_audit_mode_denies_nothing(policies: list[File], peer: Identity) -> None:
    text = "".join(file.text(number) for number, file in enumerate(policies))
    found = Resolver(load_text(text, "f"), node_audit=True)
    for protocol, port in itertools.product(PROTOCOLS, PORTS):
        decision = found.decide(INGRESS, API, peer, protocol, port, API)
        candidate = say(policies, peer, protocol, port)
        assert agrees(decision, Said(L4Kind.ALLOW, everything=True), candidate)


def test_the_prefixes_of_this_test_have_the_peers_it_needs() -> None:
    assert OFFICE.prefix == ip_network("10.0.0.0/8") and DESK.prefix == ip_network("10.1.2.3/32")
