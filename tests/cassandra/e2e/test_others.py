"""Other clients than cassandra-driver as it comes: its event loops, and the C++ driver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.cassandra.e2e import common
from tests.cassandra.e2e.common import Net

pytestmark = pytest.mark.privileged
REFUSED = "Unauthorized"


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with common.net(workers=2) as made:
        yield made


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
