"""The L7 lists of a peer and port: merged as Cilium merges them, and with deny rules of our own."""

from __future__ import annotations

import pytest

from policies.decision import L4Decision
from tests.policies.texts import (
    ALLOW,
    BATCH,
    DENY,
    HOST,
    PROXY,
    TCP80,
    WEB,
    WORLD,
    api,
    http,
    passes_all,
    paths,
    resolver,
    to_api,
)

# -- L7 lists ----------------------------------------------------------------------------------------------------


def test_lists_of_all_rules_and_policies_are_one() -> None:
    first = api(
        f"""
        ingress:
        - fromEndpoints: [{{matchLabels: {{app: web}}}}]
          toPorts:
          - {http("/web")}
          - {{ports: [{{port: '80', endPort: 90, protocol: TCP}}], rules: {{http: [{{path: /range}}]}}}}
        - toPorts: [{{ports: [{{port: http, protocol: TCP}}], rules: {{http: [{{path: /name}}]}}}}]
        """
    )
    second = api(f"ingress: [{{fromEndpoints: [{{}}], toPorts: [{http('/second')}]}}]", name="q")
    found = resolver(first, second)
    assert paths(to_api(found, WEB)) == ["/web", "/range", "/name", "/second"]
    assert paths(to_api(found, WEB, 85)) == ["/range"]
    assert paths(to_api(found, BATCH)) == ["/name", "/second"]
    assert paths(to_api(found, WORLD)) == ["/name"]
    assert not passes_all(to_api(found, WEB))
    assert to_api(found, WEB, 91).kind is DENY


@pytest.mark.parametrize(
    "open_rule",
    [
        f"{{toPorts: [{{{TCP80}}}]}}",
        f"{{fromEndpoints: [{{matchLabels: {{app: web}}}}], toPorts: [{{{TCP80}}}]}}",
        "{fromEndpoints: [{matchLabels: {app: web}}]}",
        "{fromEntities: [all], toPorts: [{ports: [{port: '0', protocol: TCP}]}]}",
        "{fromEndpoints: [{}], toPorts: [{ports: [{port: '1', endPort: 100}]}]}",
        f"{{fromEndpoints: [{{}}], toPorts: [{{{TCP80}, rules: {{http: []}}}}]}}",
    ],
)
def test_one_l4_rule_beside_l7_rules_opens_the_port_through_the_proxy(open_rule: str) -> None:
    found = resolver(
        api(f"ingress: [{{fromEndpoints: [{{}}], toPorts: [{http('/a')}]}}]"), api(f"ingress: [{open_rule}]", name="q")
    )
    decision = to_api(found, WEB)
    assert decision.kind is PROXY and decision.l7 is not None
    assert decision.l7.enforced.allow_all is not None
    assert decision.l7.enforced.allow_all.policy == "default/q"


def test_an_l4_rule_of_another_peer_opens_nothing() -> None:
    found = resolver(
        api(f"ingress: [{{fromEndpoints: [{{}}], toPorts: [{http('/a')}]}}, {{fromEntities: [world]}}]"),
        api("ingress: [{fromEndpoints: [{matchLabels: {app: batch}}]}]", name="q"),
        api("ingress: [{toPorts: [{ports: [{port: '81', endPort: 99, protocol: TCP}]}]}]", name="r"),
    )
    assert not passes_all(to_api(found, WEB))
    assert passes_all(to_api(found, BATCH))
    assert to_api(found, WORLD).kind is ALLOW


def test_an_empty_rule_allows_everything_through_the_proxy() -> None:
    found = resolver(api(f"ingress: [{{toPorts: [{{{TCP80}, rules: {{http: [{{}}]}}}}]}}]"))
    decision = to_api(found, WEB)
    assert decision.kind is PROXY and paths(decision) == [None]


def test_an_empty_list_is_an_l4_rule() -> None:
    found = resolver(api(f"ingress: [{{toPorts: [{{{TCP80}, rules: {{http: []}}}}]}}]"))
    assert to_api(found, WEB).kind is ALLOW


def test_equal_lists_are_one_object() -> None:
    found = resolver(api(f"ingress: [{{toPorts: [{http('/a')}]}}, {{fromEndpoints: [{{}}], toPorts: [{{}}]}}]"))
    web, world = to_api(found, WEB), to_api(found, WORLD)
    assert web.l7 is world.l7 is not None
    assert web.l7.enforced is web.l7.candidate


# -- deny rules with HTTP ----------------------------------------------------------------------------------------


def denied(decision: L4Decision) -> list[str | None]:
    assert decision.l7 is not None
    return [rule.path for rule in decision.l7.enforced.deny]


def test_a_denied_path_leaves_the_port_as_it_is() -> None:
    deny = f"ingressDeny: [{{fromEndpoints: [{{}}], toPorts: [{http('/admin')}]}}]"
    decision = to_api(resolver(api(deny)), WEB)
    assert decision.kind is DENY and decision.rule is None
    found = resolver(api(deny + "\nenableDefaultDeny: {ingress: false}"))
    decision = to_api(found, WEB)
    assert (decision.kind, denied(decision), passes_all(decision)) == (PROXY, ["/admin"], True)
    assert to_api(found, WORLD).kind is ALLOW
    found = resolver(api(deny + "\ningress: [{fromEntities: [all]}]"))
    decision = to_api(found, WEB)
    assert (decision.kind, denied(decision), passes_all(decision)) == (PROXY, ["/admin"], True)
    found = resolver(api(deny + f"\ningress: [{{toPorts: [{http('/.*')}]}}]"))
    decision = to_api(found, WEB)
    assert (denied(decision), paths(decision), passes_all(decision)) == (["/admin"], ["/.*"], False)
    found = resolver(api(deny + "\ningress: [{fromEntities: [all]}]"), allow_localhost=True)
    assert to_api(found, HOST).kind is ALLOW


def test_a_denied_path_holds_for_the_host_too() -> None:
    found = resolver(api(f"ingressDeny: [{{toPorts: [{http('/admin')}]}}]"), allow_localhost=True)
    decision = to_api(found, HOST)
    assert (decision.kind, denied(decision), passes_all(decision)) == (PROXY, ["/admin"], True)


def test_an_empty_list_in_a_deny_rule_denies_the_port() -> None:
    found = resolver(
        api(f"ingressDeny: [{{toPorts: [{{{TCP80}, rules: {{http: []}}}}]}}]\ningress: [{{fromEntities: [all]}}]")
    )
    assert to_api(found, WEB).kind is DENY
    assert to_api(found, WEB, 81).kind is ALLOW
