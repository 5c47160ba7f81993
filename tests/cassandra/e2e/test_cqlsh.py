"""cqlsh through l7proxy: statements, DESCRIBE, and COPY, which has processes of its own for what it copies."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.cassandra.e2e import common
from tests.cassandra.e2e.common import RULES, Net

pytestmark = pytest.mark.privileged
CQLSH = str(Path(__file__).with_name("clients") / "shell.py")
DESCRIBES = ("KEYSPACE shop", "TABLE shop.orders", "FULL SCHEMA", "CLUSTER", "TABLES")
ROWS = range(20_000, 23_000)
BY_TWO = "NUMPROCESSES = 2 AND CHUNKSIZE = 100"
"""Each of 30 pieces is given to one of two processes by chance."""


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with common.net(workers=2) as made:
        made.run("simple")
        yield made


def cqlsh(net: Net, text: str, *words: str, beside: bool = False) -> tuple[int, str, str]:
    """Status, output and errors of a statement."""
    host, port = net.server.address
    patience = ("--connect-timeout", "60", "--request-timeout", "60")
    argv = [sys.executable, CQLSH, host, str(port), *patience, *words, "-e", text]
    done = net.lab.run(net.place(beside), argv, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def written(net: Net) -> Path:
    """Rows in a file."""
    path = net.lab.folder / "rows.csv"
    path.write_text("".join(f"{number},name {number}\n" for number in ROWS))
    return path


def ports(net: Net, opcodes: Sequence[str], verdict: str) -> set[int]:
    """Those of the client's connections whose records are so."""
    found = set()
    for record in net.node.flows():
        flow = record.get("flow", {})
        asks = flow.get("extensions", {}).get("value", {}).get("l7proxy", {}).get("cassandra", {})
        if asks.get("opcode") in opcodes and flow["verdict"] == verdict:
            found.add(flow["l4"]["TCP"]["source_port"])
    return found


def test_statements(net: Net) -> None:
    status, output, errors = cqlsh(net, "SELECT name FROM shop.orders WHERE id = 1; SELECT * FROM shop.secrets;")
    assert status and "one" in output and "Unauthorized" in errors and "hidden" not in output
    status, output, errors = cqlsh(net, "USE shop; SELECT name FROM orders WHERE id = 2; SELECT * FROM secrets")
    assert "two" in output and "Unauthorized" in errors, (output, errors)
    for version in ("3", "4", "5"):
        status, output, errors = cqlsh(net, "SELECT name FROM shop.orders WHERE id = 1", "--protocol-version", version)
        assert not status and "one" in output, errors


def test_describe(net: Net) -> None:
    """What is allowed is the same as beside the proxy."""
    for what in DESCRIBES:
        status, output, errors = cqlsh(net, f"DESCRIBE {what}")
        assert status and "Access denied" in errors and "CREATE" not in output, (what, output)
    net.rules({"action": "describe"}, *RULES)
    try:
        for what in DESCRIBES:
            found = cqlsh(net, f"DESCRIBE {what}")
            assert found[0] == 0 and found == cqlsh(net, f"DESCRIBE {what}", beside=True), what
            assert "orders" in found[1] or what == "CLUSTER"
        net.rules({"action": "describe", "keyspace": "shop", "table": "orders"}, *RULES)
        status, output, errors = cqlsh(net, "DESCRIBE TABLE shop.orders; DESCRIBE TABLE shop.secrets")
        assert status and "CREATE TABLE shop.orders" in output and "CREATE TABLE shop.secrets" not in output
        assert "Access denied" in errors
    finally:
        net.rules()


def test_copy(net: Net) -> None:
    """All of its processes are judged, and what they copy is what there is."""
    source, target = written(net), net.lab.folder / "copied.csv"
    before = ports(net, ("BATCH", "EXECUTE"), "FORWARDED")
    status, output, errors = cqlsh(net, f"COPY shop.orders (id, name) FROM '{source}' WITH {BY_TWO}")
    assert status == 0 and f"{len(ROWS)} rows imported" in output, (output, errors)
    assert net.directly("SELECT count(*) FROM shop.orders WHERE id >= 20000 ALLOW FILTERING") == [[len(ROWS)]]
    net.lab.wait(
        lambda: len(ports(net, ("BATCH", "EXECUTE"), "FORWARDED") - before) >= 2, what="records of 2 processes"
    )
    status, output, errors = cqlsh(net, f"COPY shop.orders (id, name) TO '{target}' WITH NUMPROCESSES = 2")
    assert status == 0 and "exported to 1 files" in output, (output, errors)
    assert set(source.read_text().split("\n")) <= set(target.read_text().replace("\r", "").split("\n"))


def refused_copy(net: Net, words: str, nothing: str) -> None:
    """cqlsh says why, and ends. On a busy machine it may see its processes end before it hears what they say."""
    for _ in range(4):
        status, output, errors = cqlsh(net, f"COPY shop.secrets (id, name) {words}")
        assert status and nothing in output, (output, errors)
        if "Access denied" in errors:
            return
        assert "died unexpectedly" in errors, errors
    raise AssertionError(f"it has not said why: {errors}")


def test_copy_that_is_refused(net: Net) -> None:
    """Nothing is written or read."""
    target = net.lab.folder / "secrets.csv"
    two, lost = "WITH NUMPROCESSES = 2", net.lab.folder / "lost.csv"
    refused_copy(net, f"FROM '{written(net)}' {two} AND ERRFILE = '{lost}'", "0 rows imported")
    refused_copy(net, f"TO '{target}' {two}", "0 rows exported")
    assert net.directly("SELECT id, name FROM shop.secrets") == [[0, "hidden"]]
    assert not target.exists() or "hidden" not in target.read_text()
    refused = ports(net, ("PREPARE", "QUERY"), "DROPPED")
    assert len(refused) >= 2, json.dumps(net.records()[-5:])
