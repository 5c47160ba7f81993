"""Peers in other languages, spliced: what they get and give is right."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sockmap.splice import Scope, Splicer
from tests.splice.bench import attached
from tests.splice.peers import KINDS, Peer, converse, node_talks

pytestmark = pytest.mark.privileged


@pytest.fixture(scope="module")
def splicer() -> Iterator[Splicer]:
    with attached(Splicer()) as splicer:
        yield splicer


@pytest.mark.parametrize("kind", KINDS)
def test_peers_give_back_what_they_get(splicer: Splicer, kind: str) -> None:
    """The first connections teach how the peer reads."""
    splicer.forget()
    splicer.start(Scope(budget=200_000))
    with Peer(kind) as peer:
        for _ in range(3):
            assert converse(peer.address, peer.port, b"E", connections=2, size=20_000) == []
        before = splicer.counts()["spliced_bytes"]
        for mode in (b"E", b"D"):
            assert converse(peer.address, peer.port, mode, connections=10, size=1_000_000) == []
    counts = splicer.counts()
    assert counts["spliced_bytes"] - before > 1_000_000 and not counts["reads_otherwise"], counts


def test_node_at_both_ends(splicer: Splicer) -> None:
    """Streams, half-closes, resets, readers that rest, small writes, HTTP."""
    splicer.forget()
    splicer.start(Scope(budget=200_000))
    with Peer("node") as peer:
        failures = {name: failure for name, failure in node_talks(peer).items() if failure}
    counts = splicer.counts()
    assert not failures, failures
    assert counts["spliced_bytes"] > 1_000_000 and not counts["reads_otherwise"], counts
