"""gRPC rules in policy files: what is read, and what is refused."""

from __future__ import annotations

import textwrap

import pytest

from policies.model import GrpcCall, HeaderMatch, HttpRule
from tests.policies.texts import TCP80, WEB, api, complaints, load, passes_all, resolver, to_api


def text(rules: str, kind: str = "ingress") -> str:
    head = f"{kind}:\n- toPorts:\n  - {TCP80}\n    rules:\n      grpc:\n"
    return api(head + textwrap.indent(textwrap.dedent(rules).strip(), "        "))


def grpc(rules: str, kind: str = "ingress") -> tuple[HttpRule, ...]:
    (policy,) = load(text(rules, kind))
    ports = policy.rules[0].ports
    assert ports is not None and ports[0].rules is not None
    return ports[0].rules


def test_fields_are_kept_as_written() -> None:
    first, second = grpc("- {service: orders.v1.Orders, method: '^Get.*|List'}\n- {}")
    assert (first.grpc, first.headers) == (GrpcCall("orders.v1.Orders", "^Get.*|List"), ())
    assert (first.method, first.path, first.host) == (None, None, None)
    assert second.grpc == GrpcCall(None, None)
    assert first.ref.rule == "ingress[0].toPorts[0].rules.grpc[0]"


@pytest.mark.parametrize("service", ["Greeter", "a.b-c.D~1", "grpc.health.v1.Health"])
def test_names(service: str) -> None:
    assert grpc(f"- service: {service}")[0].grpc == GrpcCall(service, None)


def test_metadata_is_written_as_headers_are() -> None:
    (rule,) = grpc(
        """
        - metadata:
          - "Tenant: a b"
          - X-Present
          - {name: X-A, value: "1"}
          - {name: x-b}
          - {name: x-c, value: c, mismatch: LOG}
          - "trace-bin: AQI"
        """
    )
    assert rule.headers == (
        HeaderMatch("tenant", "a b"),
        HeaderMatch("x-present", None),
        HeaderMatch("x-a", "1"),
        HeaderMatch("x-b", None),
        HeaderMatch("x-c", "c", log=True),
        HeaderMatch("trace-bin", "AQI"),
    )


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ("- {service: ''}", "grpc[0].service: the service's name is empty (leave it out for any)"),
        ("- {service: ~}", "grpc[0].service: has no value"),
        ("- {service: 5}", "must be a string, not a number"),
        ("- {service: a.B/Get}", "a service has no slash: write service: a.B and method: Get"),
        ("- {service: /a.B/Get}", "write service: a.B and method: Get"),
        ("- {service: /a.B}", "'/a.B' is no full name such as orders.v1.Orders"),
        ("- {service: a/b/c}", "is no full name"),
        ("- {service: .a.B}", "is no full name"),
        ("- {service: a.B.}", "is no full name"),
        ("- {service: 'a..B'}", "is no full name"),
        ("- {service: 'a.B '}", "is no full name"),
        ("- {service: 'a.*'}", "it is literal, no expression"),
        (r"- {service: 'a\.B'}", "it is literal, no expression"),
        ("- {service: 'a.%42'}", "is no full name"),
        ("- {service: ä}", "is no full name"),
        ("- {method: ''}", "grpc[0].method: the method's expression is empty (leave it out for any)"),
        ("- {method: 'Get['}", "grpc[0].method: 'Get[' is no valid expression at character 4: missing ]: ["),
        ("- {method: '*'}", "at character 1: no argument for repetition operator: *"),
        ("- {method: Ä.*}", "names of methods are ASCII"),
        ("- {methods: Get}", "unknown key 'methods', did you mean method?"),
        ("- {path: /a.B/Get}", "not supported: path (write service and method)"),
        ("- {headers: ['a: b']}", "not supported: headers (conditions on headers are written under metadata)"),
        ("- {host: h}", "not supported: host (HTTP rules only)"),
        ("- a.B/Get", "grpc[0]: must be a mapping, not a string"),
        ("- {metadata: 'a: b'}", "metadata: must be a list"),
        ("- {metadata: [5]}", "metadata[0]: must be a string, not a number"),
        ("- {metadata: ['']}", "metadata[0]: the header's name is missing"),
        ("- {metadata: [{value: x}]}", "metadata[0]: needs name"),
        ("- {metadata: [{name: x, mismatch: ADD}]}", "not supported: mismatch ADD"),
        ("[]", "rules.grpc: an empty list is no rule"),
    ],
)
def test_faulty_rules(rules: str, told: str) -> None:
    assert any(told in complaint for complaint in complaints(text(rules))), complaints(text(rules))


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ("- {method: '('}", "is no valid expression"),
        ("- {metadata: ['X:y']}", "this denies nothing"),
        ("- {metadata: ['x-bin: AQI=']}", "not supported: a value of binary metadata in a deny rule"),
        ("- {metadata: [{name: X-Bin, value: AQI}]}", "base64 has many spellings"),
        ("- {metadata: [{name: x, mismatch: LOG}]}", "not supported: mismatch in a deny rule"),
        ("[]", "an empty list is no rule"),
    ],
)
def test_deny_rules_that_would_not_hold(rules: str, told: str) -> None:
    for kind in ("ingressDeny", "egressDeny"):
        assert any(told in complaint for complaint in complaints(text(rules, kind)))


def test_deny_rules() -> None:
    (rule,) = grpc("- {service: a.B, method: 'Delete.*', metadata: [x-bin]}", "ingressDeny")
    assert (rule.grpc, rule.headers) == (GrpcCall("a.B", "Delete.*"), (HeaderMatch("x-bin", None),))
    assert rule.ref.rule == "ingressDeny[0].toPorts[0].rules.grpc[0]"


def test_one_protocol_in_one_block() -> None:
    both = api(f"ingress: [{{toPorts: [{{{TCP80}, rules: {{http: [{{}}], grpc: [{{}}]}}}}]}}]")
    (told,) = complaints(both)
    assert "http and grpc cannot stand in one rules" in told and "write two entries of toPorts" in told


def test_l7_rules_need_tcp() -> None:
    udp = api("ingress: [{toPorts: [{ports: [{port: '80'}], rules: {grpc: [{}]}}]}]")
    assert any("protocol: TCP spelt out" in told for told in complaints(udp))


def test_lists_of_two_policies_are_one() -> None:
    http = api(f"ingress: [{{toPorts: [{{{TCP80}, rules: {{http: [{{path: /ui}}]}}}}]}}]", name="http")
    calls = api(f"ingress: [{{toPorts: [{{{TCP80}, rules: {{grpc: [{{service: a.B}}]}}}}]}}]", name="grpc")
    decision = to_api(resolver(http, calls), WEB)
    assert decision.l7 is not None and not passes_all(decision)
    assert [(one.path, one.grpc) for one in decision.l7.enforced.allow] == [
        ("/ui", None),
        (None, GrpcCall("a.B", None)),
    ]
    every = api(f"ingress: [{{toPorts: [{{{TCP80}, rules: {{grpc: [{{}}]}}}}]}}]")
    assert not passes_all(to_api(resolver(every), WEB))
