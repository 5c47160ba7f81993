"""One network and one datapath for each module of tests: compiling the programs takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.datapath.harness import Echo, Node, cleanup
from tests.lab import Lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two pods, `a` and `b`, with a server on port 80 (and 81) of each, and outside."""
    with Lab() as lab:
        pods = [lab.pod("a"), lab.pod("b")]
        servers = [Echo(pod.ns, port) for pod in pods for port in (80, 81)]
        servers += [Echo(lab.outside, port) for port in (80, 81)]
        yield lab
        for server in servers:
            server.close()


@pytest.fixture(scope="module")
def shared_node(lab: Lab) -> Iterator[Node]:
    """A datapath with everything attached."""
    node = Node(lab)
    try:
        node.attach_all()
        yield node
        node.stop()
    finally:
        node.end()


@pytest.fixture
def node(shared_node: Node) -> Node:
    """The datapath without policy, without a proxy, its events read."""
    shared_node.policy()
    shared_node.set_proxy_down("closed")
    shared_node.call("proxy", "stop_all")
    shared_node.seen()
    shared_node.events()
    return shared_node


@pytest.fixture
def nodes(lab: Lab) -> Iterator[list[Node]]:
    """Whoever starts a Node puts it here, so that it ends with the test."""
    started: list[Node] = []
    yield started
    for node in started:
        node.end()
    cleanup(lab)
