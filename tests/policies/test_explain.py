"""explain: both sides of a flow, packets and requests, and the parser's own word."""

from __future__ import annotations

import pytest

from parsers.facts import HttpRequest
from policies.explain import Explainer, Explanation, Query
from policies.identity import Identity
from policies.model import TrafficDirection
from policies.verdict import Verdict
from tests.policies.texts import API, BATCH, EGRESS, HOST, INGRESS, TCP80, WEB, WORLD, api, document, resolver

FORWARDED, DROPPED, AUDIT = Verdict.FORWARDED, Verdict.DROPPED, Verdict.AUDIT
WEB_ONLY = f"""
ingress:
- fromEndpoints: [{{matchLabels: {{app: web}}}}]
  toPorts:
  - {TCP80}
    rules:
      http:
      - {{method: GET, path: '/public/.*'}}
      - {{method: GET, path: /x, host: h}}
"""
INTO_API = api(WEB_ONLY)


def leaving(rules: str, name: str = "web") -> str:
    return document(f"endpointSelector: {{matchLabels: {{app: web}}}}\n{rules}", name=name)


def ask(
    *texts: str,
    source: Identity = WEB,
    destination: Identity = API,
    port: int = 80,
    path: str | None = None,
    host: str = "h",
    direction: TrafficDirection | None = None,
    audit: bool = False,
) -> Explanation:
    http = None if path is None else HttpRequest("GET", path, host)
    explainer = Explainer(resolver(*texts, node_audit=audit))
    return explainer.explain(Query(source, destination, "TCP", port, http, direction))


def test_an_allowed_request_names_its_rule() -> None:
    answer = ask(INTO_API, path="/public/a").plain()
    assert answer.pop("reason").startswith("allowed by policy default/p")
    line = 1 + INTO_API.splitlines().index("      - {method: GET, path: '/public/.*'}".replace("      -", "        -"))
    assert answer == {
        "verdict": "FORWARDED",
        "layer": "L7",
        "policy": "default/p",
        "rule": "ingress[0].toPorts[0].rules.http[0]",
        "file": "p.yaml",
        "line": line,
    }


def test_a_refused_request_names_none() -> None:
    answer = ask(INTO_API, path="/secret").plain()
    assert answer["reason"].startswith("no rule of policy default/p (p.yaml:")
    assert (answer["verdict"], answer["layer"], answer["policy"], answer["line"]) == ("DROPPED", "L7", None, None)


def test_packets_are_decided_first() -> None:
    for answer in (ask(INTO_API, source=BATCH, path="/public/a"), ask(INTO_API, port=81, path="/public/a")):
        assert (answer.verdict, answer.layer, answer.rule) == (DROPPED, "L4", None)


def test_a_flow_without_a_request_goes_to_the_proxy() -> None:
    answer = ask(INTO_API)
    assert (answer.verdict, answer.layer) == (FORWARDED, "L4")
    assert "goes to the proxy" in answer.reason


def test_both_sides_must_allow() -> None:
    closed = leaving("egress: [{toEndpoints: [{matchLabels: {app: batch}}]}]")
    opened = leaving("egress: [{toEndpoints: [{matchLabels: {app: api}}]}]")
    assert ask(INTO_API, closed, path="/public/a").verdict is DROPPED
    assert ask(INTO_API, closed, path="/public/a", direction=INGRESS).verdict is FORWARDED
    assert ask(INTO_API, closed, path="/secret", direction=EGRESS).layer == "L4"
    assert ask(INTO_API, opened, path="/public/a").verdict is FORWARDED
    assert ask(INTO_API, opened, path="/secret").layer == "L7"


def test_both_sides_may_read_requests() -> None:
    limited = leaving(
        f"egress: [{{toEndpoints: [{{}}], toPorts: [{{{TCP80}, rules: {{http: [{{path: '/public/a'}}]}}}}]}}]"
    )
    assert ask(INTO_API, limited, path="/public/a").verdict is FORWARDED
    answer = ask(INTO_API, limited, path="/public/b")
    assert answer.verdict is DROPPED and "default/web" in answer.reason


@pytest.mark.parametrize("outside", [WORLD, HOST], ids=["world", "host"])
def test_a_side_that_is_no_endpoint_is_not_asked(outside: Identity) -> None:
    assert ask(INTO_API, source=outside, path="/public/a").verdict is DROPPED
    assert ask(INTO_API, source=API, destination=outside).verdict is FORWARDED
    assert ask(INTO_API, source=WORLD, destination=outside).reason == "no end that was asked about is an endpoint"


def test_audit_of_packets_and_of_requests() -> None:
    audit = api(WEB_ONLY, notes="l7proxy.io/mode: audit")
    packets, request = ask(audit, source=BATCH), ask(audit, path="/secret")
    assert (packets.verdict, packets.layer) == (AUDIT, "L4")
    assert (request.verdict, request.layer) == (AUDIT, "L7")
    assert ask(audit, path="/public/a").verdict is FORWARDED
    assert ask(INTO_API, path="/secret", audit=True).verdict is AUDIT


def test_an_audit_of_packets_is_not_lost_behind_an_allowed_request() -> None:
    audit = leaving("egress: [{toEndpoints: [{matchLabels: {app: batch}}]}]").replace(
        "  name: web", "  name: web\n  annotations: {l7proxy.io/mode: audit}"
    )
    assert ask(audit, path="/public/a").verdict is AUDIT
    answer = ask(INTO_API, audit, path="/public/a")
    assert (answer.verdict, answer.layer) == (AUDIT, "L4")
    assert ask(INTO_API, audit, path="/secret").verdict is DROPPED


def test_hints_name_the_trap() -> None:
    query = ask(INTO_API, path="/x?y")
    port = ask(INTO_API, path="/x", host="h:80")
    both = ask(INTO_API, path="/z?y", host="h:80")
    assert "without it it would be allowed by p.yaml:" in query.reason and "query string" in query.reason
    assert "rules see the port of the host" in port.reason
    assert "would be" not in both.reason


def test_a_call_that_is_no_post_is_told() -> None:
    calls = api(f"ingress: [{{toPorts: [{{{TCP80}, rules: {{grpc: [{{service: a.B}}]}}}}]}}]")
    assert "; as a gRPC call, with POST, it would be allowed by p.yaml:" in ask(calls, path="/a.B/Get").reason
    assert "would be" not in ask(calls, path="/a.C/Get").reason
    assert "without it it would be allowed" not in ask(calls, path="/a.B/Get?x").reason


def test_the_parser_has_the_first_word_where_something_is_enforced() -> None:
    def refusal(watched: frozenset[str]) -> str | None:
        return f"odd {sorted(watched)}"

    watching = api(f"ingress: [{{toPorts: [{{{TCP80}, rules: {{http: [{{headers: ['X-A: 1']}}]}}}}]}}]")
    query = Query(WEB, API, "TCP", 80, HttpRequest("GET", "/", "h"), None, refusal)
    for audit, verdict in ((False, DROPPED), (True, AUDIT)):
        answer = Explainer(resolver(watching, node_audit=audit)).explain(query)
        assert (answer.verdict, answer.layer, answer.rule) == (verdict, "L7", None)
        assert answer.reason == "refused before any rule is asked: odd ['x-a']"
    unread = Explainer(resolver()).explain(query)
    assert (unread.verdict, unread.layer) == (FORWARDED, "L4")
