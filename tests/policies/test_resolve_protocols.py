"""One port is of one protocol: what becomes of flows over which rules for two of them meet."""

from __future__ import annotations

import pytest

from parsers.facts import HttpRequest
from policies.explain import Explainer, Query
from policies.model import KafkaRule, L7Protocol
from policies.verdict import Verdict
from tests.policies.texts import API, BATCH, DENY, PROXY, TCP80, WEB, api, document, http, resolver, to_api

AUDIT = "l7proxy.io/mode: audit"
KAFKA = f"{{{TCP80}, rules: {{kafka: [{{topic: orders}}]}}}}"


def ingress(*entries: str, peers: str = "{}", deny: bool = False) -> str:
    return f"ingress{'Deny' if deny else ''}: [{{fromEndpoints: [{peers}], toPorts: [{', '.join(entries)}]}}]"


@pytest.mark.parametrize(
    "texts",
    [
        [api(ingress(KAFKA, http("/a")))],
        [api(ingress(KAFKA)), api(ingress(http("/a")), name="q")],
        [api(ingress(KAFKA)), api(ingress(http("/a"), deny=True), name="q")],
        [api(ingress(KAFKA, http("/a"))), api("ingress: [{fromEntities: [all]}]", name="q")],
    ],
    ids=["one policy", "two policies", "a deny rule", "an opened port"],
)
def test_two_protocols_over_one_port_refuse_everything(texts: list[str]) -> None:
    decision = to_api(resolver(*texts), WEB)
    assert decision.kind is DENY and not decision.audit and decision.rule is not None
    assert " is for kafka, policy default/" in decision.reason or " is for http, policy default/" in decision.reason
    assert decision.reason.endswith(": all is refused")


def test_other_peers_and_ports_are_left_alone() -> None:
    web, batch = (f"{{matchLabels: {{app: {name}}}}}" for name in ("web", "batch"))
    high = KAFKA.replace("'80'", "'9092'")
    found = resolver(api(ingress(KAFKA, peers=web)), api(ingress(http("/a"), high, peers=batch), name="q"))
    protocols = []
    for peer, port in ((WEB, 80), (BATCH, 80), (BATCH, 9092)):
        decision = to_api(found, peer, port)
        assert decision.kind is PROXY and decision.l7 is not None
        protocols.append(decision.l7.protocol)
    assert protocols == [L7Protocol.KAFKA, L7Protocol.HTTP, L7Protocol.KAFKA]


def test_an_audit_policy_for_another_protocol_refuses_nothing() -> None:
    found = resolver(api(ingress(http("/a"))), api(ingress(KAFKA), name="q", notes=AUDIT))
    decision = to_api(found, WEB)
    assert (decision.kind, decision.audit) == (PROXY, True)
    assert decision.l7 is not None and decision.l7.protocol is L7Protocol.HTTP
    assert decision.reason.endswith(": all is refused")
    asked = HttpRequest("GET", "/a", "h")
    assert Explainer(found).explain(Query(WEB, API, "TCP", 80, asked)).verdict is Verdict.AUDIT


def test_an_audit_policy_alone_gives_the_protocol() -> None:
    decision = to_api(resolver(api(ingress(KAFKA), notes=AUDIT)), WEB)
    assert decision.l7 is not None and decision.l7.protocol is L7Protocol.KAFKA and decision.l7.audit_only


def leaving(entry: str, notes: str = "") -> str:
    rules = f"egress: [{{toEndpoints: [{{}}], toPorts: [{entry}]}}]"
    return document(f"endpointSelector: {{matchLabels: {{app: web}}}}\n{rules}", name="web", notes=notes)


def test_the_two_sides_of_a_flow_must_agree() -> None:
    answer = Explainer(resolver(leaving(http("/a")), api(ingress(KAFKA)))).explain(Query(WEB, API, "TCP", 80))
    assert (answer.verdict, answer.layer, answer.rule) == (Verdict.DROPPED, "L4", None)
    assert answer.reason == "the flow has egress rules for http and ingress rules for kafka: all is refused"


@pytest.mark.parametrize(("out", "into"), [(AUDIT, ""), ("", AUDIT), (AUDIT, AUDIT)])
def test_a_side_that_only_observes_gives_way(out: str, into: str) -> None:
    found = resolver(leaving(http("/a"), out), api(ingress(KAFKA), notes=into))
    answer = Explainer(found).explain(Query(WEB, API, "TCP", 80, HttpRequest("GET", "/a", "h")))
    # The request is not for Kafka's port, if that is what counts.
    assert answer.verdict is (Verdict.DROPPED if out and not into else Verdict.FORWARDED)


def test_the_empty_rule_and_messages() -> None:
    text = api(
        f"ingress: [{{toPorts: [{{{TCP80}, rules: {{kafka: [{{}}]}}}}]}}]", notes="l7proxy.io/reason: ask the data team"
    )
    decision = to_api(resolver(text), WEB)
    assert decision.l7 is not None and decision.l7.messages == {"default/p": "ask the data team"}
    (rule,) = decision.l7.enforced.allow
    assert isinstance(rule, KafkaRule) and rule.asks_nothing
