"""Packets made by hand, byte by byte, and sent from a namespace."""

from __future__ import annotations

import socket
import struct

from tests import netns

SYN, ACK = 0x02, 0x10
ETH_IPV4, ETH_IPV6 = 0x0800, 0x86DD


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total = 0
    for start in range(0, len(data), 2):
        total += int.from_bytes(data[start : start + 2].ljust(2, b"\0"), "big")
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def fill_checksum(src: str, dst: str, proto: int, segment: bytes, at: int) -> bytes:
    """The segment with its checksum, over the pseudo header too, at offset `at`."""
    family = socket.AF_INET6 if ":" in src else socket.AF_INET
    ends = socket.inet_pton(family, src) + socket.inet_pton(family, dst)
    size, kind = len(segment), proto
    pseudo = ends + (struct.pack("!IxxxB", size, kind) if ":" in src else struct.pack("!xBH", kind, size))
    return segment[:at] + struct.pack("!H", checksum(pseudo + segment)) + segment[at + 2 :]


def tcp(src: str, dst: str, sport: int, dport: int, flags: int = SYN, *, doff: int = 5, data: bytes = b"") -> bytes:
    """A TCP segment."""
    head = struct.pack("!HHIIBBHHH", sport, dport, 1, 1, doff << 4, flags, 1000, 0, 0)
    return fill_checksum(src, dst, 6, head + data, 16)


def udp(src: str, dst: str, sport: int, dport: int, data: bytes = b"x") -> bytes:
    """A UDP datagram."""
    return fill_checksum(src, dst, 17, struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data, 6)


def icmp4(kind: int, code: int, rest: int = 0, data: bytes = b"") -> bytes:
    """An ICMP message; `rest` are its second four bytes."""
    message = struct.pack("!BBHI", kind, code, 0, rest) + data
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def icmp6(src: str, dst: str, kind: int, code: int, rest: int = 0, data: bytes = b"") -> bytes:
    """An ICMPv6 message; `rest` are its second four bytes."""
    return fill_checksum(src, dst, 58, struct.pack("!BBHI", kind, code, 0, rest) + data, 2)


def ipv4(src: str, dst: str, proto: int, payload: bytes, *, fragment: int = 0, ident: int = 7, ihl: int = 5) -> bytes:
    """An IPv4 packet; `fragment` is the field of flags and offset."""
    ends = socket.inet_aton(src) + socket.inet_aton(dst)
    head = struct.pack("!BBHHHBBH", 0x40 | ihl, 0, 20 + len(payload), ident, fragment, 64, proto, 0) + ends
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(src: str, dst: str, following: int, payload: bytes, *, hops: int = 64) -> bytes:
    """An IPv6 packet; extension headers are part of `payload`."""
    ends = socket.inet_pton(socket.AF_INET6, src) + socket.inet_pton(socket.AF_INET6, dst)
    return struct.pack("!IHBB", 6 << 28, len(payload), following, hops) + ends + payload


def options6(following: int) -> bytes:
    """A destination or hop-by-hop options header that holds padding alone."""
    return struct.pack("!BBBB4x", following, 0, 1, 4)


def fragment6(following: int, offset: int, more: bool, ident: int = 9) -> bytes:
    """A fragment header; `offset` in units of 8 bytes."""
    return struct.pack("!BxHI", following, offset << 3 | more, ident)


def routing6(following: int, segments_left: int) -> bytes:
    """A type 0 routing header."""
    return struct.pack("!BBBB4x", following, 0, 0, segments_left)


def send(ns: str, packet: bytes, interface: str = "eth0", times: int = 1) -> None:
    """Send an IP packet from the namespace, to the link layer's broadcast address unless the peer is known."""

    def transmit() -> None:
        kind = ETH_IPV6 if packet[0] >> 4 == 6 else ETH_IPV4
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind((interface, 0))
            own: bytes = sock.getsockname()[4]
            frame = gateway(interface) + own + struct.pack("!H", kind) + packet
            for _ in range(times):
                sock.send(frame)

    netns.call(ns, transmit)


def gateway(interface: str) -> bytes:
    """The link-layer address of the other end, which a first connection has made known. Called in the namespace."""
    done = netns.run(["ip", "-o", "neigh", "show", "dev", interface])
    for line in done.stdout.splitlines():
        words = line.split()
        if "lladdr" in words:
            return bytes.fromhex(words[words.index("lladdr") + 1].replace(":", ""))
    raise AssertionError(f"no neighbour on {interface} is known")


class Sniffer:
    """IP packets that arrive on an interface of a namespace, from now on."""

    def __init__(self, ns: str, interface: str = "eth0") -> None:
        self._sock = netns.call(ns, lambda: self._open(interface))

    @staticmethod
    def _open(interface: str) -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        sock.bind((interface, 3))
        sock.settimeout(0.4)
        return sock

    def packets(self) -> list[bytes]:
        """All that comes until 0.4 s pass without any; what the interface itself sends is left out."""
        found = []
        try:
            while True:
                data, address = self._sock.recvfrom(65536)
                if address[2] != 4:  # PACKET_OUTGOING
                    found.append(data)
        except TimeoutError:
            return found

    def close(self) -> None:
        """Stop."""
        self._sock.close()
