"""Services of the host itself, told apart by their cgroups."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmap.datapath import DatapathError
from sockmap.flows import HOST_SERVER, UPSTREAM
from sockmap.flows import PROXY as FLOW_PROXY
from tests import netns
from tests.datapath import raw
from tests.datapath.harness import (
    ALLOW,
    DENY,
    EGRESS,
    HOST,
    INGRESS,
    PROXY,
    UDP,
    WORLD,
    Echo,
    Node,
    reaches,
    rows,
)  # fmt: skip
from tests.lab import GATEWAY4, NODE4, NODE6, OUTSIDE4, OUTSIDE6, Lab

pytestmark = pytest.mark.privileged
CLIENT, SERVER = 2001, 2002
CLIENT_ID, SERVER_ID = 11, 12
_ASK = """
import socket, sys
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1.0)
sock.sendall(b"hello")
print(sock.getsockname()[1], sock.recv(100).decode())
"""
_SERVE = """
import socket, sys, threading
kind = socket.SOCK_DGRAM if sys.argv[1] == "udp" else socket.SOCK_STREAM
sock = socket.socket(socket.AF_INET6, kind)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
sock.bind(("::", int(sys.argv[2])))
def serve(one, peer):
    while data := one.recv(65536):
        one.sendall(f"{peer[0].removeprefix('::ffff:')} {peer[1]}".encode())
if kind == socket.SOCK_STREAM:
    sock.listen(16)
print("ready", flush=True)
while True:
    if kind == socket.SOCK_DGRAM:
        data, peer = sock.recvfrom(65536)
        sock.sendto(data, peer)
    else:
        threading.Thread(target=serve, args=sock.accept(), daemon=True).start()
"""


_PING = """
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).sendto(bytes.fromhex(sys.argv[2]), (sys.argv[1], 0))
"""


class Services:
    """Two cgroups of the node: `client`, and `server` with a TCP server on 8080, a UDP one on 8053, both older than
    the datapath's knowledge of the cgroup."""

    def __init__(self, lab: Lab, node: Node) -> None:
        self.lab = lab
        self.client, self.server = lab.cgroup("client"), lab.cgroup("server")
        self.processes = [self.serve("tcp", 8080), self.serve("udp", 8053)]
        node.attach_cgroup(str(self.client), CLIENT, CLIENT_ID)
        node.attach_cgroup(str(self.server), SERVER, SERVER_ID)

    def serve(self, kind: str, port: int, cgroup: Path | None = None) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", _SERVE, kind, str(port)]
        process = self.lab.popen(self.lab.node_ns, argv, cgroup=cgroup or self.server, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def ask(self, address: str, port: int, cgroup: Path | None = None) -> str:
        """What a fresh process in the client's cgroup (or another) is told; empty if it gets no answer. The first
        word is the client's own port."""
        argv = [sys.executable, "-c", _ASK, address, str(port)]
        return self.lab.run(self.lab.node_ns, argv, cgroup=cgroup or self.client, check=False).stdout.strip()

    def ping(self, address: str, ident: int) -> None:
        """One echo request of a process in the client's cgroup."""
        argv = [sys.executable, "-c", _PING, address, raw.icmp4(8, 0, ident).hex()]
        self.lab.run(self.lab.node_ns, argv, cgroup=self.client)


@pytest.fixture(scope="module")
def services(lab: Lab, shared_node: Node) -> Iterator[Services]:
    services = Services(lab, shared_node)
    yield services
    for process in services.processes:
        process.kill()
        process.wait()
    shared_node.detach_cgroup(str(services.client))
    shared_node.detach_cgroup(str(services.server))


def elsewhere(lab: Lab, services: Services) -> Path:
    """A cgroup that nobody manages."""
    path = services.client.parent
    return path


@pytest.mark.parametrize("address", [OUTSIDE4, OUTSIDE6])
def test_a_services_egress_is_judged_and_nobody_elses(lab: Lab, node: Node, services: Services, address: str) -> None:
    node.policy(rows(CLIENT_ID, EGRESS, DENY))
    assert services.ask(address, 80) == ""
    event = node.drops()[0]
    assert (event.reason, event.src_identity, event.endpoint_id, event.direction) == (
        "Policy denied", CLIENT, CLIENT_ID, EGRESS,
    )  # fmt: skip
    assert services.ask(address, 80, elsewhere(lab, services)).endswith("server:hello")


@pytest.mark.parametrize("address", [OUTSIDE4, OUTSIDE6])
def test_a_services_egress_goes_through_the_proxy(lab: Lab, node: Node, services: Services, address: str) -> None:
    node.policy(rows(CLIENT_ID, EGRESS, DENY, (80, PROXY)))
    node.proxy(relay=True)
    port, _, answer = services.ask(address, 80).partition(" ")
    assert answer == "server:hello"
    [(_, own, peer, flow)] = node.seen()
    assert own == (address, 80)
    assert peer == (NODE4 if address == OUTSIDE4 else NODE6, int(port))
    assert flow[:4] == (CLIENT, WORLD, CLIENT_ID, 0)
    assert flow.flags == FLOW_PROXY


def test_from_a_service_to_a_pod(lab: Lab, node: Node, services: Services) -> None:
    b = lab.pods["b"]
    node.policy(rows(2, INGRESS, DENY), rows(2, INGRESS, DENY, (80, PROXY), identity=CLIENT))
    node.proxy(relay=True)
    assert services.ask(b.v4, 80).endswith("server:hello")
    assert services.ask(b.v6, 80).endswith("server:hello")
    assert [seen[3][:4] for seen in node.seen()] == [(CLIENT, 1002, CLIENT_ID, 2)] * 2
    assert services.ask(b.v4, 80, elsewhere(lab, services)) == ""


@pytest.mark.parametrize("address", [NODE4, NODE6])
def test_from_outside_to_a_service(lab: Lab, node: Node, services: Services, address: str) -> None:
    node.policy(rows(SERVER_ID, INGRESS, DENY))
    assert not reaches(lab.outside, address, 8080)
    event = node.drops()[0]
    assert (event.reason, event.dst_identity, event.endpoint_id) == ("Policy denied", SERVER, SERVER_ID)
    node.policy(rows(SERVER_ID, INGRESS, DENY, (8080, PROXY)))
    node.proxy(relay=True)
    with netns.connect(lab.outside, (address, 8080)) as sock:
        sock.sendall(b"x")
        assert sock.recv(100).split()[0].decode() == sock.getsockname()[0]
    [(_, own, _, flow)] = node.seen()
    assert own == (address, 8080)
    assert flow[:4] == (WORLD, SERVER, 0, SERVER_ID)
    assert flow.flags == FLOW_PROXY | HOST_SERVER


def test_from_a_pod_to_a_service(lab: Lab, node: Node, services: Services) -> None:
    a = lab.pods["a"]
    node.policy(rows(SERVER_ID, INGRESS, DENY, (8080, PROXY)))
    node.proxy(relay=True)
    with netns.connect(a.ns, (GATEWAY4, 8080)) as sock:
        sock.sendall(b"x")
        assert sock.recv(100).split()[0].decode() == a.v4
    [(_, _, _, flow)] = node.seen()
    assert flow[:4] == (1001, SERVER, 1, SERVER_ID)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", NODE4, NODE6])
def test_between_services_over_loopback(lab: Lab, node: Node, services: Services, address: str) -> None:
    node.policy(rows(SERVER_ID, INGRESS, DENY), rows(SERVER_ID, INGRESS, DENY, (8080, PROXY), identity=CLIENT))
    node.proxy(relay=True)
    port, host, *_ = services.ask(address, 8080).split()
    assert host == address
    [(_, own, peer, flow)] = node.seen()
    assert (own, peer) == ((address, 8080), (address, int(port)))
    assert flow[:4] == (CLIENT, SERVER, CLIENT_ID, SERVER_ID)
    assert services.ask(address, 8080, elsewhere(lab, services)) == ""
    event = node.drops()[0]
    assert (event.reason, event.src_identity, event.dst_identity) == ("Policy denied", HOST, SERVER)
    node.policy(rows(SERVER_ID, INGRESS, DENY), rows(SERVER_ID, INGRESS, ALLOW, identity=CLIENT))
    assert services.ask(address, 8080) != ""
    assert node.seen() == []


def test_datagrams_to_a_service(lab: Lab, node: Node, services: Services) -> None:
    def answered() -> bool:
        with netns.datagram(lab.outside, ("0.0.0.0", 0)) as client:
            client.settimeout(0.5)
            client.sendto(b"x", (NODE4, 8053))
            try:
                return client.recv(10) == b"x"
            except TimeoutError:
                return False

    assert answered()
    node.policy(rows(SERVER_ID, INGRESS, DENY))
    assert not answered()
    assert [(event.proto, event.dst_identity) for event in node.drops()] == [(UDP, SERVER)]


def test_an_answer_without_a_socket_is_still_the_services(lab: Lab, node: Node, services: Services) -> None:
    """A new policy judges a flow by the packet that comes next, and no socket says whose an echo's answer is."""
    netns.sysctl(lab.outside, {"net/ipv4/icmp_echo_ignore_all": 1})
    answer = raw.ipv4(OUTSIDE4, NODE4, 1, raw.icmp4(0, 0, 77))
    try:
        services.ping(OUTSIDE4, 77)
        raw.send(lab.outside, answer)
        assert node.drops() == []
        node.policy(rows(CLIENT_ID, EGRESS, DENY))
        raw.send(lab.outside, answer)
        [event] = node.drops(changed=True)
        assert (event.reason, event.icmp_type, event.src_identity) == ("Policy denied (changed)", 0, WORLD)
        assert (event.dst_identity, event.endpoint_id, event.direction) == (CLIENT, CLIENT_ID, EGRESS)
        assert (event.src_endpoint, event.dst_endpoint, event.reply) == (0, CLIENT_ID, True)
        services.ping(OUTSIDE4, 77)
        assert [event.reason for event in node.drops(changed=True)] == ["Policy denied (changed)"]
    finally:
        netns.sysctl(lab.outside, {"net/ipv4/icmp_echo_ignore_all": 0})


def test_a_flow_to_a_service_that_is_away_is_still_the_services(lab: Lab, node: Node, services: Services) -> None:
    server = services.serve("udp", 8054)
    with netns.datagram(lab.outside, ("0.0.0.0", 0)) as client:
        client.sendto(b"x", (NODE4, 8054))
        assert client.recv(10) == b"x"
        server.kill()
        server.wait()
        node.policy(rows(SERVER_ID, INGRESS, DENY))
        client.sendto(b"x", (NODE4, 8054))
    [event] = node.drops(changed=True)
    assert (event.reason, event.dst_identity, event.endpoint_id) == ("Policy denied (changed)", SERVER, SERVER_ID)


def test_other_services_of_the_host_are_not_touched(lab: Lab, node: Node, services: Services) -> None:
    node.policy(rows(SERVER_ID, INGRESS, DENY), rows(CLIENT_ID, INGRESS, DENY))
    server = Echo(lab.node_ns, 8090)
    try:
        assert reaches(lab.outside, NODE4, 8090)
        assert reaches(lab.node_ns, "127.0.0.1", 8090)
    finally:
        server.close()


def test_a_cgroup_below_counts_unless_it_is_managed_itself(lab: Lab, node: Node, services: Services) -> None:
    below = services.client / "below"
    below.mkdir()
    try:
        node.policy(rows(CLIENT_ID, EGRESS, DENY))
        assert services.ask(OUTSIDE4, 80, below) == ""
        node.attach_cgroup(str(below), 2003, 13)
        assert services.ask(OUTSIDE4, 80, below).endswith("server:hello")
        node.detach_cgroup(str(below))
        assert services.ask(OUTSIDE4, 80, below) == ""
    finally:
        below.rmdir()


def test_detaching_takes_the_marks_off(lab: Lab, node: Node, services: Services) -> None:
    path = lab.cgroup("other")
    process = services.serve("tcp", 8070, path)
    try:

        def marks() -> str:
            return lab.run(lab.node_ns, ["ss", "-tlnpe", "sport", "=", ":8070"]).stdout

        assert "fwmark" not in marks()
        node.attach_cgroup(str(path), 2004, 14)
        assert f"fwmark:{0x0C00 | 2004 << 16:#x}" in marks()
        node.detach_cgroup(str(path))
        assert "fwmark" not in marks()
    finally:
        process.kill()
        process.wait()


def test_a_cgroup_that_is_not_there(lab: Lab, node: Node) -> None:
    with pytest.raises(DatapathError, match="no cgroup nowhere/at-all below"):
        node.attach_cgroup("nowhere/at-all", 2005, 15)
    with pytest.raises(DatapathError, match="is not attached"):
        node.detach_cgroup("nowhere/at-all")


def test_upstream_connections_are_known_as_such(lab: Lab, node: Node, services: Services) -> None:
    node.policy(rows(CLIENT_ID, EGRESS, DENY, (80, PROXY)))
    node.proxy(relay=True)
    with netns.connect(lab.outside, (NODE4, 8080)):
        pass
    services.ask(OUTSIDE4, 80)
    shown = lab.run(lab.node_ns, ["ss", "-tan", "dst", OUTSIDE4]).stdout
    ports = {
        int(line.split()[3].rpartition(":")[2]) for line in shown.splitlines()[1:] if line.split()[4].endswith(":80")
    }
    flows = [node.call("agent", "flow", NODE4, port, OUTSIDE4, 80) for port in ports]
    assert any(flow is not None and flow.flags & UPSTREAM for flow in flows)
