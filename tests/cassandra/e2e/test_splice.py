"""With the proxy's own connections spliced, known statements pass it by, and clients of Cassandra get the same."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.cassandra.e2e import common
from tests.cassandra.e2e.common import RULES, Net
from tests.everywhere import everywhere

pytestmark = pytest.mark.privileged


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with everywhere(), common.net(splice=True) as made:
        made.run("simple", 4)  # from here on it is known how it reads
        yield made


def straight(net: Net) -> int:
    """Bytes that have passed the proxy by."""
    found = net.node.status()["splice"]
    assert found["on"], found["detail"]
    return int(found["straight_bytes"])


def executed(net: Net) -> Counter[tuple[str, str]]:
    """Of the statements that were run: verdicts and kinds."""
    return Counter((one["verdict"], one["kind"]) for one in net.records() if one["opcode"] == "EXECUTE")


@pytest.mark.parametrize(("version", "compression"), [(3, ""), (4, ""), (4, "lz4"), (5, ""), (5, "lz4")])
def test_known_statements_pass_the_proxy_by_and_are_recorded_all_the_same(
    net: Net, version: int, compression: str
) -> None:
    before, begun = straight(net), executed(net)
    found = net.run("steady", version, compression)
    assert found == {"version": version, "statements": 3000}
    wanted = {("FORWARDED", "insert"): 1000, ("FORWARDED", "select"): 2000}
    net.lab.wait(lambda: executed(net) - begun == wanted, what="a record of each")
    went = straight(net) - before
    assert went > 100_000 if (version, compression) not in ((4, "lz4"), (5, "lz4")) else went == 0


@pytest.mark.parametrize("version", [4, 5])
def test_a_table_that_gets_refused_meanwhile(net: Net, version: int) -> None:
    with net.running("watch", version) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == [["one"]]
        before = straight(net)
        net.lab.wait(lambda: straight(net) > before + 1000, what="statements that pass by")
        net.rules(*RULES[1:])
        assert json.loads(process.stdout.readline()) == "Unauthorized"
        net.rules()
        assert json.loads(process.stdout.readline()) == [["one"]]
        before = straight(net)
        net.lab.wait(lambda: straight(net) > before + 1000, what="statements that pass by again")
