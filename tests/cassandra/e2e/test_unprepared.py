"""A proxy that has forgotten what was prepared: drivers prepare it again, and nobody notices."""

from __future__ import annotations

import pytest

from tests.cassandra.e2e import common

pytestmark = pytest.mark.privileged
UNPREPARED = 0x2500


def test_drivers_prepare_again_what_is_forgotten() -> None:
    """The proxy remembers one statement; each scenario prepares two before it runs them."""
    # What is executed is remembered beside, so that only the first time shows it.
    with common.net(workers=1, cassandra={"max_prepared": 1}) as net:
        for version, compression in ((3, ""), (4, "lz4"), (5, ""), (5, "lz4")):
            found = net.run("prepared", version, compression)
            assert found == {"version": version, "read": [["name 7"]], "refused": "Unauthorized"}
            assert net.run("batches", version, compression)["read"] == [[200], [201]]
        assert net.run("simple", client="cpp")["read"] == [["acsylla"]]

        def forgotten() -> int:
            return sum(one.get("error_code") == UNPREPARED for one in net.records())

        net.lab.wait(lambda: forgotten() >= 1)
