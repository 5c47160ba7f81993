"""CQL rules in policy files, ours and Cilium's: what is read, and what is refused."""

from __future__ import annotations

import textwrap

import pytest

from policies.cql_actions import CILIUM_ACTIONS, CILIUM_TABLELESS, GROUPS
from policies.model import CqlRule, L7Protocol
from tests.policies.texts import TCP80, WEB, api, complaints, load, resolver, to_api

HEAD = f"ingress:\n- toPorts:\n  - {TCP80}\n    rules:\n"


def text(rules: str, kind: str = "ingress", head: str = "cql:") -> str:
    body = f"{head}\n{textwrap.dedent(rules).strip()}"
    return api(HEAD.replace("ingress", kind) + textwrap.indent(body, "      "))


def read(file: str) -> list[CqlRule]:
    (policy,) = load(file)
    ports = policy.rules[0].ports
    assert ports is not None and ports[0].rules is not None and ports[0].protocol is L7Protocol.CASSANDRA
    found = [rule for rule in ports[0].rules if isinstance(rule, CqlRule)]
    assert len(found) == len(ports[0].rules)
    return found


def cql(rules: str, kind: str = "ingress") -> list[CqlRule]:
    return read(text(rules, kind))


def cilium(rules: str) -> list[CqlRule]:
    return read(text(rules, head="l7proto: cassandra\nl7:"))


@pytest.mark.parametrize("kind", ["ingress", "egress", "ingressDeny", "egressDeny"])
def test_fields(kind: str) -> None:
    first, second, third = cql(
        """
        - {action: select, keyspace: shop, table: orders}
        - {action: [select, modify], keyspace: [shop, "stock_*"], table: ["*", Orders, "*"]}
        - {}
        """,
        kind,
    )
    assert (first.actions, first.keyspaces, first.tables) == ({"select"}, ("shop",), ("orders",))
    assert second.actions == {"select", "insert", "update", "delete"}
    assert (second.keyspaces, second.tables, second.pattern) == (("shop", "stock_*"), ("*", "Orders"), None)
    assert third.asks_nothing and not (first.asks_nothing or second.asks_nothing)
    assert first.ref.rule == f"{kind}[0].toPorts[0].rules.cql[0]"


@pytest.mark.parametrize("word", [*GROUPS, "Select", "CREATE-TABLE", "unknown", "execute"])
def test_words(word: str) -> None:
    assert cql(f"- action: {word}")[0].actions == GROUPS.get(word, {word.lower()})


@pytest.mark.parametrize(
    ("rule", "key", "complaint"),
    [
        ("{action: selct}", ".action", "no action is named 'selct', did you mean select?"),
        (
            "{action: [select, zzzz]}",
            ".action[1]",
            "no action is named 'zzzz' (such as select, create-table; or modify",
        ),
        ("{action: batch}", ".action", "a batch is judged by what is in it"),
        ("{action: []}", ".action", "an empty list holds nothing: leave action out for any"),
        ("{action: ''}", ".action", "an empty text is no action"),
        ("{keyspace: []}", ".keyspace", "an empty list holds nothing"),
        ("{table: ['']}", ".table[0]", "an empty text is no table"),
        ("{table: 1}", ".table", "must be a string, not a number"),
        ("{table: shop.orders}", ".table", "write keyspace: 'shop', table: 'orders'"),
        ("{table: '\"Orders\"'}", ".table", "names stand without quotation marks here"),
        ("{keyspace: shop-2}", ".keyspace", "no keyspace is named 'shop-2': names are of A-Z"),
        ("{keyspace: 'shöp'}", ".keyspace", "no keyspace is named"),
        (f"{{table: {'a' * 223}}}", ".table", "have at most 222 characters"),
        ("{tables: [a]}", ".tables", "unknown key 'tables', did you mean table?"),
        ("{query_action: select}", ".query_action", "unknown key 'query_action'"),
        ("{table: }", ".table", "has no value"),
        ("a", "", "must be a mapping"),
    ],
)
def test_what_is_refused(rule: str, key: str, complaint: str) -> None:
    told = complaints(text(f"- {rule}"))
    where = f":spec.ingress[0].toPorts[0].rules.cql[0]{key}: "
    assert any(where in one and complaint in one for one in told), told


# -- Cilium's ----------------------------------------------------------------------------------------------------


def test_ciliums_fields() -> None:
    first, second, third, fourth = cilium(
        """
        - {query_action: select, query_table: "system\\\\..*"}
        - {query_action: truncate-table}
        - {query_table: "^shop\\\\."}
        - {query_action: "", query_table: ""}
        """
    )
    assert (first.actions, first.pattern) == ({"select", "use"}, "system\\..*")
    assert (second.actions, second.pattern) == ({"truncate", "use"}, None)
    assert (third.actions, third.pattern) == (None, "^shop\\.") and fourth.asks_nothing
    assert first.ref.rule == "ingress[0].toPorts[0].rules.l7[0]"


@pytest.mark.parametrize("action", sorted(CILIUM_ACTIONS | CILIUM_TABLELESS))
def test_ciliums_actions(action: str) -> None:
    (rule,) = cilium(f"- query_action: {action}")
    assert rule.actions == {action.removesuffix("-table") if action == "truncate-table" else action, "use"}


@pytest.mark.parametrize(
    ("rule", "key", "complaint"),
    [
        # What Cilium takes, and then closes every connection for (CILIUM-SEMANTICS).
        ("{query_action: SELECT}", ".query_action", "Cilium knows no query_action 'SELECT', did you mean select?"),
        ("{query_action: truncate}", ".query_action", "did you mean truncate-table?"),
        ("{query_action: describe}", ".query_action", "Cilium knows no query_action 'describe'"),
        ("{query_action: zzzz}", ".query_action", "(rules.cql has more)"),
        ("{query_table: '('}", ".query_table", "is no valid expression"),
        ("{query_keyspace: a}", ".query_keyspace", "unknown key 'query_keyspace'"),
        ("{query_action: list-roles, query_table: a}", "", "query_table cannot stand beside query_action list-roles"),
        ("{query_action: 1}", ".query_action", "must be a string"),
        # What would mean something else with more around it.
        ("{query_table: '\\Qab'}", ".query_table", "not supported in query_table: \\Q (escape each character)"),
        ("{query_table: '^*a'}", ".query_table", "not supported in query_table: "),
    ],
)
def test_what_is_refused_of_ciliums(rule: str, key: str, complaint: str) -> None:
    told = complaints(text(f"- {rule}", head="l7proto: cassandra\nl7:"))
    where = f":spec.ingress[0].toPorts[0].rules.l7[0]{key}: "
    assert any(where in one and complaint in one for one in told), told


@pytest.mark.parametrize(
    ("rules", "complaint"),
    [
        ("l7proto: cassandra", "l7proto needs l7 (`l7: [{}]` allows every statement) beside it"),
        ("l7: [{}]", "l7 needs l7proto: cassandra beside it"),
        ("{l7proto: memcached, l7: [{}]}", "not supported: l7proto 'memcached' (only cassandra is)"),
        ("{l7proto: Cassandra, l7: [{}]}", "not supported: l7proto 'Cassandra'"),
        ("{l7proto: cassandra, l7: {}}", "must be a list"),
        ("{l7proto: cassandra, l7: [{}], cql: [{}]}", "l7proto and l7 and cql cannot stand in one rules"),
        ("{l7: [{}], http: [{}]}", "l7 and http cannot stand in one rules"),
    ],
)
def test_l7proto(rules: str, complaint: str) -> None:
    rules = rules if rules.startswith("{") else f"{{{rules}}}"
    told = complaints(api(f"ingress: [{{toPorts: [{{{TCP80}, rules: {rules}}}]}}]"))
    assert any(complaint in one for one in told), told


def test_l7_in_a_deny_rule() -> None:
    told = complaints(text("- {}", "ingressDeny", "l7proto: cassandra\nl7:"))
    assert len(told) == 1 and "not supported: l7 in a deny rule (write rules.cql)" in told[0]


# -- among others ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["http", "grpc", "kafka"])
def test_one_entry_is_of_one_protocol(other: str) -> None:
    (told,) = complaints(api(f"ingress: [{{toPorts: [{{{TCP80}, rules: {{cql: [{{}}], {other}: [{{}}]}}}}]}}]"))
    assert f"cql and {other} cannot stand in one rules" in told and "write two entries of toPorts" in told


@pytest.mark.parametrize("rules", ["cql: []", "l7proto: cassandra, l7: []"])
def test_an_empty_list_is_no_rule(rules: str) -> None:
    (policy,) = load(api(f"ingress: [{{toPorts: [{{{TCP80}, rules: {{{rules}}}}}]}}]"))
    ports = policy.rules[0].ports
    assert ports is not None and ports[0].rules is None and ports[0].protocol is None


def test_lists_of_several_policies_are_one_whichever_they_are() -> None:
    one = text("- {action: select, keyspace: shop}")
    other = text("- {query_action: insert}", head="l7proto: cassandra\nl7:").replace("name: p", "name: q")
    decision = to_api(resolver(one, other), WEB)
    assert decision.l7 is not None and decision.l7.protocol is L7Protocol.CASSANDRA
    found = [rule.actions for rule in decision.l7.enforced.allow if isinstance(rule, CqlRule)]
    assert found == [{"select"}, {"insert", "use"}]


def test_a_port_of_two_protocols_is_refused() -> None:
    other = api(f"ingress: [{{toPorts: [{{{TCP80}, rules: {{kafka: [{{}}]}}}}]}}]", name="q")
    assert "is for cassandra" in to_api(resolver(text("- {}"), other), WEB).reason
