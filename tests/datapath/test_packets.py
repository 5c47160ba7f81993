"""Packets that are odd: forged sources, fragments, extension headers, errors, cut short."""

from __future__ import annotations

import socket
import struct

import pytest

from tests import netns
from tests.datapath import raw
from tests.datapath.harness import ALLOW, DENY, EGRESS, INGRESS, OTHER, PROXY, TCP, UDP, WORLD, Node, ask, reaches, rows
from tests.lab import OUTSIDE4, OUTSIDE6, Lab

pytestmark = pytest.mark.privileged
MORE = 0x2000
_REPAIR, _REPAIR_QUEUE, _QUEUE_SEQ = 19, 20, 21


def sequence(sock: socket.socket) -> tuple[int, int]:
    """The next sequence number that a connection sends, and the next that it expects."""
    sock.setsockopt(socket.IPPROTO_TCP, _REPAIR, 1)
    numbers = []
    for queue in (2, 1):
        sock.setsockopt(socket.IPPROTO_TCP, _REPAIR_QUEUE, queue)
        numbers.append(sock.getsockopt(socket.IPPROTO_TCP, _QUEUE_SEQ) & 0xFFFFFFFF)
    sock.setsockopt(socket.IPPROTO_TCP, _REPAIR, -1)
    return numbers[0], numbers[1]


def segment(src: str, dst: str, ports: tuple[int, int], numbers: tuple[int, int], data: bytes) -> bytes:
    """A TCP data segment of an open connection."""
    head = struct.pack("!HHIIBBHHH", *ports, *numbers, 5 << 4, raw.ACK | 8, 1000, 0, 0)
    return raw.fill_checksum(src, dst, TCP, head + data, 16)


@pytest.fixture(autouse=True)
def neighbours_are_known(lab: Lab, node: Node) -> None:
    for ns in (lab.pods["a"].ns, lab.outside):
        ask(ns, lab.pods["b"].v4, 81)
        ask(ns, lab.pods["b"].v6, 81)


def reasons(node: Node) -> list[str]:
    return [event.reason for event in node.drops()]


class TestSource:
    @pytest.mark.parametrize("family", [4, 6])
    def test_a_pod_cannot_send_as_another(self, lab: Lab, node: Node, family: int) -> None:
        a, b = lab.pods["a"], lab.pods["b"]
        if family == 4:
            packets = [raw.ipv4(src, b.v4, UDP, raw.udp(src, b.v4, 1, 2)) for src in (OUTSIDE4, "10.77.0.1", b.v4)]
        else:
            packets = [raw.ipv6(src, b.v6, UDP, raw.udp(src, b.v6, 1, 2)) for src in (OUTSIDE6, "fd77::1", b.v6)]
        for packet in packets:
            raw.send(a.ns, packet)
        events = node.drops()
        assert [event.reason for event in events] == ["Invalid source ip"] * 3
        assert {(event.endpoint_id, event.direction, event.src_identity) for event in events} == {(1, EGRESS, 1001)}

    def test_nobody_outside_can_send_as_a_pod(self, lab: Lab, node: Node) -> None:
        a, b = lab.pods["a"], lab.pods["b"]
        raw.send(lab.outside, raw.ipv4(a.v4, b.v4, UDP, raw.udp(a.v4, b.v4, 1, 2)))
        raw.send(lab.outside, raw.ipv6(a.v6, b.v6, UDP, raw.udp(a.v6, b.v6, 1, 2)))
        raw.send(lab.outside, raw.ipv4(a.v4, "192.0.2.1", UDP, raw.udp(a.v4, "192.0.2.1", 1, 2)))
        assert reasons(node) == ["Spoofed source ip (a local endpoint's)"] * 3

    def test_no_group_is_a_source(self, lab: Lab, node: Node) -> None:
        b = lab.pods["b"]
        raw.send(lab.outside, raw.ipv4("224.0.0.9", b.v4, UDP, raw.udp("224.0.0.9", b.v4, 1, 2)))
        raw.send(lab.outside, raw.ipv4("239.1.2.3", b.v4, UDP, raw.udp("239.1.2.3", b.v4, 1, 2)))
        raw.send(lab.outside, raw.ipv6("ff02::9", b.v6, UDP, raw.udp("ff02::9", b.v6, 1, 2)))
        raw.send(b.ns, raw.ipv6("ff02::1", b.v6, 58, raw.icmp6("ff02::1", b.v6, 136, 0, data=bytes(16)), hops=255))
        assert reasons(node) == ["Invalid source ip"] * 4


class TestIpv4MappedAddresses:
    """The programs hold IPv4 addresses in this form: a packet that has them on the wire would share IPv4's flows."""

    def test_they_are_no_address_of_a_packet(self, lab: Lab, node: Node) -> None:
        a, b = lab.pods["a"], lab.pods["b"]
        mapped, peer = f"::ffff:{a.v4}", f"::ffff:{b.v4}"
        before = node.counters()["IPv4-mapped IPv6 address"]
        for src, dst in ((mapped, peer), (mapped, b.v6), (a.v6, peer), ("::ffff:0.0.0.0", b.v6)):
            raw.send(a.ns, raw.ipv6(src, dst, UDP, raw.udp(src, dst, 1, 2)))
        outside = f"::ffff:{OUTSIDE4}"
        raw.send(lab.outside, raw.ipv6(outside, b.v6, UDP, raw.udp(outside, b.v6, 1, 2)))
        raw.send(lab.outside, raw.ipv6(OUTSIDE6, peer, UDP, raw.udp(OUTSIDE6, peer, 1, 2)))
        assert reasons(node) == ["IPv4-mapped IPv6 address"] * 6
        assert node.counters()["IPv4-mapped IPv6 address"] == before + 6

    def test_a_prefix_of_ipv6_holds_no_ipv4(self, lab: Lab, node: Node) -> None:
        """`::/0` is every IPv6 address, and no other."""
        a = lab.pods["a"]
        node.policy(rows(1, EGRESS, DENY), entries=node.entries({"::/0": 3001, "::ffff:192.0.2.0/120": 3002}))
        for address in (OUTSIDE4, OUTSIDE6):
            assert not reaches(a.ns, address, 80)
        assert {(event.dst, event.dst_identity) for event in node.drops()} == {(OUTSIDE4, WORLD), (OUTSIDE6, 3001)}


class TestMalformed:
    def test_each_has_its_name(self, lab: Lab, node: Node) -> None:
        a, b = lab.pods["a"], lab.pods["b"]
        for packet, reason in (
            (raw.ipv4(a.v4, b.v4, UDP, raw.udp(a.v4, b.v4, 1, 2), ihl=4), "Invalid IPv4 header"),
            (raw.ipv4(a.v4, b.v4, TCP, raw.tcp(a.v4, b.v4, 1, 2)[:12]), "Invalid or truncated L4 header"),
            (raw.ipv4(a.v4, b.v4, TCP, raw.tcp(a.v4, b.v4, 1, 2, doff=4)), "Invalid or truncated L4 header"),
            (raw.ipv4(a.v4, b.v4, UDP, b"1234567"), "Invalid or truncated L4 header"),
            (raw.ipv6(a.v6, b.v6, TCP, raw.tcp(a.v6, b.v6, 1, 2)[:19]), "Invalid or truncated L4 header"),
            (raw.ipv6(a.v6, b.v6, 60, b"\x06"), "Invalid IPv6 header"),
            (b"\x50" + raw.ipv4(a.v4, b.v4, UDP, raw.udp(a.v4, b.v4, 1, 2))[1:], "Invalid IPv4 header"),
        ):
            raw.send(a.ns, packet)
            assert reasons(node) == [reason], packet


class TestExtensionHeaders:
    def test_the_usual_ones_are_walked(self, lab: Lab, node: Node) -> None:
        """The port behind them decides: allowed here, refused there."""
        a, b = lab.pods["a"], lab.pods["b"]
        open_port = [r._replace(protocol=UDP) for r in rows(2, INGRESS, DENY, (53, ALLOW)) if r.protocol == TCP]
        node.policy(open_port + [r for r in rows(2, INGRESS, DENY) if r.protocol != UDP])
        sniffer = raw.Sniffer(b.ns)
        for port in (53, 54):
            datagram = raw.options6(43) + raw.routing6(60, 0) + raw.options6(UDP) + raw.udp(a.v6, b.v6, 1000, port)
            raw.send(a.ns, raw.ipv6(a.v6, b.v6, 0, datagram))
        arrived = [packet for packet in sniffer.packets() if packet[:1] == b"\x60" and packet[6] == 0]
        sniffer.close()
        assert [int.from_bytes(packet[66:68], "big") for packet in arrived] == [53]
        [event] = node.drops()
        assert (event.reason, event.proto, event.dport) == ("Policy denied", UDP, 54)

    def test_the_proxy_gets_what_stands_behind_them(self, lab: Lab, node: Node) -> None:
        a, b = lab.pods["a"], lab.pods["b"]
        node.policy(rows(2, INGRESS, DENY, (80, PROXY)))
        node.proxy()
        before = node.counters()["steered"]
        raw.send(a.ns, raw.ipv6(a.v6, b.v6, 60, raw.options6(TCP) + raw.tcp(a.v6, b.v6, 2000, 80)))
        lab.wait(lambda: node.counters()["steered"] > before)
        assert node.drops() == []

    def test_others_are_dropped_by_name(self, lab: Lab, node: Node) -> None:
        a, b = lab.pods["a"], lab.pods["b"]
        datagram = raw.udp(a.v6, b.v6, 1, 2)
        chains = [
            (60, raw.options6(60) * 6 + raw.options6(UDP) + datagram),
            (43, raw.routing6(UDP, 1) + datagram),
            (59, b""),
            (135, raw.options6(59)),
            (60, raw.options6(253) + datagram),
        ]
        for following, payload in chains:
            raw.send(a.ns, raw.ipv6(a.v6, b.v6, following, payload))
        assert reasons(node) == ["Unsupported IPv6 extension header"] * len(chains)


class TestFragments:
    @pytest.mark.parametrize("family", [4, 6])
    def test_all_of_an_allowed_packet_pass(self, lab: Lab, node: Node, family: int) -> None:
        a, b = lab.pods["a"], lab.pods["b"]
        node.policy([r._replace(verdict=ALLOW) if r.protocol in (UDP, OTHER) else r for r in rows(2, INGRESS, DENY)])
        address, wildcard = (b.v4, "0.0.0.0") if family == 4 else (b.v6, "::")
        lab.run(a.ns, ["ping", "-c2", "-i0.2", "-W2", "-s", "3000", address])
        with netns.datagram(b.ns, (address, 5000)) as server, netns.datagram(a.ns, (wildcard, 0)) as client:
            client.sendto(bytes(5000), (address, 5000))
            assert len(server.recv(65536)) == 5000
        assert node.drops() == []

    def test_all_of_a_refused_packet_are_dropped(self, lab: Lab, node: Node) -> None:
        a, b = lab.pods["a"], lab.pods["b"]
        node.policy(rows(2, INGRESS, DENY))
        with netns.datagram(a.ns, ("0.0.0.0", 0)) as client:
            client.sendto(bytes(4000), (b.v4, 5000))
        assert reasons(node) == ["Policy denied"] * 3

    def test_a_later_one_needs_its_first(self, lab: Lab, node: Node) -> None:
        a, b = lab.pods["a"], lab.pods["b"]
        raw.send(a.ns, raw.ipv4(a.v4, b.v4, UDP, bytes(64), fragment=185, ident=4711))
        raw.send(a.ns, raw.ipv6(a.v6, b.v6, 44, raw.fragment6(UDP, 185, False, 4711) + bytes(64)))
        assert reasons(node) == ["Fragment not found"] * 2

    def test_no_second_fragment_reaches_into_a_tcp_header(self, lab: Lab, node: Node) -> None:
        a, b = lab.pods["a"], lab.pods["b"]
        raw.send(a.ns, raw.ipv4(a.v4, b.v4, TCP, bytes(16), fragment=1))
        raw.send(a.ns, raw.ipv4(a.v4, b.v4, TCP, raw.tcp(a.v4, b.v4, 1, 2)[:16], fragment=MORE))
        assert reasons(node) == ["Invalid fragment", "Invalid or truncated L4 header"]

    @pytest.mark.parametrize("family", [4, 6])
    def test_the_proxy_gets_a_packet_put_together(self, lab: Lab, node: Node, family: int) -> None:
        a, b = lab.pods["a"], lab.pods["b"]
        src, dst = (a.v4, b.v4) if family == 4 else (a.v6, b.v6)
        node.policy(rows(2, INGRESS, DENY, (80, PROXY)))
        node.proxy()
        with netns.connect(a.ns, (dst, 80)) as sock:
            data = segment(src, dst, (sock.getsockname()[1], 80), sequence(sock), bytes(range(60)))
            for offset, part, more in ((0, data[:40], True), (5, data[40:], False)):
                if family == 4:
                    raw.send(a.ns, raw.ipv4(src, dst, TCP, part, fragment=(MORE if more else 0) | offset, ident=99))
                else:
                    raw.send(a.ns, raw.ipv6(src, dst, 44, raw.fragment6(TCP, offset, more, 99) + part))
            # The client's own kernel never sent those bytes, so it refuses the answer; the proxy has read them.
            lab.wait(lambda: "bytes_received:60" in lab.run(lab.node_ns, ["ss", "-tani"]).stdout, what="60 bytes")


class TestErrors:
    @pytest.mark.parametrize("family", [4, 6])
    def test_those_about_a_flow_come_back(self, lab: Lab, node: Node, family: int) -> None:
        a, b = lab.pods["a"], lab.pods["b"]
        address = b.v4 if family == 4 else b.v6
        node.policy(rows(1, INGRESS, DENY))
        with netns.datagram(a.ns, ("0.0.0.0" if family == 4 else "::", 0)) as client:
            client.connect((address, 9))
            client.send(b"x")
            with pytest.raises(ConnectionRefusedError):
                client.recv(10)
        assert node.drops() == []

    @pytest.mark.parametrize("family", [4, 6])
    def test_those_about_none_are_judged(self, lab: Lab, node: Node, family: int) -> None:
        a, b = lab.pods["a"], lab.pods["b"]
        node.policy(rows(1, INGRESS, DENY))
        if family == 4:
            inner = raw.ipv4(a.v4, OUTSIDE4, UDP, raw.udp(a.v4, OUTSIDE4, 6000, 6001))
            packet = raw.ipv4(OUTSIDE4, a.v4, 1, raw.icmp4(3, 3, data=inner))
        else:
            inner = raw.ipv6(a.v6, OUTSIDE6, UDP, raw.udp(a.v6, OUTSIDE6, 6000, 6001))
            packet = raw.ipv6(OUTSIDE6, a.v6, 58, raw.icmp6(OUTSIDE6, a.v6, 1, 4, data=inner))
        raw.send(lab.outside, packet)
        assert reasons(node) == ["Policy denied"]
        # Nor does an error about somebody else's flow open the way.
        with netns.connect(lab.outside, (b.v4, 81)) as sock:
            port = sock.getsockname()[1]
            inner = raw.ipv4(OUTSIDE4, b.v4, TCP, raw.tcp(OUTSIDE4, b.v4, port, 81, raw.ACK))
            raw.send(lab.outside, raw.ipv4(OUTSIDE4, a.v4, 1, raw.icmp4(3, 3, data=inner)))
        assert reasons(node) == ["Policy denied"]

    def test_too_big_reaches_the_proxys_socket(self, lab: Lab, node: Node) -> None:
        b = lab.pods["b"]
        node.policy(rows(2, INGRESS, DENY, (80, PROXY)))
        node.proxy()
        with netns.connect(lab.outside, (b.v4, 80)) as sock:
            sock.sendall(b"x")
            assert sock.recv(100)
            port = sock.getsockname()[1]
            head = struct.pack("!HHIIBBHHH", 80, port, sequence(sock)[1], 0, 5 << 4, raw.ACK, 0, 0, 0)
            inner = raw.ipv4(b.v4, OUTSIDE4, TCP, head)
            raw.send(lab.outside, raw.ipv4(OUTSIDE4, b.v4, 1, raw.icmp4(3, 4, 1300, inner)))
            lab.wait(lambda: "pmtu:1300" in lab.run(lab.node_ns, ["ss", "-tani"]).stdout, what="path MTU")


def test_neighbour_discovery_passes_under_default_deny(lab: Lab, node: Node) -> None:
    b = lab.pods["b"]
    node.policy(rows(2, INGRESS, DENY), rows(2, EGRESS, DENY))
    lab.run(lab.node_ns, ["ip", "neigh", "flush", "dev", b.interface])
    lab.run(lab.node_ns, ["ping", "-c1", "-W1", b.v6], check=False)
    shown = lab.run(lab.node_ns, ["ip", "neigh", "show", b.v6, "dev", b.interface]).stdout
    assert "lladdr" in shown
    # What claims to be discovery but may have come from afar is judged like anything else.
    node.events()
    raw.send(b.ns, raw.ipv6(b.v6, "fd77::1", 58, raw.icmp6(b.v6, "fd77::1", 136, 0, data=bytes(16)), hops=64))
    assert ("Policy denied", 136) in {(event.reason, event.icmp_type) for event in node.drops()}
