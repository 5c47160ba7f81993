"""gRPC rules against requests: the one spelling that allow rules take, and the many that deny rules hold."""

from __future__ import annotations

import re

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from parsers import uri
from parsers.facts import HttpRequest
from parsers.options import HttpOptions
from policies.model import HeaderMatch, HttpRule
from policies.spellings import call_forms, call_of
from policies.verdict import Verdict
from tests.policies.rules import call, request, rule, rules

FORWARDED, DROPPED = Verdict.FORWARDED, Verdict.DROPPED
ORDERS = "orders.v1.Orders"
GET = f"/{ORDERS}/GetOrder"


def allowed(one: HttpRule, path: str, method: str = "POST", *fields: tuple[str, str]) -> bool:
    return rules([one]).judge(request(method, path, "h", *fields)).verdict is FORWARDED


def denied(one: HttpRule, path: str, method: str = "POST", *fields: tuple[str, str]) -> bool:
    return rules([rule()], [one]).judge(request(method, path, "h", *fields)).verdict is DROPPED


@pytest.mark.parametrize(
    ("service", "method", "passes"),
    [
        (ORDERS, "GetOrder", True),
        (ORDERS, "Get.*", True),
        (ORDERS, "GetOrder|PutOrder", True),
        (ORDERS, "^GetOrder$", True),
        (ORDERS, "(?i)getorder", True),
        (ORDERS, r"\QGetOrder", True),
        (ORDERS, None, True),
        (None, "GetOrder", True),
        (None, "Get.*", True),
        (None, None, True),
        (ORDERS, "Get", False),
        (ORDERS, "Order", False),
        (ORDERS, "getOrder", False),
        (ORDERS, "Put.*", False),
        ("orders.v1.Order", None, False),
        ("orders.v1.orders", None, False),
        ("ordersxv1.Orders", None, False),
        ("orders.v1..*", None, False),
        (ORDERS, "/GetOrder", False),
    ],
)
def test_the_service_is_literal_and_the_method_an_expression(
    service: str | None, method: str | None, passes: bool
) -> None:
    assert allowed(call(service, method), GET) is passes
    assert denied(call(service, method), GET) is (passes or (service, method) in FOLDED)


FOLDED = ((ORDERS, "getOrder"), ("orders.v1.orders", None))


def test_a_dot_of_the_service_is_a_dot() -> None:
    for one in (call(ORDERS, "GetOrder"), call(ORDERS, "Get.*"), call(ORDERS)):
        assert not allowed(one, "/ordersxv1.Orders/GetOrder")
        assert not denied(one, "/ordersxv1.Orders/GetOrder")


NO_CALL = [
    "",
    "*",
    "/",
    f"/{ORDERS}",
    f"/{ORDERS}/",
    "//GetOrder",
    f"/{ORDERS}/GetOrder/",
    f"/{ORDERS}/GetOrder/x",
    f"/x/{ORDERS}/GetOrder",
    f"/{ORDERS}//GetOrder",
    f"/{ORDERS}/GetOrder?",
    f"/{ORDERS}/GetOrder?x=1",
    f"/{ORDERS}?/GetOrder",
    f"/{ORDERS}/GetOrder;v=1",
    f"/{ORDERS}/GetOrder%3Bv",
    f"/{ORDERS}/GetOrder%20",
    f"/{ORDERS}/GetOrder\n",
    f"/{ORDERS}/GetOrd\xc3\xa9r",
    f"{ORDERS}/GetOrder",
]


@pytest.mark.parametrize("path", NO_CALL)
def test_what_is_no_call_no_allow_rule_takes(path: str) -> None:
    for one in (
        call(),
        call(ORDERS),
        call(None, ".*"),
        call(ORDERS, "(?s).*"),
        call(ORDERS, "GetOrder|.*"),
        call(ORDERS, "[^x]*"),
    ):
        assert not allowed(one, path)
    assert call_of("POST", path) is None


@pytest.mark.parametrize("method", ["GET", "PUT", "post", "PRI", ""])
def test_a_call_is_a_post(method: str) -> None:
    for one in (call(), call(ORDERS, "GetOrder"), call(ORDERS, "Get.*")):
        assert not allowed(one, GET, method)
        assert denied(one, GET, method)


@pytest.mark.parametrize(
    "path",
    [
        GET,
        f"{GET}?x",
        f"{GET}?",
        f"{GET}/",
        f"{GET}/more",
        f"{GET}/a/b?c/d",
        f"/api{GET}",
        f"/api/v1{GET}/",
        GET.lower(),
        GET.upper(),
        "/orders%2Ev1.Orders/Get%4Frder",
        "/orders.v1.Orders%2fGetOrder",
        "/orders.v1.Orders;a=b/GetOrder;c",
        "/orders.v1.Orders/GetOrder%3bc?d",
        "/orders.v1.Order%C5%BF/GetOrder",
        "/orders.v1.Order\xc5\xbf/GetOrder",
        "//orders.v1.Orders//GetOrder",
    ],
)
def test_a_denied_call_is_denied_in_every_spelling(path: str) -> None:
    for one in (call(ORDERS, "GetOrder"), call(ORDERS, "Get[A-Z][a-z]+"), call(ORDERS), call(None, "GetOrder"), call()):
        assert denied(one, path)
    assert not denied(call(ORDERS, "PutOrder"), path)
    assert not denied(call("orders.v1.Order", "GetOrder"), path)


def test_a_denied_call_leaves_the_others() -> None:
    one = call(ORDERS, "Delete.*")
    for path in (
        GET,
        "/orders.v1.OrdersAdmin/DeleteOrder",
        "/",
        f"/{ORDERS}",
        "/DeleteOrder",
        "/a?/orders.v1.Orders/DeleteX",
    ):
        assert not denied(one, path)
    assert denied(one, f"/{ORDERS}/DeleteOrder")


def test_metadata_is_what_headers_are() -> None:
    one = call(ORDERS, "GetOrder", [HeaderMatch("tenant", "a")])
    assert allowed(one, GET, "POST", ("tenant", "a"))
    for fields in ([], [("tenant", "b")], [("tenant", "a"), ("tenant", "a")]):
        assert not allowed(one, GET, "POST", *fields)
    assert denied(one, GET, "POST", ("tenant", "b"), ("tenant", "a"))
    assert not denied(one, GET, "POST", ("tenant", "b"))
    assert rules([one]).header_names == {"tenant"}


def test_http_and_grpc_rules_of_one_port_are_one_list() -> None:
    both = rules([rule("GET", "/ui/.*", line=1), call(ORDERS, "Get.*", line=2)], [call(ORDERS, "GetSecret", line=3)])
    for asked, line in ((request("GET", "/ui/a"), 1), (request("POST", GET), 2)):
        found = both.judge(asked)
        assert found.verdict is FORWARDED and found.rule is not None and found.rule.line == line
    found = both.judge(request("POST", f"/{ORDERS}/GetSecret"))
    assert found.verdict is DROPPED and found.rule is not None and found.rule.line == 3
    assert both.judge(request("POST", "/ui/a")).verdict is DROPPED


def test_the_first_rule_of_the_file_gets_the_credit_whatever_its_kind() -> None:
    http, grpc = rule("POST", "/orders.*", line=1), call(ORDERS, "Get.*", line=2)
    for listed in ([http, grpc], [grpc, http]):
        found = rules(listed).judge(request("POST", GET)).rule
        assert found == listed[0].ref


SERVICES = [None, "a.B", "a.C", "a"]
METHODS = [None, "Get", "Get|Put", "G.*", "[A-Z][a-z]+", ".*", "^Put$", "P(u)t"]
HEADERS = [(), (HeaderMatch("x", "1"),), (HeaderMatch("x", None),)]
some_rules = st.lists(
    st.one_of(
        st.builds(call, st.sampled_from(SERVICES), st.sampled_from(METHODS), st.sampled_from(HEADERS)),
        st.builds(rule, st.sampled_from([None, "POST"]), st.sampled_from([None, "/a.B/Get", "/a.B/.*", "/.*/Put"])),
    ),
    max_size=8,
)
some_request = st.builds(
    lambda method, path, fields: HttpRequest(method, path, "h", headers=tuple(fields)),
    st.sampled_from(["POST", "GET"]),
    st.sampled_from(["/a.B/Get", "/a.B/Put", "/a.C/Get", "/a/Get", "/a.B/Get?x", "/a.B/Get/Put", "/a.b/get", "/a.B"]),
    st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from("12")), max_size=2),
)


def holds(one: HttpRule, asked: HttpRequest) -> bool:
    """The meaning of one allow rule, spelt out."""
    if one.grpc is None:
        fields = [(one.method, asked.method), (one.path, asked.path)]
    else:
        parts = asked.path.split("/")
        if asked.method != "POST" or "?" in asked.path or len(parts) != 3 or not all(parts[1:]):
            return False
        service = one.grpc.service
        fields = [(None if service is None else re.escape(service), parts[1]), (one.grpc.method, parts[2])]
    if any(pattern is not None and not re2.fullmatch(pattern, text) for pattern, text in fields):
        return False
    values = [value for name, value in asked.headers if name == "x"]
    return all(values and header.value in (None, ",".join(values)) for header in one.headers)


@given(some_rules, some_request)
def test_the_index_finds_what_reading_every_rule_finds(listed: list[HttpRule], asked: HttpRequest) -> None:
    matching = [one for one in listed if holds(one, asked)]
    found = rules(listed).judge(asked)
    assert (found.verdict is FORWARDED) == bool(matching)
    assert found.rule is None or found.rule in [one.ref for one in matching]
    if matching:
        assert rules([rule()], listed).judge(asked).verdict is DROPPED


@given(st.text("aB./%;?\\+2fE3 \xc5\xbf", max_size=12))
def test_what_an_allow_rule_takes_for_a_call_a_deny_rule_does_as_well(path: str) -> None:
    found = call_of("POST", f"/{path}")
    forms = list(call_forms(f"/{path}", f"/{path}"))
    assert found is None or (found[0].lower(), found[1].lower()) in forms
    assert len(forms) <= 8


@given(st.text("aB.%2e4F", min_size=1, max_size=8))
def test_the_normal_form_of_an_allowed_call_is_its_only_spelling(name: str) -> None:
    try:
        path = uri.normal(f"/a.B/{name}".encode(), HttpOptions()).decode()
    except uri.BadTarget:
        return
    if call_of("POST", path) is not None:
        assert "%" not in path and path.count("/") == 2


def test_a_path_of_many_segments_costs_little() -> None:
    path = "/a%41;x" * 9000
    assert len(list(call_forms(path, f"{path}/../b"))) <= 16


def test_a_denied_call_is_seen_in_the_target_as_it_was_sent() -> None:
    one = rules([rule()], [call("a.B", "Get")])
    for target in ("/a.B/Get/..", "/a.B/Get/../Put", "/x/../A.b/%47et"):
        path = uri.normal(target.encode(), HttpOptions(allow_dot_segments=True)).decode()
        assert one.judge(HttpRequest("POST", path, "h", target=target)).verdict is DROPPED
    assert one.judge(HttpRequest("POST", "/a.B/Put", "h", target="/a.B/x/../Put")).verdict is FORWARDED
