"""A server with logins and permissions of its own behind l7proxy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

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
    guest = replace(net, login="guest")
    assert guest.run("views", 5) == {"version": 5, "view": "Unauthorized", "other": "Unauthorized"}

    def told() -> list[tuple[str, int]]:
        views = [one for one in net.records() if one["kind"] == "select" and "_by_name" in str(one["actions"])]
        return [(one["verdict"], one["error_code"]) for one in views]

    net.lab.wait(lambda: told() == [("DROPPED", 0x2100), ("FORWARDED", 0x2100)])
