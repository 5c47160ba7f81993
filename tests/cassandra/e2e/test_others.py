"""Other clients than cassandra-driver as it comes: its event loops, the C++ driver, and cqlsh."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cassandra.e2e import common
from tests.cassandra.e2e.common import Net

pytestmark = pytest.mark.privileged
REFUSED = "Unauthorized"
CQLSH = str(Path(sys.executable).with_name("cqlsh"))


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with common.net(workers=2) as made:
        yield made


def cqlsh(net: Net, text: str, *words: str) -> tuple[int, str, str]:
    """Status, output and errors of a statement."""
    host, port = net.server.address
    argv = [CQLSH, host, str(port), "--connect-timeout", "60", "--request-timeout", "60", *words, "-e", text]
    done = net.lab.run(net.front.ns, argv, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("version", ["-", 3, 4])
def test_the_cpp_driver(net: Net, version: int | str) -> None:
    """It begins with a version of another server, and goes down from there."""
    found = net.run("simple", version, client="cpp")
    assert found == {"read": [["acsylla"]], "refused": REFUSED, "prepare": REFUSED, "after": [["acsylla"]]}
    assert net.run("keyspaces", version, client="cpp") == {"read": [["acsylla"]], "refused": REFUSED}


@pytest.mark.parametrize("reactor", ["asyncio", "libev"])
@pytest.mark.parametrize("wire", [(4, "lz4"), (5, "")], ids=str)
def test_event_loops_of_the_driver(net: Net, reactor: str, wire: tuple[int, str]) -> None:
    how = replace(net, reactor=reactor)
    assert how.run("simple", *wire)["after"] == [["one"]]
    assert how.run("many", *wire) == {"version": wire[0], "refused": 400, "read": [[5999]]}


def test_cqlsh(net: Net) -> None:
    net.run("simple")
    status, output, errors = cqlsh(net, "SELECT name FROM shop.orders WHERE id = 1; SELECT * FROM shop.secrets;")
    assert status and "one" in output and "Unauthorized" in errors and "hidden" not in output
    status, output, errors = cqlsh(net, "USE shop; SELECT name FROM orders WHERE id = 2; SELECT * FROM secrets")
    assert "two" in output and "Unauthorized" in errors, (output, errors)
    for version in ("3", "4", "5"):
        status, output, errors = cqlsh(net, "SELECT name FROM shop.orders WHERE id = 1", "--protocol-version", version)
        assert not status and "one" in output, errors
