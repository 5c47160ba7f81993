"""cassandra-driver in every version and compression, through l7proxy, at a real server."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from parsers.cassandra import Opcode
from tests import netns
from tests.cassandra import words
from tests.cassandra.e2e import common
from tests.cassandra.e2e.common import RULES, Net
from tests.cassandra.rig import code_of, split

pytestmark = pytest.mark.privileged
WIRES = [(3, ""), (4, ""), (4, "lz4"), (4, "snappy"), (5, ""), (5, "lz4")]
REFUSED = "Unauthorized"


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with common.net(workers=2) as made:
        yield made


@pytest.fixture(params=WIRES, ids=lambda one: f"v{one[0]}{one[1] and '-'}{one[1]}")
def wire(request: pytest.FixtureRequest) -> tuple[int, str]:
    found: tuple[int, str] = request.param
    return found


def test_statements(net: Net, wire: tuple[int, str]) -> None:
    found = net.run("simple", *wire)
    assert found == {
        "version": wire[0],
        "read": [[1, "one"], [2, "two"]],
        "refused": REFUSED,
        "write": REFUSED,
        "after": [["one"]],
    }
    assert net.directly("SELECT id FROM shop.secrets") == [[0]]


def test_prepared_statements(net: Net, wire: tuple[int, str]) -> None:
    assert net.run("prepared", *wire) == {"version": wire[0], "read": [["name 7"]], "refused": REFUSED}


def test_batches(net: Net, wire: tuple[int, str]) -> None:
    found = net.run("batches", *wire)
    assert found == {"version": wire[0], "good": [], "bad": REFUSED, "read": [[200], [201]]}


def test_keyspaces(net: Net, wire: tuple[int, str]) -> None:
    found = net.run("keyspaces", *wire)
    wanted: dict[str, Any] = {"read": [["unqualified"]], "refused": REFUSED, "use": REFUSED, "after": [["unqualified"]]}
    assert found == {"version": wire[0], **wanted}


def test_pages(net: Net, wire: tuple[int, str]) -> None:
    assert net.run("paging", *wire) == {"version": wire[0], "read": 500}


def test_many_in_flight(net: Net, wire: tuple[int, str]) -> None:
    assert net.run("many", *wire) == {"version": wire[0], "refused": 400, "read": [[5999]]}


def test_blobs(net: Net, wire: tuple[int, str]) -> None:
    assert net.run("blobs", *wire) == {"version": wire[0], "same": True, "size": 12 << 20, "refused": REFUSED}


def test_the_largest_blob_that_the_server_takes(net: Net, wire: tuple[int, str]) -> None:
    """It is the same as beside the proxy, byte for byte, and so is what is said of a larger one."""
    found = net.run("largest", *wire)
    assert found["same"] and "16777216" in found["beyond"]
    assert (16 << 20) - (128 << 10) < found["size"] < 16 << 20
    assert found == net.run("largest", *wire, beside=True)


def test_tracing(net: Net, wire: tuple[int, str]) -> None:
    assert net.run("traced", *wire) == {"version": wire[0], "traced": True, "read": [["one"]]}


def test_schema(net: Net) -> None:
    found = net.run("schema")
    assert {"made", "orders", "secrets"} <= set(found["tables"]) and found["drop"] == REFUSED and found["version"] == 5


def test_who_reads_a_view_reads_its_table(net: Net) -> None:
    """The rules name every view, but not the table of one."""
    assert net.run("views") == {"version": 5, "view": REFUSED, "other": []}


MADE_LATER = [
    (
        "SELECT * FROM shop.later_by_name",
        0x2200,
        "CREATE MATERIALIZED VIEW shop.later_by_name AS SELECT * FROM shop.secrets "
        "WHERE id IS NOT NULL AND name IS NOT NULL PRIMARY KEY (name, id)",
        "DROP MATERIALIZED VIEW shop.later_by_name",
    ),
    (
        "SELECT abs(id) FROM shop.orders WHERE id = 1",
        0,
        "CREATE FUNCTION shop.abs (a int) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS 'return 77;'",
        "DROP FUNCTION shop.abs",
    ),
]
"""What is asked, what the server says of it at first, and what it does not say then."""


@pytest.mark.parametrize(("text", "code", "made", "gone"), MADE_LATER, ids=["view", "function"])
def test_what_is_made_beside_the_proxy(net: Net, text: str, code: int, made: str, gone: str) -> None:
    """The server tells of it, though the client has not asked to be told."""
    net.rules()
    ask = words.query(text, 4, 1)
    with netns.connect(net.front.ns, net.server.address) as connection:
        connection.settimeout(30)
        connection.sendall(words.startup(4))
        assert connection.recv(1000)[4] == Opcode.READY
        connection.sendall(ask)
        assert code_of(connection.recv(1000)) == code
        net.directly(made)
        time.sleep(1)  # less than the 30 seconds after which it is asked anyway
        connection.sendall(ask)
        answer = connection.recv(1000)
        assert code_of(answer) == 0x2100 and len(split(answer)) == 1
        net.directly(gone)


@pytest.mark.parametrize("version", [4, 5])
def test_a_table_that_gets_refused_meanwhile(net: Net, version: int) -> None:
    net.rules()
    with net.running("watch", version) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == [["one"]]
        net.rules(*RULES[1:])
        assert json.loads(process.stdout.readline()) == REFUSED
        net.rules()
        assert json.loads(process.stdout.readline()) == [["one"]]


def test_statements_are_prepared_again_after_a_restart(net: Net) -> None:
    """The ids that clients have are not known to the new workers."""
    with net.running("watch", 5) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == [["one"]]
        before = len(net.records())
        for pid in net.node.worker_pids():
            os.kill(pid, signal.SIGKILL)
        net.lab.wait(
            lambda: any(
                one.get("opcode") == "EXECUTE" and one["verdict"] == "FORWARDED" for one in net.records()[before:]
            )
        )
        assert process.poll() is None


def test_records(net: Net) -> None:
    net.run("prepared", 5, "lz4")
    net.node.wait_flows(lambda record: "cassandra" in json.dumps(record), 5)
    found = net.records()
    one = next(one for one in reversed(found) if one["opcode"] == "EXECUTE")
    assert one["actions"] == [{"action": one["kind"], "keyspace": "shop", "table": "orders", "verdict": "FORWARDED"}]
    assert one["prepared"] is True and one["consistency"] == "ONE" and "error_code" not in one
    refused = next(one for one in reversed(found) if one["verdict"] == "DROPPED")
    assert refused["opcode"] == "PREPARE" and refused["error_code"] == 0x2100


@pytest.mark.parametrize("wire", [(4, "lz4"), (5, "")], ids=str)
def test_audit_refuses_nothing(net: Net, wire: tuple[int, str]) -> None:
    before = len(net.records())
    net.rules(mode="audit")
    try:
        assert net.run("views", *wire) == {"version": wire[0], "view": [["hidden", 0]], "other": []}
        assert net.run("paging", *wire) == {"version": wire[0], "read": 500}
        net.lab.wait(lambda: any(one["verdict"] == "AUDIT" for one in net.records()[before:]))
        assert not any(one["verdict"] == "DROPPED" for one in net.records()[before:])
    finally:
        net.rules()
