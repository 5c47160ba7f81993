"""The lint of gRPC rules."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from policies.check import check, fails
from policies.document import Problem
from tests.policies.texts import TCP80, api


def lint(folder: Path, grpc: str = "", *, http: str = "", deny: bool = False, more: str = "") -> list[Problem]:
    """The problems of lists of gRPC and HTTP rules for the same port."""
    blocks = [f"{{{TCP80}, rules: {{{key}: [{text}]}}}}" for key, text in (("grpc", grpc), ("http", http)) if text]
    file = folder / "p.yaml"
    file.write_text(api(f"ingress{'Deny' if deny else ''}: [{{toPorts: [{', '.join(blocks)}]}}{more}]"))
    return check([file])


CLEAN = [
    "{}",
    "{service: orders.v1.Orders}",
    "{service: orders.v1.Orders, method: GetOrder}",
    "{service: orders.v1.Orders, method: 'Get.*|List[A-Z][a-z]*|Put(Order)?'}",
    r"{method: 'Get\w*', metadata: ['tenant: a', x-present, {name: x, value: '1'}, 'trace-bin: AQI']}",
    "{method: '(a/)?Get'}, {service: a.B, method: 'Put'}",
    "{service: a.B, method: 'Get.*'}, {service: a.C, method: GetX}, {service: a.B, method: ListX}",
    "{service: a.B, method: GetX}, {service: a.B, method: 'Get.*', metadata: ['x: 1']}",
]


@pytest.mark.parametrize("grpc", CLEAN)
@pytest.mark.parametrize("deny", [False, True])
def test_what_is_right_is_left_alone(tmp_path: Path, grpc: str, deny: bool) -> None:
    if not (deny and "-bin" in grpc):
        assert lint(tmp_path, grpc, deny=deny) == []


FIRST = "decides nothing: default/p ingress[0].toPorts[0].rules.grpc[0]"
WARNED = [
    ("{method: /GetOrder}", "method '/GetOrder' never matches: a method is a name alone"),
    ("{method: '/Get.*'}", "never matches"),
    ("{method: 'orders.v1.Orders/Get.*'}", "never matches"),
    ("{method: 'Get Order|Put/Order'}", "never matches"),
    ("{method: 'Get Order.*'}", "never matches"),
    ("{method: 'Get\\?x'}", "never matches"),
    ("{method: '^$'}", "never matches"),
    ("{method: 'Get*'}", "repeats the t (`t*`): all that begin so are Get.*"),
    ("{metadata: ['K:V']}", 'write "K: V"'),
    ("{metadata: ['K:  V']}", "begins or ends with a space"),
    ("{}, {service: a.B}", FIRST),
    ("{service: a.B}, {service: a.B, method: Get}", FIRST),
    ("{method: 'Get.*'}, {service: a.B, method: GetX}", FIRST),
    ("{service: a.B, method: 'Get.*'}, {service: a.B, method: 'GetX.*', metadata: ['x: 1']}", FIRST),
    ("{service: a.B, method: Get}, {service: a.B, method: Get}", FIRST),
]


@pytest.mark.parametrize(("grpc", "message"), WARNED)
def test_rules_that_do_not_do_what_they_seem_to(tmp_path: Path, grpc: str, message: str) -> None:
    (problem,) = lint(tmp_path, grpc)
    assert problem.severity == "warning" and message in problem.message
    assert problem.key.startswith("spec.ingress[0].toPorts[0].rules.grpc[")
    assert fails([problem])


NOTED = [
    ("{service: Orders}", "service 'Orders' has no package: a full name is such as orders.v1.Orders"),
    ("{metadata: ['trace-bin: AQI=']}", "leave the = at the end of base64 out"),
]


@pytest.mark.parametrize(("grpc", "message"), NOTED)
def test_likely_mistakes_are_advice(tmp_path: Path, grpc: str, message: str) -> None:
    (problem,) = lint(tmp_path, grpc)
    assert problem.severity == "note" and message in problem.message


def test_an_http_path_that_forgets_the_slash_is_told_of_grpc(tmp_path: Path) -> None:
    for path in (r"orders\.v1\.Orders/Get.*", "^orders.v1.Orders/Get.*$"):
        (problem,) = lint(tmp_path, http=f"{{path: '{path}'}}")
        assert problem.severity == "warning" and "paths begin with /; a gRPC call is /orders" in problem.message
        assert "grpc: {service: orders.v1.Orders, method: 'Get.*'}" in problem.message
    (problem,) = lint(tmp_path, http="{path: 'orders/.*'}")
    assert "gRPC" not in problem.message


SHADOWS = [
    ("{path: '/.*'}", "{service: a.B}", True),
    ("{path: '/.*'}", "{method: Get}", True),
    ("{method: POST}", "{}", True),
    (r"{method: POST, path: '/a\.B/.*'}", "{service: a.B, method: 'Get|Put'}", True),
    (r"{path: '/a\.B/Get.*'}", "{service: a.B, method: GetX}", True),
    (r"{path: '/a\.B/Get'}", "{service: a.B, method: Get}", True),
    ("{method: GET}", "{}", False),
    (r"{path: '/a\.B/Get.*'}", "{service: a.B, method: 'GetX|Put'}", False),
    (r"{path: '/a\.B/Get.*'}", "{service: a.B}", False),
    (r"{path: '/a\.B/.*'}", "{method: Get}", False),
    (r"{path: '/a\.B/.*', headers: ['x: 1']}", "{service: a.B}", False),
    (r"{path: '/a\.B/.*', host: h}", "{service: a.B}", False),
]


@pytest.mark.parametrize(("http", "grpc", "useless"), SHADOWS)
def test_an_http_rule_may_hold_all_of_a_grpc_rule(tmp_path: Path, http: str, grpc: str, useless: bool) -> None:
    found = [one for one in lint(tmp_path, grpc, http=http) if "decides nothing" in one.message]
    assert [one.key for one in found] == ["spec.ingress[0].toPorts[0].rules.grpc[0]"] * useless
    assert not any("decides nothing" in one.message for one in lint(tmp_path, grpc, http=http, deny=True))


def test_a_grpc_rule_never_holds_all_of_an_http_rule(tmp_path: Path) -> None:
    assert lint(tmp_path, "{service: a.B}", http=r"{method: POST, path: '/a\.B/.*', host: 'h(:80)?'}") == []


def test_every_call_is_not_every_request(tmp_path: Path) -> None:
    assert lint(tmp_path, "{}", http="{path: '/ui/.*'}") == []
    opener = f", {{toPorts: [{{{TCP80}}}]}}"
    (problem,) = lint(tmp_path, "{service: a.B}", more=opener)
    assert problem.message.startswith("refuses nothing: default/p ingress[1]")


def test_ten_thousand_rules_are_no_trouble(tmp_path: Path) -> None:
    start = time.monotonic()
    assert lint(tmp_path, ", ".join(f"{{service: a.S{number}, method: 'Get.*'}}" for number in range(10_000))) == []
    assert time.monotonic() - start < 30
