"""Readers that stop: their writers stop as well, and what waits is bounded and right.

L7PROXY_STALLED is how many; with 1,000 the kernel's memory for TCP may become scarce, which other tests would notice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmap.splice import Scope, Splicer
from tests.splice.bench import attached
from tests.splice.programs import stalled

pytestmark = pytest.mark.privileged
CONNECTIONS = int(os.environ.get("L7PROXY_STALLED", "100"))
MESSAGE = 64 << 10
"""What the writers send at a time."""


@pytest.fixture
def splicer() -> Iterator[Splicer]:
    with attached(Splicer()) as splicer:
        yield splicer


def largest(name: str) -> int:
    """The most that the stack keeps at one end of a connection, in bytes: tcp_rmem, tcp_wmem."""
    return int(Path("/proc/sys/net/ipv4", name).read_text().split()[2])


@pytest.mark.parametrize("budget", [100_000, 1 << 20])
def test_stalled_readers_are_bounded(splicer: Splicer, budget: int) -> None:
    splicer.start(Scope(learn=False, budget=budget))
    report = stalled("--connections", str(CONNECTIONS))
    assert (report.streams, report.unbounded, report.errors) == (CONNECTIONS, 0, 0)
    counts = splicer.counts()
    # The send that reaches the budget is still spliced. Beyond it the stack's own bound holds.
    assert counts["memory"] or CONNECTIONS * budget <= counts["spliced_bytes"]
    assert counts["spliced_bytes"] <= CONNECTIONS * (budget + MESSAGE)
    assert budget < report.least <= report.most <= budget + MESSAGE + largest("tcp_rmem") + largest("tcp_wmem")
    assert counts["budget"] >= CONNECTIONS
    # What sockets charge, in KiB, is what was sent, spliced bytes among it, and little more; it is given back.
    charged = report.tcp["stalled"] - report.tcp["before"]
    assert 0.8 < charged * 1024 / report.total < 1.5
    assert report.tcp["after"] - report.tcp["before"] < charged / 10
