"""L3/L4 policy, line by line as Cilium has it: default deny, peers, ports, deny before allow."""

from __future__ import annotations

import pytest

from policies.decision import L4Kind
from policies.identity import Identity, workload
from tests.policies.texts import (
    ABROAD,
    ALLOW,
    API,
    BATCH,
    DENY,
    DESK,
    EGRESS,
    HOST,
    INGRESS,
    OFFICE,
    PROXY,
    WEB,
    WORLD,
    api,
    document,
    everyone,
    http,
    kinds,
    passes_all,
    paths,
    resolver,
    to_api,
)

# -- default deny ------------------------------------------------------------------------------------------------


def test_what_no_policy_selects_is_open() -> None:
    found = resolver(document("endpointSelector: {matchLabels: {app: web}}\ningress: [{}]"))
    assert kinds(found) == everyone(ALLOW)
    decision = to_api(found, WEB)
    assert (decision.rule, decision.selected, decision.audit) == (None, False, False)
    assert not found.touched(INGRESS, API) and found.touched(INGRESS, WEB)


@pytest.mark.parametrize(
    "rules",
    [
        "ingress: [{}]",
        "ingressDeny: [{fromEntities: [world]}]",
        "ingressDeny: [{}]",
        "ingress: [{fromEndpoints: []}]",
        "ingress: [{fromCIDR: []}]",
        "ingress: [{fromEntities: []}]",
        "ingress: [{fromEndpoints: [], toPorts: [{ports: [{port: '80'}]}]}]",
        "ingress: [{fromCIDRSet: [], toPorts: [{ports: [{port: '80'}]}]}]",
        "ingress: [{toPorts: [{}]}]",
        "ingress: [{toPorts: []}]",
        "ingress: [{fromEntities: [all], toPorts: [{}]}]",
        "ingress: [{fromEntities: [all], toPorts: [{rules: {http: [{}]}}]}]",
        "ingress: [{fromRequires: [{matchLabels: {app: web}}]}]",
        "ingress: [{fromRequires: [{matchLabels: {app: web}}], toPorts: [{ports: [{port: '80'}]}]}]",
        "ingress: [{fromEntities: [none]}]",
        "ingress: [{toPorts: [{ports: [{port: unknown}]}]}]",
        "egress: [{}]\nenableDefaultDeny: {ingress: true}",
    ],
)
def test_default_deny_and_nobody_allowed(rules: str) -> None:
    found = resolver(api(rules))
    assert kinds(found) == everyone(DENY)
    decision = to_api(found, WEB)
    assert decision.rule is None and decision.selected
    assert "default deny: no rule of policy default/p (p.yaml:5)" in decision.reason


def test_default_deny_is_for_a_direction() -> None:
    found = resolver(api("ingress: []\negress: [{}]"))
    assert kinds(found) == everyone(ALLOW)
    assert not found.selected(INGRESS, API)
    assert found.selected(EGRESS, API)
    assert found.decide(EGRESS, API, WEB, "TCP", 80, WEB).kind is DENY
    assert found.decide(EGRESS, WEB, API, "TCP", 80, API).kind is ALLOW


def test_without_default_deny_rules_only_deny_and_observe() -> None:
    off = "enableDefaultDeny: {ingress: false}"
    found = resolver(api(f"ingress: [{{fromEndpoints: [{{}}], toPorts: [{http('/a')}]}}]\n{off}"))
    assert kinds(found) == everyone(ALLOW) | {"web": PROXY, "batch": PROXY}
    decision = to_api(found, WEB)
    assert paths(decision) == ["/a"] and passes_all(decision)
    assert found.touched(INGRESS, API) and not found.selected(INGRESS, API)
    found = resolver(api(f"ingressDeny: [{{fromEntities: [world]}}]\n{off}"))
    assert kinds(found) == everyone(ALLOW) | {"world": DENY, "desk": DENY}


def test_one_policy_in_default_deny_is_enough() -> None:
    quiet = api(f"ingress: [{{toPorts: [{http('/a')}]}}]\nenableDefaultDeny: {{ingress: false}}")
    found = resolver(quiet, api("ingress: [{fromEntities: [host]}]", name="q"))
    decision = to_api(found, WEB)
    assert decision.kind is PROXY and paths(decision) == ["/a"] and not passes_all(decision)
    assert to_api(found, WEB, 81).kind is DENY


# -- peers and ports ---------------------------------------------------------------------------------------------


def test_peer_and_port_within_a_rule_or_among_rules() -> None:
    text = """
        ingress:
        - fromEndpoints: [{matchLabels: {app: web}}]
          toPorts: [{ports: [{port: '80', protocol: TCP}, {port: '90', endPort: 99}]}]
        - fromEntities: [host]
        - toPorts: [{ports: [{port: '53', protocol: UDP}]}]
    """
    found = resolver(api(text))
    assert kinds(found) == everyone(DENY) | {"web": ALLOW, "host": ALLOW}
    assert kinds(found, 80, "UDP") == everyone(DENY) | {"host": ALLOW}
    for port, kind in ((89, DENY), (90, ALLOW), (99, ALLOW), (100, DENY)):
        assert [to_api(found, WEB, port, one).kind for one in ("TCP", "UDP", "SCTP")] == [kind] * 3
    assert kinds(found, 53, "UDP") == everyone(ALLOW)
    assert kinds(found, 53) == everyone(DENY) | {"host": ALLOW}
    assert kinds(found, 0, "ICMP") == everyone(DENY) | {"host": ALLOW}


def test_port_zero_is_every_port_of_its_protocol() -> None:
    found = resolver(api("ingress: [{toPorts: [{ports: [{port: '0', protocol: TCP}]}]}]"))
    assert {to_api(found, WEB, port).kind for port in (0, 1, 80, 65535)} == {ALLOW}
    assert to_api(found, WEB, 80, "UDP").kind is DENY
    found = resolver(api("ingress: [{toPorts: [{ports: [{port: '0'}]}]}]"))
    assert [to_api(found, WEB, 80, one).kind for one in ("TCP", "UDP", "SCTP", "ICMP")] == [ALLOW] * 3 + [DENY]


def test_an_end_port_below_the_port_is_ignored() -> None:
    found = resolver(api("ingress: [{toPorts: [{ports: [{port: '80', endPort: 10, protocol: TCP}]}]}]"))
    assert [to_api(found, WEB, port).kind for port in (10, 79, 80, 81)] == [DENY, DENY, ALLOW, DENY]


def test_empty_ports_are_every_port() -> None:
    found = resolver(api("ingress: [{fromEndpoints: [{}], toPorts: []}]"))
    assert kinds(found, 0, "ICMP") == everyone(DENY) | {"web": ALLOW, "batch": ALLOW}


def test_cidrs_exceptions_and_the_world() -> None:
    found = resolver(api("ingress: [{fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]}]"))
    assert [to_api(found, one).kind for one in (OFFICE, DESK, WORLD, WEB, HOST)] == [ALLOW, DENY, DENY, DENY, DENY]
    found = resolver(
        api("ingress:\n- fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]\n- fromCIDR: [10.1.2.0/24]")
    )
    assert [to_api(found, one).kind for one in (OFFICE, DESK)] == [ALLOW, ALLOW]


def test_requires_bind_the_selectors_of_the_direction() -> None:
    needs = api("ingress: [{fromRequires: [{matchLabels: {env: prod}}]}]", name="q")
    found = resolver(api("ingress:\n- fromEndpoints: [{}]\n- fromEntities: [host]\n- fromCIDR: [10.0.0.0/8]"), needs)
    assert kinds(found) == everyone(DENY) | {"web": ALLOW, "host": ALLOW, "desk": ALLOW}
    found = resolver(api("ingressDeny: [{fromEndpoints: [{}]}]\ningress: [{fromEntities: [all]}]"), needs)
    assert kinds(found) == everyone(ALLOW) | {"web": DENY, "batch": DENY}


@pytest.mark.parametrize(
    ("allow", "deny"),
    [
        ("{fromEndpoints: [{matchLabels: {app: web}}]}", "{fromEndpoints: [{}]}"),
        ("{fromEndpoints: [{}]}", "{fromEndpoints: [{matchLabels: {app: web}}]}"),
        ("{fromEndpoints: [{}], toPorts: [{ports: [{port: '80'}]}]}", "{fromEndpoints: [{}]}"),
        ("{fromEndpoints: [{}]}", "{toPorts: [{ports: [{port: '80', protocol: TCP}]}]}"),
        ("{fromEntities: [all]}", "{toPorts: [{ports: [{port: '1', endPort: 1000}]}]}"),
        ("{toPorts: [{ports: [{port: '1', endPort: 1000}]}]}", "{toPorts: [{ports: [{port: HTTP}]}]}"),
        (f"{{toPorts: [{http('/a')}]}}", "{fromEndpoints: [{matchLabels: {app: web}}]}"),
    ],
)
def test_deny_beats_allow(allow: str, deny: str) -> None:
    found = resolver(api(f"ingress: [{allow}]"), api(f"ingressDeny: [{deny}]", name="q"))
    decision = to_api(found, WEB)
    assert decision.kind is DENY
    assert decision.rule is not None and decision.rule.policy == "default/q"
    assert decision.reason.startswith("denied by policy default/q, ingressDeny[0]")
    assert to_api(resolver(api(f"ingress: [{allow}]")), WEB).kind is not DENY


def test_named_ports_of_ingress_are_the_endpoints_own() -> None:
    found = resolver(api("ingress: [{toPorts: [{ports: [{port: ADMIN, protocol: TCP}, {port: nobody}]}]}]"))
    assert [to_api(found, WEB, port).kind for port in (9000, 80)] == [ALLOW, DENY]
    plain = workload(300, {"app": "api"})
    assert found.decide(INGRESS, plain, WEB, "TCP", 9000, plain).kind is DENY


def test_named_ports_of_egress_are_the_destinations() -> None:
    text = (
        "endpointSelector: {matchLabels: {app: batch}}\negress: [{toPorts: [{ports: [{port: http, protocol: TCP}]}]}]"
    )
    found = resolver(document(text))

    def kind(peer: Identity, port: int) -> L4Kind:
        return found.decide(EGRESS, BATCH, peer, "TCP", port, peer).kind

    assert [kind(API, 80), kind(API, 8081), kind(ABROAD, 8081), kind(ABROAD, 80)] == [ALLOW, DENY, ALLOW, DENY]
    assert kind(WORLD, 80) is DENY
    assert found.peer_signature(EGRESS, BATCH, API) != found.peer_signature(EGRESS, BATCH, ABROAD)


def test_localhost_by_option() -> None:
    deny = "ingressDeny: [{toPorts: [{ports: [{port: '22'}]}]}]\n"
    text = api(deny + f"ingress: [{{fromEndpoints: [{{}}]}}, {{toPorts: [{http('/a')}]}}]")
    assert to_api(resolver(text), HOST, 81).kind is DENY
    found = resolver(text, allow_localhost=True)
    assert to_api(found, HOST, 81).kind is ALLOW
    assert to_api(found, HOST, 80).kind is ALLOW
    assert to_api(found, HOST, 22).kind is DENY
    assert to_api(found, WORLD, 81).kind is DENY
    assert to_api(found, WORLD, 80).kind is PROXY
    out = resolver(document("endpointSelector: {}\negress: [{}]"), allow_localhost=True)
    assert out.decide(EGRESS, API, HOST, "TCP", 80, HOST).kind is DENY
