"""Peers and ports of policy files: what Cilium's schema takes, and what is not supported here."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from policies.load_rules import ENTITIES
from policies.model import CidrPeer, EntityPeer, Port, Rule, Selector
from tests.policies.texts import api, complaints, load


def rule(text: str) -> Rule:
    (policy,) = load(api(text))
    (found,) = policy.rules
    return found


def ports(text: str) -> tuple[Port, ...]:
    found = rule(f"ingress: [{{toPorts: [{{ports: [{text}]}}]}}]").ports
    assert found is not None
    return found[0].ports


def test_peers_and_where_they_stand() -> None:
    found = rule("ingress:\n- fromEntities: [world, cluster]\n")
    assert [(type(p), p.ref.rule) for p in found.peers or ()] == [
        (EntityPeer, "ingress[0].fromEntities[0]"),
        (EntityPeer, "ingress[0].fromEntities[1]"),
    ]
    found = rule("egress:\n- toCIDRSet:\n  - cidr: 10.1.2.3/8\n    except: [10.9.0.0/16]\n")
    (peer,) = found.peers or ()
    assert isinstance(peer, CidrPeer)
    assert (peer.prefix, peer.excepts) == (ip_network("10.0.0.0/8"), (ip_network("10.9.0.0/16"),))
    found = rule("ingress: [{fromCIDR: ['2001:db8::/32', 10.0.0.1/32]}]")
    assert [p.prefix for p in found.peers or () if isinstance(p, CidrPeer)] == [
        ip_network("2001:db8::/32"),
        ip_network("10.0.0.1/32"),
    ]


@pytest.mark.parametrize("key", ["fromEndpoints", "fromEntities", "fromCIDR", "fromCIDRSet"])
def test_an_empty_list_of_peers_is_nobody_and_an_absent_one_everybody(key: str) -> None:
    assert rule(f"ingress: [{{{key}: []}}]").peers == ()
    assert rule("ingress: [{toPorts: [{ports: [{port: '80'}]}]}]").peers is None


def test_requires_alone_are_nobody() -> None:
    found = rule("ingress: [{fromRequires: [{matchLabels: {env: prod}}], toPorts: [{ports: [{port: '80'}]}]}]")
    assert found.peers == ()
    assert len(found.requires) == 1
    text = api("ingressDeny: [{fromRequires: [{matchLabels: {env: prod}}]}]")
    assert complaints(text) == ["7:spec.ingressDeny[0]: fromRequires without fromEndpoints denies nobody"]


def test_all_entities_of_the_schema() -> None:
    found = rule(f"ingress: [{{fromEntities: [{', '.join(ENTITIES)}]}}]")
    assert [p.name for p in found.peers or () if isinstance(p, EntityPeer)] == list(ENTITIES)


def test_no_ports_and_empty_ports() -> None:
    assert rule("ingress: [{fromEntities: [all]}]").ports is None
    assert rule("ingress: [{fromEntities: [all], toPorts: []}]").ports is None
    found = rule("ingress: [{toPorts: [{}]}]").ports
    assert found is not None and (found[0].ports, found[0].rules) == ((), None)


@pytest.mark.parametrize(
    ("written", "port"),
    [
        ("{port: '80', protocol: TCP}", Port("TCP", 80, 80)),
        ("{port: '80'}", Port("ANY", 80, 80)),
        ("{port: '80', protocol: ANY}", Port("ANY", 80, 80)),
        ("{port: '0', protocol: UDP}", Port("UDP", 0, 65535)),
        ("{port: '80', endPort: 90, protocol: TCP}", Port("TCP", 80, 90)),
        ("{port: '80', endPort: 79, protocol: TCP}", Port("TCP", 80, 80)),
        ("{port: '80', endPort: 0, protocol: TCP}", Port("TCP", 80, 80)),
        ("{port: '65535', protocol: SCTP}", Port("SCTP", 65535, 65535)),
        ("{port: HTTP-Alt, protocol: TCP}", Port("TCP", 0, 0, "http-alt")),
        ("{port: 8a, protocol: TCP}", Port("TCP", 0, 0, "8a")),
        ("{port: '0x10', protocol: TCP}", Port("TCP", 0, 0, "0x10")),
        ("{port: '010', protocol: TCP}", Port("TCP", 8, 8)),
    ],
)
def test_ports(written: str, port: Port) -> None:
    assert ports(written) == (port,)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("{port: 80}", "ports[0].port: must be a string, not a number (quote it)"),
        ("{port: '65536'}", "'65536' is neither a port number"),
        ("{port: '-1'}", "'-1' is neither"),
        ("{port: '08'}", "'08' is neither"),
        ("{port: '80-90'}", "'80-90' is neither"),
        ("{port: ''}", "'' is neither"),
        ("{port: a-name-that-is-too-long}", "is neither a port number"),
        ("{port: 'a--b'}", "is neither a port number"),
        ("{port: '٨٠'}", "is neither a port number"),
        ("{protocol: TCP}", 'ports[0]: needs port ("0" is every port)'),
        ("{port: '80', endPort: 65536}", "endPort must be a number from 0 to 65535"),
        ("{port: '80', endPort: '90'}", "endPort must be a number"),
        ("{port: http, endPort: 90}", "not supported: endPort beside a port name"),
        ("{port: '80', protocol: tcp}", "protocol must be one of TCP, UDP, SCTP, ANY, not 'tcp'"),
        ("{port: '80', protocol: ICMP}", "protocol must be one of"),
        ("{port: '80', protocol: VRRP}", "protocol must be one of"),
        ("{port: '80', proto: TCP}", "unknown key 'proto', did you mean protocol?"),
        (", ".join(["{port: '80'}"] * 41), "at most 40 ports may stand in one list, here are 41"),
    ],
)
def test_faulty_ports(written: str, told: str) -> None:
    found = complaints(api(f"ingress: [{{toPorts: [{{ports: [{written}]}}]}}]"))
    assert any(told in complaint for complaint in found), found


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ("[{fromEntities: [world], fromCIDR: [10.0.0.0/8]}]", "fromEntities and fromCIDR cannot stand in one rule"),
        ("[{fromCIDR: [10.0.0.0/8], fromCIDRSet: [{cidr: 10.0.0.0/8}]}]", "fromCIDR and fromCIDRSet cannot stand"),
        ("[{fromEndpoints: [{}], fromEntities: [world]}]", "fromEndpoints and fromEntities cannot stand"),
        ("[{fromEndpoints: }]", "fromEndpoints: has no value"),
        ("[{fromEndpoints: {}}]", "fromEndpoints: must be a list, not a mapping"),
        ("[~]", "ingress[0]: must be a mapping, not empty"),
        ("[{fromEntities: [wrld]}]", "no entity is named 'wrld', did you mean world?"),
        ("[{fromEntities: [world-ipv4]}]", "no entity is named 'world-ipv4'"),
        ("[{toEndpoints: [{}]}]", "unknown key 'toEndpoints'"),
        ("[{fromCIDR: [10.0.0.1]}]", "'10.0.0.1' is no prefix such as 10.0.0.0/8"),
        ("[{fromCIDR: ['::ffff:10.0.0.0/104']}]", "write an IPv4 prefix in its own form"),
        ("[{fromCIDR: [10.0.0.0/33]}]", "'10.0.0.0/33' is no prefix"),
        ("[{fromCIDR: [10.0.0.0/255.0.0.0]}]", "is no prefix"),
        ("[{fromCIDR: ['fe80::1%eth0/64']}]", "is no prefix"),
        ("[{fromCIDR: [010.0.0.0/8]}]", "is no prefix"),
        ("[{fromCIDRSet: [{cidr: 10.0.0.0/8, except: [11.0.0.0/16]}]}]", "11.0.0.0/16 is not inside 10.0.0.0/8"),
        ("[{fromCIDRSet: [{cidr: 10.0.0.0/8, except: ['::/16']}]}]", "is not inside 10.0.0.0/8"),
        ("[{fromCIDRSet: [{except: [10.0.0.0/16]}]}]", "fromCIDRSet[0]: needs a cidr"),
        ("[{fromCIDRSet: [{cidrGroupRef: g}]}]", "not supported: cidrGroupRef (CiliumCIDRGroup)"),
        ("[{fromCIDRSet: [{cidrGroupSelector: {}}]}]", "not supported: cidrGroupSelector"),
        ("[{fromNodes: [{}]}]", "not supported: fromNodes"),
        ("[{fromGroups: [{aws: {}}]}]", "not supported: fromGroups"),
        ("[{icmps: [{fields: [{type: 8}]}]}]", "not supported: icmps (ICMP types)"),
        ("[{fromEndpoints: [{}], authentication: {mode: required}}]", "not supported: authentication"),
    ],
)
def test_faulty_rules(rules: str, told: str) -> None:
    found = complaints(api(f"ingress: {rules}"))
    assert any(told in complaint for complaint in found), found


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ("[{toFQDNs: [{matchName: a.example}]}]", "not supported: toFQDNs"),
        ("[{toServices: [{k8sService: {}}]}]", "not supported: toServices"),
        ("[{toNodes: [{}]}]", "not supported: toNodes"),
        ("[{toGroups: [{aws: {}}]}]", "not supported: toGroups"),
        ("[{icmps: []}]", "not supported: icmps"),
        ("[{fromEndpoints: [{}]}]", "unknown key 'fromEndpoints', did you mean toEndpoints?"),
    ],
)
def test_faulty_egress_rules(rules: str, told: str) -> None:
    for key in ("egress", "egressDeny"):
        found = complaints(api(f"{key}: {rules}"))
        assert any(told in complaint for complaint in found), found


TCP = "ports: [{port: '80', protocol: TCP}]"


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (f"{TCP}, rules: {{}}", "an empty rules is refused"),
        (f"{TCP}, rules: {{HTTP: []}}", "unknown key 'HTTP', did you mean http?"),
        (f"{TCP}, rules: {{dns: [{{matchName: a}}]}}", "not supported: dns"),
        (f"{TCP}, rules: {{dns: [{{matchName: a}}]}}", "not supported: dns"),
        (f"{TCP}, rules: {{l7proto: memcached, l7: []}}", "not supported: l7proto 'memcached' (only cassandra is)"),
        (f"{TCP}, rules: {{http: [], kafka: []}}", "http and kafka cannot stand in one rules"),
        (f"{TCP}, rules: {{http: {{}}}}", "rules.http: must be a list"),
        (f"{TCP}, terminatingTLS: {{}}", "not supported: terminatingTLS (TLS is not terminated)"),
        (f"{TCP}, originatingTLS: {{}}", "not supported: originatingTLS"),
        (f"{TCP}, serverNames: [a]", "not supported: serverNames"),
        (f"{TCP}, listener: {{}}", "not supported: listener"),
        ("ports: [{port: '80'}], rules: {http: [{}]}", "L7 rules need protocol: TCP spelt out"),
        ("ports: [{port: '80', protocol: ANY}], rules: {http: [{}]}", "L7 rules need protocol: TCP spelt out"),
        ("ports: [{port: '80', protocol: UDP}], rules: {http: [{}]}", "L7 rules need protocol: TCP spelt out"),
        ("ports: [{port: '80'}], rules: {http: []}", "L7 rules need protocol: TCP spelt out"),
        ("ports: [{port: '0', protocol: TCP}], rules: {http: [{}]}", "L7 rules cannot be used with port 0"),
    ],
)
def test_faulty_entries_of_to_ports(entry: str, told: str) -> None:
    for key in ("ingress", "ingressDeny"):
        found = complaints(api(f"{key}: [{{toPorts: [{{{entry}}}]}}]"))
        assert any(told in complaint for complaint in found), found


def test_l7_rules_on_ranges_and_names() -> None:
    found = rule(
        "ingress: [{toPorts: [{ports: [{port: '80', endPort: 90, protocol: TCP}, {port: web, protocol: TCP}],"
        " rules: {http: [{}]}}]}]"
    ).ports
    assert found is not None and found[0].rules is not None and len(found[0].rules) == 1


def test_an_empty_http_list_is_no_l7_rule() -> None:
    for key in ("ingress", "ingressDeny"):
        found = rule(f"{key}: [{{toPorts: [{{{TCP}, rules: {{http: []}}}}]}}]").ports
        assert found is not None and found[0].rules is None


def test_selectors_among_the_peers() -> None:
    found = rule("ingress: [{fromEndpoints: [{matchLabels: {app: web}}, {}]}]")
    assert all(isinstance(peer, Selector) for peer in found.peers or ())
    assert len(found.peers or ()) == 2
