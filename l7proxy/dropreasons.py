"""The datapath's drop reasons in Hubble's words: `DropReason` of Cilium's ``api/v1/flow/flow.proto``."""

from __future__ import annotations

POLICY_DENIED = (133, "POLICY_DENIED")
"""No rule allows it."""
POLICY_DENY = (181, "POLICY_DENY")
"""A deny rule forbids it."""
INVALID_PACKET = (134, "INVALID_PACKET_DROPPED")
_UNKNOWN = (0, "DROP_REASON_UNKNOWN")
_SOURCE = (132, "INVALID_SOURCE_IP")

# The nearest of Hubble's reasons; our own words stand in the record beside them.
_REASONS = {
    "Policy denied": POLICY_DENIED,
    "Policy denied (changed)": POLICY_DENIED,
    "Policy changed (flow needs the proxy)": POLICY_DENIED,
    "Proxy unavailable": (178, "SOCKET_LOOKUP_FAILED"),
    "Socket assign failed": (179, "SOCKET_ASSIGN_FAILED"),
    "Invalid source ip": _SOURCE,
    "Spoofed source ip (a local endpoint's)": _SOURCE,
    "Invalid IPv4 header": INVALID_PACKET,
    "Invalid IPv6 header": INVALID_PACKET,
    "IPv4-mapped IPv6 address": INVALID_PACKET,
    "Invalid or truncated L4 header": (135, "CT_TRUNCATED_OR_INVALID_HEADER"),
    "Unsupported IPv6 extension header": (156, "INVALID_IPV6_EXTENSION_HEADER"),
    "Fragment not found": (175, "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND"),
    "Invalid fragment": INVALID_PACKET,
    "Connection tracking failed": (155, "CT_MAP_INSERTION_FAILED"),
}


def hubble_reason(reason: str, by_rule: bool) -> tuple[int, str]:
    """Number and name of a reason of the datapath. `by_rule`: a deny rule decided."""
    found = _REASONS.get(reason, _UNKNOWN)
    return POLICY_DENY if by_rule and found is POLICY_DENIED else found
