"""The lint: each trap of the format is told where it stands, and what is meant as it is written is left alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest

from policies.check import check, fails
from policies.check_node import Known
from policies.document import Problem
from policies.identity import workload
from tests.policies.texts import api, document

ENDPOINTS = [
    Known("api", workload(256, {"app": "api"}, {"http": 80}), (ip_address("10.0.0.2"),)),
    Known("web", workload(257, {"app": "web"}, {"metrics": 9000}), (ip_address("10.0.0.3"),)),
]


def lint(folder: Path, *texts: str, endpoints: Sequence[Known] | None = None) -> list[Problem]:
    file = folder / "p.yaml"
    file.write_text("---\n".join(texts))
    return check([file], endpoints)


def from_web(http: str, port: str = "80") -> str:
    """A policy of the API with one list of HTTP rules for the web."""
    return api(
        f"""
        ingress:
        - fromEndpoints: [{{matchLabels: {{app: web}}}}]
          toPorts:
          - ports: [{{port: "{port}", protocol: TCP}}]
            rules: {{http: [{http}]}}
        """
    )


def told(problems: Sequence[Problem]) -> list[tuple[str, str]]:
    return [(problem.severity, problem.key) for problem in problems]


RULE = "spec.ingress[0].toPorts[0].rules.http[0]"

CLEAN = [
    "{method: GET, path: '/public/.*'}",
    "{method: 'GET|HEAD', path: '^/public$'}",
    "{path: '/'}",
    "{}",
    r"{host: 'api\.example\.com'}",
    r"{host: '(.*\.)?example\.com(:[0-9]+)?'}",
    r"{path: '/search\?q=.*'}",
    "{headers: ['X-Token: abc', X-Present]}",
    "{path: '/a/.*'}, {path: '/b/.*'}, {method: PUT, path: '/c/.*'}",
    "{path: '/a/.*', headers: ['X: 1']}, {path: '/a/.*', headers: ['X: 2']}",
    "{path: '/a/b/.*', headers: ['X: 1']}, {path: '/a/b/.*', method: GET}",
    "{path: '(/a|/b)/.*'}",
]


@pytest.mark.parametrize("http", CLEAN)
def test_what_is_right_is_left_alone(tmp_path: Path, http: str) -> None:
    assert lint(tmp_path, from_web(http)) == []


WARNED = [
    ("{method: get}", "method 'get' never matches: methods are upper case"),
    ("{path: 'public/.*'}", "paths begin with /"),
    ("{path: public}", "paths begin with /"),
    ("{path: '/a//b'}", "brought to their normal form"),
    (r"{path: '^/a/\.\./b$'}", "brought to their normal form"),
    ("{path: '^/a%2Fb$'}", "brought to their normal form"),
    ("{path: '/a b'}", "brought to their normal form"),
    ("{path: '^/a%41$'}", "letters, digits and -._~ are decoded"),
    ("{path: '/ä/.*'}", "percent-encoded before they are judged"),
    ("{path: '/public/*'}", "repeats the slash"),
    ("{path: '/search?q=.*'}", "makes the letter before `?` optional"),
    ("{host: api.example.com}", r"write api\.example\.com"),
    (r"{host: '.*example\.com'}", "hosts that only end so"),
    ("{host: 'http://api'}", "a host has no slash"),
    ("{path: '/a/.*'}, {path: '/a/b/.*'}", "decides nothing: default/p ingress[0].toPorts[0].rules.http[0]"),
    ("{path: '/a/b/.*'}, {path: '/a/.*'}", "decides nothing: default/p ingress[0].toPorts[0].rules.http[1]"),
    ("{}, {method: GET, path: '/b/.*'}", "decides nothing"),
    ("{path: '/.*'}, {path: '/admin', headers: ['X-Token: s']}", "decides nothing"),
    ("{method: GET}, {method: PUT}, {method: 'GET|PUT', path: '/b/.*'}", "decides nothing"),
    ("{path: '/a/.*'}, {path: '/a/.*'}", "decides nothing"),
]


@pytest.mark.parametrize(("http", "message"), WARNED)
def test_expressions_that_do_not_do_what_they_seem_to(tmp_path: Path, http: str, message: str) -> None:
    problems = [one for one in lint(tmp_path, from_web(http)) if one.severity == "warning"]
    assert len(problems) == 1 and message in problems[0].message
    assert problems[0].key.startswith("spec.ingress[0].toPorts[0].rules.http[")
    assert fails(problems)


NOTED = [
    ("{path: /public}", "write /public.* if more is meant, or ^/public$ if not"),
    ("{path: '/public.*'}", "goes on in the middle of a word"),
    ("{host: API}", "compared with its case"),
]


@pytest.mark.parametrize(("http", "message"), NOTED)
def test_likely_mistakes_are_advice(tmp_path: Path, http: str, message: str) -> None:
    problems = lint(tmp_path, from_web(http))
    assert told(problems) == [("note", RULE)] and message in problems[0].message
    assert not fails(problems)


def test_a_host_without_the_port_is_told_where_clients_send_it(tmp_path: Path) -> None:
    assert lint(tmp_path, from_web("{host: api}", "80")) == []
    assert lint(tmp_path, from_web("{host: 'api:8080'}", "8080")) == []
    assert lint(tmp_path, from_web("{host: 'api.*'}", "8080")) == []
    (problem,) = lint(tmp_path, from_web("{host: api}", "8080"))
    assert "clients send the port too; write api(:[0-9]+)?" in problem.message


def test_lines_are_those_of_the_rule(tmp_path: Path) -> None:
    text = from_web("{method: get}").replace("[{method", "[\n      {method")
    (problem,) = lint(tmp_path, text)
    assert text.splitlines()[problem.line - 1].strip().startswith("{method: get}")
    assert str(problem).startswith(f"{tmp_path}/p.yaml:{problem.line}:{RULE}: warning: ")


@pytest.mark.parametrize(
    ("header", "message"),
    [("K:V", 'write "K: V"'), ("'K:'", 'write "K"'), ("'K:  V'", "begins or ends"), ("'K: V '", "begins or ends")],
)
def test_headers_that_never_match(tmp_path: Path, header: str, message: str) -> None:
    (problem,) = lint(tmp_path, from_web(f"{{headers: [{header}]}}"))
    assert problem.key == f"{RULE}.headers[0]" and message in problem.message


TEXT = [
    ("ingress: []\negress: [{}]", "spec.ingress", "starts no default deny"),
    ("ingress: [{}, {fromEntities: [world]}]", "spec.ingress[0]", "`{}` allows nothing"),
    ("ingressDeny: [{}]", "spec.ingressDeny[0]", "`{}` denies nothing"),
    ("ingress: [{fromEndpoints: []}]", "spec.ingress[0].fromEndpoints", "holds nobody"),
    ("ingress: [{fromCIDR: [], toPorts: [{ports: [{port: '1'}]}]}]", "spec.ingress[0].fromCIDR", "holds nobody"),
    ("ingress: [{fromEntities: [world], toPorts: []}]", "spec.ingress[0].toPorts", "every port"),
    ("ingress: [{toPorts: [{}]}]", "spec.ingress[0].toPorts[0]", "matches nothing"),
    (
        "ingress: [{toPorts: [{rules: {http: [{method: PUT}]}}]}]",
        "spec.ingress[0].toPorts[0]",
        "matches nothing",
    ),
    (
        "ingress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: []}}]}]",
        "spec.ingress[0].toPorts[0].rules.http",
        "every request passes",
    ),
    (
        "ingress: [{toPorts: [{ports: [{port: '90', endPort: 80}]}]}]",
        "spec.ingress[0].toPorts[0].ports[0].endPort",
        "below port 90",
    ),
    (
        "ingress: [{fromEndpoints: [{matchLabels: {a: x}, "
        "matchExpressions: [{key: a, operator: NotIn, values: [x]}]}]}]",
        "spec.ingress[0].fromEndpoints[0]",
        "no value of label a can meet",
    ),
    (
        "ingress: [{fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.0.0.0/8]}]}]",
        "spec.ingress[0].fromCIDRSet[0]",
        "take away all of 10.0.0.0/8",
    ),
    (
        "ingress: [{fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}, {cidr: 10.1.0.0/16}]}]",
        "spec.ingress[0].fromCIDRSet[0]",
        "10.1.0.0/16 is excepted here, and",
    ),
    (
        "ingress: [{fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]}, {fromEntities: [world]}]",
        "spec.ingress[0].fromCIDRSet[0]",
        "allows it all the same",
    ),
    (
        "ingress: [{fromEndpoints: [{}]}]\ningressDeny: [{fromEntities: [cluster]}]",
        "spec.ingress[0]",
        "never allows anything: default/p ingressDeny[0]",
    ),
    (
        "enableDefaultDeny: {ingress: false}\n"
        "ingress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{method: PUT}]}}]}]",
        "spec.ingress[0].toPorts[0]",
        "only observes, and refuses nothing",
    ),
]


@pytest.mark.parametrize(("spec", "key", "message"), TEXT)
def test_traps_of_the_format(tmp_path: Path, spec: str, key: str, message: str) -> None:
    problems = lint(tmp_path, api(spec))
    assert [(one.severity, one.key) for one in problems] == [("warning", key)]
    assert message in problems[0].message


def test_the_idiom_of_default_deny_is_no_mistake(tmp_path: Path) -> None:
    assert lint(tmp_path, api("ingress: [{}]\negress: [{}]")) == []


def test_an_exception_that_stays_is_no_mistake(tmp_path: Path) -> None:
    cidr = "ingress: [{fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]}, {fromCIDR: [10.2.0.0/16]}]"
    assert lint(tmp_path, api(cidr)) == []


L7 = "ports: [{port: '80', protocol: TCP}], rules: {http: [{path: '/public/.*'}]}"
L4 = [
    "{fromEndpoints: [{matchLabels: {app: web}}]}",
    "{fromEndpoints: [{matchLabels: {app: web}}], toPorts: [{ports: [{port: '80'}]}]}",
    "{fromEndpoints: [{}], toPorts: [{ports: [{port: '1', endPort: 90}]}]}",
    "{toPorts: [{ports: [{port: '0'}]}]}",
    "{fromEntities: [cluster]}",
    "{fromEntities: [all], toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}}]}",
]


@pytest.mark.parametrize("opener", L4)
def test_an_l4_rule_opens_what_an_l7_rule_closes(tmp_path: Path, opener: str) -> None:
    closed = f"{{fromEndpoints: [{{matchLabels: {{app: web}}}}], toPorts: [{{{L7}}}]}}"
    one = lint(tmp_path, api(f"ingress: [{closed}, {opener}]"))
    assert told(one) == [("warning", "spec.ingress[0].toPorts[0]")]
    assert "refuses nothing: default/p ingress[1]" in one[0].message
    wide = document(f"endpointSelector: {{}}\ningress: [{opener}]", name="wide")
    two = lint(tmp_path, api(f"ingress: [{closed}]"), wide)
    assert told(two) == [("warning", "spec.ingress[0].toPorts[0]")]
    assert "refuses nothing: default/wide ingress[0]" in two[0].message


APART = [
    "{fromEndpoints: [{matchLabels: {app: batch}}]}",
    "{fromEndpoints: [{matchLabels: {app: web}}], toPorts: [{ports: [{port: '81'}]}]}",
    "{fromEndpoints: [{matchLabels: {app: web}}], toPorts: [{ports: [{port: '80', protocol: UDP}]}]}",
    "{fromEntities: [world]}",
    "{fromCIDR: [10.0.0.0/8]}",
]


@pytest.mark.parametrize("other", APART)
def test_rules_for_others_open_nothing(tmp_path: Path, other: str) -> None:
    closed = f"{{fromEndpoints: [{{matchLabels: {{app: web}}}}], toPorts: [{{{L7}}}]}}"
    assert lint(tmp_path, api(f"ingress: [{closed}, {other}]")) == []
    elsewhere = document(f"endpointSelector: {{matchLabels: {{app: db}}}}\ningress: [{L4[0]}]", name="db")
    assert lint(tmp_path, api(f"ingress: [{closed}]"), elsewhere) == []


def test_some_peers_that_pass_are_advice(tmp_path: Path) -> None:
    (problem,) = lint(tmp_path, api(f"ingress: [{{toPorts: [{{{L7}}}]}}, {L4[0]}]"))
    assert problem.severity == "note" and "does not hold for all its peers" in problem.message


def test_an_audit_policy_opens_nothing(tmp_path: Path) -> None:
    audit = api(f"ingress: [{L4[2]}]", name="audit", notes="l7proxy.io/mode: audit")
    assert lint(tmp_path, api(f"ingress: [{{toPorts: [{{{L7}}}]}}]"), audit) == []


def test_observing_ends_where_another_policy_closes(tmp_path: Path) -> None:
    observing = api(f"enableDefaultDeny: {{ingress: false}}\ningress: [{{toPorts: [{{{L7}}}]}}]")
    closing = document("endpointSelector: {}\ningress: [{}]", name="closing")
    assert lint(tmp_path, observing, closing) == []


def test_deny_rules(tmp_path: Path) -> None:
    def denied(http: str) -> str:
        return f"ingressDeny: [{{toPorts: [{{ports: [{{port: '80', protocol: TCP}}], rules: {{http: [{http}]}}}}]}}]"

    assert lint(tmp_path, api(denied("{path: '/admin(/.*)?'}"))) == []
    (below,) = lint(tmp_path, api(denied("{path: /admin}")))
    (head,) = lint(tmp_path, api(denied("{method: GET, path: '/admin.*'}")))
    assert "does not deny what lies below it" in below.message and "leaves HEAD" in head.message
    assert not fails([below, head])


def test_errors_come_alone_and_all_at_once(tmp_path: Path) -> None:
    problems = lint(tmp_path, from_web("{metod: GET}, {path: '/('}, {path: /public}"))
    assert [one.severity for one in problems] == ["error", "error"]
    assert "did you mean method?" in problems[0].message and "missing )" in problems[1].message
    assert fails(problems)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    (problem,) = check([tmp_path / "none.yaml"])
    assert problem.severity == "error" and problem.file.endswith("none.yaml")


# -- against the endpoints of a node ------------------------------------------------------------------------------

NODE = [
    ("ingress: [{fromEndpoints: [{matchLabels: {app: web}}]}]", None),
    ("ingress: [{fromEndpoints: [{matchLabels: {app: gone}}]}]", "holds no endpoint"),
    ("ingress: [{toPorts: [{ports: [{port: http, protocol: TCP}]}]}]", None),
    ("ingress: [{toPorts: [{ports: [{port: metrics, protocol: TCP}]}]}]", "(known: http)"),
    ("egress: [{toEndpoints: [{matchLabels: {app: web}}], toPorts: [{ports: [{port: metrics}]}]}]", None),
    ("egress: [{toEndpoints: [{matchLabels: {app: web}}], toPorts: [{ports: [{port: http}]}]}]", "(known: metrics)"),
    ("ingress: [{fromCIDR: [10.0.0.0/24]}]", "does not hold endpoint api (10.0.0.2)"),
    ("ingress: [{fromCIDR: [192.0.2.0/24]}]", None),
    ("ingress: [{fromCIDR: [0.0.0.0/0]}]", None),
    ("ingress: [{fromEndpoints: [{matchLabels: {'reserved:host': ''}}]}]", None),
]


@pytest.mark.parametrize(("spec", "message"), NODE)
def test_what_the_node_does_not_have(tmp_path: Path, spec: str, message: str | None) -> None:
    assert lint(tmp_path, api(spec)) == []
    problems = lint(tmp_path, api(spec), endpoints=ENDPOINTS)
    assert [message in one.message for one in problems if message] == ([True] if message else [])
    assert len(problems) == (message is not None)


def test_a_policy_that_selects_nothing_here(tmp_path: Path) -> None:
    text = document("endpointSelector: {matchLabels: {app: gone}}\ningress: [{}]")
    (problem,) = lint(tmp_path, text, endpoints=ENDPOINTS)
    assert problem.key == "spec.endpointSelector" and "selects no endpoint" in problem.message


def test_ten_thousand_rules_are_no_trouble(tmp_path: Path) -> None:
    http = ", ".join(f"{{method: GET, path: '/svc{number}/.*'}}" for number in range(10_000))
    text = from_web(http)
    start = time.monotonic()
    assert lint(tmp_path, text) == []
    assert time.monotonic() - start < 30
