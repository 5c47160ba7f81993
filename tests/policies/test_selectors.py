"""Selectors and peers: whom they hold, with the namespace that loading adds."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.identity import Identity, cidr, reserved, workload
from policies.model import CidrPeer, Peer
from policies.selectors import PeerSet, cidr_holds, inside, peer_holds, selects, selects_endpoint
from policies.verdict import RuleRef
from tests.policies.texts import (
    ABROAD,
    API,
    APISERVER,
    BATCH,
    DESK,
    EVERYBODY,
    HOST,
    NODE,
    OFFICE,
    OFFICE6,
    WEB,
    WORLD,
    api,
    complaints,
    document,
    load,
)

PODS = (API, WEB, BATCH, ABROAD)
REF = RuleRef("p", "ingress[0]", "f", 1)


def held(peers: str, kind: str = "fromEndpoints", *, wide: bool = False) -> list[Identity]:
    """Who of everybody is held by the peers of an ingress rule."""
    (policy,) = load(api(f"ingress: [{{{kind}: {peers}}}]", wide=wide))
    found = policy.rules[0].peers
    assert found is not None
    result = [one for one in EVERYBODY if PeerSet(found).holds(one)]
    assert result == [one for one in EVERYBODY if any(peer_holds(peer, one) for peer in found)]
    return result


@pytest.mark.parametrize(
    ("selector", "who"),
    [
        ("{}", [API, WEB, BATCH]),
        ("{matchLabels: {app: web}}", [WEB]),
        ("{matchLabels: {'k8s:app': web}}", [WEB]),
        ("{matchLabels: {'any:app': web}}", [WEB]),
        ("{matchLabels: {'container:app': web}}", []),
        ("{matchLabels: {app: web, env: dev}}", []),
        ("{matchLabels: {app: web, env: prod}}", [WEB]),
        ("{matchLabels: {app: web}, matchExpressions: [{key: env, operator: Exists}]}", [WEB]),
        ("{matchLabels: {app: api}, matchExpressions: [{key: env, operator: Exists}]}", []),
        ("{matchExpressions: [{key: app, operator: In, values: [web, batch]}]}", [WEB, BATCH]),
        ("{matchExpressions: [{key: env, operator: NotIn, values: [prod]}]}", [API, BATCH]),
        ("{matchExpressions: [{key: env, operator: DoesNotExist}]}", [API, BATCH]),
        ("{matchExpressions: [{key: env, operator: Exists}, {key: app, operator: NotIn, values: [web]}]}", []),
        ("{matchLabels: {io.kubernetes.pod.namespace: other}}", [ABROAD]),
        ("{matchLabels: {'k8s:io.kubernetes.pod.namespace': other}}", [ABROAD]),
        ("{matchExpressions: [{key: io.kubernetes.pod.namespace, operator: Exists}]}", list(PODS)),
        ("{matchLabels: {'k8s:io.cilium.k8s.namespace.labels.team': x}}", []),
        ("{matchLabels: {'reserved:host': ''}}", [HOST]),
        ("{matchLabels: {'reserved:world': ''}}", [WORLD, OFFICE, DESK, OFFICE6]),
    ],
)
def test_selectors_in_a_namespace(selector: str, who: list[Identity]) -> None:
    assert held(f"[{selector}]") == who


def test_selectors_or() -> None:
    assert held("[{matchLabels: {app: web}}, {matchLabels: {app: batch}}]") == [WEB, BATCH]
    assert held("[]") == []


@pytest.mark.parametrize(
    ("selector", "who"),
    [
        ("{}", list(PODS)),
        ("{matchLabels: {app: web}}", [WEB, ABROAD]),
        ("{matchExpressions: [{key: app, operator: DoesNotExist}]}", []),
        ("{matchLabels: {io.kubernetes.pod.namespace: other}}", [ABROAD]),
    ],
)
def test_selectors_of_a_clusterwide_policy(selector: str, who: list[Identity]) -> None:
    assert held(f"[{selector}]", wide=True) == who


@pytest.mark.parametrize(
    ("name", "who"),
    [
        ("world", [WORLD, OFFICE, DESK, OFFICE6]),
        ("host", [HOST]),
        ("remote-node", [NODE, APISERVER]),
        ("kube-apiserver", [APISERVER]),
        ("cluster", [API, WEB, BATCH, ABROAD, HOST, NODE, APISERVER]),
        ("all", list(EVERYBODY)),
        ("none", []),
        ("init", []),
    ],
)
def test_entities(name: str, who: list[Identity]) -> None:
    assert held(f"[{name}]", "fromEntities") == who


def test_the_cluster_holds_what_is_in_it() -> None:
    (policy,) = load(api("ingress: [{fromEntities: [cluster]}]"))
    names = ("host", "remote-node", "kube-apiserver", "health", "init", "ingress", "unmanaged")
    peers = PeerSet(policy.rules[0].peers or ())
    assert all(peers.holds(reserved(name)) for name in names)
    assert not peers.holds(reserved("world")) and not peers.holds(reserved("unknown"))


@pytest.mark.parametrize(
    ("prefixes", "who"),
    [
        ("[10.0.0.0/8]", [OFFICE, DESK]),
        ("[10.1.0.0/16]", [DESK]),
        ("[10.0.0.0/7]", [OFFICE, DESK]),
        ("[0.0.0.0/0]", [OFFICE, DESK]),
        ("['::/0']", [OFFICE6]),
        ("[11.0.0.0/8]", []),
    ],
)
def test_cidrs_hold_addresses_outside_only(prefixes: str, who: list[Identity]) -> None:
    assert held(prefixes, "fromCIDR") == who


def test_exceptions_take_from_their_own_entry_only() -> None:
    assert held("[{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]", "fromCIDRSet") == [OFFICE]
    assert held("[{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}, {cidr: 10.1.2.0/24}]", "fromCIDRSet") == [OFFICE, DESK]
    assert held("[{cidr: 10.0.0.0/8, except: [10.0.0.0/8]}]", "fromCIDRSet") == []


V4 = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(lambda t: ip_network(t, strict=False))
V6 = st.tuples(st.integers(0, 7), st.integers(120, 128)).map(lambda t: ip_network((t[0] << 122, t[1]), strict=False))
SMALL = st.tuples(st.integers(0, 15), st.integers(28, 32)).map(lambda t: ip_network(t, strict=False))
NETWORKS = st.one_of(SMALL, SMALL, V4, V6)


@given(st.lists(st.tuples(NETWORKS, st.lists(NETWORKS, max_size=2)), max_size=6), NETWORKS)
def test_many_prefixes_are_asked_as_one_by_one(written: list[tuple[object, list[object]]], own: object) -> None:
    peers: list[Peer] = [CidrPeer(prefix, tuple(excepts), REF) for prefix, excepts in written]  # type: ignore[arg-type]
    identity = cidr(40000, own)  # type: ignore[arg-type]
    expected = any(isinstance(peer, CidrPeer) and cidr_holds(peer, identity) for peer in peers)
    assert PeerSet(peers).holds(identity) is expected


@given(NETWORKS, NETWORKS)
def test_inside_is_subnet_of(inner: object, outer: object) -> None:
    same = inner.version == outer.version  # type: ignore[attr-defined]
    assert inside(inner, outer) is (same and inner.subnet_of(outer))  # type: ignore[arg-type,attr-defined]


# -- whom a policy selects ---------------------------------------------------------------------------------------


def selected(selector: str, *, wide: bool = False, namespace: str | None = None) -> list[Identity]:
    (policy,) = load(document(f"endpointSelector: {selector}\ningress: [{{}}]", wide=wide, namespace=namespace))
    return [one for one in EVERYBODY if selects_endpoint(policy.selector, one)]


def test_a_policy_selects_pods_of_its_namespace() -> None:
    assert selected("{}") == [API, WEB, BATCH]
    assert selected("{}", namespace="other") == [ABROAD]
    assert selected("{matchLabels: {app: web}}") == [WEB]
    assert selected("{matchLabels: {io.kubernetes.pod.namespace: other}}") == []


def test_the_own_namespace_takes_the_place_of_a_named_one() -> None:
    assert selected("{matchLabels: {'k8s:io.kubernetes.pod.namespace': other, app: web}}") == [WEB]
    expression = "{key: 'k8s:io.kubernetes.pod.namespace', operator: In, values: [other]}"
    assert selected(f"{{matchExpressions: [{expression}]}}") == []


def test_a_clusterwide_policy_selects_pods_of_every_namespace() -> None:
    assert selected("{}", wide=True) == list(PODS)
    assert selected("{matchLabels: {io.kubernetes.pod.namespace: other}}", wide=True) == [ABROAD]
    assert selected("{matchExpressions: [{key: env, operator: DoesNotExist}]}", wide=True) == [API, BATCH]


def test_initialising_pods_have_no_namespace() -> None:
    init = reserved("init")
    (policy,) = load(
        document("endpointSelector: {matchLabels: {'reserved:init': ''}}\negress: [{toEndpoints: [{}]}]", wide=True)
    )
    assert selects_endpoint(policy.selector, init)
    (peer,) = policy.rules[0].peers or ()
    assert peer_holds(peer, init) and peer_holds(peer, WEB)


def test_namespace_labels_reach_into_other_namespaces() -> None:
    """A selector on labels of a namespace is not bound to the policy's own."""
    far = workload(300, {"io.kubernetes.pod.namespace": "far", "io.cilium.k8s.namespace.labels.team": "x"})
    for key in ("io.cilium.k8s.namespace.labels.team", "k8s:io.cilium.k8s.namespace.labels.team"):
        (policy,) = load(api(f"ingress: [{{fromEndpoints: [{{matchLabels: {{'{key}': x}}}}]}}]"))
        assert PeerSet(policy.rules[0].peers or ()).holds(far)


def test_requirements_hold_in_the_namespace_whatever_they_ask() -> None:
    (policy,) = load(api("ingress: [{fromEndpoints: [{}], fromRequires: [{matchLabels: {'reserved:host': ''}}]}]"))
    (required,) = policy.rules[0].requires
    assert not any(selects(required, one) for one in EVERYBODY)


def test_a_label_counts_from_every_source() -> None:
    both = Identity(300, {**workload(300, {"app": "x"}).labels, "container:app": "y"})
    (policy,) = load(document("endpointSelector: {matchLabels: {app: y}}\ningress: [{}]"))
    assert selects(policy.selector, both)


@pytest.mark.parametrize(
    ("selector", "told"),
    [
        ("{matchLabels: {app: true}}", "matchLabels.app: must be a string, not a boolean (quote it)"),
        ("{matchLabels: {app: ~}}", "matchLabels.app: must be a string, not empty"),
        ("{matchLabels: [app]}", "must be a mapping of labels"),
        ("{matchLabels: {app: 'a b'}}", "'a b' is no label value"),
        (f"{{matchLabels: {{app: {'x' * 64}}}}}", "is no label value"),
        ("{matchLabels: {'a b': c}}", "'a b' is no label key"),
        ("{matchLabels: {'k8s:': c}}", "'k8s:' is no label key"),
        ("{matchLabels: {':app': c}}", "':app' is no label key"),
        ("{matchLabels: {'reserved:hots': ''}}", "no reserved label is named 'hots' (did you mean host?)"),
        ("{matchLabels: {'reserved:all': ''}}", "no reserved label is named 'all' (use entity all)"),
        ("{matchLabels: {'cidr:10.0.0.0/8': ''}}", "not supported: labels of source 'cidr'"),
        ("{matchExpressions: [{key: app, operator: in, values: [a]}]}", "unknown operator 'in'"),
        ("{matchExpressions: [{key: app, operator: In}]}", "operator In needs values"),
        ("{matchExpressions: [{key: app, operator: NotIn, values: []}]}", "operator NotIn needs values"),
        ("{matchExpressions: [{key: app, operator: Exists, values: [a]}]}", "operator Exists needs no values"),
        ("{matchExpressions: [{key: app}]}", "needs operator"),
        ("{matchExpressions: [{}]}", "needs key"),
        ("{matchExpressions: {key: app}}", "must be a list, not a mapping"),
        ("{app: web}", "unknown key 'app'"),
        ("[]", "must be a mapping, not a list"),
    ],
)
def test_faulty_selectors(selector: str, told: str) -> None:
    as_peer = complaints(api(f"ingress: [{{fromEndpoints: [{selector}]}}]"))
    assert any(told in complaint for complaint in as_peer), as_peer
    as_subject = complaints(document(f"endpointSelector: {selector}\ningress: [{{}}]"))
    assert any(told in complaint for complaint in as_subject), as_subject
    as_required = complaints(api(f"ingress: [{{fromEndpoints: [{{}}], fromRequires: [{selector}]}}]"))
    assert any(told in complaint for complaint in as_required), as_required
