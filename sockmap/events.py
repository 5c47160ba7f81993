"""Records of single packets: drops, and what passes only because a policy is in audit mode."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

_EVENT = struct.Struct("=Q16s16s2s2sB3xIIIIHHHBBBBBBB3x")
_MAPPED = b"\0" * 10 + b"\xff\xff"


class Event(NamedTuple):
    """One packet. `kind` is "drop" or "audit"; `direction` 0 is ingress, 1 egress, of `endpoint_id`'s policy.

    All else is as the packet goes. If that is a `reply`, its flow goes the other way, and policy judges flows.
    `src_endpoint` and `dst_endpoint` are 0 where an end is not managed on this node.
    Ports are 0 where the protocol has none; `length` is in bytes with the link header; `time_ns` is CLOCK_MONOTONIC.
    """

    reason: str
    kind: str
    src: str
    dst: str
    proto: int
    sport: int
    dport: int
    src_identity: int
    dst_identity: int
    endpoint_id: int
    direction: int
    ifindex: int
    icmp_type: int
    icmp_code: int
    length: int
    tcp_flags: int
    time_ns: int
    src_endpoint: int = 0
    dst_endpoint: int = 0
    reply: bool = False


def _address(data: bytes) -> str:
    if data.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, data[12:])
    return socket.inet_ntop(socket.AF_INET6, data)


def decode(data: bytes, reasons: dict[int, str]) -> Event:
    """An Event from `struct event` of bpf/maps.h. Raises struct.error for another size."""
    (
        time_ns, src, dst, sport, dport, proto, src_identity, dst_identity, ifindex, length,
        src_endpoint, dst_endpoint, endpoint, reason, audit, direction, reply, tcp_flags, icmp_type, icmp_code,
    ) = _EVENT.unpack(data)  # fmt: skip
    icmp = proto in (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6)
    return Event(
        reason=reasons.get(reason, f"reason {reason}"),
        kind="audit" if audit else "drop",
        src=_address(src),
        dst=_address(dst),
        proto=proto,
        sport=0 if icmp else int.from_bytes(sport, "big"),
        dport=0 if icmp else int.from_bytes(dport, "big"),
        src_identity=src_identity,
        dst_identity=dst_identity,
        endpoint_id=endpoint,
        direction=direction,
        ifindex=ifindex,
        icmp_type=icmp_type,
        icmp_code=icmp_code,
        length=length,
        tcp_flags=tcp_flags,
        time_ns=time_ns,
        src_endpoint=src_endpoint,
        dst_endpoint=dst_endpoint,
        reply=bool(reply),
    )
