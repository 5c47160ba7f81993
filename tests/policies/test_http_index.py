"""The index against a reading of every rule in turn, and the pattern sets when RE2 runs out of memory."""

from __future__ import annotations

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from parsers.facts import HttpRequest
from policies.http_index import HttpIndex
from policies.model import HeaderMatch, HttpRule
from policies.patterns import PatternError, PatternSet, Style, literals
from policies.spellings import host_forms, path_forms
from policies.verdict import Verdict
from tests.policies.rules import call, cost, request, rule, rules

METHODS = [None, "GET", "PUT", "GET|PUT", "P.*", "(GET|HEAD)"]
PATHS = [None, "/a", "/b", "/a|/b", "/.*", "/[ab]", "^/a$", "/a.*", "/ab?"]
HOSTS = [None, "h", "g", "h|g", "h(:[0-9]+)?", ".*"]
HEADERS = [(), (HeaderMatch("x", "1"),), (HeaderMatch("x", None),), (HeaderMatch("x", "1"), HeaderMatch("y", "2"))]

some_rules = st.lists(
    st.builds(rule, st.sampled_from(METHODS), st.sampled_from(PATHS), st.sampled_from(HOSTS), st.sampled_from(HEADERS)),
    max_size=8,
)
some_request = st.builds(
    lambda method, path, host, fields: HttpRequest(method, path, host, headers=tuple(fields)),
    st.sampled_from(["GET", "PUT", "HEAD", "POST"]),
    st.sampled_from(["/a", "/b", "/ab", "/c", ""]),
    st.sampled_from(["h", "g", "h:80", ""]),
    st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("12")), max_size=3),
)


def holds(one: HttpRule, asked: HttpRequest) -> bool:
    """Cilium's meaning of one rule, spelt out."""
    fields = ((one.method, asked.method), (one.path, asked.path), (one.host, asked.host))
    if any(pattern is not None and not re2.fullmatch(pattern, text) for pattern, text in fields):
        return False
    for header in one.headers:
        values = [value for name, value in asked.headers if name == header.name]
        if not values or (header.value is not None and ",".join(values) != header.value):
            return False
    return True


@given(some_rules, some_request)
def test_the_index_finds_what_reading_every_rule_finds(listed: list[HttpRule], asked: HttpRequest) -> None:
    matching = [one for one in listed if holds(one, asked)]
    found = HttpIndex(listed).find(asked)
    assert (found is not None) == bool(matching)
    assert found is None or found.rule in matching


@given(some_rules, some_request)
def test_deny_finds_at_least_that(listed: list[HttpRule], asked: HttpRequest) -> None:
    if any(holds(one, asked) for one in listed):
        assert HttpIndex(listed, deny=True).find(asked) is not None


@given(some_rules, some_request)
def test_the_first_matching_rule_is_found_when_none_is_wholly_literal(
    listed: list[HttpRule], asked: HttpRequest
) -> None:
    wide = [one for one in listed if one.headers or one.host is not None or one.path is None or one.method is None]
    matching = [one for one in wide if holds(one, asked)]
    found = HttpIndex(wide).find(asked)
    assert (found.rule if found else None) == (matching[0] if matching else None)


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        ("GET", ("GET",)),
        ("", ("",)),
        ("a|b|a", ("a", "b")),
        ("(a|b)", ("a", "b")),
        ("^(?:a)$", ("a",)),
        (r"a\|b\\|c\.", ("a|b\\", "c.")),
        ("/a-b_c~d,e;f=g&h:i@j%k!l'm\"n<o>p#q", ("/a-b_c~d,e;f=g&h:i@j%k!l'm\"n<o>p#q",)),
        ("a.b", None),
        ("a*", None),
        ("(a|b)c", None),
        ("(a|(b))", None),
        ("(a", None),
        (r"\d", None),
        (r"\x41", None),
        (r"a\Qb", None),
        ("[a]", None),
        ("a{2}", None),
        ("a^b", None),
        ("(?i)a", None),
    ],
)
def test_literals(pattern: str, texts: tuple[str, ...] | None) -> None:
    assert literals(pattern) == texts


@given(st.text("ab|()\\.^$?:[", max_size=6), st.text("ab|.\\^$", max_size=4))
def test_literals_are_what_re2_matches(pattern: str, text: str) -> None:
    texts = literals(pattern)
    if texts is not None:
        assert (re2.fullmatch(pattern, text) is not None) == (text in texts)
        assert all(re2.fullmatch(pattern, one) for one in texts)


class _OutOfMemory:
    """A set whose DFA finds no room: it answers nothing, as RE2 does."""

    def Match(self, text: bytes) -> None:
        return None


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_set_that_runs_out_of_memory_still_answers(size: int) -> None:
    patterns = [f"/{number}.*" for number in range(size)]
    one = PatternSet(patterns, Style())
    one._set = _OutOfMemory()
    assert one.match(b"/0x") == [0]
    assert one.match(f"/{size - 1}x".encode()) == [size - 1]
    assert one.match(b"/x") == []


def test_a_set_too_large_for_its_memory_is_cut() -> None:
    patterns = [f"/{number}/[a-z]+/x*" for number in range(400)]
    one = PatternSet(patterns, Style(), max_memory=64 << 10)
    assert one._halves is not None
    assert [one.match(f"/{number}/a/".encode()) for number in (0, 199, 399)] == [[0], [199], [399]]
    assert one.match(b"/400/a/") == []


@pytest.mark.parametrize("pattern", ["(", "a**", "[b-a]", r"\8", "(?=a)", "a{2000}"])
def test_bad_expressions(pattern: str) -> None:
    with pytest.raises(PatternError, match="is no valid expression"):
        PatternSet(["/good", pattern], Style())


def test_forms() -> None:
    assert path_forms("/a") == ("/a",)
    assert path_forms("/a%3Ab;c/d?e") == ("/a%3Ab;c/d?e", "/a%3Ab;c/d", "/a:b;c/d", "/a%3Ab/d", "/a:b/d")
    assert host_forms("A.b.:80") == ("a.b.:80", "a.b.", "a.b")
    assert host_forms("[::1]") == ("[::1]",)


def _cost(count: int, wanted: HttpRequest, *listed: HttpRule) -> float:
    """Of look-ups among `count` rules."""
    many = [rule("GET", f"/svc{number}/[0-9]+", f"h{number}") for number in range(count)]
    many += [rule("GET", "/one", headers=[HeaderMatch("x", str(number))]) for number in range(count)]
    many += [call(f"a.S{number}", "Get.*") for number in range(count)]
    many += [call(f"a.S{number}", f"Put{number}") for number in range(count)]
    one = rules([*many, *listed])
    assert one.judge(wanted).verdict is Verdict.FORWARDED
    return cost(lambda: one.judge(wanted))


@pytest.mark.parametrize(
    "wanted",
    [
        request("GET", "/literal"),
        request("GET", "/svc7/12", "h7"),
        request("GET", "/one", "h", ("x", "7")),
        request("POST", "/a.S7/Put7"),
        request("POST", "/a.S7/GetX"),
    ],
    ids=["literal", "expression", "header", "literal call", "call"],
)
def test_five_thousand_rules_cost_what_ten_do(wanted: HttpRequest) -> None:
    literal = rule("GET", "/literal")
    assert _cost(5000, wanted, literal) < 3 * _cost(10, wanted, literal)
