"""explain: what CQL statements are told, in a table and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from l7proxy.cli import main
from tests.policies.test_cli_kafka import answers, explain
from tests.policies.texts import TCP80, api

TABLES = api(
    f"""
    ingress:
    - toPorts:
      - {TCP80}
        rules:
          cql:
          - {{action: [select, use], keyspace: shop, table: orders}}
          - {{action: [modify, select], keyspace: shop, table: "log_*"}}
          - {{action: use, keyspace: shop}}
    ingressDeny:
    - toPorts: [{{{TCP80}, rules: {{cql: [{{keyspace: shop, table: log_secret}}]}}}}]
    """,
    notes="l7proxy.io/reason: ask the data team",
)
CILIUM = api(
    f"""
    ingress:
    - toPorts:
      - {TCP80}
        rules:
          l7proto: cassandra
          l7: [{{query_action: select, query_table: "^ks\\\\.t$"}}]
    """
)
FIRST, SECOND, THIRD = (f"ingress[0].toPorts[0].rules.cql[{n}]" for n in range(3))
BATCH = "BEGIN BATCH UPDATE shop.log_a SET v = 1 WHERE id = 1 DELETE FROM shop.? WHERE id = 1 APPLY BATCH"
DENY = "ingressDeny[0].toPorts[0].rules.cql[0]"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "p.yaml").write_text(TABLES)
    return tmp_path / "p.yaml"


def ask(file: Path, capsys: pytest.CaptureFixture[str], *queries: str, keyspace: str | None = None) -> list[Any]:
    asked: list[dict[str, Any]] = [{"cql": {"query": query, "keyspace": keyspace}} for query in queries]
    assert main(explain(file, *asked)) == 0
    return answers(capsys)


def test_a_table(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        ("SELECT * FROM shop.orders", "FORWARDED", FIRST),
        ('SELECT*FROM"shop"."orders"WHERE id=\' FROM x \'', "FORWARDED", FIRST),
        ("SELECT * FROM shop.Orders /* shop.x */;", "FORWARDED", FIRST),
        ('SELECT * FROM shop."Orders"', "DROPPED", None),
        ("SELECT * FROM shop.payments -- shop.orders\n", "DROPPED", None),
        ("USE shop", "FORWARDED", THIRD),
        ("USE other", "DROPPED", None),
        ("INSERT INTO shop.log_a (id) VALUES (1) IF NOT EXISTS", "FORWARDED", SECOND),
        ("INSERT INTO shop.log_secret (id) VALUES (1)", "DROPPED", DENY),
        (BATCH.replace("?", "log_b"), "FORWARDED", SECOND),
        (BATCH.replace("?", "orders"), "DROPPED", None),
        ("DROP KEYSPACE shop", "DROPPED", DENY),
        ("TRUNCATE shop.log_a", "DROPPED", None),
        ("SELECT key FROM system.local", "FORWARDED", None),
        ("TRUNCATE system.local", "DROPPED", None),
        ("SELECT * FROM orders", "DROPPED", None),
        ("LIST ROLES", "DROPPED", None),
    ]
    found = ask(file, capsys, *(query for query, _, _ in asked))
    assert [(one["verdict"], one["rule"]) for one in found] == [(verdict, rule) for _, verdict, rule in asked]
    assert found[4]["reason"].endswith(" allows select on shop.payments")
    assert found[10]["reason"].endswith(" allows delete on shop.orders")


def test_the_keyspace_of_a_session(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(file, capsys, "SELECT * FROM orders", keyspace="shop")[0]["rule"] == FIRST
    assert ask(file, capsys, "SELECT * FROM shop.orders", keyspace="other")[0]["rule"] == FIRST
    assert ask(file, capsys, "SELECT * FROM orders", keyspace="other")[0]["verdict"] == "DROPPED"


@pytest.mark.parametrize("query", ["", "EAT shop.orders", "SELECT * FROM shop.orders; DROP TABLE shop.orders", "/*"])
def test_what_cannot_be_read_is_refused_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], query: str
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(api(f"ingress: [{{toPorts: [{{{TCP80}, rules: {{cql: [{{}}]}}}}]}}]"))
    (found,) = ask(file, capsys, query)
    assert found["verdict"] == "DROPPED" and " allows a statement that cannot be read; " in found["reason"]
    file.write_text(file.read_text().replace("cql: [{}]", "cql: [{action: unknown}]"))
    assert ask(file, capsys, query)[0]["verdict"] == "FORWARDED"


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM other.t WHERE c = ' from ks.t '",
        "SELECT * FROM other.t/* from ks.t */",
        "SELECT * FROM other.t//ks.t\n",
        "SELECT * FROM other.t -- from ks.t\n",
        'SELECT * FROM "ks.t".t',
        'SELECT * FROM "KS".t',
        "SELECT c FROM other.t WHERE c = $$ from ks.t $$",
        'SELECT "from ks.t" FROM other.t',
    ],
)
def test_what_gets_round_ciliums_parser_does_not_get_round_this_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], query: str
) -> None:
    """CILIUM-SEMANTICS: its table is the text behind the last ``from`` word."""
    file = tmp_path / "p.yaml"
    file.write_text(CILIUM)
    assert [one["verdict"] for one in ask(file, capsys, query)] == ["DROPPED"]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM ks.t",
        "select * from KS.T",
        "SELECT * FROM ks.t/* c */",
        "SELECT * FROM ks.t//c\n",
        "SELECT * FROM ks . t WHERE c = ' from other.t '",
        "USE other",
    ],
)
def test_what_ciliums_rules_allow(tmp_path: Path, capsys: pytest.CaptureFixture[str], query: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(CILIUM)
    assert [one["verdict"] for one in ask(file, capsys, query)] == ["FORWARDED"]
    assert ask(file, capsys, "SELECT * FROM t", keyspace="ks")[0]["verdict"] == "FORWARDED"


def test_a_port_of_another_protocol(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(explain(file, {"kafka": {"api": "Fetch"}}, {"cql": {"query": "LIST ROLES"}})) == 0
    assert answers(capsys)[0]["reason"].endswith("it is no request of cassandra, which the rules of this port are for")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"cql": {}}, "cql: needs query"),
        ({"cql": {"query": 1}}, "cql.query: must be a string"),
        ({"cql": {"query": "USE a", "keyspace": 1}}, "cql.keyspace: must be a string"),
        ({"cql": {"query": "\ud800"}}, "is no text"),
        ({"cql": {"query": "USE a", "table": "a"}}, "cql: unknown key 'table'"),
        ({"cql": {"query": "USE a"}, "http": {}}, "http and cql exclude each other"),
    ],
)
def test_what_cannot_be_asked(
    file: Path, capsys: pytest.CaptureFixture[str], request_: dict[str, Any], message: str
) -> None:
    assert main(explain(file, request_)) == 1
    assert message in capsys.readouterr().err


def test_on_the_command_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flow = ["explain", "--policies", str(file), "--from", "app=web", "--to", "app=api", "--port", "80"]
    for arguments, verdict in (
        (["--cql", "SELECT * FROM shop.orders"], "FORWARDED"),
        (["--cql", "SELECT * FROM orders", "--keyspace", "shop"], "FORWARDED"),
        (["--cql", "SELECT * FROM orders"], "DROPPED"),
    ):
        assert main([*flow, *arguments, "--expect", verdict]) == 0, arguments
    assert "allowed by policy default/p, ingress[0].toPorts[0].rules.cql[0]" in capsys.readouterr().out
    assert main([*flow, "--cql", "LIST ROLES", "--path", "/"]) == 1
    assert "--cql and the options of other requests exclude each other" in capsys.readouterr().err
    assert main([*flow, "--keyspace", "shop"]) == 1
    assert "--keyspace needs --cql STATEMENT" in capsys.readouterr().err


def test_the_switch_for_system_tables(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node = file.parent / "node.yaml"
    asked = ["--from", "app=web", "--to", "app=api", "--port", "80", "--cql", "SELECT * FROM system.local"]
    for value, verdict in (("true", "FORWARDED"), ("false", "DROPPED")):
        node.write_text(f"policies: [p.yaml]\ncassandra: {{system_tables: {value}}}\n")
        assert main(["explain", "--config", str(node), *asked, "--expect", verdict]) == 0
    assert json.dumps("system_tables")[1:-1] in capsys.readouterr().out
