"""Flows that the policy sends to the proxy get there, from everywhere; the server sees its client."""

from __future__ import annotations

import socket

import pytest

from sockmap.flows import HOST_SERVER, Flow
from sockmap.flows import PROXY as FLOW_PROXY
from tests import netns
from tests.datapath.harness import (
    ALLOW,
    DENY,
    EGRESS,
    HOST,
    INGRESS,
    PROXY,
    WORLD,
    Echo,
    Node,
    ask,
    reaches,
    rows,
)  # fmt: skip
from tests.lab import GATEWAY4, GATEWAY6, NODE4, NODE6, OUTSIDE4, OUTSIDE6, Lab

pytestmark = pytest.mark.privileged
A, B = 1001, 1002


def paths(lab: Lab) -> dict[str, tuple[str, str, str, str, Flow]]:
    """Client's namespace, server's address (v4, v6) and the flow that the proxy must find, by name."""
    b = lab.pods["b"]
    return {
        "pod-pod": (lab.pods["a"].ns, b.v4, b.v6, "b", Flow(A, B, 1, 2, 0, FLOW_PROXY)),
        "pod-outside": (lab.pods["a"].ns, OUTSIDE4, OUTSIDE6, "", Flow(A, WORLD, 1, 0, 0, FLOW_PROXY)),
        "outside-pod": (lab.outside, b.v4, b.v6, "b", Flow(WORLD, B, 0, 2, 0, FLOW_PROXY)),
        "host-pod": (lab.node_ns, b.v4, b.v6, "b", Flow(HOST, B, 0, 2, 0, FLOW_PROXY)),
        "pod-host": (lab.pods["a"].ns, GATEWAY4, GATEWAY6, "", Flow(A, HOST, 1, 0, 0, FLOW_PROXY | HOST_SERVER)),
    }


def proxy_policy(node: Node) -> None:
    node.policy(rows(2, INGRESS, DENY, (80, PROXY)), rows(1, EGRESS, ALLOW, (80, PROXY)))


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("path", ["pod-pod", "pod-outside", "outside-pod", "host-pod", "pod-host"])
def test_the_proxy_gets_the_flow_and_knows_its_ends(lab: Lab, node: Node, path: str, family: int) -> None:
    ns, v4, v6, _, flow = paths(lab)[path]
    address = v4 if family == 4 else v6
    proxy_policy(node)
    node.proxy()
    with netns.connect(ns, (address, 80)) as sock:
        sock.sendall(b"one")
        own = sock.getsockname()[:2]
        assert sock.recv(1000) == f"{(address, 80)} {own} one".encode()
    [(worker, local, peer, seen)] = node.seen()
    assert (worker, local, peer) == (0, (address, 80), own)
    assert seen == flow._replace(generation=node.generation)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("path", ["pod-pod", "pod-outside", "outside-pod", "host-pod", "pod-host"])
def test_the_server_is_reached_with_the_clients_address(lab: Lab, node: Node, path: str, family: int) -> None:
    ns, v4, v6, _, _ = paths(lab)[path]
    address = v4 if family == 4 else v6
    node.proxy(relay=True)
    where = {OUTSIDE4: lab.outside, OUTSIDE6: lab.outside, GATEWAY4: lab.node_ns, GATEWAY6: lab.node_ns}
    server = Echo(where.get(address, lab.pods["b"].ns), 82)
    node.policy(rows(2, INGRESS, DENY, (82, PROXY)), rows(1, EGRESS, ALLOW, (82, PROXY)))
    try:
        with netns.connect(ns, (address, 82)) as sock:
            own = sock.getsockname()[:2]
            sock.sendall(b"one")
            assert sock.recv(1000) == b"server:one"
            blob = bytes(range(256)) * 4096
            sock.sendall(blob)
            received = b""
            while len(received) < len(blob):
                received += sock.recv(1 << 20).replace(b"server:", b"")
            assert received == blob
    finally:
        server.close()
    assert len(node.seen()) == 1
    [peer] = server.peers
    assert peer[0] == own[0]
    if path not in ("host-pod", "pod-host"):  # there the client itself has the port
        assert peer == own
    assert node.drops() == []


def test_other_ports_do_not_see_the_proxy(lab: Lab, node: Node) -> None:
    proxy_policy(node)
    node.proxy()
    assert ask(lab.pods["a"].ns, OUTSIDE4, 81) == b"server:hello"
    assert not reaches(lab.pods["a"].ns, lab.pods["b"].v4, 81)
    assert node.seen() == []


def test_many_connections_are_spread_over_the_workers(lab: Lab, node: Node) -> None:
    proxy_policy(node)
    node.proxy(2)
    for _ in range(24):
        ask(lab.pods["a"].ns, lab.pods["b"].v4, 80)
    assert {worker for worker, *_ in node.seen()} == {0, 1}


def test_a_dead_workers_flows_go_to_another(lab: Lab, node: Node) -> None:
    proxy_policy(node)
    node.proxy(2)
    node.call("proxy", "stop", 0)
    for _ in range(12):
        assert ask(lab.pods["a"].ns, lab.pods["b"].v6, 80).endswith(b"hello")
    assert {worker for worker, *_ in node.seen()} == {1}


@pytest.mark.parametrize("path", ["pod-pod", "outside-pod", "host-pod"])
def test_without_workers_flows_are_dropped_by_name(lab: Lab, node: Node, path: str) -> None:
    ns, v4, *_ = paths(lab)[path]
    proxy_policy(node)
    before = node.counters()["Proxy unavailable"]
    assert not reaches(ns, v4, 80)
    reasons = {event.reason for event in node.drops()}
    assert reasons == {"Proxy unavailable"}
    assert node.counters()["Proxy unavailable"] > before


@pytest.mark.parametrize("path", ["pod-pod", "outside-pod", "host-pod"])
def test_without_workers_flows_pass_if_so_configured(lab: Lab, node: Node, path: str) -> None:
    ns, v4, v6, *_ = paths(lab)[path]
    proxy_policy(node)
    node.set_proxy_down("open")
    assert ask(ns, v4, 80) == b"server:hello"
    assert ask(ns, v6, 80) == b"server:hello"


def test_a_port_is_used_again_while_the_proxys_side_waits(lab: Lab, node: Node) -> None:
    """The proxy ends the connection first, so its socket is in TIME_WAIT when the client comes back."""
    proxy_policy(node)
    node.proxy()
    source = (lab.pods["a"].v4, 40123)
    reset = (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server = (lab.pods["b"].v4, 80)
    with netns.connect(lab.pods["a"].ns, server, source=source, options=[reset]) as sock:
        sock.sendall(b"bye")
        assert sock.recv(1000).endswith(b"bye")
        assert sock.recv(1000) == b""
    lab.wait(lambda: "40123" in lab.run(lab.node_ns, ["ss", "-tan", "state", "time-wait"]).stdout, what="TIME_WAIT")
    with netns.connect(lab.pods["a"].ns, server, source=source, options=[reset]) as sock:
        sock.sendall(b"again")
        assert sock.recv(1000).endswith(b"again")


def test_the_nodes_other_addresses(lab: Lab, node: Node) -> None:
    """The node's own traffic to the outside and to itself never touches the proxy."""
    proxy_policy(node)
    node.proxy()
    assert ask(lab.node_ns, OUTSIDE4, 80) == b"server:hello"
    server = Echo(lab.node_ns, 83)
    assert ask(lab.node_ns, "127.0.0.1", 83) == b"server:hello"
    assert ask(lab.outside, NODE4, 83) == b"server:hello"
    assert ask(lab.outside, NODE6, 83) == b"server:hello"
    server.close()
    assert node.seen() == []
