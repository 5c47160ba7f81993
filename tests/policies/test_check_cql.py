"""The lint of CQL rules."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l7proxy.cli import main
from parsers.facts import CqlRequest
from policies.check import check, fails
from policies.cql_index import CqlIndex
from policies.cql_shadow import shadowed
from policies.document import Problem
from policies.model import CqlRule
from tests.policies.test_cql_rules import some_request, some_rules
from tests.policies.texts import TCP80, api

STARTS = "SELECT on system.local"
USE = ", {action: use}"


def policy(cql: str, *, deny: bool = False, more: str = "", kind: str = "cql") -> str:
    head = "l7proto: cassandra, l7" if kind == "l7" else kind
    return api(f"ingress{'Deny' if deny else ''}: [{{toPorts: [{{{TCP80}, rules: {{{head}: [{cql}]}}}}]}}{more}]")


def lint(folder: Path, cql: str, *, deny: bool = False, more: str = "", kind: str = "cql") -> list[Problem]:
    """The problems of a list of CQL rules, without the note on what drivers need to start."""
    file = folder / "p.yaml"
    file.write_text(policy(cql, deny=deny, more=more, kind=kind))
    return [one for one in check([file]) if not one.message.startswith(STARTS)]


@pytest.mark.parametrize(
    "cql",
    [
        "{}",
        "{action: select, keyspace: shop, table: orders}" + USE,
        "{action: [select, modify], keyspace: [shop, 'stock_*'], table: ['*']}" + USE,
        "{action: create, keyspace: shop}, {action: use, keyspace: shop}",
        "{action: list-roles}" + USE,
        "{action: grant-permission, keyspace: shop, table: orders}" + USE,
        "{action: [select, use], keyspace: shop}",
        "{action: select, keyspace: a, table: x}, {action: select, keyspace: b, table: x}" + USE,
        "{action: insert, keyspace: a}, {action: [insert, update], keyspace: a, table: t*}" + USE,
    ],
)
def test_what_is_right_is_left_alone(tmp_path: Path, cql: str) -> None:
    assert lint(tmp_path, cql) == []


@pytest.mark.parametrize("cql", ["{}", "{keyspace: shop, table: secret}", "{action: [modify, truncate], keyspace: s}"])
def test_deny_rules_that_are_right_are_left_alone(tmp_path: Path, cql: str) -> None:
    assert lint(tmp_path, cql, deny=True) == []


@pytest.mark.parametrize("l7", ["{}", "{query_action: select, query_table: '^shop\\.orders$'}", "{query_action: use}"])
def test_ciliums_rules_that_are_right_are_left_alone(tmp_path: Path, l7: str) -> None:
    assert lint(tmp_path, l7, kind="l7") == []


FIRST = "decides nothing: default/p ingress[0].toPorts[0].rules.cql[0]"


@pytest.mark.parametrize(
    ("cql", "message"),
    [
        ("{action: list-roles, keyspace: shop}" + USE, "never matches: list-roles names no keyspace"),
        ("{action: create-keyspace, table: a}" + USE, "never matches: create-keyspace names no table"),
        ("{action: drop-index, keyspace: a, table: b}" + USE, "never matches: drop-index names no table"),
        (
            "{action: [create-role, alter-role], table: x}" + USE,
            "never matches: none of alter-role, create-role... nam",
        ),
        ("{action: [select, use], keyspace: s, table: a}" + USE, "does not allow use, which names no table"),
        ("{action: unknown}" + USE, "allows what cannot be read"),
        ("{}, {action: select, keyspace: s}", FIRST),
        ("{action: [select, use], keyspace: s}, {action: select, keyspace: s, table: t}", FIRST),
        ("{action: [modify, use], keyspace: 'sh*'}, {action: insert, keyspace: shop, table: t}", FIRST),
        ("{action: select, keyspace: s, table: [a, b]}, {action: select, keyspace: s, table: b}" + USE, FIRST),
        ("{action: [use, select], keyspace: a}, {action: [SELECT, use], keyspace: a}", FIRST),
    ],
)
def test_warnings(tmp_path: Path, cql: str, message: str) -> None:
    (problem,) = lint(tmp_path, cql)
    assert problem.severity == "warning" and problem.message.startswith(message), problem
    assert fails([problem])


@pytest.mark.parametrize(
    ("cql", "message"),
    [
        ("{action: list-roles, keyspace: shop}", "never matches: list-roles names no keyspace"),
        (
            "{action: select, table: t}, {action: select, keyspace: s, table: t}",
            "decides nothing: default/p ingressDeny",
        ),
    ],
)
def test_deny_warnings(tmp_path: Path, cql: str, message: str) -> None:
    (problem,) = lint(tmp_path, cql, deny=True)
    assert problem.severity == "warning" and problem.message.startswith(message), problem


@pytest.mark.parametrize(
    ("cql", "message"),
    [
        ("{action: select, keyspace: Shop}" + USE, "keyspace 'Shop' holds only what was made in quotation marks"),
        ("{keyspace: shop, table: t}" + USE, "without an action it allows DROP, ALTER and GRANT, too"),
        ("{action: select}" + USE, "holds Cassandra's own keyspaces, such as system_auth, too"),
        ("{action: modify, keyspace: '*'}" + USE, "holds Cassandra's own keyspaces"),
        ("{action: select, keyspace: 'sys*'}" + USE, "holds Cassandra's own keyspaces"),
    ],
)
def test_notes(tmp_path: Path, cql: str, message: str) -> None:
    (problem,) = lint(tmp_path, cql)
    assert problem.severity == "note" and problem.message.startswith(message), problem


def test_a_denied_modify_leaves_truncate(tmp_path: Path) -> None:
    (problem,) = lint(tmp_path, "{action: modify, keyspace: shop}", deny=True)
    assert problem.severity == "note" and problem.message == "leaves truncate, which empties a table"


@pytest.mark.parametrize(
    ("l7", "messages"),
    [
        ("{query_action: select, query_table: '^shop\\.'}", ["query_table '^shop\\\\.' is looked for anywhere"]),
        (
            "{query_action: select, query_table: shop.orders}",
            ["query_table 'shop.orders' is looked for anywhere", "query_table 'shop.orders' has a dot that holds any"],
        ),
        ("{query_table: '^shop\\.orders$'}", ["without query_action it allows what names such a table"]),
    ],
)
def test_notes_on_ciliums_rules(tmp_path: Path, l7: str, messages: list[str]) -> None:
    found = lint(tmp_path, l7, kind="l7")
    assert [one.severity for one in found] == ["note"] * len(messages)
    assert all(one.message.startswith(message) for one, message in zip(found, messages, strict=True)), found


# -- what drivers need to start ------------------------------------------------------------------------------------


def started(folder: Path, cql: str, *, on: bool = True, deny: bool = False, kind: str = "cql") -> list[str]:
    file = folder / "p.yaml"
    file.write_text(policy(cql, deny=deny, kind=kind))
    found = check([file], system_tables=on)
    assert not fails(found)
    return [one.message for one in found if "system.local" in one.message or " use" in one.message]


def test_the_default_for_system_tables_is_told(tmp_path: Path) -> None:
    rule = "{action: select, keyspace: shop, table: a}"
    tables = "system.local, system.peers, system.peers_v2, system_schema.*, system_virtual_schema.*"
    switch = f"SELECT on {tables} is allowed as well (cassandra.system_tables of node.yaml)"
    missing = "no rule here allows use, which sets the keyspace of a session"
    assert started(tmp_path, rule + USE) == [switch]
    assert started(tmp_path, rule) == [f"{switch}; {missing}"]
    off = f"no rule here allows SELECT on {tables}, which drivers read when they connect"
    assert started(tmp_path, rule + USE, on=False) == [off]
    own = ", {action: select, keyspace: system}, {action: select, keyspace: [system_schema, system_virtual_schema]}"
    assert started(tmp_path, rule + USE + own, on=False) == []
    assert started(tmp_path, "{}") == [] and started(tmp_path, rule, deny=True) == []
    assert started(tmp_path, "{query_action: select}", kind="l7") == []


def test_check_reads_the_switch_of_node_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.yaml").write_text(policy("{action: [select, use], keyspace: shop}"))
    node = tmp_path / "node.yaml"
    for value, told in (("true", "is allowed as well"), ("false", "no rule here allows SELECT on system.local")):
        node.write_text(f"policies: [p.yaml]\ncassandra: {{system_tables: {value}}}\n")
        main(["check", "--config", str(node)])
        assert told in capsys.readouterr().out


# -- among others --------------------------------------------------------------------------------------------------


def test_an_empty_list_opens_the_port(tmp_path: Path) -> None:
    for kind in ("cql", "l7"):
        (problem,) = lint(tmp_path, "", kind=kind)
        assert "an empty list is no L7 rule: every request passes" in problem.message and problem.severity == "warning"


def test_an_l4_rule_beside_cql_rules_is_told(tmp_path: Path) -> None:
    found = lint(tmp_path, "{action: [select, use], keyspace: a}", more=f", {{toPorts: [{{{TCP80}}}]}}")
    assert any("refuses nothing: default/p ingress[1].toPorts[0]" in one.message for one in found)


def test_ours_and_ciliums_rules_are_one_list(tmp_path: Path) -> None:
    l7 = "{l7proto: cassandra, l7: [{query_action: select, query_table: '^a\\.b$'}]}"
    more = f", {{toPorts: [{{{TCP80}, rules: {l7}}}]}}"
    (problem,) = lint(tmp_path, "{action: [select, use], keyspace: a}, {action: [use, select]}", more=more)[-1:]
    assert problem.message.startswith("decides nothing: default/p ingress[0].toPorts[0].rules.cql[1]"), problem


@settings(max_examples=300)
@given(listed=some_rules, asked=some_request, deny=st.booleans())
def test_what_is_said_to_decide_nothing_decides_nothing(listed: list[CqlRule], asked: CqlRequest, deny: bool) -> None:
    """Of a rule and the wider one: whatever the one holds, so does the other."""
    if deny:
        listed = [one for one in listed if one.pattern is None]
    for rule, wider in shadowed(listed, deny):
        if CqlIndex([rule], deny).find(asked) is not None:
            assert CqlIndex([wider], deny).find(asked) is not None, (rule, wider)


def test_thousands_of_rules_are_no_trouble(tmp_path: Path) -> None:
    rules = ", ".join(f"{{action: [select, modify], keyspace: team_{n}_*, table: [x_{n}, '*']}}" for n in range(2000))
    start = time.process_time()
    found = lint(tmp_path, f"{rules}, {{action: select, keyspace: team_7_a, table: x_7}}")
    assert found[0].message.startswith("decides nothing")
    # Comparing all pairs would take minutes.
    assert time.process_time() - start < 30
