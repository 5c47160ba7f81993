"""What worker processes need of the datapath: whose flow a connection is, and a place for their listeners."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from sockmap.bpfmap import BpfMap

PROXY, UPSTREAM, AUDIT, BLOCKED, HOST_SERVER = 1, 2, 4, 8, 16
"""Flags of a flow, `enum ct_flags` of bpf/maps.h."""

FLOW_KEY = struct.Struct("=16s16sHHB3x")
FLOW_VALUE = struct.Struct("=QIIIHHHB5x")
"""`struct tuple` and `struct ct_entry`; ports are big-endian, put in as bytes by `flow_key`."""
_V4_MAPPED = b"\0" * 10 + b"\xff\xff"


class Flow(NamedTuple):
    """A tracked flow. Endpoint ids are 0 where an end is not managed on this node."""

    src_identity: int
    dst_identity: int
    src_endpoint: int
    dst_endpoint: int
    generation: int
    flags: int

    @property
    def host_server(self) -> bool:
        """The server's address is the host's own: an upstream connection must not take the client's port, because
        the kernel would then take its packets for those of the client's own, accepted connection."""
        return bool(self.flags & HOST_SERVER)


def address_bytes(address: str) -> bytes:
    """16 bytes; IPv4 as ::ffff:a.b.c.d. A zone (``%eth0``) is left out. Raises OSError for what is no address."""
    address = address.partition("%")[0]
    if ":" in address:
        return socket.inet_pton(socket.AF_INET6, address)
    return _V4_MAPPED + socket.inet_pton(socket.AF_INET, address)


def flow_key(src_ip: str, src_port: int, dst_ip: str, dst_port: int, proto: int = socket.IPPROTO_TCP) -> bytes:
    """The key of a flow by its first packet's addresses."""
    src, dst = address_bytes(src_ip), address_bytes(dst_ip)
    return FLOW_KEY.pack(src, dst, socket.htons(src_port), socket.htons(dst_port), proto)


class FlowTable:
    """The connection track, read only. `fd` stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._map = BpfMap(fd, FLOW_KEY.size, FLOW_VALUE.size)

    def lookup(self, src_ip: str, src_port: int, dst_ip: str, dst_port: int) -> Flow | None:
        """The TCP flow that (src_ip, src_port) opened, or None."""
        value = self._map.lookup(flow_key(src_ip, src_port, dst_ip, dst_port))
        if value is None:
            return None
        _, generation, src, dst, src_endpoint, dst_endpoint, flags, _ = FLOW_VALUE.unpack(value)
        return Flow(src, dst, src_endpoint, dst_endpoint, generation, flags)


class ListenerTable:
    """Where steered flows find a worker: slot 2*worker for IPv4, 2*worker+1 for IPv6. `fd` stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._map = BpfMap(fd, 4, 4)

    def put(self, slot: int, listener_fd: int) -> None:
        """Enter a listening TCP socket; it leaves by itself when it is closed. Raises OSError."""
        self._map.update(struct.pack("=I", slot), struct.pack("=I", listener_fd))

    def delete(self, slot: int) -> None:
        """Take a listener out, if one is there."""
        try:
            self._map.delete(struct.pack("=I", slot))
        except OSError as error:
            if error.errno not in (2, 22):  # an empty slot of a sockmap is EINVAL
                raise
