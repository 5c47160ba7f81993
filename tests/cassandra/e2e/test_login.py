"""A server with logins and permissions of its own behind l7proxy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cassandra.e2e import common
from tests.cassandra.e2e.common import Net

pytestmark = pytest.mark.privileged


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with common.net(login="cassandra") as made:
        common.asked(made.server, "cassandra", "CREATE ROLE guest WITH PASSWORD = 'guest' AND LOGIN = true")
        yield made


@pytest.mark.parametrize("wire", [(3, ""), (4, "lz4"), (5, ""), (5, "lz4")], ids=str)
def test_a_login_passes(net: Net, wire: tuple[int, str]) -> None:
    found = net.run("simple", *wire)
    assert (found["read"], found["refused"], found["after"]) == ([[1, "one"], [2, "two"]], "Unauthorized", [["one"]])


def test_what_the_server_refuses_is_its_own_word(net: Net) -> None:
    """Of somebody who may do nothing there; and the records have its code."""
    guest = Net(net.lab, net.node, net.front, net.server, "guest")
    before = len(net.records())
    found = guest.run("views", 5)
    assert found["view"] == found["other"] == "Unauthorized"
    net.node.wait_flows(lambda record: "orders_by_name" in str(record))
    told = [(one["verdict"], one.get("error_code")) for one in net.records()[before:] if "by_name" in str(one)]
    assert told == [("DROPPED", 0x2100), ("FORWARDED", 0x2100)]
