"""L3/L4 verdicts: who may speak to whom, on which ports, and what the other side may answer."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

import pytest

from sockmap.datapath import PolicyRow
from tests import netns
from tests.datapath import raw
from tests.datapath.harness import (
    ALLOW,
    DENY,
    EGRESS,
    HOST,
    INGRESS,
    OTHER,
    PROXY,
    TCP,
    UDP,
    WORLD,
    Echo,
    Node,
    ask,
    reaches,
    rows,
)  # fmt: skip
from tests.lab import OUTSIDE4, OUTSIDE6, Lab

pytestmark = pytest.mark.privileged
A, B = 1001, 1002


def ping(lab: Lab, ns: str, address: str, *words: str) -> bool:
    argv = ["ping", "-c1", "-W1", *words, address]
    return lab.run(ns, argv, check=False).returncode == 0


def udp_echo(lab: Lab, ns: str, server_ns: str, address: str, port: int, size: int = 5) -> bool:
    """Whether a datagram arrives and its answer comes back."""
    with (
        netns.datagram(server_ns, (address, port)) as server,
        netns.datagram(ns, ("::" if ":" in address else "0.0.0.0", 0)) as client,
    ):
        server.settimeout(0.5)
        client.settimeout(0.5)
        client.sendto(b"x" * size, (address, port))
        try:
            data, peer = server.recvfrom(65536)
            server.sendto(data, peer)
            return len(client.recv(65536)) == size
        except TimeoutError:
            return False


def test_without_policy_everything_passes(lab: Lab, node: Node) -> None:
    a, b = lab.pods["a"], lab.pods["b"]
    for address in (b.v4, b.v6):
        assert reaches(a.ns, address, 80)
        assert ping(lab, a.ns, address)
        assert udp_echo(lab, a.ns, b.ns, address, 5353)
        assert reaches(lab.outside, address, 80)
        assert reaches(lab.node_ns, address, 80)
    assert node.drops() == []


@pytest.mark.parametrize("family", [4, 6])
def test_default_deny_of_ingress(lab: Lab, node: Node, family: int) -> None:
    """Nobody gets in; what the endpoint itself begins is answered."""
    a, b = lab.pods["a"], lab.pods["b"]
    address = b.v4 if family == 4 else b.v6
    node.policy(rows(2, INGRESS, DENY))
    assert not reaches(a.ns, address, 80)
    assert not reaches(lab.outside, address, 80)
    assert not reaches(lab.node_ns, address, 80)
    assert not ping(lab, a.ns, address)
    assert not udp_echo(lab, a.ns, b.ns, address, 5353)
    assert {event.reason for event in node.drops()} == {"Policy denied"}
    assert reaches(b.ns, a.v4 if family == 4 else a.v6, 80)
    assert reaches(b.ns, OUTSIDE4 if family == 4 else OUTSIDE6, 80)
    assert ping(lab, b.ns, OUTSIDE4 if family == 4 else OUTSIDE6)
    assert udp_echo(lab, b.ns, a.ns, a.v4 if family == 4 else a.v6, 5353)
    assert node.drops() == []


def test_default_deny_of_egress(lab: Lab, node: Node) -> None:
    a, b = lab.pods["a"], lab.pods["b"]
    node.policy(rows(1, EGRESS, DENY))
    assert not reaches(a.ns, b.v4, 80)
    assert not reaches(a.ns, OUTSIDE6, 80)
    assert reaches(b.ns, a.v4, 80)
    assert ping(lab, lab.outside, a.v6)


def test_a_drop_event_says_all_about_the_packet(lab: Lab, node: Node) -> None:
    a, b = lab.pods["a"], lab.pods["b"]
    node.policy(rows(2, INGRESS, DENY))
    assert not reaches(a.ns, b.v6, 80)
    event = node.drops()[0]
    assert (event.reason, event.kind, event.src, event.dst) == ("Policy denied", "drop", a.v6, b.v6)
    assert (event.proto, event.dport, event.tcp_flags & 0x3F) == (TCP, 80, 2)
    assert (event.src_identity, event.dst_identity, event.endpoint_id, event.direction) == (A, B, 2, INGRESS)
    assert (event.src_endpoint, event.dst_endpoint, event.reply) == (1, 2, False)
    assert event.ifindex == netns.call(lab.node_ns, lambda: socket.if_nametoindex(a.interface))
    assert 1024 <= event.sport <= 65535
    assert 74 <= event.length <= 94
    node.policy(rows(1, EGRESS, DENY))
    ping(lab, a.ns, OUTSIDE4)
    [event] = node.drops()
    assert (event.src, event.dst, event.proto, event.sport, event.dport) == (a.v4, OUTSIDE4, 1, 0, 0)
    assert (event.icmp_type, event.icmp_code, event.endpoint_id, event.direction) == (8, 0, 1, EGRESS)
    assert (event.src_identity, event.dst_identity, event.src_endpoint, event.dst_endpoint) == (A, WORLD, 1, 0)


def test_drops_are_counted_by_reason(lab: Lab, node: Node) -> None:
    node.policy(rows(2, INGRESS, DENY))
    before = node.counters()
    for _ in range(3):
        ping(lab, lab.pods["a"].ns, lab.pods["b"].v4)
    after = node.counters()
    assert after["Policy denied"] - before["Policy denied"] == 3


def test_rows_of_an_identity_come_before_those_of_all(lab: Lab, node: Node) -> None:
    a, b = lab.pods["a"], lab.pods["b"]
    node.policy(rows(2, INGRESS, DENY), rows(2, INGRESS, ALLOW, identity=A))
    assert reaches(a.ns, b.v4, 80)
    assert not reaches(lab.outside, b.v4, 80)
    node.policy(rows(2, INGRESS, ALLOW), rows(2, INGRESS, DENY, identity=HOST))
    assert not reaches(lab.node_ns, b.v4, 80)
    assert reaches(lab.outside, b.v6, 80)


def test_a_denial_of_either_side_counts(lab: Lab, node: Node) -> None:
    a, b = lab.pods["a"], lab.pods["b"]
    node.policy(rows(1, EGRESS, ALLOW), rows(2, INGRESS, DENY))
    assert not reaches(a.ns, b.v4, 80)
    node.policy(rows(1, EGRESS, DENY, identity=B), rows(2, INGRESS, PROXY))
    assert not reaches(a.ns, b.v4, 80)
    assert {event.reason for event in node.drops()} == {"Policy denied"}


def test_port_prefixes_match_their_ports_only(lab: Lab, node: Node) -> None:
    a, b = lab.pods["a"], lab.pods["b"]
    servers = [Echo(b.ns, port) for port in (8191, 8192, 8199, 8200)]
    node.policy(rows(2, INGRESS, DENY, *((port, ALLOW) for port in range(8192, 8200))))
    assert [reaches(a.ns, b.v4, port) for port in (8191, 8192, 8199, 8200)] == [False, True, True, False]
    block = PolicyRow(2, INGRESS, 0, TCP, 8192, 13, ALLOW)
    node.policy([block])
    node.drops()
    for server in servers:
        server.close()


def test_protocols_are_apart(lab: Lab, node: Node) -> None:
    a, b = lab.pods["a"], lab.pods["b"]
    only_udp = [row._replace(verdict=ALLOW) if row.protocol == UDP else row for row in rows(2, INGRESS, DENY)]
    node.policy(only_udp)
    assert udp_echo(lab, a.ns, b.ns, b.v4, 5353)
    assert not reaches(a.ns, b.v4, 80)
    assert not ping(lab, a.ns, b.v6)
    only_rest = [row._replace(verdict=ALLOW) if row.protocol == OTHER else row for row in rows(2, INGRESS, DENY)]
    node.policy(only_rest)
    assert ping(lab, a.ns, b.v6)
    assert not udp_echo(lab, a.ns, b.ns, b.v6, 5353)


def test_audit_passes_and_is_reported_once_a_flow(lab: Lab, node: Node) -> None:
    a, b = lab.pods["a"], lab.pods["b"]
    node.policy(rows(2, INGRESS, ALLOW, audit=True))
    assert ask(a.ns, b.v4, 80) == b"server:hello"
    [event] = node.events()
    assert (event.kind, event.reason, event.src, event.dst, event.dport) == ("audit", "Policy denied", a.v4, b.v4, 80)
    assert (event.endpoint_id, event.direction) == (2, INGRESS)


def test_a_reply_is_no_way_in(lab: Lab, node: Node) -> None:
    """The tuple of an allowed flow, reversed, does not let the server open a connection to its client."""
    a, b = lab.pods["a"], lab.pods["b"]
    node.policy(rows(1, INGRESS, DENY))
    with netns.connect(a.ns, (b.v4, 80)) as sock:
        sock.sendall(b"x")
        assert sock.recv(100) == b"server:x"
        port = sock.getsockname()[1]
        raw.send(b.ns, raw.ipv4(b.v4, a.v4, TCP, raw.tcp(b.v4, a.v4, 80, port, raw.SYN)))
        [event] = node.drops()
        assert (event.reason, event.src, event.sport, event.dport) == ("Policy denied", b.v4, 80, port)


class TestChange:
    """Flows that live while the policy changes."""

    def test_what_is_still_allowed_goes_on(self, lab: Lab, node: Node) -> None:
        a, b = lab.pods["a"], lab.pods["b"]
        with netns.connect(a.ns, (b.v4, 80)) as sock:
            for default in (ALLOW, DENY):
                node.policy(rows(2, INGRESS, default, (80, ALLOW)))
                sock.sendall(b"more")
                assert sock.recv(100) == b"server:more"
        assert node.drops() == []

    @pytest.mark.parametrize("path", ["pod", "outside", "host"])
    def test_what_is_not_is_cut_by_name(self, lab: Lab, node: Node, path: str) -> None:
        b = lab.pods["b"]
        ns = {"pod": lab.pods["a"].ns, "outside": lab.outside, "host": lab.node_ns}[path]
        with netns.connect(ns, (b.v6, 80)) as sock:
            sock.sendall(b"one")
            assert sock.recv(100) == b"server:one"
            node.policy(rows(2, INGRESS, DENY))
            sock.settimeout(0.7)
            sock.sendall(b"two")
            with pytest.raises(TimeoutError):
                sock.recv(100)
            reasons = {event.reason for event in node.drops(changed=True)}
            assert reasons == {"Policy denied (changed)"}
            node.policy()
            sock.settimeout(5.0)
            assert sock.recv(100) == b"server:two"

    def test_what_now_needs_the_proxy_is_cut(self, lab: Lab, node: Node) -> None:
        a, b = lab.pods["a"], lab.pods["b"]
        node.proxy()
        with netns.connect(a.ns, (b.v4, 80)) as sock:
            sock.sendall(b"one")
            assert sock.recv(100) == b"server:one"
            node.policy(rows(2, INGRESS, DENY, (80, PROXY)))
            sock.sendall(b"two")
            with pytest.raises(ConnectionResetError):
                sock.recv(100)
        assert "Policy changed (flow needs the proxy)" in {event.reason for event in node.drops()}
        assert node.seen() == []

    def test_the_server_cannot_reopen_it_past_the_proxy(self, lab: Lab, node: Node) -> None:
        """After the cut the server speaks first: its data must not make the client's side a mere answer."""
        a, b = lab.pods["a"], lab.pods["b"]
        node.proxy()
        listener = netns.listen(b.ns, (b.v4, 8085))
        with listener, netns.connect(a.ns, (b.v4, 8085)) as client:
            server, _ = listener.accept()
            with server:
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                node.policy(rows(2, INGRESS, DENY, (8085, PROXY)))
                server.sendall(b"first")  # this one cuts the flow
                time.sleep(0.05)
                server.sendall(b"again")
                time.sleep(0.4)
                with suppress(OSError):
                    client.sendall(b"evil")
                server.settimeout(1.0)
                with suppress(OSError):
                    assert server.recv(100) == b""

    def test_what_the_proxy_has_stays_with_it(self, lab: Lab, node: Node) -> None:
        a, b = lab.pods["a"], lab.pods["b"]
        node.proxy()
        node.policy(rows(2, INGRESS, DENY, (80, PROXY)))
        with netns.connect(a.ns, (b.v4, 80)) as sock:
            for ports in ([(80, PROXY)], [(80, ALLOW)]):
                node.policy(rows(2, INGRESS, DENY, *ports))
                sock.sendall(b"more")
                assert sock.recv(100).endswith(b"more")
            node.policy(rows(2, INGRESS, DENY))
            sock.settimeout(0.7)
            sock.sendall(b"late")
            with pytest.raises(TimeoutError):
                sock.recv(100)
        assert {event.reason for event in node.drops(changed=True)} == {"Policy denied (changed)"}
