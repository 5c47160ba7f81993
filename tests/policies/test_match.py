"""L7 verdicts: each line of what Cilium's HTTP rules mean, the deny rules' reach, audit mode, attribution."""

from __future__ import annotations

import pytest

from parsers.facts import HttpRequest
from policies.decision import L7Lists
from policies.match import judge_all
from policies.model import HeaderMatch, HttpRule
from policies.patterns import PatternError
from policies.verdict import Verdict
from tests.policies.rules import audited, request, rule, rules

FORWARDED, DROPPED, AUDIT = Verdict.FORWARDED, Verdict.DROPPED, Verdict.AUDIT


def verdict(one: HttpRule, method: str, path: str, host: str = "api", *headers: tuple[str, str]) -> Verdict:
    return rules([one]).judge(request(method, path, host, *headers)).verdict


@pytest.mark.parametrize(
    ("asked", "path", "passes"),
    [
        ("/public", "/public", True),
        ("/public", "/public/", False),
        ("/public", "/public/a", False),
        ("/public", "/x/public", False),
        ("/public/.*", "/public/a/b", True),
        ("/public/.*", "/public", False),
        ("/public.*", "/publicity", True),
        ("/a|/b", "/a", True),
        ("/a|/b", "/b", True),
        ("/a|/b", "/ab", False),
        ("/(a|b)", "/b", True),
        ("(/a|/b)", "/b", True),
        ("(?:/a|/b)", "/a", True),
        ("(?:/a|/b)", "/a|/b", False),
        ("^/a$", "/a", True),
        ("^/a$", "/ab", False),
        ("/a|/b.*", "/a/c", False),
        (r"/v1\.0", "/v1.0", True),
        (r"/v1\.0", "/v1x0", False),
        (r"/v1\.0", r"/v1\.0", False),
        (r"/a\|b", "/a|b", True),
        (r"/a\|b", "/a", False),
        ("/v1.0", "/v1x0", True),
        (r"/\d+", "/12", True),
        (r"/\d+", "/1a", False),
        ("/A", "/a", False),
        ("(?i)/A", "/a", True),
        ("/ä", "/\xc3\xa4", True),
        ("/ä", "/\xe4", False),
        ("/.", "/\xc3\xa4", True),
        ("", "/", False),
    ],
)
def test_paths_match_whole_and_with_case(asked: str, path: str, passes: bool) -> None:
    assert verdict(rule("GET", asked), "GET", path) is (FORWARDED if passes else DROPPED)


def test_the_path_sees_the_query_string() -> None:
    assert verdict(rule("GET", "/foo"), "GET", "/foo?x") is DROPPED
    assert verdict(rule("GET", r"/foo(\?.*)?"), "GET", "/foo?x") is FORWARDED


def test_the_host_sees_the_port() -> None:
    assert verdict(rule(host="h"), "GET", "/", "h:8080") is DROPPED
    assert verdict(rule(host="h(:[0-9]+)?"), "GET", "/", "h:8080") is FORWARDED
    assert verdict(rule(host="h"), "GET", "/", "H") is DROPPED


@pytest.mark.parametrize(
    ("asked", "method", "passes"),
    [
        ("GET", "GET", True),
        ("GET", "get", False),
        ("GET", "GETX", False),
        ("GET|HEAD", "HEAD", True),
        ("GET|HEAD", "POST", False),
        ("P.*", "PUT", True),
        ("P.*", "GET", False),
        (None, "ANYTHING", True),
    ],
)
def test_methods(asked: str | None, method: str, passes: bool) -> None:
    for path in ("/x", "/[x]", None):
        assert verdict(rule(asked, path), method, "/x") is (FORWARDED if passes else DROPPED)


def test_fields_and_rules_or() -> None:
    both = rules([rule("GET", "/a", "h"), rule("PUT", "/b")])
    assert both.judge(request("GET", "/a", "h")).verdict is FORWARDED
    assert both.judge(request("GET", "/a", "other")).verdict is DROPPED
    assert both.judge(request("PUT", "/b", "other")).verdict is FORWARDED
    assert both.judge(request("PUT", "/a", "h")).verdict is DROPPED


def test_an_empty_rule_allows_everything() -> None:
    assert verdict(rule(), "BREW", "\xff", "") is FORWARDED


def test_an_empty_list_allows_nothing() -> None:
    assert rules().judge(request()).verdict is DROPPED


@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        ([("x-token", "open")], True),
        ([("x-token", "Open")], False),
        ([("x-token", "open ")], False),
        ([("y", "open")], False),
        ([("x-token", "open"), ("x-token", "closed")], False),
        ([("x-token", "open"), ("x-token", "open")], False),
        ([], False),
    ],
)
def test_header_values_are_exact_and_repeats_are_joined(fields: list[tuple[str, str]], passes: bool) -> None:
    asked = rule(headers=[HeaderMatch("x-token", "open")])
    assert verdict(asked, "GET", "/", "h", *fields) is (FORWARDED if passes else DROPPED)


def test_a_joined_value_matches_as_a_whole() -> None:
    asked = rule(headers=[HeaderMatch("x", "a,b")])
    assert verdict(asked, "GET", "/", "h", ("x", "a"), ("x", "b")) is FORWARDED
    assert verdict(asked, "GET", "/", "h", ("x", "a, b")) is DROPPED


def test_presence() -> None:
    asked = rule(headers=[HeaderMatch("x", None)])
    assert verdict(asked, "GET", "/", "h", ("x", "")) is FORWARDED
    assert verdict(asked, "GET", "/", "h") is DROPPED


def test_a_name_with_a_colon_never_matches() -> None:
    asked = rule(headers=[HeaderMatch("k:v", None)])
    assert verdict(asked, "GET", "/", "h", ("k", "v")) is DROPPED


def test_all_header_conditions_must_hold() -> None:
    asked = rule(headers=[HeaderMatch("a", "1"), HeaderMatch("b", "2"), HeaderMatch("c", None)])
    fields = [("a", "1"), ("b", "2"), ("c", "")]
    assert verdict(asked, "GET", "/", "h", *fields) is FORWARDED
    for gone in range(3):
        assert verdict(asked, "GET", "/", "h", *fields[:gone], *fields[gone + 1 :]) is DROPPED


def test_a_logged_header_decides_nothing_and_is_told_of() -> None:
    asked = rules([rule("GET", "/a", headers=[HeaderMatch("x", "1", log=True)])])
    right = asked.judge(request("GET", "/a", "h", ("x", "1")))
    wrong = asked.judge(request("GET", "/a", "h", ("x", "2")))
    assert (right.verdict, wrong.verdict) == (FORWARDED, FORWARDED)
    assert "header x does not match (mismatch: LOG)" in wrong.reason
    assert "mismatch" not in right.reason


def test_the_first_rule_of_the_file_gets_the_credit() -> None:
    allow = [rule("GET", "/a.*", line=1), rule("GET", "/.*", line=2), rule("GET", "/ab", line=3)]
    for path, line in (("/ac", 1), ("/x", 2), ("/ab", 3)):
        found = rules(allow).judge(request("GET", path)).rule
        assert found is not None and found.line == line, path


def test_reasons_name_policy_file_and_line() -> None:
    one = rules([rule("GET", "/a", line=7), rule("GET", "/b", policy="other", line=9)], [rule("PUT", line=8)])
    assert one.judge(request("GET", "/a")).reason == (
        "allowed by policy default/api, ingress[0].toPorts[0].rules.http[6] (api.yaml:7)"
    )
    assert one.judge(request("PUT", "/a")).reason == (
        "denied by policy default/api, ingress[0].toPorts[0].rules.http[7] (api.yaml:8)"
    )
    assert one.judge(request("GET", "/c")).reason == (
        "no rule of policies default/api (api.yaml:7), other (api.yaml:9) allows GET /c"
    )


def test_a_refusal_never_quotes_the_query_and_is_bounded() -> None:
    refused = rules([rule("GET", "/a")]).judge(request("M" * 5000, "/" + "p" * 5000 + "?password=1"))
    assert "password" not in refused.reason
    assert "with its query string" in refused.reason
    assert len(refused.reason) < 600


# -- deny rules ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/admin", "/admin?x", "/admin?", "/%61dmin", "/admin;v=1", "/admin;v=1?x", "/adm%69n%3bv", "/a%64min?%00"],
)
def test_a_denied_path_is_denied_in_every_spelling(path: str) -> None:
    one = rules([rule()], [rule(path="/admin")])
    assert one.judge(request("GET", path)).verdict is DROPPED
    assert one.judge(request("GET", "/administrator")).verdict is FORWARDED


def test_a_denied_expression_holds_bytes_that_are_no_utf8() -> None:
    one = rules([rule()], [rule(path="/admin/.*x")])
    assert one.judge(request("GET", "/admin/\xff\nx")).verdict is DROPPED


def test_an_allowed_expression_does_not_hold_bytes_that_are_no_utf8() -> None:
    assert verdict(rule("GET", "/.*"), "GET", "/?\xff") is DROPPED
    assert verdict(rule("GET", "/.*"), "GET", "/?\xc3\xa4") is FORWARDED


@pytest.mark.parametrize("asked", ["secret.example", r"secret\.example", r"s[e]cret\.example"])
@pytest.mark.parametrize("host", ["secret.example", "SECRET.Example", "secret.example:8080", "secret.example.:80"])
def test_a_denied_host_is_denied_in_every_spelling(asked: str, host: str) -> None:
    one = rules([rule()], [rule(host=asked)])
    assert one.judge(request("GET", "/", host)).verdict is DROPPED
    assert one.judge(request("GET", "/", "public.example")).verdict is FORWARDED


@pytest.mark.parametrize(
    "fields",
    [
        [("x", "evil")],
        [("x", "good"), ("x", "evil")],
        [("x", "evil"), ("x", "good")],
        [("x", "good, evil")],
        [("x", "evil\t,good")],
    ],
)
def test_a_denied_header_value_is_denied_wherever_it_hides(fields: list[tuple[str, str]]) -> None:
    one = rules([rule()], [rule(headers=[HeaderMatch("x", "evil")])])
    assert one.judge(request("GET", "/", "h", *fields)).verdict is DROPPED
    assert one.judge(request("GET", "/", "h", ("x", "good"))).verdict is FORWARDED


def test_deny_beats_allow_even_a_literal_one() -> None:
    one = rules([rule("GET", "/a")], [rule(path="/.*", line=5)])
    found = one.judge(request("GET", "/a"))
    assert found.verdict is DROPPED and found.rule is not None and found.rule.line == 5


# -- lists, audit, messages ---------------------------------------------------------------------------------------


def test_an_l4_rule_beside_opens_the_port_and_is_named() -> None:
    opener = rule(line=40).ref
    lists = L7Lists((rule("GET", "/a"),), (), opener)
    found = audited(lists, lists).judge(request("PUT", "/x"))
    assert (found.verdict, found.rule) == (FORWARDED, opener)


def test_open_lists_name_no_rule_and_still_deny() -> None:
    lists = L7Lists(deny=(rule(path="/admin.*"),), open=True)
    one = audited(lists, lists)
    assert one.judge(request("GET", "/admin")).verdict is DROPPED
    passed = one.judge(request("GET", "/x"))
    assert (passed.verdict, passed.rule) == (FORWARDED, None)
    assert not one.audit_only
    assert audited(L7Lists(open=True), L7Lists()).audit_only


def test_what_only_an_audit_policy_refuses_is_audited() -> None:
    one = audited(L7Lists(open=True), L7Lists((rule("GET", "/a", line=3),)))
    passed, seen = one.judge(request("GET", "/a")), one.judge(request("GET", "/b"))
    assert passed.verdict is FORWARDED and passed.rule is not None and passed.rule.line == 3
    assert (seen.verdict, seen.rule) == (AUDIT, None)
    assert seen.reason == "audit mode, forwarded: no rule of policy default/api (api.yaml:3) allows GET /b"


def test_what_is_enforced_wins_over_what_is_audited() -> None:
    enforced = L7Lists((rule("GET", "/a.*", line=1),))
    one = audited(enforced, L7Lists(enforced.allow, (rule(path="/ab", line=9),)))
    found = [one.judge(request("GET", path)) for path in ("/a", "/ab", "/x")]
    assert [decision.verdict for decision in found] == [FORWARDED, AUDIT, DROPPED]
    assert found[1].rule is not None and found[1].rule.line == 9


def test_every_decision_names_its_direction() -> None:
    for one in (rules([rule("GET", "/a")], [rule("PUT")]), audited(L7Lists(open=True), L7Lists())):
        for sample in (request("GET", "/a"), request("PUT"), request("GET", "/z")):
            assert one.judge(sample).direction == "ingress"


def test_the_refusal_text_is_that_of_the_policy() -> None:
    texts = {"other": "ask the other team"}
    one = rules([rule("GET", "/a"), rule("GET", "/b", policy="other")], [rule("PUT")], messages=texts)
    assert one.judge(request("GET", "/x")).message == "ask the other team"
    assert one.judge(request("PUT", "/x")).message is None
    assert one.judge(request("GET", "/a")).message is None


def test_header_names() -> None:
    one = rules([rule(headers=[HeaderMatch("a", None)])], [rule(headers=[HeaderMatch("b", "1")])])
    assert one.header_names == {"a", "b"} and one.needs_headers
    assert not rules([rule("GET")]).needs_headers


def test_headers_are_not_made_for_rules_that_ask_none() -> None:
    def source() -> tuple[tuple[str, str], ...]:
        raise AssertionError("nobody asked")

    lazy = HttpRequest("GET", "/a", "host", header_source=source)
    assert rules([rule("GET", "/[a]", "h.*")], [rule(path="/x.*")]).judge(lazy).verdict is FORWARDED


def test_all_sides_must_agree() -> None:
    allow, refuse = rules([rule(line=1)]), rules([rule("PUT", line=2)])
    watch = audited(L7Lists(open=True), L7Lists())
    last = rules([rule(line=3)])
    assert judge_all([allow, refuse], request()).verdict is DROPPED
    assert judge_all([refuse, allow], request()).verdict is DROPPED
    assert judge_all([watch, refuse], request()).verdict is DROPPED
    assert judge_all([watch, allow], request()).verdict is AUDIT
    assert judge_all([allow, watch], request()).verdict is AUDIT
    assert judge_all([allow, last], request()).rule == rule(line=3).ref
    nothing = audited(L7Lists(open=True), L7Lists(open=True))
    assert judge_all([allow, nothing], request()).rule == rule(line=1).ref
    assert judge_all([], request()).verdict is FORWARDED


def test_a_bad_expression_is_refused() -> None:
    with pytest.raises(PatternError, match="missing"):
        rules([rule("GET", "/(")])
