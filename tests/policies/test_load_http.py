"""HTTP rules as Cilium reads them, and what of them is refused."""

from __future__ import annotations

import textwrap

import pytest

from policies.model import HeaderMatch, HttpRule
from tests.policies.texts import api, complaints, load


def text(rules: str, kind: str = "ingress") -> str:
    head = f"{kind}:\n- toPorts:\n  - ports: [{{port: '80', protocol: TCP}}]\n    rules:\n      http:\n"
    return api(head + textwrap.indent(textwrap.dedent(rules).strip(), "      "))


def http(rules: str, kind: str = "ingress") -> tuple[HttpRule, ...]:
    (policy,) = load(text(rules, kind))
    ports = policy.rules[0].ports
    assert ports is not None and ports[0].rules is not None
    return ports[0].rules


def headers(value: str) -> tuple[HeaderMatch, ...]:
    return http(f"- headers: {value}")[0].headers


def test_empty_fields_are_not_asked() -> None:
    rules = http("- {method: '', path: '', host: '', headers: [], headerMatches: []}\n- {}")
    assert [(r.method, r.path, r.host, r.headers) for r in rules] == [(None, None, None, ())] * 2


def test_fields_are_kept_as_written() -> None:
    (rule,) = http(r"- {method: GET|HEAD, path: '^/a\.b(\?.*)?$', host: '(?i)shop\.example(:80)?'}")
    assert (rule.method, rule.path, rule.host) == ("GET|HEAD", r"^/a\.b(\?.*)?$", r"(?i)shop\.example(:80)?")


def test_documented_headers() -> None:
    (rule,) = http("- method: PUT\n  path: /path2$\n  headers:\n  - 'X-My-Header: true'")
    assert rule.headers == (HeaderMatch("x-my-header", "true"),)


@pytest.mark.parametrize(
    ("written", "name", "value"),
    [
        ("'X-Token: open'", "x-token", "open"),
        ("'X-Token open'", "x-token", "open"),
        ("'X-Token::: open'", "x-token", "open"),
        ("'X-Token:  open '", "x-token", " open "),
        ("'X-Token: A b C'", "x-token", "A b C"),
        ("'X-Token: '", "x-token", ""),
        ("'X-Token'", "x-token", None),
        ("'X-Token:'", "x-token:", None),
        ("'X-Token:open'", "x-token:open", None),
    ],
)
def test_headers_are_cut_at_the_first_space(written: str, name: str, value: str | None) -> None:
    assert headers(f"[{written}]") == (HeaderMatch(name, value),)


def test_header_matches() -> None:
    (rule,) = http(
        """
        - headerMatches:
          - {name: X-A, value: "1"}
          - {name: X-B}
          - {name: X-C, value: ""}
          - {name: X-D, value: d, mismatch: LOG}
        """
    )
    assert rule.headers == (
        HeaderMatch("x-a", "1"),
        HeaderMatch("x-b", None),
        HeaderMatch("x-c", None),
        HeaderMatch("x-d", "d", log=True),
    )


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ("- {path: '/a['}", "http[0].path: '/a[' is no valid expression at character 3: missing ]: ["),
        (
            "- {path: '/a(?=b)'}",
            "at character 3: invalid perl operator: (?=",
        ),
        ("- {method: 'GET)'}", "http[0].method: 'GET)' is no valid expression at character 1: unexpected ): GET)"),
        ("- {host: '*.example'}", "http[0].host: '*.example' is no valid expression at character 1"),
        (f"- {{path: '{'a' * 8193}'}}", "may have 8192 characters, this has 8193"),
        ("- {path: 5}", "http[0].path: must be a string, not a number (quote it)"),
        ("- {path: ~}", "http[0].path: has no value"),
        ("- GET", "http[0]: must be a mapping, not a string"),
        ("- {Path: /a}", "unknown key 'Path', did you mean path?"),
        ("- {headers: 'X: y'}", "headers: must be a list, not a string"),
        ("- {headers: [{X: y}]}", "headers[0]: must be a string, not a mapping"),
        ("- {headers: ['']}", "headers[0]: the header's name is missing"),
        ("- {headers: [' x']}", "headers[0]: the header's name is missing"),
        ("- {headerMatches: [{value: x}]}", "headerMatches[0]: needs name"),
        ("- {headerMatches: [{name: '', value: x}]}", "headerMatches[0]: the header's name is missing"),
        (
            "- {headerMatches: [{name: X, mismatch: ADD}]}",
            "not supported: mismatch ADD (l7proxy forwards every",
        ),
        ("- {headerMatches: [{name: X, mismatch: DELETE}]}", "not supported: mismatch DELETE"),
        ("- {headerMatches: [{name: X, mismatch: REPLACE}]}", "not supported: mismatch REPLACE"),
        ("- {headerMatches: [{name: X, mismatch: log}]}", "unknown mismatch 'log' (known: LOG)"),
        ("- {headerMatches: [{name: X, secret: {name: s}}]}", "not supported: secret (there is no Kubernetes API"),
    ],
)
def test_faulty_rules(rules: str, told: str) -> None:
    assert any(told in complaint for complaint in complaints(text(rules))), complaints(text(rules))


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ("- {headers: ['X:y']}", "no header is named 'X:y', so this denies nothing"),
        ("- {headerMatches: [{name: X, mismatch: LOG}]}", "not supported: mismatch in a deny rule"),
        ("- {path: '('}", "is no valid expression"),
    ],
)
def test_deny_rules_that_would_deny_nothing(rules: str, told: str) -> None:
    for kind in ("ingressDeny", "egressDeny"):
        assert any(told in complaint for complaint in complaints(text(rules, kind)))


def test_deny_rules_may_have_http() -> None:
    (rule,) = http("- {path: '/admin.*'}", "ingressDeny")
    assert (rule.path, rule.ref.rule) == ("/admin.*", "ingressDeny[0].toPorts[0].rules.http[0]")
