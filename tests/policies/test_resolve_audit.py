"""Policies and nodes in audit mode, and what their authors have to say."""

from __future__ import annotations

from policies.decision import L4Decision, L7Lists
from tests.policies.texts import (
    ALLOW,
    API,
    BATCH,
    DENY,
    EVERYBODY,
    INGRESS,
    PROXY,
    TCP80,
    WEB,
    WORLD,
    api,
    everyone,
    http,
    kinds,
    resolver,
    to_api,
)

AUDIT = "l7proxy.io/mode: audit"
L4 = f"{{toPorts: [{{{TCP80}}}]}}"


def lists(decision: L4Decision) -> tuple[L7Lists, L7Lists]:
    assert decision.l7 is not None
    return decision.l7.enforced, decision.l7.candidate


def test_an_audit_policy_alone_refuses_nothing() -> None:
    found = resolver(api(f"ingress: [{{fromEndpoints: [{{}}], toPorts: [{http('/a')}]}}]", notes=AUDIT))
    decision = to_api(found, WEB)
    assert (decision.kind, decision.audit) == (PROXY, False)
    enforced, candidate = lists(decision)
    assert enforced.open and not enforced.deny
    assert [rule.path for rule in candidate.allow] == ["/a"] and not candidate.open
    for peer, port in ((WEB, 81), (WORLD, 80)):
        decision = to_api(found, peer, port)
        assert (decision.kind, decision.audit, decision.rule) == (ALLOW, True, None)
        assert decision.reason.startswith("audit mode, passes: default deny: no rule of policy default/p")
    assert found.touched(INGRESS, API) and found.selected(INGRESS, API)


def test_an_audit_policy_grants_nothing() -> None:
    found = resolver(api("ingress: [{}]"), api("ingress: [{fromEntities: [all]}]", name="q", notes=AUDIT))
    decision = to_api(found, WEB)
    assert (decision.kind, decision.audit, decision.rule) == (DENY, False, None)


def test_an_audit_policy_adds_no_path() -> None:
    enforce = api(f"ingress: [{{toPorts: [{http('/a')}]}}]")
    found = resolver(enforce, api(f"ingress: [{{toPorts: [{http('/b')}]}}, {L4}]", name="q", notes=AUDIT))
    decision = to_api(found, WEB)
    enforced, candidate = lists(decision)
    assert ([r.path for r in enforced.allow], enforced.allow_all, enforced.open) == (["/a"], None, False)
    assert [r.path for r in candidate.allow] == ["/a", "/b"] and candidate.allow_all is not None
    assert decision.rule is not None and decision.rule.policy == "default/p"


def test_an_audit_deny_rule_passes_and_is_recorded() -> None:
    deny = api("ingressDeny: [{fromEndpoints: [{}]}]", name="q", notes=AUDIT + "\nl7proxy.io/reason: Soon closed")
    decision = to_api(resolver(api("ingress: [{fromEntities: [all]}]"), deny), WEB)
    assert (decision.kind, decision.audit) == (ALLOW, True)
    assert decision.rule is not None and decision.rule.policy == "default/q"
    assert decision.reason.startswith("audit mode, passes: denied by policy default/q, ingressDeny[0]")
    assert decision.reason.endswith(": Soon closed")
    decision = to_api(resolver(api(f"ingress: [{{toPorts: [{http('/a')}]}}]"), deny), WEB)
    assert (decision.kind, decision.audit) == (PROXY, True)
    enforced, candidate = lists(decision)
    assert [r.path for r in enforced.allow] == ["/a"] and not enforced.deny
    assert candidate.deny_all == decision.rule


def test_an_audit_default_deny_beside_an_observing_policy() -> None:
    observe = api(f"ingress: [{{toPorts: [{http('/a')}]}}]\nenableDefaultDeny: {{ingress: false}}")
    decision = to_api(resolver(observe, api("ingress: [{}]", name="q", notes=AUDIT)), WEB)
    enforced, candidate = lists(decision)
    assert enforced.open and not candidate.open
    assert [r.path for r in candidate.allow] == ["/a"]


def test_an_audit_requirement_takes_an_enforced_rule_from_the_candidate_only() -> None:
    needs = api("ingress: [{fromRequires: [{matchLabels: {env: prod}}]}]", name="q", notes=AUDIT)
    found = resolver(api(f"ingress: [{{fromEndpoints: [{{}}], toPorts: [{http('/a')}]}}]"), needs)
    assert (to_api(found, WEB).audit, to_api(found, BATCH).audit) == (False, True)
    enforced, candidate = lists(to_api(found, BATCH))
    assert [r.path for r in enforced.allow] == ["/a"]
    assert candidate == L7Lists()


def test_enforced_plain_allow_and_candidate_lists() -> None:
    found = resolver(
        api(f"ingress: [{L4}]"), api(f"ingressDeny: [{{toPorts: [{http('/admin')}]}}]", name="q", notes=AUDIT)
    )
    decision = to_api(found, WEB)
    assert (decision.kind, decision.audit) == (PROXY, False)
    enforced, candidate = lists(decision)
    assert enforced.open and not enforced.deny
    assert [r.path for r in candidate.deny] == ["/admin"]


def test_a_node_in_audit_mode_refuses_nothing() -> None:
    text = api(f"ingress: [{{toPorts: [{http('/a')}]}}]\ningressDeny: [{{fromEntities: [world]}}]")
    found = resolver(text, node_audit=True)
    assert kinds(found) == everyone(PROXY) | {"world": ALLOW, "desk": ALLOW}
    enforced, candidate = lists(to_api(found, WEB))
    assert enforced.open and [r.path for r in candidate.allow] == ["/a"]
    assert {to_api(found, WORLD).audit, to_api(found, WEB, 81).audit} == {True}
    assert all(row.decision.kind is not DENY for one in EVERYBODY for row in found.table(INGRESS, API, one))


def test_the_authors_text_goes_with_refusals() -> None:
    note = "l7proxy.io/reason: Ask the shop team"
    found = resolver(api(f"ingress: [{{toPorts: [{http('/a')}]}}]", notes=note), api("ingress: [{}]", name="q"))
    assert to_api(found, WEB, 81).reason.endswith("allows this: Ask the shop team")
    decision = to_api(found, WEB)
    assert decision.l7 is not None and decision.l7.messages == {"default/p": "Ask the shop team"}
